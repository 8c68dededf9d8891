# SPDX-License-Identifier: Apache-2.0
"""bench/warm.py --build BUILD [DIST ...]: what each warm-up line of data/warm.json gains, in one run.

For each dist two daemons, of which one has no lines. In each a function that imports it and is called until its node
sleeps; then cold starts (`reuse = false`), taken in turns, of which the function says how long its first use of the dist
took. Least and median of all rounds in ms, what the lines add to the node in MB, and how long it took there. Prints a table,
writes BUILD/bench-warm.json. tests/e2e/test_warm.py asks the same functions whether they answer as a fresh process.
"""
import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import time

import ground

CLIENT = "s = boto3.client('%s', region_name='eu-west-1', aws_access_key_id='x', aws_secret_access_key='y')\n"
# dist -> requirements, first use. What it imports at the top is imported before the clock starts.
USES = {
    "botocore": ("boto3", "import boto3", CLIENT % "sqs" + "return s.meta.endpoint_url"),
    "boto3": ("boto3", "import boto3", CLIENT % "s3" + "return sorted(s.meta.service_model.operation_names)[:9]"),
    "numba": ("numba", "import numba", "return numba.njit(lambda x: x * 2 + 1)(20)"),
    "plotly": ("plotly", "import plotly.graph_objects as g", "return g.Figure(g.Scatter(y=[1, 2])).to_json()"),
    "pygments": ("pygments", "import pygments, pygments.lexers, pygments.formatters",
                 "lexer, out = pygments.lexers.get_lexer_by_name('python'), pygments.formatters.HtmlFormatter()\n"
                 "return pygments.highlight('def f(): pass', lexer, out)"),
    "faker": ("faker", "import faker", "f = faker.Faker()\nf.seed_instance(7)\nreturn [f.name(), f.address(), f.email()]"),
    "jinja2": ("jinja2", "import jinja2", "return jinja2.Template('{% for x in y %}{{ x|upper }},{% endfor %}').render(y='ab')"),
}
HANDLER = """import time
%s
def use():
%s
def handler(event):
    began = time.perf_counter()
    answer = use()
    return [answer, (time.perf_counter() - began) * 1e3]
"""


def handler_of(dist):
    _, imports, use = USES[dist]
    return HANDLER % (imports, "".join("    %s\n" % line for line in use.split("\n")))


class Side(ground.Ground):
    """One daemon; with_lines: of data/warm.json."""

    def __init__(self, build, with_lines):
        super().__init__(build)
        self.lib = os.path.join(self.build, "lib")
        if not with_lines:
            shutil.copytree(self.lib, os.path.join(self.base, "lib"), ignore=shutil.ignore_patterns("*.p"))
            self.lib = os.path.join(self.base, "lib")
            with open(os.path.join(self.lib, "warm.json"), "w") as f:
                f.write('{"lines": []}')

    def start(self):
        self.daemon = ground.start_daemon(self.build, self.base, self.env, self.lib)

    def tree(self, *args):
        out = subprocess.run([self.cli, "tree", "--json", *args], env=self.env, capture_output=True, text=True)
        return json.loads(out.stdout)

    def deploy(self, dist):
        where = os.path.join(self.base, "src-" + dist)
        os.mkdir(where)
        for file, text in (("handler.py", handler_of(dist)), ("requirements.txt", USES[dist][0]),
                           ("pipsqueak.toml", "reuse = false\ntimeout = 120\n")):
            with open(os.path.join(where, file), "w") as f:
                f.write(text)
        subprocess.run([self.cli, "deploy", where, "--name", dist], env=self.env, check=True, stdout=subprocess.DEVNULL)

    def call(self, dist):
        made = subprocess.run([self.cli, "invoke", dist, "0"], env=self.env, capture_output=True, text=True)
        if made.returncode:
            sys.exit(made.stdout + made.stderr)
        return json.loads(made.stdout)[1]

    def settle(self, dist):
        """Until its cold starts fork from a node of its own; what that node says."""
        for _ in range(200):
            self.call(dist)
            told = self.tree("--explain", dist)
            if told["own_node"]["state"] == "asleep" and told["start"].get("node") == told["own_node"].get("node"):
                for _ in range(4):  # profiles, and spares of the nodes before
                    self.call(dist)
                return told
            time.sleep(0.1)
        sys.exit("%s gets no node: %s" % (dist, told))

    def megabytes(self, node):
        """Of that node and the nodes above it, without the root."""
        def path(n, above):
            here = above + n["memory_bytes"]
            if n["id"] == node:
                return here
            return max((path(c, here) for c in n["children"]), default=0)

        return max(path(n, 0) for r in self.tree()["roots"] for n in r["children"]) / 1e6


def took(told, dist):
    for text in told["start"]["warmed"]:
        if text.split()[0] == dist:
            return text.partition(": ")[2]
    return "not run"


def measure(build, dist, rounds):
    """On daemons of its own: functions that load the same dists would share a node."""
    sides = [Side(build, False), Side(build, True)]
    times = [[], []]
    try:
        for side in sides:
            side.start()
            side.deploy(dist)
        told = [side.settle(dist) for side in sides]
        for _ in range(rounds):
            for i, side in enumerate(sides):
                times[i].append(side.call(dist))
                time.sleep(0.02)  # the next spare is forked meanwhile
        memory = [side.megabytes(t["start"]["node"]) for side, t in zip(sides, told)]
    finally:
        for side in sides:
            side.stop()
    return {"min_ms": [min(t) for t in times], "median_ms": [statistics.median(t) for t in times],
            "gain_ms": min(times[0]) - min(times[1]), "node_mb": memory[1] - memory[0], "line": took(told[1], dist)}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("dists", nargs="*", default=list(USES))
    parser.add_argument("--build", default="build")
    parser.add_argument("--rounds", type=int, default=20)
    args = parser.parse_args()
    found = {}
    print("%-10s %10s %10s %10s %10s %10s %10s   %s" % (
        "ms", "cold min", "warm min", "gain", "cold med", "warm med", "node MB", "line"))
    for dist in args.dists:
        m = found[dist] = measure(args.build, dist, args.rounds)
        print("%-10s %10.2f %10.2f %10.2f %10.2f %10.2f %10.2f   %s" % (
            dist, *m["min_ms"], m["gain_ms"], *m["median_ms"], m["node_mb"], m["line"]), flush=True)
    with open(os.path.join(args.build, "bench-warm.json"), "w") as f:
        json.dump(found, f, indent=1)


if __name__ == "__main__":
    main()
