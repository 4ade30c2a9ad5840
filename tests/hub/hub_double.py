"""A double of the Hugging Face Hub's HTTP interface on loopback, for the real clients.

It keeps repositories in memory: commits, branches, tags, files in the commit's body and LFS objects
(basic and multipart). What a client sends is checked as the Hub checks it: sizes, hashes, parent
commits, tokens. Faults are put into `Hub.faults`.
"""

import base64
import hashlib
import json
import re
import threading
from collections import Counter
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from pathlib import PurePosixPath
from urllib.parse import parse_qs, quote, unquote, urlsplit

import yaml

TOKEN = "hf_canary0123456789abcdefghijklmnopq"
LFS_FROM = 1000
"""Files of so many bytes and more, and all that are no text, are LFS objects."""
PAGE = 20


@dataclass
class File:
    """A file of a commit."""

    size: int
    data: bytes = b""
    sha256: str = ""
    """Of an LFS object, else empty."""

    @property
    def blob(self):
        """Git's hash of the file, or of the pointer to it."""
        data = self.data if not self.sha256 else self.sha256.encode()
        return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


@dataclass
class Repo:
    """A data set repository."""

    private: bool = False
    commits: dict = field(default_factory=dict)
    """Files by path, by commit."""
    refs: dict = field(default_factory=dict)
    """Commits by branch or tag."""
    tags: set = field(default_factory=set)
    history: list = field(default_factory=list)
    """Branch and commit, as they came."""

    def commit(self, branch, files):
        """Make ``files`` the content of ``branch``; return the commit."""
        text = repr((len(self.commits), branch, sorted((p, f.blob) for p, f in files.items())))
        commit = hashlib.sha1(text.encode()).hexdigest()
        self.commits[commit] = dict(files)
        self.refs[branch] = commit
        self.history.append((branch, commit))
        return commit

    def find(self, revision):
        """Return the commit that ``revision`` names."""
        return self.refs.get(revision, revision if revision in self.commits else None)

    def files(self, revision="main"):
        """Return the files of ``revision`` by path."""
        return self.commits[self.find(revision)]


class Hub:
    """The Hub: `url`, its repositories, and what was asked of it."""

    def __init__(self):
        self.repos = {}
        self.objects = {}
        """LFS objects by sha256."""
        self.parts = {}
        self.uploads = count()
        self.part = 1 << 16
        """Bytes of a part of an upload in several."""
        self.asked = Counter()
        """Requests by method and kind of path."""
        self.sent = Counter()
        """Bytes of content that went out, by path."""
        self.put = Counter()
        """How often an LFS object came, by sha256."""
        self.faults = []
        """Functions of (method, path): what is to happen instead, see `Handler.trouble`."""
        self.failed = 0
        """How often the last fault was met."""
        self.lock = threading.RLock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def close(self):
        """End the server."""
        self._server.shutdown()
        self._server.server_close()

    def fail(self, times, what, method, part):
        """Let the next ``times`` requests of ``method`` whose path holds ``part`` end in ``what``.

        ``what`` is a status, ``lost`` (done, but the answer is cut off), ``cut`` (content that ends
        early) or a function that is called first.
        """
        left = [times]
        self.failed = 0

        def fault(asked, path):
            if asked == method and part in path and left[0]:
                left[0] -= 1
                self.failed += 1
                return what
            return None

        self.faults.append(fault)

    def upload(self, name, folder):
        """Put a folder on ``main`` of a new repository, as it is."""
        repo = self.repos[name] = Repo()
        files = {}
        for path in sorted(p for p in folder.rglob("*") if p.is_file()):
            files[path.relative_to(folder).as_posix()] = self.keep(path.read_bytes())
        repo.commit("main", files)
        return repo

    def keep(self, data):
        """Take up content, as an LFS object if it is large."""
        if len(data) < LFS_FROM:
            return File(len(data), data)
        sha256 = hashlib.sha256(data).hexdigest()
        self.objects[sha256] = data
        return File(len(data), sha256=sha256)

    def content(self, file):
        """Return the bytes of a file."""
        return self.objects[file.sha256] if file.sha256 else file.data


