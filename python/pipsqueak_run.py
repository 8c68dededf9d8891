# SPDX-License-Identifier: Apache-2.0
"""A script, as `python3 script.py` would run it.

Runs in: children of `pipsqueak run`. tests/boot compares each detail with a plain python3.
"""
import os
import sys

import _codecs
import _io

gc = gc  # noqa: F821  put here by bootstrap.py, which keeps it out of sys.modules

NEWS_US = 2000  # imports of less get no node
# What PEP 538 coerces to, and "C" and "POSIX": there bytes that are not UTF-8 pass through stdio.
LENIENT = ("C", "POSIX", "C.UTF-8", "C.utf8", "UTF-8")


def set_locale():
    """As Python's start-up does: the user's locale, and C becomes C.UTF-8 (PEP 538)."""
    get = os.environ.get
    if (get("LC_ALL") or get("LC_CTYPE") or get("LANG")) == "C.UTF-8":
        return "utf-8", "surrogateescape"  # the zygote's own
    known = "_locale" in sys.modules
    import _locale

    try:
        now = _locale.setlocale(_locale.LC_CTYPE, "")
    except _locale.Error:
        now = _locale.setlocale(_locale.LC_CTYPE, "C")
    if now == "C" and not os.environ.get("LC_ALL"):
        os.environ["LC_CTYPE"] = "C.UTF-8"
        try:
            now = _locale.setlocale(_locale.LC_CTYPE, "")
        except _locale.Error:
            del os.environ["LC_CTYPE"]
    charset = _locale.nl_langinfo(_locale.CODESET) or "UTF-8"
    if not known:
        del sys.modules["_locale"]
    if charset in ("UTF-8", "ANSI_X3.4-1968"):
        charset = "utf-8"
    return charset, "surrogateescape" if now in LENIENT else "strict"


def remake_stream(fd, name, encoding, errors, at_once):
    """As the interpreter's start-up makes it, on the descriptor that the caller passed; in place,
    for a module that was imported in a node may have kept the object. None: it is closed."""
    stream = getattr(sys, "__%s__" % name)
    mode = "r" if fd == 0 else "w"
    try:
        raw = _io.FileIO(fd, mode, closefd=False)
    except OSError:
        return None
    try:
        buffered = stream.buffer
    except (AttributeError, ValueError):  # none, or detached
        kind = _io.BufferedReader if fd == 0 else _io.BufferedWriter
        buffered = kind.__new__(kind)
        stream = _io.TextIOWrapper.__new__(_io.TextIOWrapper)
    raw.name = "<%s>" % name
    if at_once:
        buffered = raw
    else:
        buffered.__init__(raw, raw._blksize if raw._blksize > 1 else _io.DEFAULT_BUFFER_SIZE)
    stream.__init__(buffered, encoding, errors, "\n", line_buffering=raw.isatty() or fd == 2,
                    write_through=at_once)
    stream.mode = mode
    return stream


def told_encoding(encoding, errors):
    """As PYTHONIOENCODING says."""
    wanted, _, how = os.environ.get("PYTHONIOENCODING", "").partition(":")
    try:
        encoding = _codecs.lookup(wanted).name if wanted else encoding
    except LookupError:
        wanted = ""  # a plain interpreter would not start at all
    return encoding, how or ("strict" if wanted else errors)


def rebuild_stdio(encoding, errors, told):
    if told:
        encoding, errors = told_encoding(encoding, errors)
    at_once = told and bool(os.environ.get("PYTHONUNBUFFERED"))
    for fd, name, how in ((0, "stdin", errors), (1, "stdout", errors),
                          (2, "stderr", "backslashreplace")):
        replaced = getattr(sys, name, None) is not getattr(sys, "__%s__" % name)
        stream = remake_stream(fd, name, encoding, how, at_once and fd > 0)
        setattr(sys, "__%s__" % name, stream)
        if not replaced:  # else a package did, as it would in a script that imports it
            setattr(sys, name, stream)


def main_names():
    """The names of __main__: the module that bootstrap.py made, which nobody has used yet."""
    return sys.modules["__main__"].__dict__


def importer_of(path):
    """What the import system would read this path with: a directory or zip file; None: a script."""
    for hook in sys.path_hooks:
        try:
            return hook(path)
        except ImportError:
            continue
    return None


