# SPDX-License-Identifier: Apache-2.0
"""Each script here runs by plain python3 and forked from a zygote: same output, errors, status."""
import contextlib
import fcntl
import os
import pty
import re
import select
import signal
import tempfile
import termios
import time

import pytest

from harness import WIRE, stdin_of, words

SCRIPTS = {
    "hello": "print('hello')",
    "main_module": """
        import sys
        main = sys.modules['__main__']
        print(list(main.__dict__), dir())
        print(__name__, __file__, __spec__, __package__, __doc__, __cached__, __annotations__)
        print(type(__loader__).__name__, __builtins__)
        print(__loader__.name, __loader__.path, __loader__.is_package('__main__'))
        """,
    "interpreter": """
        import gc, sys
        print(sys.argv, sys.path, sys.flags, sys.warnoptions, sys._xoptions)
        print(sys.prefix, sys.exec_prefix, sys.base_prefix, sys.executable, sys.excepthook)
        print(sys.dont_write_bytecode, sys.getrecursionlimit(), sys.gettrace(), sys.exc_info())
        print(sys.getfilesystemencoding(), sys.getdefaultencoding(), sys.getswitchinterval())
        print(sys.meta_path, sys.path_hooks, getattr(sys, 'last_value', None), hasattr(sys, 'ps1'))
        print(gc.isenabled(), gc.get_threshold(), gc.get_debug(), gc.callbacks)
        """,
    "modules": "import sys; print(sorted(sys.modules))",
    "modules_later": """
        import sys, json, threading, importlib.util
        print(sorted(m for m in sys.modules if 'pipsqueak' in m))
        print(importlib.util.find_spec('_json').origin, importlib.util.find_spec('nothing'))
        """,
    "environment": """
        import os, subprocess
        print(sorted(os.environ.items()))
        print(sorted(subprocess.check_output(['/usr/bin/env']).decode().splitlines()))
        """,
    "paths": """
        import os, site, sysconfig, tempfile
        print(os.getcwd(), site.PREFIXES, site.ENABLE_USER_SITE, tempfile.gettempdir())
        print(sysconfig.get_paths(), sysconfig.get_default_scheme() if hasattr(sysconfig,
              'get_default_scheme') else '')
        """,
    "traceback": """
        def f(x):
            return 1 / x
        f(0)
        """,
    "traceback_chain": """
        try:
            {}['a']
        except KeyError as e:
            raise ValueError('no') from e
        """,
    "traceback_printed": """
        import traceback, sys
        try:
            1 / 0
        except ZeroDivisionError:
            traceback.print_exc()
        """,
    "import_error_inside": "import broken_module",
    "import_missing_name": "from os import no_such_name",
    "import_syntax_error": "import bad_syntax",
    "syntax_error": "x = = 1",
    "indentation_error": "if 1:\nx = 1",
    "bad_encoding": b"# -*- coding: no-such-codec -*-\nprint(1)\n",
    "bad_bytes": b"print('\xff')\n",
    "null_bytes": b"print(1)\n\0\n",
    "latin1_source": b"# -*- coding: latin-1 -*-\nprint('\xe9\xe8')\nx = '\xe9' / 2\n",
    "bom": b"\xef\xbb\xbfprint('bom', __file__)\n",
    "unicode_source": "été = 'ü'; print(été, '日本', ascii('😀'))\n1/0 # é",
    "crlf": b"print(1)\r\nprint('''a\r\nb'''.encode())\r\n",
    "empty": "",
    "exit_none": "import sys; sys.exit()",
    "exit_zero": "import sys; sys.exit(0)",
    "exit_three": "import sys; print('x'); sys.exit(3)",
    "exit_big": "import sys; sys.exit(257)",
    "exit_negative": "import sys; sys.exit(-1)",
    "exit_huge": "import sys; sys.exit(1 << 80)",
    "exit_true": "import sys; sys.exit(True)",
    "exit_text": "import sys; print('out'); sys.exit('a message')",
    "exit_object": "import sys; sys.exit(['a', 1])",
    "exit_raised": "raise SystemExit('told')",
    "exit_class": "raise SystemExit",
    "exit_builtin": "print(exit, quit); exit(4)",
    "exit_os": "import os; print('lost'); os._exit(5)",
    "exit_in_thread": "import threading, sys\nt = threading.Thread(target=sys.exit)\nt.start()",
    "exit_in_excepthook": """
        import sys
        sys.excepthook = lambda *a: sys.exit(9)
        1 / 0
        """,
    "excepthook": """
        import sys
        sys.excepthook = lambda kind, value, tb: print('hook', kind, value, tb.tb_lineno, tb.tb_next)
        1 / 0
        """,
    "excepthook_broken": """
        import sys
        def hook(*a):
            raise RuntimeError('broken')
        sys.excepthook = hook
        1 / 0
        """,
    "excepthook_gone": "import sys\ndel sys.excepthook\n1 / 0",
    "last_value": """
        import atexit, sys
        atexit.register(lambda: print(sys.last_type, sys.last_value, sys.last_traceback.tb_lineno))
        1 / 0
        """,
    "abort": "import os; os.abort()",
    "keyboard_interrupt": "raise KeyboardInterrupt('why')",
    "keyboard_interrupt_kind": "class K(KeyboardInterrupt): pass\nraise K",
    "killed_by_itself": "import os, signal; print('x', flush=True); os.kill(os.getpid(), signal.SIGTERM)",
    "recursion": """
        def f(n):
            return f(n + 1)
        try:
            f(0)
        except RecursionError as e:
            print(e)
        """,
    "assertion": "assert 1 == 2, 'not equal'",
    "exception_group": """
        import sys
        if sys.version_info >= (3, 11):
            raise ExceptionGroup('many', [ValueError(1), TypeError(2)])
        """,
    "notes": """
        e = ValueError('a')
        if hasattr(e, 'add_note'):
            e.add_note('a note')
        raise e
        """,
    "suggestion": "valeur = 1\nprint(value)\n",
    "atexit_order": """
        import atexit
        for i in range(3):
            atexit.register(print, i)
        print('end')
        """,
    "atexit_raises": """
        import atexit
        def bad():
            1 / 0
        atexit.register(print, 'first')
        atexit.register(bad)
        atexit.register(print, 'last')
        """,
    "atexit_exits": """
        import atexit, sys
        atexit.register(lambda: sys.exit(7))
        """,
    "atexit_after_error": "import atexit\natexit.register(print, 'bye')\n1/0",
    "atexit_registers": """
        import atexit
        def more():
            print('more')
        atexit.register(lambda: atexit.register(more))
        """,
    "atexit_file_name": """
        import atexit
        def f():
            print('__file__' in globals(), '__name__' in globals())
        atexit.register(f)
        """,
    "threads_joined": """
        import threading, time
        def f():
            time.sleep(0.1)
            print('thread done')
        threading.Thread(target=f).start()
        print('main done')
        """,
    "threads_daemon": """
        import threading, time
        threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
        print('main done', threading.active_count(), threading.current_thread(),
              threading.main_thread().ident == threading.get_ident())
        """,
    "thread_raises": """
        import threading
        def f():
            1 / 0
        t = threading.Thread(target=f, name='T')
        t.start()
        t.join()
        """,
    "threads_then_exit": """
        import threading, time, sys
        threading.Thread(target=lambda: (time.sleep(0.1), print('late'))).start()
        sys.exit(6)
        """,
    "open_file": """
        f = open('left-open.txt', 'w')
        f.write('written')
        import atexit
        g = open('left-open-2.txt', 'wb')
        g.write(b'bytes')
        print('x')
        """,
    "read_back": "print(open('left-open.txt').read(), open('left-open-2.txt').read())",
    "gzip_left_open": """
        import gzip
        f = gzip.open('left.gz', 'wt')
        f.write('inside')
        """,
    "gzip_read_back": "import gzip; print(gzip.open('left.gz').read())",
    "destructor": """
        class A:
            def __init__(self, n):
                self.n = n
            def __del__(self):
                print('gone', self.n, A.__name__)
        a, b = A(1), A(2)
        """,
    "destructor_in_cycle": """
        class A:
            def __del__(self):
                print('gone')
        a = A()
        a.me = a
        """,
    "generator_left": """
        def g():
            try:
                yield 1
            finally:
                print('finally')
        x = g()
        print(next(x))
        """,
    "finalizer": """
        import weakref
        class A: pass
        a = A()
        weakref.finalize(a, print, 'finalized')
        """,
    "temporary_directory": """
        import tempfile, os
        d = tempfile.TemporaryDirectory(dir='.')
        f = tempfile.NamedTemporaryFile(dir='.')
        print(os.path.isdir(d.name))
        """,
    "temporary_gone": "import os; print(sorted(n for n in os.listdir('.') if n.startswith('tmp')))",
    "pickle": """
        import pickle
        class A:
            def __init__(self):
                self.x = 1
        data = pickle.dumps(A())
        print(data, pickle.loads(data).x, A.__module__, A)
        """,
    "dataclass_enum": """
        import dataclasses, enum, typing
        @dataclasses.dataclass
        class P:
            x: int
            y: typing.Optional['P'] = None
        class C(enum.Enum):
            RED = 1
        print(P(1, P(2)), C.RED, typing.get_type_hints(P))
        """,
    "fork": """
        import os, sys
        pid = os.fork()
        if not pid:
            print('child')
            sys.exit(3)
        print(os.waitpid(pid, 0)[1])
        """,
    "fork_falls_off": """
        import os
        print(os.fork() == 0 or os.wait()[1])
        """,
    "subprocess": """
        import subprocess, sys
        print(subprocess.check_output([sys.executable, '-c',
              'import sys; print(sys.prefix, sys.path)']).decode())
        """,
    "warnings": """
        import warnings
        warnings.warn('careful')
        warnings.warn('deprecated', DeprecationWarning)
        warnings.warn('level', stacklevel=1)
        def f():
            warnings.warn('caller', stacklevel=2)
        f()
        print(len(warnings.filters))
        """,
    "invalid_escape": r"print('\d')",
    "stdio": """
        import sys
        for f in (sys.stdin, sys.stdout, sys.stderr, sys.__stdin__, sys.__stdout__, sys.__stderr__):
            print(f, f.name, f.mode, f.encoding, f.errors, f.newlines, f.line_buffering,
                  f.write_through, f.isatty(), f.fileno(), f.buffer, f.buffer.raw.closefd)
        print(sys.stdout is sys.__stdout__, sys.stdin.buffer.raw.mode, sys.stdout.buffer.raw)
        """,
    "stdin_read": "import sys; print(repr(sys.stdin.read()), input)",
    "stdin_lines": "print([input(), input()])\nimport sys\nprint(list(sys.stdin))",
    "stdin_bytes": "import sys; print(sys.stdin.buffer.read(), sys.stdin.closed)",
    "surrogates": "import sys; print(repr(sys.stdin.readline())); print('\\udcff')",
    "mixed_output": """
        import os, sys
        print('one', flush=True)
        os.write(1, b'two\\n')
        print('three', file=sys.stderr)
        print('four')
        """,
    "stdout_closed": "import sys; sys.stdout.close()",
    "stdout_replaced": "import io, sys; sys.stdout = io.StringIO(); print('nowhere')",
    "stdout_none": "import sys; sys.stdout = None; print('nowhere')",
    "stderr_none": "import sys; sys.stderr = None; 1/0",
    "signals": """
        import signal
        print([(s, signal.getsignal(s)) for s in sorted(signal.valid_signals())
               if s not in (32, 33)])
        print(signal.pthread_sigmask(signal.SIG_BLOCK, []))
        """,
    "descriptors": "import os; print(os.open('.', os.O_RDONLY), os.dup(0))",
    "async": """
        import asyncio
        async def main():
            await asyncio.sleep(0)
            return 5
        print(asyncio.run(main()))
        """,
    "never_awaited": """
        async def f():
            pass
        f()
        """,
    "executor_threads": """
        from concurrent.futures import ThreadPoolExecutor
        p = ThreadPoolExecutor(2)
        print(list(p.map(abs, [-1, -2])))
        """,
    "logging": """
        import logging
        logging.basicConfig(format='%(filename)s %(lineno)d %(funcName)s %(message)s')
        logging.warning('told')
        """,
    "locale_time": """
        import locale, time
        print(locale.setlocale(locale.LC_CTYPE, None), locale.getpreferredencoding().lower())
        print(time.tzname, time.strftime('%H %Z', time.localtime(0)))
        """,
    "linecache": """
        import linecache, inspect
        def f():
            return 1
        print(linecache.getline(__file__, 2), inspect.getsource(f))
        """,
    "doctest": """
        '''
        >>> 1 + 1
        3
        '''
        import doctest
        print(doctest.testmod())
        """,
    "unittest": """
        import unittest
        class T(unittest.TestCase):
            def test(self):
                self.assertEqual(1, 2)
        unittest.main(verbosity=2)
        """,
    "relative_import": "from . import x",
    "import_beside": "import beside; print(beside.__file__, beside.value)",
    "import_self": "if __name__ == '__main__':\n    import importlib\n    m = importlib.import_module("
                   "'t_import_self')\n    print(m.__name__, m.__file__)\n",
    "environment_package": "import envpkg, sys; print(envpkg.__file__, envpkg.__path__)",
    "pth_file": "import sys; print([p for p in sys.path if 'extra' in p], sys.pth_ran > 0)",
    "metadata": """
        from importlib import metadata
        print(metadata.version('envpkg'), sorted(d.metadata['Name'] for d in
              metadata.distributions()))
        """,
    "random_state": "import random, uuid; r = random.Random(3); print(r.random(), uuid.UUID(int=5))",
    "getframe": "import sys; print(sys._getframe().f_code.co_name, sys._getframe().f_lineno)",
    "help_exists": "print(help, copyright, credits, license)",
    "memory_error": "try:\n    'x' * (1 << 62)\nexcept MemoryError as e:\n    print(repr(e))\n",
    "runpy": "import runpy; print(sorted(runpy.run_path('beside.py')))",
    "exec_eval": "exec('a = 1'); print(eval('a'), compile('1', 'x', 'eval'))",
    "annotations": "x: int = 1\nprint(__annotations__)",
}

