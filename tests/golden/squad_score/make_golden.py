#!/usr/bin/env python3
"""Makes the other files of this folder: what the official SQuAD v2.0 metrics are of hostile answers.

    python make_golden.py            # writes the files
    python make_golden.py --check    # compares them instead

Needs a Python whose tables are Unicode 14.0.0's (3.11); another one is refused, with exit code 77 under --check.  The metrics
are written here from their description (src/infer/squad_text.h, src/infer/squad_score.h), on top of Python's str.lower(), re
and str.split().  Sums are loops, since sum() of Python 3.12 and later rounds otherwise.  About 10 s.
"""
import hashlib
import json
import random
import re
import string
import sys
import unicodedata
from collections import Counter
from pathlib import Path

HERE = Path(__file__).resolve().parent
VERSION = "14.0.0"

# ---- the metrics

ARTICLE = re.compile(r"\b(?:the|an|a)\b")
NO_PUNCTUATION = str.maketrans("", "", string.punctuation)


def normal(text):
    return " ".join(ARTICLE.sub(" ", text.lower().translate(NO_PUNCTUATION)).split())


def f1(gold, prediction):
    gold, prediction = normal(gold).split(), normal(prediction).split()
    if not gold or not prediction:
        return float(gold == prediction)
    have = Counter(prediction)
    common = sum(min(n, have[token]) for token, n in Counter(gold).items())
    if common == 0:
        return 0.0
    p, r = common / len(prediction), common / len(gold)
    return 2 * p * r / (p + r)


def total_of(values):
    total = 0
    for value in values:
        total = total + value
    return total


def raw_scores(data, predictions):
    """{id: (has an answer, exact, F1)}"""
    scores = {}
    for article in data["data"]:
        for paragraph in article["paragraphs"]:
            for question in paragraph["qas"]:
                answers = [a["text"] for a in question["answers"]]
                golds = [a for a in answers if normal(a)] or [""]
                said = predictions.get(question["id"], "")
                scores[question["id"]] = (len(answers) > 0, max(int(normal(g) == normal(said)) for g in golds),
                                          max(f1(g, said) for g in golds))
    return scores


def best(scores, predictions, probs, which):
    now = top = sum(not s[0] for s in scores.values())
    at = 0.0
    for key in sorted(probs, key=probs.get):
        if key not in scores:
            continue
        if scores[key][0]:
            now = now + scores[key][which]
        elif predictions.get(key, ""):
            now = now - 1
        if now > top:
            top, at = now, probs[key]
    return 100.0 * top / len(scores), at


def metrics(data, predictions, probs=None, thresh=1.0):
    raw = raw_scores(data, predictions)
    scores = {k: (has, float(not has), float(not has)) if (probs[k] if probs else 0.0) > thresh else (has, exact, f)
              for k, (has, exact, f) in raw.items()}
    out = {}
    for prefix, wanted in (("", (True, False)), ("HasAns_", (True,)), ("NoAns_", (False,))):
        part = [s for s in scores.values() if s[0] in wanted]
        if part:
            out[prefix + "exact"] = 100.0 * total_of(s[1] for s in part) / len(part)
            out[prefix + "f1"] = 100.0 * total_of(s[2] for s in part) / len(part)
            out[prefix + "total"] = len(part)
    if probs:
        out["best_exact"], out["best_exact_thresh"] = best(raw, predictions, probs, 1)
        out["best_f1"], out["best_f1_thresh"] = best(raw, predictions, probs, 2)
    return out


# ---- hostile strings

