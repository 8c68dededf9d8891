# SPDX-License-Identifier: Apache-2.0
"""bench/daemon.py --build BUILD: the real daemon on 200 functions of ReqBench, each called cold, in one run.

The functions are the first of functions.jsonl that still install from wheels on this host's /usr/bin/python3 and have
modules that can be imported (bench/reqbench.py); their handlers import these. A daemon without a tree is taught by four calls
of each. From its history `pipsqueak fit --memory 2G` makes a tree, and copies of its state are what two daemons start with:

tree        pipsqueakd --memory 2G --tree: when its nodes are there, each function is called once by two clients
root        the same, of pipsqueakd --no-tree: each call is forked from the one interpreter that has imported nothing
fresh       the same handlers in a fresh python3 each, from the same environments, two at a time

`reuse = false`, so every call starts a process; the three take turns after 25 calls each. Then
simulator   what `pipsqueak simulate` says of the tree daemon's own history (each function once): what a call still has to
            import with the tree that the daemon has, with one that is fitted to the same memory, and with none; beside
            the `import` stage of the daemons' Server-Timing in these calls; and what part of the imports without a tree is
            left with it, by both, for this machine may be busier than when the daemon was taught
policy      CPU time of choosing and of thinking about the tree, of two processors' time in the tree's rounds, and of all
            the time since that daemon started
growing     p99 of a bare and of a numpy function, one client, while the tree daemon makes its first 50 nodes, beside
            the same when all is quiet

Prints a table, writes BUILD/bench-daemon.json. --base (2 to 4 GB) is kept, so the second time it takes minutes.
"""
import argparse
import concurrent.futures
import json
import os
import random
import shutil
import statistics
import subprocess
import time

import ground
import reqbench

TEACH = 4  # PROFILES_ENOUGH
PROBES = {"probe-bare": ([], "def handler(event):\n    return 1\n"),
          "probe-numpy": (["numpy==1.26.4"], "import numpy\n\ndef handler(event):\n    return float(numpy.arange(9.).sum())\n")}
FRESH = "import handler; handler.handler({})"
NODES, REST_S = 50, 10
IMPORTED_MS = 10  # who imports for less has its node
CLIENTS = 2
SLICE = 25  # calls of one kind before the next kind's turn: a busy machine is busy for all


def both(clients, names, call):
    """Each name once, by two at a time: seconds, answers in the order of the names."""
    began = time.perf_counter()
    waiting, answers = iter(enumerate(names)), [None] * len(names)

    def work(client):
        for i, name in waiting:  # the iterator is shared: under the GIL each takes the next
            answers[i] = call(client, name)

    with concurrent.futures.ThreadPoolExecutor(CLIENTS) as pool:
        for done in [pool.submit(work, client) for client in clients]:
            done.result()
    return time.perf_counter() - began, answers


