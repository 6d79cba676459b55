#!/usr/bin/env python3
"""What accelerate 1.15 makes of device_map "balanced" and "sequential": device_maps.json beside this file.

Models on the meta device, BLOOM's published sizes and others; memory of each device in bytes. `devices` is that of the
embedding, its norm, each block, the final norm, the head; -2 stands for the disk.
"""
import json
import os

import torch
from accelerate import infer_auto_device_map, init_empty_weights
from accelerate.utils import get_balanced_memory
from transformers import BloomConfig, BloomForCausalLM

GIB = 1 << 30
SIZES = {"560m": (24, 1024, 16), "1b7": (24, 2048, 16), "3b": (30, 2560, 32), "7b1": (30, 4096, 32)}


def devices_of(model, layers, kind, memory, dtype):
    limits = {i: m for i, m in enumerate(memory)}
    if kind == "balanced":
        limits = get_balanced_memory(model, limits, no_split_module_classes=["BloomBlock"], dtype=dtype)
    found = infer_auto_device_map(model, limits, no_split_module_classes=["BloomBlock"], dtype=dtype)
    def device(name):
        while name not in found:
            name = name.rpartition(".")[0]
        return -2 if found[name] == "disk" else found[name]
    return [device("transformer.word_embeddings"), device("transformer.word_embeddings_layernorm"),
            *[device("transformer.h.%d" % i) for i in range(layers)], device("transformer.ln_f"), device("lm_head")]


def main():
    cases = []
    for name, (layers, hidden, heads) in SIZES.items():
        for tied in (True, False):
            config = BloomConfig(vocab_size=250880, hidden_size=hidden, n_layer=layers, n_head=heads,
                                 tie_word_embeddings=tied)
            with init_empty_weights():
                model = BloomForCausalLM(config)
            model.tie_weights()
            for kind in ("balanced", "sequential"):
                for dtype, size in ((torch.float16, 2), (torch.float32, 4)):
                    for memory in ([16] * 2, [16] * 3, [16] * 4, [24] * 8, [12], [4, 8], [3, 3, 3], [2, 6, 6, 6],
                                   [0.3, 1, 16, 16], [1.5] * 6):
                        memory = [int(m * GIB) for m in memory]
                        cases.append({"layers": layers, "hidden": hidden, "heads": heads, "tied": tied, "kind": kind,
                                      "element_bytes": size, "memory": memory,
                                      "devices": devices_of(model, layers, kind, memory, dtype)})
    path = os.path.join(os.path.dirname(os.path.abspath(__file__)), "device_maps.json")
    with open(path, "w") as file:
        file.write("[\n" + ",\n".join(json.dumps(c) for c in cases) + "\n]\n")


main()
