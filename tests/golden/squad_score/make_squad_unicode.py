#!/usr/bin/env python3
"""Makes src/infer/squad_unicode.c: lower case and classes of characters as Python's str and re know them.

    python make_squad_unicode.py            # writes the file
    python make_squad_unicode.py --check    # compares it instead

Needs a Python whose tables are Unicode 14.0.0's (3.11); another one is refused, with exit code 77 under --check.  No table
of Unicode is read: str itself is asked about each of the 1,112,064 characters.  Whether a character is cased or is passed
over beside a capital sigma is told by what str.lower() makes of a sigma behind it.  About 3 s.
"""
import sys
import unicodedata
from pathlib import Path

OUT = Path(__file__).resolve().parents[3] / "src" / "infer" / "squad_unicode.c"
VERSION = "14.0.0"
SIGMA, FINAL = "\u03a3", "\u03c2"
CHARS = [c for c in range(0x110000) if not 0xD800 <= c < 0xE000]


def lower_runs():
    """[first, last, step, delta] of characters with a lower case of one character."""
    runs = []
    for c in CHARS:
        low = chr(c).lower()
        if len(low) != 1:
            assert (c, low) == (0x130, "i\u0307"), hex(c)  # squad_text.c knows this one
            continue
        delta = ord(low) - c
        if delta == 0:
            continue
        if runs:
            first, last, step, d = runs[-1]
            if d == delta and (c - last == step or (first == last and c - last == 2)):
                runs[-1] = [first, c, c - last, d]
                continue
        runs.append([c, c, 1, delta])
    return runs


def classes(c):
    s = chr(c)
    flags = []
    if s.isalnum():
        flags.append("W")
    if s.isspace():
        flags.append("S")
    if (s + SIGMA).lower().endswith(FINAL):
        flags.append("C")
    elif ("A" + s + SIGMA).lower().endswith(FINAL):
        flags.append("I")
    return "|".join(flags)


def class_runs():
    runs = []
    for c in CHARS:
        flags = classes(c)
        if not flags:
            continue
        if runs and runs[-1][1] == c - 1 and runs[-1][2] == flags:
            runs[-1][1] = c
        else:
            runs.append([c, c, flags])
    return runs


def rows(items, n):
    return "\n".join("    " + " ".join(items[i:i + n]) for i in range(0, len(items), n))


def text():
    lower = [f"{{0x{a:05x}, 0x{b:05x}, {s}, {d}}}," for a, b, s, d in lower_runs()]
    kinds = [f"{{0x{a:05x}, 0x{b:05x}, {f}}}," for a, b, f in class_runs()]
    return f"""/* Made by tests/golden/squad_score/make_squad_unicode.py from Unicode {VERSION}; do not edit. */
#include "infer/squad_unicode.h"

#define W LRD_CHAR_WORD
#define S LRD_CHAR_SPACE
#define C LRD_CHAR_CASED
#define I LRD_CHAR_IGNORABLE

/* clang-format off */
const lrd_lower_run_t lrd_lower_runs[] = {{
{rows(lower, 3)}
}};
const size_t lrd_n_lower_runs = sizeof lrd_lower_runs / sizeof lrd_lower_runs[0];

const lrd_class_run_t lrd_class_runs[] = {{
{rows(kinds, 4)}
}};
const size_t lrd_n_class_runs = sizeof lrd_class_runs / sizeof lrd_class_runs[0];
/* clang-format on */
"""


def main():
    check = sys.argv[1:] == ["--check"]
    if unicodedata.unidata_version != VERSION:
        print(f"SKIPPED: this Python has Unicode {unicodedata.unidata_version}, the tables are of {VERSION}")
        return 77 if check else 1
    made = text()
    if check:
        same = OUT.read_text(encoding="ascii") == made
        print("same" if same else "DIFFERENT", OUT.name)
        return not same
    OUT.write_text(made, encoding="ascii")
    return 0


if __name__ == "__main__":
    sys.exit(main())
