"""Data sets of the Hub where files can stand: what they train is what the same files train. With Library also: huggingface_hub's
cache of the same repository; with Datasets: the files of a split as the package datasets finds them."""

import json
import os
import subprocess
import sys
import unittest

from hub_case import SOURCE, HubCase, read

GOLDEN = os.path.join(SOURCE, "tests", "golden")
ALMANAC = os.path.join(SOURCE, "examples", "almanac", "model")
OFFLINE = {"HF_HUB_OFFLINE": "1"}


def parquet(name):
    return read(os.path.join(GOLDEN, "parquet", name + ".parquet"))


CARD = b"""---
license: cc
configs:
- config_name: squad_v2
  data_files:
  - split: train
    path: squad_v2/train-*
  - split: validation
    path: squad_v2/validation-*
---
# A data set
"""
PASSAGES = {"README.md": CARD, ".gitattributes": b"", "squad_v2/train-00000-of-00002.parquet": parquet("passages-0"),
            "squad_v2/train-00001-of-00002.parquet": parquet("passages-1"),
            "squad_v2/validation-00000-of-00001.parquet": parquet("passages")}


class Data(HubCase):
    def setUp(self):
        super().setUp()
        self.commit = self.hub.add("datasets/org/passages", PASSAGES)
        with open(os.path.join(self.work, "config.yaml"), "w") as file:
            file.write("model: {name_or_path: %s, dtype: float32}\ndata: {format: squad, train_file: x, max_length: 512, on_too_long: truncate_context}\n"
                       "training: {output_dir: out, max_steps: 2, per_device_train_batch_size: 2, global_batch_size: 4}\n" % ALMANAC)

    def train(self, out, *sets, **more):
        settings = ["training.output_dir=" + out, "data.cache_dir=%s-data" % out, *sets]
        return self.run_program("--config", "config.yaml", *[w for s in settings for w in ("--set", s)], **more)

    def adapter(self, out):
        return read(os.path.join(self.work, out, "adapter_model.safetensors"))

    def history(self, out):
        state = json.loads(read(os.path.join(self.work, out, "trainer_state.json")))
        return [{k: v for k, v in entry.items() if k in ("loss", "eval_loss", "eval_exact", "eval_f1")} for entry in state["log_history"]]

    def gets(self, pattern):
        return [r.line for r in self.hub.seen("GET " + pattern)]

    def test_the_training_is_that_of_squads_own_file(self):
        passages = os.path.join(GOLDEN, "data", "passages.json")
        evaluation = ["training.eval_steps=2", "training.predict_with_generate=true", "training.generation_max_new_tokens=3"]
        self.train("json", "data.train_file=" + passages, "data.eval_file=" + passages, *evaluation)
        self.train("file", "data.train_file=" + os.path.join(GOLDEN, "parquet", "passages.parquet"),
                   "data.eval_file=" + os.path.join(GOLDEN, "parquet", "passages.parquet"), *evaluation)
        self.train("named", "data.train_file=org/passages", "data.eval_file=org/passages", *evaluation, ranks=2)
        for out in ("file", "named"):
            self.assertEqual(self.adapter(out), self.adapter("json"))
            self.assertEqual(self.history(out), self.history("json"))
        self.assertEqual(len(self.gets("/api/")), 2)  # train, validation: one rank asks, once
        self.assertEqual(len(self.gets("/get/")), 3)  # each file once
        self.hub.forget()
        self.train("offline", "data.train_file=org/passages@%s" % self.commit, "data.eval_file=org/passages#squad_v2/train", *evaluation,
                   **OFFLINE)
        self.assertEqual(self.hub.requests, [])
        self.assertEqual(self.adapter("offline"), self.adapter("json"))

    def test_a_commit_that_is_here_needs_no_server(self):
        name = "org/passages@" + self.commit
        first, _ = self.run_program("download", "--dataset", name)
        folder = os.path.join(self.cache, "datasets--org--passages", "snapshots", self.commit, "squad_v2")
        self.assertEqual(first.split(), [os.path.join(folder, "train-0000%d-of-00002.parquet" % i) for i in range(2)])
        self.assertFalse(os.path.exists(os.path.join(folder, "validation-00000-of-00001.parquet")))
        self.hub.forget()
        again, _ = self.run_program("download", "--dataset", name)
        self.assertEqual((again, self.hub.requests), (first, []))
        os.remove(first.split()[1])  # a shard is not here: the server is asked
        self.assertEqual(self.run_program("download", "--dataset", name)[0], first)
        self.assertEqual(len(self.gets("/api/")), 1)

    def test_an_old_name_leads_to_the_new_one(self):
        self.hub.aliases["passages_v2"] = "org/passages"
        said, _ = self.run_program("download", "--dataset", "passages_v2#validation")
        self.assertEqual(said.strip(), os.path.join(self.cache, "datasets--passages_v2", "snapshots", self.commit, "squad_v2",
                                                    "validation-00000-of-00001.parquet"))
        self.assertEqual(read(said.strip()), parquet("passages"))
        self.train("out", "data.train_file=passages_v2")
        plan, _ = self.run_program("plan", "--config", "config.yaml", "--set", "data.train_file=passages_v2", "--ranks", "2")
        self.assertIn("rank", plan)

    def test_evaluation_by_name(self):
        predictions = os.path.join(self.work, "p.json")
        questions = json.loads(read(os.path.join(GOLDEN, "data", "passages.json")))
        answers = {q["id"]: (q["answers"] or [{"text": "none"}])[0]["text"]
                   for a in questions["data"] for p in a["paragraphs"] for q in p["qas"]}
        with open(predictions, "w") as file:
            json.dump(answers, file)
        words = ["eval", "--predictions", predictions, "--data"]
        expected, _ = self.run_program(*words, os.path.join(GOLDEN, "data", "passages.json"))
        self.assertEqual(self.run_program(*words, "org/passages")[0], expected)
        self.assertEqual(self.run_program(*words, os.path.join(GOLDEN, "parquet", "passages.parquet"))[0], expected)
        local, _ = self.run_program("eval", "--config", "config.yaml", "--data", os.path.join(GOLDEN, "data", "passages.json"), "--max-new-tokens", "2")
        named, _ = self.run_program("eval", "--config", "config.yaml", "--set", "data.eval_file=org/passages", "--max-new-tokens", "2", ranks=2)
        self.assertEqual(named, local)

    def test_records_in_json(self):
        lines = [{"input": "a", "output": "b%d" % i} for i in range(8)]
        text = "".join(json.dumps(x) + "\n" for x in lines)
        with open(os.path.join(self.work, "local.jsonl"), "w") as file:
            file.write(text)
        self.hub.add("datasets/org/lines", {"train.jsonl": text.encode(), "test.jsonl": b"{}"})
        self.hub.add("datasets/org/list", {"all.json": json.dumps(lines, indent=2).encode(), "LICENSE": b""})
        self.hub.add("datasets/org/pieces", {"data/train_%d.json" % i: json.dumps(lines[4 * i:4 * i + 4]).encode() for i in range(2)})
        template = ["data.format=jsonl", "data.prompt_template='{input}: {output}'", "data.on_too_long=error"]
        self.train("local", "data.train_file=local.jsonl", *template)
        for name in ("lines", "list", "pieces"):
            self.hub.forget()
            self.train(name, "data.train_file=org/" + name, *template, ranks=2)
            self.assertEqual(self.adapter(name), self.adapter("local"))
            self.assertEqual(len(self.gets("/api/")), 1)

    def test_what_is_wrong_is_said(self):
        self.hub.add("datasets/org/csv", {"train.csv": b"a,b\n"})
        self.hub.add("datasets/org/two", {"README.md": b"---\nconfigs:\n- config_name: en\n  data_files: en/*\n- config_name: de\n"
                                                       b"  data_files: de/*\n---\n", "en/a.jsonl": b"{}", "de/a.jsonl": b"{}"})
        self.hub.add("datasets/org/lost", {"README.md": b"---\nconfigs:\n- data_files: a.json\n---\n", "b.json": b"{}"})
        self.hub.add("datasets/org/yaml", {"README.md": b"---\nconfigs: [\n---\n", "b.json": b"{}"})
        self.hub.add("datasets/org/damaged", {"train.parquet": parquet("passages")[:-100]})
        for name, words in (
                ("org/csv", "has no files .parquet, .json or .jsonl, which are read, but train.csv"),
                ("org/two", "several configurations: en, de"), ("org/two#fr/train", "no such configuration, but en, de"),
                ("org/two#de/test", "org/two has no split test, but: train"),
                ("org/passages#test", "org/passages has no split test, but: train, validation"),
                ("org/lost", "says that a.json is of the split train, and there is no such file"),
                ("org/yaml", "the YAML at its top cannot be read"),
                ("org/passages@none", "has no branch, tag or commit \"none\""),
                ("org/none", "no file org/none here, and as a name of the Hub"), ("nowhere", "no file nowhere here, and as a name of the Hub"),
                ("no/such/file", "no/such/file is no file here, and no name"), ("data/missing.json", "data/missing.json is no file here")):
            _, log = self.train("out", "data.train_file=" + name, ranks=2 if name in ("org/csv", "no/such/file") else 0, code=2)
            self.assertIn(words, log)
            self.assertEqual(log.count("error: "), 1)
            self.assertFalse(os.path.exists(os.path.join(self.work, "out")))
        _, log = self.train("out", "data.train_file=org/damaged", code=2)
        self.assertIn("train.parquet: a Parquet file ends in PAR1", log)
        _, log = self.run_program("download", "--dataset", "a/b/c", code=2)
        self.assertIn("not a data set of the Hub", log)

    def test_files_without_numbers_are_asked_for_where_one_can(self):
        commit = self.hub.add("datasets/org/pieces", {"train_%d.jsonl" % i: b"{}\n" for i in range(3)})
        self.run_program("download", "--dataset", "org/pieces")
        self.hub.forget()
        out, log = self.run_program("download", "--dataset", "org/pieces@" + commit, **OFFLINE)
        self.assertEqual(len(out.split()), 3)
        self.assertIn("whether the split train has more files than the 3 that are here only the server knows", log)
        self.run_program("download", "--dataset", "org/pieces@" + commit)
        self.assertEqual(len(self.gets("/api/")), 1)
        self.assertEqual(len(self.hub.seen("GET .*resolve")), 0)


