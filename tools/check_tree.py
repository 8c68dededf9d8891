# SPDX-License-Identifier: Apache-2.0
"""check_tree.py: rooms include only downwards, functions have at most five parameters, the stops of
docs/ARCHITECTURE.md exist, and no package registry's host stands in the tree (the hosts are read from this
machine's own configuration)."""
import re
import subprocess
import sys

ROOMS = ["base", "wire", "jail", "index", "store", "zygote", "policy", "function", "api", "daemon"]
# Beside the order: the simulator, and the command line.
BESIDE = {"sim": {"base", "policy", "sim"}, "cli": {"base", "wire", "jail", "policy", "sim", "cli"}}


def tracked(*patterns):
    out = subprocess.run(["git", "ls-files", *patterns], capture_output=True, text=True, check=True)
    return out.stdout.split()


def allowed(room):
    return BESIDE.get(room) or set(ROOMS[: ROOMS.index(room) + 1])


def check_includes():
    for path in tracked("src/*.c", "src/*.h"):
        room = path.split("/")[1]
        with open(path) as f:
            for number, line in enumerate(f, 1):
                found = re.match(r'#include "(\w+)/', line)
                if found and found.group(1) not in allowed(room):
                    yield "%s:%d: room %s may not use room %s" % (path, number, room, found.group(1))


# Not counted: the error at the end, and a callback with its argument. libmicrohttpd's are its own.
UNCOUNTED = re.compile(r"struct err \*\w*|void \*(arg|ctx)|\w+_fn \w+|void")
DEFINITION = re.compile(r"^[a-z_][\w \t*]*?\b(\w+)\(((?:[^();{}]|\([^()]*\))*)\)\s*\n\{", re.M)


def check_parameters():
    for path in tracked("src/*.c", "python/*.c"):
        with open(path) as f:
            text = f.read()
        for found in DEFINITION.finditer(text):
            names = re.sub(r"\([^()]*\)", "", found[2]).split(",")
            count = sum(not UNCOUNTED.fullmatch(" ".join(n.split())) for n in names)
            if count > 5 and "struct MHD_Connection" not in names[1]:
                line = text.count("\n", 0, found.start()) + 1
                yield "%s:%d: %s has %d parameters: a struct is due" % (path, line, found[1], count)


def check_stops():
    with open("docs/ARCHITECTURE.md") as f:
        stops = re.findall(r"`([\w./]+):(\w+)`", f.read())
    if len(stops) < 8:
        yield "docs/ARCHITECTURE.md: the life of a call has only %d stops" % len(stops)
    for path, name in stops:
        try:
            with open(path) as f:
                text = f.read()
        except OSError:
            yield "docs/ARCHITECTURE.md: %s does not exist" % path
            continue
        pattern = r"^def %s\(" if path.endswith(".py") else r"^\w[^;\n]*\b%s\("
        if not re.search(pattern % name, text, re.M):
            yield "docs/ARCHITECTURE.md: %s has no function %s" % (path, name)


def registry_hosts():
    hosts = set()
    for command in (["apt-get", "indextargets", "--format", "$(SITE)"],
                    ["/usr/bin/python3", "build/lib/pipconf.py"]):
        try:
            out = subprocess.run(command, capture_output=True, text=True, timeout=30).stdout
        except (OSError, subprocess.TimeoutExpired):
            continue
        hosts |= set(re.findall(r"https?://(?:[^/@\s\"]*@)?([^/:\s\"]+)", out))
    return hosts - {"localhost", "127.0.0.1"}


def check_hosts():
    for host in registry_hosts():
        out = subprocess.run(["git", "grep", "-nF", host, "--", "."], capture_output=True, text=True).stdout
        for line in out.splitlines():
            yield "a package registry's host: " + line[:120]


def main():
    problems = [*check_includes(), *check_parameters(), *check_stops(), *check_hosts()]
    for problem in problems:
        print("lint: " + problem, file=sys.stderr)
    return bool(problems)


sys.exit(main())
