#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Resolving beside uv, in one run: 20 popular requirements, index pages cached, no network asked.

    python3 bench/resolve.py --build build [--rounds N]

Measured from the shell to the lock on disk: `pipsqueak lock --offline --upgrade` (resolves) and `pipsqueak lock` of
the same inputs again (finds), against `uv pip compile --offline`, each with its own cache of the same pages. Prints
a table, and writes BUILD/bench-resolve.json.
"""
import argparse
import json
import os
import re
import statistics
import sys
import time

import ground

TOP = ["boto3", "requests", "pandas", "scikit-learn", "matplotlib", "django", "flask", "fastapi", "sqlalchemy", "celery",
       "jupyterlab", "pytest", "black", "scrapy", "pydantic", "aiohttp", "google-cloud-storage", "azure-storage-blob",
       "opencv-python-headless", "transformers"]
GOAL_RATIO, GOAL_AGAIN_MS = 4.0, 5.0


class Bench(ground.Ground):
    def __init__(self, build):
        super().__init__(build)
        self.env["UV_CACHE_DIR"] = os.path.join(self.base, "uv")
        self.app = os.path.join(self.base, "app")
        os.mkdir(self.app)
        with open(os.path.join(self.app, "requirements.txt"), "w") as f:
            f.write("\n".join(TOP) + "\n")

    def timed(self, args):
        began = time.perf_counter()
        pid = os.posix_spawn(args[0], args, self.env)  # subprocess would add milliseconds
        status = os.waitpid(pid, 0)[1]
        took = (time.perf_counter() - began) * 1e3
        if status:
            sys.exit("failed: " + " ".join(args))
        return took

    def measure(self, rounds):
        ours = [self.cli, "lock", "-q", self.app, "-o", os.path.join(self.base, "ours.toml")]
        uv = [self.uv(), "pip", "compile", "-q", "--no-header", "--no-annotate", "--only-binary", ":all:", "--python",
              "/usr/bin/python3", os.path.join(self.app, "requirements.txt"), "-o", os.path.join(self.base, "theirs.txt")]
        self.timed(ours)  # fills the caches
        self.timed(uv)
        times = {"resolve": [], "again": [], "uv": []}
        for _ in range(rounds):
            if os.path.exists(uv[-1]):
                os.remove(uv[-1])  # uv would take its pins for preferences
            times["uv"].append(self.timed([*uv, "--offline"]))
            times["resolve"].append(self.timed([*ours, "--offline", "--upgrade"]))
            times["again"].append(self.timed(ours))
        return times

    def answers(self):
        """How many dists, and where the two answers differ."""
        with open(os.path.join(self.base, "ours.toml")) as f:
            ours = dict(re.findall(r'\nname = "([^"]*)"\nversion = "([^"]*)"', f.read()))
        with open(os.path.join(self.base, "theirs.txt")) as f:
            theirs = dict(re.findall(r"^([a-z0-9-]+)(?:\[[^]]*\])?==(\S+)", f.read(), re.M))
        names = sorted(set(ours) | set(theirs))
        return len(ours), ["%s %s/%s" % (n, ours.get(n), theirs.get(n)) for n in names if ours.get(n) != theirs.get(n)]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--build", default="build")
    parser.add_argument("--rounds", type=int, default=10)
    args = parser.parse_args()
    bench = Bench(args.build)
    bench.start()
    try:
        times = bench.measure(args.rounds)
        count, differences = bench.answers()
    finally:
        bench.stop()
    median = {k: statistics.median(v) for k, v in times.items()}
    low = {k: min(v) for k, v in times.items()}
    ratio = median["resolve"] / median["uv"]
    print("%d requirements, %d dists; ms, median (min) of %d" % (len(TOP), count, args.rounds))
    rows = (("uv pip compile --offline", "uv", ""), ("pipsqueak lock --offline --upgrade", "resolve", ""),
            ("pipsqueak lock, same inputs", "again", "<= %.0f" % GOAL_AGAIN_MS))
    for title, key, goal in rows:
        print("%-40s %9.1f (%.1f)  %s" % (title, median[key], low[key], goal))
    print("%-40s %9.2f (%.2f)  <= %.0f" % ("x uv", ratio, low["resolve"] / low["uv"], GOAL_RATIO))
    print("versions that differ from uv's: %s" % (", ".join(differences) or "none"))
    with open(os.path.join(args.build, "bench-resolve.json"), "w") as f:
        json.dump({"requirements": TOP, "dists": count, "median_ms": median, "min_ms": low, "ratio": ratio,
                   "differences": differences}, f, indent=1)


if __name__ == "__main__":
    main()
