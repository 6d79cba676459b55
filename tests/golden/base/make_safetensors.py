#!/usr/bin/env python3
"""Files and verdicts of the safetensors library 0.8.0 (torch 2.13.0), for tests/base/test_safetensors.c. Run inside this
folder.

mixed.safetensors    every dtype that lora-dist has, a scalar, an empty tensor, names whose order is not numeric
floats.safetensors   0.5, -2, 1/3, 65504 and infinity in each floating dtype
names.safetensors    names that need escaping
none.safetensors     no tensor at all
safetensors_cases.json  headers, the number of data bytes behind them, whether the library accepts the file, and a part of
                     what lora-dist says where it refuses it ("": it accepts). "why" where the two differ on purpose.
"""
import json
import struct

import torch
from safetensors import deserialize
from safetensors.torch import save_file

METADATA = {"format": "pt"}


def pattern(n, k):
    """n bytes of 0 and 1 (so that they are booleans too), different for each tensor."""
    return bytes((i * 7 + k * 3) % 5 % 2 for i in range(n))


def mixed():
    dtypes = ["bool", "uint8", "int8", "int16", "uint16", "float16", "bfloat16", "int32", "uint32", "float32",
              "float64", "int64", "uint64"]
    shapes = {"h.%d.%s" % (i, t): [i + 1, 3] for i, t in enumerate(dtypes)}
    shapes |= {"h.10.weight": [2, 2], "h.2.weight": [1], "h.1.weight": [3], "scalar": [], "empty": [0, 4]}
    tensors = {}
    for k, (name, shape) in enumerate(shapes.items()):
        dtype = getattr(torch, name.split(".")[-1] if k < len(dtypes) else "float32")
        n = torch.Size(shape).numel() * dtype.itemsize
        data = torch.frombuffer(bytearray(pattern(n, k) + b"\0"), dtype=torch.uint8)[:n]
        tensors[name] = data.view(dtype).reshape(shape)
    return tensors


def floats():
    values = torch.tensor([0.5, -2.0, 1 / 3, 65504.0, float("inf")], dtype=torch.float64)
    return {str(d).split(".")[1]: values.to(d) for d in (torch.float32, torch.float16, torch.bfloat16, torch.float64)}


def names():
    return {'é "quoted" \\ \n\t\x01\x7f\u2028\U0001f600/': torch.zeros(2), "": torch.ones(1)}


A = '"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}'


def entry(name, dtype="F32", shape="[1]", offsets="[0,4]"):
    return '"%s":{"dtype":"%s","shape":%s,"data_offsets":%s}' % (name, dtype, shape, offsets)


