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


def drift(build, workload, seeds=4, calls=8000):
    """Calls until the residual is back, by policy and memory; None: not within the run."""
    back = {}
    for seed in range(seeds):
        args = ["--zipf", 1, "--drift", 0.5, "--calls", calls, "--memory", "1.05G,2G", "--seed", seed]
        for row in json.loads(simulate(build, workload, *args, "--policy", "gdsf,lru,online", "--json")):
            back.setdefault("%s %.2f GB" % (row["policy"], row["allowed_gb"]), []).append(row.get("back_calls"))
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
    back = drift(args.build, args.workload)
    for name, calls in back.items():
        known = [c for c in calls if c is not None]
        print("%-16s back after %s calls, %d of %d" % (name, statistics.mean(known) if known else "-", len(known), len(calls)))
    took = decisions(args.build)
    print(json.dumps({"splits": rows, "drift": back, "decisions": took}))


if __name__ == "__main__":
    main()
