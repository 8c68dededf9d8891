# SPDX-License-Identifier: Apache-2.0
"""One run with one fault: a program, a shim preloaded, and what is left behind."""
import contextlib
import hashlib
import os
import shutil
import struct
import subprocess
import sys
import tempfile

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BUILD = os.path.abspath(os.environ.get("PIPSQUEAK_BUILD", os.path.join(TOP, "build")))
EXHAUSTIVE = os.environ.get("PIPSQUEAK_EXHAUSTIVE") == "1"
KILL = 0
# How it goes wrong: once, from then on, or by the death of all.
WAYS = ("fails", "stays", "dies")
sys.path.insert(0, os.path.join(TOP, "tests"))


def run(argv, timeout=60, **fault):
    """Run it, with the n-th call of one kind failing. Returns the process and, with a fault, how many
    such calls there were and whether the fault came to be."""
    env = dict(os.environ, PYTHONDONTWRITEBYTECODE="", ASAN_OPTIONS="verify_asan_link_order=0")
    if not fault:
        return subprocess.run(argv, capture_output=True, text=True, timeout=timeout, env=env), 0, False
    counter = fault["under"] + ".counter"
    with open(counter, "wb") as f:
        f.write(bytes(16))
    env.update(LD_PRELOAD=os.path.join(BUILD, "tests", "fault", "fault.so"), FAULT_COUNTER=counter,
               FAULT_CALL=fault["call"], FAULT_UNDER=fault["under"], FAULT_AT=str(fault["at"]),
               FAULT_ERRNO=str(fault["errno"]), FAULT_STAYS="1" if fault.get("stays") else "0")
    p = subprocess.run(argv, capture_output=True, text=True, timeout=timeout, env=env, start_new_session=True)
    assert "Sanitizer" not in p.stderr and "runtime error" not in p.stderr, p.stderr
    with open(counter, "rb") as f:
        calls, happened = struct.unpack("QQ", f.read())
    return p, calls, bool(happened)


def tree(top):
    """Every file below top: its kind and mode, and what is in it."""
    found = {}
    for where, folders, files in os.walk(top):
        for name in folders + files:
            path = os.path.join(where, name)
            st = os.lstat(path)
            what = [oct(st.st_mode)]
            if os.path.islink(path):
                what.append(os.readlink(path))
            elif os.path.isfile(path):
                with open(path, "rb") as f:
                    what.append(hashlib.sha256(f.read()).hexdigest())
            found[os.path.relpath(path, top)] = what
    return found


@contextlib.contextmanager
def place():
    """A directory in memory: syncing a busy disk would take most of the time."""
    path = tempfile.mkdtemp(prefix="pqfault-", dir="/dev/shm")
    yield path
    shutil.rmtree(path)


def some(calls):
    """Which of so many calls: each, or in a short run the last and one between."""
    return range(1, calls + 1) if EXHAUSTIVE else sorted({(calls + 1) // 2, calls})


def fresh(path):
    shutil.rmtree(path, ignore_errors=True)
    os.mkdir(path)