class WithPython(HubCase):
    def run_python(self, text, *words, **environment):
        done = subprocess.run([os.environ["LRD_HF_PYTHON"], "-c", text, *words], cwd=self.work, capture_output=True, text=True, timeout=300,
                              env={**self.environment, "HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1", **environment})
        self.assertEqual(done.returncode, 0, done.stderr[-3000:])
        return done.stdout


class Library(WithPython):
    def tree(self, cache):
        """Names, links and contents of a cache, but for the notes that only huggingface_hub keeps."""
        found = {}
        for folder, _, files in os.walk(cache):
            for path in (os.path.join(folder, name) for name in files):
                key = os.path.relpath(path, cache)
                if "/trees/" not in key and "/.no_exist/" not in key:
                    found[key] = "-> " + os.readlink(path) if os.path.islink(path) else read(path)
        return found

    def test_the_same_cache(self):
        self.hub.add("datasets/org/passages", PASSAGES)
        self.hub.aliases["passages_v2"] = "org/passages"
        theirs = os.path.join(self.work, "theirs")
        for name in ("org/passages", "passages_v2"):
            for split in ("train", "validation"):
                self.run_program("download", "--dataset", "%s#%s" % (name, split))
            self.run_python("import sys, huggingface_hub as h; h.snapshot_download(sys.argv[1], repo_type='dataset', "
                            "allow_patterns=['README.md', '*.parquet'])", name, HF_HUB_CACHE=theirs)
        self.assertEqual(self.tree(self.cache), self.tree(theirs))


