# SPDX-License-Identifier: Apache-2.0
"""bench/packages.py --build BUILD: packages made ready for import, beside uv, in one run.

Nine packages (numpy pandas scipy scikit-learn matplotlib requests flask sqlalchemy boto3). uv comes from the Python
index into a virtual environment below BUILD and works as it does by itself; its cache is warm or empty as ours is, and
PYTHONDONTWRITEBYTECODE is unset for both. Rounds are interleaved, so that a noisy machine is noisy for both; medians
and ratios are of this one run.

first    wheels cached, nothing unpacked: from the shell until the first line of the script runs
last     the same, until the last byte of bytecode is in its place; durable: until all is synced, too
second   unpacked and compiled, the environment is made anew: from the shell until the first line
empty    nothing cached, a daemon that has nothing: run --with pandas -c 'import pandas', shell to exit
covered  of the modules that importing the nine loads, those whose bytecode a first call waited for: guessed from import
         statements, and known from an earlier run; how many files that part has
memory   of the daemon while 50 wheels of 30 MB are installed from an index on loopback, above idle

Prints a table, writes BUILD/bench-packages.json.
"""
import argparse
import base64
import glob
import hashlib
import io
import json
import mmap
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import ground

NINE = "numpy pandas scipy scikit-learn matplotlib requests flask sqlalchemy boto3".split()
TOUCHED = 2 << 30
SCRIPT = "import time; print(time.time())"
IMPORTS = """import numpy, pandas, scipy.stats, sklearn.linear_model, sklearn.ensemble, matplotlib.pyplot
import requests, flask, sqlalchemy, boto3
import json, sys
files = [getattr(m, "__file__", None) or "" for m in list(sys.modules.values())]
print(json.dumps([f.split("/site-packages/")[1] for f in files if "/site-packages/" in f and f.endswith(".py")]))"""


class Pipsqueak:
    def __init__(self, build, base):
        self.build, self.base = build, base
        self.cli = os.path.join(build, "pipsqueak")
        self.store = os.path.join(base, "cache", "store")
        self.env = ground.environment(PIPSQUEAK_DIR=base)
        self.daemon, self.gone = None, 0

    def start(self):
        self.daemon = ground.start_daemon(self.build, self.base, self.env)
        self.run(["-c", "pass"])  # the interpreter sleeps

    def stop(self):
        if self.daemon:
            self.daemon.send_signal(signal.SIGTERM)
            self.daemon.wait(60)
            self.daemon = None

    def run(self, args):
        return subprocess.run([self.cli, "run", *args], env=self.env, check=True, capture_output=True, text=True).stdout

    def until_start(self, dists):
        began = time.time()
        out = self.run([word for dist in dists for word in ("--with", dist)] + ["-c", SCRIPT])
        return began, float(out) - began

    def wait(self, what):
        while not what():
            time.sleep(0.005)

    def complete(self):
        return not os.listdir(os.path.join(self.store, "late"))

    def durable(self):
        return bool(glob.glob(os.path.join(self.store, "facts", "envs.*")))

    def forget(self, *what):
        """What was unpacked goes, the wheels stay. Moved away, not removed: ext4 is slow for a while after much was."""
        self.stop()
        self.gone += 1
        for name in what:
            os.rename(os.path.join(self.store, name), os.path.join(self.base, "gone-%d-%s" % (self.gone, name)))
        os.sync()
        self.start()
        touch_memory()


class Uv:
    def __init__(self, build, base):
        self.program = ground.uv_program(build)
        self.base, self.n = base, 0
        self.env = ground.environment(UV_CACHE_DIR=os.path.join(base, "uv"), UV_PYTHON="/usr/bin/python3")

    def install(self, dists, *options):
        self.n += 1
        venv = os.path.join(self.base, "venv%d" % self.n)
        subprocess.run([self.program, "venv", "-q", venv], env=self.env, check=True)
        os.sync()
        touch_memory()
        began = time.time()
        subprocess.run([self.program, "pip", "install", "-q", "-p", venv, *options, *dists], env=self.env, check=True)
        return time.time() - began

    def empty(self):
        """As a person types it; nothing cached."""
        env = dict(self.env, UV_CACHE_DIR=os.path.join(self.base, "uv-empty%d" % self.n))
        self.n += 1
        began = time.time()
        subprocess.run([self.program, "run", "-q", "--no-project", "--with", "pandas", "python", "-c", "import pandas"],
                       env=env, check=True, cwd=self.base)
        return time.time() - began


