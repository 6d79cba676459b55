#!/usr/bin/env python3
"""lora-dist and Hugging Face PEFT on this machine's device, on the same files and batches.

    bench/gpu_compare.py --program FILE [--models 560m 3b] [--cases 4x512 16x512 packed:8192] [--out gpu_compare]

Makes BLOOM models of the published shapes with random weights, and data sets of token ids; trains an adapter of rank 8 on
query_key_value with both programs, in turn, and writes OUT.json and OUT.md as results come:

    speed    tokens/s of the updates after the first two; real tokens: PEFT's padding counts for time, not for tokens
    share    of the speed of torch's (else of lora-dist's own) large product of that type, and of the chip's nominal one,
             counting 4 operations per frozen weight and token
    memory   on the device, context included (nvidia-smi, torch's mem_get_info); on the CPU resident; and lora-dist's plan
    agree    losses and gradient norms of all updates, side by side: another batch, mask, rate or adapter would show there
    ops      time of each op of lora-dist beside what it must at least compute or move
    steps    of generation (--generate), beside the time in which a copy moves what a step must read

A case 4x512 is an update of 4 records of 512 tokens; packed:8192 one of records of 96 to 512 tokens that add up to 8,192.
All models have their turn in the first type, then in the next.
Every update sees the whole data set, so that both learn it. Nothing but Python is needed; without torch, transformers and
peft PEFT's side is left out. A part that takes longer than --limit seconds, or begins when --budget is spent, is left out
with a line that says so. Exit code 1: a part failed, or the two disagree.
"""
import argparse, array, importlib.util, json, math, os, random, re, resource, shutil, signal, statistics, struct, subprocess, sys
import tempfile, threading, time
from importlib import metadata

SHAPES = {  # hidden, layers, heads, vocabulary
    "tiny": (64, 2, 4, 512), "560m": (1024, 24, 16, 250880), "1b7": (2048, 24, 16, 250880), "3b": (2560, 30, 32, 250880),
    "7b1": (4096, 30, 32, 250880)}
NOMINAL = {"H200": 989, "H100": 989, "A100": 312}  # dense 16-bit TFLOP/s of the vendor's data sheets
ROUNDOFF = {"float32": 2.0**-24, "bfloat16": 2.0**-9, "float16": 2.0**-12}
RATE, WARM = 1e-3, 2
PROMPT, FEW_STEPS, MANY_STEPS = 448, 16, 144  # tokens of generation: two runs, whose difference is steps alone


def noise_block(dtype, n=100003):
    """n normal numbers of deviation 0.02, as bytes. n is prime: no two rows of a matrix begin alike."""
    rng = random.Random(0)
    x = array.array("f", (rng.gauss(0, 0.02) for _ in range(n)))
    if dtype == "float32":
        return x.tobytes()
    if dtype == "float16":
        return struct.pack(f"<{n}e", *x)
    words = array.array("I", x.tobytes())  # bfloat16: to nearest even
    return array.array("H", ((w + 0x7fff + (w >> 16 & 1)) >> 16 for w in words)).tobytes()


def bytes_of(shape, dtype):
    """Of the large weights."""
    hidden, layers, _, vocab = shape
    return (4 if dtype == "float32" else 2) * (12 * layers * hidden**2 + vocab * hidden)


def place_for(folder, n_bytes):
    """Where a model finds room: the folder, if one is named, else the first of these; None: nowhere."""
    for place in [folder] if folder else ["/dev/shm", tempfile.gettempdir(), "."]:
        if os.access(place, os.W_OK) and shutil.disk_usage(place).free >= n_bytes * 1.05 + (8 << 20):
            return place
    return None


def write_tokenizer(path):
    """Of bytes: nobody reads what a model of noise says."""
    letters = [chr(c) for c in (*range(33, 127), *range(161, 173), *range(174, 256))]
    letters += [chr(256 + i) for i in range(256 - len(letters))]
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    json.dump({"version": "1.0", "added_tokens": [], "normalizer": None, "pre_tokenizer": level, "post_processor": None,
               "decoder": level, "model": {"type": "BPE", "vocab": {c: i for i, c in enumerate(letters)}, "merges": []}},
              open(path, "w"))


