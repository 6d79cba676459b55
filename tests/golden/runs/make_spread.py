#!/usr/bin/env python3
"""How far Hugging Face's own bfloat16 runs of the reference cases are from their float64 run, on several
kinds of processor: writes spread.json beside this file.

    python make_spread.py FOLDER      # holds qkv/, all-linear/, head80/, head128-untied/ with their expected.json

The yardstick in expected.json is one run. The same script on another processor rounds elsewhere, and lands
up to twice as far away (head80, grad_norm: 0.009 with AVX512_BF16, 0.020 with AVX2). ONEDNN_MAX_CPU_ISA
makes torch run as on older ones; other cuts of an update into micro-batches change the order of sums.
Needs torch 2.13.0, transformers 5.23.0, peft 0.21.2. About five minutes on two cores.
"""
import json, math, os, subprocess, sys
from pathlib import Path

CASES = {"qkv": (4, 16), "all-linear": (4, 2), "head80": (3, 9, 1), "head128-untied": (8, 4)}  # micro-batch sizes
ISAS = ("DEFAULT", "AVX512_CORE", "AVX2")


def child(folder, size):
    import torch
    from peft import LoraConfig, get_peft_model
    from safetensors.torch import load_file
    from transformers import BloomForCausalLM, Trainer, TrainingArguments
    import yaml
    torch.set_num_threads(1)
    case = yaml.safe_load(open(f"{folder}/config.yaml"))
    expected = json.load(open(f"{folder}/expected.json"))
    l, t = case["lora"], case["training"]
    records = [json.loads(x) for x in open(f"{folder}/train.jsonl")]

    def collate(records):  # right padding: the loss is that of the unpadded sequences
        n = max(len(r["input_ids"]) for r in records)
        pad = lambda x, v: list(x) + [v] * (n - len(x))
        return {"input_ids": torch.tensor([pad(r["input_ids"], 3) for r in records]),
                "labels": torch.tensor([pad(r.get("labels", r["input_ids"]), -100) for r in records]),
                "attention_mask": torch.tensor([pad([1] * len(r["input_ids"]), 0) for r in records])}

    model = BloomForCausalLM.from_pretrained(f"{folder}/model", dtype=torch.bfloat16, attn_implementation="eager")
    keys = ("r", "lora_alpha", "lora_dropout", "bias", "target_modules", "use_rslora", "rank_pattern", "alpha_pattern",
            "layers_to_transform")
    model = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", **{k: l[k] for k in keys if k in l}))
    first = load_file(f"{folder}/adapter_init/adapter_model.safetensors")
    named = {k.replace(".weight", ".default.weight"): v for k, v in first.items()}
    assert not model.load_state_dict(named, strict=False).unexpected_keys
    total = t["per_device_train_batch_size"] * t["gradient_accumulation_steps"]
    own = {"per_device_train_batch_size": size, "gradient_accumulation_steps": total // size}
    drop = ("output_dir", "eval_steps", "logging_steps", "per_device_eval_batch_size")
    args = TrainingArguments(output_dir="/tmp/spread", logging_steps=1, save_strategy="no", report_to=[], use_cpu=True,
                             remove_unused_columns=False, disable_tqdm=True, optim="adamw_torch",
                             **({k: v for k, v in t.items() if k not in drop} | own))
    trainer = Trainer(model=model, args=args, train_dataset=records, data_collator=collate)
    trainer.train()
    log = [x for x in trainer.state.log_history if "loss" in x]
    off = lambda key: max(abs(a[key] / b[key] - 1) for a, b in zip(log, expected["float64"]["log"]))
    want = load_file(f"{folder}/adapter_float64.safetensors")
    have = {k.replace(".default", ""): v for k, v in model.state_dict().items() if "lora_" in k}
    d = math.sqrt(sum(((have[k].double() - want[k]) ** 2).sum().item() for k in want))
    s = math.sqrt(sum((want[k] ** 2).sum().item() for k in want))
    print(json.dumps({"loss_max_rel": off("loss"), "grad_norm_max_rel": off("grad_norm"), "adapter_relative_l2": d / s}))


def main():
    if sys.argv[1] == "--child":
        return child(sys.argv[2], int(sys.argv[3]))
    out = {}
    for case, sizes in CASES.items():
        runs = []
        for isa in ISAS:
            for size in sizes:
                r = subprocess.run([sys.executable, __file__, "--child", f"{sys.argv[1]}/{case}", str(size)],
                                   env=os.environ | {"ONEDNN_MAX_CPU_ISA": isa}, capture_output=True, text=True)
                if r.returncode != 0:
                    sys.exit(r.stderr)
                runs.append({"isa": isa, "micro_batch": size} | json.loads(r.stdout.strip().splitlines()[-1]))
                print(case, runs[-1], flush=True)
        out[case] = {"bfloat16": runs}
    Path(__file__).with_name("spread.json").write_text(json.dumps(out, indent=1) + "\n")


main()
