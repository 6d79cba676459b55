#!/usr/bin/env python3
"""lora-dist and Hugging Face PEFT on the CPU, side by side: same model files, records, threads.

    bench/cpu_compare.py --program build/cpu-release/src/app/lora-dist [--quick]

Needs torch, transformers and peft (any Python environment that has them). For each case both programs
run in turn, each in a process of its own, and the medians of the tokens/s of the updates after the
first two are compared. Tokens are real ones: PEFT's padding counts for time, not for tokens.
"""
import argparse, json, os, resource, statistics, subprocess, sys, tempfile, time

SHAPES = {  # hidden, layers, heads, vocabulary
    "560m-4": dict(hidden=1024, layers=4, heads=16, vocab=250880),
    "560m-8-small": dict(hidden=1024, layers=8, heads=16, vocab=2048),
}


def make_model(folder, shape, dtype):
    import torch
    from transformers import BloomConfig, BloomForCausalLM
    torch.manual_seed(0)
    config = BloomConfig(vocab_size=shape["vocab"], hidden_size=shape["hidden"], n_layer=shape["layers"],
                         n_head=shape["heads"])
    BloomForCausalLM(config).to(getattr(torch, dtype)).save_pretrained(folder)


def squad_lengths(path, n):
    """Lengths in tokens of SQuAD prompts, at about four bytes a token, capped at 512."""
    data = json.load(open(path))["data"]
    out = []
    for article in data:
        for p in article["paragraphs"]:
            for q in p["qas"]:
                answer = q["answers"][0]["text"] if q["answers"] else "Cannot Find Answer"
                out.append(min(512, (len(p["context"]) + len(q["question"]) + len(answer) + 45) // 4))
    import random
    random.Random(0).shuffle(out)
    return out[:n]


def make_records(path, lengths, vocab, answer_only):
    import random
    rng = random.Random(1)
    with open(path, "w") as f:
        for n in lengths:
            ids = [rng.randrange(4, vocab) for _ in range(n)]
            labels = [-100] * (n - 8) + ids[-8:] if answer_only else ids
            f.write(json.dumps({"input_ids": ids, "labels": labels}) + "\n")


def run_ours(a, folder, data, dtype, batch, steps):
    out = tempfile.mkdtemp()
    config = {"model": {"name_or_path": folder, "dtype": dtype}, "data": {"format": "tokenized", "train_file": data},
              "lora": {"r": 8, "lora_alpha": 16, "lora_dropout": 0.05},
              "training": {"output_dir": out, "per_device_train_batch_size": batch, "max_steps": steps,
                           "learning_rate": 1e-3, "save_steps": 100000}}
    path = os.path.join(out, "config.yaml")
    json.dump(config, open(path, "w"))
    run = subprocess.run([a.program, "--config", path, "--threads", str(a.threads)], capture_output=True, text=True)
    if run.returncode != 0:
        sys.exit(run.stderr)
    import re
    rates = [float(x) for x in re.findall(r"([0-9.]+) tokens/s", run.stderr)]
    peak = float(re.search(r"Peak memory of rank 0: ([0-9.]+) MiB", run.stderr).group(1))
    planned = float(re.search(r"planned ([0-9.]+) MiB", run.stderr).group(1))
    return statistics.median(rates[2:]), peak, planned


def peft_child(folder, data, dtype, batch, steps, threads):
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM
    torch.set_num_threads(threads)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, dtype))
    model = get_peft_model(model, LoraConfig(r=8, lora_alpha=16, lora_dropout=0.05, task_type="CAUSAL_LM"))
    model.train()
    records = [json.loads(line) for line in open(data)]
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-3, weight_decay=0)
    rates = []
    for step in range(steps):
        part = [records[(step * batch + i) % len(records)] for i in range(batch)]
        width = max(len(r["input_ids"]) for r in part)
        pad = lambda x, v: [v] * (width - len(x)) + x
        ids = torch.tensor([pad(r["input_ids"], 3) for r in part])
        labels = torch.tensor([pad(r["labels"], -100) for r in part])
        mask = torch.tensor([pad([1] * len(r["input_ids"]), 0) for r in part])
        begun = time.perf_counter()
        model(input_ids=ids, attention_mask=mask, labels=labels).loss.backward()
        torch.nn.utils.clip_grad_norm_([p for p in model.parameters() if p.requires_grad], 1.0)
        optimizer.step()
        optimizer.zero_grad()
        rates.append(sum(len(r["input_ids"]) for r in part) / (time.perf_counter() - begun))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps([statistics.median(rates[min(2, steps - 1):]), peak]))


