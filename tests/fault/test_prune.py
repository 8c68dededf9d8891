# SPDX-License-Identifier: Apache-2.0
"""Removing from the store while it fails: `cache clean`, `cache prune --older`, and the budget's own.

Every kind of call is counted over one whole pruning; then the n-th of each fails, or all from it on, or
everything is killed there. Whatever came of it: each object is whole or gone, what a deployed function or
another living daemon needs is there, `cache verify` finds nothing, and the same command then succeeds.
"""
import contextlib
import errno
import fcntl
import glob
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys

import pytest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import faults
import wheels

CALLS = {"open": errno.EMFILE, "read": errno.EIO, "write": errno.ENOSPC, "readdir": errno.EIO, "rename": errno.ENOSPC,
         "unlink": errno.EIO, "lock": errno.ENOLCK, "sync": errno.EIO, "mkdir": errno.ENOSPC, "chmod": errno.EIO,
         "link": errno.ENOSPC}
KINDS = ("wheels", "bytecode", "envs", "downloads")
POINTS = 3  # of each kind of call in a short run
EVERYTHING = ["prune", "0", "0"]
OLDER = ["prune", str(2 ** 64 - 1), "100"]
LIVE = "77-live"  # another daemon's directory


class Store:
    """A store with an environment for each of four sets of wheels: nobody needs the first, a deployed function the
    second, a living daemon the third; the fourth is made while the budget is kept."""

    def __init__(self, top):
        self.top, self.wheels = top, {}
        self.template = os.path.join(top, "template")
        self.tag = subprocess.run(["/usr/bin/python3", "-c", "import sys; print('%d %d' % sys.version_info[:2])"],
                                  check=True, capture_output=True, text=True).stdout.split()
        for name in ("one", "two", "three", "four", "five"):
            self.wheels[name] = os.path.join(top, name + "-1.0-py3-none-any.whl")
            with open(self.wheels[name], "wb") as f:
                f.write(wheels.wheel(name, {name + "/__init__.py": "X = %r\n" % name, name + "/data/d.txt": "d"}))
        os.mkdir(self.template)
        self.hashes = [self.make(self.template, *names) for names in (("one", "two"), ("three",), ("four",))]
        for name in ("one", "two", "three"):
            self.download(name)
        with open(os.path.join(self.template, "keep", "functions"), "w") as f:
            f.write(self.hashes[1] + "\n")
        uses = os.path.join(self.template, "tmp", LIVE, "uses")
        os.makedirs(uses)
        open(os.path.join(uses, "envs." + self.hashes[2]), "w").close()
        full = os.path.join(top, "full")
        self.copy(full)
        self.make(full, "five")
        self.full = faults.tree(full)

    def sha256(self, name):
        with open(self.wheels[name], "rb") as f:
            return hashlib.sha256(f.read()).hexdigest()

    def download(self, name):
        place = os.path.join(self.template, "downloads", self.sha256(name))
        os.makedirs(place)
        shutil.copy(self.wheels[name], place)

    def copy(self, to):
        shutil.rmtree(to, ignore_errors=True)
        subprocess.run(["cp", "-a", self.template, to], check=True)  # hard links stay such
        for fact in glob.glob(to + "/facts/*"):
            os.utime(fact, (1e9, 1e9))

    def command(self, cache, *words):
        steps = os.path.join(faults.BUILD, "tests", "fault")
        return [os.path.join(steps, "store_steps"), cache, os.path.join(steps, "fault_installer"), *words]

    def made_of(self, *names):
        return ["/usr/bin/python3", "cpython-" + "".join(self.tag), ".".join(self.tag),
                *(self.wheels[n] for n in names)]

    def make(self, cache, *names):
        p, _, _ = faults.run(self.command(cache, *self.made_of(*names)))
        assert p.returncode == 0, p.stderr
        return os.path.basename(p.stdout.strip())

    def objects(self, tree):
        """(kind, name) -> its files"""
        found = {}
        for path, what in tree.items():
            words = path.split("/", 2)
            if words[0] in KINDS and len(words) > 1:
                found.setdefault((words[0], words[1]), {})[path] = what
        return found

    @contextlib.contextmanager
    def used(self, cache):
        """Another daemon lives meanwhile."""
        fd = os.open(os.path.join(cache, "tmp", LIVE), os.O_RDONLY)
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
        os.close(fd)

    def check_whole(self, cache):
        tree = faults.tree(cache)
        objects, whole = self.objects(tree), self.objects(self.full)
        for key, files in objects.items():
            assert files == whole[key], "not whole: %s %s" % key
        for path in tree:
            kind, _, name = path.removeprefix("facts/").partition(".")
            if path.startswith("facts/"):
                assert (kind, name) in objects, "a fact of nothing: " + path
        for env, wheel in ((self.hashes[1], "three"), (self.hashes[2], "four")):
            assert ("envs", env) in objects and ("wheels", self.sha256(wheel)) in objects, wheel + " was needed"

    def check_verified(self, cache):
        p, _, _ = faults.run(self.command(cache, "verify"))
        assert p.returncode == 0 and json.loads(p.stdout)["problems"] == [], (p.stdout, p.stderr)