SPACES = "".join(chr(c) for c in range(0x110000) if chr(c).isspace())
ATOMS = (
    ["a", "an", "the", "A", "AN", "The", "THE", "aN", "tHe", "them", "ana", "b", "x", "cat", "Cat", "dogs", "1066", "10", "s"]
    + ["a b", "the the", "a.n", "t-h-e", "a's", "an_", "_the", "u.s.", "don't", "\u2018the\u2019", "\u201ca\u201d", "\u2014an\u2014"]
    + list(string.punctuation) + list(SPACES) + [" "] * 40
    + ["\u200b", "\u200c", "\u200d", "\u2060", "\ufeff", "\u180e", "\u00ad", "\u200e", "\u0000", "\u0001", "\u001b", "\u007f"]
    + ["\u03a3", "\u03a3", "\u03c3", "\u03c2", "\u0391\u03a3", "\u039f\u0394\u039f\u03a3", "\u03a3\u03a3", "\u0391\u03a3\u0301", "\u1fbc", "\u0345"]
    + ["\u0130", "I", "\u0131", "i\u0307", "\u00df", "\u1e9e", "\ufb01", "\u01c4", "\u01c5", "\u01c6", "\u212a", "\u212b", "\u2126", "\u00c5"]
    + ["\u0301", "\u0300", "\u0903", "\u20dd", "\ufe0f", "\u0307", "\u0308", "\u0363", "\u05b0", "\u0640", "\u093e"]
    + ["a\u0301", "\u00e1", "the\u0301", "\u0301an", "e\u0301", "\u00e9", "a\u00e9", "\u00aa", "\u00ba", "a\u00b2", "\u2160", "\u2170", "\u24b6"]
    + ["\u00bd", "\u0969", "\u0e53", "\u4e00", "\u4e8c\u968e", "\u3042", "\uff41", "\uff21", "\uff0e", "\uff01", "\uff3f", "\u3002", "\u3001", "\u060c"]
    + ["\u13a0", "\uab70", "\u10a0", "\u1c90", "\u2c2f", "\ua64a", "\U00010400", "\U0001e900", "\U00010d00", "\U0001f600", "\U0001d400", "\U000e0100"]
    + ["\u02b0", "\u02bc", "\u2019", "\u00b7", "\u0387", "\u2027", "\u2024", "\u1d78", "\u037a", "\u1d2c", "\u2071", "\u10fc", "\U0001f130"]
    + ["\u0378", "\U000e0000", "\U0010ffff", "\ufffd", "\ufffe", "\ud7ff", "\ue000"]
)


def hostile(rng, longest):
    return "".join(rng.choice(ATOMS) for _ in range(rng.randrange(longest + 1)))


def strings(rng):
    out = ["", " ", "the", "a", "An a THE", "\u0391\u03a3", "\u03a3", "A\u03a3", "A\u03a3B", "A.\u03a3.", "A.\u03a3.B", "A\u0301\u03a3\u0301", "1\u03a3"]
    out += [hostile(rng, 6) for _ in range(2000)] + [hostile(rng, 20) for _ in range(400)]
    sigma = ["\u03a3", "A", "\u0345", "'", "\u0301", "1", " ", "\u02b0", "\u4e00"]
    out += [a + b + "\u03a3" + c + d for a in sigma for b in sigma for c in sigma for d in sigma if rng.random() < 0.1]
    return out


# ---- every character

CONTEXTS = [("", ""), ("x", "y"), ("X\u03a3", "Y"), ("X\u03a3", ""), ("X", "\u03a3"), ("", "\u03a3"), ("\u03a3", ""), ("a", " the"), ("x the", "a"),
            ("\u2014a", "\u2014")]


def digests():
    chars = [chr(c) for c in range(0x110000) if not 0xD800 <= c < 0xE000]
    out = []
    for before, after in CONTEXTS:
        sha = hashlib.sha256()
        for c in chars:
            sha.update(normal(before + c + after).encode() + b"\n")
        out.append({"before": before, "after": after, "sha256": sha.hexdigest()})
    return out


# ---- data sets

def squad(rows):
    """rows: (id, list of answers); three questions a paragraph, two paragraphs an article."""
    qas = [{"id": key, "question": "?", "is_impossible": not answers,
            "answers": [{"text": a, "answer_start": 0} for a in answers]} for key, answers in rows]
    paragraphs = [{"context": "c", "qas": qas[i:i + 3]} for i in range(0, len(qas), 3)]
    return {"version": "v2.0", "data": [{"title": "t", "paragraphs": paragraphs[i:i + 2]} for i in range(0, len(paragraphs), 2)]}


SMALL = [  # id, golds, prediction, probability that there is no answer
    ("exact", ["granite", "grey granite"], "The Granite.", 0.25),
    ("partly", ["the keeper Ada Trevose", "Ada Trevose"], "keeper of the lamp, Ada", 0.5),
    ("wrong", ["19 nautical miles"], "the bell", 0),
    ("silent", ["1871"], "", 0.75),
    ("only-articles", ["the", "a The AN"], "", 0.125),
    ("only-punctuation", ["...", "!?"], "x", 0.125),
    ("one-gold-is-empty", ["the", "lamp"], "", 0.125),
    ("empty-gold", [""], "the", 0.5),
    ("none", [], "", 1),
    ("none-but-said", [], "in 1880", 0.5),
    ("none-but-article", [], "The!", 0.5),
    ("repeated", ["bell bell bell rope"], "rope bell rope bell", 1e-05),
    ("sigma", ["\u039f\u0394\u039f\u03a3 \u0391"], "\u03bf\u03b4\u03bf\u03c2, \u03b1", 0.0),
    ("dotted", ["\u0130zmir"], "i\u0307zmir", 0.0625),
    ("\u00fcml\u00e4ut \U0001f600", ["stra\u00dfe"], "STRASSE", 2),
]


