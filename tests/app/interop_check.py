"""What lora-dist wrote loads in PEFT without a warning and gives the same logits, and the other way round.

    interop_check.py PROGRAM CASE_DIR WORK_DIR
"""
import json, subprocess, sys, warnings

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

program, case, work = sys.argv[1:]


def run(*arguments):
    return subprocess.run([program, *arguments], cwd=case, check=True, capture_output=True, text=True).stdout


def compare(adapter, name):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.simplefilter("ignore", FutureWarning)  # PEFT's use of transformers, not the adapter
        base = AutoModelForCausalLM.from_pretrained(f"{case}/model", dtype=torch.float32)
        model = PeftModel.from_pretrained(base, adapter).eval()
    records = [json.loads(line) for line in open(f"{case}/train.jsonl")][:8]
    data, logits = f"{work}/{name}.jsonl", f"{work}/{name}.safetensors"
    for record in records[1::2]:  # half of them with labels of their own
        record.pop("labels", None)
    assert any(-100 in r.get("labels", []) for r in records)
    open(data, "w").write("".join(json.dumps(r) + "\n" for r in records))
    lines = run("score", "--model", "model", "--dtype", "float32", "--adapter", adapter, "--data", data,
                "--logits-out", logits).splitlines()
    ours = load_file(logits)
    assert len(ours) == len(lines) == len(records)
    for i, record in enumerate(records):
        with torch.no_grad():
            ids = torch.tensor([record["input_ids"]])
            out = model(input_ids=ids, labels=torch.tensor([record.get("labels", record["input_ids"])]))
        error = (ours[str(i)] - out.logits[0]).abs().max() / out.logits.abs().max()
        assert error < 2e-5, (name, i, error)
        loss = json.loads(lines[i])["loss"]
        assert abs(loss / out.loss.item() - 1) < 1e-6, (name, i, loss, out.loss.item())
    print(f"{name}: {len(records)} records, same logits and losses")


run("--config", "config.yaml", "--set", f"training.output_dir={work}/ours", "--set", "training.max_steps=6",
    "--set", "training.warmup_steps=1")
compare(f"{work}/ours", "ours")

torch.manual_seed(5)
model = get_peft_model(AutoModelForCausalLM.from_pretrained(f"{case}/model", dtype=torch.float32),
                       LoraConfig(r=3, lora_alpha=5, target_modules=["query_key_value", "dense_4h_to_h"],
                                  rank_pattern={"dense_4h_to_h": 7}, task_type="CAUSAL_LM", init_lora_weights=False))
model.save_pretrained(f"{work}/theirs")
compare(f"{work}/theirs", "theirs")