def code_of(path):
    """The script, compiled; or as it was compiled before (script.pyc)."""
    import _frozen_importlib_external as external

    with open(path, "rb") as f:
        source = f.read()
    if path.endswith(".pyc"):
        return external.SourcelessFileLoader("__main__", path).get_code("__main__"), True
    try:
        return compile(source, path, "exec", dont_inherit=True), False
    except (SyntaxError, ValueError):
        if not is_plain_text(source):
            run_plainly(path)
        raise


def is_plain_text(source):
    try:
        return "\0" not in source.decode("utf-8") and b"coding" not in source
    except UnicodeDecodeError:
        return False


def run_plainly(path):
    """Of bytes that are no text in their encoding, the interpreter's reader of files says other
    things than compile() does. Nothing of the script has run: let the interpreter itself tell."""
    try:
        os.execv(sys.executable, [sys.executable, path] + sys.argv[1:])
    except OSError:
        pass  # then compile()'s words must do


def run_package(path):
    import runpy

    sys.path.insert(0, path)
    src = os.path.join(path, "src")
    if os.path.isfile(os.path.join(path, "pyproject.toml")) and os.path.isdir(src):
        sys.path.insert(1, src)  # where a project keeps its packages
    runpy._run_module_as_main("__main__", False)


def absolute(path):
    """As the interpreter makes __file__ of what was typed: joined, not normalized."""
    if path.startswith("/"):
        return path
    return os.path.join(os.getcwd(), path)


def run_file(path):
    import _frozen_importlib_external as external

    path = absolute(path)
    if importer_of(path) is not None:
        return run_package(path)
    sys.path.insert(0, os.path.dirname(os.path.realpath(path)))
    space = main_names()
    try:
        space["__file__"] = path
        space["__cached__"] = None
        code, compiled = code_of(path)
        kind = external.SourcelessFileLoader if compiled else external.SourceFileLoader
        space["__loader__"] = kind("__main__", path)
        exec(code, space)
    finally:
        for name in ("__file__", "__cached__"):  # as the interpreter does, before atexit
            space.pop(name, None)


def run_stdin():
    sys.path.insert(0, "")
    space = main_names()
    space["__file__"] = "<stdin>"
    space["__cached__"] = None
    with _io.FileIO(0, "rb", closefd=False) as f:
        source = f.readall()
    exec(compile(source, "<stdin>", "exec", dont_inherit=True), space)


def show_source(code, source):
    """From 3.13 on tracebacks show the lines of -c."""
    import linecache

    try:
        key = code if hasattr(linecache, "_interactive_cache") else "<string>"
        linecache._register_code(key, source, "<string>")
    except (AttributeError, TypeError):
        pass


def run_code(source):
    sys.path.insert(0, "")
    space = main_names()
    code = compile(source, "<string>", "exec", dont_inherit=True)
    if sys.version_info >= (3, 13):
        show_source(code, source)
    exec(code, space)


def run_module(name):
    import runpy

    sys.path.insert(0, os.getcwd())
    runpy._run_module_as_main(name, True)


def greet():
    copyright_line = 'Type "help", "copyright", "credits" or "license" for more information.'
    sys.stderr.write("Python %s on %s\n%s\n" % (sys.version, sys.platform, copyright_line))


def show_error(e, tb):
    sys.last_type, sys.last_value, sys.last_traceback = type(e), e, tb
    if sys.version_info >= (3, 12):
        sys.last_exc = e
    sys.excepthook(type(e), e.with_traceback(tb), tb)


def tried(compiler, *args):
    """(code, error); the error is nobody's context."""
    try:
        return compiler(*args), None
    except (OverflowError, SyntaxError, ValueError) as e:
        return None, e


def console(space):
    """The library's prompt, with the errors as the interpreter's own prompt words and shows them."""
    import code

    class Console(code.InteractiveConsole):
        def runsource(self, source, filename="<stdin>", symbol="single"):
            todo, error = tried(self.compile, source, filename, symbol)
            if error is not None:
                # Without codeop's flags, by which it may be an error of incomplete input.
                flags = self.compile.compiler.flags & ~(0x200 | 0x4000)
                show_error(tried(compile, source + "\n", filename, symbol, flags, True)[1] or error,
                           None)
            elif todo is not None:
                self.runcode(todo)
            return todo is None and error is None

        def showtraceback(self):
            e = sys.exc_info()[1]
            show_error(e, e.__traceback__.tb_next)

    return Console(space, filename="<stdin>")