def tie_data(rng):
    words = "bell rope lamp keeper stone tide wind salt the a of".split()
    rows, predictions, probs = [], {}, {}
    for i in range(300):
        key = f"{i:024x}"
        golds = [" ".join(rng.choice(words) for _ in range(rng.randrange(1, 7))) for _ in range(rng.choice([0, 0, 1, 2, 3]))]
        said = "" if rng.random() < 0.3 else " ".join(rng.choice(words) for _ in range(rng.randrange(1, 9)))
        rows.append((key, golds))
        predictions[key] = rng.choice(golds) if golds and rng.random() < 0.3 else said
        probs[key] = rng.choice([0, 1, 0.5, 0.25, rng.random(), round(rng.random(), 1)])
    order = list(probs)
    rng.shuffle(order)  # ties are taken in this file's order
    return squad(rows), predictions, {k: probs[k] for k in order}


def hostile_data(rng):
    rows, predictions = [], {}
    for i in range(400):
        golds = [hostile(rng, 8) for _ in range(rng.randrange(4))]
        rows.append((str(i), golds))
        if golds and rng.random() < 0.6:
            parts = [rng.choice(golds).swapcase(), hostile(rng, 3)]
            rng.shuffle(parts)
            predictions[str(i)] = rng.choice([" ", ""]).join(parts)
        else:
            predictions[str(i)] = hostile(rng, 4)
    return squad(rows), predictions


def dump(value):
    return json.dumps(value) + "\n"


def add_set(files, name, data, predictions, probs, runs):
    files[f"{name}.json"] = dump(data)
    files[f"{name}.predictions.json"] = dump(predictions)
    if probs:
        files[f"{name}.na_probs.json"] = dump(probs)
    files[f"{name}.scores.json"] = dump({k: list(s[1:]) for k, s in raw_scores(data, predictions).items()})
    for suffix, with_probs, thresh in runs:
        m = metrics(data, predictions, probs if with_probs else None, thresh)
        files[f"{name}{suffix}.txt"] = json.dumps(m, indent=2) + "\n"
        if (name, suffix) == ("small", ".na"):
            files[f"{name}{suffix}.line.json"] = json.dumps(m)


def make():
    rng = random.Random(7)
    files = {"strings.jsonl": "".join(json.dumps([s, normal(s)]) + "\n" for s in strings(rng)),
             "code_points.json": json.dumps({"unicode": VERSION, "contexts": digests()}, indent=1) + "\n"}
    data = squad([(key, golds) for key, golds, _, _ in SMALL])
    predictions = {key: said for key, _, said, _ in reversed(SMALL)} | {"no such question": "x"}
    probs = {key: prob for key, _, _, prob in SMALL} | {"no such question": -1.5}
    runs = [("", False, 1.0), (".na", True, 1.0), (".na_0.5", True, 0.5), (".na_-1", True, -1.0), (".none_-1", False, -1.0)]
    add_set(files, "small", data, predictions, probs, runs)
    data, predictions, probs = tie_data(rng)
    add_set(files, "ties", data, predictions, probs, [(".na_0.4", True, 0.4)])
    data, predictions = hostile_data(rng)
    add_set(files, "hostile", data, predictions, None, [("", False, 1.0)])
    only = squad([("1", ["bell"]), ("2", ["rope"])])
    add_set(files, "answered", only, {"1": "bell", "2": ""}, None, [("", False, 1.0)])
    nothing = squad([("1", []), ("2", [])])
    add_set(files, "unanswerable", nothing, {"1": "bell", "2": ""}, None, [("", False, 1.0)])
    twice = squad([("1", []), ("2", ["rope"]), ("1", ["bell"]), ("3", ["tide"]), ("2", [])])  # the last of an id counts
    add_set(files, "twice", twice, {"1": "bell", "2": "", "3": "a tide and wind"}, {"3": 0.5, "2": 0.25, "1": 0.5}, [("", False, 1.0), (".na", True, 1.0)])
    return files


def main():
    check = sys.argv[1:] == ["--check"]
    if unicodedata.unidata_version != VERSION:
        print(f"SKIPPED: this Python has Unicode {unicodedata.unidata_version}, the files are of {VERSION}")
        return 77 if check else 1
    different = 0
    for name, text in make().items():
        if check:
            path = HERE / name
            same = path.exists() and path.read_text(encoding="ascii") == text
            different += not same
            if not same:
                print("DIFFERENT", name)
        else:
            (HERE / name).write_text(text, encoding="ascii")
    if check and not different:
        print("same")
    return different != 0


if __name__ == "__main__":
    sys.exit(main())
