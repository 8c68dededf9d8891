# SPDX-License-Identifier: Apache-2.0
"""A script, as `python3 script.py` would run it.

Runs in: children of `pipsqueak run`. Each detail here has a test that compares it with a plain python3.
"""
import os
import sys

import _io

LIB_LOCALES = ("", "C", "POSIX", "C.UTF-8", "C.utf8", "UTF-8")


def rebuild_stdio():
    """As Python's own start-up makes them, on the descriptors the caller passed."""
    locale = os.environ.get("LC_ALL") or os.environ.get("LC_CTYPE") or os.environ.get("LANG") or ""
    errors = "surrogateescape" if locale in LIB_LOCALES else "strict"
    for fd, name, mode, how in ((0, "stdin", "r", errors), (1, "stdout", "w", errors),
                                (2, "stderr", "w", "backslashreplace")):
        try:
            raw = _io.FileIO(fd, mode + "b", closefd=False)
        except OSError:
            setattr(sys, name, None)
            setattr(sys, "__%s__" % name, None)
            continue
        raw.name = "<%s>" % name
        buffered = _io.BufferedReader(raw) if mode == "r" else _io.BufferedWriter(raw)
        stream = _io.TextIOWrapper(buffered, "utf-8", how, "\n",
                                   line_buffering=raw.isatty() or fd == 2)
        stream.mode = mode
        setattr(sys, name, stream)
        setattr(sys, "__%s__" % name, stream)


def new_main(path=None):
    main = type(sys)("__main__")
    space = main.__dict__
    space["__builtins__"] = sys.modules["builtins"]
    space["__spec__"] = None
    space["__package__"] = None
    if sys.version_info < (3, 14):
        space["__annotations__"] = {}
    import _frozen_importlib
    import _frozen_importlib_external

    if path is None:
        space["__loader__"] = _frozen_importlib.BuiltinImporter
    else:
        space["__loader__"] = _frozen_importlib_external.SourceFileLoader("__main__", path)
        space["__file__"] = path
        space["__cached__"] = None
    sys.modules["__main__"] = main
    return space


def is_package(path):
    """A directory or zip with a __main__.py."""
    if os.path.isdir(path):
        return True
    with open(path, "rb") as f:
        return f.read(2) == b"PK"


def run_module(name, alter_argv):
    import runpy

    runpy._run_module_as_main(name, alter_argv)


def run_file(path):
    if is_package(path):
        sys.path.insert(0, path)
        new_main()
        run_module("__main__", False)
        return
    sys.path.insert(0, os.path.dirname(os.path.abspath(path)) if os.path.islink(path) is False
                    else os.path.dirname(os.path.realpath(path)))
    space = new_main(path)
    with open(path, "rb") as f:
        source = f.read()
    exec(compile(source, path, "exec", dont_inherit=True), space)


def run_stdin():
    sys.path.insert(0, "")
    space = new_main()
    exec(compile(sys.stdin.buffer.read(), "<stdin>", "exec", dont_inherit=True), space)


def run_code(code):
    sys.path.insert(0, "")
    space = new_main()
    exec(compile(code, "<string>", "exec", dont_inherit=True), space)


def run_prompt():
    import code

    sys.path.insert(0, "")
    space = new_main()
    try:
        import readline
        import rlcompleter

        readline.set_completer(rlcompleter.Completer(space).complete)
        readline.parse_and_bind("tab: complete")
    except ImportError:
        pass
    banner = 'Python %s on %s\nType "help", "copyright", "credits" or "license" for more information.'
    console = code.InteractiveConsole(space, filename="<stdin>")
    console.interact(banner % (sys.version, sys.platform), exitmsg="")


def start(kind, what):
    if kind == "file":
        run_file(what)
    elif kind == "stdin":
        run_stdin()
    elif kind == "code":
        run_code(what)
    elif kind == "module":
        sys.path.insert(0, os.getcwd())
        new_main()
        run_module(what, True)
    else:
        run_prompt()


def trimmed(e):
    """Without our frames at its start, and without runpy's when we called it."""
    tb = e.__traceback__
    while tb is not None and tb.tb_frame.f_code.co_filename == "<pipsqueak>":
        tb = tb.tb_next
    return tb


def exit_code(e):
    """What sys.exit(x) means to the shell."""
    if e.code is None:
        return 0
    if isinstance(e.code, int):
        return e.code & 0xFF
    print(e.code, file=sys.stderr)
    return 1


def visible(path):
    """Does the sandbox show the directory that this path is in?"""
    parent = os.path.dirname(path)
    return parent in ("", "/") or os.path.isdir(parent)


