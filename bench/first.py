# SPDX-License-Identifier: Apache-2.0
"""bench/first.py --build BUILD: cold starts, scripts and warm calls beside their peers, in one run.

For a bare, a numpy and a pandas function: forked through HTTP (`reuse = false`), warm through HTTP, as
`pipsqueak run` of a PEP 723 script; next to a fresh python3 with the same wheels and bytecode, and to
`uv run` of the same script (uv from the Python index, its environment cached, bytecode present). Rounds are
interleaved, so that a noisy machine is noisy for all; medians and ratios are of this one run. Also bare cold
starts per second with two clients, a plain os.fork of a bare python3 for scale, and the CPU of an idle daemon
with 20 sleeping interpreters. Prints a table, writes BUILD/bench-first.json.
"""
import argparse
import json
import os
import re
import socket
import statistics
import subprocess
import sys
import threading
import time

import ground

KINDS = {
    "bare": ("", "def handler(e): return e\n", "print(1)\n"),
    "numpy": ("numpy", "import numpy as np\ndef handler(e): return float(np.arange(9.).reshape(3, 3).sum())\n",
              "import numpy as np\nprint(np.arange(9.).reshape(3, 3).sum())\n"),
    "pandas": ("pandas", "import pandas as pd\ndef handler(e):\n    return pd.DataFrame({'a': [1, 2, 2], 'b': [1., 2., 3.]})"
               ".groupby('a').sum().to_json()\n",
               "import pandas as pd\nprint(pd.DataFrame({'a': [1, 2, 2], 'b': [1., 2., 3.]}).groupby('a').sum().to_json())\n"),
}


class Client:
    """Keep-alive HTTP over the daemon's socket: the client is not what is measured."""

    def __init__(self, path):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(path)

    def call(self, name, body=b"{}"):
        began = time.perf_counter()
        self.sock.sendall(b"POST /run/%s HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n%s"
                          % (name.encode(), len(body), body))
        data = b""
        while b"\r\n\r\n" not in data:
            data += self.sock.recv(65536)
        head, _, rest = data.partition(b"\r\n\r\n")
        length = int(re.search(rb"Content-Length: (\d+)", head).group(1))
        while len(rest) < length:
            rest += self.sock.recv(65536)
        if not head.startswith(b"HTTP/1.1 200"):
            sys.exit("%s: %s" % (name, rest.decode()))
        return (time.perf_counter() - began) * 1e3


def timed(command, env, cwd):
    began = time.perf_counter()
    subprocess.run(command, env=env, cwd=cwd, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return (time.perf_counter() - began) * 1e3


def fork_once():
    began = time.perf_counter()
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)
    return (time.perf_counter() - began) * 1e3


