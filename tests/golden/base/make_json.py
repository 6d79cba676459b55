#!/usr/bin/env python3
"""What Python's json module prints, for tests/base/test_json.c. Standard library only; run inside this folder.

reals.txt    one line per double: its bits in hexadecimal, repr()
strings.txt  one line per string: its UTF-8 in hexadecimal, json.dumps(), json.dumps(ensure_ascii=False)
document.*   one document in every style that the C writer has
"""
import json
import random
import struct


def bits(x):
    return struct.unpack("<Q", struct.pack("<d", x))[0]


def from_bits(n):
    return struct.unpack("<d", struct.pack("<Q", n))[0]


def naive(x):
    """The fewest correctly rounded digits that read back: not always what repr() prints."""
    return next(s for s in ("%.*e" % (n, x) for n in range(17)) if float(s) == x)


def digits(text):
    return text.split("e")[0].replace(".", "").strip("0")


def reals():
    rng = random.Random(20)
    yield from (0.0, -0.0, 1.0, -1.0, 0.1, 100.0, 1e-05, 5e-05, 2e-4, 3e-4, 0.3, 2 / 3, 18.333333333333332)
    yield from (9.5, 99.5, 999999.5, 123456789012345.6, 1234567890123456.7, 9007199254740993.0, 5e-324, 1.5e-323)
    yield from (2.2250738585072014e-308, 2.225073858507201e-308, 1.7976931348623157e308, 9.999999999999999e22)
    for e in range(-330, 309, 7):
        yield from (float("1e%d" % e), float("9.999999999999999e%d" % (e - 1)))
    for e in range(-8, 20):
        yield from (10.0**e, -(10.0**e), 1.25 * 10.0**e, 10.0**e / 3)
    for e in range(-1074, 1024):
        x = 2.0**e
        if e % 40 == 0 or digits(repr(x)) != digits(naive(x)):
            yield x
            yield from_bits(bits(x) - 1)
            yield from_bits(bits(x) + 1)
    for _ in range(200):
        x = from_bits(rng.getrandbits(64))
        if x == x and abs(x) != float("inf"):
            yield x
    for _ in range(100):
        yield from_bits(rng.getrandbits(rng.randrange(1, 53)))  # subnormal
    for _ in range(100):
        yield rng.uniform(-20, 20)
        yield struct.unpack("<f", struct.pack("<f", rng.uniform(0, 5)))[0]
        yield round(rng.uniform(0, 1000), rng.randrange(6))
        yield float(rng.getrandbits(rng.randrange(1, 70)))


def strings():
    rng = random.Random(21)
    yield ""
    yield "plain ASCII, with / and ' and `"
    yield "\"quoted\" \\ back\\slash"
    yield "".join(map(chr, range(32)))
    yield "".join(map(chr, range(32, 128)))
    yield "".join(map(chr, range(128, 192)))
    yield "é ü ß Ω я 中 日本語 हिन्दी عربى … 。"
    yield "\u07ff\u0800\ud7ff\ue000\ufffd\ufffe\uffff\U00010000\U0001f600\U0010ffff"
    yield "\u2028\u2029\ufeff"
    yield "a\u0000b"
    for _ in range(60):
        n = rng.randrange(1, 12)
        limits = [rng.choice((0x20, 0x80, 0x800, 0x10000, 0x110000)) for _ in range(n)]
        codes = [rng.randrange(limit) for limit in limits]
        yield "".join(chr(c) for c in codes if not 0xD800 <= c < 0xE000)


def document():
    return {
        "peft_type": "LORA",
        "r": 8,
        "lora_alpha": 16,
        "lora_dropout": 0.05,
        "bias": "none",
        "target_modules": ["query_key_value", "dense"],
        "modules_to_save": None,
        "rank_pattern": {},
        "empty_list": [],
        "nested": [[], [[1], {}], {"a": {"b": {"c": [{"d": [1, 2, {"e": None}]}]}}}],
        "inference_mode": True,
        "use_rslora": False,
        "é\"\n": "naïve “quotes” 😀 \u007f",
        "": "empty key",
        "integers": [0, -1, 9223372036854775807, -9223372036854775808],
        "reals": [1e-05, 0.1, 100.0, 1e16, -2.5e-310, 5e-324],
    }


def write(name, text):
    with open(name, "w", encoding="utf-8", newline="\n") as f:
        f.write(text)


def main():
    seen = dict.fromkeys(bits(x) for x in reals())
    write("reals.txt", "".join("%016x %r\n" % (b, from_bits(b)) for b in seen))
    # Files are read line by line: U+2028 and the like must not end one, so Python's splitlines is no part of this.
    write("strings.txt", "".join("%s\t%s\t%s\n" % (s.encode().hex() or "-", json.dumps(s), json.dumps(s, ensure_ascii=False))
                                 for s in strings()))
    d = document()
    write("document.line.json", json.dumps(d))
    write("document.compact.json", json.dumps(d, separators=(",", ":")))
    write("document.indent2.json", json.dumps(d, indent=2))
    write("document.indent4.utf8.json", json.dumps(d, indent=4, ensure_ascii=False))


main()
