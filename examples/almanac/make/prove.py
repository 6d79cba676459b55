#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Whether an adapter on the attention alone can learn the task: the almanac with PEFT and a plain loop.

    python prove.py MODEL [--epochs 3] [--rate 5e-3] [--rank 8] [--limit 120]

torch 2.13.0, transformers 5.23.0, peft 0.21.2. Prints exact match on held-out questions before and after.
"""

import argparse
import json
import os
import random
import re
import string
import time

import torch
from peft import LoraConfig, get_peft_model
from tokenizers import Tokenizer
from transformers import BloomForCausalLM

HERE = os.path.dirname(os.path.abspath(__file__))
PROMPT = "### CONTEXT\n{context}\n\n### QUESTION\n{question}\n\n### ANSWER\n"
NONE = "Cannot Find Answer"


def questions(name):
    for article in json.load(open(f"{HERE}/../{name}.json", encoding="utf-8"))["data"]:
        for p in article["paragraphs"]:
            for q in p["qas"]:
                yield PROMPT.format(context=p["context"], question=q["question"]), q["answers"][0]["text"] if q["answers"] else NONE


def normal(text):
    text = "".join(c for c in text.lower() if c not in string.punctuation)
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", text).split())


def ask(model, tokenizer, items):
    model.eval()
    exact = {True: [], False: []}
    shown = 0
    for prompt, answer in items:
        ids = torch.tensor([tokenizer.encode(prompt).ids])
        out = model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=24, do_sample=False, eos_token_id=2, pad_token_id=3)
        said = tokenizer.decode(out[0, ids.shape[1]:].tolist())
        exact[answer != NONE].append(normal(said) == normal(answer))
        if shown < 8:
            shown += 1
            print("   ", repr(prompt.split("QUESTION\n")[1].split("\n")[0]), repr(answer), "->", repr(said))
    both = exact[True] + exact[False]
    mean = lambda x: 100 * sum(x) / max(1, len(x))
    print(f"exact {mean(both):.1f} (with an answer {mean(exact[True]):.1f}, without {mean(exact[False]):.1f}) of {len(both)}", flush=True)


def main():
    a = argparse.ArgumentParser()
    a.add_argument("model")
    a.add_argument("--epochs", type=float, default=3)
    a.add_argument("--rate", type=float, default=5e-3)
    a.add_argument("--rank", type=int, default=8)
    a.add_argument("--batch", type=int, default=16)
    a.add_argument("--limit", type=int, default=120)
    a.add_argument("--loss-on", default="all", choices=["all", "answer"])
    a = a.parse_args()
    tokenizer = Tokenizer.from_file(f"{a.model}/tokenizer.json")
    model = BloomForCausalLM.from_pretrained(a.model, dtype=torch.float32)
    held = list(questions("heldout"))[: a.limit]
    ask(model, tokenizer, held)
    torch.manual_seed(42)
    model = get_peft_model(model, LoraConfig(r=a.rank, lora_alpha=2 * a.rank, lora_dropout=0.05, target_modules=["query_key_value"], task_type="CAUSAL_LM"))
    data = [(tokenizer.encode(p).ids, tokenizer.encode(t + "</s>").ids) for p, t in questions("train")]
    steps = int(a.epochs * len(data) / a.batch)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=a.rate, weight_decay=0.0)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda s: min(1, (s + 1) / 20) * max(0.0, 1 - s / steps))
    order, start, rng = [], time.time(), random.Random(1)
    for step in range(steps):
        model.train()
        if len(order) < a.batch:
            order += rng.sample(range(len(data)), len(data))
        rows, order = [data[i] for i in order[: a.batch]], order[a.batch :]
        n = max(len(p) + len(t) for p, t in rows)
        x = torch.full((a.batch, n), 3)
        y = torch.full((a.batch, n), -100)
        for i, (p, t) in enumerate(rows):
            x[i, : len(p) + len(t)] = torch.tensor(p + t)
            y[i, : len(p) + len(t)] = torch.tensor(p + t if a.loss_on == "all" else [-100] * len(p) + t)
        loss = model(input_ids=x, attention_mask=(x != 3).long(), labels=y).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        scheduler.step()
        optimizer.zero_grad()
        if (step + 1) % 50 == 0:
            print(f"step {step + 1}/{steps} loss {loss.item():.3f} {time.time() - start:.0f} s", flush=True)
    ask(model, tokenizer, held)


if __name__ == "__main__":
    main()
