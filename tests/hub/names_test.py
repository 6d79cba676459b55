"""Commands that are given names of the Hub where folders can stand: alone, and on two ranks."""

import json
import os
import shutil
import subprocess
import unittest

from hub_case import PROGRAM, SOURCE, TOKEN, HubCase, read, read_folder

GOLDEN = os.path.join(SOURCE, "tests", "golden", "runs", "all-linear")
ALMANAC = os.path.join(SOURCE, "examples", "almanac", "model")
MODEL, ADAPTER = [read_folder(os.path.join(GOLDEN, name)) for name in ("model", "adapter")]
OFFLINE = {"HF_HUB_OFFLINE": "1"}


class Names(HubCase):
    def setUp(self):
        super().setUp()
        self.hub.add("org/model", MODEL)
        self.hub.add("org/adapter", ADAPTER)
        for name in ("config.yaml", "train.jsonl", "eval.jsonl"):
            with open(os.path.join(self.work, name), "wb") as file:
                file.write(read(os.path.join(GOLDEN, name)))

    def train(self, *sets, **more):
        settings = ["training.max_steps=2", "training.eval_steps=null", "training.gradient_accumulation_steps=null",
                    "training.global_batch_size=4", *sets]
        return self.run_program("--config", "config.yaml", *[w for s in settings for w in ("--set", s)], **more)

    def gets(self, pattern):
        return [r.line for r in self.hub.seen("GET " + pattern)]

    def test_score_says_the_same_of_name_and_folder(self):
        local, _ = self.run_program("score", "--model", os.path.join(GOLDEN, "model"), "--adapter", os.path.join(GOLDEN, "adapter"),
                                    "--data", "eval.jsonl")
        for ranks in (0, 2):
            named, _ = self.run_program("score", "--model", "org/model", "--adapter", "org/adapter", "--data", "eval.jsonl", ranks=ranks)
            self.assertEqual(named, local)
        self.assertEqual(len(self.gets("/get/")), 2)  # model and adapter, once each
        self.hub.forget()
        self.run_program("score", "--model", "org/model@main", "--adapter", "org/adapter", "--data", "eval.jsonl", ranks=2, **OFFLINE)
        self.assertEqual(self.hub.requests, [])

    def test_training_by_name_is_the_run_by_folder(self):
        os.symlink(os.path.join(GOLDEN, "model"), os.path.join(self.work, "model"))
        self.train("model.name_or_path=model", "training.output_dir=local")
        self.train("model.name_or_path=org/model", "training.output_dir=named", "model.revision=main", ranks=2)
        local, named = [os.path.join(self.work, name) for name in ("local", "named")]
        self.assertEqual(read(os.path.join(local, "adapter_model.safetensors")), read(os.path.join(named, "adapter_model.safetensors")))
        self.assertEqual(json.loads(read(os.path.join(named, "adapter_config.json")))["base_model_name_or_path"], "org/model")
        self.assertIn(b"base_model: org/model\n", read(os.path.join(named, "README.md")))
        self.assertEqual(len(self.gets("/get/")), 1)
        self.assertEqual(len(self.gets("/api/")), 1)  # one rank asks

    def test_a_run_goes_on_with_the_commit_it_began_with(self):
        commit = self.hub.repos["org/model"].refs["main"]
        out = os.path.join(self.work, "out")

        def go_on(*sets, **more):
            return self.train("model.name_or_path=org/model", "training.output_dir=out", "training.max_steps=4", "training.save_steps=2",
                              *sets, **more)

        go_on()
        whole = read(os.path.join(out, "adapter_model.safetensors"))
        config = json.loads(read(os.path.join(out, "adapter_config.json")))
        self.assertEqual((config["base_model_name_or_path"], config["revision"]), ("org/model", commit))
        self.assertIn(b'from_pretrained("org/model", revision="%s")' % commit.encode(), read(os.path.join(out, "README.md")))
        shutil.rmtree(os.path.join(out, "checkpoint-4"))
        weights = bytearray(MODEL["model.safetensors"])
        weights[-1] ^= 1
        moved = self.hub.add("org/model", {**MODEL, "model.safetensors": bytes(weights)})
        for ranks in (0, 2):
            _, log = go_on("training.resume_from_checkpoint=true", ranks=ranks, code=2)
            self.assertIn('the base model was commit %s, is commit %s (model.revision: "%s" names that of the run)' % (commit, moved, commit), log)
        self.assertFalse(os.path.exists(os.path.join(out, "checkpoint-4")))
        # What is said helps; so does the folder in the cache, and a copy of it.
        folder = os.path.join(self.repo_folder("org/model"), "snapshots", commit)
        shutil.copytree(folder, os.path.join(self.work, "copy"))
        for sets in (["model.revision=" + commit], ["model.name_or_path=" + folder], ["model.name_or_path=copy"]):
            _, log = go_on("training.resume_from_checkpoint=true", *sets)
            self.assertIn("Going on from out/checkpoint-2", log)
            self.assertEqual(read(os.path.join(out, "adapter_model.safetensors")), whole)
            shutil.rmtree(os.path.join(out, "checkpoint-4"))
        _, log = go_on("training.resume_from_checkpoint=true", "model.name_or_path=" + os.path.join(GOLDEN, "adapter", "..", "model"))
        self.assertIn("Going on from out/checkpoint-2", log)  # the same files, of no repository
        self.assertIsNone(json.loads(read(os.path.join(out, "adapter_config.json")))["revision"])

    def test_ranks_that_do_not_see_the_same_cache_have_the_same_commit(self):
        with open(os.path.join(self.work, "each.sh"), "w") as file:
            file.write('export HF_HUB_CACHE=$PWD/cache$OMPI_COMM_WORLD_RANK\nexec "$@"\n')
        done = subprocess.run(["mpirun", "-np", "2", "--bind-to", "none", "bash", "each.sh", PROGRAM, "score", "--model", "org/model",
                               "--data", "eval.jsonl"], cwd=self.work, env=self.environment, capture_output=True, text=True, timeout=100)
        self.assertEqual(done.returncode, 0, done.stderr)
        commit = self.hub.repos["org/model"].refs["main"]
        self.assertEqual(self.gets("/api/"), ["GET /api/models/org/model/revision/%s?blobs=true" % r for r in ("main", commit)])
        self.assertEqual(len(self.gets("/get/")), 2)
        for rank in range(2):
            folder = os.path.join(self.work, "cache%d" % rank, "models--org--model", "snapshots", commit)
            self.assertEqual(read(os.path.join(folder, "model.safetensors")), MODEL["model.safetensors"])

    def test_training_starts_from_an_adapter_of_the_hub(self):
        os.symlink(os.path.join(GOLDEN, "adapter"), os.path.join(self.work, "adapter"))
        self.train("model.name_or_path=org/model", "training.output_dir=a", "lora.adapter_name_or_path=adapter")
        self.train("model.name_or_path=org/model", "training.output_dir=b", "lora.adapter_name_or_path=org/adapter@main", ranks=2)
        self.assertEqual(*[read(os.path.join(self.work, f, "adapter_model.safetensors")) for f in "ab"])

    def test_training_publishes(self):
        self.train("model.name_or_path=org/model", "training.output_dir=runs/first", "training.push_to_hub=true",
                   "training.hub_private_repo=true", ranks=2, HF_TOKEN=TOKEN)
        repo = self.hub.repos["me/first"]  # of the user who the token belongs to
        files = repo.commits[repo.refs["main"]]
        self.assertTrue(repo.private)
        self.assertEqual(sorted(files), [".gitattributes", "README.md", "adapter_config.json", "adapter_model.safetensors"])
        for name in sorted(files)[1:]:
            self.assertEqual(files[name], read(os.path.join(self.work, "runs", "first", name)))
        self.assertEqual(self.gets("/api/whoami-v2"), ["GET /api/whoami-v2"])
        for folder, _, names in os.walk(self.work):
            for name in names:
                self.assertNotIn(TOKEN.encode(), read(os.path.join(folder, name)))
        # The same adapter again: nothing differs from what is there.
        self.train("model.name_or_path=org/model", "training.output_dir=other", "training.push_to_hub=true",
                   "training.hub_model_id=me/first", HF_TOKEN=TOKEN)
        self.assertEqual(len(self.hub.seen("POST .*commit")), 1)

    def test_who_may_not_publish_learns_it_before_the_run(self):
        for environment, words in (({}, "publishing needs a token"), ({"HF_TOKEN": "hf_other"}, "does not know the token")):
            _, log = self.train("model.name_or_path=org/model", "training.output_dir=out", "training.push_to_hub=true", ranks=2,
                                code=2, **environment)
            self.assertIn(words, log)
            self.assertFalse(os.path.exists(os.path.join(self.work, "out")))
        self.assertEqual(self.gets("/get/"), [])

    def test_publishing_that_fails_leaves_the_adapter(self):
        self.hub.fault("PUT", status=403, times=9)
        _, log = self.train("model.name_or_path=org/model", "training.output_dir=out", "training.push_to_hub=true",
                            "training.hub_model_id=late", code=1, HF_TOKEN=TOKEN)
        self.assertIn("the training is done, but not published", log)
        self.assertIn("lora-dist push --adapter out --repo me/late tries again", log)
        self.assertTrue(os.path.exists(os.path.join(self.work, "out", "adapter_model.safetensors")))

    def test_a_failure_is_that_of_all_ranks(self):
        self.hub.fault("GET /get/", wrong=True)
        _, log = self.train("model.name_or_path=org/model", "training.output_dir=out", ranks=2, code=2)
        self.assertIn("rank 0", log)
        self.assertIn("its hash differs", log)
        self.assertEqual(log.count("error: "), 1)
        for name, words in (("org/adapter", "it is no model, but an adapter of one"), ("org/none", "no folder org/none here, and as a name of the Hub"),
                            ("org/model@main", "stands in model.revision"), ("nowhere", "no model folder nowhere here")):
            _, log = self.train("model.name_or_path=" + name, "training.output_dir=out", code=2)
            self.assertIn(words, log)

    def test_generate_merge_plan_tokenize_inspect(self):
        self.hub.add("org/almanac", read_folder(ALMANAC))
        local, _ = self.run_program("tokenize", "--model", ALMANAC, input='"Who built it?"\n')
        named, _ = self.run_program("tokenize", "--model", "org/almanac", input='"Who built it?"\n')
        self.assertEqual(named, local)
        self.assertEqual(self.gets("/get/"), [])  # weights are not needed for that
        self.run_program("plan", "--config", "config.yaml", "--set", "model.name_or_path=org/model")
        self.assertEqual(self.gets("/get/"), [])
        named, _ = self.run_program("generate", "--model", "org/almanac", "--prompt", "The", "--max-new-tokens", "4", ranks=2)
        local, _ = self.run_program("generate", "--model", ALMANAC, "--prompt", "The", "--max-new-tokens", "4")
        self.assertEqual(named, local)
        out, _ = self.run_program("inspect", "--model", "org/model", "--adapter", "org/adapter")
        self.assertIn("trainable params", out)
        self.run_program("merge", "--model", "org/model", "--adapter", "org/adapter", "--out", "merged")
        self.run_program("merge", "--model", os.path.join(GOLDEN, "model"), "--adapter", os.path.join(GOLDEN, "adapter"), "--out", "other")
        merged, other = [read_folder(os.path.join(self.work, name)) for name in ("merged", "other")]
        self.assertIn(b'base_model: "org/model"\n', merged.pop("README.md"))
        other.pop("README.md")
        self.assertEqual(merged, other)

    def test_adapters_are_called_as_their_repositories(self):
        self.hub.add("org/almanac", read_folder(ALMANAC))
        with open(os.path.join(self.work, "almanac.yaml"), "w") as file:
            file.write("model: {name_or_path: org/almanac}\nlora: {init_lora_weights: false}\ndata: {format: tokenized, train_file: ids.jsonl}\n"
                       "training: {output_dir: tuned, max_steps: 1}\n")
        with open(os.path.join(self.work, "ids.jsonl"), "w") as file:
            file.write('{"input_ids": [1, 2, 3]}\n' * 8)
        self.run_program("--config", "almanac.yaml")
        self.run_program("push", "--adapter", "tuned", "--repo", "me/tuned", HF_TOKEN=TOKEN)
        lines = [{"prompt": "The", "adapter": name} for name in ("tuned", "again", None)]
        with open(os.path.join(self.work, "prompts.jsonl"), "w") as file:
            file.write("".join(json.dumps(line) + "\n" for line in lines))
        self.run_program("generate", "--model", "org/almanac", "--adapter", "me/tuned", "--adapter", "again=me/tuned@main",
                         "--prompt-file", "prompts.jsonl", "--max-new-tokens", "3", "--output", "answers.jsonl")
        answers = [json.loads(line) for line in read(os.path.join(self.work, "answers.jsonl")).splitlines()]
        self.assertEqual([a["adapter"] for a in answers], ["tuned", "again", None])
        self.assertEqual(answers[0]["text"], answers[1]["text"])
        out, _ = self.run_program("generate", "--model", "org/almanac", "--max-new-tokens", "1", input="/load me/tuned\n/list\n", ranks=2)
        self.assertIn("tuned", out)


if __name__ == "__main__":
    unittest.main()
