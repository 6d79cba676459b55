"""huggingface_hub against the same server (Library), and transformers and peft on the same cache (Transformers): what they do
is what lora-dist is to do. LRD_HF_PYTHON names a Python that has them (hub_test.sh)."""

import json
import os
import subprocess
import unittest

from hub_case import SOURCE, TOKEN, HubCase, read, read_folder

PYTHON = os.environ["LRD_HF_PYTHON"]
MODEL = read_folder(os.path.join(SOURCE, "examples", "almanac", "model"))
MODEL = {name: data for name, data in MODEL.items() if name != "LICENSE"}
ADAPTER = {**read_folder(os.path.join(SOURCE, "tests", "golden", "runs", "all-linear", "adapter")), "README.md": b"---\nlibrary_name: peft\n---\n"}
OFFLINE = {"HF_HUB_OFFLINE": "1", "HF_ENDPOINT": "http://127.0.0.1:1"}


class Oracle(HubCase):  # what both classes below share
    def setUp(self):
        super().setUp()
        self.environment["HF_HUB_DISABLE_XET"] = "1"
        self.environment["HF_HUB_DISABLE_TELEMETRY"] = "1"

    def run_python(self, text, *words, **environment):
        done = subprocess.run([PYTHON, "-c", text, *words], env={**self.environment, **environment}, cwd=self.work,
                              capture_output=True, text=True, timeout=300)
        self.assertEqual(done.returncode, 0, done.stderr[-3000:])
        return done.stdout


class Library(Oracle):
    def tree(self, cache):
        """Names, links and contents of a cache, but for the notes that only huggingface_hub keeps."""
        found = {}
        for folder, folders, files in os.walk(cache):
            for name in files + [f for f in folders if os.path.islink(os.path.join(folder, f))]:
                path = os.path.join(folder, name)
                key = os.path.relpath(path, cache)
                if "/trees/" in key or "/.no_exist/" in key:
                    continue
                found[key] = "-> " + os.readlink(path) if os.path.islink(path) else read(path)
        return found

    def test_the_same_cache(self):
        self.hub.add("org/model", MODEL)
        self.hub.repos["org/model"].commit({**MODEL, "config.json": b"{}"}, "refs/pr/7")
        names = json.dumps(["config.json", "model.safetensors", "special_tokens_map.json", "tokenizer.json", "tokenizer_config.json"])
        theirs = os.path.join(self.work, "theirs")
        for revision in ("main", "refs/pr/7"):
            self.run_program("download", "org/model@" + revision)
            self.run_python("import json, sys, huggingface_hub as h; h.snapshot_download('org/model', revision=sys.argv[1], "
                            "allow_patterns=json.loads(sys.argv[2]))", revision, names, HF_HUB_CACHE=theirs)
        ours, theirs = self.tree(self.cache), self.tree(theirs)
        self.assertEqual(sorted(ours), sorted(theirs))
        self.assertEqual(ours, theirs)

    def bodies(self, pattern):
        return [[json.loads(line) for line in r.body.splitlines()] for r in self.hub.seen("POST " + pattern)]

    def publish(self, run, repo):
        """What a client sends to publish `out` in `repo`, its name taken out."""
        self.hub.objects.clear()
        self.hub.forget()
        run(repo)
        return json.loads(json.dumps([self.bodies(".*preupload"), self.bodies(".*objects/batch"), self.bodies(".*verify"),
                                      self.bodies("/api/complete"), self.bodies(".*commit")]).replace(repo, "REPO"))

    def test_the_same_requests_publish(self):
        folder = os.path.join(self.work, "out")
        os.makedirs(folder)
        for name, data in ADAPTER.items():
            with open(os.path.join(folder, name), "wb") as file:
                file.write(data)
        self.environment["HF_TOKEN"] = TOKEN

        def theirs(repo):
            self.run_python("import sys, huggingface_hub as h\n"
                            "h.create_repo(sys.argv[1], exist_ok=True)\n"
                            "h.create_commit(sys.argv[1], commit_message='Upload model', operations=[\n"
                            "    h.CommitOperationAdd(n, 'out/' + n) for n in ('README.md', 'adapter_config.json', 'adapter_model.safetensors')])", repo)

        def ours(repo):
            self.run_program("push", "--adapter", "out", "--repo", repo)

        for chunk_size in (None, 20000):
            self.hub.chunk_size = chunk_size
            a, b = [self.publish(run, "me/%s-%s" % (run.__name__, chunk_size)) for run in (ours, theirs)]
            self.assertEqual(a, b)
        states = [self.hub.repos[name] for name in ("me/ours-None", "me/theirs-None", "me/ours-20000", "me/theirs-20000")]
        for state in states:
            self.assertEqual({k: v for k, v in state.commits[state.refs["main"]].items() if k != ".gitattributes"}, ADAPTER)
        self.hub.forget()
        theirs("me/ours-None")  # finds nothing to do
        self.assertEqual(self.hub.seen("POST .*commit"), [])


class Transformers(Oracle):
    def test_transformers_reads_what_was_downloaded(self):
        self.hub.add("org/model", MODEL)
        self.hub.add("org/adapter", ADAPTER)
        self.run_program("download", "org/model")
        folder = self.run_program("download", "org/adapter")[0].strip()
        said = self.run_python(
            "import json, sys, transformers, peft\n"
            "m = transformers.AutoModelForCausalLM.from_pretrained('org/model')\n"
            "t = transformers.AutoTokenizer.from_pretrained('org/model')\n"
            "c = peft.PeftConfig.from_pretrained('org/adapter')\n"
            "print(json.dumps([m.num_parameters(), t('Who built the Folden Bridge?').input_ids, c.r]))\n", **OFFLINE)
        n, ids, r = json.loads(said)
        out, _ = self.run_program("inspect", "--model", "org/model", **OFFLINE)
        self.assertIn("all params: %d" % n, out)
        out, _ = self.run_program("tokenize", "--model", "org/model", input=json.dumps("Who built the Folden Bridge?") + "\n", **OFFLINE)
        self.assertEqual(json.loads(out), ids)
        self.assertEqual(json.loads(read(os.path.join(folder, "adapter_config.json")))["r"], r)

    def test_what_transformers_downloaded_is_found(self):
        self.hub.add("org/model", MODEL)
        self.run_python("import transformers as t; t.AutoModelForCausalLM.from_pretrained('org/model'); "
                        "t.AutoTokenizer.from_pretrained('org/model')")
        self.hub.forget()
        out, _ = self.run_program("inspect", "--model", "org/model", **OFFLINE)
        self.assertIn("all params", out)
        self.run_program("download", "org/model")
        self.assertEqual([r.line for r in self.hub.requests if "/resolve/" in r.line and "special_tokens" not in r.line], [])


if __name__ == "__main__":
    unittest.main()
