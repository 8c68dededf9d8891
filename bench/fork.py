# SPDX-License-Identifier: Apache-2.0
"""bench/fork.py --build BUILD: what a sandboxed fork costs beside a plain one, in one run.

start       a bare function's first call ever (no spare of its own is ready): from the client's request, over HTTP, to
            the first line of handler.py, less the same way to a handler that waits in a warm process: so from the
            message that asks for a process to the first user instruction; beside an os.fork in a script of `pipsqueak
            run`, from before it to the child's first instruction, which is a plain fork of the same zygote's memory.
            Once with 50 ms between the calls, so that the node has a child ahead, once one call right after the other
throughput  cold calls per second with two clients (`reuse = false`, HTTP and the making of cells included) beside
            fork, handler, exit and wait in two plain processes with the same imports: what the sandbox costs of it;
            the median of five rounds of both, in turns
leaks       the daemon's memory, descriptors, mounts and cgroups after 10,000 forks
memory      private memory (USS) that one more warm pandas instance takes
immortal    CPU of a pandas call in a forked child of CPython 3.12, with immortal objects and without (a second
            daemon, whose pipsqueak_immortal.py is told of no version); skipped where there is no 3.12

Prints a table, writes BUILD/bench-fork.json.
"""
import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import threading
import time

import first
import ground

FIRST_LINE = "import time\nnow = time.monotonic_ns()\ndef handler(e): return [now, time.monotonic_ns()]\n"
PLAIN = """
import mmap, os, time
shared, took = mmap.mmap(-1, 8), []
for _ in range(200):
    began = time.monotonic_ns()
    pid = os.fork()
    if not pid:
        shared[:] = time.monotonic_ns().to_bytes(8, 'little')
        os._exit(0)
    os.waitpid(pid, 0)
    took.append(int.from_bytes(shared[:], 'little') - began)
print(sorted(took)[100])
"""
LOOP = """
import os, time
exec(%r)
count, end = 0, time.monotonic() + %d
while time.monotonic() < end:
    pid = os.fork()
    if not pid:
        handler({})
        os._exit(0)
    os.waitpid(pid, 0)
    count += 1
print(count)
"""
USAGE = """
import resource
def handler(e):
    work(e)
    used = resource.getrusage(resource.RUSAGE_SELF)
    return [(used.ru_utime + used.ru_stime) * 1e3, used.ru_minflt]
"""


class Bench(first.Bench):
    def __init__(self, build, lib=None):
        super().__init__(build)
        self.lib = lib or os.path.join(self.build, "lib")

    def start(self):
        self.daemon = ground.start_daemon(self.build, self.base, self.env, self.lib)

    def put(self, name, text, requires="", settings="", *options):
        where = os.path.join(self.base, "src-" + name)
        os.makedirs(where)
        for file, data in (("handler.py", text), ("requirements.txt", requires), ("pipsqueak.toml", settings)):
            if data:
                with open(os.path.join(where, file), "w") as f:
                    f.write(data)
        subprocess.run([self.cli, "deploy", where, "--name", name, *options], env=self.env, check=True,
                       stdout=subprocess.DEVNULL)

    def invoke(self, name):
        out = subprocess.run([self.cli, "invoke", name, "{}"], env=self.env, check=True, capture_output=True, text=True)
        return json.loads(out.stdout)

    def script(self, text, requires=""):
        words = ["--with", requires] if requires else []
        return subprocess.Popen([self.cli, "run", *words, "-c", text], env=self.env, stdout=subprocess.PIPE, text=True,
                                cwd=self.base)


def starts(bench, name, pause, count=60):
    """Medians, in ms: of first calls, and of second ones."""
    cold, warm = [], []
    for n in range(count):
        bench.put("%s%d" % (name, n), FIRST_LINE)
    for n in range(count):
        time.sleep(pause)
        client = first.Client(bench.api)
        for took, which in (cold, 0), (warm, 1):
            began = time.monotonic_ns()
            took.append(reply(client, "%s%d" % (name, n))[which] - began)
    return statistics.median(cold) / 1e6, statistics.median(warm) / 1e6


def reply(client, name):
    client.sock.sendall(b"POST /run/%s HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n{}" % name.encode())
    return json.loads(client.sock.recv(65536).rpartition(b"\r\n\r\n")[2])


def throughput(bench, kind, rounds=5):
    """Medians: ours, plain, and what ours is less than that, in per cent."""
    both = [one_round(bench, kind) for _ in range(rounds + 1)][1:]  # the first makes spares
    return [statistics.median(values) for values in zip(*[(a, b, 100 * (1 - a / b)) for a, b in both])]