def write_model(folder, shape, dtype):
    """config.json, tokenizer.json and model.safetensors; norms are one and zero, biases zero, all else noise."""
    hidden, layers, heads, vocab = shape
    os.makedirs(folder)
    write_tokenizer(folder + "/tokenizer.json")
    json.dump({"model_type": "bloom", "architectures": ["BloomForCausalLM"], "hidden_size": hidden, "n_layer": layers, "n_head": heads,
               "vocab_size": vocab, "torch_dtype": dtype, "layer_norm_epsilon": 1e-5, "hidden_dropout": 0.0,
               "attention_dropout": 0.0, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 3, "unk_token_id": 0},
              open(f"{folder}/config.json", "w"))
    size = 4 if dtype == "float32" else 2
    one = {"float32": struct.pack("<f", 1), "bfloat16": b"\x80\x3f", "float16": struct.pack("<e", 1)}[dtype]

    def norm(name):
        return [(name + ".weight", [hidden], one), (name + ".bias", [hidden], bytes(size))]

    def linear(name, n_in, n_out):
        return [(name + ".weight", [n_out, n_in], None), (name + ".bias", [n_out], bytes(size))]
    tensors = [("word_embeddings.weight", [vocab, hidden], None)] + norm("word_embeddings_layernorm")
    for i in range(layers):
        block = (norm("input_layernorm") + linear("self_attention.query_key_value", hidden, 3 * hidden) +
                 linear("self_attention.dense", hidden, hidden) + norm("post_attention_layernorm") +
                 linear("mlp.dense_h_to_4h", hidden, 4 * hidden) + linear("mlp.dense_4h_to_h", 4 * hidden, hidden))
        tensors += [(f"h.{i}.{name}", dims, value) for name, dims, value in block]
    tensors += norm("ln_f")
    name = {"float32": "F32", "bfloat16": "BF16", "float16": "F16"}[dtype]
    header, at = {"__metadata__": {"format": "pt"}}, 0
    for key, dims, _ in tensors:
        header["transformer." + key] = {"dtype": name, "shape": dims, "data_offsets": [at, at := at + size * math.prod(dims)]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    noise, phase = noise_block(dtype), 0
    with open(f"{folder}/model.safetensors", "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text)
        for _, dims, value in tensors:
            left = size * math.prod(dims)
            if value is not None:
                f.write(value * (left // size))
                continue
            while left > 0:
                part = noise[phase:phase + left]
                f.write(part)
                left -= len(part)
                phase = (phase + len(part)) % len(noise)


def lengths_of(case):
    if case.startswith("packed:"):
        total, rng, lengths = int(case[7:]), random.Random(2), []
        while (left := total - sum(lengths)) > 0:
            lengths.append(left if left < 192 else min(left - 96, rng.randrange(96, 513)))
        return lengths
    n, length = map(int, case.split("x"))
    return [length] * n


def write_data(path, lengths, vocab):
    """Small ids are more frequent than large ones: there is something to learn."""
    rng = random.Random(1)
    with open(path, "w") as f:
        for n in lengths:
            f.write(json.dumps({"input_ids": [4 + int((vocab - 4) * rng.random()**4) for _ in range(n)]}) + "\n")


def used_on_device():
    """MiB in use on the first GPU, or None."""
    try:
        text = subprocess.run(["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits", "-i", "0"],
                              capture_output=True, text=True, timeout=20).stdout
        return float(text.split()[0])
    except (OSError, ValueError, IndexError, subprocess.TimeoutExpired):
        return None


class Watch(threading.Thread):
    """The most memory that the device had in use since this began, over what was in use before."""

    def __init__(self):
        super().__init__(daemon=True)
        self.before, self.most, self.done = used_on_device(), 0, threading.Event()
        self.start()

    def run(self):
        while self.before is not None and not self.done.wait(0.1):
            self.most = max(self.most, (used_on_device() or 0) - self.before)

    def end(self):
        self.done.set()
        self.join()
        return self.most or None


def ours(a, folder, data, dtype, n_records, limit, with_ops):
    out = os.path.join(folder, "out")
    shutil.rmtree(out, ignore_errors=True)
    os.makedirs(out)
    config = {"model": {"name_or_path": folder, "dtype": dtype}, "data": {"format": "tokenized", "train_file": data},
              "lora": {"r": 8, "lora_alpha": 16, "target_modules": ["query_key_value"], "seed": 42},
              "training": {"output_dir": out + "/run", "per_device_train_batch_size": n_records, "max_steps": a.steps,
                           "learning_rate": RATE, "lr_scheduler_type": "constant", "save_steps": 1000000}}
    if a.tuning_file:
        config["parallel"] = {"tuning_file": a.tuning_file}
    json.dump(config, open(out + "/config.yaml", "w"))
    command = [a.program, "--config", out + "/config.yaml", "--backend", a.backend]
    if a.threads:
        command += ["--threads", str(a.threads)]
    watch = Watch()
    try:
        run = subprocess.run(command, capture_output=True, text=True, timeout=limit)
    finally:
        device = watch.end()
    if run.returncode != 0:
        raise RuntimeError(run.stderr[-2000:])
    text = run.stderr
    rates = [float(x) for x in re.findall(r"([0-9.]+) tokens/s", text)]
    log = [x for x in json.load(open(out + "/run/trainer_state.json"))["log_history"] if "loss" in x]
    resident = float(re.search(r"Peak memory of rank 0: ([0-9.]+) MiB", text).group(1))
    result = {"tokens_per_s": statistics.median(rates[WARM:]), "loss": [x["loss"] for x in log],
              "grad_norm": [x["grad_norm"] for x in log], "resident_mib": resident, "device_mib": device,
              "planned_mib": {row: float(mib) for row, mib in re.findall(r"^  (\S.*?) {2,}([0-9.]+) MiB$", text, re.M)},
              "libraries": "".join(re.findall(r"^Device memory that libraries took.*", text, re.M)),
              "device": re.search(r"updates? of .* ranks?; (.*)", text).group(1)}
    if with_ops:  # a run of its own: each op is waited for
        run = subprocess.run([*command, "--log-level", "debug", "--set", f"training.output_dir={out}/ops"], capture_output=True,
                             text=True, timeout=limit)
        ops = re.findall(r"^  (\w+) +(\d+) calls +([0-9.]+) s .* ([0-9.]+) GFLOP/s +([0-9.]+) GB/s", run.stderr, re.M)
        result["ops"] = [{"op": n, "calls": int(c), "seconds": float(s), "gflops": float(f), "gb_per_s": float(b)}
                         for n, c, s, f, b in ops]
    return result


def steps_of_generation(a, folder, shape, dtype, n, limit):
    """Time of a step with n sequences, some 500 tokens each: of MANY_STEPS less FEW_STEPS of them."""
    small = shape == SHAPES["tiny"]
    prompt, few, many = (20, 4, 260) if small else (PROMPT, FEW_STEPS, MANY_STEPS)
    with open(folder + "/prompts.jsonl", "w") as f:
        for i in range(n):
            f.write(json.dumps({"input_ids": [4 + (7 * i + 13 * k) % (shape[3] - 4) for k in range(prompt)]}) + "\n")
    taken = []
    for steps in (few, many):
        run = subprocess.run([a.program, "generate", "--model", folder, "--dtype", dtype, "--backend", a.backend, "--prompt-file",
                              folder + "/prompts.jsonl", "--max-new-tokens", str(steps), "--batch-size", str(n), "--log-level", "debug"],
                             capture_output=True, text=True, timeout=limit)
        found = re.search(r"([0-9]+) tokens in ([0-9.]+) s", run.stderr)
        if run.returncode != 0 or not found:
            raise RuntimeError(run.stderr[-2000:])
        taken.append((int(found[1]), float(found[2])))
    tokens, seconds = (y - x for x, y in zip(*taken))
    cached = n * (prompt + (few + many) / 2) * 2 * shape[0] * shape[1] * (4 if dtype == "float32" else 2)
    return {"sequences": n, "ms": 1e3 * seconds / (tokens / n), "tokens_per_s": tokens / seconds,
            "gb": (bytes_of(shape, dtype) + cached) / 1e9}


# ---- in a process of its own: what torch does

def on_gpu(backend):
    import torch
    if backend == "cuda" and not torch.cuda.is_available():
        sys.exit("torch finds no GPU")
    return backend != "cpu" and torch.cuda.is_available()


def timed(run, wait, repeat=10):
    for _ in range(3):
        run()
    wait()
    begun = time.perf_counter()
    for _ in range(repeat):
        run()
    wait()
    return (time.perf_counter() - begun) / repeat


def child_ceilings(backend, dtypes):
    import torch
    gpu = on_gpu(backend)
    place, n = ("cuda", 8192) if gpu else ("cpu", 1024)
    wait = torch.cuda.synchronize if gpu else (lambda: None)
    found = {"device": torch.cuda.get_device_name(0) if gpu else "CPU", "tflops": {}}
    for dtype in dtypes:
        x, w = (torch.randn(n, n, device=place).to(getattr(torch, dtype)) for _ in range(2))
        found["tflops"][dtype] = 2 * n**3 / timed(lambda: x @ w.T, wait) / 1e12
    x = torch.ones(1 << (30 if gpu else 26), device=place)
    y = torch.empty_like(x)
    found["gb_per_s"] = 2 * x.numel() * 4 / timed(lambda: y.copy_(x), wait) / 1e9
    print(json.dumps(found), flush=True)


def child_theirs(backend, folder, dtype, cases, steps, threads):
    """A line of JSON for each case."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM
    gpu = on_gpu(backend)
    place = "cuda" if gpu else "cpu"
    wait = torch.cuda.synchronize if gpu else (lambda: None)
    if threads:
        torch.set_num_threads(threads)
    base = AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, dtype)).to(place)
    for case, data in cases:
        torch.manual_seed(42)
        model = get_peft_model(base, LoraConfig(r=8, lora_alpha=16, target_modules=["query_key_value"], task_type="CAUSAL_LM"))
        model = model.to(place).train()
        parameters = [p for p in model.parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(parameters, lr=RATE, weight_decay=0)
        scaler = torch.amp.GradScaler(place, enabled=dtype == "float16")
        records = [json.loads(line)["input_ids"] for line in open(data)]
        width, tokens = max(map(len, records)), sum(map(len, records))

        def padded(fill, missing):
            return torch.tensor([fill(r) + [missing] * (width - len(r)) for r in records], device=place)
        batch = {"input_ids": padded(list, 3), "labels": padded(list, -100), "attention_mask": padded(lambda r: [1] * len(r), 0)}
        result = {"case": case, "loss": [], "grad_norm": []}
        rates = []
        for _ in range(steps):
            wait()
            begun = time.perf_counter()
            loss = model(**batch).loss
            scaler.scale(loss).backward()
            scaler.unscale_(optimizer)
            norm = torch.nn.utils.clip_grad_norm_(parameters, 1.0)
            scaler.step(optimizer)
            scaler.update()
            optimizer.zero_grad()
            result["loss"].append(float(loss))
            result["grad_norm"].append(float(norm))
            rates.append(tokens / (time.perf_counter() - begun))
        result["tokens_per_s"] = statistics.median(rates[WARM:])
        result["resident_mib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        if gpu:
            free, total = torch.cuda.mem_get_info()
            result["device_mib"] = (total - free) / 2**20
        print(json.dumps(result), flush=True)
        del optimizer, parameters, batch, loss
        base = model.unload()
        if gpu:
            torch.cuda.empty_cache()


def own_ceilings(a):
    """Where there is no torch: the best of bench/op_speed's products and passes, which lies beside the program or in its build."""
    here = os.path.dirname(a.program)
    tool = next((f for f in (here + "/op_speed", here + "/../../bench/op_speed") if os.access(f, os.X_OK)), None)
    if tool is None:
        return None
    size = ["--hidden", "4096"]
    if a.models == ["tiny"]:
        size = ["--hidden", "64", "--heads", "4", "--tokens", "64", "--length", "64", "--repeat", "1"]
    found = {"tflops": {}}
    for dtype in a.dtypes:
        try:
            run = subprocess.run([tool, "--backend", a.backend, "--dtype", dtype, "--vocab", "512", *size], capture_output=True,
                                 text=True, timeout=a.limit, check=True)
        except (subprocess.TimeoutExpired, subprocess.CalledProcessError):
            return None
        ops = json.loads(run.stdout)
        found["device"] = ops["device"]
        found["tflops"][dtype] = max(x["tflops"] for x in ops.values() if isinstance(x, dict))
        found["gb_per_s"] = max(ops[name]["gb_per_s"] for name in ("addnorm", "norm backward"))
    return found


def run_child(limit, what, *arguments):
    """What it printed, a line each, also when its time was up; and what went wrong, if anything."""
    try:
        run = subprocess.run([sys.executable, __file__, "--child", what, json.dumps(arguments)], capture_output=True, text=True,
                             timeout=limit, env={**os.environ, "HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error"})
        lines, problem = run.stdout, run.stderr[-2000:] if run.returncode else None
    except subprocess.TimeoutExpired as e:
        lines, problem = (e.stdout or b"").decode(), f"took longer than {limit:.0f} s"
    return [json.loads(line) for line in lines.splitlines() if line.startswith("{")], problem


# ---- what is made of it

def compare(mine, theirs, dtype, layers):
    """Largest relative differences of losses and gradient norms. A loss is a mean over thousands of tokens, off by two
    roundings at most; a gradient passes through 2 sums a layer that are each rounded, four times their random walk is allowed.
    An update that was skipped (float16's search for its scale) has no norm; both must skip the same ones."""
    loss = norm = 0
    same = len(mine["loss"]) == len(theirs["loss"])
    for x, y, m, n in zip(mine["loss"], theirs["loss"], mine["grad_norm"], theirs["grad_norm"]):
        here, there = (isinstance(v, float) and math.isfinite(v) for v in (m, n))
        same = same and here == there
        loss = max(loss, abs(x / y - 1))
        if here and there:
            norm = max(norm, abs(m / n - 1))
    u = max(ROUNDOFF[dtype], 2.0**-19)  # float32: sums of thousands of terms, in another order
    bounds = 2 * u, 4 * u * math.sqrt(2 * layers)
    return {"loss_off": loss, "loss_bound": bounds[0], "grad_norm_off": norm, "grad_norm_bound": bounds[1],
            "agree": same and loss <= bounds[0] and norm <= bounds[1]}


def number(x, digits=0):
    return "-" if x is None else f"{x:,.{digits}f}"


def percent(x):
    return "-" if x is None else f"{100 * x:.0f} %"


def markdown(report):
    c = report["ceilings"]
    lines = [f"# lora-dist and PEFT: {c.get('device', 'device unknown')}", "",
             "Ceilings: " + ", ".join(f"{d} products {number(x, 1)} TFLOP/s" for d, x in c["tflops"].items()) +
             f"; a copy {number(c.get('gb_per_s'))} GB/s; nominal {number(c.get('nominal'))} TFLOP/s", "",
             "| model | type | case | tokens/s | of measured | of nominal | PEFT tokens/s | times | MiB | planned | PEFT MiB | loss off | norm off |",
             "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |"]
    for r in report["rows"]:
        m, t, s = r.get("ours") or {}, r.get("theirs") or {}, r.get("agreement") or {}
        off = [("" if s["agree"] else "**") + f"{s[k]:.1e}" + ("" if s["agree"] else "**") if s else "-" for k in ("loss_off", "grad_norm_off")]
        lines.append(f"| {r['model']} | {r['dtype']} | {r['case']} | {number(m.get('tokens_per_s'))} | {percent(r.get('of_measured'))} | "
                     f"{percent(r.get('of_nominal'))} | {number(t.get('tokens_per_s'))} | {number(r.get('ratio'), 2)} | "
                     f"{number(m.get('device_mib') or m.get('resident_mib'))} | {number(m.get('planned_mib', {}).get('in all'))} | {number(t.get('device_mib') or t.get('resident_mib'))} | "
                     f"{off[0]} | {off[1]} |")
    for r in report["rows"]:
        if "agreement" in r:
            pairs = "; ".join(f"{x:.4f} {y:.4f}" for x, y in zip(r["ours"]["loss"], r["theirs"]["loss"]))
            lines += ["", f"Losses of {r['model']}, {r['dtype']}, {r['case']}, ours and PEFT's, update by update: {pairs}"]
    for r in report["rows"]:
        if r.get("ours"):
            plan = ", ".join(f"{row} {mib}" for row, mib in r["ours"]["planned_mib"].items())
            lines += ["", f"Memory of {r['model']}, {r['dtype']}, {r['case']}, planned, in MiB: {plan}. {r['ours']['libraries']}"]
    if report["generation"]:
        lines += ["", "## A step of generation", "", "| model | type | sequences | ms | tokens/s | must read GB | of a copy's speed |",
                  "| --- | --- | --- | --- | --- | --- | --- |"]
    for g in report["generation"]:
        share = g["gb"] / (g["ms"] / 1e3) / c["gb_per_s"] if c.get("gb_per_s") else None
        lines.append(f"| {g['model']} | {g['dtype']} | {g['sequences']} | {g['ms']:.3f} | {number(g['tokens_per_s'])} | {g['gb']:.2f} | "
                     f"{percent(share)} |")
    for r in report["rows"]:
        if not (r.get("ours") or {}).get("ops"):
            continue
        lines += ["", f"## Ops of {r['model']}, {r['dtype']}, {r['case']}", "",
                  "| op | calls | time | ms a call | TFLOP/s | GB/s | of its limit |", "| --- | --- | --- | --- | --- | --- | --- |"]
        ops = r["ours"]["ops"]
        total = sum(o["seconds"] for o in ops)
        peak, copy = c["tflops"].get(r["dtype"]), c.get("gb_per_s")
        for o in sorted(ops, key=lambda o: -o["seconds"]):
            shares = [(o["gflops"] / 1e3 / peak, "products")] if peak else []
            shares += [(o["gb_per_s"] / copy, "memory")] if copy else []
            best = max(shares, default=None)
            lines.append(f"| {o['op']} | {o['calls']} | {percent(o['seconds'] / total)} | {1e3 * o['seconds'] / o['calls']:.3f} | "
                         f"{o['gflops'] / 1e3:.2f} | {o['gb_per_s']:.1f} | {percent(best[0]) + ', ' + best[1] if best else '-'} |")
    lines += [""] + [f"- {note}" for note in report["notes"]]
    return "\n".join(lines) + "\n"


class Report:
    def __init__(self, out):
        self.out, self.data = out, {"ceilings": {"tflops": {}}, "rows": [], "generation": [], "notes": []}

    def save(self):
        for name, text in ((".json", json.dumps(self.data, indent=1)), (".md", markdown(self.data))):
            with open(self.out + name + ".partial", "w") as f:
                f.write(text)
            os.replace(self.out + name + ".partial", self.out + name)

    def note(self, text):
        print(text, flush=True)
        self.data["notes"].append(text)
        self.save()


def finish_row(row, ceilings, shape):
    hidden, layers, _, vocab = shape
    m, t = row.get("ours"), row.get("theirs")
    if m:
        tflops = m["tokens_per_s"] * 4 * (12 * layers * hidden**2 + vocab * hidden) / 1e12
        row["tflops"] = tflops
        peak, nominal = ceilings["tflops"].get(row["dtype"]), ceilings.get("nominal")
        row["of_measured"] = tflops / peak if peak else None
        row["of_nominal"] = tflops / nominal if nominal and row["dtype"] != "float32" else None
    if m and t:
        row["ratio"] = m["tokens_per_s"] / t["tokens_per_s"]
        row["agreement"] = compare(m, t, row["dtype"], layers)


def generate(a, report, folder, model, dtype, left):
    for n in a.generate:
        what = f"generation, {model}, {dtype}, {n} sequences"
        try:
            if left() <= 0:
                raise TimeoutError
            steps = steps_of_generation(a, folder, SHAPES[model], dtype, n, min(a.limit, left()))
            report.data["generation"].append({"model": model, "dtype": dtype, **steps})
            report.save()
        except (subprocess.TimeoutExpired, TimeoutError):
            report.note(f"{what}: left out, there was no time")
        except RuntimeError as e:
            report.data["failed"] = True
            report.note(f"{what}: lora-dist FAILED: {e}")


def compare_with_theirs(a, report, folder, model, dtype, rows, left):
    results, problem = run_child(min(a.limit, left()), "theirs", a.backend, folder + "/model", dtype,
                                 [(r["case"], r["data"]) for r in rows], a.steps, a.threads)
    for r in results:
        row = next(x for x in rows if x["case"] == r["case"])
        row["theirs"] = r
        finish_row(row, report.data["ceilings"], SHAPES[model])
        if "agreement" in row and not row["agreement"]["agree"]:
            report.data["failed"] = True
            report.note(f"{model}, {dtype}, {r['case']}: the two DISAGREE: {row['agreement']}")
    if problem:
        report.note(f"{model}, {dtype}: PEFT: {problem}")
    report.save()


def compare_model(a, report, model, dtype, left):
    shape = SHAPES[model]
    place = place_for(a.folder, bytes_of(shape, dtype))
    if place is None:
        report.note(f"{model}, {dtype}: left out, there is no room for {bytes_of(shape, dtype) / 1e9:.1f} GB (--folder)")
        return
    folder = tempfile.mkdtemp(dir=place)
    try:
        begun = time.monotonic()
        write_model(folder + "/model", shape, dtype)
        print(f"{model} in {dtype}: made in {time.monotonic() - begun:.0f} s", flush=True)
        rows = []
        for i, case in enumerate(a.cases):
            row = {"model": model, "dtype": dtype, "case": case, "data": f"{folder}/{case.replace(':', '-')}.jsonl"}
            if left() <= 0:
                report.note(f"{model}, {dtype}, {case}: left out, {a.budget:.0f} s are spent")
                continue
            lengths = lengths_of(case)
            write_data(row["data"], lengths, shape[3])
            try:
                row["ours"] = ours(a, folder + "/model", row["data"], dtype, len(lengths), min(a.limit, left()), i == 0)
            except subprocess.TimeoutExpired:
                report.note(f"{model}, {dtype}, {case}: lora-dist took longer than {min(a.limit, left()):.0f} s: left out")
            except (RuntimeError, AttributeError, OSError) as e:
                report.data["failed"] = True
                report.note(f"{model}, {dtype}, {case}: lora-dist FAILED: {e}")
            finish_row(row, report.data["ceilings"], shape)
            rows.append(row)
            report.data["rows"].append(row)
            report.save()
        if report.data["peft"] and left() > 0:
            compare_with_theirs(a, report, folder, model, dtype, rows, left)
        if dtype == a.dtypes[0]:
            generate(a, report, folder + "/model", model, dtype, left)
    finally:
        shutil.rmtree(folder)


def main():
    if len(sys.argv) > 1 and sys.argv[1] == "--child":
        return {"ceilings": child_ceilings, "theirs": child_theirs}[sys.argv[2]](*json.loads(sys.argv[3]))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # which removes what was made
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--program", default=os.environ.get("LRD_PROGRAM"), help="lora-dist; unless given, $LRD_PROGRAM")
    p.add_argument("--models", nargs="+", choices=list(SHAPES), default=["560m", "3b"])
    p.add_argument("--dtypes", nargs="+", choices=list(ROUNDOFF), default=["bfloat16", "float16"])
    p.add_argument("--cases", nargs="+", default=["4x512", "16x512", "packed:8192"])
    p.add_argument("--steps", type=int, default=8)
    p.add_argument("--backend", default="auto")
    p.add_argument("--threads", type=int, default=0, help="on the CPU")
    p.add_argument("--no-peft", action="store_true", help="lora-dist alone")
    p.add_argument("--tuning-file", help="of lora-dist tune, for lora-dist's runs")
    p.add_argument("--limit", type=float, default=90, help="seconds for one part")
    p.add_argument("--budget", type=float, default=540, help="seconds for all")
    p.add_argument("--generate", nargs="*", type=int, default=[], help="steps of generation with so many sequences each")
    p.add_argument("--folder", help="where models are made; unless given, where there is room: /dev/shm, $TMPDIR, here")
    p.add_argument("--out", default="gpu_compare")
    a = p.parse_args()
    if not a.program:
        p.error("--program is needed, or LRD_PROGRAM")
    a.program = os.path.abspath(a.program)
    end = time.monotonic() + a.budget
    report = Report(a.out)
    found, problem = run_child(a.limit, "ceilings", a.backend, a.dtypes)
    report.data["peft"] = not a.no_peft and all(importlib.util.find_spec(name) for name in ("torch", "transformers", "peft"))
    if not found and (own := own_ceilings(a)):
        report.note("Ceilings by bench/op_speed: there is no torch here")
        found = [own]
    if found:
        report.data["ceilings"] = found[0]
        report.data["ceilings"]["nominal"] = next((x for name, x in NOMINAL.items() if name in found[0]["device"]), None)
    else:
        report.note("no ceilings: " + ((problem or "").strip() or "torch said nothing").splitlines()[-1])
    if report.data["peft"]:
        report.note("Beside " + ", ".join(f"{name} {metadata.version(name)}" for name in ("torch", "transformers", "peft")))
    else:
        report.note("PEFT is left out" + ("" if a.no_peft else ": torch, transformers and peft are not all here"))
    for dtype in a.dtypes:
        for model in a.models:
            if time.monotonic() >= end:
                report.note(f"{model}, {dtype}: left out, {a.budget:.0f} s are spent")
                continue
            compare_model(a, report, model, dtype, lambda: end - time.monotonic())
    report.save()
    print(open(a.out + ".md").read())
    return 1 if report.data.get("failed") else 0


if __name__ == "__main__":
    sys.exit(main())
