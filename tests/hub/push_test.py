"""Publishing an adapter: what is sent where, what is left out, what survives faults."""

import json
import os
import subprocess
import threading
import unittest

from fake_hub import sha256
from hub_case import PROGRAM, TOKEN, HubCase

FILES = {"README.md": "# An adapter, ümlaut\n".encode(), "adapter_config.json": b'{"peft_type": "LORA"}',
         "adapter_model.safetensors": bytes(range(256)) * 1000}
REPO = "me/some-adapter"
SOON = {"Retry-After": "0"}


class Push(HubCase):
    def setUp(self):
        super().setUp()
        self.folder = os.path.join(self.work, "out")
        os.makedirs(os.path.join(self.folder, "checkpoint-1"))
        for name, data in {**FILES, "trainer_state.json": b"{}", "optimizer.pt": b"", "checkpoint-1/a": b""}.items():
            with open(os.path.join(self.folder, name), "wb") as file:
                file.write(data)
        self.environment["HF_TOKEN"] = TOKEN

    def push(self, *words, **more):
        return self.run_program("push", "--adapter", "out", "--repo", REPO, *words, **more)

    def published(self, ref="main"):
        repo = self.hub.repos[REPO]
        return {path: data for path, data in repo.commits[repo.refs[ref]].items() if path != ".gitattributes"}

    def test_the_three_files_in_one_commit(self):
        out, log = self.push()
        self.assertEqual(out, self.hub.url + "/me/some-adapter\n")
        self.assertEqual(self.published(), FILES)
        self.assertEqual(self.hub.repos[REPO].messages, ["initial", "Upload model"])
        self.assertFalse(self.hub.repos[REPO].private)
        self.assertEqual(self.hub.verified, [sha256(FILES["adapter_model.safetensors"])])
        for request in self.hub.requests:
            self.assertEqual(request.headers.get("authorization"), "Bearer " + TOKEN if request.where == "hub" else None, request.line)
        self.assertTrue(self.hub.seen("PUT /put/"))
        self.assertIsNone(self.hub.seen("PUT /put/")[0].headers.get("content-type"))

    def test_what_is_there_is_not_sent_again(self):
        self.push()
        self.hub.forget()
        _, log = self.push()
        self.assertEqual([r.line for r in self.hub.requests], ["POST /api/repos/create", "POST /api/models/%s/preupload/main" % REPO])
        self.assertIn("has all of out", log)
        with open(os.path.join(self.folder, "README.md"), "wb") as file:
            file.write(b"# Another\n")
        self.hub.forget()
        self.push("--message", "Another card")
        self.assertEqual(self.hub.seen("POST .*batch"), [])
        lines = [json.loads(line) for line in self.hub.seen("POST .*commit")[0].body.splitlines()]
        self.assertEqual([line["value"].get("path", line["value"].get("summary")) for line in lines], ["Another card", "README.md"])
        self.assertEqual(self.published(), {**FILES, "README.md": b"# Another\n"})

    def test_private_and_another_branch(self):
        self.push("--private")
        self.assertTrue(self.hub.repos[REPO].private)
        repo = self.hub.repos[REPO]
        repo.refs["v/2"] = repo.refs["main"]
        os.remove(os.path.join(self.folder, "README.md"))
        with open(os.path.join(self.folder, "adapter_config.json"), "w") as file:
            file.write("{}")
        self.push("--revision", "v/2")
        self.assertEqual(self.published(), FILES)
        self.assertEqual(self.published("v/2"), {**FILES, "adapter_config.json": b"{}"})
        _, log = self.push("--revision", "none", code=2)
        self.assertIn('has no branch, tag or commit "none"', log)

    def test_parts(self):
        self.hub.chunk_size = 100000
        self.hub.fault("PUT /part/.*/2", status=500, headers=SOON)
        self.push()
        self.assertEqual(self.published(), FILES)
        self.assertEqual([len(r.body) for r in self.hub.seen("PUT /part/")], [100000, 100000, 100000, 56000])
        self.assertEqual([r.headers.get("authorization") for r in self.hub.seen("PUT")], [None] * 4)

    def test_faults_that_pass(self):
        for pattern in ("POST /api/repos", "POST .*preupload", "POST .*batch", "PUT", "POST .*verify", "POST .*commit"):
            self.hub.fault(pattern, status=503, headers=SOON, times=1)
        self.push()
        self.assertEqual(self.published(), FILES)
        self.assertEqual(len(self.hub.repos[REPO].commits), 2)

    def test_commit_whose_answer_is_lost_is_not_made_twice(self):
        self.hub.fault("POST .*commit", lose=True)
        self.push()
        self.assertEqual(self.published(), FILES)
        self.assertEqual(len(self.hub.seen("POST .*commit")), 1)

    def test_faults_that_stay(self):
        self.hub.fault("PUT", status=500, headers=SOON, times=100)
        _, log = self.push(code=1)
        self.assertIn("the server answered 500", log)
        self.assertEqual(len(self.hub.seen("PUT")), 5)
        self.assertNotIn("signature=secret", log)
        self.assertEqual(self.published(), {})

    def test_what_is_refused_says_what_to_do(self):
        _, log = self.push(code=2, HF_TOKEN="")
        self.assertIn("publishing needs a token that may write", log)
        _, log = self.push(code=2, HF_TOKEN="hf_other")
        self.assertIn("does not know the token", log)
        _, log = self.push(code=2, HF_HUB_OFFLINE="1")
        self.assertIn("HF_HUB_OFFLINE is set", log)
        _, log = self.run_program("push", "--adapter", "out", "--repo", "no-owner", code=2)
        self.assertIn("such a name is ORG/NAME", log)
        _, log = self.run_program("push", "--adapter", "nowhere", "--repo", REPO, code=2)
        self.assertIn("no adapter_config.json there", log)
        self.assertEqual([r for r in self.hub.requests if r.headers.get("authorization") == "Bearer " + TOKEN], [])
        self.hub.fault("POST /api/repos/create", status=403, headers={"X-Error-Message": "no right to create"}, times=2)
        _, log = self.push(code=2)
        self.assertIn("no right to create. Does the token have the right?", log)
        self.hub.add(REPO, {})  # there all the same, and one may write to it
        self.push()
        self.assertEqual(self.published(), FILES)

    def test_storage_that_lies(self):
        oid, size = sha256(FILES["adapter_model.safetensors"]), len(FILES["adapter_model.safetensors"])

        def batch(**upload):
            return {"objects": [{"oid": oid, "size": size, "actions": {"upload": upload}}]}

        for answer, words in (
            ({"objects": []}, "nothing is said of the object"),
            (batch(), 'has no "href"'),
            (batch(href=self.hub.url, header={"chunk_size": 0}), '"chunk_size" is not a number of bytes'),
            (batch(href=self.hub.url, header={"chunk_size": "1"}), "more than 10000 parts"),
            (batch(href=self.hub.url, header={"chunk_size": str(size), "1": "a", "2": "b"}), 'part "2" is not one of the 1'),
            (batch(href=self.hub.url, header={"chunk_size": str(size)}), "addresses of 0 parts, and the file has 1"),
            (batch(href="file:///etc/passwd"), "is not the address of a server"),
            ({"objects": [{"oid": oid, "size": size, "error": {"code": 422, "message": "too large %s" % TOKEN}}]}, "too large ***"),
        ):
            self.hub.fault("POST .*batch", answer=answer)
            _, log = self.push(code=2)
            self.assertIn(words, log)
        self.hub.fault("POST .*preupload", answer={"files": [{"path": "README.md", "uploadMode": "magic"}]})
        _, log = self.push(code=2)
        self.assertIn('"uploadMode" of README.md is "magic"', log)
        self.assertEqual(self.published(), {})

    def test_token_is_not_among_the_arguments(self):
        hold, began = threading.Event(), threading.Event()
        self.hub.fault("POST /api/repos", hold=hold, began=began)
        child = subprocess.Popen([PROGRAM, "push", "--adapter", self.folder, "--repo", REPO], env=self.environment,
                                 stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.assertTrue(began.wait(60))
        with open("/proc/%d/cmdline" % child.pid, "rb") as file:
            self.assertNotIn(TOKEN.encode(), file.read())
        hold.set()
        self.assertEqual(child.wait(60), 0)
        found = subprocess.run(["grep", "-rl", TOKEN, self.work], capture_output=True, text=True)
        self.assertEqual(found.stdout, "")


if __name__ == "__main__":
    unittest.main()