HUGE = 9223372036854775807
# name, header, bytes of data, part of the error ("": accepted), keywords
CASES = [
    ("plain", "{%s}" % A, 4, ""),
    ("spaces and newlines", ' \t\r\n{ "a" : { "dtype" : "F32",\n "shape" : [ 1 ] , "data_offsets":[ 0 ,4 ] } } \n', 4, ""),
    ("length no multiple of 8", "{%s} " % A, 4, ""),
    ("order of the entries", "{%s,%s,%s}" % (entry("z", offsets="[0,4]"), entry("a", offsets="[8,12]"), entry("m", offsets="[4,8]")), 12, ""),
    ("extra members", '{"a":{"x":null,"dtype":"F32","shape":[1],"more":[1,{"y":2.5}],"data_offsets":[0,4]}}', 4, ""),
    ("scalar", "{%s}" % entry("a", shape="[]"), 4, ""),
    ("empty tensor", "{%s}" % entry("a", shape="[3,0]", offsets="[0,0]"), 0, ""),
    ("empty tensors among others", "{%s,%s,%s,%s,%s}" % (entry("e", shape="[0]", offsets="[4,4]"), entry("b", offsets="[4,8]"), A, entry("s", shape="[0]", offsets="[0,0]"), entry("z", shape="[0]", offsets="[8,8]")), 8, ""),
    ("no tensors", "{}", 0, ""),
    ("only metadata", '{"__metadata__":{"format":"pt","x":""}}', 0, ""),
    ("metadata null", '{"__metadata__":null,%s}' % A, 4, ""),
    ("metadata last", '{%s,"__metadata__":{"format":"pt"}}' % A, 4, ""),
    ("empty name", "{%s}" % entry(""), 4, ""),
    ("eight dimensions", "{%s}" % entry("a", shape="[1,1,1,1,1,1,1,1]"), 4, ""),
    ("zero before what would overflow", "{%s}" % entry("a", shape="[0,%d,%d]" % (HUGE, HUGE), offsets="[0,0]"), 0, ""),
    ("gap", "{%s,%s}" % (A, entry("b", offsets="[8,12]")), 12, "leave a gap"),
    ("gap at the start", "{%s}" % entry("a", offsets="[4,8]"), 8, "leave a gap"),
    ("overlap", "{%s,%s}" % (A, entry("b", offsets="[2,6]")), 6, "overlap"),
    ("same range", "{%s,%s}" % (A, entry("b")), 4, "overlap"),
    ("empty tensor inside another", "{%s,%s}" % (A, entry("b", shape="[0]", offsets="[2,2]")), 4, "overlap"),
    ("trailing bytes", "{%s}" % A, 5, "1 bytes follow the last tensor"),
    ("trailing bytes without tensors", "{}", 1, "1 bytes follow the last tensor"),
    ("missing bytes", "{%s}" % A, 3, "the file is incomplete"),
    ("no data", "{%s}" % A, 0, "the file is incomplete"),
    ("NUL padding", "{%s}\0\0" % A, 4, "not valid JSON"),
    ("unknown dtype", "{%s}" % entry("a", dtype="F31"), 4, 'dtype "F31" is not supported'),
    ("settings' name of a dtype", "{%s}" % entry("a", dtype="float32"), 4, 'dtype "float32" is not supported'),
    ("empty dtype", "{%s}" % entry("a", dtype=""), 4, 'dtype "" is not supported'),
    ("dtype is a number", '{"a":{"dtype":1,"shape":[1],"data_offsets":[0,4]}}', 4, '"dtype" is not a string'),
    ("no dtype", '{"a":{"shape":[1],"data_offsets":[0,4]}}', 4, '"dtype" is not a string'),
    ("metadata holds a number", '{"__metadata__":{"n":1},%s}' % A, 4, '"__metadata__": "n" is not a string'),
    ("metadata is a string", '{"__metadata__":"pt",%s}' % A, 4, '"__metadata__" is not an object'),
    ("name twice", "{%s,%s}" % (A, entry("a", offsets="[4,8]")), 8, "duplicate"),
    ("metadata twice", '{"__metadata__":{},"__metadata__":{},%s}' % A, 4, "duplicate"),
    ("member twice", '{"a":{"dtype":"F32","dtype":"F32","shape":[1],"data_offsets":[0,4]}}', 4, "duplicate"),
    ("entry null", '{"a":null}', 0, 'tensor "a" is not an object'),
    ("no shape", '{"a":{"dtype":"F32","data_offsets":[0,4]}}', 4, '"shape" is not a'),
    ("shape is a number", "{%s}" % entry("a", shape="1"), 4, '"shape" is not a'),
    ("negative dimension", "{%s}" % entry("a", shape="[-1]"), 4, "shape[0] is not"),
    ("two negative dimensions", "{%s}" % entry("a", shape="[-1,-1]"), 4, "shape[0] is not"),
    ("real dimension", "{%s}" % entry("a", shape="[1,1.0]"), 4, "shape[1] is not"),
    ("dimension beyond 64 bits", "{%s}" % entry("a", shape="[18446744073709551616]"), 4, "not valid JSON"),
    ("no offsets", '{"a":{"dtype":"F32","shape":[1]}}', 4, '"data_offsets" is not a pair'),
    ("one offset", "{%s}" % entry("a", offsets="[0]"), 4, '"data_offsets" is not a pair'),
    ("three offsets", "{%s}" % entry("a", offsets="[0,4,4]"), 4, '"data_offsets" is not a pair'),
    ("real offset", "{%s}" % entry("a", offsets="[0,4.0]"), 4, '"data_offsets" is not a pair'),
    ("negative offset", "{%s}" % entry("a", offsets="[-4,0]"), 4, "are not a range"),
    ("offsets reversed", "{%s}" % entry("a", offsets="[4,0]"), 4, "are not a range"),
    ("offsets beyond the file", "{%s}" % entry("a", offsets="[%d,%d]" % (HUGE - 4, HUGE)), 4, "the file is incomplete"),
    ("range longer than the shape", "{%s}" % entry("a", offsets="[0,8]"), 8, "span 8 bytes, its shape and dtype need 4"),
    ("range shorter than the shape", "{%s}" % entry("a", shape="[2]"), 4, "span 4 bytes, its shape and dtype need 8"),
    ("elements overflow", "{%s}" % entry("a", shape="[4294967296,4294967296]", offsets="[0,0]"), 0, "shape is too large"),
    ("elements overflow before a zero", "{%s}" % entry("a", shape="[%d,%d,0]" % (HUGE, HUGE), offsets="[0,0]"), 0, "shape is too large"),
    ("bytes overflow", "{%s}" % entry("a", shape="[4611686018427387904]", offsets="[0,0]"), 0, "shape is too large"),
    ("no header", "", 0, "not valid JSON"),
    ("header is an array", "[]", 0, "is not a JSON object"),
    ("header is null", "null", 0, "is not a JSON object"),
    ("header is cut", "{%s" % A, 4, "not valid JSON"),
    ("comma at the end", "{%s,}" % A, 4, "not valid JSON"),
    ("two values", "{%s}{}" % A, 4, "not valid JSON"),
    ("byte order mark", "\ufeff{%s}" % A, 4, "not valid JSON"),
    ("lone surrogate", "{%s}" % entry("\\ud800"), 4, "not valid JSON"),
    ("deep nesting", '{"a":{"x":%s,"dtype":"F32","shape":[1],"data_offsets":[0,4]}}' % ("[" * 200 + "]" * 200), 4, "nested deeper"),
    ("nine dimensions", "{%s}" % entry("a", shape="[1,1,1,1,1,1,1,1,1]"), 4, "has 9 dimensions, at most 8", "shapes have a fixed size here"),
    ("same entry twice", "{%s,%s}" % (A, A), 4, "duplicate", "the format's description forbids it"),
    ("metadata key twice", '{"__metadata__":{"x":"1","x":"2"},%s}' % A, 4, "duplicate", "the format's description forbids it"),
    ("NUL in a name", "{%s}" % entry("a\\u0000b"), 4, "not valid JSON", "names are C strings here"),
    ("entry as an array", '{"a":["F32",[1],[0,4]]}', 4, 'tensor "a" is not an object', "an accident of the library's decoder"),
    ("fp8", "{%s}" % entry("a", dtype="F8_E4M3", shape="[4]"), 4, 'dtype "F8_E4M3" is not supported', "no such weights here"),
    ("minus zero", "{%s}" % entry("a", offsets="[-0,4]"), 4, "", "it is zero"),
]


def accepts(header, data_bytes):
    text = header.encode()
    try:
        deserialize(struct.pack("<Q", len(text)) + text + bytes(data_bytes))
        return True
    except Exception:
        return False


def main():
    for name in ("mixed", "floats", "names"):
        save_file(globals()[name](), name + ".safetensors", metadata=METADATA)
    save_file({}, "none.safetensors", metadata=METADATA)
    cases = []
    for name, header, data_bytes, error, *why in CASES:
        case = {"name": name, "header": header, "data_bytes": data_bytes, "library_accepts": accepts(header, data_bytes), "error": error}
        if why:
            case["why"] = why[0]
        print("%s%s" % (name, "" if case["library_accepts"] == (error == "") else "  DIFFERS"))
        cases.append(case)
    with open("safetensors_cases.json", "w", encoding="utf-8") as f:
        json.dump(cases, f, indent=0)
        f.write("\n")


main()