MULTI = """
import multiprocessing as mp
import concurrent.futures as cf
import sys

class Thing:
    def __init__(self, n):
        self.n = n

def double(t):
    return Thing(t.n * 2)

def main(method):
    mp.set_start_method(method)
    with mp.Pool(2) as pool:
        print([t.n for t in pool.map(double, [Thing(1), Thing(2)])])
    with cf.ProcessPoolExecutor(2) as ex:
        print([t.n for t in ex.map(double, [Thing(3)])])
    q = mp.Queue()
    p = mp.Process(target=q.put, args=(Thing(9),))
    p.start()
    print(q.get().n)
    p.join()
    print(p.exitcode)

if __name__ == '__main__':
    main(sys.argv[1])
"""


def dedent(text):
    if isinstance(text, bytes):
        return text
    lines = text.split("\n")
    if not lines[0].strip() and len(lines) > 1:
        margin = len(lines[1]) - len(lines[1].lstrip())
        text = "\n".join(line[margin:] for line in lines[1:])
    return text.encode()


@pytest.fixture(scope="session")
def ready(zygote):
    """The scripts in the working directory, and a small environment."""
    for name, text in SCRIPTS.items():
        with open("%s/t_%s.py" % (zygote.work, name), "wb") as f:
            f.write(dedent(text))
    files = {"multi.py": MULTI, "beside.py": "value = 5\n", "bad_syntax.py": "def f(:\n",
             "broken_module.py": "def f():\n    raise ValueError('inside')\nf()\n"}
    for name, text in files.items():
        with open(os.path.join(zygote.work, name), "w") as f:
            f.write(text)
    zygote.add_package("envpkg/__init__.py", "value = 1\n")
    zygote.add_package("envpkg/__main__.py", "import sys\nprint(sys.argv, __spec__.name, sys.path)\n")
    zygote.add_package("envpkg/tool.py", "import sys\nprint(__name__, __package__, sys.argv)\n1 / 0\n")
    zygote.add_package("envpkg-1.5.dist-info/METADATA", "Name: envpkg\nVersion: 1.5\n")
    zygote.add_package("extra_dir/inside.py", "")
    zygote.add_package("slow.py", "import time\ntime.sleep(0.01)\n")
    zygote.add_package("a.pth", "extra_dir\nimport sys; sys.pth_ran = getattr(sys, 'pth_ran', 0) + 1\n")
    return zygote