def hint(e, flags):
    """One line that names the permission that stopped the script; None: it was something else."""
    if "allow-all" in flags:
        return None
    if isinstance(e, ModuleNotFoundError) and e.name:
        top = e.name.partition(".")[0]
        return "add the package that provides '%s' with --with (often: --with %s)" % (
            top, top.replace("_", "-"))
    if isinstance(e, KeyError) and e.args and from_environ(e):
        return "the variable is passed by --allow-env=%s" % e.args[0]
    if not isinstance(e, OSError):
        return None
    import errno

    if e.errno in (errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EAI_AGAIN
                   if hasattr(errno, "EAI_AGAIN") else -3) or type(e).__name__ == "gaierror":
        return "the network is reached by --allow-net"
    path = e.filename
    if isinstance(path, bytes):
        path = os.fsdecode(path)
    if not isinstance(path, str):
        return None
    path = os.path.abspath(path)
    if e.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
        if e.errno != errno.EROFS and not os.path.exists(path) and not visible(path):
            return "reading is allowed by --allow-read=%s" % path
        return "writing is allowed by --allow-write=%s" % path
    if e.errno == errno.ENOENT and not visible(path):
        return "what is there outside is shown by --allow-read=%s" % os.path.dirname(path)
    return None


def from_environ(e):
    tb = e.__traceback__
    while tb is not None and tb.tb_next is not None:
        tb = tb.tb_next
    return tb is not None and tb.tb_frame.f_code is type(os.environ).__getitem__.__code__


def report(e, flags):
    e = e.with_traceback(trimmed(e))
    kind = type(e)
    sys.last_type, sys.last_value, sys.last_traceback = kind, e, e.__traceback__
    try:
        sys.excepthook(kind, e, e.__traceback__)
    except BaseException as broken:
        print("Error in sys.excepthook:", file=sys.stderr)
        sys.__excepthook__(type(broken), broken, trimmed(broken))
        print("\nOriginal exception was:", file=sys.stderr)
        sys.__excepthook__(kind, e, e.__traceback__)
    line = hint(e, flags)
    if line and sys.stderr is not None:
        print("pipsqueak: " + line, file=sys.stderr)


def attempt(kind, what, flags):
    """Run it; returns (exit code, signal to die by)."""
    try:
        start(kind, what)
    except SystemExit as e:
        return exit_code(e), 0
    except KeyboardInterrupt as e:
        report(e, ())
        return 130, 2
    except BaseException as e:
        report(e, flags)
        return 1, 0
    return 0, 0


def finish_threads():
    threading = sys.modules.get("threading")
    if threading is not None:
        try:
            threading._shutdown()
        except BaseException as e:
            sys.excepthook(type(e), e, trimmed(e))


def run_atexit():
    import atexit

    try:
        atexit._run_exitfuncs()
    except SystemExit as e:
        return exit_code(e)
    except BaseException as e:
        if sys.version_info < (3, 10):
            return None  # it has printed the traceback itself
        sys.excepthook(type(e), e, trimmed(e))
    return None


def flush_all(code):
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name, None)
        try:
            if stream is not None and not getattr(stream, "closed", False):
                stream.flush()
        except BaseException as e:
            if name == "stdout":
                print("Exception ignored in: %r\n%s: %s" % (stream, type(e).__name__, e),
                      file=sys.stderr)
                code = 120
    return code


def set_up(fields, c, words, clean_environment, has_env):
    import _signal

    path = "/usr/local/bin:/usr/bin:/bin"
    if has_env:
        path = "/pipsqueak/env/bin:" + path
    clean_environment(["PATH=" + path, "HOME=/home/user"] + words(fields, c.T_ENV))
    try:
        import _locale

        _locale.setlocale(_locale.LC_CTYPE, "")
    except (ImportError, ValueError, _locale.Error):
        pass
    import time

    time.tzset()
    rebuild_stdio()
    _signal.signal(_signal.SIGINT, _signal.default_int_handler)
    sys.argv = words(fields, c.T_ARGV) or [""]
    if hasattr(sys, "orig_argv"):
        sys.orig_argv = [sys.executable] + words(fields, c.T_TEXT)
    cwd = fields.get(c.T_CWD, b"/").decode("utf-8", "surrogateescape")
    try:
        os.chdir(cwd)
    except OSError:
        os.chdir("/tmp")


def run(state, stream, fields, words, clean_environment):
    c = state.c
    has_env = sys.prefix == "/pipsqueak/env"
    set_up(fields, c, words, clean_environment, has_env)
    kind = fields.get(c.T_KIND, b"file").decode()
    what = fields.get(c.T_CODE, b"").decode("utf-8", "surrogateescape")
    recorder = state.part("record")["Recorder"](state)
    recorder.start()
    code, signo = attempt(kind, what, words(fields, c.T_FLAGS))
    finish_threads()
    changed = run_atexit()
    code = code if changed is None else changed
    code = flush_all(code)
    recorder.stop()
    try:
        c.send(stream, c.PROFILE, 0, recorder.fields())
    except OSError:
        pass
    if signo:
        c.signal_exit(signo)
    c.exit(code)
