#!/usr/bin/env python3
"""What `lora-dist plan` says an update takes, beside what it takes in a run: several shapes and layouts on this host.

    bench/plan_time.py --program build/cpu-release/src/app/lora-dist [--case TEXT]... [--repeat 3] [--bound 15]

Plan and run take turns, so that what else the machine does meets both; medians over all turns, of updates after the first two.
Each rank has one thread unless --threads says otherwise; no case has more than two ranks. With --bound, a case off by more percent
fails (exit code 1). Where the plans of a case differ by more than a third of that, or the median update is so much slower than the
fastest, or a core is taken away for that part of the time, the machine is not quiet enough to say: exit code 77.
"""
import argparse, array, json, os, random, re, shutil, statistics, subprocess, sys, tempfile, time

SMALL, LARGE = 2048, 250880
# name: hidden, layers, vocabulary, tokens of a record (or from, to), records of a micro-batch, micro-batches of a replica, ranks,
# settings
CASES = {
    "512, small vocabulary":           (512, 4, SMALL, 128, 4, 4, 1, {}),
    "512, small vocabulary, 2 x 1":    (512, 4, SMALL, 128, 4, 4, 2, {"parallel.data": 2}),
    "512, small vocabulary, 1 x 2":    (512, 4, SMALL, 128, 4, 4, 2, {"parallel.pipeline": 2}),
    "1024, small vocabulary":          (1024, 4, SMALL, 256, 4, 2, 1, {}),
    "1024, small vocabulary, 2 x 1":   (1024, 4, SMALL, 256, 4, 2, 2, {"parallel.data": 2}),
    "1024, small vocabulary, 1 x 2":   (1024, 4, SMALL, 128, 4, 6, 2, {"parallel.pipeline": 2}),
    "1024, chunks, 1 x 2":             (1024, 4, SMALL, 128, 4, 4, 2, {"parallel.pipeline": 2, "parallel.pipeline_chunks": 2}),
    "1024, bfloat16":                  (1024, 4, SMALL, 256, 4, 2, 1, {"model.dtype": "bfloat16"}),
    "1024, bfloat16, 2 x 1":           (1024, 4, SMALL, 256, 4, 2, 2, {"model.dtype": "bfloat16", "parallel.data": 2}),
    "1024, all-linear, r 64":          (1024, 4, SMALL, 128, 4, 4, 1, {"lora.target_modules": "all-linear", "lora.r": 64}),
    "1024, recomputed":                (1024, 4, SMALL, 256, 4, 2, 1, {"training.gradient_checkpointing": "block"}),
    "1024, long records":              (1024, 4, SMALL, 1500, 1, 1, 1, {}),
    "512, mixed lengths":             (512, 4, SMALL, (32, 480), 2, 4, 1, {}),
    "512, mixed lengths, 2 x 1":       (512, 4, SMALL, (32, 480), 2, 4, 2, {"parallel.data": 2}),
    "512, mixed lengths, 1 x 2":       (512, 4, SMALL, (32, 480), 2, 6, 2, {"parallel.pipeline": 2}),
    "1024, records of 16":             (1024, 4, SMALL, 16, 2, 8, 1, {}),
    "1024, upper half adapted":        (1024, 4, SMALL, 128, 4, 4, 1, {"lora.layers_to_transform": "[2, 3]"}),
    "512, large vocabulary":           (512, 4, LARGE, 128, 4, 1, 1, {}),
    "512, large vocabulary, answers":  (512, 4, LARGE, 128, 4, 4, 1, {"answers": 8}),
    "1024, large vocabulary":          (1024, 4, LARGE, 128, 4, 1, 1, {}),
    "1024, large, answers":            (1024, 4, LARGE, 128, 4, 4, 1, {"answers": 8}),
    "1024, large, answers, 2 x 1":     (1024, 4, LARGE, 128, 4, 4, 2, {"answers": 8, "parallel.data": 2}),
    "1024, large, answers, 1 x 2":     (1024, 4, LARGE, 128, 4, 6, 2, {"answers": 8, "parallel.pipeline": 2}),
    "1024, large, 1 x 2":              (1024, 6, LARGE, 128, 2, 3, 2, {"parallel.pipeline": 2}),
}
UPDATES = 6  # of a run; the first two do not count