def steady(text):
    """Without addresses, names of temporary files, pids and thread ids, which differ by nature."""
    text = re.sub(r"0x[0-9a-f]+", "0x", text)
    text = re.sub(r"tmp[a-z0-9_]{8}", "tmp", text)
    text = re.sub(r"(started|Thread\(|pid=|process |fork_process: )[ \d]*\d{3,}", r"\1N", text)
    return re.sub(r"in \d+\.\d+s", "in 0s", text)


def same(forked, plain):
    assert steady(forked.err) == steady(plain.err)
    assert steady(forked.out) == steady(plain.out)
    assert forked.code == plain.code
    for kind, _, fields in forked.messages[-1:]:  # none when it died of a signal
        assert kind == WIRE.DONE and int.from_bytes(fields[WIRE.T_STATUS], "little") == forked.status


STDIN = b"first\nsecond \xff\nthird"


@pytest.mark.parametrize("name", sorted(SCRIPTS))
def test_script(ready, name):
    argv = ["t_" + name + ".py", "a", "b c", "é"]
    run = ready.run("file", argv[0], argv, flags=["allow-all"], stdin=STDIN, orig=argv)
    plain = ready.plain(argv, stdin=STDIN)
    if name == "exit_huge":  # 3.12 and 3.13 print an error of their own making
        plain.err = run.err
    same(without_hint(run), plain)