class Bench:
    def __init__(self, args):
        self.build, self.base, self.args = os.path.abspath(args.build), os.path.abspath(args.base), args
        self.daemons, self.figures, self.probed = [], {}, []
        self.random = random.Random(1)

    def daemon(self, name, *options):
        made = reqbench.Daemon(self.build, self.base, name, *options)
        self.daemons.append(made)
        return made

    def stop(self):
        for d in self.daemons:
            d.stop()
        self.daemons = []

    def cli(self, d, *words):
        return subprocess.run([d.cli, *map(str, words)], env=d.env, check=True, stdout=subprocess.PIPE, text=True).stdout

    def path(self, *names):
        return os.path.join(self.base, *names)

    def show(self, what, value, goal=""):
        self.figures[what] = value
        print("%-84s %9.2f  %s" % (what, value, goal), flush=True)

    # ---- what is kept in the base ----

    def prepare(self):
        """The functions' names; their packages are in the cache then."""
        d = self.daemon("first", "--no-tree", "--memory", "2G")
        names = list(reqbench.prepare(d, self.args.workload, self.args.functions))
        for name, (requirements, text) in PROBES.items():
            reqbench.write(self.base, {"name": name, "requirements": requirements}, text)
        self.stop()
        return names

    def teach(self, names):
        """A daemon that knows what they load, and how long that takes on this machine now."""
        if self.args.reuse and os.path.exists(self.path("taught", "state")):
            d = self.daemon("taught", "--no-tree", "--memory", "2G")
        else:
            shutil.rmtree(self.path("taught"), ignore_errors=True)
            d = self.daemon("taught", "--no-tree", "--memory", "2G")
            everything = names + list(PROBES)
            _, why = both([None, None], everything, lambda _, name: d.deploy(name))
            if any(why):
                raise RuntimeError("not deployed: %s" % [w for w in zip(everything, why) if w[1]])
            for _ in range(TEACH):
                both([d.client(), d.client()], everything, lambda client, name: client.run(name))
        self.history(d, "history", names)
        self.cli(d, "fit", "--memory", self.args.memory, "--from", self.path("history"), "-o", self.path("tree.json"))
        locks = {fn["name"]: frozenset(fn["dists"]) for fn in d.client().get("/functions")["functions"]}
        self.stop()
        places = reqbench.environments(self.base)
        self.venvs({name: places[locks[name]] for name in names})

    def history(self, d, where, names):
        """Of these functions, each called once; those that it knows."""
        self.cli(d, "history", "-o", self.path(where))
        with open(self.path(where, "functions.jsonl")) as f:
            lines = [json.loads(line) for line in f]
        with open(self.path(where, "functions.jsonl"), "w") as f:
            for line in lines:
                name = line["name"].split()[1]  # "function NAME VERSION TIME"
                if name in names:
                    f.write(json.dumps(dict(line, name=name, calls=1)) + "\n")
        return {line["name"].split()[1] for line in lines} & set(names)

    def copy(self, name):
        shutil.rmtree(self.path(name), ignore_errors=True)
        os.makedirs(self.path(name))
        subprocess.run(["cp", "-a", self.path("taught", "state"), self.path(name, "state")], check=True)

    # ---- growing ----

    def probe(self, client, enough, least=0):
        """Latencies by function until enough() and so many calls; of numpy from when its node is there."""
        took, calls, ready = {name: [] for name in PROBES}, 0, {"probe-bare"}
        while not enough() or calls < least:
            for name in PROBES:
                ms, start, imported = client.run(name)
                self.probed.append((name, ms, start, imported))
                if imported < IMPORTED_MS:
                    ready.add(name)
                if name in ready:
                    took[name].append(ms)
                time.sleep(0.01)
            calls += 1
        return took

    def grow(self, d):
        """Until the tree has been at rest; what calls took meanwhile, and after."""
        client, state = d.client(), {"nodes": None, "looked": 0}
        began = time.monotonic()

        def look():
            """How many nodes there are; asked five times a second, for the answer costs a walk over their memory."""
            now = time.monotonic()
            if now > state["looked"] + 0.2:
                status = client.get("/status")
                nodes = status["nodes"], status["nodes_bytes"]
                if nodes != state["nodes"]:
                    state.update(nodes=nodes, at=now)
                state["looked"] = now
            return state["nodes"][0]

        busy = self.probe(client, lambda: look() > NODES or time.monotonic() - state["at"] > REST_S)
        made = look()
        while time.monotonic() - state["at"] < REST_S and time.monotonic() - began < 600:
            look()
            time.sleep(0.2)
        self.show("growing: seconds until the tree is at rest", state["at"] - began)
        for name in PROBES:
            client.run(name)
        quiet = self.probe(client, lambda: look() > 0, max(len(busy["probe-bare"]), 300))
        self.show("growing: nodes made while calls were measured", made, str(NODES))
        for name in PROBES:
            if len(busy[name]) < 100:
                print("%s: too few calls from a node while the tree grew (%d)" % (name, len(busy[name])))
                continue
            for how, ms in ("while nodes are made", busy[name]), ("quiet", quiet[name]):
                self.show("%s: p50 %s, ms (%d calls)" % (name, how, len(ms)), statistics.median(ms))
                self.show("%s: p99 %s, ms" % (name, how), percentile(ms, 99))
            self.show("%s: p99 while nodes are made: x quiet" % name, percentile(busy[name], 99) / percentile(quiet[name], 99),
                      "<= 1.5")

    # ---- the rounds ----

    def fresh(self, name):
        subprocess.run([self.path("venvs", name, "bin", "python"), "-c", FRESH], env=ground.environment(HOME=self.path("home")),
                       check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=self.path("src", name))

    def venvs(self, envs):
        """The daemon's environments lack an interpreter of their own."""
        shutil.rmtree(self.path("venvs"), ignore_errors=True)
        for name, env in envs.items():
            os.makedirs(self.path("venvs", name, "bin"))
            os.symlink("/usr/bin/python3", self.path("venvs", name, "bin", "python"))
            for entry in os.listdir(env):
                if entry not in ("bin", ".entries"):
                    os.symlink(os.path.join(env, entry), self.path("venvs", name, entry))

    def rounds(self, names, tree, root):
        os.makedirs(self.path("home"), exist_ok=True)
        arms = {"tree": lambda order: both([tree.client(), tree.client()], order, lambda c, n: c.run(n)),
                "root": lambda order: both([root.client(), root.client()], order, lambda c, n: c.run(n)),
                "fresh": lambda order: both([None, None], order, lambda c, n: self.fresh(n))}
        self.took = {arm: [] for arm in arms}
        self.answers = {arm: {name: [] for name in names} for arm in arms}
        self.policy_s = 0
        for number in range(self.args.rounds):
            order, took = self.random.sample(names, len(names)), dict.fromkeys(arms, 0)
            for first in range(0, len(names), SLICE):
                for arm in self.random.sample(sorted(arms), len(arms)):
                    some, before = order[first:first + SLICE], policy_s(tree)
                    seconds, answers = arms[arm](some)
                    took[arm] += seconds
                    self.policy_s += policy_s(tree) - before if arm == "tree" else 0
                    for name, answer in zip(some, answers):
                        self.answers[arm][name].append(answer)
            for arm, seconds in took.items():
                self.took[arm].append(seconds)
            rates = ", ".join("%s %.1f" % (arm, len(names) / seconds) for arm, seconds in took.items())
            print("round %d: %s calls/s" % (number, rates), flush=True)

    def compare(self, names):
        rate = {arm: len(names) / statistics.median(took) for arm, took in self.took.items()}
        for arm, value in rate.items():
            self.show("%s: calls per second" % arm, value)
        self.show("tree: x root", rate["tree"] / rate["root"], ">= 4")
        self.show("tree: x fresh", rate["tree"] / rate["fresh"], ">= 5")
        starts = [a[1] for rows in self.answers["tree"].values() for a in rows]
        self.show("tree: calls forked from a node, %", 100 * (1 - starts.count("cold") / len(starts)))
        for arm in "tree", "root":
            self.show("%s: p50 of a call, ms" % arm, statistics.median(a[0] for rows in self.answers[arm].values() for a in rows))
            self.show("%s: import, mean ms" % arm, self.imported(arm))

    def imported(self, arm, names=None):
        """Mean ms of these functions' calls."""
        return statistics.mean(a[2] for name, rows in self.answers[arm].items() for a in rows if not names or name in names)

    def simulate(self, d, names):
        known = self.history(d, "seen", names)
        policies = "none,fitted,tree:" + self.path("seen", "tree.json")
        text = self.cli(d, "simulate", self.path("seen"), "--memory", self.args.memory, "--json", "--policy", policies)
        rows = {row["policy"]: row["residual_ms"]["mean"] for row in json.loads(text)}
        self.show("simulator: functions of the history", len(known))
        for policy, arm in ("tree.json", "tree"), ("fitted", "tree"), ("none", "root"):
            measured = self.imported(arm, known)
            self.show("simulator, %s: still to import, ms" % policy, rows[policy])
            self.show("the daemon (%s): import of the same calls, ms" % arm, measured)
            self.show("simulator, %s: off that by, %%" % policy, 100 * (rows[policy] / measured - 1), "-15..15")
        # A machine that is busier than when the daemon was taught takes longer for all imports.
        said = rows["tree.json"] / rows["none"]
        left = self.imported("tree", known) / self.imported("root", known)
        self.show("simulator: of the imports without a tree are left with it, %", 100 * said)
        self.show("the daemon: of the imports without a tree are left with it, %", 100 * left)
        self.show("simulator: off that by, %", 100 * (said / left - 1), "-15..15")

    def run(self):
        names = self.prepare()
        self.teach(names)
        for name in "tree", "root":
            self.copy(name)
        tree = self.daemon("tree", "--memory", self.args.memory, "--tree", self.path("tree.json"))
        began = time.monotonic()
        self.grow(tree)
        grown_s = time.monotonic() - began
        self.show("policy: % of two processors since the start", 100 * policy_s(tree) / grown_s / 2)
        status = tree.client().get("/status")
        self.show("tree: nodes", status["nodes"])
        self.show("tree: memory of the nodes, MB", status["nodes_bytes"] / 1e6)
        root = self.daemon("root", "--memory", self.args.memory, "--no-tree")
        self.rounds(names, tree, root)
        self.compare(names)
        self.show("policy: % of two processors in the tree's rounds", 50 * self.policy_s / sum(self.took["tree"]), "<= 2")
        self.simulate(tree, names)


def policy_s(d):
    status = d.client().get("/status")
    return status["choose_cpu_s"] + status["grow_cpu_s"]


def percentile(values, p):
    return sorted(values)[min(len(values) - 1, len(values) * p // 100)]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", default="build")
    parser.add_argument("--base", default="/var/tmp/pipsqueak-bench-daemon")
    parser.add_argument("--workload", default="../shared/workloads/reqbench")
    parser.add_argument("--functions", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--memory", default="2G")
    parser.add_argument("--reuse", action="store_true", help="what was taught the last time counts")
    parser.add_argument("--anew", action="store_true", help="remove what is kept in the base first")
    args = parser.parse_args()
    if args.anew:
        shutil.rmtree(args.base, ignore_errors=True)
    os.makedirs(args.base, exist_ok=True)
    bench = Bench(args)
    try:
        bench.run()
    finally:
        bench.stop()
    with open(os.path.join(args.build, "bench-daemon.json"), "w") as f:
        found = {"figures": bench.figures, "seconds": bench.took, "answers": bench.answers, "probed": bench.probed}
        json.dump(found, f, indent=1)


if __name__ == "__main__":
    main()
