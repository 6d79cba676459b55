#!/usr/bin/env python3
"""lora-dist and Hugging Face on the CPU, side by side in one run: same model files, records, threads.

    bench/cpu_compare.py --program build/cpu-release/src/app/lora-dist [--squad FILE] [--only train|generate] [--quick]

Training against PEFT, greedy generation against transformers' generate(), each program in a process of its own, in
turn. Needs torch, transformers and peft (any Python environment that has them). Training counts the tokens/s of
updates after the first two, of real tokens: PEFT's padding counts for time, not for tokens. Below each run of
lora-dist stands the time of its ops against their own limits: operations at the speed of torch's products of the
same dtype, or bytes at the speed of a copy, whichever takes longer.
"""
import argparse, json, os, re, resource, statistics, subprocess, sys, tempfile, time

SHAPES = {  # hidden, layers, heads, vocabulary
    "560m-4": dict(hidden=1024, layers=4, heads=16, vocab=250880),
    "560m-8-small": dict(hidden=1024, layers=8, heads=16, vocab=2048),
}
# Reading the weights is what a token costs: the whole model, and one without a head to speak of.
GENERATE_SHAPES = {"560m": dict(hidden=1024, layers=24, heads=16, vocab=250880),
                   "560m-small": dict(hidden=1024, layers=24, heads=16, vocab=2048)}
PROMPT, NEW = 64, 64


def make_model(folder, shape, dtype):
    import torch
    from transformers import BloomConfig, BloomForCausalLM
    torch.manual_seed(0)
    config = BloomConfig(vocab_size=shape["vocab"], hidden_size=shape["hidden"], n_layer=shape["layers"],
                         n_head=shape["heads"])
    BloomForCausalLM(config).to(getattr(torch, dtype)).save_pretrained(folder)


def make_tokenizer(folder):
    """A byte-level tokenizer.json: the text of a reply has to be made of something."""
    letters = [chr(c) for c in list(range(33, 127)) + list(range(161, 173)) + list(range(174, 256))]
    letters += [chr(256 + i) for i in range(256 - len(letters))]
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    json.dump({"version": "1.0", "added_tokens": [], "normalizer": None, "pre_tokenizer": level, "post_processor": None,
               "decoder": level, "model": {"type": "BPE", "vocab": {c: i for i, c in enumerate(letters)}, "merges": []}},
              open(os.path.join(folder, "tokenizer.json"), "w"))


