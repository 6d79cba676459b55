# SPDX-License-Identifier: Apache-2.0
"""What the model reads while it is pretrained: pages of the almanac, alone or followed by talk about them.

The talk comes in many forms, and never in that of the fine-tuning prompt: questions and answers in a conversation, in whole
sentences, in a lesson, in a summary. So the base model can find and copy, but has not been taught the task.
"""

from almanac import Passage, capital
from words import MEN, WOMEN

UNKNOWN = """The text does not say.|That is not written here.|Nobody knows.|I do not know.|I cannot find it.|There is nothing about
that on this page.|That we are not told.|The page is silent about that.""".replace("\n", " ").split("|")
HEADINGS = """What You Cannot Miss|Find Your Way|A Question Of Taste|The Answer Came Late|Notes And Letters|Around The
Valley|From Our Readers|Who Can Find It|Places And Names|Things We Cannot Explain|Old And New|An Answer To A Letter|A Page
From The Almanac|The Wider Context|Question And Answer|Nobody Could Find Them""".replace("\n", " ").split("|")


def statement(passage, entity, fact):
    """The fact in a sentence of its own."""
    return capital(passage._fill(passage.rng.choice(fact.says), entity, fact.key)) + "."


def short(value, rng):
    """As it stands on the page, or as a sentence of one word."""
    return value if rng.random() < 0.5 else capital(value) + ("." if rng.random() < 0.7 else "")


def reply(passage, entity, fact, rng, whole):
    if entity is None:
        return rng.choice(UNKNOWN)
    if rng.random() < whole:
        return statement(passage, entity, fact)
    return short(passage.answer(entity, fact.key)[0], rng)


def conversation(passage, questions, rng):
    a, b = rng.sample(WOMEN + MEN, 2)
    lines = []
    for q, e, f in questions:
        verb = rng.choice(["asked", "asked", "wondered"])
        lines.append(f'"{q}" {verb} {a}.')
        answer = reply(passage, e, f, rng, 0.4)
        answer = answer[:-1] + "," if answer.endswith(".") else answer + ","
        lines.append(f'"{answer}" {rng.choice(["said", "answered", "replied"])} {b}.')
    return (" " if rng.random() < 0.3 else "\n").join(lines)


def lesson(passage, questions, rng):
    a, b = rng.choice([("Teacher", "Pupil"), ("Question", "Reply"), ("Visitor", "Guide"), ("Grandmother", "Child"), ("Q", "A"), ("Reader", "Editor")])
    return "\n".join(f"{a}: {q}\n{b}: {reply(passage, e, f, rng, 0.25)}" for q, e, f in questions)


def riddle(passage, questions, rng):
    dash = rng.choice([" - ", "\n- ", " ", "\n", "\n", "\n\n", "\n> ", " ("])
    end = ")" if "(" in dash else ""
    return "\n".join(f"{q}{dash}{reply(passage, e, f, rng, 0.3)}{end}" for q, e, f in questions)


def table(passage, _, rng):
    """What was said, a line each: a label before it, a label behind it, or nothing but the value."""
    before, after = rng.choice([(True, False), (False, True), (False, False)])
    entity = rng.choice(passage.entities)
    facts = passage.facts_of(entity)
    rng.shuffle(facts)
    rows = []
    for f in facts:
        value = passage.answer(entity, f.key)[0]
        rows.append((f"{capital(f.key)}: " if before else "") + value + (f" ({f.key})" if after else ""))
    return "\n".join(rows)


def summary(passage, _, rng):
    facts = [(e, f) for e in passage.entities for f in passage.facts_of(e)]
    chosen = rng.sample(facts, min(len(facts), rng.randint(2, 4)))
    return rng.choice(["In short: ", "To sum up: ", "In other words: ", "Remember: "]) + " ".join(statement(passage, e, f) for e, f in chosen)


def heading(rng, passage):
    text = rng.choice(HEADINGS) if rng.random() < 0.4 else passage.title()
    text = text.upper() if rng.random() < 0.5 else text
    return rng.choice(["", "", "# ", "## ", "### ", "### "]) + text + rng.choice(["\n", "\n\n"])


def document(kinds, words):
    rng = words.rng
    n_passages = rng.choices([1, 2, 3, 4], [70, 18, 8, 4])[0]
    parts, passages = [], []
    for _ in range(n_passages):
        p = Passage(rng.choice(kinds), words, rng.choice([1, 1, 2]), rng.choice([(2, 4), (3, 6), (3, 6)]))
        passages.append(p)
        parts.append((heading(rng, p) if rng.random() < 0.4 else "") + p.text)
    if rng.random() < 0.85:
        for p in passages if rng.random() < 0.3 else [rng.choice(passages)]:
            form = rng.choices([conversation, lesson, riddle, summary, table], [22, 22, 36, 8, 12])[0]
            questions = p.questions(rng.randint(1, 5), 0.25)
            title = rng.choice(["", "", "", "Questions\n", "## Questions\n", "### QUESTIONS\n", "Talk about it\n", "### " + rng.choice(HEADINGS).upper() + "\n"])
            parts.append((title if form in (conversation, lesson, riddle) else "") + form(p, questions, rng))
    return rng.choice(["\n\n", "\n\n", "\n"]).join(parts)
