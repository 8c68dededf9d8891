# SPDX-License-Identifier: Apache-2.0
"""The store while a disk fills, a descriptor is not to be had, or everything is killed.

Every kind of call is counted over one whole installation of two wheels (open the store, unpack, compile,
publish, merge); then the n-th of each fails in turn, or is where the process group dies. Whatever came
of it: the next run, without a fault, cleans up and ends with exactly the trees of a run that never failed.
"""
import errno
import os
import signal
import sys

import pytest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import faults
import wheels

CALLS = {"open": errno.EMFILE, "mkdir": errno.ENOSPC, "write": errno.ENOSPC, "read": errno.EIO, "readdir": errno.EIO, "rename": errno.EIO,
         "link": errno.ENOSPC, "symlink": errno.ENOSPC, "unlink": errno.EIO, "sync": errno.EIO, "chmod": errno.EIO,
         "lock": errno.ENOLCK, "mmap": errno.ENOMEM, "truncate": errno.EIO}
TAG = "cpython-%d%d"


@pytest.fixture(scope="module")
def top():
    with faults.place() as path:
        yield path


def whole(store):
    """The store's tree, but for what the facts say: measured times."""
    return {path: path if path.startswith("facts/") else what for path, what in faults.tree(store).items()}


@pytest.fixture(scope="module")
def steps(top):
    """The command for a store at `dir`, and the trees that it should leave."""
    paths = []
    for name, files in (("one", {"one/__init__.py": "X = 1\n", "one/data.txt": "d\n", "both.txt": "same\n",
                                 "one-1.0.dist-info/entry_points.txt": "[console_scripts]\none = one:main\n",
                                 "one-1.0.data/data/share/one.txt": "s\n", "one-1.0.data/headers/one.h": "h\n"}),
                        ("two", {"two.py": "Y = 2\n", "both.txt": "other\n", "two-1.0.data/scripts/tool": "#!python\n"})):
        paths.append(os.path.join(top, name + "-1.0-py3-none-any.whl"))
        with open(paths[-1], "wb") as f:
            f.write(wheels.wheel(name, files))
    python = "/usr/bin/python3"
    version = os.popen(python + " -c 'import sys; print(\"%d %d\" % sys.version_info[:2])'").read().split()

    def command(store):
        return [os.path.join(faults.BUILD, "tests", "fault", "store_steps"), store,
                os.path.join(faults.BUILD, "tests", "fault", "fault_installer"), python,
                "cpython-" + "".join(version), ".".join(version), *paths]

    store = os.path.join(top, "right")
    p, _, _ = faults.run(command(store))
    assert p.returncode == 0, p.stderr
    right = whole(store)
    assert sum(path.endswith(".pyc") for path in right) == 4  # two in entries, two in the environment
    return top, command, right


def check(top, command, right, call, way, at):
    """One fault, then one run without. Returns how many such calls there were, or None beyond the last."""
    store = os.path.join(top, "store")
    faults.fresh(store)
    code = faults.KILL if way == "dies" else CALLS[call]
    p, calls, happened = faults.run(command(store), call=call, under=store, at=at, errno=code, stays=way == "stays")
    if not happened:
        assert p.returncode == 0, p.stderr
        return calls
    if code == faults.KILL:
        assert p.returncode == -signal.SIGKILL
    elif p.returncode:
        assert p.returncode == 1 and p.stderr.strip(), (p.returncode, p.stderr)
        assert len(p.stderr.strip().splitlines()[-1]) > 10
    for path, what in whole(store).items():
        if path.split("/")[0] in ("wheels", "bytecode", "envs") and path.count("/"):
            assert right.get(path) == what, "published, but not whole: " + path
    p, _, _ = faults.run(command(store))
    assert p.returncode == 0, p.stderr
    assert whole(store) == right
    return calls


@pytest.mark.parametrize("way", faults.WAYS)
@pytest.mark.parametrize("call", sorted(CALLS))
def test_store(steps, call, way):
    top, command, right = steps
    calls = check(top, command, right, call, way, 10 ** 9)
    if call not in ("truncate", "mmap"):  # what this store need not use
        assert calls
    for at in faults.some(calls):
        check(top, command, right, call, way, at)
