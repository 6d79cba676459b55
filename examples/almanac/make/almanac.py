# SPDX-License-Identifier: Apache-2.0
"""Passages of an invented almanac, and questions about them. Only Python's standard library."""

import os
import re

from words import WOMEN, with_article


class Fact:
    def __init__(self, key, value):
        self.key, self.value, self.says, self.asks = key, value, [], []


class Kind:
    def __init__(self, name, pronoun, noun):
        self.name, self.pronoun, self.noun = name, pronoun, noun
        self.names, self.opens, self.alsos, self.fills, self.facts = [], [], [], [], []


def read_kinds(path=os.path.join(os.path.dirname(os.path.abspath(__file__)), "kinds.txt")):
    kinds = []
    for line in open(path, encoding="utf-8"):
        word, _, rest = line.rstrip("\n").partition(" ")
        if word in ("", "#"):
            continue
        if word == "kind":
            kinds.append(Kind(*rest.split()))
        elif word == "fact":
            kinds[-1].facts.append(Fact(*rest.split()))
        elif word in "+?":
            fact = kinds[-1].facts[-1]
            (fact.says if word == "+" else fact.asks).append(rest)
        else:
            getattr(kinds[-1], word + "s").append(rest)
    return kinds


def capital(text):
    return text[:1].upper() + text[1:]


def choose(rng, template):
    """Decides every [x|y] of a template."""
    return re.sub(r"\[([^\]]*)\]", lambda m: rng.choice(m.group(1).split("|")), template)


class Entity:
    def __init__(self, kind, words):
        self.kind, self.values = kind, {}
        template = words.rng.choice(kind.names)
        self.name = re.sub(r"\{(\w+)\}", lambda m: words.draw(m.group(1)), template)
        self.she = self.name.replace("Aunt ", "").split()[0] in WOMEN

    def pronoun(self):
        return "it" if self.kind.pronoun == "it" else "she" if self.she else "he"

    def short(self):
        """What it may be called once it is known and alone."""
        if self.kind.pronoun == "person":
            return self.name.split()[1]
        return self.name if self.kind.noun == "-" else "the " + self.kind.noun

    def possessive(self):
        return {"it": "its", "she": "her", "he": "his"}[self.pronoun()]


class Passage:
    """`text`, `entities`, and `spans[entity, key]`: first and last byte of what states a fact."""

    def __init__(self, kind, words, n_entities=1, n_facts=(3, 6)):
        self.kind, self.words, self.rng = kind, words, words.rng
        self.text, self.entities, self.spans, self.alone = "", [], {}, n_entities == 1
        for i in range(n_entities):
            self._add_entity(self.rng.randint(*n_facts) if i == 0 else self.rng.randint(2, max(2, n_facts[0])))

    def _fill(self, template, entity, key=None):
        """The sentence and where the value stands in it."""
        rng, mentioned = self.rng, entity.name in self.text
        template = choose(rng, template)
        name = entity.name
        if mentioned and self.alone and rng.random() < 0.6:
            name = entity.short()
        subject = entity.pronoun() if mentioned and rng.random() < 0.6 else name
        own = entity.possessive() if mentioned else entity.name + "'s"
        text = template.replace("{n}", name).replace("{s}", subject).replace("{p}", own)
        if key is not None:
            value = entity.values[key]
            text = text.replace("{a} {v}", with_article(value) if "{a}" in text else "").replace("a {v}", with_article(value))
            text = text.replace("{v}", value)
        return re.sub(r"\{(\w+)\}", lambda m: self.words.draw(m.group(1)), text)

    def _append(self, sentence, entity=None, key=None):
        if self.text:
            self.text += " "
        start = len(self.text)
        self.text += capital(sentence)
        if key is not None:
            value = entity.values[key]
            at = self.text.lower().rindex(value.lower(), start)
            self.spans[entity, key] = at, at + len(value)

    def _add_entity(self, n_facts):
        rng, kind = self.rng, self.kind
        entity = Entity(kind, self.words)
        while any(entity.name in e.name or e.name in entity.name for e in self.entities):
            entity = Entity(kind, self.words)
        self.entities.append(entity)
        taken = {v for e in self.entities for v in e.values.values()}
        facts = rng.sample(kind.facts, min(n_facts, len(kind.facts)))
        for fact in facts:  # no value twice in a passage, so that an answer stands in one place
            value = self.words.draw(fact.value)
            while any(value in t or t in value for t in taken) or value.lower() in entity.name.lower():
                value = self.words.draw(fact.value)
            taken.add(value)
            entity.values[fact.key] = value
        opening = rng.choice(kind.opens if len(self.entities) == 1 else kind.alsos)
        self._append(self._fill(opening, entity))
        joined = False
        for i, fact in enumerate(facts):
            sentence = self._fill(rng.choice(fact.says), entity, fact.key)
            if joined:
                self.text = self.text[:-1] + ", and"
                start = len(self.text)
                self.text += " " + sentence + "."
                at = self.text.lower().rindex(entity.values[fact.key].lower(), start)
                self.spans[entity, fact.key] = at, at + len(entity.values[fact.key])
                joined = False
            else:
                self._append(sentence + ".", entity, fact.key)
                joined = rng.random() < 0.25
            if not joined and rng.random() < 0.12:
                self._append(choose(rng, rng.choice(kind.fills)))

    def facts_of(self, entity):
        return [f for f in self.kind.facts if (entity, f.key) in self.spans]

    def answer(self, entity, key):
        start, end = self.spans[entity, key]
        return self.text[start:end], start

    def ask(self, fact, name):
        return capital(choose(self.rng, self.rng.choice(fact.asks)).replace("{n}", name))

    def questions(self, n, impossible):
        """Up to n questions, no two alike: (question, entity, fact), or (question, None, fact) if the passage has no answer."""
        rng, asked, result = self.rng, set(), []
        for _ in range(4 * n):
            if len(result) == n:
                break
            entity = rng.choice(self.entities)
            facts = self.facts_of(entity)
            if rng.random() >= impossible:
                fact, name, whose = rng.choice(facts), entity.name, entity
            else:
                missing = [f for f in self.kind.facts if (entity, f.key) not in self.spans]
                whose, name = None, entity.name
                if missing and rng.random() < 0.8:
                    fact = rng.choice(missing)
                else:
                    fact = rng.choice(facts)
                    name = Entity(self.kind, self.words).name
                    if name in self.text:
                        continue
            if (name, fact.key) in asked:
                continue
            asked.add((name, fact.key))
            result.append((self.ask(fact, name), whose, fact))
        return result

    def title(self):
        return capital(re.sub("^the ", "", self.entities[0].name))
