"""A server that answers as the Hugging Face Hub does, as far as lora-dist asks, and a second one, on another port, that
plays the storage behind it: files are fetched and put there through signed links.

It writes down every request, and misbehaves on request:

    hub = FakeHub()
    hub.add("me/model", {"config.json": b"{}"})
    hub.fault("GET /me/model/resolve", status=503)     # once; times=2: twice
    ... hub.url ... hub.requests ...
    hub.close()

What it is held against is huggingface_hub itself (oracle_test.py).
"""

import base64
import hashlib
import json
import re
import threading
import urllib.parse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

LFS_JSON = "application/vnd.git-lfs+json"


def git_blob(data):
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def sha256(data):
    return hashlib.sha256(data).hexdigest()


def is_lfs(path, data):
    return path.endswith((".safetensors", ".bin", ".parquet")) or len(data) > 10 << 20


def pointer(data):
    return b"version https://git-lfs.github.com/spec/v1\noid sha256:%s\nsize %d\n" % (sha256(data).encode(), len(data))


class Repo:
    def __init__(self):
        self.commits = {}  # hash -> {path: bytes}
        self.refs = {}
        self.messages = []
        self.private = self.gated = False

    def commit(self, files, ref="main", message="initial"):
        text = json.dumps([message, len(self.commits), sorted((p, sha256(d)) for p, d in files.items())])
        name = hashlib.sha1(text.encode()).hexdigest()
        self.commits[name] = dict(files)
        self.refs[ref] = name
        self.messages.append(message)
        return name

    def find(self, revision):
        return revision if revision in self.commits else self.refs.get(revision)


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request, address):
        pass  # clients that leave are part of the tests


class Request:
    """One that was received: where ("hub" or "storage"), "METHOD /path", headers in lower case, body."""

    def __init__(self, where, line, headers, body):
        self.where, self.line, self.headers, self.body = where, line, headers, body