def without_hint(result):
    lines = result.err.splitlines(keepends=True)
    if lines and lines[-1].startswith("pipsqueak: no package given provides"):
        result.err = "".join(lines[:-1])
    return result


@pytest.mark.parametrize("env", [{"LANG": "C"}, {"LANG": ""}, {"LANG": "xx_YY.UTF-8"},
                                 {"TZ": "America/New_York"}, {"LC_ALL": "C.UTF-8", "TZ": "UTC+3"},
                                 {"LANG": "C.UTF-8", "LC_CTYPE": "POSIX"}, {"X_é": "ü"}])
@pytest.mark.parametrize("name", ["locale_time", "stdio", "environment", "surrogates"])
def test_locale(ready, env, name):
    run = ready.run("file", "t_" + name + ".py", ["t_" + name + ".py"], env=env, stdin=STDIN)
    same(run, ready.plain(["t_" + name + ".py"], env=env, stdin=STDIN))


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_multiprocessing(ready, method):
    argv = ["multi.py", method]
    same(ready.run("file", "multi.py", argv), ready.plain(argv))


CODES = ["print(__name__, __doc__, dir(), __loader__)", "import sys; print(sys.argv, sys.path)",
         "1/0", "def f():\n    raise ValueError\nf()", "x = ", "import sys; sys.exit('told')",
         "raise KeyboardInterrupt", "print(__file__)", "import beside; print(beside.value)",
         "import sys; print(sorted(sys.modules))", "import inspect\ndef f(): pass\n"
         "try:\n    print(inspect.getsource(f))\nexcept OSError as e:\n    print(e)",
         "import pickle\nclass A: pass\nprint(pickle.dumps(A()))", "print('é')", ""]


