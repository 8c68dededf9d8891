# SPDX-License-Identifier: Apache-2.0
"""A package index made for the test, hostile where asked, and the tool that drives src/index."""

import functools
import hashlib
import html
import io
import json
import os
import re
import subprocess
import sys
import threading
import zipfile
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BUILD = Path(os.environ.get("PIPSQUEAK_BUILD", ROOT / "build"))
JSON_TYPE = "application/vnd.pypi.simple.v1+json"


def make_wheel(name, version="1.0", requires=(), python=None, extras=(), padding=0) -> bytes:
    """A wheel that is whole enough to be resolved; padding: bytes that cannot be packed."""
    lines = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}"]
    lines += [f"Requires-Dist: {line}" for line in requires]
    lines += [f"Provides-Extra: {extra}" for extra in extras]
    if python:
        lines.append(f"Requires-Python: {python}")
    info = f"{name.replace('-', '_')}-{version}.dist-info"
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as z:
        if padding:
            z.writestr(f"{name}/data.bin", os.urandom(padding))
        z.writestr(f"{info}/METADATA", "\n".join(lines) + "\n\nA description.\n")
        z.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\n")
    return out.getvalue()


@dataclass
class File:
    filename: str
    data: bytes
    python: str = None
    yanked: bool = False
    sha256: str = None  # as the page says; "": not said
    core: bytes = None  # the metadata file beside the wheel
    uploaded: str = None
    ranges: bool = True
    cut: int = 0  # so many bytes are missing, each time
    fail: list = field(default_factory=list)  # statuses to answer first


class LocalIndex:
    """Pages and files by path; `asked` lists every request as (path, Range header)."""

    def __init__(self):
        self.files = {}  # dist -> list of File
        self.routes = {}  # path -> function(handler)
        self.asked = []
        self.html = False
        self.auth = None
        self.fail = {}  # path -> list of statuses to answer first
        index = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                index.serve(self)

            def log_message(self, *args):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.host = f"127.0.0.1:{self.server.server_port}"
        self.url = f"http://{self.host}/simple"
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()

    def close(self):
        self.server.shutdown()
        self.server.server_close()

    def add(self, name, version="1.0", tags="py3-none-any", **options) -> File:
        keys = ("requires", "extras", "padding")
        made = {key: options.pop(key) for key in keys if key in options}
        data = make_wheel(name, version, python=options.get("python"), **made)
        file = File(f"{name.replace('-', '_')}-{version}-{tags}.whl", data, **options)
        self.files.setdefault(name, []).append(file)
        return file

    def sha256(self, file: File) -> str:
        if file.sha256 is not None:
            return file.sha256
        return hashlib.sha256(file.data).hexdigest()

    def page_json(self, name):
        listed = []
        for file in self.files[name]:
            sha256 = self.sha256(file)
            entry = {"filename": file.filename, "url": f"/files/{file.filename}"}
            entry["hashes"] = {"sha256": sha256} if sha256 else {}
            entry.update({"size": len(file.data), "yanked": file.yanked})
            if file.python:
                entry["requires-python"] = file.python
            if file.uploaded:
                entry["upload-time"] = file.uploaded
            if file.core is not None:
                entry["core-metadata"] = {"sha256": hashlib.sha256(file.core).hexdigest()}
            listed.append(entry)
        page = {"meta": {"api-version": "1.1"}, "name": name, "files": listed}
        return json.dumps(page).encode()

    def page_html(self, name):
        anchors = []
        for file in self.files[name]:
            sha256 = self.sha256(file)
            href = f"../../files/{file.filename}" + (f"#sha256={sha256}" if sha256 else "")
            more = f' data-requires-python="{html.escape(file.python)}"' if file.python else ""
            more += ' data-yanked=""' if file.yanked else ""
            anchors.append(f'<a href="{href}"{more}>{file.filename}</a><br>')
        return ("<!DOCTYPE html><html><body>" + "\n".join(anchors)).encode()

    def answer(self, handler, status, body=b"", **headers):
        handler.send_response(status)
        handler.send_header("Content-Length", str(len(body)))
        for key, value in headers.items():
            handler.send_header(key.replace("_", "-"), value)
        handler.end_headers()
        handler.wfile.write(body)

    def serve(self, handler):
        path = handler.path
        self.asked.append((path, handler.headers.get("Range")))
        if self.auth and handler.headers.get("Authorization") != self.auth:
            return self.answer(handler, 401)
        if self.fail.get(path):
            return self.answer(handler, self.fail[path].pop(0))
        if path in self.routes:
            return self.routes[path](handler)
        page = re.fullmatch(r"/simple/([a-z0-9-]+)/", path)
        if page and page[1] in self.files:
            if self.html:
                return self.answer(handler, 200, self.page_html(page[1]), Content_Type="text/html")
            return self.answer(handler, 200, self.page_json(page[1]), Content_Type=JSON_TYPE)
        name = path.rpartition("/")[2]
        for file in (f for files in self.files.values() for f in files):
            if path == f"/files/{file.filename}":
                return self.serve_file(handler, file)
            if name == f"{file.filename}.metadata" and file.core is not None:
                return self.answer(handler, 200, file.core)
        return self.answer(handler, 404)

    def serve_file(self, handler, file):
        if file.fail:
            return self.answer(handler, file.fail.pop(0))
        wanted = re.fullmatch(r"bytes=(\d*)-(\d*)", handler.headers.get("Range", ""))
        if wanted and file.ranges and wanted[2]:
            size = len(file.data)
            first = int(wanted[1]) if wanted[1] else max(0, size - int(wanted[2]))
            last = min(int(wanted[2]), size - 1) if wanted[1] else size - 1
            part = file.data[first : last + 1]
            place = f"bytes {first}-{last}/{size}"
            return self.answer(handler, 206, part, Content_Range=place)
        if file.cut:
            handler.send_response(200)
            handler.send_header("Content-Length", str(len(file.data)))
            handler.end_headers()
            handler.wfile.write(file.data[: -file.cut])
            handler.close_connection = True
            return None
        return self.answer(handler, 200, file.data)

    def downloads(self, file) -> list:
        return [r for path, r in self.asked if path == f"/files/{file.filename}"]