def run_peft(a, folder, data, dtype, batch, steps):
    run = subprocess.run([sys.executable, __file__, "--peft-child", folder, data, dtype, str(batch), str(steps),
                          str(a.threads)], capture_output=True, text=True)
    if run.returncode != 0:
        sys.exit(run.stderr)
    return json.loads(run.stdout.strip().splitlines()[-1])


def matmul_peak(dtype, threads, k=1024, n=4096, t=2048):
    import torch
    torch.set_num_threads(threads)
    x, w = torch.randn(t, k).to(dtype), torch.randn(n, k).to(dtype)
    best = 1e9
    for _ in range(6):
        begun = time.perf_counter()
        x @ w.T
        best = min(best, time.perf_counter() - begun)
    return 2 * t * k * n / best / 1e9


def main():
    if len(sys.argv) > 1 and sys.argv[1] == "--peft-child":
        folder, data, dtype, batch, steps, threads = sys.argv[2:]
        return peft_child(folder, data, dtype, int(batch), int(steps), int(threads))
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--program", required=True)
    p.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    p.add_argument("--squad", help="a SQuAD v2.0 file, for its lengths")
    p.add_argument("--shapes", nargs="*", default=list(SHAPES))
    p.add_argument("--dtypes", nargs="*", default=["float32", "bfloat16"])
    p.add_argument("--steps", type=int, default=6)
    p.add_argument("--quick", action="store_true", help="equal lengths only, 4 updates")
    a = p.parse_args()
    import torch
    peak = {d: matmul_peak(getattr(torch, d), a.threads) for d in ("float32", "bfloat16")}
    print(f"products through torch, {a.threads} threads: float32 {peak['float32']:.0f}, bfloat16 {peak['bfloat16']:.0f} GFLOP/s")
    cases = ["equal"] + ([] if a.quick else (["squad", "answer"] if a.squad else []))
    print(f"{'shape':14} {'dtype':9} {'case':7} {'ours tok/s':>10} {'GFLOP/s':>8} {'PEFT tok/s':>10} {'ratio':>6} "
          f"{'ours MiB':>9} {'planned':>8} {'PEFT MiB':>9} {'ratio':>6}")
    for name in a.shapes:
        shape = SHAPES[name]
        for dtype in a.dtypes:
            folder = tempfile.mkdtemp()
            make_model(folder, shape, dtype)
            flops = 4 * (shape["layers"] * 12 * shape["hidden"] ** 2 + shape["vocab"] * shape["hidden"])
            for case in cases:
                data = os.path.join(folder, case + ".jsonl")
                steps = 4 if a.quick else a.steps
                lengths = [512] * (4 * steps) if case == "equal" else squad_lengths(a.squad, 4 * steps)
                make_records(data, lengths, shape["vocab"], case == "answer")
                ours, mine, planned = run_ours(a, folder, data, dtype, 4, steps)
                theirs, their_peak = run_peft(a, folder, data, dtype, 4, steps)
                done = ours * flops / 1e9 if case != "answer" else float("nan")
                print(f"{name:14} {dtype:9} {case:7} {ours:10.1f} {done:8.0f} {theirs:10.1f} {ours / theirs:6.2f} "
                      f"{mine:9.0f} {planned:8.0f} {their_peak:9.0f} {mine / their_peak:6.2f}", flush=True)


if __name__ == "__main__":
    main()
