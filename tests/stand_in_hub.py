"""A Hugging Face hub on this machine: the part of its HTTP interface that a download uses, and its refusals."""

import hashlib
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote


@dataclass
class Repository:
    """Files of one commit, and what branches and tags lead to it; ``refusal`` is an X-Error-Code for its files."""

    folder: Path
    commit: str = "c0ffee" + 34 * "0"
    names: tuple[str, ...] = ("main",)
    refusal: str | None = None

    def files(self) -> dict[str, Path]:
        paths = (path for path in self.folder.rglob("*") if path.is_file())
        return {path.relative_to(self.folder).as_posix(): path for path in sorted(paths)}


@dataclass
class Hub:
    """What the hub holds, how it misbehaves, and what it has been asked: (method, path, Range header)."""

    repositories: dict[str, list[Repository]]
    url: str = ""
    claimed_sizes: dict[str, int] = field(default_factory=dict)  # by file name
    cut_after: dict[str, int] = field(default_factory=dict)  # by file name: close the connection, once
    broken: set[str] = field(default_factory=set)  # names of files whose content cannot be had
    endless: bool = False  # send weights of ``claimed_sizes`` at 20 MB/s, until the reader leaves
    status: int | None = None  # answer everything with it
    asked: list[tuple[str, str, str | None]] = field(default_factory=list)

    def environment(self, home: Path) -> dict[str, str]:
        """Environment variables that lead a command to this hub, with its cache in ``home``."""
        return {"HF_ENDPOINT": self.url, "HF_HOME": str(home), "HF_HUB_OFFLINE": "0", "HF_TOKEN": ""}

    def downloads(self) -> list[str]:
        """Names of the files whose content has been asked for, in order."""
        return [
            path.rpartition("/")[2]
            for method, path, _ in self.asked
            if method == "GET" and "/resolve/" in path
        ]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def log_message(self, *_: Any) -> None:
        """Say nothing."""

    def do_HEAD(self) -> None:
        self.answer()

    def do_GET(self) -> None:
        self.answer()

    def answer(self) -> None:
        path = unquote(self.path).partition("?")[0]
        self.hub.asked.append((self.command, path, self.headers.get("Range")))
        if self.hub.status is not None:
            return self.refuse(self.hub.status)
        parts = path.strip("/").split("/")
        if parts[:2] == ["api", "models"]:
            return self.describe(
                "/".join(parts[2:4]), parts[4] if len(parts) > 4 else "", "/".join(parts[5:])
            )
        if parts[2:3] == ["resolve"]:
            return self.file("/".join(parts[:2]), parts[3], "/".join(parts[4:]))
        return self.refuse(404)  # the client also asks for things that are no part of a download

    def find(self, name: str, revision: str) -> Repository | None:
        """The commit of a revision; where there is none, the refusal has been sent."""
        commits = self.hub.repositories.get(name)
        if commits is None:
            self.refuse(
                401, "RepoNotFound"
            )  # as the hub does, which does not tell absent ones from private ones
            return None
        found = [commit for commit in commits if revision in (commit.commit, *commit.names)]
        if not found:
            self.refuse(404, "RevisionNotFound")
            return None
        return found[0]

    def describe(self, name: str, what: str, revision: str) -> None:
        repository = self.find(name, revision or "main")
        if repository is None:
            return None
        if what == "tree":
            entries = [
                {
                    "type": "file",
                    "path": path,
                    "size": self.size(file),
                    "oid": hashlib.sha1(path.encode()).hexdigest(),
                }
                for path, file in repository.files().items()
            ]
            return self.send_json(entries)
        siblings = [{"rfilename": path} for path in repository.files()]
        return self.send_json({"id": name, "modelId": name, "sha": repository.commit, "siblings": siblings})

    def file(self, name: str, revision: str, path: str) -> None:
        repository = self.find(name, revision)
        if repository is None:
            return None
        if repository.refusal:
            return self.refuse(403, repository.refusal)
        file = repository.files().get(path)
        if file is None:
            return self.refuse(404, "EntryNotFound")
        if self.command == "GET" and file.name in self.hub.broken:
            return self.refuse(500)
        start = int((self.headers.get("Range") or "bytes=0-").removeprefix("bytes=").partition("-")[0])
        size = self.size(file)
        self.send_response(206 if start else 200)
        self.send_header("ETag", f'"{hashlib.sha256(file.read_bytes()).hexdigest()}"')
        self.send_header("X-Repo-Commit", repository.commit)
        self.send_header("Content-Length", str(size - start))
        if start:
            self.send_header("Content-Range", f"bytes {start}-{size - 1}/{size}")
        self.end_headers()
        if self.command == "GET":
            self.send_content(file, start)
        return None

    def send_content(self, file: Path, start: int) -> None:
        content = file.read_bytes()[start:]
        while self.hub.endless and file.name in self.hub.claimed_sizes:
            try:
                self.wfile.write(bytes(1_000_000))
            except OSError:
                self.close_connection = True
                return
            time.sleep(0.05)
        cut = self.hub.cut_after.pop(file.name, len(content))
        self.wfile.write(content[:cut])
        self.close_connection = cut < len(content)

    def size(self, file: Path) -> int:
        return self.hub.claimed_sizes.get(file.name, file.stat().st_size)

    def refuse(self, status: int, code: str | None = None) -> None:
        self.send_response(status)
        if code:
            self.send_header("X-Error-Code", code)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def send_json(self, value: Any) -> None:
        content = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


@contextmanager
def serving(hub: Hub) -> Iterator[Hub]:
    """The hub behind a port of this machine until the block ends."""
    handler = type("Handler", (_Handler,), {"hub": hub})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        hub.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        try:
            yield hub
        finally:
            server.shutdown()
            thread.join()