@pytest.fixture
def index():
    served = LocalIndex()
    yield served
    served.close()


@dataclass
class Answer:
    status: int
    lock: dict
    text: str
    peak_mb: float

    @property
    def versions(self) -> dict:
        return {dist["name"]: dist["version"] for dist in self.lock["dists"]}


@functools.cache
def described() -> str:
    told = ["/usr/bin/python3", ROOT / "python/pyinfo.py"]
    return subprocess.run(told, check=True, capture_output=True, text=True).stdout


def python_info(**changes) -> dict:
    """This machine, CPython 3.11, as pyinfo.py would say."""
    return {**json.loads(described()), **changes}


class Tool:
    def __init__(self, where: Path, index: LocalIndex):
        self.where = where
        self.alone = True  # on its cache
        self.cache = where / "cache"
        self.settings = {"index_url": index.url, "timeout": 5}
        self.info = python_info()
        self.resolver = f"{ROOT / 'python'}:{ROOT / 'tests/unit_py/standin'}"

    def command(self, *args, **texts) -> list:
        paths = {"info": json.dumps(self.info), "settings": json.dumps(self.settings), **texts}
        options = []
        for key, text in paths.items():
            path = self.where / f"{key}-{threading.get_ident()}"
            path.write_text(text)
            options += [f"--{key}", str(path)]
        tool = [BUILD / "tests/unit/index_tool", "--cache", self.cache, *options]
        return [*tool, "--resolver", self.resolver, *args]

    def __call__(self, *args, **texts) -> Answer:
        """texts: requirements, pyproject, pep723, pylock, inputs."""
        done = subprocess.run(self.command(*args, **texts), capture_output=True, text=True, timeout=120)
        assert "Traceback" not in done.stderr and "Sanitizer" not in done.stderr, done.stderr
        assert done.returncode != 99 and done.returncode >= 0, done.stderr
        peak = re.search(r"^peak (\d+) KiB$", done.stderr, re.M)
        left = list((self.cache / "tmp").iterdir()) if (self.cache / "tmp").exists() else []
        assert left == [] or not self.alone, "a temporary file is left behind"
        lock = json.loads(done.stdout) if done.returncode == 0 else None
        return Answer(done.returncode, lock, done.stderr, int(peak[1]) / 1024 if peak else 0)


@pytest.fixture
def tool(tmp_path, index):
    return Tool(tmp_path, index)


sys.dont_write_bytecode = True
