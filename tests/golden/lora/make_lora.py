"""Writes the files beside it: what PEFT targets, draws and saves on tiny BLOOM models.

Made with peft 0.21.2, transformers 5.23.0, torch 2.13 (x86 with AVX2):  python make_lora.py
"""

import json
import os
import pathlib
import shutil
import warnings

os.environ["HF_HUB_OFFLINE"] = "1"
import torch
from peft import LoraConfig, get_peft_model, get_peft_model_state_dict
from safetensors.torch import save_file
from transformers import BloomConfig, BloomForCausalLM

HERE = pathlib.Path(__file__).parent
warnings.simplefilter("ignore")


def bloom(hidden, layers, heads, dtype=torch.float32):
    config = BloomConfig(vocab_size=32, hidden_size=hidden, n_layer=layers, n_head=heads)
    return BloomForCausalLM(config).to(dtype)


QKV, DENSE, UP, DOWN = "query_key_value", "dense", "dense_h_to_4h", "dense_4h_to_h"
BLOCK = "transformer.h.%d.self_attention.query_key_value"
TARGETS = [
    {},
    {"r": 3, "lora_alpha": 7.5, "use_rslora": True},
    {"target_modules": [QKV, DENSE]},
    {"target_modules": [DOWN, UP, DENSE, QKV]},
    {"target_modules": "all-linear"},
    {"target_modules": "All-Linear", "exclude_modules": ["self_attention.dense"]},
    {"target_modules": [DENSE, "mlp.dense_4h_to_h"]},
    {"target_modules": [QKV, "nothing"]},
    {"target_modules": ["nothing"]},
    {"target_modules": ["ense"]},
    {"target_modules": ["query_key_valu"]},
    {"target_modules": [BLOCK % 1]},
    {"target_modules": ["h.1.self_attention.dense"]},
    {"target_modules": ["1.self_attention.dense"]},
    {"target_modules": [QKV], "layers_to_transform": [1, 11]},
    {"target_modules": [QKV], "layers_to_transform": 10},
    {"target_modules": [QKV], "layers_to_transform": []},
    {"target_modules": [QKV], "layers_to_transform": [99]},
    {"target_modules": [BLOCK % 3, DENSE], "layers_to_transform": [1]},
    {"target_modules": "all-linear", "layers_to_transform": [1]},
    {"target_modules": r".*\.h\.1\..*dense.*", "layers_to_transform": [1]},
    {"target_modules": r".*\.h\.1\.mlp\.dense_(h_to_4h|4h_to_h)"},
    {"target_modules": r"transformer\.h\.\d\.self_attention\.query_key_value"},
    {"target_modules": r".*dense"},
    {"target_modules": r"dense"},
    {"target_modules": r"transformer\.h\.1|.*\.h\.2\.mlp\.dense_h_to_4h"},
    {"target_modules": r"transformer.h.(?P<n>\d)\.mlp\.dense_4h_to_h"},
    {"target_modules": r"(?i).*\.H\.0\.MLP\.DENSE_H_TO_4H"},
    {"target_modules": r".*\.h\.(?!1)\d+\.self_attention\.dense\Z"},
    {"target_modules": r"(?:.*\.)?(?:query_key_value|dense)$"},
    {"target_modules": r".*\.h\.[0-3]\.(?:self_attention|mlp)\.dense(?:_\w+)?"},
    {"target_modules": r".*(?<=h\.5\.self_attention\.)query_key_value"},
    {"target_modules": r"a)(b"},
    {"target_modules": r"("},
    {"target_modules": r"*"},
    {"target_modules": [QKV], "exclude_modules": r".*\.h\.1\d?\..*"},
    {"target_modules": [QKV], "exclude_modules": r"h\.1"},
    {"target_modules": [QKV], "exclude_modules": ["h.1.self_attention.query_key_value"]},
    {"target_modules": [QKV], "exclude_modules": [BLOCK % 2, DENSE]},
    {"target_modules": [QKV], "exclude_modules": [QKV]},
    {"target_modules": [QKV], "exclude_modules": ["nothing"]},
    {"target_modules": [QKV], "exclude_modules": []},
    {"target_modules": [QKV, DENSE], "rank_pattern": {DENSE: 2}},
    {"target_modules": [QKV, UP], "rank_pattern": {"h.1": 2, "h.1.mlp.dense_h_to_4h": 4}},
    {"target_modules": [QKV], "rank_pattern": {"^transformer.h.0.self_attention.query_key_value": 4}},
    {"target_modules": [QKV], "rank_pattern": {r"h\.1\d?\..*": 2, QKV: 4}},
    {"target_modules": [QKV], "rank_pattern": {QKV: 4, r"h\.1\d?\..*": 2}},
    {"target_modules": [QKV], "rank_pattern": {"h.1.self_attention.query_key_value|dense": 3}},
    {"target_modules": [QKV], "rank_pattern": {"ery_key_value": 3}},
    {"target_modules": [QKV], "rank_pattern": {"(": 3}},
    {"target_modules": [QKV, DENSE], "alpha_pattern": {DENSE: 32, QKV: 0.5}, "lora_alpha": 16},
    {"target_modules": [QKV, DENSE], "alpha_pattern": {QKV: 32}, "rank_pattern": {DENSE: 2, QKV: 4},
     "use_rslora": True},
    {"target_modules": "all-linear", "rank_pattern": {r".*\.mlp\..*": 1}, "r": 2},
    {"target_modules": ["mlp"]},
    {"target_modules": ["ln_f"]},
    {"target_modules": [QKV, "input_layernorm"]},
    {"target_modules": ["gelu_impl"]},
    # PEFT adapts these, we do not (ours: "unsupported")
    {"target_modules": ["lm_head"], "ours": "unsupported"},
    {"target_modules": ["word_embeddings", QKV], "ours": "unsupported"},
]


