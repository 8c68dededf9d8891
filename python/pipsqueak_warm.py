# SPDX-License-Identifier: Apache-2.0
"""Warm-up lines: what a dist does on its first use, done in a node, after the imports.

Runs in: nodes. The lines are those of data/warm.json, never a function's, and run only where the
modules are loaded that they are for. What they ask for is recorded as what imports ask for (DESIGN
3.4). One that fails is told, and the node lives on. One that leaves something behind, takes too long
or imports what the node has nothing of is "spoilt": such a node is not kept, and made again without.
"""
import os
import sys

import _frozen_importlib
import _signal
import _warnings

LIMIT_S = 10
TEMPORARY = ("/tmp", "/dev/shm", "/var/tmp", "/home/user")


class Spoilt(BaseException):
    """Nothing that a library catches: the node in which this comes up is not kept."""


def release(version):
    """(2, 1) of "2.1.0rc1": its numbers, without zeros at the end."""
    numbers = []
    for part in version.split("."):
        digits = part[:len(part) - len(part.lstrip("0123456789"))]
        numbers.append(int(digits or 0))
        if digits != part:
            break
    while numbers and not numbers[-1]:
        numbers.pop()
    return tuple(numbers)


def in_range(version, versions):
    """Is it within ">=1.34, <2"?"""
    for bound in versions.replace(" ", "").split(","):
        limit = release(bound.lstrip("<>="))
        if (release(version) < limit) == bound.startswith(">="):
            return False
    return True


def rows_for(state, installed, barred):
    """What of the file is for this node, and was not done in one above it."""
    path = os.path.join(os.path.dirname(state.env), "lib", "warm.json")
    with open(path) as f:
        rows = state.part("handler")["json_loads"](f.read())["lines"]
    rows = [row for row in rows if row["dist"] not in barred and row["dist"] not in state.warmed
            and all(name in sys.modules for name in row["modules"])]
    dists = installed(state) if rows else {}
    return [row for row in rows
            if row["dist"] in dists and in_range(dists[row["dist"]], row["versions"])]


class Guard:
    """While a line runs nothing is imported of a package that the node has nothing of (S3). That is
    no ImportError: a library that can do without would remember that it is not there."""

    def __init__(self, state):
        self.site = state.site + "/"
        self.stranger = None

    @staticmethod
    def is_known(name):
        """Is the module, or a package around it that is no mere namespace, there already?"""
        while name:
            module = sys.modules.get(name)
            if module is not None and getattr(module, "__file__", None):
                return True
            name = name.rpartition(".")[0]
        return False

    def start(self):
        original = self.original = _frozen_importlib._find_and_load

        def _find_and_load(name, import_):
            known = self.is_known(name)
            module = original(name, import_)
            if not known and (getattr(module, "__file__", None) or "").startswith(self.site):
                self.stranger = name
                raise Spoilt("it imports %s, of which nothing was there" % name)
            return module

        _frozen_importlib._find_and_load = _find_and_load

    def stop(self):
        _frozen_importlib._find_and_load = self.original


class Clock:
    """Interrupts what takes too long, again and again, should that be caught."""

    def __init__(self):
        self.over = self.slow = False

    def ring(self, signo, frame):
        if not self.over:
            self.slow = True
            raise Spoilt("it takes longer than %d s" % LIMIT_S)

    def start(self):
        self.before = _signal.signal(_signal.SIGALRM, self.ring)
        _signal.setitimer(_signal.ITIMER_REAL, LIMIT_S, 1)

    def stop(self):
        self.over = True
        _signal.setitimer(_signal.ITIMER_REAL, 0)
        _signal.signal(_signal.SIGALRM, self.before)


def run_line(state, row):
    """Why it failed; None: it did not."""
    guard, clock, why = Guard(state), Clock(), None
    names = {"__name__": "pipsqueak_warm"}
    guard.start()
    clock.start()
    try:
        exec(compile("\n".join(row["lines"]), "<warm-up of %s>" % row["dist"], "exec"), names)
    except Exception as e:
        why = "%s: %s" % (type(e).__name__, str(e)[:200])
    finally:
        clock.stop()
        guard.stop()
    if clock.slow:
        raise Spoilt("it takes longer than %d s" % LIMIT_S)
    if guard.stranger:
        raise Spoilt("it imports %s, of which nothing was there" % guard.stranger)
    return why


def own_files():
    """Temporary files of this node; others below its root have other ids."""
    found = []
    for where in TEMPORARY:
        try:
            paths = ["%s/%s" % (where, name) for name in os.listdir(where)]
            found += [path for path in paths if os.lstat(path).st_uid == os.getuid()]
        except OSError:
            continue
    return sorted(found)


def surroundings():
    """What a line may not change, beside what `left` finds."""
    return {"temporary files": own_files(), "variables": dict(os.environ._data),
            "working directory": os.getcwd(), "sys.path": list(sys.path),
            "finders": list(sys.meta_path), "sys.argv": list(sys.argv),
            "streams": [sys.stdin, sys.stdout, sys.stderr],
            "hooks": [sys.excepthook, sys.displayhook, sys.getswitchinterval(), sys.gettrace()],
            "warning filters": list(_warnings.filters)}


def warm_one(state, row, asked, left):
    """What is to be told of this line."""
    name, clock = row["dist"], state.c.clock_us
    before, around, questions, began = left(), surroundings(), asked(), clock()
    try:
        why = run_line(state, row)
    except BaseException as e:
        return ["spoilt=%s: %s" % (name, str(e)[:200] or type(e).__name__)]
    took = clock() - began
    now = surroundings()
    new = [fault for fault in left() if fault not in before]
    new += [what for what in now if now[what] != around[what]]
    if new:
        return ["spoilt=%s: it leaves behind: %s" % (name, ", ".join(new))]
    told = ["unwarmed=%s: %s" % (name, why) if why else "warmed=%s: %.1f ms" % (name, took / 1e3)]
    new = [thing for thing in asked() if thing not in questions]
    if new:
        told.append("asking=%s: %s" % (name, ", ".join(new)[:200]))
    return told


def warm(state, installed, barred, asked, left):
    """Run what is for this node. installed: a function, of state, that returns the environment's dists,
    name -> version; barred: dists of which no line is to be run; asked(): what was asked for so
    far (DESIGN 3.4); left(): what stands against sleeping. Returns what is to be told, a text for
    each: "warmed=", "unwarmed=", "spoilt=", "asking=", the dist and more."""
    told = []
    state.warmed = set(state.warmed)  # not that of the nodes above
    for row in rows_for(state, installed, barred):
        state.warmed.add(row["dist"])
        told += warm_one(state, row, asked, left)
        if told[-1].startswith("spoilt="):
            break
    return told