@pytest.fixture(scope="module")
def store():
    with faults.place() as path:
        yield Store(path)


def shape(tree):
    return sorted(path for path in tree if not path.startswith("facts/"))


def check(store, words, right, call, way, at):
    """One fault, then one run without. Returns how many such calls there were."""
    cache = os.path.join(store.top, "cache")
    store.copy(cache)
    code = faults.KILL if way == "dies" else CALLS[call]
    with store.used(cache):
        p, calls, happened = faults.run(store.command(cache, *words), call=call, under=cache, at=at, errno=code,
                                        stays=way == "stays")
        if not happened or p.returncode != 0:
            assert p.returncode == (0 if not happened else -signal.SIGKILL if way == "dies" else 1), p.stderr
        if p.returncode == 1:
            assert len(p.stderr.strip().splitlines()[-1]) > 10, p.stderr
        store.check_whole(cache)
        store.check_verified(cache)
        p, _, _ = faults.run(store.command(cache, *words))
        assert p.returncode == 0, p.stderr
        left = shape(faults.tree(cache))
        # what has lost its fact, and could not get it back, counts as used just then
        assert left == right or (words is OLDER and way != "fails" and set(left) > set(right))
        store.check_whole(cache)
    return calls


def right_of(store, words):
    """What is left when nothing fails."""
    cache = os.path.join(store.top, "right")
    store.copy(cache)
    with store.used(cache):
        p, _, _ = faults.run(store.command(cache, *words))
    assert p.returncode == 0, p.stderr
    store.check_whole(cache)
    left = shape(faults.tree(cache))
    kept = {path.split("/")[1] for path in left if path.startswith("envs/")}
    assert kept - set(store.hashes[1:]) == set(), "something was to be removed"
    return left


def points(calls):
    if faults.EXHAUSTIVE or calls <= POINTS:
        return range(1, calls + 1)
    return sorted({1 + i * (calls - 1) // (POINTS - 1) for i in range(POINTS)})


@pytest.mark.parametrize("way", faults.WAYS)
@pytest.mark.parametrize("call", sorted(set(CALLS) - {"link"}))
@pytest.mark.parametrize("words", [EVERYTHING, OLDER], ids=["clean", "older"])
def test_prune(store, words, call, way):
    right = right_of(store, words)
    for at in points(check(store, words, right, call, way, 10 ** 9)):
        check(store, words, right, call, way, at)


@pytest.mark.parametrize("way", faults.WAYS)
@pytest.mark.parametrize("call", sorted(CALLS))
def test_budget(store, monkeypatch, call, way):
    monkeypatch.setenv("STEPS_BUDGET", "1")
    words = store.made_of("five")
    right = right_of(store, words)
    calls = check(store, words, right, call, way, 10 ** 9)
    assert calls
    for at in points(calls):
        check(store, words, right, call, way, at)