def targets(case):
    config = {k: v for k, v in case.items() if k != "ours"}
    try:
        model = get_peft_model(bloom(8, 12, 2), LoraConfig(task_type="CAUSAL_LM", **config))
    except Exception as error:  # re.error too
        print("   ", case, type(error).__name__)
        return {"lora": config, "error": type(error).__name__}
    found = []
    for path, module in model.base_model.model.named_modules():
        if hasattr(module, "lora_A") and "default" in module.lora_A:
            found.append([path, module.r["default"], module.lora_alpha["default"], module.scaling["default"]])
    ours = {"error": case["ours"]} if "ours" in case else {}
    return {"lora": config, "targets": found} | ours


# name: hidden, layers, heads, base dtype, seed, config
INITS = {
    "true": (16, 2, 2, "float32", 7, dict(r=2)),
    "true_bf16": (16, 1, 2, "bfloat16", 42, dict(r=2, target_modules=[DOWN, QKV])),
    "true_f16": (20, 1, 2, "float16", 4294967295, dict(r=3, target_modules=[DENSE])),
    "false": (16, 2, 2, "float32", 42, dict(r=3, target_modules=[QKV, DENSE], init_lora_weights=False)),
    "gaussian": (64, 1, 2, "float32", 5, dict(r=8, target_modules="all-linear", init_lora_weights="gaussian")),
    "gaussian_rest": (20, 2, 2, "float32", 6, dict(r=3, init_lora_weights="gaussian")),
    "gaussian_small": (9, 3, 3, "float32", 8, dict(r=1, init_lora_weights="gaussian")),
    "gaussian_bf16": (16, 1, 2, "bfloat16", 9, dict(r=2, init_lora_weights="gaussian")),
}


def init(name, hidden, layers, heads, dtype, seed, config):
    base = bloom(hidden, layers, heads, getattr(torch, dtype))
    torch.manual_seed(seed)
    model = get_peft_model(base, LoraConfig(task_type="CAUSAL_LM", **config))
    tensors = {k: v.contiguous() for k, v in get_peft_model_state_dict(model).items()}
    save_file(tensors, HERE / f"init_{name}.safetensors", {"format": "pt"})
    return {"name": name, "hidden": hidden, "layers": layers, "dtype": dtype, "lora": config | {"seed": seed}}


def saved():
    """A folder of PEFT's with every setting we keep, and the front matter of its README.md."""
    base = bloom(16, 11, 2)
    base.config._name_or_path = base.name_or_path = "bigscience/bloom-560m"
    config = LoraConfig(
        task_type="CAUSAL_LM", r=2, lora_alpha=16, lora_dropout=0.05, target_modules=[QKV, DENSE],
        layers_to_transform=[1, 2, 10], rank_pattern={"h.1.self_attention.dense": 3},
        alpha_pattern={DENSE: 5}, use_rslora=True, exclude_modules=["h.2.self_attention.dense"])
    torch.manual_seed(1)
    model = get_peft_model(base, config)
    with torch.no_grad():
        for p in model.parameters():
            if p.requires_grad:
                p.normal_()
    model.save_pretrained(HERE / "saved")
    readme = (HERE / "saved/README.md").read_text()
    (HERE / "front_matter.md").write_text(readme[: readme.index("---\n", 4) + 4])
    (HERE / "saved/README.md").unlink()


shutil.rmtree(HERE / "saved", ignore_errors=True)
(HERE / "targets.json").write_text("[\n" + ",\n".join(json.dumps(targets(c)) for c in TARGETS) + "\n]\n")
(HERE / "inits.json").write_text("[\n" + ",\n".join(json.dumps(init(n, *c)) for n, c in INITS.items()) + "\n]\n")
saved()
