"""What lora-dist merged loads in transformers without a warning, and is PEFT's merge_and_unload: the same weights, the same logits.

    interop_merge_check.py PROGRAM CASE_DIR WORK_DIR
"""
import json, logging, os, shutil, subprocess, sys, warnings

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors import safe_open
from transformers import AutoModelForCausalLM, BloomConfig, BloomForCausalLM
from transformers.utils.logging import disable_progress_bar

disable_progress_bar()
program, case, work = sys.argv[1:]
records = [json.loads(line)["input_ids"] for line in open(f"{case}/train.jsonl")][:4]


class Messages(logging.Handler):
    """What transformers logs as a warning."""

    def __init__(self):
        super().__init__(logging.WARNING)
        self.texts = []

    def emit(self, record):
        self.texts.append(record.getMessage())


def load(folder):
    heard = Messages()
    logging.getLogger("transformers").addHandler(heard)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model, info = AutoModelForCausalLM.from_pretrained(folder, dtype="auto", output_loading_info=True)
    logging.getLogger("transformers").removeHandler(heard)
    assert not heard.texts, heard.texts
    assert not any(info.values()), info
    return model.eval()


def tensors(folder):
    found, kinds = {}, set()
    for name in sorted(os.listdir(folder)):
        if name.endswith(".safetensors"):
            with safe_open(f"{folder}/{name}", "pt") as f:
                kinds.add((name, json.dumps(f.metadata()), tuple(f.offset_keys())))
                found |= {key: f.get_tensor(key) for key in f.keys()}
    return found, kinds


def compare(name, base, adapter):
    """base and adapter are folders."""
    out = f"{work}/{name}-merged"
    shutil.rmtree(out, ignore_errors=True)
    subprocess.run([program, "merge", "--model", base, "--adapter", adapter, "--out", out], check=True, capture_output=True)
    theirs = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base, dtype="auto"), adapter).merge_and_unload().eval()
    ours = load(out)
    have, have_files = tensors(out)
    base_tensors, base_files = tensors(base)
    assert have_files == base_files and have.keys() == base_tensors.keys(), (have_files, base_files)
    state = theirs.state_dict()
    differing = changed = elements = 0
    for key, value in have.items():
        want = state[key if key in state else f"transformer.{key}"]
        assert value.dtype == want.dtype and value.shape == want.shape, key
        changed += int((value != base_tensors[key]).any())
        different = value != want
        if different.any():
            # Where torch multiplies in another order: one unit in the last place, seldom.
            differing += int(different.sum())
            step = torch.finfo(value.dtype).eps * want.abs().double().clamp_min(torch.finfo(value.dtype).tiny)
            delta = (want.double() - base_tensors[key].double()).abs().max()
            error = (value.double() - want.double()).abs()
            assert (error <= 1.01 * step + 2.0 ** -20 * delta).all(), (name, key, error.max())
        elements += value.numel()
    assert changed > 0 and differing <= elements / 100, (name, changed, differing)
    worst = 0.0
    for ids in records:
        with torch.no_grad():
            a, b = (m.float()(input_ids=torch.tensor([ids])).logits for m in (ours, theirs))
        worst = max(worst, ((a - b).abs().max() / b.abs().max()).item())
    bound = 2e-5 if differing == 0 or have[key].dtype == torch.float32 else 8 * torch.finfo(have[key].dtype).eps
    assert worst <= bound, (name, worst)
    print(f"{name}: {changed} tensors merged, {differing} of {elements} elements differ from PEFT's; logits off by {worst:.2g}")


compare("all-linear", f"{case}/model", f"{case}/adapter")
float32 = AutoModelForCausalLM.from_pretrained(f"{case}/model", dtype=torch.float32)
for dtype in torch.float16, torch.bfloat16:
    name = str(dtype).split(".")[1]
    float32.to(dtype).save_pretrained(f"{work}/{name}", max_shard_size="300KB")
    assert os.path.exists(f"{work}/{name}/model.safetensors.index.json")
    compare(name, f"{work}/{name}", f"{case}/adapter")

# Larger: products of the shapes of real models; a rank that is no multiple of anything, rsLoRA.
torch.manual_seed(5)
config = BloomConfig(vocab_size=512, hidden_size=768, n_layer=2, n_head=12, bos_token_id=1, eos_token_id=2, pad_token_id=3)
for dtype, rank, rslora in (torch.float32, 8, False), (torch.bfloat16, 27, True), (torch.float16, 64, False):
    name = f"large-{str(dtype).split('.')[1]}-{rank}"
    BloomForCausalLM(config).to(dtype).save_pretrained(f"{work}/{name}")
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(f"{work}/{name}", dtype="auto"),
                           LoraConfig(r=rank, lora_alpha=3, target_modules="all-linear", use_rslora=rslora,
                                      task_type="CAUSAL_LM", init_lora_weights=False))
    model.save_pretrained(f"{work}/{name}-adapter")
    compare(name, f"{work}/{name}", f"{work}/{name}-adapter")