@pytest.mark.parametrize("code", CODES)
def test_code(ready, code):
    run = ready.run("code", code, ["-c", "x"], orig=["-c", code, "x"])
    same(run, ready.plain(["-c", code, "x"]))


@pytest.mark.parametrize("code", CODES)
def test_script_on_stdin(ready, code):
    same(ready.run("stdin", "", ["-", "x"], stdin=code), ready.plain(["-", "x"], stdin=code))


def test_script_on_stdin_leaves_nothing(ready):
    code = "import sys; print(repr(sys.stdin.read()), sys.argv)\n"
    same(ready.run("stdin", "", [""], stdin=code), ready.plain([], stdin=code))


@pytest.mark.parametrize("name", ["envpkg", "envpkg.tool", "beside", "no_such", "envpkg.no_such",
                                  "json.tool", "t_keyboard_interrupt", "t_exit_three", "t_modules",
                                  "t_main_module", "site"])
def test_module(ready, name):
    run = ready.run("module", name, ["-m", "x"], orig=["-m", name, "x"], stdin="{}")
    plain = ready.plain(["-m", name, "x"], stdin="{}")
    if name == "t_main_module":
        spec = r"ModuleSpec.*"  # its loader is told apart by address
        run.out, plain.out = re.sub(spec, "", run.out), re.sub(spec, "", plain.out)
    same(run, plain)


