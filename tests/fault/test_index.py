# SPDX-License-Identifier: Apache-2.0
"""The cache of pages, metadata and wheels under the same faults: a resolve and its downloads, then again."""
import errno
import json
import os
import signal
import subprocess
import sys

import pytest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import faults
import wheels

CALLS = {"open": errno.EMFILE, "mkdir": errno.ENOSPC, "write": errno.ENOSPC, "read": errno.EIO, "rename": errno.EIO,
         "unlink": errno.EIO, "sync": errno.EIO}


@pytest.fixture(scope="module")
def top():
    with faults.place() as path:
        yield path


@pytest.fixture(scope="module")
def resolve(top):
    index = wheels.Index()
    index.add("one", {"one.py": "X = 1\n"}, requires=["two"])
    index.add("two", {"two.py": "Y = 2\n"})
    info = subprocess.run(["/usr/bin/python3", os.path.join(faults.TOP, "python", "pyinfo.py")], check=True,
                          capture_output=True, text=True).stdout
    for name, text in (("info", info), ("settings", json.dumps({"index_url": index.url, "timeout": 5}))):
        with open(os.path.join(top, name), "w") as f:
            f.write(text)

    def command(cache):
        return [os.path.join(faults.BUILD, "tests", "unit", "index_tool"), "--cache", cache, "--info",
                os.path.join(top, "info"), "--settings", os.path.join(top, "settings"), "--resolver",
                os.path.join(faults.TOP, "python") + ":" + os.path.join(faults.TOP, "tests", "unit_py", "standin"),
                "--fetch", "one"]

    cache = os.path.join(top, "right")
    p, _, _ = faults.run(command(cache))
    assert p.returncode == 0, p.stderr
    yield top, command, holds(cache), p.stdout
    index.close()


def holds(cache):
    """What is in a cache. Names of its pages depend on its salt, of which the size is told. The mark that a
    failure leaves, after which pages are asked for again, is no part of it."""
    found = []
    for path, what in faults.tree(cache).items():
        if path == "salt":
            what = [what[0], os.path.getsize(os.path.join(cache, path))]
        if path != "distrust":
            found.append((path.split("/")[0] if path.startswith(("pages/", "tmp/", "partial/")) else path, *what))
    return sorted(found)


def check(resolve, call, way, at):
    top, command, right, answer = resolve
    cache = os.path.join(top, "cache")
    faults.fresh(cache)
    code = faults.KILL if way == "dies" else CALLS[call]
    p, calls, happened = faults.run(command(cache), call=call, under=cache, at=at, errno=code, stays=way == "stays")
    if happened and way == "dies":
        assert p.returncode == -signal.SIGKILL
    elif p.returncode:
        assert happened and 0 < p.returncode < 99 and p.stderr.strip(), (p.returncode, p.stderr)
    else:
        assert p.stdout == answer
    for what in holds(cache):
        assert what in right or what[0] in ("tmp", "partial"), "in the cache, but not whole: %s" % (what,)
    p, _, _ = faults.run(command(cache))
    assert p.returncode == 0 and p.stdout == answer, p.stderr
    assert holds(cache) == right
    return calls


@pytest.mark.parametrize("way", faults.WAYS)
@pytest.mark.parametrize("call", sorted(CALLS))
def test_index(resolve, call, way):
    calls = check(resolve, call, way, 10 ** 9)
    assert calls or call == "unlink"
    for at in faults.some(calls):
        check(resolve, call, way, at)