class Bench(ground.Ground):
    def __init__(self, build):
        super().__init__(build)
        self.api = os.path.join(self.base, "run", "api.sock")
        self.times = {}

    def deploy(self, name, kind, settings):
        where = os.path.join(self.base, "src-" + name)
        os.mkdir(where)
        files = {"handler.py": KINDS[kind][1], "pipsqueak.toml": settings}
        if KINDS[kind][0]:
            files["requirements.txt"] = KINDS[kind][0]
        for file, text in files.items():
            with open(os.path.join(where, file), "w") as f:
                f.write(text)
        subprocess.run([self.cli, "deploy", where, "--name", name], env=self.env, check=True, stdout=subprocess.DEVNULL)

    def prepare(self):
        self.scripts = os.path.join(self.base, "scripts")
        os.mkdir(self.scripts)
        for kind, (dist, _, script) in KINDS.items():
            self.deploy("cold-" + kind, kind, "reuse = false\n")
            self.deploy("warm-" + kind, kind, "")
            block = "# /// script\n# dependencies = [%s]\n# ///\n" % ("'%s'" % dist if dist else "")
            with open(os.path.join(self.scripts, "script_" + kind + ".py"), "w") as f:
                f.write(block + script)
        client = Client(self.api)
        for _ in range(3):  # first calls make the nodes
            for kind in KINDS:
                client.call("cold-" + kind)
                client.call("warm-" + kind)
                timed([self.cli, "run", "script_" + kind + ".py"], self.env, self.scripts)
            time.sleep(2)

    def site(self, kind):
        """The environment tree that the daemon built for this kind: same wheels, same bytecode."""
        envs = os.path.join(self.base, "cache", "store", "envs")
        for name in os.listdir(envs):
            lib = os.path.join(envs, name, "lib")
            site = os.path.join(lib, os.listdir(lib)[0], "site-packages")
            if os.path.isdir(os.path.join(site, "pandas" if kind == "pandas" else "numpy")) and (
                    kind == "pandas" or not os.path.isdir(os.path.join(site, "pandas"))):
                return site
        return self.base

    def add(self, what, value):
        self.times.setdefault(what, []).append(value)

    def measure(self, rounds):
        uv, client = self.uv(), Client(self.api)
        uv_env = dict(self.env, UV_CACHE_DIR=os.path.join(self.base, "uv"), UV_PYTHON="/usr/bin/python3",
                      UV_COMPILE_BYTECODE="1")
        site_env = {k: dict(self.env, PYTHONPATH=self.site(k)) for k in KINDS}
        for kind in KINDS:
            timed([uv, "run", "-q", "script_" + kind + ".py"], uv_env, self.scripts)
        for _ in range(rounds):
            for kind in KINDS:
                for _ in range(5):
                    self.add("http forked " + kind, client.call("cold-" + kind))
                    time.sleep(0.02)  # the next spare is forked meanwhile: a warm call is not to wait for that
                    self.add("http warm " + kind, client.call("warm-" + kind))
                    self.add("os.fork", fork_once())
                self.add("run " + kind, timed([self.cli, "run", "script_" + kind + ".py"], self.env, self.scripts))
                self.add("python3 " + kind, timed(["/usr/bin/python3", "script_" + kind + ".py"], site_env[kind], self.scripts))
                self.add("uv run " + kind, timed([uv, "run", "-q", "script_" + kind + ".py"], uv_env, self.scripts))

    def throughput(self, seconds=5):
        counts = [0, 0]

        def work(i):
            client, end = Client(self.api), time.monotonic() + seconds
            while time.monotonic() < end:
                client.call("cold-bare")
                counts[i] += 1

        threads = [threading.Thread(target=work, args=(i,)) for i in range(2)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        return sum(counts) / seconds

    @staticmethod
    def plain_forks(seconds=3):
        """What this machine does at best: two bare interpreters that fork and wait, forks per second."""
        code = ("import os, time\nn, end = 0, time.monotonic() + %d\nwhile time.monotonic() < end:\n"
                "    pid = os.fork()\n    if not pid: os._exit(0)\n    os.waitpid(pid, 0)\n    n += 1\nprint(n)" % seconds)
        both = [subprocess.Popen(["/usr/bin/python3", "-I", "-S", "-c", code], stdout=subprocess.PIPE) for _ in range(2)]
        return sum(int(p.communicate()[0]) for p in both) / seconds

    def processes(self):
        return [int(p) for p in os.listdir("/proc") if p.isdigit() and self.parent(p) == self.daemon.pid]

    @staticmethod
    def parent(pid):
        try:
            with open("/proc/%s/stat" % pid) as f:
                return int(f.read().rsplit(")", 1)[1].split()[1])
        except OSError:
            return 0

    @staticmethod
    def ticks(pid):
        try:
            with open("/proc/%d/stat" % pid) as f:
                fields = f.read().rsplit(")", 1)[1].split()
            return int(fields[11]) + int(fields[12])
        except OSError:
            return 0

    def idle(self, seconds=10):
        """CPU of the daemon and all its processes while 20 interpreters sleep, in percent of a core."""
        client, modules = Client(self.api), ("csv", "decimal", "fractions", "sqlite3", "xml.dom.minidom", "http.client",
                                             "email.mime.text", "unittest", "tarfile", "zipfile", "asyncio", "logging.config",
                                             "multiprocessing.pool", "pydoc", "doctest", "difflib", "ftplib", "imaplib",
                                             "smtplib", "xmlrpc.client", "wsgiref.simple_server", "turtledemo", "mailbox")
        for i, module in enumerate(modules):
            where = os.path.join(self.base, "idle%d" % i)
            os.mkdir(where)
            with open(os.path.join(where, "handler.py"), "w") as f:
                f.write("import %s\ndef handler(e): return 1\n" % module)
            subprocess.run([self.cli, "deploy", where], env=self.env, check=True, stdout=subprocess.DEVNULL)
            try:
                client.call("idle%d" % i)
            except SystemExit:
                client = Client(self.api)
        time.sleep(75)  # warm instances end after a minute
        tree = json.loads(subprocess.run([self.cli, "tree", "--json"], env=self.env, capture_output=True).stdout)

        def count(node):
            return 1 + sum(count(c) for c in node["children"])

        sleeping = sum(count(r) for r in tree["roots"])
        pids = [self.daemon.pid, *self.processes()]
        before = sum(map(self.ticks, pids))
        time.sleep(seconds)
        used = sum(map(self.ticks, pids)) - before
        return sleeping, 100.0 * used / os.sysconf("SC_CLK_TCK") / seconds


def table(median, rate, forks, idle):
    print("%-10s %12s %12s %12s %12s %12s" % ("ms, median", "http forked", "http warm", "run", "python3", "uv run"))
    for kind in KINDS:
        print("%-10s %12.2f %12.2f %12.2f %12.2f %12.2f" % (
            (kind,) + tuple(median["%s %s" % (what, kind)] for what in ("http forked", "http warm", "run", "python3", "uv run"))))
    print("plain os.fork of a bare python3 with wait: %.2f ms" % median["os.fork"])
    rows = (("pandas forked over HTTP: x faster than a fresh process",
             median["python3 pandas"] / median["http forked pandas"], ">= 25"),
            ("pandas `pipsqueak run`: x faster than `uv run`", median["uv run pandas"] / median["run pandas"], ">= 20"),
            ("bare forked over HTTP, p50 ms", median["http forked bare"], "<= 1.2"),
            ("bare forked over HTTP: x a plain os.fork", median["http forked bare"] / median["os.fork"], ""),
            ("bare cold starts per second, 2 clients", rate, ">= 600"),
            ("plain os.fork and wait of a bare python3 per second, 2 processes", forks, ""),
            ("plain forks for one cold start", forks / rate, ""),
            ("CPU %% of an idle daemon with %d zygotes" % idle[0], idle[1], "0"))
    for what, value, goal in rows:
        print("%-66s %8.2f  %s" % (what, value, goal))
    return {what: value for what, value, _ in rows}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--build", default="build")
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--no-idle", action="store_true", help="skip the idle measurement (90 s)")
    args = parser.parse_args()
    bench = Bench(args.build)
    bench.start()
    try:
        bench.prepare()
        bench.measure(args.rounds)
        rate, forks = bench.throughput(), bench.plain_forks()
        idle = (0, 0.0) if args.no_idle else bench.idle()
        median = {k: statistics.median(v) for k, v in bench.times.items()}
        ratios = table(median, rate, forks, idle)
        with open(os.path.join(args.build, "bench-first.json"), "w") as f:
            low = {k: min(v) for k, v in bench.times.items()}
            json.dump({"median_ms": median, "min_ms": low, "figures": ratios}, f, indent=1)
    finally:
        bench.stop()


if __name__ == "__main__":
    main()
