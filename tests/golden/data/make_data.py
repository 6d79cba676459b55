#!/usr/bin/env python3
"""Small data sets and what they must become, for tests/data/test_dataset.c.

    python make_data.py            (tokenizers 0.23.3)

Writes beside itself: tokenizer.json (a byte-level BPE with BLOOM's pre-tokenizer, trained on the text below),
passages.json (SQuAD v2.0's form; the passages were written for this file), letters.jsonl, cuts.jsonl, tokens.jsonl, and cases.json:
for each case its settings and every record's ids and labels. The ids are the tokenizers library's; the rules for labels and
for cutting contexts are written here a second time, from their description in src/data/dataset.h.
"""
import json, os
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers

HERE = os.path.dirname(os.path.abspath(__file__))
IGNORED = -100

ARTICLES = [
    ("Lighthouse", [
        ("The lighthouse at Mew Point was built in 1871 from grey granite. Its lamp burned colza oil until 1904, when the keeper "
         "Ada Trevose had it changed to paraffin. On a clear night the light could be seen for 19 nautical miles.", [
            ("When was the lighthouse at Mew Point built?", ["1871", "in 1871"]),
            ("Who had the lamp changed to paraffin?", ["Ada Trevose", "the keeper Ada Trevose", "Ada Trevose"]),
            ("How tall is the lighthouse?", []),
            ("How far could the light be seen?", ["19 nautical miles"])]),
        ("Fog signals came later. A bell was hung in 1880, but fishermen complained that the wind carried it away.", [
            ("What was hung in 1880?", ["A bell", "bell"]),
            ("Why did the keepers complain?", [])])]),
    ("Caf\u00e9 \u201cZur Post\u201d", [
        ("Das Caf\u00e9 \u201eZur Post\u201c \u00f6ffnete 1923 in der Gro\u00dfen Gasse. Die Torte kostete 35 Pfennig \u2014 f\u00fcr Studenten 20. "
         "\u98df\u5802\u306f\u4e8c\u968e\u306b\u3042\u308a\u307e\u3057\u305f\u3002\U0001f370\U0001f370 \u0938\u092e\u093e\u092a\u094d\u0924\u0964", [
            ("Wann \u00f6ffnete das Caf\u00e9?", ["1923"]),
            ("\u98df\u5802\u306f\u3069\u3053\u306b\u3042\u308a\u307e\u3057\u305f\u304b\uff1f", ["\u4e8c\u968e", "\u4e8c\u968e\u306b"]),
            ("Wer war der Wirt?", []),
            ("Was kostete 35 Pfennig?", ["Die Torte"])])]),
    ("Tea", [
        ("Tea leaves are withered, rolled, oxidised and dried.\tGreen tea skips the third step.\n\n(White tea skips two.)  Water "
         "for green tea should not boil; about 75 degrees is enough. The word </s> means nothing here, and neither does {this}.", [
            ("Which step does green tea skip?", ["the third step", "third"]),
            ("How warm should the water for green tea be?", ["about 75 degrees"]),
            ("Who invented tea?", [])]),
        ("x", [("Is this passage short?", ["x"]), ("Is it long?", [])])]),
    ("Empty", []),
    ("Rope", [
        (" ".join(f"Strand {i} is laid over strand {i + 1}, and the turn is counted as {i * 3 + 1}." for i in range(24)), [
            ("What is strand 7 laid over?", ["strand 8"]),
            ("What colour is the rope?", []),
            ("As what is the turn of strand 3 counted?", ["10"])])]),
]

LETTERS = [
    {"product": "Kettle", "price": 39, "vegan": True, "text": "Water in two minutes. Buy it."},
    {"product": "Sock\u00e9", "price": 4.5, "vegan": False, "text": "Warm feet!"},
    {"product": "Lamp\u0000", "price": 1e-05, "vegan": False, "text": "\U0001f4a1"},
    {"product": "", "price": -120000000000000000, "vegan": True, "text": "x", "extra": [1, {"a": None}]},
    {"product": "Tent", "price": 1e22, "vegan": False, "text": "Sleeps three. " * 30},
]

TOKENS = [
    {"input_ids": [5, 6, 7, 8]},
    {"input_ids": [9], "labels": [9]},
    {"input_ids": [1, 2, 3, 4, 5], "labels": [-100, -100, 3, 4, 5]},
    {"input_ids": [1, 2, 3, 4, 5], "labels": [-100, 2, -100, 4, 0]},
    {"input_ids": [4, 4, 4], "labels": [-100, -100, -100]},
    {"input_ids": [7] * 40, "labels": None, "attention_mask": [1] * 40},
    {"input_ids": [3, 2, 1], "labels": [1, 2, 3]},
]

CUTS = [  # with the template below the whole text is shorter than that of a context with one token less
    {"context": "The keeper of the light </s", "answer": "x"},
    {"context": "The lighthouse at Mew Point </s</s", "answer": "y"},
    {"context": "\U0001f370\U0001f370\U0001f370</s", "answer": "z"},
]