def one_round(bench, kind, seconds=2):
    counts = [0, 0]

    def work(i):
        client, end = first.Client(bench.api), time.monotonic() + seconds
        while time.monotonic() < end:
            client.call("cold-" + kind)
            counts[i] += 1

    threads = [threading.Thread(target=work, args=(i,)) for i in range(2)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    dist, text, _ = first.KINDS[kind]
    loops = [bench.script(LOOP % (text, seconds), dist) for _ in range(2)]
    return sum(counts) / seconds, sum(int(p.communicate()[0]) for p in loops) / seconds


def state(bench):
    pid = bench.daemon.pid
    with open("/proc/%d/status" % pid) as f:
        rss = next(int(line.split()[1]) for line in f if line.startswith("VmRSS")) / 1024
    with open("/proc/%d/mountinfo" % pid) as f:
        mounts = sum(1 for _ in f)
    groups = subprocess.run(["find", "/sys/fs/cgroup", "-type", "d", "-path", "*pipsqueak-%d*" % pid],
                            capture_output=True, text=True).stdout.count("\n")
    return rss, len(os.listdir("/proc/%d/fd" % pid)), mounts, groups


def leaks(bench, forks=10000):
    def many(count):
        def work():
            client = first.Client(bench.api)
            for _ in range(count // 2):
                client.call("cold-bare")

        threads = [threading.Thread(target=work) for _ in range(2)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        time.sleep(1)
        return state(bench)

    return many(1000), many(forks)


def private_mb(pid):
    with open("/proc/%d/smaps_rollup" % pid) as f:
        return sum(int(line.split()[1]) for line in f if line.startswith("Private_")) / 1024


def memory(bench):
    """Of the instances of one function that were called at once; none of them teaches any more (that reads all modules)."""
    bench.put("uss", "import time\n" + first.KINDS["pandas"][1].replace("def handler(e):", "def handler(e):\n    time.sleep(1)"),
              "pandas")
    bench.invoke("uss")
    at_once(bench, "uss", 6)
    time.sleep(65)  # those end; the node has long been there
    before = set(bench.processes())
    at_once(bench, "uss", 3)
    found = [private_mb(pid) for pid in set(bench.processes()) - before if is_python(pid)]
    return sorted(found)[-2]  # spares have not been called


def at_once(bench, name, count):
    calls = [threading.Thread(target=bench.invoke, args=(name,)) for _ in range(count)]
    for t in calls:
        t.start()
    for t in calls:
        t.join()


def is_python(pid):
    try:
        with open("/proc/%d/comm" % pid) as f:
            return f.read().startswith("python")
    except FileNotFoundError:
        return False


def immortal(build):
    """Least CPU of a pandas call with, without; faults with, without. None: there is no 3.12 here."""
    lib = os.path.join(build, "bench-mortal")
    shutil.rmtree(lib, ignore_errors=True)
    shutil.copytree(os.path.join(build, "lib"), lib, ignore=shutil.ignore_patterns("*.p"))
    part = os.path.join(lib, "pipsqueak_immortal.py")
    with open(part) as f:
        text = f.read()
    with open(part, "w") as f:
        f.write(text.replace("VERSIONS = ((3, 12), (3, 13))", "VERSIONS = ()"))
    both, taken = [Bench(build), Bench(build, lib)], ([], [])
    try:
        for bench in both:
            bench.start()
            if bench.script("pass").wait() or subprocess.run([bench.cli, "run", "--python", "3.12", "-c", "pass"], env=bench.env,
                                                             capture_output=True).returncode:
                return None
            bench.put("cpu", first.KINDS["pandas"][1].replace("def handler", "def work") + USAGE, "pandas", "reuse = false\n",
                      "--python", "3.12")
            bench.invoke("cpu")
        time.sleep(6)
        for n in range(50):
            for bench, rows in zip(both, taken):
                row = bench.invoke("cpu")
                rows.extend([row] if n >= 10 else [])
                time.sleep(0.03)
    finally:
        for bench in both:
            bench.stop()
        shutil.rmtree(lib)
    return [min(row[0] for row in rows) for rows in taken] + [statistics.median(row[1] for row in rows) for rows in taken]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", default="build")
    args = parser.parse_args()
    build, figures = os.path.abspath(args.build), {}

    def show(what, value, goal):
        figures[what] = value
        print("%-76s %9.2f  %s" % (what, value, goal), flush=True)

    bench = Bench(build)
    bench.start()
    try:
        bench.prepare()
        plain = statistics.median(int(bench.script(PLAIN).communicate()[0]) for _ in range(3)) / 1e6
        show("plain os.fork to the first instruction, ms", plain, "")
        for text, name, pause in (("", "start", 0.05), (", without a pause", "next", 0)):
            cold, warm = starts(bench, name, pause)
            show("bare start over HTTP to the first user instruction, ms" + text, cold, "")
            show("the same way to a warm handler, ms" + text, warm, "")
            show("bare start: x a plain os.fork" + text, (cold - warm) / plain, "" if text else "<= 2")
        for kind, goal in (("bare", 60), ("numpy", 30), ("pandas", 12)):
            ours, plain, cost = throughput(bench, kind)
            show(kind + ": cold calls per second", ours, "")
            show(kind + ": plain fork and wait per second", plain, "")
            show(kind + ": cost of the sandbox in throughput, %", cost, "<= %d" % goal)
        show("USS of one more warm pandas instance, MB", memory(bench), "<= 8")
        before, after = leaks(bench)  # the warm instances are gone by now
        for what, a, b in zip(("memory, MB", "descriptors", "mounts", "cgroups"), before, after):
            show("10,000 forks: more of the daemon's " + what, b - a, "0")
    finally:
        bench.stop()
    found = immortal(build)
    if found:
        show("CPU of a pandas call on 3.12, immortal: x without", found[0] / found[1], "<= 0.85")
        show("page faults of it: x without", found[2] / found[3], "")
    else:
        print("no CPython 3.12 here: immortal objects are not measured", file=sys.stderr)
    with open(os.path.join(build, "bench-fork.json"), "w") as f:
        json.dump(figures, f, indent=1)


if __name__ == "__main__":
    main()
