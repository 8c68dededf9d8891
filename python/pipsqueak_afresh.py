# SPDX-License-Identifier: Apache-2.0
"""Variables that an interpreter reads at its start: a forked one started long ago (S10).

Runs in: children, when their environment is set. Where one of these is given, the child becomes a
new interpreter by exec, in the sandbox that it already has: slower, and right.
"""
import os
import sys

# What pipsqueak itself can follow in a running interpreter, or what is read when it is used.
LATER = ("PYTHONUNBUFFERED", "PYTHONIOENCODING", "PYTHONDONTWRITEBYTECODE", "PYTHONNOUSERSITE",
         "PYTHONBREAKPOINT", "PYTHONASYNCIODEBUG", "PYTHONSTARTUP", "PYTHON_COLORS",
         "PYTHON_HISTORY")
NOTHING = {"PYTHONHASHSEED": ("random",), "PYTHONOPTIMIZE": ("0",), "PYTHONVERBOSE": ("0",),
           "PYTHONDEBUG": ("0",), "PYTHONUTF8": ()}


def needed():
    """Does os.environ hold one that a fork cannot follow?"""
    for name, value in os.environ.items():
        if name.startswith("PYTHON") and value and name not in LATER:
            if value not in NOTHING.get(name, ()):
                return True
    return False


def follow():
    """The others, in this interpreter."""
    if os.environ.get("PYTHONDONTWRITEBYTECODE"):
        sys.dont_write_bytecode = True


def script(argv):
    """Become `python ARGV`; the interpreter does the rest."""
    try:
        os.execv(sys.executable, [sys.executable] + argv)
    except OSError as e:
        sys.stderr.write("pipsqueak: starting %s: %s\n" % (sys.executable, e))
        os._exit(126)


def handler(state, stream, fields):
    """Become an instance again, in a new interpreter that begins where this one is."""
    import marshal

    kept = os.memfd_create("pipsqueak", 0)
    os.write(kept, marshal.dumps((stream, fields)))
    os.lseek(kept, 0, os.SEEK_SET)
    os.set_inheritable(stream, True)
    bootstrap = os.path.join(os.path.dirname(state.env), "lib", "bootstrap.py")
    script([bootstrap, "again", str(kept)])


def again(state, fd):
    """In the new interpreter."""
    import marshal

    with open(fd, "rb") as f:
        stream, fields = marshal.loads(f.read())
    os.set_inheritable(stream, False)
    return stream, fields