SQUAD = "### CONTEXT\n{context}\n\n### QUESTION\n{question}\n\n### ANSWER\n{answer}</s>"

def train():
    tok = Tokenizer(models.BPE())
    pattern = Regex(" ?[^(\\s|[.,!?\u2026\u3002\uff0c\u3001\u0964\u06d4\u060c])]+")
    tok.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(pattern, "isolated"),
                                                 pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    tok.decoder = decoders.ByteLevel()
    tok.post_processor = processors.ByteLevel()
    text = [c for _, ps in ARTICLES for c, _ in ps] + [q for _, ps in ARTICLES for _, qs in ps for q, _ in qs] + [SQUAD]
    tok.train_from_iterator(text, trainers.BpeTrainer(vocab_size=420, show_progress=False, special_tokens=["<unk>", "<s>", "</s>", "<pad>"],
                                                      initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
    return tok

def byte_map():
    keep = list(range(0x21, 0x7f)) + list(range(0xa1, 0xad)) + list(range(0xae, 0x100))
    chars, n = {chr(b): b for b in keep}, 0
    for b in range(256):
        if b not in keep:
            chars[chr(256 + n)] = b
            n += 1
    return chars

BYTES = byte_map()

def encode(tok, text):
    """ids, and the byte offset at which each token begins."""
    ids, begins, at = tok.encode(text, add_special_tokens=False).ids, [], 0
    for i in ids:
        begins.append(at)
        t = tok.id_to_token(i)
        at += len(t) if i < 4 else len(bytes(BYTES[c] for c in t))
    assert at == len(text.encode())
    return ids, begins

def render(template, last, fields):
    """The text, and the byte offset of the last field."""
    head = template[:template.rindex("{" + last + "}")].format(**fields)
    return template.format(**fields), len(head.encode())

def cut(context, begins, m):
    raw = context.encode()
    at = begins[m] if m < len(begins) else len(raw)
    while 0 < at < len(raw) and raw[at] & 0xc0 == 0x80: at -= 1
    return raw[:at].decode()

def truncate(tok, template, last, fields, limit):
    """The rule in dataset.h. None: it does not fit."""
    uses = template.count("{context}")
    whole = fields["context"]
    _, begins = encode(tok, whole)
    def attempt(m):
        f = dict(fields, context=cut(whole, begins, m))
        text, at = render(template, last, f)
        return encode(tok, text) + (at, text)
    k = m = len(begins)
    got = attempt(m)
    while len(got[0]) > limit:
        if m == 0: return None
        m = max(0, m - -(-(len(got[0]) - limit) // uses))
        got = attempt(m)
    while m + 1 < k:
        more = attempt(m + 1)
        if len(more[0]) > limit: break
        got, m = more, m + 1
    return got

def text_records(tok, rows, s):
    """rows: (source, group, fields)."""
    names = [p.split("}")[0] for p in s["prompt_template"].replace("{{", "").replace("}}", "").split("{")[1:]]
    out = {"records": [], "n_dropped": 0, "n_truncated": 0, "n_straddled": 0}
    for source, group, fields in rows:
        text, at = render(s["prompt_template"], names[-1], fields)
        ids, begins = encode(tok, text)
        if len(ids) > s["max_length"]:
            if s["on_too_long"] == "drop":
                out["n_dropped"] += 1
                continue
            out["n_truncated"] += 1
            ids, begins, at, text = truncate(tok, s["prompt_template"], names[-1], fields, s["max_length"])
        labels = list(ids)
        if s["loss_on"] == "answer":
            labels = [i if b >= at else IGNORED for i, b in zip(ids, begins)]
            counted = [b for b in begins if b >= at] + [len(text.encode())]
            out["n_straddled"] += counted[0] > at
        out["records"].append(record(source, group, ids, labels))
    return out

def record(source, group, ids, labels):
    """Labels are left out where they equal the ids; "ignored": k where only the first k do not."""
    r = {"source": source, "group": group, "ids": ids}
    k = next((i for i, l in enumerate(labels) if l != IGNORED), len(labels))
    if labels[k:] != ids[k:]: r["labels"] = labels
    elif k > 0: r["ignored"] = k
    return r

def squad_rows(none):
    n = 0
    for g, (title, paragraphs) in enumerate(ARTICLES):
        for p, (context, questions) in enumerate(paragraphs):
            for q, answers in questions:
                yield n, g, {"id": f"{n:024x}", "title": title, "context": context, "question": q, "answer": answers[0] if answers else none}
                n += 1

def squad_file():
    n, data = 0, []
    for title, paragraphs in ARTICLES:
        out = []
        for context, questions in paragraphs:
            qas = []
            for q, answers in questions:
                one = {"question": q, "id": f"{n:024x}", "answers": [{"text": a, "answer_start": max(context.find(a), 0)} for a in answers],
                       "is_impossible": not answers}
                if not answers: one["plausible_answers"] = [{"text": "nobody", "answer_start": 0}]
                qas.append(one)
                n += 1
            out.append({"qas": qas, "context": context})
        data.append({"title": title, "paragraphs": out})
    return {"version": "v2.0", "data": data}

def line_rows(records):
    for i, r in enumerate(records):
        yield i + 1, i, {k: v if isinstance(v, str) else json.dumps(v) for k, v in r.items() if not isinstance(v, list)}

def token_records(limit, drop):
    out = {"records": [], "n_dropped": 0, "n_truncated": 0, "n_straddled": 0}
    for i, r in enumerate(TOKENS):
        if len(r["input_ids"]) > limit:
            assert drop
            out["n_dropped"] += 1
        else:
            out["records"].append(record(i + 1, i, r["input_ids"], r.get("labels") or r["input_ids"]))
    return out

def cases(tok):
    base = {"format": "squad", "prompt_template": SQUAD, "no_answer_text": "Cannot Find Answer", "loss_on": "all", "max_length": 2048, "on_too_long": "error"}
    spaced = "{title} {{{id}}}: {context} Q: {question} A: {answer}"
    twice = "{context}\n{question}\n({context})\n{answer}</s>"
    letter = "{product} for {price} ({vegan}):\n{text}</s>"
    for name, change in [
        ("squad", {}),
        ("squad-answer", {"loss_on": "answer"}),
        ("squad-straddled", {"loss_on": "answer", "prompt_template": spaced, "no_answer_text": ""}),
        ("squad-drop", {"max_length": 163, "on_too_long": "drop", "loss_on": "answer"}),
        ("squad-cut-151", {"max_length": 151, "on_too_long": "truncate_context", "loss_on": "answer"}),
        ("squad-cut-80", {"max_length": 80, "on_too_long": "truncate_context"}),
        ("squad-cut-twice", {"max_length": 213, "on_too_long": "truncate_context", "prompt_template": twice, "loss_on": "answer"}),
    ]:
        s = base | change
        yield {"name": name, "file": "passages.json", "settings": s, "n_groups": len(ARTICLES)} | text_records(tok, squad_rows(s["no_answer_text"]), s)
    for name, change in [("jsonl", {"loss_on": "answer"}), ("jsonl-drop", {"max_length": 60, "on_too_long": "drop"})]:
        s = base | {"format": "jsonl", "prompt_template": letter} | change
        yield {"name": name, "file": "letters.jsonl", "settings": s, "n_groups": len(LETTERS)} | text_records(tok, line_rows(LETTERS), s)
    for limit in (7, 11):
        s = base | {"format": "jsonl", "prompt_template": "{context}>{answer}", "max_length": limit, "on_too_long": "truncate_context", "loss_on": "answer"}
        yield {"name": f"jsonl-cut-{limit}", "file": "cuts.jsonl", "settings": s, "n_groups": len(CUTS)} | text_records(tok, line_rows(CUTS), s)
    s = {"format": "tokenized", "max_length": 2048, "on_too_long": "error"}
    yield {"name": "tokenized", "file": "tokens.jsonl", "settings": s, "n_groups": len(TOKENS)} | token_records(2048, False)
    s = {"format": "tokenized", "max_length": 4, "on_too_long": "drop"}
    yield {"name": "tokenized-drop", "file": "tokens.jsonl", "settings": s, "n_groups": len(TOKENS)} | token_records(4, True)

if __name__ == "__main__":
    tok = train()
    tok.save(f"{HERE}/tokenizer.json")
    with open(f"{HERE}/passages.json", "w") as f: json.dump(squad_file(), f, ensure_ascii=False)
    with open(f"{HERE}/letters.jsonl", "w", newline="") as f:
        f.write("\ufeff" + json.dumps(LETTERS[0]) + "\r\n\n")  # line 2 is empty
        f.write("\n".join(json.dumps(r) for r in LETTERS[1:]))  # no line end at the end
    with open(f"{HERE}/tokens.jsonl", "w") as f:
        f.writelines(json.dumps(r) + "\n" for r in TOKENS)
    with open(f"{HERE}/cuts.jsonl", "w") as f:
        f.writelines(json.dumps(r) + "\n" for r in CUTS)
    out = list(cases(tok))
    for c in out:  # line 2 of letters.jsonl is empty
        if c["file"] == "letters.jsonl":
            for r in c["records"]: r["source"] += r["source"] > 1
    with open(f"{HERE}/cases.json", "w") as f:
        f.write('{"vocab_size": %d, "cases": [\n' % tok.get_vocab_size())
        f.write(",\n".join(json.dumps(c, separators=(",", ":")) for c in out))
        f.write("\n]}\n")
