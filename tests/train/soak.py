"""soak_test.sh runs this in a folder with a model, records and config.yaml."""
import os, random, re, shutil, signal, subprocess, sys, time

program, preload, n_ends = sys.argv[1], sys.argv[2], int(sys.argv[3])
seed = int(sys.argv[4]) if len(sys.argv) > 4 else time.time_ns() % 1000000
rng = random.Random(seed)
print(f"{n_ends} ends, seed {seed}", flush=True)
OPTIONS = ["--config", "config.yaml"] + [word for setting in (
    "training.max_steps=40", "training.save_steps=3", "training.eval_steps=5", "training.save_total_limit=3",
    "training.gradient_accumulation_steps=null", "training.global_batch_size=8",
    "training.per_device_train_batch_size=1", "training.resume_from_checkpoint=true", "data.eval_file=eval.jsonl",
    "lora.lora_dropout=0.1", "parallel.timeout_seconds=30") for word in ("--set", setting)]
RANK = 'echo $$ > "pids/${OMPI_COMM_WORLD_RANK:-0}"; exec "$@"'
STOP = [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2]


def start(out, ranks, environment, stages=1):
    shutil.rmtree("pids", ignore_errors=True)
    os.mkdir("pids")
    launch = ["mpirun", "-np", str(ranks), "--bind-to", "none"] if ranks > 1 else []
    return subprocess.Popen(launch + ["bash", "-c", RANK, "-", program] + OPTIONS +
                            ["--set", "training.output_dir=" + out, "--set", f"parallel.pipeline={stages}"],
                            env=dict(os.environ, **environment), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                            stderr=open("log", "w"))


def finish(process, what, killed=False):
    """The exit code. killed: a rank was. Open MPI 4.1 may then stay behind alone, if that was while the rank connected to it
    ("PMIX ERROR: UNREACHABLE"): then it is ended here, and counted."""
    global n_behind
    try:
        return process.wait(timeout=60)
    except subprocess.TimeoutExpired:
        if not killed or not all(is_gone(pid_of(int(name))) for name in os.listdir("pids")):
            process.kill()
            complain(what, "did not end", None)
        process.kill()
        n_behind += 1
        return process.wait()


def complain(what, problem, code):
    lines = [line for line in open("log", errors="replace") if not line.startswith("update")]
    sys.exit(f"FAILED (seed {seed}) {what}: {problem}, exit code {code}\n" + "".join(lines[-12:]))


def pid_of(rank):
    try:
        return int(open(f"pids/{rank}").read())
    except (OSError, ValueError):
        return None  # it has not begun


def is_gone(pid):
    try:
        return pid is None or open(f"/proc/{pid}/stat").read().rsplit(")", 1)[1].split()[0] == "Z"
    except OSError:
        return True


def send(process, pid, number):
    try:
        if pid is not None and process.poll() is None:
            os.kill(pid, number)
    except ProcessLookupError:
        pass


def end_somehow(out, ranks, stages, seconds):
    """Starts the run and ends it. Returns what was done, whether it asks for exit code 75, and the exit code."""
    way, rank = rng.choice(["time", "time", "meeting", "write", "ask", "ask", "ask at meeting"]), rng.randrange(ranks)
    number = rng.choice(STOP)
    if way in ("meeting", "ask at meeting"):
        number = signal.SIGKILL if way == "meeting" else number
        meeting = rng.randrange(1, 150)
        what = f"signal {number} at meeting {meeting} of rank {rank} of {ranks}"
        return what, way != "meeting", finish(
            start(out, ranks, {"LRD_FAULT": f"{rank}:{meeting}:{int(number)}"}, stages), what, way == "meeting")
    if way == "write":
        call = rng.randrange(1, 400)
        what = f"killed at writing call {call} on {ranks}"
        return what, False, finish(
            start(out, ranks, {"LD_PRELOAD": preload, "LRD_KILL_WRITE": str(call)}, stages), what, True)
    process = start(out, ranks, {}, stages)
    after = rng.uniform(0, seconds)
    try:
        process.wait(timeout=after)  # a moment, whatever happens to be in it
    except subprocess.TimeoutExpired:
        pass
    if way == "time":
        what = f"rank {rank} of {ranks} killed after {after:.3f} s"
        send(process, pid_of(rank), signal.SIGKILL)
    else:
        to_launcher = ranks > 1 and number in (signal.SIGUSR1, signal.SIGUSR2) and rng.random() < 0.5
        what = f"{'mpirun' if to_launcher else f'rank {rank}'} of {ranks} sent {number} after {after:.3f} s"
        send(process, process.pid if to_launcher else pid_of(rank), number)
    return what, way == "ask", finish(process, what, way == "time")


def count_updates():
    return len(re.findall("^update [0-9]*/40 epoch", open("log", errors="replace").read(), re.M))


def check_same(out, what):
    for name in "adapter_model.safetensors", "trainer_state.json":
        if open(f"{out}/{name}", "rb").read() != open(f"reference/{name}", "rb").read():
            complain(what, f"{name} is another", 0)
    left = [name for _, folders, files in os.walk(out) for name in folders + files if "partial" in name]
    if left:
        complain(what, f"left behind: {left}", 0)


n_behind = 0
begun = time.monotonic()
if finish(start("reference", 1, {}), "the whole run") != 0:
    complain("the whole run", "failed", None)
alone = time.monotonic() - begun
begun = time.monotonic()
if finish(start("reference2", 2, {}), "the whole run on two ranks") != 0:
    complain("the whole run on two ranks", "failed", None)
together = time.monotonic() - begun
check_same("reference2", "the whole run on two ranks")

n = n_runs = 0
codes, layouts, updates = {}, set(), 0
begun = time.monotonic()
while n < n_ends:
    out = f"run{n_runs}"
    done = False
    while not done and n < n_ends:
        ranks = rng.choice([1, 1, 1, 2, 3, 4])
        stages = rng.choice([n for n in (1, 2, 3) if ranks % n == 0])  # the model has two blocks, and a head
        what, asks, code = end_somehow(out, ranks, stages, alone if ranks == 1 else together)
        what += f", in {stages} stages" if stages > 1 else ""
        early = code is not None and asks and -code in STOP  # before the program looks at signals
        early = early or asks and code in [128 + s for s in STOP]
        if code != 0 and not early and (code == 75) != asks:
            complain(what, "ended badly", code)
        log = open("log", errors="replace").read()
        if "cannot be used" in log:
            complain(what, "found a damaged checkpoint", code)
        codes[code] = codes.get(code, 0) + 1
        layouts.add(f"{ranks // stages} x {stages}")
        updates += count_updates()
        n += code != 0
        done = code == 0
        if not done and n % 50 == 0:
            print(f"{n} ends after {time.monotonic() - begun:.0f} s", flush=True)
    if not done:
        if finish(start(out, rng.choice([1, 2]), {}), "the last run") != 0:
            complain("the last run", "failed", None)
        updates += count_updates()
    check_same(out, out)
    shutil.rmtree(out)
    n_runs += 1
print(f"{n} ends in {n_runs} runs and {time.monotonic() - begun:.0f} s, replicas x stages: "
      f"{', '.join(sorted(layouts))}; exit codes "
      f"{ {c: codes[c] for c in sorted(codes)} }; {updates} updates, {updates - 40 * n_runs} of them made again"
      + (f"; mpirun stayed behind {n_behind} times" if n_behind else ""))
print("PASSED")