def squad_lengths(path, n):
    """Lengths in tokens of SQuAD prompts, at about four bytes a token, capped at 512."""
    import random
    out = []
    for article in json.load(open(path))["data"]:
        for p in article["paragraphs"]:
            for q in p["qas"]:
                answer = q["answers"][0]["text"] if q["answers"] else "Cannot Find Answer"
                out.append(min(512, (len(p["context"]) + len(q["question"]) + len(answer) + 45) // 4))
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


def run_program(a, *options):
    run = subprocess.run([a.program, *options, "--threads", str(a.threads)], capture_output=True, text=True)
    if run.returncode != 0:
        sys.exit(run.stderr)
    return run


def train_ours(a, folder, data, dtype, batch, steps):
    out = tempfile.mkdtemp()
    config = {"model": {"name_or_path": folder, "dtype": dtype}, "data": {"format": "tokenized", "train_file": data},
              "lora": {"r": 8, "lora_alpha": 16, "lora_dropout": 0.05},
              "training": {"output_dir": out, "per_device_train_batch_size": batch, "max_steps": steps,
                           "learning_rate": 1e-3, "save_steps": 100000}}
    path = os.path.join(out, "config.yaml")
    json.dump(config, open(path, "w"))
    # A run for the rate, and one for the ops: measuring them waits for each.
    text = run_program(a, "--config", path).stderr
    rates = [float(x) for x in re.findall(r"([0-9.]+) tokens/s", text)]
    peak = float(re.search(r"Peak memory of rank 0: ([0-9.]+) MiB", text).group(1))
    planned = float(re.search(r"planned ([0-9.]+) MiB", text).group(1))
    text = run_program(a, "--config", path, "--set", "training.overwrite_output_dir=true", "--set",
                       "training.resume_from_checkpoint=false", "--log-level", "debug").stderr
    ops = re.findall(r"^  (\w+) +(\d+) calls +([0-9.]+) s .* ([0-9.]+) GFLOP/s +([0-9.]+) GB/s", text, re.M)
    return statistics.median(rates[2:]), peak, planned, [(n, float(s), float(f), float(b)) for n, _, s, f, b in ops]


def train_theirs(folder, data, dtype, batch, steps, threads):
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
    return statistics.median(rates[min(2, steps - 1):]), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def generate_ours(a, folder, prompts, dtype, batch):
    out = os.path.join(folder, "replies.jsonl")
    text = run_program(a, "generate", "--model", folder, "--dtype", dtype, "--prompt-file", prompts, "--output", out,
                       "--max-new-tokens", str(NEW), "--batch-size", str(batch), "--log-level", "debug").stderr
    tokens = [json.loads(line)["token_ids"] for line in open(out)]
    return float(re.search(r"([0-9.]+) tokens/s", text).group(1)), tokens


def generate_theirs(folder, prompts, dtype, batch, threads):
    import torch
    from transformers import AutoModelForCausalLM
    torch.set_num_threads(threads)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, dtype)).eval()
    ids = torch.tensor([json.loads(line)["input_ids"] for line in open(prompts)])
    tokens, n, seconds = [], 0, 0
    with torch.no_grad():
        model.generate(input_ids=ids[:1], attention_mask=torch.ones_like(ids[:1]), max_new_tokens=2, do_sample=False)
        for i in range(0, len(ids), batch):
            part = ids[i:i + batch]
            begun = time.perf_counter()
            out = model.generate(input_ids=part, attention_mask=torch.ones_like(part), max_new_tokens=NEW,
                                 do_sample=False)
            seconds += time.perf_counter() - begun
            tokens += [row[ids.shape[1]:].tolist() for row in out]
    return sum(map(len, tokens)) / seconds, tokens


def child(a, what, *args):
    run = subprocess.run([sys.executable, __file__, "--child", what, json.dumps([*args, a.threads])], text=True,
                         capture_output=True)
    if run.returncode != 0:
        sys.exit(run.stderr)
    return json.loads(run.stdout.strip().splitlines()[-1])


def best_of(n, run):
    best = 1e9
    for _ in range(n):
        begun = time.perf_counter()
        run()
        best = min(best, time.perf_counter() - begun)
    return best


def measure_machine(threads):
    """GFLOP/s of torch's products by dtype, and GB/s of a copy and of reading alone."""
    import torch
    torch.set_num_threads(threads)
    t, k, n = 2048, 1024, 4096
    machine = {}
    for name in ("float32", "bfloat16"):
        x, w = torch.randn(t, k).to(getattr(torch, name)), torch.randn(n, k).to(getattr(torch, name))
        machine[name] = 2 * t * k * n / best_of(8, lambda: x @ w.T) / 1e9
    a, b = torch.ones(1 << 27), torch.zeros(1 << 27)
    machine["copy"] = 2 * a.numel() * 4 / best_of(5, lambda: b.copy_(a)) / 1e9
    machine["read"] = a.numel() * 4 / best_of(5, lambda: a.sum()) / 1e9
    return machine


def print_ops(ops, dtype, machine):
    total = sum(s for _, s, _, _ in ops)
    print(f"    {'op':16} {'share':>7} {'of limit':>9}   bound by")
    for name, seconds, gflops, gbytes in sorted(ops, key=lambda x: -x[1]):
        if seconds / total < 0.005:
            continue
        by_flops, by_bytes = gflops / machine[dtype], gbytes / machine["copy"]
        print(f"    {name:16} {100 * seconds / total:6.1f} % {100 * max(by_flops, by_bytes):7.0f} %   "
              f"{'products' if by_flops > by_bytes else 'memory'}", flush=True)