def package(ready, name, text):
    where = os.path.join(ready.work, name)
    os.makedirs(where, exist_ok=True)
    with open(where + "/__main__.py", "w") as f:
        f.write(text)
    return name


MAIN = "import sys\nprint(sys.argv, sys.path, __name__, __file__, __package__, __spec__.name)\n1 / 0\n"


def test_directory(ready):
    argv = [package(ready, "pack", MAIN), "x"]
    same(ready.run("file", argv[0], argv), ready.plain(argv))


def test_zip(ready):
    import zipapp

    package(ready, "packed", MAIN)
    zipapp.create_archive(ready.work + "/packed", ready.work + "/app.pyz", "/usr/bin/env python3")
    same(ready.run("file", "app.pyz", ["app.pyz"]), ready.plain(["app.pyz"]))


def test_directory_without_main(ready):
    os.makedirs(ready.work + "/nothing", exist_ok=True)
    same(ready.run("file", "nothing", ["nothing"]), ready.plain(["nothing"]))


def test_compiled(ready):
    made = ready.plain(["-c", "import py_compile; py_compile.compile('beside.py', 'made.pyc')"])
    assert made.code == 0
    same(ready.run("file", "made.pyc", ["made.pyc"]), ready.plain(["made.pyc"]))


@pytest.mark.parametrize("how", ["./t_main_module.py", "{work}/t_main_module.py", "../work/t_traceback.py",
                                 "link.py", "sub/link.py", "dirlink/t_interpreter.py", "absent.py",
                                 "{work}/./t_paths.py", "unreadable/x.py"])
def test_how_a_script_is_named(ready, how):
    os.makedirs(ready.work + "/sub", exist_ok=True)
    for link, target in (("link.py", "t_interpreter.py"), ("sub/link.py", "../t_interpreter.py"),
                         ("dirlink", ready.work)):
        if not os.path.lexists(os.path.join(ready.work, link)):
            os.symlink(target, os.path.join(ready.work, link))
    how = how.format(work=ready.work)
    same(ready.run("file", how, [how]), ready.plain([how]))


def test_other_directory(ready):
    os.makedirs(ready.work + "/elsewhere", exist_ok=True)
    where = ready.work + "/elsewhere"
    same(ready.run("file", "../t_paths.py", ["../t_paths.py"], cwd=where),
         ready.plain(["../t_paths.py"], cwd=where))


# ---- signals ----

WAITS = """
import signal, sys, time
{more}
print('ready', flush=True)
try:
    time.sleep(30)
finally:
    print('finally')
"""


def signal_when_ready(number, where):
    def act(pid):
        end = time.monotonic() + 20
        while not os.path.exists(where):
            assert time.monotonic() < end
            select.select([], [], [], 0.01)
        select.select([], [], [], 0.05)
        os.kill(pid, number)
    return act


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1])
@pytest.mark.parametrize("more", ["", "signal.signal(signal.SIGTERM, lambda *a: sys.exit(11))",
                                  "import threading; threading.Thread(target=time.sleep, "
                                  "args=(0.2,)).start()"])
