#!/usr/bin/env python3
"""What checkpoints cost.

    bench/checkpoint_cost.py PROGRAM [--pairs N] [--ranks N] [--updates N] [--window N] [--config F] [--set section.key=value]...

Without --config: four blocks of bloom-560m's shape, adapters of rank 8 on all of their linears (0.5 million parameters, 6.3 MB
of state), updates of 2,048 tokens.

Two comparisons. Inside a run that saves now and then: the updates right behind a checkpoint, beside which it is written,
against as many that follow, of the same run a moment later. What they cost more, in processor time of all ranks (user and
system) and in time, is put in relation to ten updates: one checkpoint at every tenth. And whole runs, in the order A B, B A,
A B, ..., one with a checkpoint at every tenth update and one with the last alone (--pairs; 0 leaves them out), start and end
included. Printed are means with 95 % confidence intervals. On a machine with other work the first tells far more: its two
sides are seconds apart.
"""
import argparse, array, json, math, os, random, re, statistics, subprocess, sys, tempfile, time

TICK = os.sysconf("SC_CLK_TCK")
# 97.5 % points of Student's t for 1 to 30 degrees of freedom
T = [12.71, 4.30, 3.18, 2.78, 2.57, 2.45, 2.36, 2.31, 2.26, 2.23, 2.20, 2.18, 2.16, 2.14, 2.13,
     2.12, 2.11, 2.10, 2.09, 2.09, 2.08, 2.07, 2.07, 2.06, 2.06, 2.06, 2.05, 2.05, 2.05, 2.04]


def write_model(folder, layers=4, hidden=1024, heads=16, vocabulary=2048):
    """A BLOOM whose weights are one random block again and again: how long its products take does not depend on them."""
    os.mkdir(folder)
    json.dump({"model_type": "bloom", "n_layer": layers, "hidden_size": hidden, "n_head": heads, "vocab_size": vocabulary,
               "torch_dtype": "float32"}, open(folder + "/config.json", "w"))
    norm = lambda name: [(name + ".weight", [hidden]), (name + ".bias", [hidden])]
    linear = lambda name, n_in, n_out: [(name + ".weight", [n_out, n_in]), (name + ".bias", [n_out])]
    tensors = [("word_embeddings.weight", [vocabulary, hidden])] + norm("word_embeddings_layernorm") + norm("ln_f")
    for i in range(layers):
        h = f"h.{i}."
        tensors += norm(h + "input_layernorm") + norm(h + "post_attention_layernorm")
        tensors += linear(h + "self_attention.query_key_value", hidden, 3 * hidden) + linear(h + "self_attention.dense", hidden, hidden)
        tensors += linear(h + "mlp.dense_h_to_4h", hidden, 4 * hidden) + linear(h + "mlp.dense_4h_to_h", 4 * hidden, hidden)
    rng, header, end = random.Random(1), {}, 0
    block = array.array("f", (rng.gauss(0, 0.02) for _ in range(hidden))).tobytes()
    ones = array.array("f", [1.0] * hidden).tobytes()
    data = []
    for name, shape in tensors:
        is_gain = "layernorm.weight" in name or name == "ln_f.weight"
        data.append((ones if is_gain else block) * (math.prod(shape) // hidden))
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [end, end + len(data[-1])]}
        end += len(data[-1])
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(folder + "/model.safetensors", "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for part in data:
            file.write(part)


def write_inputs(folder):
    write_model(folder + "/model")
    rng = random.Random(2)
    with open(folder + "/train.jsonl", "w") as file:
        for _ in range(64):
            file.write(json.dumps({"input_ids": [rng.randrange(2048) for _ in range(512)]}) + "\n")
    json.dump({"model": {"name_or_path": folder + "/model"},
               "data": {"format": "tokenized", "train_file": folder + "/train.jsonl"},
               "lora": {"r": 8, "target_modules": "all-linear"},
               "training": {"global_batch_size": 4, "per_device_train_batch_size": 1, "learning_rate": 1e-4,
                            "output_dir": folder + "/out"}}, open(folder + "/config.yaml", "w"))
    return folder + "/config.yaml"


def run(command, folder):
    """Seconds of processors, of all processes; seconds that passed."""
    subprocess.run(["rm", "-rf", folder + "/out"], check=True)
    begun, before = time.monotonic(), os.times()
    done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    after, seconds = os.times(), time.monotonic() - begun
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)}: exit code {done.returncode}\n{done.stderr.decode()[-2000:]}")
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    return cpu, seconds


