#!/usr/bin/env python3
"""Makes src/data/unicode_class.c: what the Hugging Face library takes for a word character and for
white space beside an added token.

    python make_unicode_class.py            # writes the file
    python make_unicode_class.py --check    # compares it instead

Needs tokenizers 0.23.3.  Each of the 1,112,064 characters is asked about: behind an added token
with single_word, which matches only if the character is no word character, and behind one with
rstrip, which swallows white space.  The answers are Unicode 16.0's \\w and \\s as the Rust crate
`regex` defines them.  About 15 s.
"""
import sys
from pathlib import Path

import tokenizers
from tokenizers import AddedToken, Tokenizer, models

OUT = Path(__file__).resolve().parents[3] / "src" / "data" / "unicode_class.c"
STEP = 2048  # characters a text


def ask():
    tok = Tokenizer(models.BPE(vocab={"<u>": 0}, merges=[]))
    tok.add_tokens([AddedToken("<x>", single_word=True, normalized=False), AddedToken("<y>", rstrip=True, normalized=False)])
    x, y = tok.token_to_id("<x>"), tok.token_to_id("<y>")
    chars = [c for c in range(0x110000) if not 0xD800 <= c < 0xE000]
    word, white = [], []
    for i in range(0, len(chars), STEP):
        part = chars[i:i + STEP]
        e = tok.encode("".join(f"<x>{chr(c)}!" for c in part))
        matched = {begin for n, (begin, _) in zip(e.ids, e.offsets) if n == x}
        word += [c for k, c in enumerate(part) if 5 * k not in matched]
        e = tok.encode("".join(f"<y>{chr(c)}!" for c in part))
        long = {begin for n, (begin, end) in zip(e.ids, e.offsets) if n == y and end == begin + 4}
        white += [c for k, c in enumerate(part) if 5 * k in long]
    return word, white


def runs(chars):
    out = []
    for c in chars:
        if out and out[-1][1] == c - 1:
            out[-1][1] = c
        else:
            out.append([c, c])
    return out


def table(name, chars):
    items = [f"{{0x{a:05x}, 0x{b:05x}}}," for a, b in runs(chars)]
    lines = ["    " + " ".join(items[i:i + 4]) for i in range(0, len(items), 4)]
    return f"static const int32_t {name}[][2] = {{\n" + "\n".join(lines) + "\n};\n"


def text():
    word, white = ask()
    return f"""/* Made by tests/golden/tokenizer/make_unicode_class.py; do not edit. */
#include "data/unicode_class.h"

#include <stddef.h>

/* First and last character of each run: {len(word)} and {len(white)} characters. */
/* clang-format off */
{table("word", word)}
{table("white", white)}/* clang-format on */

static bool is_in(const int32_t (*run)[2], size_t n, int32_t code)
{{
    size_t low = 0, high = n;
    while (low < high) {{
        const size_t middle = (low + high) / 2;
        if (code < run[middle][0])
            high = middle;
        else if (code > run[middle][1])
            low = middle + 1;
        else
            return true;
    }}
    return false;
}}

bool lrd_unicode_is_word(int32_t code)
{{
    return is_in(word, sizeof word / sizeof word[0], code);
}}

bool lrd_unicode_is_white(int32_t code)
{{
    return is_in(white, sizeof white / sizeof white[0], code);
}}
"""


def main():
    if tokenizers.__version__ != "0.23.3":
        print(f"note: made with tokenizers 0.23.3, this is {tokenizers.__version__}", file=sys.stderr)
    made = text()
    if sys.argv[1:] == ["--check"]:
        same = OUT.read_text(encoding="ascii") == made
        print("same" if same else "DIFFERENT", OUT.name)
        return not same
    OUT.write_text(made, encoding="ascii")
    return 0


if __name__ == "__main__":
    sys.exit(main())
