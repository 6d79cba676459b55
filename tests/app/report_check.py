"""Checks a report against the files that it was made from.

  report_check.py PAGE FOLDER           one run: every number of the page is trainer_state.json's or run.jsonl's
  report_check.py PAGE FOLDER FOLDER... several: the table of results, and the settings that differ
  report_check.py PAGE --sound [TEXT..] only what holds of every page; it shows these texts, as they are
"""
import json
import math
import sys
import xml.etree.ElementTree as tree

NAMESPACE = "{http://www.w3.org/1999/xhtml}"


def number(text):
    return float(text)  # "NaN" and "Infinity", too


def same(a, b):
    return a == b or (math.isnan(a) and math.isnan(b))


def shown_as(text, value):
    """Is this what is shown of the value: four digits, or all of a whole number's?"""
    text = text.replace(",", "").replace("\u2192", "").strip()
    if not math.isfinite(value):
        return same(number(text), value)
    return abs(number(text) - value) <= max(5.1e-4 * abs(value), 0.5 if abs(value) >= 1000 else 0)


def text_of(element):
    return "".join(element.itertext())


def parse(path):
    raw = open(path, "rb").read()
    page = raw.decode("utf-8")
    root = tree.fromstring(raw)  # well-formed XML, so every tag is closed and every text escaped
    assert page.startswith("<!DOCTYPE html>\n")
    names = [e.tag.removeprefix(NAMESPACE) for e in root.iter()]
    allowed = set("html head meta title style body main h1 h2 h3 p div span small b code pre svg path rect figure figcaption "
                  "table tr th td details summary footer script".split())
    assert set(names) <= allowed, set(names) - allowed
    assert names.count("script") == 1 and names.count("style") == 1
    for e in root.iter():
        for attribute in e.attrib:
            assert attribute in {"class", "id", "style", "lang", "charset", "name", "content", "viewBox", "preserveAspectRatio", "role",
                                 "aria-label", "d", "x", "width", "height", "fill", "open", "colspan", "data-fact", "data-value",
                                 "data-step", "data-hover"}, attribute
    own = "".join(text_of(e) for e in root.iter() if e.tag in (NAMESPACE + "script", NAMESPACE + "style"))
    for word in "http", "url(", "@import", "fetch", "innerHTML":
        assert word not in own, word
    for e in root.iter():
        if "data-hover" in e.attrib:
            hover = json.loads(e.attrib["data-hover"])
            assert hover["lo"] < hover["hi"]
            for line in hover["lines"]:
                assert len(line["x"]) == len(line["y"])
                assert all(hover["lo"] <= x <= hover["hi"] for x in line["x"])
                assert line["x"] == sorted(line["x"])
    return root


def by_fact(root):
    return {e.attrib["data-fact"]: e for e in root.iter() if "data-fact" in e.attrib and e.tag != NAMESPACE + "td"}


def read_run(folder):
    state = json.load(open(folder + "/trainer_state.json"))
    log = [json.loads(line) for line in open(folder + "/run.jsonl")]
    return state, log


def facts_of(folder):
    state, log = read_run(folder)
    steps = [e for e in state["log_history"] if "loss" in e]
    evals = [e for e in state["log_history"] if "eval_loss" in e]
    updates = [e for e in log if e["event"] == "update"]
    facts = {"step": state["global_step"], "loss": steps[-1]["loss"], "tokens": sum(e["tokens"] for e in log if "tokens" in e),
             "trainable": log[0]["trainable"]}
    if evals:
        facts["eval_loss"] = min(e["eval_loss"] for e in evals)
    if log[-1]["event"] == "end" and "ranks" in log[-1]:
        facts["seconds"] = sum(e["seconds"] for e in log if e["event"] == "end")
        facts["peak_bytes"] = max(r["peak"] for r in log[-1]["ranks"])
        assert facts["seconds"] >= sum(e["seconds"] for e in updates)
    rate = sum(e["tokens"] for e in updates) / sum(e["seconds"] for e in updates)
    return facts, steps, evals, updates, rate