def touch_memory():
    """A virtual machine's free memory is its host's until it is touched (3 us a page, measured): whoever comes first
    would pay for all. So it is touched and given back before every clock starts."""
    with mmap.mmap(-1, TOUCHED) as memory:
        for at in range(0, TOUCHED, mmap.PAGESIZE):
            memory[at] = 1


def packages(ours, uv, rounds, add):
    ours.until_start(NINE)
    uv.install(NINE)
    ours.wait(ours.complete)
    for _ in range(rounds):
        ours.forget("wheels", "bytecode", "envs", "late", "facts")
        began, first = ours.until_start(NINE)
        add("first", first)
        ours.wait(ours.complete)
        add("last", time.time() - began)
        ours.wait(ours.durable)
        add("durable", time.time() - began)
        add("uv compile", uv.install(NINE, "--compile-bytecode"))
        ours.forget("envs")
        add("second", ours.until_start(NINE)[1])
        add("uv plain", uv.install(NINE))


def first_part(store):
    """The sources whose bytecode was waited for."""
    found = set()
    for folder, _, names in os.walk(os.path.join(store, "bytecode")):
        part, _, below = os.path.relpath(folder, os.path.join(store, "bytecode")).partition("/")
        if part.endswith(".0"):
            found.update(os.path.join(below.replace("__pycache__", ""), name.split(".")[0] + ".py") for name in names)
    return found


def covered(build, base, add):
    there = os.path.join(base, "covered")
    os.mkdir(there)
    ours = Pipsqueak(build, there)
    ours.start()
    ours.until_start(NINE)  # all is fetched; nothing of it was imported
    ours.wait(ours.complete)
    for how in ("guessed", "known"):
        ours.forget("wheels", "bytecode", "envs", "late", "facts")
        add(how + " first", ours.until_start(NINE)[1])
        ours.wait(ours.complete)
        loaded = set(json.loads(ours.run([word for dist in NINE for word in ("--with", dist)] + ["-c", IMPORTS])))
        part = first_part(ours.store)
        add(how + " loaded", len(loaded))
        add(how + " covered", len(part & loaded))
        add(how + " files", len(part))
    ours.stop()


def empty(build, base, uv, rounds, add):
    for n in range(rounds):
        there = os.path.join(base, "empty%d" % n)
        os.mkdir(there)
        ours = Pipsqueak(build, there)
        ours.start()
        began = time.time()
        ours.run(["--with", "pandas", "-c", "import pandas"])
        add("empty", time.time() - began)
        ours.stop()
        add("uv empty", uv.empty())


def wheel(name, size):
    """One that does not pack: like the libraries that make wheels large."""
    info = name + "-1.0.dist-info"
    files = {name + ".py": b"", name + ".bin": os.urandom(size),
             info + "/METADATA": ("Metadata-Version: 2.1\nName: %s\nVersion: 1.0\n" % name).encode(),
             info + "/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"}
    lines = ["%s,sha256=%s,%d" % (path, base64.urlsafe_b64encode(hashlib.sha256(data).digest()).decode().rstrip("="),
                                  len(data)) for path, data in files.items()]
    files[info + "/RECORD"] = "\n".join([*lines, info + "/RECORD,,", ""]).encode()
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as z:
        for path, data in files.items():
            z.writestr(path, data)
    return out.getvalue()