def interval(values):
    """Mean, and how far its 95 % confidence interval reaches to either side."""
    n = len(values)
    if n < 2:
        return statistics.mean(values), math.inf
    return statistics.mean(values), T[min(n - 1, len(T)) - 1] * statistics.stdev(values) / math.sqrt(n)


def report_ratios(name, ratios):
    mean, half = interval([math.log(r) for r in ratios])
    low, middle, high = (100 * (math.exp(mean + d) - 1) for d in (-half, 0, half))
    print(f"{name}: {middle:+.2f} % (95 %: {low:+.2f} to {high:+.2f}), median {100 * (statistics.median(ratios) - 1):+.2f} %")


def whole_runs(commands, folder, n_pairs):
    run(commands[0], folder)  # tokenizes, and reads the model into memory
    pairs = []
    for i in range(n_pairs):
        pair = [None, None]
        for which in (0, 1) if i % 2 == 0 else (1, 0):
            pair[which] = run(commands[which], folder)
        pairs.append(pair)
        (cpu, wall), (cpu0, wall0) = pair
        print(f"pair {i + 1}: {cpu:.2f} s of processors with, {cpu0:.2f} without; {wall:.2f} s and {wall0:.2f}", flush=True)
    report_ratios("whole runs, processor time", [x[0] / y[0] for x, y in pairs])
    report_ratios("whole runs, time passed", [x[1] / y[1] for x, y in pairs])


def cpu_seconds(parent):
    """Of a process and its children, threads that have ended included."""
    total = 0
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        try:
            fields = open(f"/proc/{entry}/stat").read().rsplit(")", 1)[1].split()
        except OSError:
            continue
        if int(entry) == parent or int(fields[1]) == parent:
            total += int(fields[11]) + int(fields[12])
    return total / TICK


def inside(command, window, folder):
    """The run saves after each update number that is a multiple of twice the window."""
    subprocess.run(["rm", "-rf", folder + "/out"], check=True)
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    at = {}
    for line in process.stderr:
        found = re.match(r"update (\d+)/", line)
        if found:
            at[int(found[1])] = (cpu_seconds(process.pid), time.monotonic())
    if process.wait() != 0:
        sys.exit(f"{' '.join(command)}: exit code {process.returncode}")
    begins = [k for k in at if k % (2 * window) == 0 and k + 2 * window in at]
    for name, i in (("processor time", 0), ("time passed", 1)):
        more = [2 * at[k + window][i] - at[k][i] - at[k + 2 * window][i] for k in begins]
        update = statistics.mean((at[k + 2 * window][i] - at[k + window][i]) / window for k in begins)
        mean, half = interval(more)
        print(f"inside a run, {name}: {1000 * mean:+.1f} ms a checkpoint (95 %: +- {1000 * half:.1f}; {len(more)} of them); ten updates of "
              f"{update:.3f} s cost {100 * mean / (10 * update):+.2f} % more (95 %: {100 * (mean - half) / (10 * update):+.2f} to "
              f"{100 * (mean + half) / (10 * update):+.2f})", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program")
    parser.add_argument("--pairs", type=int, default=20)
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--updates", type=int, default=31, help="of whole runs: ten times something, and one; the last is saved in any case")
    parser.add_argument("--checkpoints", type=int, default=30, help="of the run that is looked into")
    parser.add_argument("--window", type=int, default=3, help="updates on each side; a checkpoint should be written by then")
    parser.add_argument("--config")
    parser.add_argument("--set", action="append", default=[])
    a = parser.parse_args()
    os.environ.update(OMP_WAIT_POLICY="passive", OMPI_ALLOW_RUN_AS_ROOT="1", OMPI_ALLOW_RUN_AS_ROOT_CONFIRM="1")
    with tempfile.TemporaryDirectory() as folder:
        options = ["--config", a.config or write_inputs(folder), "--set", "training.eval_steps=null", "--set", "training.logging_steps=1",
                   "--set", f"training.output_dir={folder}/out", "--set", f"data.cache_dir={folder}/data"]
        options += [word for setting in a.set for word in ("--set", setting)]
        launch = ["mpirun", "-np", str(a.ranks), "--oversubscribe", "--bind-to", "none"] if a.ranks > 1 else []

        def command(updates, every):
            return launch + [a.program] + options + ["--set", f"training.max_steps={updates}", "--set", f"training.save_steps={every}"]

        inside(command(2 * a.window * (a.checkpoints + 1) + 1, 2 * a.window), a.window, folder)
        if a.pairs > 0:
            whole_runs([command(a.updates, 10), command(a.updates, 1000000000)], folder, a.pairs)


main()