def check_one(root, folder):
    facts, steps, evals, updates, rate = facts_of(folder)
    tile = by_fact(root)
    for fact, value in facts.items():
        shown = number(tile[fact].attrib["data-value"])
        assert same(shown, value), (fact, shown, value)
    assert abs(number(tile["tokens_per_second"].attrib["data-value"]) / rate - 1) < 1e-9  # added up in another order
    table = next(e for e in root.iter() if e.attrib.get("id") == "numbers")
    rows = [e for e in table.iter() if "data-step" in e.attrib]
    assert len(rows) == len(steps) <= 60
    for row, entry in zip(rows, steps):
        cells = list(row)
        expected = [entry["step"], entry["loss"], entry["grad_norm"], entry["learning_rate"]]
        assert number(row.attrib["data-step"]) == entry["step"]
        for cell, value in zip(cells[1:4], expected[1:]):
            assert same(number(cell.attrib["data-value"]), value), (entry, cell.attrib)
            assert shown_as(text_of(cell), value), (text_of(cell), value)
        of_step = [e["eval_loss"] for e in evals if e["step"] == entry["step"]]
        assert ("data-value" in cells[4].attrib) == bool(of_step)
        assert not of_step or number(cells[4].attrib["data-value"]) == of_step[0]
        pace = next(e for e in updates if e["step"] == entry["step"])
        assert number(cells[5].attrib["data-value"]) == pace["tokens"] / pace["seconds"]
    start = [e for e in read_run(folder)[1] if e["event"] == "start"][-1]
    software = next(e for e in root.iter() if e.attrib.get("id") == "software")
    assert {text_of(row[0]): text_of(row[1]) for row in software.iter() if row.tag == NAMESPACE + "tr"} == start["software"]
    charts = {e.attrib["id"]: e for e in root.iter() if e.tag == NAMESPACE + "figure"}
    assert {"loss", "grad_norm", "learning_rate", "token_rate", "update_time"} <= set(charts), set(charts)
    lines = json.loads(next(e for e in charts["loss"].iter() if "data-hover" in e.attrib).attrib["data-hover"])["lines"]
    assert lines[0]["x"] == [e["step"] for e in steps]
    assert all(shown_as(y, e["loss"]) for y, e in zip(lines[0]["y"], steps))
    assert lines[2]["x"] == [e["step"] for e in evals]


def check_several(root, folders):
    names = [f.rstrip("/").split("/")[-1] for f in folders]
    rows = [e for e in next(e for e in root.iter() if e.attrib.get("id") == "results")][1:]
    assert [text_of(row[0]) for row in rows] == names, names
    for row, folder in zip(rows, folders):
        facts, *_ = facts_of(folder)
        cells = {c.attrib["data-fact"]: number(c.attrib["data-value"]) for c in row if "data-fact" in c.attrib}
        for fact in set(cells) & set(facts):
            assert same(cells[fact], facts[fact]), (folder, fact)
        assert {"step", "loss", "seconds", "peak_bytes"} <= set(cells)
    settings = [read_run(f)[1][0]["settings"] for f in folders]
    differing = [f"{s}.{k}" for s in settings[0] for k in settings[0][s]
                 if any(x[s][k] != settings[0][s][k] for x in settings) and k not in ("output_dir", "overwrite_output_dir")]
    rows = [e for e in next(e for e in root.iter() if e.attrib.get("id") == "settings")][1:]
    assert [text_of(row[0]) for row in rows] == differing, differing
    for row, key in zip(rows, differing):
        section, name = key.split(".")
        for cell, values in zip(row[1:], settings):
            value = values[section][name]
            shown = text_of(cell)
            assert shown == (value if isinstance(value, str) else ", ".join(value) if isinstance(value, list) and value else json.dumps(value)), (key, shown)
    starts = [read_run(f)[1][0] for f in folders]
    software = [{"lora-dist": s["version"], **s["software"]} for s in starts]
    names_of = list(dict.fromkeys(k for x in software for k in x))
    differing = [k for k in names_of if any(x.get(k) != software[0].get(k) for x in software)]
    tables = [e for e in root.iter() if e.attrib.get("id") == "software"]
    assert len(tables) == bool(differing)
    rows = list(tables[0])[1:] if tables else []
    assert [text_of(row[0]) for row in rows] == differing, differing
    for row, key in zip(rows, differing):
        assert [text_of(cell) for cell in row[1:]] == [x.get(key, "\u2013") for x in software], key
    chart = next(e for e in root.iter() if e.attrib.get("id") == "loss")
    assert [text_of(e) for e in chart.iter() if e.attrib.get("class", "").startswith("name ")].sort() == names[:].sort()


def main():
    root = parse(sys.argv[1])
    if sys.argv[2] == "--sound":
        body = text_of(root)
        for text in sys.argv[3:]:
            assert text in body, f"not on the page: {text}"
    elif len(sys.argv) == 3:
        check_one(root, sys.argv[2])
    else:
        check_several(root, sys.argv[2:])


main()