LAYOUTS = [
    ["data/train-00000-of-00002.parquet", "data/train-00001-of-00002.parquet", "data/test-00000-of-00001.parquet", "train.json"],
    ["data/my_split-00000-of-00001-abcdef.parquet", "other/train-00000-of-00001.parquet"],
    ["train.jsonl", "valid.jsonl", "eval.jsonl"], ["dev.json", "train-v2.0.json", "README.txt"], ["my-train_0.json", "my_train-1.json", "training.json"],
    ["train/a.json", "train/b.json", "val/c.json", "test_1/d.json"], ["en/x-train/a.parquet", "en/train.parquet", "de/dev 2/b.parquet"],
    ["alpaca.json", "LICENSE"], ["a.json", "b/c.json", ".hidden.json", ".h/d.json", "__pycache__/e.json", "config.json", "dataset_infos.json"],
    ["a.parquet", "b.json", "c.json"], ["a.parquet", "b.json"], ["trainer.json", "strain.json"], ["x.train.json", "x.validation.json"],
    ["data/train.parquet", "data/train-extra.parquet", "evaluation/x.parquet"], ["test.jsonl"], ["TRAIN.json", "dev.JSON"],
    ["validation/train.json", "train/dev.json"],
]
CARDS = [
    "configs:\n- config_name: default\n  data_files: '*.json'\n- config_name: b\n  data_files: [a.json, c.json]\n",
    "configs:\n- config_name: b\n  data_files:\n  - {split: train, path: [c.json, a.json]}\n  - {split: dev, path: '**/d?.json'}\n",
    "configs:\n- config_name: one\n  data_files: [{split: train, path: a.json}, {split: test, path: ['[b-c].json']}]\n- config_name: two\n  default: true\n  data_dir: e\n",
    "configs:\n- config_name: b\n  data_dir: e\n", "configs:\n- config_name: x\n  data_files: e/**\n",
    "configs:\n- config_name: x\n  data_files: ./**/[!a]*.json\n", "license: mit\n",
]
CARD_FILES = ["a.json", "b.json", "c.json", "d1.json", "e/train.json", "e/dev/f.json", "e/d2.json"]

