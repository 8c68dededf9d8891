# SPDX-License-Identifier: Apache-2.0
"""tree.py WORKLOAD [--build DIR] [--svg FILE]: the policy's figures of docs/TREE.md, as JSON and a table: residual
against memory on six splits, how soon a change of the mix is followed, what a decision takes. Minutes."""

import argparse
import json
import statistics
import subprocess
from pathlib import Path

MEMORY = "600M,800M,1.05G,1.5G,2G,3G,4.2G"
HALF = 440  # functions teach, as many are counted


def simulate(build, workload, *args):
    command = [build / "src/cli/pipsqueak", "simulate", workload, *args]
    return subprocess.run([str(c) for c in command], stdout=subprocess.PIPE, text=True, check=True).stdout


def splits(build, workload, svg):
    trees = ["tree:%s" % p for p in sorted(workload.glob("forklift-*.json"), key=lambda p: len(p.name))]
    policies = "none,sock,lru,gdsf,online,fitted"
    args = ["--splits", 6, "--train", HALF, "--memory", MEMORY, "--policy", ",".join([policies, *trees])]
    return json.loads(simulate(build, workload, *args, "--json", *(["--svg", svg] if svg else [])))


def other_splits(build, workload, first):
    """Is what was fitted to the first six as good on others?"""
    args = ["--splits", 12, "--seed", first, "--train", HALF, "--memory", "1.05G,2G,4.2G", "--policy", "none,gdsf,online,fitted"]
    return json.loads(simulate(build, workload, *args, "--json"))


def drift(build, workload, calls, seeds):
    """Calls until the residual is back, by policy and memory; None: not within the run."""
    back = {}
    for seed in seeds:
        args = ["--zipf", 1, "--drift", 0.5, "--calls", calls, "--memory", "1.05G,2G", "--seed", seed]
        for row in json.loads(simulate(build, workload, *args, "--policy", "gdsf,online", "--json")):
            name = "%s %.2f GB, of %d" % (row["policy"], row["allowed_gb"], calls // 2)
            back.setdefault(name, []).append((row.get("back_calls"), row["residual_ms"]["mean"]))
    return back


def decisions(build):
    subprocess.run(["ninja", "-C", str(build), "bench_policy"], stdout=subprocess.DEVNULL, check=True)
    return json.loads(subprocess.run([build / "bench_policy"], stdout=subprocess.PIPE, text=True, check=True).stdout)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("workload", type=Path)
    parser.add_argument("--build", type=Path, default=Path("build"))
    parser.add_argument("--svg", type=Path)
    args = parser.parse_args()
    rows = splits(args.build, args.workload, args.svg)
    for row in rows:
        print("%-24s %5.2f GB %7.2f ms" % (row["policy"], row["memory_gb"], row["residual_ms"]["mean"]))
    others = {first: other_splits(args.build, args.workload, first) for first in (6, 18)}
    for first, several in others.items():
        for row in several:
            ms = row["residual_ms"]["mean"]
            print("%-24s %5.2f GB %7.2f ms, twelve from %d" % (row["policy"], row["memory_gb"], ms, first))
    back = {**drift(args.build, args.workload, 8000, range(12)), **drift(args.build, args.workload, 32000, range(4))}
    for name, runs in back.items():
        known = [c for c, _ in runs if c is not None]
        print("%-28s back after %s calls; %.2f ms" % (name, [c for c, _ in runs], statistics.mean(ms for _, ms in runs)))
        print("%-28s %d of %d, median %s" % ("", len(known), len(runs), statistics.median(known) if known else "-"))
    took = decisions(args.build)
    print(json.dumps({"splits": rows, "other_splits": others, "drift": back, "decisions": took}, indent=1))


if __name__ == "__main__":
    main()
