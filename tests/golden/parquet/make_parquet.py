#!/usr/bin/env python3
"""Small Parquet files and what they hold, for tests/data/test_parquet.c and the corpus of tests/fuzz/fuzz_parquet.c.

    python make_parquet.py            (pyarrow 26.0.1)

Writes beside itself
    passages.parquet, letters.parquet, cuts.parquet, tokens.parquet   the data sets of ../data
    passages-0.parquet, passages-1.parquet                            the first of them in two pieces
    kinds.parquet, kinds.jsonl                                        every type that is read, nulls at every level
    delta.parquet, delta.jsonl                                        encodings DELTA_*, pages of version 2
    legacy.parquet, legacy.jsonl                                      lists as they were before 2015, written here by hand
    refused.parquet                                                   types and codecs that are not read
The rows in *.jsonl are those that pyarrow reads back from the file.
"""
import datetime
import decimal
import json
import math
import os
import random
import struct

import pyarrow as pa
import pyarrow.parquet as pq

HERE = os.path.dirname(os.path.abspath(__file__))
DATA = os.path.join(HERE, "..", "data")
CORPUS = os.path.join(HERE, "..", "..", "fuzz", "corpus", "fuzz_parquet")
TEXT = pa.string()


def write(name, table, **options):
    pq.write_table(table, os.path.join(HERE, name + ".parquet"), **{"store_schema": False, **options})


