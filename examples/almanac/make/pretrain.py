#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Pretrains the almanac's BLOOM from nothing; run once, its result is in ../model.

    python pretrain.py OUT [--minutes 75]

torch 2.13.0, transformers 5.23.0, tokenizers 0.23.3, safetensors; any CPU. The text is made as it is read (documents.py), so no
page comes twice. Interrupted, the same command goes on from OUT/state.pt. MALLOC_MMAP_THRESHOLD_=8589934592 and
MALLOC_TRIM_THRESHOLD_=17179869184 in the environment make it twice as fast: otherwise each step gives its memory back to the system.
"""

import argparse
import json
import math
import os
import random
import time

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import BloomConfig, BloomForCausalLM

from almanac import read_kinds
from documents import document
from words import Words

VOCABULARY, HIDDEN, BLOCKS, HEADS = 3072, 192, 6, 6
LENGTH, BATCH, PEAK_RATE, WARMUP = 384, 20, 3e-3, 100


def train_tokenizer(kinds, path):
    """BLOOM's own pipeline with a small vocabulary."""
    words = Words(random.Random(1))
    t = Tokenizer(models.BPE())
    t.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(" ?[^(\\s|[.,!?\u2026\u3002\uff0c\u3001\u0964\u06d4\u060c])]+"), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    t.decoder = decoders.ByteLevel()
    t.post_processor = processors.ByteLevel(trim_offsets=False)
    special = ["<unk>", "<s>", "</s>", "<pad>"]
    trainer = trainers.BpeTrainer(vocab_size=VOCABULARY, special_tokens=special, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False)
    t.train_from_iterator((document(kinds, words) for _ in range(20000)), trainer)
    os.makedirs(path, exist_ok=True)
    t.save(f"{path}/tokenizer.json")
    settings = {"tokenizer_class": "BloomTokenizerFast", "unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>",
                "padding_side": "left", "add_prefix_space": False}
    json.dump(settings, open(f"{path}/tokenizer_config.json", "w"), indent=1)
    json.dump({k: settings[k] for k in ("bos_token", "eos_token", "unk_token", "pad_token")}, open(f"{path}/special_tokens_map.json", "w"), indent=1)
    return t


class Pages:
    """An endless stream of token ids; documents end with </s>."""

    def __init__(self, kinds, tokenizer, seed):
        self.kinds, self.tokenizer, self.words, self.left = kinds, tokenizer, Words(random.Random(seed)), []

    def batch(self):
        need = LENGTH * BATCH
        while len(self.left) < need:
            pages = [document(self.kinds, self.words) for _ in range(64)]
            for e in self.tokenizer.encode_batch(pages, add_special_tokens=False):
                self.left += e.ids + [2]
        x, self.left = torch.tensor(self.left[:need]).view(BATCH, LENGTH), self.left[need:]
        return x


def alibi(heads, length):
    """[1, H, T, T]: what BLOOM adds to the scores, with the future masked."""
    power = 2 ** math.floor(math.log2(heads))
    slopes = [2.0 ** (-8.0 * (i + 1) / power) for i in range(power)]
    slopes += [2.0 ** (-4.0 * (2 * i + 1) / power) for i in range(heads - power)]
    at = torch.arange(length)
    bias = torch.tensor(slopes)[:, None, None] * (at[None, :] - at[:, None])
    return bias.masked_fill(at[None, :] > at[:, None], float("-inf"))[None]


def loss_of(model, x, bias):
    """The mean loss, as BloomForCausalLM computes it, with torch's fused attention: twice as fast on a CPU."""
    t, (b, n) = model.transformer, x.shape
    h = t.word_embeddings_layernorm(t.word_embeddings(x))
    for block in t.h:
        q, k, v = block.self_attention.query_key_value(block.input_layernorm(h)).view(b, n, HEADS, 3, -1).unbind(3)
        a = F.scaled_dot_product_attention(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), attn_mask=bias.to(q.dtype))
        h = h + block.self_attention.dense(a.transpose(1, 2).reshape(b, n, -1))
        h = h + block.mlp.dense_4h_to_h(F.gelu(block.mlp.dense_h_to_4h(block.post_attention_layernorm(h)), approximate="tanh"))
    logits = F.linear(t.ln_f(h), t.word_embeddings.weight)
    return F.cross_entropy(logits[:, :-1].reshape(-1, VOCABULARY).float(), x[:, 1:].reshape(-1))


def save(model, path):
    model.config.dtype, model.config.use_cache = torch.float16, True
    model.config.save_pretrained(path)
    tensors = {k.removeprefix("transformer."): v.detach().half().contiguous() for k, v in model.state_dict().items() if k != "lm_head.weight"}
    save_file(tensors, f"{path}/model.safetensors", metadata={"format": "pt"})


def main():
    a = argparse.ArgumentParser()
    a.add_argument("out")
    a.add_argument("--minutes", type=float, default=75, help="the learning rate falls to nothing at the end of them")
    a.add_argument("--seed", type=int, default=7)
    a = a.parse_args()
    kinds = read_kinds()
    known = os.path.exists(f"{a.out}/tokenizer.json")
    tokenizer = Tokenizer.from_file(f"{a.out}/tokenizer.json") if known else train_tokenizer(kinds, a.out)
    torch.manual_seed(a.seed)
    model = BloomForCausalLM(BloomConfig(vocab_size=VOCABULARY, hidden_size=HIDDEN, n_layer=BLOCKS, n_head=HEADS, hidden_dropout=0.0, attention_dropout=0.0,
                                         bos_token_id=1, eos_token_id=2, pad_token_id=3, use_cache=False))
    optimizer = torch.optim.AdamW(model.parameters(), lr=PEAK_RATE, betas=(0.9, 0.95), weight_decay=0.05, fused=True)
    bias = alibi(HEADS, LENGTH)
    x = torch.randint(0, VOCABULARY, (2, LENGTH))
    with torch.no_grad():
        assert abs(loss_of(model, x, bias) - model(input_ids=x, labels=x).loss) < 1e-4, "not the same model"
    fast_loss = torch.compile(loss_of)
    state = {"step": 0, "seconds": 0.0, "tokens": 0}
    if os.path.exists(f"{a.out}/state.pt"):
        s = torch.load(f"{a.out}/state.pt")
        model.load_state_dict(s["model"])
        optimizer.load_state_dict(s["optimizer"])
        state = s["state"]
    pages = Pages(kinds, tokenizer, a.seed * 1000003 + state["step"])
    start = time.time() - state["seconds"]
    log = open(f"{a.out}/pretrain.log", "a")
    while state["seconds"] < 60 * a.minutes:
        done = state["seconds"] / (60 * a.minutes)
        rate = PEAK_RATE * min(1.0, (state["step"] + 1) / WARMUP, 0.02 + 0.98 * (1 - done))
        for g in optimizer.param_groups:
            g["lr"] = rate
        x = pages.batch()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = fast_loss(model, x, bias)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        state = {"step": state["step"] + 1, "seconds": time.time() - start, "tokens": state["tokens"] + x.numel()}
        if state["step"] % 20 == 0:
            print(f"step {state['step']} loss {loss.item():.4f} rate {rate:.2e} tokens {state['tokens']} seconds {state['seconds']:.0f}", file=log, flush=True)
        if state["step"] % 100 == 0:
            torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict(), "state": state}, f"{a.out}/state.new")
            os.replace(f"{a.out}/state.new", f"{a.out}/state.pt")
            save(model, a.out)
    save(model, a.out)


if __name__ == "__main__":
    main()
