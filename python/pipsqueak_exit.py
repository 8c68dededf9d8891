# SPDX-License-Identifier: Apache-2.0
"""How a script ends: its exit status, tracebacks, and what the interpreter does at exit.

Runs in: children of `pipsqueak run`. The order is Py_FinalizeEx's: threads are joined, atexit runs,
stdio is flushed, what the script left is finalized. Then the process ends at once: freeing the rest
of a large heap would cost more than most scripts take.
"""
import sys

import _io

gc = gc  # noqa: F821  put here by bootstrap.py, which keeps it out of sys.modules


def is_ours(tb):
    return tb.tb_frame.f_globals.get("__name__", "").startswith("pipsqueak_")


def trimmed(e):
    """The traceback without our frames at its start."""
    tb = e.__traceback__
    while tb is not None and is_ours(tb):
        tb = tb.tb_next
    return tb


def complain(text):
    if sys.stderr is not None:
        try:
            sys.stderr.write(text)
            sys.stderr.flush()
        except (OSError, ValueError):
            pass


def flush_stdout():
    try:
        sys.stdout.flush()
    except (AttributeError, OSError, ValueError):
        pass


def exit_code(e):
    """What sys.exit(x) means to the shell."""
    code = e.code
    if code is None:
        return 0
    if isinstance(code, int):
        return code & 0xFF if -(1 << 63) <= code < 1 << 63 else 255
    flush_stdout()
    complain("%s\n" % (code,))
    return 1


def display(e):
    sys.__excepthook__(type(e), e, e.__traceback__)


def report(e):
    """As PyErr_Print: through sys.excepthook. Returns the exit code."""
    e = e.with_traceback(trimmed(e))
    sys.last_type, sys.last_value, sys.last_traceback = type(e), e, e.__traceback__
    if sys.version_info >= (3, 12):
        sys.last_exc = e
    hook = getattr(sys, "excepthook", None)
    if hook is None:
        complain("sys.excepthook is missing\n")
        display(e)
        return 1
    try:
        hook(type(e), e, e.__traceback__)
    except SystemExit as left:
        return exit_code(left)
    except BaseException as broken:
        complain("Error in sys.excepthook:\n")
        display(broken.with_traceback(trimmed(broken)))
        complain("\nOriginal exception was:\n")
        display(e)
    return 1


def caught(run, kind, what):
    """What it ended by. Nothing is being handled any more when that is reported."""
    try:
        run(kind, what)
    except BaseException as e:
        return e
    return None


def attempt(state, run, kind, what, flags):
    """Run it; returns (exit code, signal to die by)."""
    e = caught(run, kind, what)
    if e is None:
        return 0, 0
    if isinstance(e, SystemExit):
        return exit_code(e), 0
    if kind == "file" and isinstance(e, OSError) and trimmed(e) is None:
        complain("%s: can't open file %r: [Errno %s] %s\n" % (
            sys.executable, e.filename, e.errno, e.strerror))
        return 2, 0
    code = report(e)
    if type(e) is KeyboardInterrupt:
        return 130, 2
    line = state.part("hint")["hint"](state, e, flags)
    if line:
        complain("pipsqueak: %s\n" % line)
    return code, 0


def join_threads():
    threading = sys.modules.get("threading")
    if threading is None:
        return
    try:
        threading._shutdown()
    except BaseException as e:
        where = "on threading shutdown:" if sys.version_info >= (3, 13) else "in: %r" % threading
        complain("Exception ignored %s\n" % where)
        display(e.with_traceback(trimmed(e)))


def run_atexit():
    import atexit

    try:
        atexit._run_exitfuncs()  # prints what its functions raise
    except BaseException:
        pass
    atexit._clear()


def flush_stdio():
    """False when standard output could not be written: then the exit code is 120."""
    good = True
    stream = getattr(sys, "stdout", None)
    try:
        if stream is not None and not getattr(stream, "closed", False):
            stream.flush()
    except BaseException as e:
        what = "in: %r" % stream if sys.version_info < (3, 13) else "on flushing sys.stdout:"
        complain("Exception ignored %s\n%s: %s\n" % (what, type(e).__name__, e))
        good = False
    stream = getattr(sys, "stderr", None)
    try:
        if stream is not None and not getattr(stream, "closed", False):
            stream.flush()
    except BaseException:
        good = False
    return good


def has_last_words(kind):
    """Does a dying object of this kind do something that can be seen?"""
    try:
        if kind.__module__ == "_io":
            return False
        return (getattr(kind, "__del__", None) is not None or kind.__name__ in
                ("generator", "coroutine", "async_generator"))
    except Exception:
        return False  # a metaclass with ideas of its own


def finalize_script():
    """What is left of the script's own objects dies, as at the end of a plain interpreter."""
    import _thread

    if _thread._count():
        return  # threads that nobody joins still use them
    kinds = {type(o) for o in gc.get_objects()}  # without what was frozen in the zygote
    speaks = any(has_last_words(kind) for kind in kinds)
    del kinds  # a class keeps its module's names alive, and they its objects
    if not speaks:
        return
    for name in ("last_type", "last_value", "last_traceback", "last_exc"):
        if hasattr(sys, name):
            setattr(sys, name, None)
    main = sys.modules.get("__main__")
    names = getattr(main, "__dict__", {})
    # The dict was frozen in the zygote, so the collector does not see that it dies. What is of use
    # to destructors stays: modules, classes, functions, constants.
    stay = (type(sys), type, type(is_ours), str, bytes, int, float, type(None))
    for name in list(names):
        if not isinstance(names.get(name), stay) and not name.startswith("__"):
            del names[name]
    gc.collect()


def flush_files():
    """Files that the script did not close."""
    kinds = (_io.TextIOWrapper, _io.BufferedWriter, _io.BufferedRandom)
    for thing in gc.get_objects():
        # isinstance() would ask the object, too, and run code of proxies, dead ones among them.
        if issubclass(type(thing), kinds):
            try:
                thing.flush()
            except Exception:
                pass


def finish(code):
    """Returns the exit code, which a failure to write to stdout changes to 120."""
    join_threads()
    run_atexit()
    good = flush_stdio()
    finalize_script()
    flush_files()
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()  # what the dying objects printed
        except (AttributeError, OSError, ValueError):
            pass
    return code if good else 120