def test_signal(ready, number, more):
    flag = ready.work + "/is-ready"
    text = WAITS.format(more=more).replace("flush=True)", "flush=True); open(%r, 'w')" % flag, 1)
    with open(ready.work + "/waits.py", "w") as f:
        f.write(text)
    results = []
    for how in (lambda b: ready.run("file", "waits.py", ["waits.py"], before=b),
                lambda b: ready.plain(["waits.py"], before=b)):
        if os.path.exists(flag):
            os.unlink(flag)
        results.append(how(signal_when_ready(number, flag)))
    same(*results)


def test_interrupt_in_module(ready):
    same(ready.run("module", "t_keyboard_interrupt", ["-m"]),
         ready.plain(["-m", "t_keyboard_interrupt"]))


# ---- standard streams ----

def closed_pipe(how, ready):
    read, write = os.pipe()
    os.close(read)
    given = stdin_of(None)
    import tempfile

    with tempfile.TemporaryFile() as err:
        result = how((given.fileno(), write, err.fileno()))
        err.seek(0)
        result.err = err.read().decode()
    os.close(write)
    return result


@pytest.mark.parametrize("text", ["print('x')", "print('x', flush=True)", "import os\nos.write(1, b'x')",
                                  "print('x')\nraise SystemExit(3)", "print('x')\n1/0",
                                  "import sys\nsys.exit('told')"])
def test_closed_pipe(ready, text):
    with open(ready.work + "/pipe.py", "w") as f:
        f.write(text)
    same(closed_pipe(lambda s: ready.run("file", "pipe.py", ["pipe.py"], stdio=s), ready),
         closed_pipe(lambda s: ready.plain(["pipe.py"], stdio=s), ready))


def test_full_device(ready):
    results = []
    for how in (lambda s: ready.run("file", "t_hello.py", ["t_hello.py"], stdio=s),
                lambda s: ready.plain(["t_hello.py"], stdio=s)):
        fd = os.open("/dev/full", os.O_WRONLY)
        with tempfile.TemporaryFile() as err, stdin_of(None) as given:
            result = how((given.fileno(), fd, err.fileno()))
            err.seek(0)
            result.err = err.read().decode()
        os.close(fd)
        results.append(result)
    same(*results)


def on_terminal(how, typed=b"", until=b"", steps=()):
    """Run with a terminal as stdio; returns (result, what was shown)."""
    master, slave = pty.openpty()
    attributes = termios.tcgetattr(slave)
    attributes[1] &= ~termios.ONLCR
    termios.tcsetattr(slave, termios.TCSANOW, attributes)
    fcntl.ioctl(slave, termios.TIOCSWINSZ, b"\x18\0\x50\0\0\0\0\0")
    seen = []
    pending = list(steps)

    def talk(pid):
        end = time.monotonic() + 30
        while time.monotonic() < end:
            done = False
            if select.select([master], [], [], 0.2)[0]:
                seen.append(os.read(master, 65536))
            shown = b"".join(seen)
            while pending and shown.count(pending[0][0]) >= pending[0][1]:
                os.write(master, pending.pop(0)[2])
            if not pending:
                with contextlib.suppress(ChildProcessError):  # the process between us and it has not ended yet
                    done = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT | os.WNOHANG) is not None
            if done:
                break
    result = how((slave, slave, slave), talk)
    while select.select([master], [], [], 0)[0]:
        seen.append(os.read(master, 65536))
    os.close(slave)
    os.close(master)
    return result, b"".join(seen).decode()


TERMINAL = """
import sys, os
for f in (sys.stdin, sys.stdout, sys.stderr):
    print(f, f.isatty(), f.line_buffering, f.write_through, f.buffer, f.errors)
print(os.get_terminal_size(), os.ttyname(0)[:9])
print(input('name? '))
sys.stdout.write('no newline')
"""


def test_terminal(ready):
    with open(ready.work + "/terminal.py", "w") as f:
        f.write(TERMINAL)
    steps = [(b"name? ", 1, b"me\n")]
    run = on_terminal(lambda s, b: ready.run("file", "terminal.py", ["terminal.py"], stdio=s,
                                             before=b), steps=steps)
    plain = on_terminal(lambda s, b: ready.plain(["terminal.py"], stdio=s, before=b), steps=steps)
    assert run[1] == plain[1]
    assert run[0].code == plain[0].code == 0


