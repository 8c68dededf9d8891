# SPDX-License-Identifier: Apache-2.0
"""Functions of ReqBench (shared/workloads/reqbench) that still install today, deployed to a daemon.

BASE keeps all that took long, so that a bench can be repeated in minutes:
  cache/        packages, for all daemons (pipsqueakd --cache)
  first/        the directory of the daemon that was taught
  src/NAME/     each function: imports its modules, those that can be imported
  tried.jsonl   what came of each function, in the order of functions.jsonl: its modules, or why it was left out
"""
import concurrent.futures
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time

import ground

PROBE = """
def handler(event):
    found = []
    for name in %r:
        try:
            __import__(name)
            found.append(name)
        except BaseException:
            pass
    return found
"""
HANDLER = "%s\n\ndef handler(event):\n    return 1\n"
SETTINGS = "reuse = false\ntimeout = 60\nmemory = \"1G\"\n"
GIGABYTES = ("nvidia-", "torch==", "triton==")  # of libraries for graphics cards
DEPLOY_S = 300


class Client:
    """Keep-alive HTTP over a daemon's socket."""

    def __init__(self, path):
        self.path, self.sock = path, None

    def ask(self, method, route, body=b""):
        """Status, headers as text, body; what it took in ms."""
        began = time.perf_counter()
        if not self.sock:
            self.sock = socket.socket(socket.AF_UNIX)
            self.sock.connect(self.path)
        self.sock.sendall(b"%s %s HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n%s"
                          % (method, route.encode(), len(body), body))
        data = b""
        while b"\r\n\r\n" not in data:
            block = self.sock.recv(1 << 16)
            if not block:
                raise ConnectionError("the daemon went away")
            data += block
        head, _, rest = data.partition(b"\r\n\r\n")
        length = int(re.search(rb"Content-Length: (\d+)", head).group(1))
        while len(rest) < length:
            rest += self.sock.recv(1 << 16)
        if re.search(rb"\r\nConnection: close", head, re.I):
            self.sock.close()
            self.sock = None
        return int(head.split()[1]), head.decode(), rest, (time.perf_counter() - began) * 1e3

    def get(self, route):
        return json.loads(self.ask(b"GET", route)[2])

    def run(self, name):
        """(ms, start, ms of the import as the daemon saw it); an error ends the bench."""
        status, head, body, took = self.ask(b"POST", "/run/" + name, b"{}")
        if status != 200:
            raise RuntimeError("%s: %s" % (name, body.decode()[-600:]))
        start = re.search(r'start;desc="(\w+)"', head).group(1)
        stage = re.search(r"[ ,]import;dur=([\d.]+)", head)
        return took, start, float(stage.group(1)) if stage else 0.0


class Daemon:
    """One that shares BASE/cache; its directory is BASE/NAME."""

    def __init__(self, build, base, name, *options):
        self.build, self.base, self.dir = os.path.abspath(build), base, os.path.join(base, name)
        os.makedirs(self.dir, exist_ok=True)
        os.chmod(self.dir, 0o755)
        self.env = ground.environment(PIPSQUEAK_DIR=self.dir)
        self.cli = os.path.join(self.build, "pipsqueak")
        self.api = os.path.join(self.dir, "run", "api.sock")
        self.process = subprocess.Popen(
            [os.path.join(self.build, "pipsqueakd"), "--dir", self.dir, "--lib", os.path.join(self.build, "lib"), "--cache",
             os.path.join(base, "cache"), *options],
            stdout=subprocess.PIPE, stderr=open(os.path.join(self.dir, "log"), "a"), env=self.env)
        if not self.process.stdout.readline():
            with open(os.path.join(self.dir, "log")) as f:
                sys.exit(f.read()[-3000:])

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(60)

    def client(self):
        return Client(self.api)

    def deploy(self, name):
        """None, or why not."""
        where = os.path.join(self.base, "src", name)
        try:
            made = subprocess.run([self.cli, "deploy", where, "--name", name], env=self.env, capture_output=True, text=True,
                                  timeout=DEPLOY_S)
        except subprocess.TimeoutExpired:
            return "not installed within %d s" % DEPLOY_S
        return None if made.returncode == 0 else made.stderr.strip()[-300:] or "exit code %d" % made.returncode


def write(base, function, text):
    where = os.path.join(base, "src", function["name"])
    shutil.rmtree(where, ignore_errors=True)
    os.makedirs(where)
    for file, data in (("handler.py", text), ("requirements.txt", "\n".join(function["requirements"]) + "\n"),
                       ("pipsqueak.toml", SETTINGS)):
        with open(os.path.join(where, file), "w") as f:
            f.write(data)


def attempt(daemon, function):
    """Deploys it with the modules that can be imported in its sandbox; the line for tried.jsonl."""
    name, line = function["name"], {"name": function["name"]}
    if not function["modules"] or any(r.startswith(GIGABYTES) for r in function["requirements"]):
        return dict(line, why="no modules, or gigabytes for graphics cards")
    write(daemon.base, function, PROBE % function["modules"])
    why = daemon.deploy(name)
    if why:
        return dict(line, why=why)
    try:
        status, _, body, _ = daemon.client().ask(b"POST", "/run/" + name, b"{}")
    except ConnectionError as e:
        status, body = 0, str(e).encode()
    modules = json.loads(body) if status == 200 else []
    if not modules:
        return dict(line, why="none of its modules can be imported: " + body.decode()[-300:])
    write(daemon.base, function, HANDLER % "\n".join("import %s" % m for m in modules))
    why = daemon.deploy(name)
    if not why:
        status, _, body, _ = daemon.client().ask(b"POST", "/run/" + name, b"{}")
        why = None if status == 200 else body.decode()[-300:]
    return dict(line, why=why) if why else dict(line, modules=modules)


def prepare(daemon, workload, count):
    """The first `count` functions that work: {name: modules}. What was tried before is not tried again."""
    with open(os.path.join(workload, "functions.jsonl")) as f:
        functions = [json.loads(line) for line in f]
    path, tried = os.path.join(daemon.base, "tried.jsonl"), {}
    if os.path.exists(path):
        with open(path) as f:
            tried = {line["name"]: line for line in map(json.loads, f)}
    waiting = iter([fn for fn in functions if fn["name"] not in tried])
    with concurrent.futures.ThreadPoolExecutor(2) as pool, open(path, "a") as f:
        while sum("modules" in line for line in tried.values()) < count:
            batch = [fn for _, fn in zip(range(8), waiting)]
            if not batch:
                sys.exit("only %d functions work" % sum("modules" in line for line in tried.values()))
            for line in pool.map(lambda fn: attempt(daemon, fn), batch):
                tried[line["name"]] = line
                f.write(json.dumps(line) + "\n")
                f.flush()
            print("%d of %d tried work" % (sum("modules" in t for t in tried.values()), len(tried)), file=sys.stderr)
    good = [fn["name"] for fn in functions if "modules" in tried.get(fn["name"], {})][:count]
    return {name: tried[name]["modules"] for name in good}


def environments(base):
    """What each has, to where it is."""
    found, envs = {}, os.path.join(base, "cache", "store", "envs")
    for name in os.listdir(envs):
        lib = os.path.join(envs, name, "lib")
        site = os.path.join(lib, os.listdir(lib)[0], "site-packages")
        dists = (d[:-len(".dist-info")].rsplit("-", 1) for d in os.listdir(site) if d.endswith(".dist-info"))
        found[frozenset(plain(n, v) for n, v in dists)] = os.path.join(envs, name)
    return found


def plain(name, version):
    return re.sub(r"[-_.]+", "-", name).lower() + " " + version