RESOLVE = """
import json, os, sys, datasets
found = []
for folder, config in json.load(open(sys.argv[1])):
    try:
        files = datasets.load_dataset_builder(folder, config or None).config.data_files
        found.append({str(split): [os.path.relpath(f, folder) for f in files[split]] for split in files})
    except Exception as error:
        found.append(type(error).__name__)
print(json.dumps(found))
"""


class Datasets(WithPython):
    def test_the_same_files_are_a_split(self):
        repos = [({name: b"{}" for name in names}, "") for names in LAYOUTS]
        for card in CARDS:
            files = {**{name: b"{}" for name in CARD_FILES}, "README.md": ("---\n%s---\n" % card).encode()}
            repos += [(files, config) for config in ("", "default", "b", "two")]
        cases = []
        for i, (files, config) in enumerate(repos):
            self.hub.add("datasets/org/r%d" % i, files)
            folder = os.path.join(self.work, "r%d" % i)
            for name, data in files.items():
                os.makedirs(os.path.dirname(os.path.join(folder, name)), exist_ok=True)
                with open(os.path.join(folder, name), "wb") as file:
                    file.write(data)
            cases.append([folder, config])
        with open(os.path.join(self.work, "cases.json"), "w") as file:
            json.dump(cases, file)
        expected = json.loads(self.run_python(RESOLVE, "cases.json", HF_HUB_OFFLINE="1"))
        n_splits = 0
        for i, ((files, config), splits) in enumerate(zip(repos, expected)):
            for split in ("train", "validation", "test", "dev", "my_split"):
                wanted = splits.get(split) if isinstance(splits, dict) else None
                name = "org/r%d#%s%s" % (i, config + "/" if config else "", split)
                out, log = self.run_program("download", "--dataset", name, code=None)
                found = [line.split("/snapshots/")[1].split("/", 1)[1] for line in out.split("\n")[:-1]] or None
                self.assertEqual(found, wanted, "%s of %s: %s (%s)" % (name, sorted(files), log[-300:], splits))
                n_splits += found is not None
        self.assertGreater(n_splits, 30)


if __name__ == "__main__":
    unittest.main()