def plain(value):
    if isinstance(value, dict):
        return {k: plain(v) for k, v in value.items()}
    if isinstance(value, list):
        return [plain(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def write_rows(name):
    with open(os.path.join(HERE, name + ".jsonl"), "w") as file:
        for row in pq.read_table(os.path.join(HERE, name + ".parquet")).to_pylist():
            file.write(json.dumps(plain(row)) + "\n")


def lines(name):
    with open(os.path.join(DATA, name), encoding="utf-8-sig") as file:
        return [json.loads(line) for line in file if line.strip()]


def squad_rows():
    rows = []
    for article in json.load(open(os.path.join(DATA, "passages.json"), encoding="utf-8"))["data"]:
        for paragraph in article["paragraphs"]:
            for qa in paragraph["qas"]:
                rows.append({"id": qa["id"], "title": article.get("title", ""), "context": paragraph["context"],
                             "question": qa["question"],
                             "answers": {"text": [a["text"] for a in qa["answers"]],
                                         "answer_start": [a["answer_start"] for a in qa["answers"]]}})
    return pa.Table.from_pylist(rows, pa.schema([
        ("id", TEXT), ("title", TEXT), ("context", TEXT), ("question", TEXT),
        ("answers", pa.struct([("text", pa.list_(TEXT)), ("answer_start", pa.list_(pa.int32()))]))]))


def data_sets():
    table = squad_rows()
    write("passages", table, row_group_size=7)
    write("passages-0", table.slice(0, 5), compression="zstd")
    write("passages-1", table.slice(5), compression="gzip", use_dictionary=False)
    # JSON's 39 and 4.5 stand in one list of texts; a column of numbers has one type
    write("letters", pa.Table.from_pylist(
        [{**row, "price": json.dumps(row["price"])} for row in lines("letters.jsonl")]))
    write("cuts", pa.Table.from_pylist(lines("cuts.jsonl")))
    ids = pa.list_(pa.int32())
    write("tokens", pa.Table.from_pylist([{"input_ids": row["input_ids"], "labels": row.get("labels")}
                                          for row in lines("tokens.jsonl")], pa.schema([("input_ids", ids), ("labels", ids)])))


def kinds():
    draw = random.Random(1)

    def maybe(value):
        return None if draw.random() < 0.25 else value()

    def several(value):
        return [value() for _ in range(draw.randrange(4))]

    def text():
        return draw.choice(["", "word", "na\u00efve", "\u6f22", "\U0001f600", "nul\0l"])

    def number():
        return draw.randrange(-1000, 1000)

    item = pa.struct([("k", TEXT), ("v", pa.list_(pa.int64()))])
    fields = [
        ("s", TEXT, text), ("large", pa.large_string(), text), ("i8", pa.int8(), lambda: draw.randrange(-128, 128)),
        ("u32", pa.uint32(), lambda: draw.randrange(1 << 32)), ("i64", pa.int64(), lambda: draw.randrange(-1 << 63, 1 << 63)),
        ("b", pa.bool_(), lambda: draw.random() < 0.5), ("f32", pa.float32(), lambda: draw.choice([1.5, -0.0, math.nan])),
        ("f64", pa.float64(), lambda: draw.choice([math.pi, 5e-324, math.inf])), ("null", pa.null(), lambda: None),
        ("list", pa.list_(TEXT), lambda: several(lambda: maybe(text))),
        ("struct", pa.struct([("x", pa.int32()), ("y", pa.struct([("z", TEXT)]))]),
         lambda: {"x": maybe(number), "y": maybe(lambda: {"z": maybe(text)})}),
        ("deep", pa.list_(pa.list_(pa.int16())), lambda: several(lambda: maybe(lambda: several(lambda: maybe(number))))),
        ("items", pa.list_(item), lambda: several(lambda: maybe(
            lambda: {"k": maybe(text), "v": maybe(lambda: several(lambda: maybe(number)))}))),
    ]
    columns = [pa.array([maybe(value) for _ in range(50)], kind) for _, kind, value in fields]
    table = pa.Table.from_arrays(columns, [name for name, _, _ in fields])
    table = table.append_column("category", pa.array([text() for _ in range(50)]).dictionary_encode())
    table = table.append_column(pa.field("needed", TEXT, nullable=False), pa.array([text() for _ in range(50)]))
    write("kinds", table, row_group_size=20, data_page_size=64, write_batch_size=4, write_page_checksum=True)
    write_rows("kinds")


def deltas():
    draw = random.Random(2)
    n = 300
    table = pa.table({
        "i32": pa.array([draw.randrange(-1 << 31, 1 << 31) for _ in range(n)], pa.int32()),
        "i64": pa.array([draw.choice([None, i, draw.randrange(-1 << 63, 1 << 63)]) for i in range(n)], pa.int64()),
        "same": pa.array([7] * n, pa.int32()),
        "length": pa.array([draw.choice([None, "x" * draw.randrange(40)]) for _ in range(n)]),
        "front": pa.array(["prefix %d" % (i // 3) for i in range(n)]),
        "b": pa.array([draw.choice([None, True, False]) for _ in range(n)])})
    write("delta", table, use_dictionary=False, data_page_version="2.0", compression="none", data_page_size=600, write_batch_size=64,
          column_encoding={"i32": "DELTA_BINARY_PACKED", "i64": "DELTA_BINARY_PACKED", "same": "DELTA_BINARY_PACKED",
                           "length": "DELTA_LENGTH_BYTE_ARRAY", "front": "DELTA_BYTE_ARRAY"})
    write_rows("delta")


# Thrift's compact protocol, as far as the footer of a file needs it.

def varint(n):
    out = b""
    while n > 0x7f:
        out += bytes([n & 0x7f | 0x80])
        n >>= 7
    return out + bytes([n])


def thrift(value):
    """int (i32), ("i64", n), bytes, list, or a dict of field numbers: (type, bytes)."""
    if isinstance(value, int):
        return 5, varint(value << 1 if value >= 0 else (-value << 1) - 1)
    if isinstance(value, tuple):
        return 6, varint(value[1] << 1)
    if isinstance(value, bytes):
        return 8, varint(len(value)) + value
    if isinstance(value, list):
        kind = thrift(value[0])[0]
        head = bytes([len(value) << 4 | kind]) if len(value) < 15 else bytes([0xf0 | kind]) + varint(len(value))
        return 9, head + b"".join(thrift(v)[1] for v in value)
    out, last = b"", 0
    for number, field in sorted(value.items()):
        kind, body = thrift(field)
        out += bytes([number - last << 4 | kind]) + body
        last = number
    return 12, out + b"\0"


def legacy():
    """An old list of two levels, an old list of structs, and a repeated column without a list around it:

        optional group a (LIST) { repeated binary array (UTF8); }
        optional group b (LIST) { repeated group b_tuple { required int32 n; } }
        repeated int32 c;

    of rows {a: ["x", "y"], b: [{n: 1}], c: [5, 6]}, {a: null, b: [], c: []}, {a: [], b: [{n: 2}, {n: 3}], c: [7]}.
    """
    def levels(values, bits):
        packed = sum(v << i * bits for i, v in enumerate(values))
        groups = (len(values) + 7) // 8
        body = varint(groups << 1 | 1) + packed.to_bytes(groups * bits, "little")
        return struct.pack("<I", len(body)) + body

    def text(*values):
        return b"".join(struct.pack("<I", len(v)) + v for v in values)

    def ints(*values):
        return struct.pack("<%di" % len(values), *values)

    schema = [{4: b"schema", 5: 3},
              {3: 1, 4: b"a", 5: 1, 6: 3}, {1: 6, 3: 2, 4: b"array", 6: 0},
              {3: 1, 4: b"b", 5: 1, 6: 3}, {3: 2, 4: b"b_tuple", 5: 1}, {1: 1, 3: 0, 4: b"n"},
              {1: 1, 3: 2, 4: b"c"}]
    columns = [(6, [b"a", b"array"], [0, 1, 0, 0], ([2, 2, 0, 1], 2), text(b"x", b"y")),
               (1, [b"b", b"b_tuple", b"n"], [0, 0, 0, 1], ([2, 1, 2, 2], 2), ints(1, 2, 3)),
               (1, [b"c"], [0, 1, 0, 0], ([1, 1, 0, 1], 1), ints(5, 6, 7))]
    file, chunks = b"PAR1", []
    for kind, path, rep, (definition, bits), values in columns:
        body = levels(rep, 1) + levels(definition, bits) + values
        header = thrift({1: 0, 2: len(body), 3: len(body), 5: {1: len(rep), 2: 0, 3: 3, 4: 3}})[1]
        size = ("i64", len(header) + len(body))
        chunks.append({2: ("i64", len(file)), 3: {1: kind, 2: [0, 3], 3: path, 4: 0, 5: ("i64", len(rep)), 6: size, 7: size,
                                                  9: ("i64", len(file))}})
        file += header + body
    footer = thrift({1: 1, 2: schema, 3: ("i64", 3), 4: [{1: chunks, 2: ("i64", len(file)), 3: ("i64", 3)}]})[1]
    with open(os.path.join(HERE, "legacy.parquet"), "wb") as out:
        out.write(file + footer + struct.pack("<I", len(footer)) + b"PAR1")
    write_rows("legacy")


def refused():
    write("refused", pa.table({
        "text": pa.array(["a", "b"]), "time": pa.array([datetime.datetime(2020, 1, 1)] * 2),
        "date": pa.array([datetime.date(2020, 1, 1)] * 2), "money": pa.array([decimal.Decimal("1.50")] * 2),
        "map": pa.array([[("k", 1)], []], pa.map_(TEXT, pa.int32())), "bytes": pa.array([b"\xff\xfe", b"a"]),
        "big": pa.array([1, 1 << 63], pa.uint64()), "split": pa.array([1.0, 2.0]), "brotli": pa.array(["a", "b"]),
        "fixed": pa.array([b"ab", b"cd"], pa.binary(2))}),
        compression={"brotli": "brotli"}, use_dictionary=False, column_encoding={"split": "BYTE_STREAM_SPLIT"})


def seeds():
    """Small ones, without check sums and mostly without compression, so that changes reach what lies below."""
    os.makedirs(CORPUS, exist_ok=True)

    def seed(name, table, **options):
        pq.write_table(table, os.path.join(CORPUS, name), **{
            "store_schema": False, "write_statistics": False, "compression": "none", **options})

    squad = squad_rows().slice(0, 6)
    seed("squad-v1", squad.select(["id", "question", "answers"]))
    seed("squad-v2-zstd", squad.select(["title", "answers"]), data_page_version="2.0", compression="zstd")
    seed("squad-snappy", squad.select(["question"]), compression="snappy", write_page_checksum=True)
    seed("squad-gzip", squad.select(["question"]), compression="gzip")
    table = pq.read_table(os.path.join(HERE, "kinds.parquet")).slice(0, 12)
    for column in ["list", "struct", "deep", "items", "b", "f64", "u32"]:
        seed("kind-" + column, table.select([column]), use_dictionary=column == "list",
             data_page_version="2.0" if column in ("b", "deep") else "1.0")
    table = pq.read_table(os.path.join(HERE, "delta.parquet")).slice(0, 40)
    for column, encoding in [("i32", "DELTA_BINARY_PACKED"), ("length", "DELTA_LENGTH_BYTE_ARRAY"), ("front", "DELTA_BYTE_ARRAY")]:
        seed("delta-" + column, table.select([column]), use_dictionary=False, column_encoding={column: encoding})
    with open(os.path.join(HERE, "legacy.parquet"), "rb") as old, open(os.path.join(CORPUS, "legacy"), "wb") as new:
        new.write(old.read())


data_sets()
kinds()
deltas()
legacy()
refused()
seeds()
