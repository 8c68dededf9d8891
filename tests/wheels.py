# SPDX-License-Identifier: Apache-2.0
"""Wheels made by a test, and an index on loopback that offers them."""
import base64
import hashlib
import io
import json
import re
import tarfile
import threading
import time
import warnings
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


def record_line(name, data):
    digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
    return "%s,sha256=%s,%d" % (name, digest, len(data))


def wheel(name, files, version="1.0", requires=(), record=None):
    """A wheel with these files (path -> text or bytes). record: lines to use in place of the right
    ones."""
    info = "%s-%s.dist-info" % (name.replace("-", "_"), version)
    lines = ["Metadata-Version: 2.1", "Name: " + name, "Version: " + version]
    lines += ["Requires-Dist: " + r for r in requires]
    whole = {path: text.encode() if isinstance(text, str) else text for path, text in files.items()}
    whole[info + "/METADATA"] = ("\n".join(lines) + "\n\n").encode()
    whole[info + "/WHEEL"] = b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    lines = record if record is not None else [record_line(p, d) for p, d in whole.items()]
    whole[info + "/RECORD"] = ("\n".join([*lines, info + "/RECORD,,"]) + "\n").encode()
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as z:
        for path, data in whole.items():
            z.writestr(path, data)
    return out.getvalue()


def raw_wheel(members, name="evil", version="1.0", record=None, extra=b""):
    """A zip file as it is told: members are (name or ZipInfo, data), dist-info is added. record: None for the right one,
    or its text."""
    info = "%s-%s.dist-info" % (name, version)
    whole = [*members, (info + "/METADATA", ("Metadata-Version: 2.1\nName: %s\nVersion: %s\n" % (name, version)).encode()),
             (info + "/WHEEL", b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")]
    if record is None:
        record = "".join(record_line(n if isinstance(n, str) else n.filename, d) + "\n" for n, d in whole)
    whole.append((info + "/RECORD", (record + info + "/RECORD,,\n").encode()))
    out = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of names that are there twice
        with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as z:
            for member, data in whole:
                z.writestr(member, data)
    return out.getvalue() + extra


def raw_wheel_of(whole, info):
    """These members and a RECORD that is right, whatever else is said in them."""
    lines = [record_line(path, data) for path, data in whole.items()]
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as z:
        for path, data in whole.items():
            z.writestr(path, data)
        z.writestr(info + "/RECORD", "\n".join([*lines, info + "/RECORD,,", ""]))
    return out.getvalue()


# A backend that lies in the sdist's own tree: build_wheel runs `body`, which may change `files`, `name` and `version`,
# and packs them with this file's wheel().
IN_TREE = """
import os, subprocess, sys, time
import wheels
def get_requires_for_build_wheel(config_settings=None):
    return %(more)r
def build_wheel(out, config_settings=None, metadata_directory=None):
    name, version, files = %(name)r, %(version)r, {"%(module)s.py": "X = 1"}
    %(body)s
    made = "%%s-%%s-py3-none-any.whl" %% (name.replace("-", "_"), version)
    with open(os.path.join(out, made), "wb") as f:
        f.write(wheels.wheel(name, files, version, requires=%(requires)r))
    return made
"""


def archive(members):
    """A tar.gz: (name, data) or (TarInfo, data) pairs."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as tar:
        for member, data in members:
            info = tarfile.TarInfo(member) if isinstance(member, str) else member
            info.size = len(data) if info.isreg() else 0
            tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


def sdist(name, files, version="1.0"):
    """An sdist of these files (path -> text)."""
    top = "%s-%s/" % (name.replace("-", "_"), version)
    files = {"PKG-INFO": "Metadata-Version: 2.1\nName: %s\nVersion: %s\n" % (name, version), **files}
    return archive([(top + path, text.encode()) for path, text in files.items()])


def in_tree(name, body="pass", version="1.0", build_requires=(), more=(), requires=(), files=None):
    """An sdist that needs no backend from outside."""
    with open(__file__) as own:
        helper = own.read()
    backend = IN_TREE % {"name": name, "version": version, "more": list(more), "requires": list(requires),
                         "module": name.replace("-", "_"), "body": body.strip().replace("\n", "\n    ")}
    project = "[build-system]\nrequires = %s\nbuild-backend = 'made'\nbackend-path = ['backend']\n"
    return sdist(name, {"backend/made.py": backend, "backend/wheels.py": helper,
                        "pyproject.toml": project % json.dumps(list(build_requires)), **(files or {})}, version)


class Index:
    """A simple index (HTML). `cut`: so many bytes are missing at a wheel's end. `sha256`: what the page
    says instead of the right one. `status`: answer everything with this.
    `metadata`: what the page offers beside a wheel (PEP 658)."""

    ports = set()  # of every index of this run

    def __init__(self):
        self.files, self.metadata = {}, {}
        self.cut, self.sha256, self.status = 0, None, None
        self.asked = []  # paths
        self.slow = 0  # seconds between the sixteenths of a wheel
        index = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                index.answer(self)

            def handle_one_request(self):
                try:
                    super().handle_one_request()
                except OSError:  # the client had enough
                    self.close_connection = True

            def log_message(self, *args):
                pass

        self.server = self.bind(Handler)
        self.url = "http://127.0.0.1:%d/simple/" % self.server.server_port
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()

    @classmethod
    def bind(cls, handler):
        """On a port that no index had before: its URL would stand for what that one said."""
        turned_down = []
        while True:
            server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
            if server.server_port not in cls.ports:
                break
            turned_down.append(server)
        for other in turned_down:
            other.server_close()
        cls.ports.add(server.server_port)
        return server

    def close(self):
        self.server.shutdown()
        self.server.server_close()

    def add(self, name, files, version="1.0", **kwargs):
        self.files["%s-%s-py3-none-any.whl" % (name.replace("-", "_"), version)] = wheel(
            name, files, version, **kwargs)

    def add_sdist(self, name, data, version="1.0", end=".tar.gz"):
        self.files["%s-%s%s" % (name.replace("-", "_"), version, end)] = data

    @property
    def settings(self):
        return json.dumps({"index_url": self.url, "timeout": 5})

    def page(self, dist):
        lines = ["<!DOCTYPE html><html><body>"]
        for name, data in self.files.items():
            if name.split("-")[0].replace("_", "-") == dist:
                digest = self.sha256 or hashlib.sha256(data).hexdigest()
                beside = self.metadata.get(name)
                lines.append('<a href="/f/%s#sha256=%s"%s>%s</a>' % (name, digest, "" if beside is None else (
                    ' data-core-metadata="sha256=%s"' % hashlib.sha256(beside).hexdigest()), name))
        return "\n".join(lines).encode() if len(lines) > 1 else None

    def answer(self, request):
        self.asked.append(request.path)
        page = re.fullmatch(r"/simple/([a-z0-9-]+)/", request.path)
        files = {**self.files, **{name + ".metadata": data for name, data in self.metadata.items()}}
        body = self.page(page[1]) if page else files.get(request.path[3:])
        status = self.status or (200 if body is not None else 404)
        body = body if status == 200 else b""
        send = body if page else body[:len(body) - self.cut]
        request.send_response(status)
        request.send_header("Content-Type", "text/html" if page else "application/octet-stream")
        request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        step = len(send) // 16 + 1 if self.slow and not page else len(send) + 1
        for at in range(0, len(send), step):
            request.wfile.write(send[at:at + step])
            time.sleep(self.slow)
        if len(send) != len(body):
            request.close_connection = True