class Index:
    def __init__(self, base, count, size):
        self.folder = os.path.join(base, "index")
        os.mkdir(self.folder)
        pages = {}
        for n in range(count):
            data, name = wheel("big%d" % n, size), "big%d-1.0-py3-none-any.whl" % n
            with open(os.path.join(self.folder, name), "wb") as f:
                f.write(data)
            pages["big%d" % n] = '<a href="/f/%s#sha256=%s">%s</a>' % (name, hashlib.sha256(data).hexdigest(), name)
        folder = self.folder

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                last = self.path.rstrip("/").rsplit("/", 1)[1]
                if self.path.startswith("/f/"):
                    with open(os.path.join(folder, last), "rb") as f:
                        self.answer(f.read())
                else:
                    self.answer(("<!DOCTYPE html><html><body>%s</body></html>" % pages.get(last, "")).encode())

            def answer(self, body):
                self.send_response(200)
                self.send_header("Content-Type", "text/html")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *args):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = "http://127.0.0.1:%d/simple/" % self.server.server_port
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


def rss_mb(pid):
    with open("/proc/%d/status" % pid) as f:
        return next(int(line.split()[1]) for line in f if line.startswith("VmRSS")) / 1024


def memory(build, base, add, count, size):
    there = os.path.join(base, "memory")
    os.mkdir(there)
    index, ours, top, stop = Index(base, count, size), Pipsqueak(build, there), [0.0], threading.Event()
    ours.start()
    idle = rss_mb(ours.daemon.pid)

    def watch():
        while not stop.wait(0.01):
            top[0] = max(top[0], rss_mb(ours.daemon.pid))

    watcher = threading.Thread(target=watch)
    watcher.start()
    words = [word for n in range(count) for word in ("--with", "big%d" % n)]
    ours.run(["--index-url", index.url, *words, "-c", "pass"])
    stop.set()
    watcher.join()
    ours.stop()
    index.server.shutdown()
    add("memory", top[0] - idle)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", default="build")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", choices=("packages", "covered", "empty", "memory"))
    args = parser.parse_args()
    build, times = os.path.abspath(args.build), {}
    base = tempfile.mkdtemp(prefix="pipsqueak-bench-", dir=build)
    os.chmod(base, 0o755)
    ours, uv = Pipsqueak(build, base), Uv(build, base)

    def add(what, value):
        times.setdefault(what, []).append(value)
        print("%-10s %8.3f" % (what, value), file=sys.stderr)

    try:
        if args.only in (None, "packages"):
            ours.start()
            packages(ours, uv, args.rounds, add)
            ours.stop()
        if args.only in (None, "covered"):
            covered(build, base, add)
        if args.only in (None, "empty"):
            empty(build, base, uv, args.rounds, add)
        if args.only in (None, "memory"):
            memory(build, base, add, 50, 30 << 20)
    finally:
        ours.stop()
        shutil.rmtree(base, ignore_errors=True)
    median = {k: statistics.median(v) for k, v in times.items()}
    rows = [("first import may start, x uv --compile-bytecode", "first", "uv compile", 0.5),
            ("last byte of bytecode, x uv --compile-bytecode", "last", "uv compile", 1.0),
            ("durable, x uv --compile-bytecode (uv does not sync)", "durable", "uv compile", None),
            ("second environment, x uv without bytecode", "second", "uv plain", 0.7),
            ("everything empty, x uv", "empty", "uv empty", 1.0)]
    figures = {}
    for text, a, b, goal in rows:
        if a in median:
            figures[text] = median[a] / median[b]
            print("%-55s %6.2f s / %6.2f s = %5.2f  %s" % (text, median[a], median[b], figures[text],
                                                           "<= %.1f" % goal if goal else ""))
    for how in ("guessed", "known"):
        if how + " covered" in median:
            figures["first part, " + how] = median[how + " covered"] / median[how + " loaded"]
            print("first part of the bytecode, %-7s: %d of %d modules loaded, %d files, %.2f s until the first line" % (
                how, *(median[how + " " + what] for what in ("covered", "loaded", "files", "first"))))
    if "memory" in median:
        figures["daemon's memory above idle, MB"] = median["memory"]
        print("%-55s %6.1f MB  <= 60" % ("daemon's memory above idle, 50 wheels of 30 MB", median["memory"]))
    with open(os.path.join(build, "bench-packages.json"), "w") as f:
        json.dump({"seconds": times, "figures": figures}, f, indent=1)


if __name__ == "__main__":
    main()
