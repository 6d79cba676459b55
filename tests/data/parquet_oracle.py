"""Parquet files as pyarrow writes them, in all its ways, read by pyarrow and by src/data/parquet.c: the same rows.

parquet_oracle.py PARQUET_ROWS FOLDER [SQUAD.json...]
"""
import itertools
import json
import math
import random
import subprocess
import sys
import time

import pyarrow as pa
import pyarrow.parquet as pq

program, folder, squad_files = sys.argv[1], sys.argv[2], sys.argv[3:]


def squad_table(path):
    """The columns that the Hub's squad_v2 has."""
    rows = []
    for article in json.load(open(path, encoding="utf-8"))["data"]:
        for paragraph in article["paragraphs"]:
            for qa in paragraph["qas"]:
                answers = qa["answers"]
                rows.append({"id": qa["id"], "title": article.get("title", ""), "context": paragraph["context"],
                             "question": qa["question"],
                             "answers": {"text": [a["text"] for a in answers],
                                         "answer_start": [a["answer_start"] for a in answers]}})
    text = pa.string()
    return pa.Table.from_pylist(rows, pa.schema([
        ("id", text), ("title", text), ("context", text), ("question", text),
        ("answers", pa.struct([("text", pa.list_(text)), ("answer_start", pa.list_(pa.int32()))]))]))


def random_table(n, seed):
    """Every type that is read, with nulls at every level."""
    draw = random.Random(seed)
    words = ["", "a", "Wort", "naïve", "\u6f22\u5b57", "\U0001f600", "nul\0l", "x" * 300, "prefix one", "prefix two"]

    def maybe(value, chance=0.2):
        return None if draw.random() < chance else value()

    def text():
        return draw.choice(words) + (str(draw.randrange(1000)) if draw.random() < 0.5 else "")

    def several(value, most=4):
        return [value() for _ in range(draw.randrange(most))]

    def number(bits):
        return draw.randrange(-(1 << (bits - 1)), 1 << (bits - 1)) if draw.random() < 0.3 else draw.randrange(-5, 5)

    real = [0.0, -0.0, 1.5, 1e300, 5e-324, math.pi, float("inf"), float("nan")]
    item = pa.struct([("k", pa.string()), ("v", pa.list_(pa.int64()))])
    fields = {
        "s": (pa.string(), text), "large": (pa.large_string(), text), "i8": (pa.int8(), lambda: number(8)),
        "u8": (pa.uint8(), lambda: abs(number(8))), "i32": (pa.int32(), lambda: number(32)),
        "u32": (pa.uint32(), lambda: draw.randrange(1 << 32)), "i64": (pa.int64(), lambda: number(64)),
        "u64": (pa.uint64(), lambda: draw.randrange(1 << 63)), "b": (pa.bool_(), lambda: draw.random() < 0.5),
        "f32": (pa.float32(), lambda: draw.choice(real[:3] + real[6:])), "f64": (pa.float64(), lambda: draw.choice(real)),
        "null": (pa.null(), lambda: None),
        "list": (pa.list_(pa.string()), lambda: several(lambda: maybe(text))),
        "struct": (pa.struct([("x", pa.int32()), ("y", pa.struct([("z", pa.string())]))]),
                   lambda: {"x": maybe(lambda: number(32)), "y": maybe(lambda: {"z": maybe(text)})}),
        "deep": (pa.list_(pa.list_(pa.int16())), lambda: several(lambda: maybe(lambda: several(lambda: maybe(lambda: number(16)))))),
        "items": (pa.list_(item), lambda: several(lambda: maybe(
            lambda: {"k": maybe(text), "v": maybe(lambda: several(lambda: maybe(lambda: number(64))))}))),
    }
    data = {name: pa.array([maybe(value) for _ in range(n)], kind) for name, (kind, value) in fields.items()}
    data["category"] = pa.array([text() for _ in range(n)]).dictionary_encode()
    schema = [pa.field(name, array.type) for name, array in data.items()]
    data["needed"] = pa.array([text() for _ in range(n)])
    schema.append(pa.field("needed", pa.string(), nullable=False))
    data["needed_list"] = pa.array([several(text) for _ in range(n)], pa.list_(pa.field("element", pa.string(), nullable=False)))
    schema.append(pa.field("needed_list", data["needed_list"].type, nullable=False))
    return pa.Table.from_arrays(list(data.values()), schema=pa.schema(schema))