class FakeHub:
    def __init__(self, token=None, chunk_size=None):
        self.token = token  # what may read private repositories, and write
        self.user = "me"
        self.chunk_size = chunk_size  # of uploads in parts; None: in one piece
        self.repos, self.requests, self.faults = {}, [], []
        self.aliases = {}  # old names of repositories, which redirect
        self.objects, self.parts, self.verified = {}, {}, []
        self.lock = threading.Condition()
        self.servers = {}
        for where in ("hub", "storage"):
            handler = type("Handler", (Handler,), {"hub": self, "where": where})
            server = Server(("127.0.0.1", 0), handler)
            threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
            self.servers[where] = server
        self.url = "http://127.0.0.1:%d" % self.servers["hub"].server_address[1]
        self.storage_url = "http://127.0.0.1:%d" % self.servers["storage"].server_address[1]

    def close(self):
        for server in self.servers.values():
            server.shutdown()
            server.server_close()

    def add(self, name, files, **about):
        """A data set is called "datasets/ORG/NAME"."""
        repo = self.repos.setdefault(name, Repo())
        repo.__dict__.update(about)
        return repo.commit(files)

    def fault(self, pattern, times=1, **what):
        """what: status, headers (of an answer instead); cut (bytes after which the connection ends); wrong (bytes are
        changed); no_range (Range is not heard); lose (all is done, nothing answered); hold (an Event to wait for after
        the first bytes); answer (JSON instead); location (a redirect)."""
        self.faults.append({"pattern": re.compile(pattern), "times": times, **what})

    def take_fault(self, line):
        with self.lock:
            for fault in self.faults:
                if fault["times"] > 0 and fault["pattern"].match(line):
                    fault["times"] -= 1
                    return fault
        return {}

    def note(self, request):
        with self.lock:
            self.requests.append(request)
            self.lock.notify_all()

    def seen(self, pattern):
        return [r for r in self.requests if re.match(pattern, r.line)]

    def wait_for(self, pattern, count=1, seconds=60):
        with self.lock:
            assert self.lock.wait_for(lambda: len(self.seen(pattern)) >= count, seconds), "never asked: " + pattern

    def forget(self):
        with self.lock:
            self.requests.clear()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_GET(self):
        self.handle_one()

    do_HEAD = do_POST = do_PUT = do_GET

    def handle_one(self):
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        line = "%s %s" % (self.command, self.path)
        self.fault = self.hub.take_fault(line)
        self.hub.note(Request(self.where, line, {k.lower(): v for k, v in self.headers.items()}, body))
        if "status" in self.fault:
            return self.answer(self.fault["status"], b"", self.fault.get("headers", {}))
        if "location" in self.fault:
            return self.answer(302, b"", {"Location": self.fault["location"]})
        if "answer" in self.fault:
            return self.json(self.fault["answer"])
        parts = urllib.parse.urlsplit(self.path)
        path, query = parts.path, urllib.parse.parse_qs(parts.query)
        for old, new in self.hub.aliases.items():
            if re.search("(^|/)%s(/|$)" % re.escape(old), path):
                return self.answer(307, b"", {"Location": self.path.replace(old, new, 1)})
        for where, method, pattern, function in ROUTES:
            found = re.fullmatch(pattern, path)
            if where == self.where and self.command in method.split() and found:
                return function(self, query, body, *[urllib.parse.unquote(g) for g in found.groups()])
        self.refuse(404, "NotFound", "no such address: " + line)

    # What answers are made of.

    def answer(self, status, body, headers={}):
        if self.fault.get("lose"):
            self.close_connection = True
            return
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if "Content-Length" not in headers:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "HEAD":
            return
        cut = self.fault.get("cut", len(body))
        if "hold" in self.fault:
            self.wfile.write(body[: len(body) // 2])
            self.wfile.flush()
            self.fault["began"].set()
            self.fault["hold"].wait(60)
            body, cut = body[len(body) // 2 :], len(body)
        self.wfile.write(body[:cut])
        if cut < len(body):
            self.close_connection = True

    def json(self, value, status=200, headers={}):
        self.answer(status, json.dumps(value).encode(), {"Content-Type": "application/json", **headers})

    def refuse(self, status, code, message):
        self.json({"error": message}, status, {"X-Error-Code": code, "X-Error-Message": message})

    def has_token(self):
        return self.hub.token is not None and self.headers.get("Authorization") == "Bearer " + self.hub.token

    def open_repo(self, name):
        """The repository, if it may be read; else None, and it is answered why not."""
        repo = self.hub.repos.get(name)
        if self.headers.get("Authorization") and not self.has_token():
            self.refuse(401, "", "Invalid credentials in Authorization header")
        elif repo is None or (repo.private and not self.has_token()):
            self.refuse(404 if self.has_token() else 401, "RepoNotFound", "Repository not found")
        elif repo.gated and not self.has_token():
            self.refuse(401, "GatedRepo", "Access to model %s is restricted" % name)
        else:
            return repo
        return None

    def open_commit(self, name, revision):
        repo = self.open_repo(name)
        if repo is None:
            return None, None
        commit = repo.find(revision)
        if commit is None:
            self.refuse(404, "RevisionNotFound", "Invalid rev id: " + revision)
            return None, None
        return commit, repo.commits[commit]

    # What can be read.

    def whoami(self, query, body):
        if not self.has_token():
            return self.refuse(401, "", "Invalid credentials in Authorization header")
        self.json({"type": "user", "name": self.hub.user})

    def model_info(self, query, body, name, revision="main"):
        commit, files = self.open_commit(name, revision)
        if commit is None:
            return
        siblings = []
        for path, data in sorted(files.items(), reverse=name.startswith("datasets/")):
            sibling = {"rfilename": path}
            if query.get("blobs") == ["true"] or query.get("blobs") == ["True"]:
                sibling.update(self.blob(path, data, "blobId", "sha256"))
            siblings.append(sibling)
        self.json({"id": re.sub("^datasets/", "", name), "modelId": name, "sha": commit, "private": self.hub.repos[name].private, "siblings": siblings})

    def blob(self, path, data, name, lfs_name):
        if not is_lfs(path, data):
            return {name: git_blob(data), "size": len(data)}
        return {name: git_blob(pointer(data)), "size": len(data),
                "lfs": {lfs_name: sha256(data), "size": len(data), "pointerSize": len(pointer(data))}}

    def tree(self, query, body, name, revision):
        commit, files = self.open_commit(name, revision)
        if commit is not None:
            self.json([{"type": "file", "path": p, **self.blob(p, d, "oid", "oid")} for p, d in sorted(files.items())])

    def data_info(self, query, body, name, revision="main"):
        self.model_info(query, body, "datasets/" + name, revision)

    def data_tree(self, query, body, name, revision):
        self.tree(query, body, "datasets/" + name, revision)

    def resolve(self, query, body, name, revision, path):
        commit, files = self.open_commit(name, revision)
        if commit is None:
            return
        if path not in files:
            return self.refuse(404, "EntryNotFound", "Entry not found")
        data = files[path]
        headers = {"X-Repo-Commit": commit, "Accept-Ranges": "bytes", **self.fault.get("more", {})}
        if is_lfs(path, data):
            self.hub.objects[sha256(data)] = data
            headers = {"X-Linked-Etag": '"%s"' % sha256(data), "X-Linked-Size": str(len(data)),
                       "ETag": '"%s"' % git_blob(pointer(data)), **headers,
                       "Location": "%s/get/%s?signature=secret" % (self.hub.storage_url, sha256(data))}
            return self.answer(302, b"Found. Redirecting", headers)
        self.send_range(data, {"ETag": '"%s"' % git_blob(data), **headers})

    def send_range(self, data, headers):
        if self.fault.get("wrong"):
            data = bytes(b ^ 1 for b in data)
        if self.fault.get("longer"):
            data += b"more"
        wanted = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range") or "")
        if wanted is None or self.fault.get("no_range"):
            return self.answer(200, data, headers)
        begin = int(wanted.group(1))
        if begin >= len(data):
            return self.answer(416, b"", {"Content-Range": "bytes */%d" % len(data)})
        self.answer(206, data[begin:], {**headers, "Content-Range": "bytes %d-%d/%d" % (begin, len(data) - 1, len(data))})

    def get_object(self, query, body, oid):
        if query.get("signature") != ["secret"] or oid not in self.hub.objects:
            return self.answer(403, b"<Error>the link has expired</Error>")
        self.send_range(self.hub.objects[oid], {"ETag": '"storage"'})

    # What can be written.

    def create(self, query, body):
        if not self.has_token():
            return self.refuse(401, "", "Invalid credentials in Authorization header")
        asked = json.loads(body)
        name = "%s/%s" % (asked.get("organization") or self.hub.user, asked["name"])
        if name in self.hub.repos:
            return self.json({"error": "You already created this model repo", "url": self.hub.url + "/" + name}, 409)
        self.hub.add(name, {".gitattributes": b"*.safetensors filter=lfs\n"}, private=asked.get("visibility") == "private")
        self.json({"url": self.hub.url + "/" + name, "name": name})

    def validate_yaml(self, query, body):
        self.json({"errors": [], "warnings": []})

    def preupload(self, query, body, name, revision):
        commit, files = self.open_commit(name, revision)
        if commit is None:
            return
        answers = []
        for file in json.loads(body)["files"]:
            path, there = file["path"], files.get(file["path"])
            lfs = is_lfs(path, b"") or file["size"] > 10 << 20
            assert len(base64.b64decode(file["sample"])) == min(512, file["size"])
            oid = None if there is None else sha256(there) if lfs else git_blob(there)
            answers.append({"path": path, "uploadMode": "lfs" if lfs else "regular", "shouldIgnore": False, "oid": oid})
        self.json({"files": answers, "commitOid": commit})

    def batch(self, query, body, name):
        if not self.has_token():
            return self.refuse(401, "", "Invalid credentials in Authorization header")
        objects = []
        for x in json.loads(body)["objects"]:
            oid, size, answer = x["oid"], x["size"], {"oid": x["oid"], "size": x["size"]}
            if oid not in self.hub.objects:
                header = {}
                href = "%s/put/%s?signature=secret" % (self.hub.storage_url, oid)
                if self.hub.chunk_size:
                    n = (size - 1) // self.hub.chunk_size + 1
                    header = {"chunk_size": str(self.hub.chunk_size)}
                    header.update({"%05d" % (i + 1): "%s/part/%s/%d?signature=secret" % (self.hub.storage_url, oid, i + 1)
                                   for i in reversed(range(n))})
                    href = "%s/api/complete?oid=%s" % (self.hub.url, oid)
                answer["actions"] = {"upload": {"href": href, "header": header},
                                     "verify": {"href": "%s/%s.git/info/lfs/verify" % (self.hub.url, name)}}
            objects.append(answer)
        self.json({"transfer": "multipart" if self.hub.chunk_size else "basic", "objects": objects}, 200,
                  {"Content-Type": LFS_JSON})

    def put_object(self, query, body, oid):
        if query.get("signature") != ["secret"] or sha256(body) != oid:
            return self.answer(403, b"")
        self.hub.objects[oid] = body
        self.answer(200, b"")

    def put_part(self, query, body, oid, number):
        self.hub.parts.setdefault(oid, {})[int(number)] = body
        self.answer(200, b"", {"ETag": '"part-%s"' % number})

    def complete(self, query, body):
        asked = json.loads(body)
        parts = self.hub.parts[asked["oid"]]
        data = b"".join(parts[p["partNumber"]] for p in asked["parts"])
        tags = [p["etag"] for p in asked["parts"]]
        if sha256(data) != asked["oid"] or tags != ['"part-%d"' % (i + 1) for i in range(len(parts))]:
            return self.refuse(400, "", "parts do not make the object")
        self.hub.objects[asked["oid"]] = data
        self.json({})

    def verify(self, query, body, name):
        if not self.has_token():
            return self.refuse(401, "", "Invalid credentials in Authorization header")
        asked = json.loads(body)
        if len(self.hub.objects.get(asked["oid"], b"")) != asked["size"]:
            return self.refuse(404, "", "no such object")
        self.hub.verified.append(asked["oid"])
        self.json({})

    def commit(self, query, body, name, revision):
        commit, files = self.open_commit(name, revision)
        if commit is None:
            return
        if not self.has_token():
            return self.refuse(403, "", "You need write access")
        files, message = dict(files), ""
        for line in body.splitlines():
            entry = json.loads(line)
            value = entry["value"]
            if entry["key"] == "header":
                message = value["summary"]
            elif entry["key"] == "file":
                assert value["encoding"] == "base64"
                files[value["path"]] = base64.b64decode(value["content"])
            else:
                assert entry["key"] == "lfsFile" and value["algo"] == "sha256"
                files[value["path"]] = self.hub.objects[value["oid"]]
        oid = self.hub.repos[name].commit(files, revision, message)
        self.json({"success": True, "commitOid": oid, "commitUrl": "%s/%s/commit/%s" % (self.hub.url, name, oid)})


NAME = r"([\w.-]+/[\w.-]+)"
DATA = r"([\w.-]+(?:/[\w.-]+)?)"
ROUTES = [
    ("hub", "GET", r"/api/whoami-v2", Handler.whoami),
    ("hub", "GET", r"/api/models/%s" % NAME, Handler.model_info),
    ("hub", "GET", r"/api/models/%s/revision/([^/]+)" % NAME, Handler.model_info),
    ("hub", "GET", r"/api/models/%s/tree/([^/]+)" % NAME, Handler.tree),
    ("hub", "GET", r"/api/datasets/%s" % DATA, Handler.data_info),
    ("hub", "GET", r"/api/datasets/%s/revision/([^/]+)" % DATA, Handler.data_info),
    ("hub", "GET", r"/api/datasets/%s/tree/([^/]+)" % DATA, Handler.data_tree),
    ("hub", "GET HEAD", r"/(datasets/[\w.-]+(?:/[\w.-]+)?)/resolve/([^/]+)/(.+)", Handler.resolve),
    ("hub", "GET HEAD", r"/%s/resolve/([^/]+)/(.+)" % NAME, Handler.resolve),
    ("storage", "GET HEAD", r"/get/(\w+)", Handler.get_object),
    ("hub", "POST", r"/api/repos/create", Handler.create),
    ("hub", "POST", r"/api/validate-yaml", Handler.validate_yaml),
    ("hub", "POST", r"/api/models/%s/preupload/([^/]+)" % NAME, Handler.preupload),
    ("hub", "POST", r"/%s\.git/info/lfs/objects/batch" % NAME, Handler.batch),
    ("storage", "PUT", r"/put/(\w+)", Handler.put_object),
    ("storage", "PUT", r"/part/(\w+)/(\d+)", Handler.put_part),
    ("hub", "POST", r"/api/complete", Handler.complete),
    ("hub", "POST", r"/%s\.git/info/lfs/verify" % NAME, Handler.verify),
    ("hub", "POST", r"/api/models/%s/commit/([^/]+)" % NAME, Handler.commit),
]
