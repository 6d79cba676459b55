#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes the almanac's questions, in the format of SQuAD v2.0: ../train.json and ../heldout.json.

    python3 make_questions.py [OUT]

Only Python's standard library. The held-out passages share no passage with training, and no town, river or family name with
training or with the text that the model was pretrained on (words.py).
"""

import hashlib
import json
import os
import random
import sys

from almanac import Passage, read_kinds
from words import Words

IMPOSSIBLE = 0.3


def paragraph(kinds, words):
    """(title, paragraph): one passage, or a page of three with questions about each."""
    rng = words.rng
    n = 3 if rng.random() < 0.06 else 1
    passages = [Passage(k, words, 1 if rng.random() < 0.6 else 2) for k in rng.sample(kinds, n)]
    context, qas = "", []
    for p in passages:
        offset = len(context) + (1 if context else 0)
        context += ("\n" if context else "") + p.text
        for text, entity, fact in p.questions(rng.randint(3, 5) if n == 1 else 2, IMPOSSIBLE):
            answers = []
            if entity is not None:
                answer, start = p.answer(entity, fact.key)
                answers = [{"text": answer, "answer_start": offset + start}]
            qas.append({"question": text, "id": "", "answers": answers, "is_impossible": entity is None})
    for q in qas:
        q["id"] = hashlib.sha256((context + q["question"]).encode()).hexdigest()[:24]
        for answer in q["answers"]:
            at = answer["answer_start"]
            assert context[at : at + len(answer["text"])] == answer["text"]
    return passages[0].title(), {"qas": qas, "context": context}


def question_set(kinds, seed, half, n_questions):
    words, data, titles, n = Words(random.Random(seed), half), [], set(), 0
    while n < n_questions:
        title, one = paragraph(kinds, words)
        if title in titles:
            continue
        titles.add(title)
        data.append({"title": title, "paragraphs": [one]})
        n += len(one["qas"])
    return data


def main():
    out = sys.argv[1] if len(sys.argv) > 1 else os.path.join(os.path.dirname(os.path.abspath(__file__)), "..")
    kinds = read_kinds()
    for name, seed, half, n in ("train", 101, 0, 2000), ("heldout", 202, 1, 240):
        with open(os.path.join(out, name + ".json"), "w", encoding="utf-8") as f:
            articles = ",\n".join(json.dumps(a) for a in question_set(kinds, seed, half, n))  # one a line
            f.write('{"version": "v2.0", "data": [\n' + articles + "\n]}\n")


if __name__ == "__main__":
    main()