def _handler(hub):
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        # Otherwise each answer waits 40 ms for the client's kernel to confirm the headers.
        disable_nagle_algorithm = True

        def log_message(self, *_):
            pass

        def reply(self, value=b"", status=200, **headers):
            body = value if isinstance(value, bytes) else json.dumps(value).encode()
            if not isinstance(value, bytes):
                headers["Content-Type"] = "application/json"
            if self.lost:
                self.close_connection = True
                return
            self.send_response(status)
            for name, text in {"Content-Length": len(body), **headers}.items():
                self.send_header(name.replace("_", "-"), str(text))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body[: len(body) // 2] if self.cut else body)
            if self.cut:
                self.close_connection = True

        def missing(self, kind):
            self.reply({"error": f"{kind} not found"}, 404, X_Error_Code=f"{kind}NotFound")

        def handle_any(self):
            length = int(self.headers.get("Content-Length") or 0)
            body = self.rfile.read(length)
            split = urlsplit(self.path)
            path, query = unquote(split.path), parse_qs(split.query)
            self.lost = self.cut = False
            for fault in list(hub.faults):
                what = fault(self.command, path)
                if callable(what):
                    what()
                elif what == "lost":
                    self.lost = True
                elif what == "cut":
                    self.cut = True
                elif what == 429:
                    self.reply({"error": "slow down"}, 429, Retry_After=1)
                    return
                elif what:
                    self.reply({"error": f"fault {what}"}, what)
                    return
            with hub.lock:
                self.serve(path, query, body)

        do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = handle_any  # noqa: N815

        def serve(self, path, query, body):
            parts = path.strip("/").split("/")
            hub.asked[self.command, "/".join(parts[:2] + parts[4:5])] += 1
            if parts[0] == "lfs":
                self.take_object(parts, body)
            elif self.command in ("POST", "PUT", "DELETE") and not self.known(parts):
                self.reply({"error": "Invalid credentials"}, 401)
            elif path == "/api/whoami-v2":
                if not self.known(parts):
                    self.reply({"error": "Invalid credentials"}, 401)
                    return
                self.reply({"name": "someone", "type": "user", "orgs": []})
            elif path == "/api/validate-yaml":
                self.validate(json.loads(body)["content"])
            elif path == "/api/repos/create":
                asked = json.loads(body)
                name = f"{asked.get('organization') or 'someone'}/{asked['name']}"
                if name in hub.repos:
                    self.reply({"error": "there is one", "url": f"{hub.url}/datasets/{name}"}, 409)
                    return
                repo = hub.repos[name] = Repo(asked.get("visibility") == "private")
                repo.commit("main", {".gitattributes": File(3, b"*\n\n")})
                self.reply({"url": f"{hub.url}/datasets/{name}", "id": name, "name": name})
            elif parts[:2] == ["api", "datasets"]:
                self.api("/".join(parts[2:4]), parts[4:], query, body)
            elif parts[0] == "datasets" and parts[2:3] and parts[2].endswith(".git"):
                self.batch(json.loads(body))
            elif parts[0] == "datasets" and parts[3:4] == ["resolve"]:
                self.resolve("/".join(parts[1:3]), parts[4], "/".join(parts[5:]))
            else:
                self.missing("Entry")

        def validate(self, card):
            value = yaml.safe_load(card.split("---")[1])
            errors = []
            if not isinstance(value.get("license"), str | list):
                errors.append({"message": '"license" is required'})
            name = value.get("license_name", "")
            if value.get("license") == "other" and not re.fullmatch(r"[a-z0-9.-]+", name):
                errors.append({"message": '"license_name" is an identifier'})
            self.reply({"errors": errors, "warnings": []}, 400 if errors else 200)

        def known(self, parts):
            reading = parts[4:5] == ["paths-info"] or parts[:2] == ["api", "validate-yaml"]
            return reading or self.headers.get("Authorization") == f"Bearer {TOKEN}"

        def api(self, name, rest, query, body):
            repo = hub.repos.get(name)
            if repo is None or (repo.private and not self.known([])):
                self.missing("Repo")
                return
            what = rest[0] if rest else "revision"
            revision = rest[1] if len(rest) > 1 else "main"
            if what in ("branch", "tag"):
                self.ref(repo, what, revision, json.loads(body or b"{}"))
                return
            if what == "refs":
                refs = {"branches": [], "tags": [], "converts": []}
                for ref, commit in repo.refs.items():
                    kind = "tags" if ref in repo.tags else "branches"
                    refs[kind].append({"name": ref, "ref": ref, "targetCommit": commit})
                self.reply(refs)
                return
            if (commit := repo.find(revision)) is None:
                self.missing("Revision")
                return
            files = repo.commits[commit]
            if what == "revision":
                siblings = [{"rfilename": path} for path in sorted(files)]
                self.reply(
                    {"id": name, "sha": commit, "siblings": siblings, "private": repo.private}
                )
            elif what == "preupload":
                self.reply({"files": [self.mode(file) for file in json.loads(body)["files"]]})
            elif what == "commit":
                self.commit(repo, revision, commit, body)
            elif what == "tree":
                self.tree(files, "/".join(rest[2:]), query)
            elif what == "paths-info":
                kind = self.headers["Content-Type"]
                asked = json.loads(body) if "json" in kind else parse_qs(body.decode())
                entries = [self.entry(files, path) for path in asked["paths"]]
                self.reply([entry for entry in entries if entry])
            else:
                self.missing("Entry")

        def ref(self, repo, kind, name, asked):
            if kind == "tag" and self.command == "POST":
                name, start = asked["tag"], name
            else:
                start = asked.get("startingPoint") or "main"
            if self.command == "DELETE" and name not in repo.refs:
                self.missing("Revision")
            elif self.command == "DELETE":
                del repo.refs[name]
                repo.tags.discard(name)
                self.reply({})
            elif name in repo.refs:
                self.reply({"error": f"Reference {name} exists"}, 409)
            else:
                repo.refs[name] = repo.find(start)
                if kind == "tag":
                    repo.tags.add(name)
                self.reply({}, 201)

        def mode(self, file):
            sample = base64.b64decode(file["sample"])
            lfs = file["size"] >= LFS_FROM or b"\0" in sample
            lfs = lfs and file["path"] != "README.md"  # the card, which is read as text
            return {
                "path": file["path"],
                "uploadMode": "lfs" if lfs else "regular",
                "shouldIgnore": False,
            }

        def commit(self, repo, branch, head, body):
            header, *lines = map(json.loads, body.splitlines())
            parent = header["value"].get("parentCommit")
            if parent is not None and parent != head:
                self.reply({"error": "A commit has happened since. Please refresh."}, 412)
                return
            files = dict(repo.commits[head])
            for line in lines:
                value = line["value"]
                if line["key"] == "file":
                    data = base64.b64decode(value["content"])
                    files[value["path"]] = File(len(data), data)
                elif line["key"] == "lfsFile":
                    if value["oid"] not in hub.objects:
                        self.reply({"error": f"no LFS object {value['oid']}"}, 400)
                        return
                    files[value["path"]] = File(value["size"], sha256=value["oid"])
                else:
                    files.pop(value["path"], None)
            commit = repo.commit(branch, files)
            self.reply({"success": True, "commitOid": commit, "commitUrl": f"{hub.url}/c/{commit}"})

        def batch(self, asked):
            found = []
            for one in asked["objects"]:
                answer = {"oid": one["oid"], "size": one["size"]}
                if one["oid"] not in hub.objects:
                    there = f"{hub.url}/lfs/{one['oid']}"
                    upload = {"href": there, "header": {}}
                    if one["size"] > 4 * hub.part:
                        count = -(-one["size"] // hub.part)
                        whole = f"{there}/{next(hub.uploads)}"  # two may send one object at once
                        names = {f"{i + 1:05d}": f"{whole}/{i + 1}" for i in range(count)}
                        upload = {"href": whole, "header": {"chunk_size": str(hub.part), **names}}
                    verify = {"href": f"{there}/verify", "header": {}}
                    answer["actions"] = {"upload": upload, "verify": verify}
                found.append(answer)
            large = any(
                "chunk_size" in o.get("actions", {}).get("upload", {}).get("header", {})
                for o in found
            )
            self.reply({"transfer": "multipart" if large else "basic", "objects": found})

        def take_object(self, parts, body):
            oid = parts[1]
            if parts[2:] == ["verify"]:
                self.reply({}, 200 if oid in hub.objects else 404)
                return
            if self.command == "PUT" and len(parts) == 4:
                hub.parts.setdefault(parts[2], {})[int(parts[3])] = body
                self.reply(b"", ETag=hashlib.md5(body).hexdigest())
                return
            if self.command == "POST":
                body = b"".join(data for _, data in sorted(hub.parts.pop(parts[2], {}).items()))
            if hashlib.sha256(body).hexdigest() != oid:
                self.reply({"error": "other bytes than the hash says"}, 422)
                return
            hub.objects[oid] = body
            hub.put[oid] += 1
            self.reply({})

        def tree(self, files, below, query):
            below = f"{below}/" if below else ""
            if query.get("recursive", [""])[0].lower() == "true":
                # As the Hub does, the folders are listed too; its client needs them in its cache.
                paths = [path for path in files if path.startswith(below)]
                folders = {str(f) for path in paths for f in PurePosixPath(path).parents}
                names = sorted({*paths, *(f for f in folders if f.startswith(below))} - {"."})
            else:
                inner = (path[len(below) :] for path in files if path.startswith(below))
                names = sorted({below + path.split("/")[0] for path in inner})
            if below and not names:
                self.missing("Entry")
                return
            begin = int(query.get("cursor", ["0"])[0])
            headers = {}
            if begin + PAGE < len(names):
                following = f"cursor={begin + PAGE}&recursive={query.get('recursive', [''])[0]}"
                where = f"{hub.url}{quote(urlsplit(self.path).path)}?{following}"
                headers["Link"] = f'<{where}>; rel="next"'
            self.reply([self.entry(files, name) for name in names[begin : begin + PAGE]], **headers)

        def entry(self, files, path):
            if path in files:
                file = files[path]
                value = {"type": "file", "path": path, "size": file.size, "oid": file.blob}
                if file.sha256:
                    value["lfs"] = {"oid": file.sha256, "size": file.size, "pointerSize": 130}
                return value
            if any(name.startswith(f"{path}/") for name in files):
                return {"type": "directory", "path": path, "oid": "0" * 40, "size": 0}
            return None

        def resolve(self, name, revision, path):
            repo = hub.repos.get(name)
            if repo is None or (repo.private and not self.known([])):
                self.missing("Repo")
                return
            if (commit := repo.find(revision)) is None:
                self.missing("Revision")
                return
            if path not in repo.commits[commit]:
                self.missing("Entry")
                return
            file = repo.commits[commit][path]
            data = hub.content(file)
            headers = {"ETag": f'"{file.sha256 or file.blob}"', "X_Repo_Commit": commit}
            headers |= {"Accept_Ranges": "bytes"}
            asked = self.headers.get("Range")
            status = 200
            if asked:
                first, _, last = asked.removeprefix("bytes=").partition("-")
                first, last = int(first), min(int(last or len(data)), len(data) - 1)
                headers["Content_Range"] = f"bytes {first}-{last}/{len(data)}"
                data, status = data[first : last + 1], 206
            if self.command == "GET":
                hub.sent[path] += len(data)
            try:
                self.reply(data, status, **headers)
            except OSError:  # the client has read enough
                hub.sent[path] -= len(data)
                raise

    return Handler
