"""What the tests against the fake Hub share: a server and a cache of its own for each test, and the program run on it."""

import os
import shutil
import subprocess
import tempfile
import unittest

from fake_hub import FakeHub

PROGRAM = os.environ["LRD_PROGRAM"]
SOURCE = os.environ["LRD_SOURCE_DIR"]
TOKEN = "hf_thisIsTheTokenOfTheTest"


def read(path):
    with open(path, "rb") as file:
        return file.read()


def read_folder(folder):
    return {name: read(os.path.join(folder, name)) for name in os.listdir(folder)}


class HubCase(unittest.TestCase):
    def setUp(self):
        memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # files are flushed, which is not what is tested
        self.work = tempfile.mkdtemp(prefix="lrd-hub.", dir=memory)
        self.addCleanup(shutil.rmtree, self.work)
        self.hub = FakeHub(token=TOKEN)
        self.addCleanup(self.hub.close)
        self.cache = os.path.join(self.work, "home", "hub")
        self.environment = {k: v for k, v in os.environ.items()
                            if not k.startswith(("HF_", "HUGGING", "TRANSFORMERS_")) and not k.lower().endswith("_proxy")}
        self.environment.pop("LRD_CUDA_PLUGIN", None)
        self.environment.update(HF_ENDPOINT=self.hub.url, HF_HOME=os.path.join(self.work, "home"), HF_HUB_DOWNLOAD_TIMEOUT="20",
                                OMP_NUM_THREADS="1")

    def run_program(self, *words, code=0, ranks=0, input=None, **environment):
        """Ends with this code (None: any), or the test fails. Gives (standard output, standard error)."""
        launch = ["mpirun", "-np", str(ranks), "--bind-to", "none"] if ranks else []
        done = subprocess.run([*launch, PROGRAM, *words], cwd=self.work, env={**self.environment, **environment},
                              input=input, capture_output=True, text=True, timeout=100)
        if code is not None:
            self.assertEqual(done.returncode, code, done.stderr[-3000:])
        self.assertNotIn(TOKEN, done.stdout + done.stderr)
        return done.stdout, done.stderr

    def repo_folder(self, name):
        return os.path.join(self.cache, "models--" + name.replace("/", "--"))

    def nothing_visible(self, name, but=()):
        """No file of the repository can be read in the cache, whatever is on its way."""
        snapshots = os.path.join(self.repo_folder(name), "snapshots")
        found = [f for _, _, files in os.walk(snapshots) for f in files]
        self.assertEqual(sorted(found), sorted(but))