def compare_training(a, machine):
    cases = ["equal"] + ([] if a.quick else (["squad", "answer"] if a.squad else []))
    print(f"\n{'training':14} {'dtype':9} {'case':7} {'ours tok/s':>10} {'GFLOP/s':>8} {'of torch':>8} {'PEFT tok/s':>10} "
          f"{'ratio':>6} {'ours MiB':>9} {'planned':>8} {'PEFT MiB':>9} {'ratio':>6}")
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
                ours, mine, planned, ops = train_ours(a, folder, data, dtype, 4, steps)
                theirs, their_peak = child(a, "train", folder, data, dtype, 4, steps)
                done = ours * flops / 1e9 if case != "answer" else float("nan")
                print(f"{name:14} {dtype:9} {case:7} {ours:10.1f} {done:8.0f} {100 * done / machine[dtype]:6.0f} % "
                      f"{theirs:10.1f} {ours / theirs:6.2f} {mine:9.0f} {planned:8.0f} {their_peak:9.0f} "
                      f"{mine / their_peak:6.2f}", flush=True)
                print_ops(ops, dtype, machine)


def compare_generation(a, machine):
    import random
    print(f"\n{'generation':14} {'dtype':9} {'batch':>5} {'ours tok/s':>10} {'weights GB/s':>12} {'of reading':>10} "
          f"{'theirs tok/s':>12} {'ratio':>6}  tokens")
    for name, shape in GENERATE_SHAPES.items():
        if a.quick and shape["vocab"] > 100000:
            continue
        for dtype in a.dtypes:
            folder = tempfile.mkdtemp()
            make_model(folder, shape, dtype)
            make_tokenizer(folder)
            weights = (shape["layers"] * 12 * shape["hidden"] ** 2 + shape["vocab"] * shape["hidden"]) * \
                      (4 if dtype == "float32" else 2) / 1e9
            for batch in (1, 16):
                rng = random.Random(batch)
                prompts = os.path.join(folder, f"prompts{batch}.jsonl")
                with open(prompts, "w") as f:
                    for _ in range(batch):
                        f.write(json.dumps({"input_ids": [rng.randrange(4, shape["vocab"]) for _ in range(PROMPT)]}) + "\n")
                ours, mine = generate_ours(a, folder, prompts, dtype, batch)
                theirs, others = child(a, "generate", folder, prompts, dtype, batch)
                same = sum(x == y[:len(x)] for x, y in zip(mine, others))
                rate = ours / batch * weights
                print(f"{name:14} {dtype:9} {batch:5} {ours:10.1f} {rate:12.1f} {100 * rate / machine['read']:8.0f} % "
                      f"{theirs:12.1f} {ours / theirs:6.2f}  {same} of {batch} equal", flush=True)


def main():
    if len(sys.argv) > 1 and sys.argv[1] == "--child":
        run = {"train": train_theirs, "generate": generate_theirs}[sys.argv[2]]
        return print(json.dumps(run(*json.loads(sys.argv[3]))))
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--program", required=True)
    p.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    p.add_argument("--squad", help="a SQuAD v2.0 file, for its lengths")
    p.add_argument("--shapes", nargs="*", default=list(SHAPES))
    p.add_argument("--dtypes", nargs="*", default=["float32", "bfloat16"])
    p.add_argument("--only", choices=["train", "generate"])
    p.add_argument("--steps", type=int, default=6)
    p.add_argument("--quick", action="store_true", help="equal lengths only, 4 updates; the small vocabulary to generate")
    a = p.parse_args()
    machine = measure_machine(a.threads)
    print(f"torch on {a.threads} threads: products float32 {machine['float32']:.0f}, bfloat16 {machine['bfloat16']:.0f} "
          f"GFLOP/s; a copy {machine['copy']:.0f}, reading {machine['read']:.0f} GB/s")
    if a.only != "generate":
        compare_training(a, machine)
    if a.only != "train":
        compare_generation(a, machine)


if __name__ == "__main__":
    main()
