#!/usr/bin/env python3
"""What transformers' logits processors make of fixed scores, in the order generate() applies them.

    python make_processors.py > processors.json

Needs torch 2.13.0 and transformers 5.23.0. Each case: settings, input ids so far, raw float32 scores (null for
-infinity), the scores after all processors (null where they became -infinity), with the probabilities a sampler would
draw from. Nine digits give the float32 values back.
"""
import json
import math

import torch
import transformers
from transformers import BloomConfig, BloomForCausalLM, GenerationConfig

VOCAB = 33
IDS = [5, 7, 7, 11, 32, 0]  # and the largest score's
SETTINGS = [
    (dict(temperature=0.7), ["normal"]),
    (dict(temperature=1.8, top_k=5), ["normal", "ties"]),
    (dict(top_k=1), ["ties"]),
    (dict(top_k=0, top_p=0.9), ["normal", "peaked", "masked"]),
    (dict(top_k=0, top_p=0.4), ["normal", "ties"]),
    (dict(top_k=0, top_p=1e-6), ["ties"]),
    (dict(top_k=12, top_p=0.8, temperature=0.5), ["normal", "ties"]),
    (dict(top_k=0, min_p=0.1), ["normal", "peaked"]),
    (dict(top_k=0, min_p=1.0), ["ties"]),
    (dict(top_k=50, min_p=0.3, temperature=2.0), ["normal", "masked"]),
    (dict(repetition_penalty=1.3, top_k=0), ["normal"]),
    (dict(repetition_penalty=0.8, top_k=7, top_p=0.95, temperature=1.2), ["normal", "peaked"]),
    (dict(repetition_penalty=1.7, top_k=20, top_p=0.9, min_p=0.2, temperature=1.5), ["normal", "ties", "masked"]),
    (dict(do_sample=False, repetition_penalty=1.5), ["normal", "ties", "peaked"]),
    (dict(do_sample=False), ["ties", "masked"]),
]


def scores(seed, kind):
    raw = torch.randn(1, VOCAB, generator=torch.Generator().manual_seed(seed)) * 1.5
    if kind == "ties":
        raw = raw.round()
    if kind == "peaked":
        raw[0, 7] = 30.0
    if kind == "masked":
        raw[0, ::3] = -math.inf
    return raw


def numbers(row):
    return [None if math.isinf(x) else float(f"{x:.9g}") for x in row.tolist()]


def main():
    torch.manual_seed(1)
    model = BloomForCausalLM(BloomConfig(vocab_size=VOCAB, hidden_size=16, n_layer=1, n_head=2))
    cases = []
    for k, (settings, kinds) in enumerate(SETTINGS):
        for kind in kinds:
            raw = scores(100 + k, kind)
            ids = torch.tensor([IDS + [int(raw.argmax())]])
            fixed = {"do_sample": True, "max_new_tokens": 5, "eos_token_id": 2, "pad_token_id": 3, "bos_token_id": 1}
            config, _ = model._prepare_generation_config(GenerationConfig(**(fixed | settings)))
            processors = model._get_logits_processor(
                generation_config=config, input_ids_seq_length=ids.shape[1], encoder_input_ids=ids,
                prefix_allowed_tokens_fn=None, logits_processor=[], device="cpu")
            done = processors(ids, raw.clone())
            cases.append({"settings": settings, "kind": kind, "input_ids": ids[0].tolist(), "scores": numbers(raw[0]),
                          "processed": numbers(done[0]), "probabilities": numbers(done.softmax(-1)[0]),
                          "argmax": int(done.argmax())})
    lines = ",\n".join(json.dumps(case) for case in cases)
    versions = json.dumps({"torch": torch.__version__, "transformers": transformers.__version__})
    print(f'{{"versions": {versions}, "vocab_size": {VOCAB}, "cases": [\n{lines}\n]}}')


main()
