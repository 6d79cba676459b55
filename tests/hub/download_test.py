"""Models and adapters of the Hub by name: what is fetched, where it lies, what survives faults, what is said."""

import json
import os
import signal
import subprocess
import threading
import unittest

from fake_hub import git_blob, sha256
from hub_case import PROGRAM, TOKEN, HubCase, read, read_folder

WEIGHTS = bytes(range(256)) * 4096  # 1 MiB
CONFIG = b'{"model_type": "bloom"}'
FILES = {"config.json": CONFIG, "tokenizer.json": b"{}", "model.safetensors": WEIGHTS, "README.md": b"# model",
         "pytorch_model.bin": b"pickle", "onnx/model.onnx": b"onnx"}
WANTED = ["config.json", "model.safetensors", "tokenizer.json"]
REPO = "org/some-model"


class Download(HubCase):
    def add(self, files=FILES, **about):
        return self.hub.add(REPO, files, **about)

    def download(self, name=REPO, **more):
        return self.run_program("download", name, **more)

    def check_snapshot(self, folder, files=FILES, names=WANTED):
        self.assertEqual(read_folder(folder), {name: files[name] for name in names})

    def test_files_lie_as_huggingface_hub_keeps_them(self):
        commit = self.add()
        out, _ = self.download()
        self.assertEqual(out, os.path.join(self.repo_folder(REPO), "snapshots", commit) + "\n")
        self.check_snapshot(out.strip())
        self.assertEqual(read(os.path.join(self.repo_folder(REPO), "refs", "main")), commit.encode())
        self.assertEqual(os.readlink(os.path.join(out.strip(), "model.safetensors")), "../../blobs/" + sha256(WEIGHTS))
        self.assertEqual(os.readlink(os.path.join(out.strip(), "config.json")), "../../blobs/" + git_blob(CONFIG))
        self.assertEqual(sorted(os.listdir(os.path.join(self.repo_folder(REPO), "blobs"))),
                         sorted([sha256(WEIGHTS), git_blob(CONFIG), git_blob(b"{}")]))
        self.assertIn(sha256(WEIGHTS) + ".lock", os.listdir(os.path.join(self.cache, ".locks", "models--org--some-model")))

    def test_second_time_nothing_is_fetched(self):
        commit = self.add()
        self.download()
        self.hub.forget()
        self.download()
        self.assertEqual([r.line for r in self.hub.requests], ["GET /api/models/%s/revision/main?blobs=true" % REPO])
        self.hub.forget()
        self.download(REPO + "@" + commit)
        self.assertEqual(self.hub.requests, [])

    def test_new_commit_keeps_blobs_that_are_the_same(self):
        first = self.add()
        self.download()
        self.hub.forget()
        second = self.add({**FILES, "config.json": b'{"model_type": "bloom", "n_layer": 2}'})
        self.assertNotEqual(first, second)
        out, _ = self.download()
        self.assertEqual(os.path.basename(out.strip()), second)
        self.assertEqual(self.hub.seen("GET /(org|get)"), self.hub.seen("GET /%s/resolve/%s/config.json" % (REPO, second)))

    def test_branch_with_a_slash(self):
        self.add()
        commit = self.hub.repos[REPO].commit({**FILES, "tokenizer.json": b"[]"}, "refs/pr/1")
        out, _ = self.download(REPO + "@refs/pr/1")
        self.check_snapshot(out.strip(), {**FILES, "tokenizer.json": b"[]"})
        self.assertEqual(read(os.path.join(self.repo_folder(REPO), "refs", "refs", "pr", "1")), commit.encode())

    def test_token_goes_to_the_hub_alone(self):
        self.add(private=True)
        self.environment["HF_TOKEN"] = TOKEN
        _, log = self.download(code=0)
        self.run_program("download", REPO, "--log-level", "debug")
        self.hub.repos[REPO].gated = True
        self.run_program("download", "org/missing", "--log-level", "debug", code=2)
        for request in self.hub.requests:
            self.assertEqual(request.headers.get("authorization"), "Bearer " + TOKEN if request.where == "hub" else None, request.line)
        self.assertTrue(self.hub.seen("GET /get/"))
        found = subprocess.run(["grep", "-rl", TOKEN, self.work], capture_output=True, text=True)
        self.assertEqual(found.stdout, "")

    def test_token_of_files(self):
        self.add(private=True)
        path = os.path.join(self.work, "home", "token")
        os.makedirs(os.path.dirname(path))
        for name, variables in ((path, {}), (os.path.join(self.work, "other"), {"HF_TOKEN_PATH": os.path.join(self.work, "other")})):
            with open(name, "w") as file:
                file.write(TOKEN + "\n")
            self.download(**variables)
            os.remove(name)
        _, log = self.download("org/some-model@v1", code=2)
        self.assertIn("a private one needs a token", log)

    def test_token_that_could_end_a_header_is_refused(self):
        _, log = self.download(code=2, HF_TOKEN="hf_a\r\nX-Evil: b c")
        self.assertIn("HF_TOKEN: not a token", log)
        self.assertNotIn("hf_a", log)

    def test_server_that_repeats_the_token_is_not_quoted(self):
        self.add()
        self.hub.fault("GET /api", status=403, headers={"X-Error-Message": "token %s is bad" % TOKEN})
        _, log = self.download(code=2, HF_TOKEN=TOKEN)
        self.assertIn("token *** is bad", log)

    def test_token_is_not_sent_in_the_clear(self):
        _, log = self.run_program("push", "--adapter", self.work, "--repo", REPO, code=2, HF_TOKEN=TOKEN, HF_ENDPOINT="http://hub.invalid")
        self.assertIn("https:// address only", log)

    def test_cut_connection_is_taken_up(self):
        self.add()
        self.hub.fault("GET /get/", cut=300000)
        self.hub.fault("GET /get/", cut=200000)
        out, log = self.download()
        self.check_snapshot(out.strip())
        self.assertEqual([r.headers.get("range") for r in self.hub.seen("GET /get/")], [None, "bytes=300000-", "bytes=500000-"])
        self.assertIn("trying again", log)

    def test_server_that_falls_silent_is_left(self):
        self.add()
        hold = threading.Event()
        self.addCleanup(hold.set)
        self.hub.fault("GET /get/", hold=hold, began=threading.Event())
        out, log = self.download(HF_HUB_DOWNLOAD_TIMEOUT="1")
        self.check_snapshot(out.strip())
        self.assertEqual(self.hub.seen("GET /get/")[1].headers["range"], "bytes=%d-" % (len(WEIGHTS) // 2))
        self.assertIn("too slow", log)

    def test_server_that_knows_no_ranges(self):
        self.add()
        self.hub.fault("GET /get/", cut=300000)
        self.hub.fault("GET /get/", no_range=True)
        out, _ = self.download()
        self.check_snapshot(out.strip())

    def test_each_attempt_asks_for_a_fresh_link(self):
        self.add()
        self.hub.fault("GET /get/", cut=300000)
        out, _ = self.download()
        self.check_snapshot(out.strip())
        self.assertEqual(len(self.hub.seen("GET /org/.*safetensors")), 2)

    def test_process_that_is_stopped_goes_on(self):
        self.add()
        hold, began = threading.Event(), threading.Event()
        self.hub.fault("GET /get/", hold=hold, began=began)
        child = subprocess.Popen([PROGRAM, "download", REPO], env=self.environment, stderr=subprocess.PIPE, text=True)
        self.assertTrue(began.wait(60))
        part = os.path.join(self.repo_folder(REPO), "blobs", sha256(WEIGHTS) + ".incomplete")
        while not os.path.exists(part) or os.path.getsize(part) < len(WEIGHTS) // 2:
            self.assertIsNone(child.poll())
        child.send_signal(signal.SIGTERM)
        _, log = child.communicate(timeout=60)
        self.assertEqual(child.returncode, 75, log)
        hold.set()
        self.nothing_visible(REPO, ["config.json", "tokenizer.json"])
        out, _ = self.download()
        self.check_snapshot(out.strip())
        self.assertEqual(self.hub.seen("GET /get/")[-1].headers["range"], "bytes=%d-" % (len(WEIGHTS) // 2))
        self.assertFalse(os.path.exists(part))

    def test_spoiled_part_is_thrown_away(self):
        self.add()
        blobs = os.path.join(self.repo_folder(REPO), "blobs")
        os.makedirs(blobs)
        for size in (1000, len(WEIGHTS), len(WEIGHTS) + 1000):
            with open(os.path.join(blobs, sha256(WEIGHTS) + ".incomplete"), "wb") as file:
                file.write(b"x" * size)
            out, _ = self.download()
            self.check_snapshot(out.strip())
            os.remove(os.path.join(blobs, sha256(WEIGHTS)))

    def test_wrong_bytes_are_refused(self):
        self.add()
        for path, whole in (("/org/.*config.json", []), ("/get/", ["config.json", "tokenizer.json"])):
            self.hub.fault("GET " + path, wrong=True)
            _, log = self.download(code=2)
            self.assertIn("its hash differs", log)
            self.nothing_visible(REPO, whole)
        out, _ = self.download()
        self.check_snapshot(out.strip())

    def test_more_bytes_than_announced_are_refused(self):
        self.add()
        self.hub.fault("GET /get/", longer=True)
        _, log = self.download(code=2)
        self.assertIn("sends more than the 1048576 bytes", log)
        self.nothing_visible(REPO, ["config.json", "tokenizer.json"])

    def test_faults_that_pass(self):
        self.add()
        soon = {"Retry-After": "0"}
        self.hub.fault("GET /api", status=500, headers=soon, times=2)
        self.hub.fault("HEAD /org/.*config", status=429, headers=soon)
        self.hub.fault("GET /org/.*config", status=503, headers=soon, times=4)
        self.hub.fault("GET /org/.*tokenizer", lose=True)  # waits a second
        self.hub.fault("GET /get/", status=502, headers=soon)
        out, _ = self.download()
        self.check_snapshot(out.strip())

    def test_faults_that_stay(self):
        self.add()
        self.hub.fault("GET /get/", status=503, headers={"Retry-After": "0", "X-Error-Message": "too busy"}, times=100)
        _, log = self.download(code=1)
        self.assertIn("the server answered 503: too busy", log)
        self.assertEqual(len(self.hub.seen("GET /get/")), 5)
        self.assertNotIn("signature=secret", log)

    def test_what_is_here_does_where_the_hub_does_not_answer(self):
        commit = self.add()
        first, _ = self.download()
        for closed in ({"HF_ENDPOINT": "http://127.0.0.1:1"}, {"HF_HUB_OFFLINE": "1"}, {"TRANSFORMERS_OFFLINE": "true"}):
            out, log = self.download(**closed)
            self.assertEqual(out, first)
            self.assertIn(commit, log)
        self.hub.fault("GET /api", status=500)
        self.assertEqual(self.download()[0], first)
        self.hub.repos[REPO].private = True
        self.assertEqual(self.download()[0], first)

    def test_half_a_model_does_not_do(self):
        self.add()
        self.hub.fault("GET /get/", status=404)
        self.download(code=2)
        _, log = self.download(code=2, HF_HUB_OFFLINE="1")
        self.assertIn("org/some-model@main is not in %s, or not all of it" % self.cache, log)
        _, log = self.download(code=1, HF_ENDPOINT="http://127.0.0.1:1")
        self.assertIn("Where there is no network", log)

    def test_what_is_refused_says_what_to_do(self):
        self.add()
        self.hub.add("org/gated", FILES, gated=True)
        self.hub.add("org/pickled", {"config.json": CONFIG, "pytorch_model.bin": b""})
        self.hub.add("org/empty", {"config.json": CONFIG})
        self.hub.add("org/notes", {"README.md": b""})
        self.hub.add("org/old-adapter", {"adapter_config.json": b"{}", "adapter_model.bin": b""})
        for name, words in (
            ("org/none", "has no repository org/none, or does not show it: a private one needs a token"),
            ("org/gated", "accept them at %s/org/gated, and give a token" % self.hub.url),
            (REPO + "@v9", 'has no branch, tag or commit "v9"'),
            ("org/pickled", "has pickled weights only (pytorch_model.bin)"),
            ("org/empty", "org/empty has no weights: model.safetensors is not there"),
            ("org/notes", "org/notes has no config.json: it is no model"),
            ("org/old-adapter", "has pickled weights only (adapter_model.bin)"),
            ("just-a-name", "such a name is ORG/NAME"),
            ("../../etc", "such a name is ORG/NAME"),
            ("a/b@../../c", "such a name is ORG/NAME"),
        ):
            _, log = self.download(name, code=2)
            self.assertIn(words, log, name)
        _, log = self.download("org/gated", code=2, HF_TOKEN="hf_other")
        self.assertIn("does not know the token", log)

    def test_shards_of_an_index(self):
        index = {"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors", "c": "model-00001-of-00002.safetensors"}}
        files = {"config.json": CONFIG, "model.safetensors.index.json": json.dumps(index).encode(),
                 "model-00001-of-00002.safetensors": b"one", "model-00002-of-00002.safetensors": b"two", "other.safetensors": b"no"}
        self.add(files)
        out, _ = self.download()
        self.check_snapshot(out.strip(), files, sorted(set(files) - {"other.safetensors"}))
        os.remove(os.path.join(out.strip(), "model-00002-of-00002.safetensors"))
        self.download(code=2, HF_HUB_OFFLINE="1")
        self.download()
        for bad, words in (("../evil", "not a file's name"), ("/etc/passwd", "not a file's name"), ("gone.safetensors", "is not in the repository")):
            self.add({**files, "model.safetensors.index.json": json.dumps({"weight_map": {"a": bad}}).encode()})
            _, log = self.download(code=2)
            self.assertIn(words, log)

    def test_server_that_lies(self):
        commit = self.add()
        listing = {"sha": commit, "siblings": [{"rfilename": "config.json", "size": len(CONFIG)}, {"rfilename": "model.safetensors", "size": len(WEIGHTS)}]}

        def one(**file):
            return {**listing, "siblings": [listing["siblings"][0], {**listing["siblings"][1], **file}]}

        for answer, words in (
            ({**listing, "sha": "../../../tmp"}, '"sha" is not a commit'),
            ([], "expected an object"),
            ({"sha": commit}, '"siblings" is not a list'),
            (one(rfilename="../../../evil"), "which is no name to write to"),
            (one(rfilename="/etc/passwd"), "which is no name to write to"),
            (one(rfilename="a\nb"), "which is no name to write to"),
            (one(size=-5), "size"),
            (one(size=1 << 62), "the server says both"),
        ):
            self.hub.fault("GET /api", answer=answer)
            _, log = self.download(code=2)
            self.assertIn(words, log)
        for more, words in (
            ({"ETag": '"../../evil"', "X-Linked-Etag": '"../../evil"'}, "names no ETag"),
            ({"X-Linked-Etag": ""}, "names no ETag"),
            ({"X-Repo-Commit": "0" * 40}, "answers with another commit"),
        ):
            self.hub.fault("HEAD /org/.*safetensors", more=more)
            _, log = self.download(code=2)
            self.assertIn(words, log)
        self.hub.fault("GET /api", answer=one(size=1 << 60))
        self.hub.fault("HEAD /org/.*safetensors", more={"X-Linked-Size": str(1 << 60)})
        _, log = self.download(code=2)
        self.assertIn("HF_HUB_CACHE names another folder", log)
        self.hub.fault("GET /org/.*config", location=self.hub.storage_url + "/loop", times=1)
        self.hub.fault("GET /loop", location=self.hub.storage_url + "/loop", times=9)
        os.remove(os.path.join(self.repo_folder(REPO), "snapshots", commit, "config.json"))
        os.remove(os.path.join(self.repo_folder(REPO), "blobs", git_blob(CONFIG)))
        _, log = self.download(code=2)
        self.assertIn("more than 5 redirects", log)
        self.hub.fault("GET /org/.*config", location="file:///etc/passwd")
        _, log = self.download(code=2)
        self.assertIn("is not the address of a server", log)

    def test_two_processes_download_once(self):
        self.add()
        hold, began = threading.Event(), threading.Event()
        self.hub.fault("GET /get/", hold=hold, began=began)
        first = subprocess.Popen([PROGRAM, "download", REPO], env=self.environment, stdout=subprocess.PIPE, text=True)
        self.assertTrue(began.wait(60))
        second = subprocess.Popen([PROGRAM, "download", REPO], env=self.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        said = ""
        while "Waiting for another process" not in said:  # ends with the process, if it does not wait
            line = second.stderr.readline()
            self.assertTrue(line)
            said += line
        hold.set()
        folders = [child.communicate(timeout=60)[0].strip() for child in (first, second)]
        self.assertEqual(folders[0], folders[1])
        self.check_snapshot(folders[0])
        self.assertEqual(len(self.hub.seen("GET /get/")), 1)

    def test_full_disk_leaves_what_came(self):
        self.add()
        done = subprocess.run(["bash", "-c", "ulimit -f 512; exec \"$@\"", "-", PROGRAM, "download", REPO], env=self.environment,
                              capture_output=True, text=True, timeout=60)
        self.assertEqual(done.returncode, 2, done.stderr)
        self.assertIn("cannot write", done.stderr)
        self.nothing_visible(REPO, ["config.json", "tokenizer.json"])
        out, _ = self.download()
        self.check_snapshot(out.strip())


if __name__ == "__main__":
    unittest.main()