def plain(value):
    """As JSON has it: no number is null."""
    if isinstance(value, dict):
        return {k: plain(v) for k, v in value.items()}
    if isinstance(value, list):
        return [plain(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def exact(value):
    """-0.0 and 0 and false are three things."""
    return json.dumps(value, sort_keys=True)


def read(path, columns):
    done = subprocess.run([program, path, *columns], capture_output=True, text=True, encoding="utf-8")
    if done.returncode != 0:
        sys.exit(f"FAILED: {path}: {done.stderr}")
    return [json.loads(line) for line in done.stdout.split("\n")[:-1]]


def compare(table, options, what):
    path = f"{folder}/{what}.parquet"
    pq.write_table(table, path, **options)
    expected = pq.read_table(path).to_pylist()
    found = read(path, table.column_names)
    if len(found) != len(expected):
        sys.exit(f"FAILED: {what} {options}: {len(found)} rows, pyarrow reads {len(expected)}")
    for i, (ours, theirs) in enumerate(zip(found, expected)):
        if exact(ours) != exact(plain(theirs)):
            sys.exit(f"FAILED: {what} {options}: row {i}\n  {ours}\n  {plain(theirs)}")


def variants():
    """Options of write_table, one of each way at least, pages and row groups small enough that there are many."""
    for version, page, codec, dictionary in itertools.product(
            ["1.0", "2.4", "2.6"], ["1.0", "2.0"], ["none", "snappy", "gzip", "zstd"], [True, False]):
        small = (len(codec) + len(version) + dictionary) % 2 == 0
        yield {"version": version, "data_page_version": page, "compression": codec, "use_dictionary": dictionary,
               "row_group_size": 70 if small else None, "data_page_size": 256 if small else None,
               "write_batch_size": 8, "write_page_checksum": small, "use_compliant_nested_type": page == "2.0"}


def delta(table, page):
    """The encodings that pyarrow uses where it is told to."""
    encoding = {}
    for field in table.schema:
        if pa.types.is_integer(field.type):
            encoding[field.name] = "DELTA_BINARY_PACKED"
        elif pa.types.is_string(field.type):
            encoding[field.name] = "DELTA_BYTE_ARRAY" if field.name == "s" else "DELTA_LENGTH_BYTE_ARRAY"
    return {"use_dictionary": False, "column_encoding": encoding, "data_page_version": page, "data_page_size": 512,
            "write_batch_size": 100}


n = 0
for seed, rows in [(1, 230), (2, 1), (3, 0)]:
    table = random_table(rows, seed)
    for options in variants():
        compare(table, options, "random")
        n += 1
    for page in ["1.0", "2.0"]:
        compare(table.drop_columns(["category"]), delta(table, page), "delta")
        n += 1
    compare(table, {"dictionary_pagesize_limit": 200, "data_page_size": 300, "write_batch_size": 5}, "fallback")
    n += 1
for path in squad_files:
    table = squad_table(path)
    for options in [{}, {"compression": "zstd", "data_page_version": "2.0"}, {"row_group_size": 1000},
                    {"use_dictionary": False, "compression": "gzip"}]:
        compare(table, options, "squad")
        n += 1

# How fast, on something of the size of SQuAD's training data.
if squad_files:
    table = squad_table(squad_files[-1])
    table = pa.concat_tables([table] * math.ceil(130319 / table.num_rows)).slice(0, 130319).combine_chunks()
    path = f"{folder}/speed.parquet"
    pq.write_table(table, path)
    begin = time.perf_counter()
    rows = pq.read_table(path, use_threads=False).to_pylist()
    middle = time.perf_counter()
    subprocess.run([program, path, "-n", *table.column_names], check=True, stdout=subprocess.DEVNULL)
    end = time.perf_counter()
    print(f"{len(rows)} rows: pyarrow to Python's objects {middle - begin:.2f} s, here to JSON's {end - middle:.2f} s")
print(f"{n} files, the same rows")