def write_model(folder, hidden, layers, vocabulary):
    """A BLOOM of random weights: one repeated stretch of them, since values do not matter here."""
    os.makedirs(folder)
    json.dump({"model_type": "bloom", "n_layer": layers, "hidden_size": hidden, "n_head": hidden // 64,
               "vocab_size": vocabulary, "torch_dtype": "float32"}, open(os.path.join(folder, "config.json"), "w"))
    norm = lambda name: [(name + ".weight", [hidden]), (name + ".bias", [hidden])]
    linear = lambda name, n_in, n_out: [(name + ".weight", [n_out, n_in]), (name + ".bias", [n_out])]
    tensors = [("word_embeddings.weight", [vocabulary, hidden])] + norm("word_embeddings_layernorm") + norm("ln_f")
    for i in range(layers):
        tensors += [(f"h.{i}.{name}", shape) for name, shape in
                    norm("input_layernorm") + linear("self_attention.query_key_value", hidden, 3 * hidden) +
                    linear("self_attention.dense", hidden, hidden) + norm("post_attention_layernorm") +
                    linear("mlp.dense_h_to_4h", hidden, 4 * hidden) + linear("mlp.dense_4h_to_h", 4 * hidden, hidden)]
    header, at = {}, 0
    for name, shape in tensors:
        n = 4 * shape[0] * (shape[1] if len(shape) > 1 else 1)
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [at, at + n]}
        at += n
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    draw = random.Random(1)
    stretch = array.array("f", (draw.uniform(-0.05, 0.05) for _ in range(1 << 16))).tobytes()
    with open(os.path.join(folder, "model.safetensors"), "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        while at > 0:
            at -= file.write(stretch[:at])


def write_records(path, n, tokens, vocabulary, answers):
    """Returns how many tokens they have."""
    draw, count = random.Random(2), 0
    least, most = tokens if isinstance(tokens, tuple) else (tokens, tokens)
    with open(path, "w") as file:
        for _ in range(n):
            ids = [draw.randrange(vocabulary) for _ in range(draw.randint(least, most))]
            labels = ids if answers is None else [-100] * (len(ids) - answers) + ids[-answers:]
            file.write(json.dumps({"input_ids": ids, "labels": labels}) + "\n")
            count += len(ids)
    return count


def run(command, environment):
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode != 0:
        sys.exit(" ".join(command) + "\n" + done.stderr)
    return done.stdout, done.stderr


def share_of_core(core, seconds=0.2):
    """The part of a core that a process which wants all of it gets; in a process of its own."""
    os.sched_setaffinity(0, [core])
    begun, used = time.perf_counter(), time.process_time()
    while time.perf_counter() - begun < seconds:
        pass
    return (time.process_time() - used) / (time.perf_counter() - begun)


def taken(n_cores):
    """The part that other processes take of the core that has the least left, of those that ranks are bound to."""
    cores = sorted(os.sched_getaffinity(0))[:n_cores]
    children = []
    for core in cores:
        read, write = os.pipe()
        if os.fork() == 0:
            os.write(write, repr(share_of_core(core)).encode())
            os._exit(0)
        os.close(write)
        children.append(read)
    shares = []
    for read in children:
        with os.fdopen(read) as file:
            shares.append(float(file.read()))
        os.wait()
    return 1 - min(shares)


class Case:
    def __init__(self, a, work, models, number, description):
        hidden, layers, vocabulary, tokens, records, micro_batches, ranks, settings = description
        settings = dict(settings)
        answers = settings.pop("answers", None)
        model = os.path.join(models, f"{hidden}-{layers}-{vocabulary}")
        if not os.path.isdir(model):
            write_model(model, hidden, layers, vocabulary)
        data = os.path.join(work, f"{number}.jsonl")
        replicas = settings.get("parallel.data", 1)
        # An update takes all records.
        self.tokens = write_records(data, records * micro_batches * replicas, tokens, vocabulary, answers)
        self.options = ["--config", os.path.join(work, f"{number}.yaml"), "--set", f"training.output_dir={work}/{number}"]
        for key, value in settings.items():
            self.options += ["--set", f"{key}={value}"]
        json.dump({"model": {"name_or_path": model}, "data": {"format": "tokenized", "train_file": data},
                   "lora": {"r": 8, "lora_dropout": 0.05},
                   "training": {"per_device_train_batch_size": records, "gradient_accumulation_steps": micro_batches,
                                "max_steps": UPDATES, "save_steps": 100000}}, open(self.options[1], "w"))
        self.program, self.ranks, self.threads, self.out = a.program, ranks, a.threads, f"{work}/{number}"
        self.environment = dict(os.environ, OMP_NUM_THREADS=str(a.threads))
        self.planned, self.updates, self.taken, self.busy = [], [], [], ""

    def plan(self):
        out, _ = run([self.program, "plan", *self.options, "--ranks", str(self.ranks)], self.environment)
        self.planned.append(float(re.search(r"\nAn update on .*\): ([0-9.e+-]+) s", out).group(1)))

    def train(self):
        shutil.rmtree(self.out, ignore_errors=True)
        bound = ["--map-by", f"slot:PE={self.threads}", "--bind-to", "core"]
        launch = [] if self.ranks == 1 else ["mpirun", "-np", str(self.ranks), *bound]
        self.taken.append(taken(self.ranks * self.threads))
        _, log = run([*launch, self.program, *self.options], self.environment)
        self.taken.append(taken(self.ranks * self.threads))
        self.updates += [self.tokens / float(x) for x in re.findall(r"([0-9.]+) tokens/s", log)[2:]]
        self.busy = " ".join(re.findall(r"busy [0-9]+ % of at most [0-9]+ %", log)[-1:])


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--program", default="build/cpu-release/src/app/lora-dist")
    parser.add_argument("--case", action="append", help="cases whose name has this in it; more than once: any")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--bound", type=float, help="percent")
    a = parser.parse_args()
    names = [n for n in CASES if not a.case or any(text in n for text in a.case)]
    off_bound, noisy = [], []
    work, models = tempfile.mkdtemp(), tempfile.mkdtemp()
    print(f"{'case':32} {'planned s':>10} {'median s':>10} {'off':>8} {'fastest s':>10} {'plans +-':>9} {'taken':>7}   stages")
    try:
        for number, name in enumerate(names):
            case = Case(a, work, models, number, CASES[name])
            for _ in range(a.repeat):
                case.plan()
                case.train()
            planned, measured = statistics.median(case.planned), statistics.median(case.updates)
            off, fastest = 100 * (planned / measured - 1), min(case.updates)
            plans, updates = 100 * (max(case.planned) / min(case.planned) - 1), 100 * (measured / fastest - 1)
            others = 100 * max(case.taken)
            print(f"{name:32} {planned:10.4g} {measured:10.4g} {off:+6.1f} % {fastest:10.4g} {plans:7.1f} % {others:5.1f} %"
                  f"   {case.busy}", flush=True)
            if a.bound and max(plans, updates, others) > a.bound / 3:
                noisy.append(name)
            elif a.bound and abs(off) > a.bound:
                off_bound.append(name)
    finally:
        shutil.rmtree(work)
        shutil.rmtree(models)
    if off_bound:
        sys.exit(f"FAILED: off by more than {a.bound:g} %: " + "; ".join(off_bound))
    if noisy:
        print(f"SKIPPED: the machine is not quiet to {a.bound / 3:g} %: " + "; ".join(noisy))
        sys.exit(77)


if __name__ == "__main__":
    main()