def run_prompt():
    sys.path.insert(0, "")
    space = main_names()
    greet()
    hook = getattr(sys, "__interactivehook__", None)
    if hook is not None:
        hook()  # site's: readline, completion, history
    if sys.version_info >= (3, 13):
        from _pyrepl.main import interactive_console

        interactive_console()  # falls back to the basic prompt by itself
        return
    console(space).interact(banner="", exitmsg="")


def run_command(name):
    """A command that the packages brought: a Python script is run here, anything else takes over the process."""
    path = os.path.join(sys.prefix, "bin", name)
    if not os.path.exists(path):
        print("pipsqueak: there is no file '%s' here, and no package brought a command of that name" % name, file=sys.stderr)
        raise SystemExit(2)
    sys.argv[0] = path
    with open(path, "rb") as f:
        first = f.readline(256)
    if first.startswith(b"#!") and b"python" in first:
        return run_file(path)
    return os.execv(path, sys.argv)


def run_what(kind, what):
    if kind == "file":
        run_file(what)
    elif kind == "stdin":
        run_stdin()
    elif kind == "code":
        run_code(what)
    elif kind == "module":
        run_module(what)
    elif kind == "command":
        run_command(what)
    else:
        run_prompt()


def set_up(state, fields, use_environment):
    """Environment, locale, stdio, signals, arguments, directory. The caller's own go first."""
    import _signal
    import time

    c = state.c
    path = "/usr/local/bin:/usr/bin:/bin"
    if sys.prefix == state.env:
        path = state.env + "/bin:" + path
    fixed = os.fsencode("PATH=%s\0HOME=/home/user\0" % path)
    state.clean_environment(state, fixed + fields.get(c.T_ENV, b""))
    if b"TZ" in os.environ._data:
        time.tzset()
    told = b"PYTHON" in fields.get(c.T_ENV, b"")  # seldom; else nothing more is looked at
    rebuild_stdio(*set_locale(), told)
    _signal.signal(_signal.SIGINT, _signal.default_int_handler)
    cwd = fields.get(c.T_CWD, b"/").decode("utf-8", "surrogateescape")
    try:
        os.chdir(cwd)
    except OSError:
        os.chdir("/tmp")
    process = sys.modules.get("multiprocessing.process")
    if process is not None:
        process.ORIGINAL_DIR = os.getcwd()  # what it found when it was imported
    use_environment()
    if told:
        afresh = state.part("afresh")
        if afresh["needed"]():
            afresh["script"](state.words(fields, c.T_TEXT))
        afresh["follow"]()
    sys.argv = state.words(fields, c.T_ARGV) or [""]
    if hasattr(sys, "orig_argv"):
        sys.orig_argv = [sys.executable] + (state.words(fields, c.T_TEXT) or sys.argv)


def tell(state, stream, recorder, asked, status):
    """The profile, when it is asked for or something new was imported that a node might hold; and
    that it is over: the caller need not wait until a large heap is freed."""
    c = state.c
    try:
        if asked or recorder.new_us() >= NEWS_US:
            c.send(stream, c.PROFILE, 0, recorder.fields())
        c.done(stream, status)
    except OSError:
        pass  # the daemon is gone


def start(state, stream, fields, use_environment):
    """Never returns: what ends a script also ends this process."""
    c = state.c
    set_up(state, fields, use_environment)
    kind = fields.get(c.T_KIND, b"file").decode()
    what = fields.get(c.T_CODE, b"").decode("utf-8", "surrogateescape")
    flags = state.words(fields, c.T_FLAGS)
    end = state.part("exit")
    me = os.getpid()
    recorder = state.part("record")["Recorder"](state)
    recorder.start()
    code, signo = end["attempt"](state, run_what, kind, what, flags)
    code = end["finish"](code)
    recorder.stop()
    gc.disable()
    if os.getpid() == me:  # a child that the script forked ends here, too
        tell(state, stream, recorder, "record" in flags, signo or code << 8)
    if signo:
        c.signal_exit(signo)
    c.exit(code)
