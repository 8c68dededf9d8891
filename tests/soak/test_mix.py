# SPDX-License-Identifier: Apache-2.0
"""Everything at once, for minutes: deploys, redeploys, calls, runs, removals, and deaths of zygotes and
instances. Each request is answered once and rightly; at the end there is no more of anything than
at the beginning."""
import collections
import json
import os
import re
import signal
import threading
import time

from soaking import MINUTES, bare, joined, luck, same
from test_kills import package

from conftest import SLOWER, of_daemon, zip_of

SLOWEST = 30  # seconds for any request; the daemon's own deadlines are shorter
SECONDS = max(10, 60 * MINUTES / 6)
NAMES = ["f%d" % n for n in range(6)]
# What a request may be told while others remove, redeploy and kill.
ALLOWED = {200, 204, 404, 409, 429, 500, 502, 503}


# How an interpreter ends that is told to fork or to import when what it talks to has just been killed.
DEATH = re.compile(r"BrokenPipeError|ConnectionResetError|EOFError")


def ends_of_tracebacks(log):
    """What each traceback of a zygote says at its end."""
    inside = False
    for line in log.splitlines():
        said = line.partition("says: ")[2]
        if said.startswith("Traceback"):
            inside = True
        elif inside and said and not said.startswith(" "):
            inside = False
            yield said


class Mix:
    def __init__(self, d, index, chance):
        self.d, self.index, self.chance = d, index, chance
        self.files = [package(index, n) for n in range(4)]
        self.statuses = collections.Counter()
        self.wrong, self.deployed, self.lock = [], collections.defaultdict(set), threading.Lock()
        self.stop = threading.Event()
        self.counter = 0

    def ask(self, what, *request):
        began = time.monotonic()
        reply = self.d.request(*request)
        seconds = time.monotonic() - began
        with self.lock:
            self.statuses[what, reply.status] += 1
            if seconds > SLOWEST * SLOWER:
                self.wrong.append((what, request[:2], "%.0f s" % seconds, reply.status, reply.body[:300]))
            if reply.status not in ALLOWED:
                self.wrong.append((what, reply.status, reply.body[:300]))
        return reply

    def number(self):
        with self.lock:
            self.counter += 1
            return self.counter

    def deploy(self, chance):
        name, mark = chance.choice(NAMES), self.number()
        files = dict(chance.choice(self.files)) if chance.random() < 0.5 else {}
        head = "import pkg%s\n" % files["requirements.txt"][3] if files else ""
        files["handler.py"] = head + "def handler(e): return [%r, %d, e]\n" % (name, mark)
        files["pipsqueak.toml"] = "reuse = %s\nconcurrency = %d\n" % (chance.choice(("true", "false")), chance.choice((1, 4)))
        with self.lock:
            self.deployed[name].add(mark)
        headers = [("Content-Type", "application/zip"), ("X-Pip-Settings", self.index.settings)]
        self.ask("deploy", "PUT", "/functions/" + name, zip_of(files), headers, 120)

    def call(self, chance):
        name, event = chance.choice(NAMES), self.number()
        reply = self.ask("call", "POST", "/run/" + name, b"%d" % event)
        if reply.status == 200:
            said = reply.json
            if said[0] != name or said[1] not in self.deployed[name] or said[2] != event:
                self.wrong.append(("call", name, event, said))

    def remove(self, chance):
        self.ask("remove", "DELETE", "/functions/" + chance.choice(NAMES))

    def look(self, chance):
        path = chance.choice(("/status", "/tree", "/functions", "/functions/f1/logs"))
        self.ask("look", "GET", path)

    def run(self, chance):
        mark = "%d" % self.number()
        more = ["--index-url", self.index.url, "--with", "pkg%d" % chance.randrange(4)] if chance.random() < 0.5 else []
        p = self.d.cli("run", *more, "-c", "import sys; print(sys.argv[1])", mark)
        with self.lock:
            self.statuses["run", p.returncode] += 1
            if p.returncode == 0 and p.stdout != mark + "\n":
                self.wrong.append(("run", mark, p.stdout))
            elif p.returncode and not p.stderr.strip() and p.returncode > 0:
                self.wrong.append(("run", p.returncode, "said nothing"))

    def kill(self, chance):
        """Any interpreter: the root, a node, a spare, an instance."""
        time.sleep(0.3)
        victims = [p for p in of_daemon(self.d.process.pid)[0] if b"bootstrap" in p.words]
        if victims:
            try:
                os.kill(chance.choice(victims).pid, signal.SIGKILL)
            except ProcessLookupError:
                pass

    def work(self, n):
        chance = luck("worker %d" % n)
        ways = [(self.call, 12), (self.deploy, 3), (self.remove, 1), (self.look, 1), (self.run, 2)]
        while not self.stop.is_set():
            way = self.kill if n == 0 else chance.choices([w for w, _ in ways], [m for _, m in ways])[0]
            try:
                way(chance)
            except Exception as e:  # an answer that does not come, or comes broken
                self.wrong.append((way.__name__, repr(e)[:500]))

    def for_seconds(self, seconds):
        self.stop.clear()
        threads = [threading.Thread(target=self.work, args=(n,)) for n in range(7)]
        for t in threads:
            t.start()
        time.sleep(seconds)
        self.stop.set()
        joined(threads, 300)

    def calm(self):
        """All functions go, and what is kept for the next call."""
        for name in NAMES:
            self.d.request("DELETE", "/functions/" + name)
        self.d.becomes(lambda: not any(self.d.get("/status").json[what] for what in
                                       ("instances", "spares", "calls_now", "runs_now")), 60)
        return bare(self.d)


def test_mix(own_cache, index):
    # Deaths that the test itself brings about.
    own_cache.allowed = [r"could not start as a zygote", r"says: Traceback"]
    mix = Mix(own_cache, index, luck("mix"))
    mix.for_seconds(SECONDS / 6)
    begin = mix.calm()
    mix.for_seconds(SECONDS * 5 / 6)
    end = mix.calm()
    print(json.dumps({"%s %s" % k: n for k, n in sorted(mix.statuses.items(), key=str)}), begin, end)
    assert not mix.wrong, mix.wrong[:10]
    strange = [line for line in ends_of_tracebacks(own_cache.log()) if not DEATH.search(line)]
    assert not strange, strange[:10]
    assert mix.statuses["call", 200] > SECONDS and mix.statuses["deploy", 200] > SECONDS / 10
    assert mix.statuses["run", 0] > SECONDS / 20
    own_cache.check_log()
    same(begin, end)
    own_cache.deployed("after", {"handler.py": "def handler(e): return e"})
    assert own_cache.call("after", "all").json == "all"