def test_prompt(ready):
    """What a person sees; the echo and escape sequences of line editing are not compared."""
    steps = [(b">>> ", 1, b"1 + 41\n"), (b">>> ", 2, b"_ + 1\n"), (b">>> ", 3, b"1 / 0\n"),
             (b">>> ", 4, b"__name__, exit\n"), (b">>> ", 5, b"exit(3)\n")]
    env = {"TERM": "dumb", "PYTHON_BASIC_REPL": "1", "HOME": ready.dir + "/home"}
    run = on_terminal(lambda s, b: ready.run("prompt", "", [""], stdio=s, before=b, env=env),
                      steps=steps)
    plain = on_terminal(lambda s, b: ready.plain([], stdio=s, before=b, env=env), steps=steps)
    assert run[0].code == plain[0].code == 3
    shown = [[line for line in text.splitlines() if "warning: can't use pyrepl" not in line]
             for text in (run[1], plain[1])]
    assert shown[0] == shown[1]
    assert "42" in run[1] and "43" in run[1] and "ZeroDivisionError" in run[1]


def test_prompt_end_of_input(ready):
    env = {"TERM": "dumb", "PYTHON_BASIC_REPL": "1", "HOME": ready.dir + "/home"}
    steps = [(b">>> ", 1, b"\x04")]
    run = on_terminal(lambda s, b: ready.run("prompt", "", [""], stdio=s, before=b, env=env),
                      steps=steps)
    plain = on_terminal(lambda s, b: ready.plain([], stdio=s, before=b, env=env), steps=steps)
    assert run[0].code == plain[0].code == 0
    assert run[1].splitlines()[-1] == plain[1].splitlines()[-1]


# ---- what is ours is not seen ----

def test_a_node_below_makes_no_difference(ready):
    """The same scripts from a node that has the modules already."""
    node, profile, child = ready.node(["json", "threading", "multiprocessing", "logging", "envpkg"])
    assert words(profile, WIRE.T_LEFT) == []
    for name in ("threads_joined", "traceback", "atexit_order", "pickle", "environment_package",
                 "stdio", "signals", "descriptors", "threads_daemon", "pth_file", "metadata"):
        run = ready.run("file", "t_" + name + ".py", ["t_" + name + ".py"], over=node, stdin=STDIN)
        same(run, ready.plain(["t_" + name + ".py"], stdin=STDIN))
    for method in ("fork", "spawn", "forkserver"):
        argv = ["multi.py", method]
        same(ready.run("file", "multi.py", argv, over=node), ready.plain(argv))
    node.close()
    child.wait()


def test_orig_argv(ready):
    code = "import sys; print(getattr(sys, 'orig_argv', [0])[1:])"
    same(ready.run("code", code, ["-c", "x"], orig=["-c", code, "x"]), ready.plain(["-c", code, "x"]))


def test_profile_is_sent_however_a_script_ends(ready):
    for name in ("hello", "traceback", "exit_three", "keyboard_interrupt", "atexit_raises"):
        run = ready.run("file", "t_" + name + ".py", ["t_" + name + ".py"], flags=["record"])
        assert [m[0] for m in run.messages] == [WIRE.PROFILE, WIRE.DONE]
    assert [m[0] for m in ready.run("code", "pass", ["-c"]).messages] == [WIRE.DONE]
    run = ready.run("code", "import json, wsgiref.util, slow", ["-c"])
    names = words(run.messages[0][2], WIRE.T_MODULES)
    times, origins = (words(run.messages[0][2], tag) for tag in (WIRE.T_SELF_US, WIRE.T_ORIGIN))
    assert names.index("json") < names.index("json.decoder") < names.index("wsgiref.util")
    assert dict(zip(names, origins, strict=True))["json"].endswith("json/__init__.py")
    assert int(dict(zip(names, times, strict=True))["json.decoder"]) > 0
