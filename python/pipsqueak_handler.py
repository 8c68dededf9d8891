# SPDX-License-Identifier: Apache-2.0
"""A function's instance: load the handler, answer calls.

Runs in: instances. JSON goes through CPython's C accelerator directly, so that a function that does
not use the json package does not find it imported.
"""
import os
import sys

_had_json = "_json" in sys.modules
import _json  # noqa: E402

if not _had_json:
    del sys.modules["_json"]
import _frozen_importlib as _bootstrap  # noqa: E402
import _frozen_importlib_external as _external  # noqa: E402
import _imp  # noqa: E402
import _io  # noqa: E402
import marshal as _marshal  # noqa: E402

_FINDERS = list(sys.meta_path)
_CACHED = "/__pycache__/%%s.%s.pyc" % sys.implementation.cache_tag
_UNCHECKED = _external.MAGIC_NUMBER + b"\x01\0\0\0"  # by its hash, which is not compared (PEP 552)


class _Decoder:
    """What _json.make_scanner wants to know of json.JSONDecoder."""

    strict = True
    object_hook = None
    object_pairs_hook = None
    parse_float = float
    parse_int = int
    memo = {}

    @staticmethod
    def parse_constant(name):
        return {"NaN": float("nan"), "Infinity": float("inf"), "-Infinity": float("-inf")}[name]


_scan = _json.make_scanner(_Decoder)
_SPACE = " \t\n\r"


def json_loads(text):
    start, end = 0, len(text)
    while start < end and text[start] in _SPACE:
        start += 1
    try:
        value, stop = _scan(text, start)
    except StopIteration as e:
        raise ValueError("not JSON at character %s" % e.value) from None
    if text[stop:].strip(_SPACE):
        raise ValueError("not JSON at character %d" % stop)
    return value


def _not_json(o):
    raise TypeError("Object of type %s is not JSON serializable" % type(o).__name__)


def json_dumps(value):
    # A new table of "being written now" each time: an error leaves entries in it.
    encode = _json.make_encoder({}, _not_json, _json.encode_basestring_ascii, None, ": ", ", ",
                                False, False, True)
    return "".join(encode(value, 0))


class Context:
    """What a handler may ask about its call; names as AWS Lambda has them."""

    def __init__(self, state, name, request_id, deadline_ms, memory):
        self._clock = state.c.clock_us
        self._deadline_ms = deadline_ms
        self.function_name = name
        self.aws_request_id = self.request_id = request_id
        self.memory_limit_in_mb = memory // (1 << 20)

    def get_remaining_time_in_millis(self):
        return max(0, self._deadline_ms - self._clock() // 1000)


def find_entry(app, entry):
    """(module, attribute) of "file.py:attr" or "module.attr" when its file is there, else None."""
    if ":" in entry:
        path, attr = entry.rsplit(":", 1)
    else:
        module, _, attr = entry.rpartition(".")
        path = module.replace(".", "/") + ".py"
        if not os.path.exists(os.path.join(app, path)):
            path = module.replace(".", "/") + "/__init__.py"
    if not os.path.exists(os.path.join(app, path)):
        return None
    module = path[:-3].replace("/", ".")
    return module[:-9] if module.endswith(".__init__") else module, attr


def takes_context(handler):
    """handler(event) or handler(event, context)? Without the inspect module, which is slow."""
    for _ in range(32):
        inner = getattr(handler, "__wrapped__", None)
        if inner is None:
            break
        handler = inner  # functools.wraps: what counts is the function inside
    bound = hasattr(handler, "__self__")
    code = getattr(handler, "__code__", None)
    if code is None:
        code = getattr(getattr(type(handler), "__call__", None), "__code__", None)
        bound = True
    if code is None:
        return True
    return code.co_argcount - bound != 1 or bool(code.co_flags & 4)


def is_ours(frame):
    return frame.f_globals.get("__name__", "").startswith("pipsqueak_")


def format_error(e):
    """The traceback without our own frames at its start."""
    import traceback

    tb = e.__traceback__
    while tb is not None and is_ours(tb.tb_frame):
        tb = tb.tb_next
    return "".join(traceback.format_exception(type(e), e, tb))


def one_line(e):
    text = str(e).split("\n")[0][:300]
    return "%s: %s" % (type(e).__name__, text) if text else type(e).__name__


def number(fields, tag):
    return int.from_bytes(fields.get(tag, b""), "little")


def bytecode(app, module):
    """What was compiled of app/MODULE.py at deploy; None: the import system is to find MODULE."""
    if (":" in module or "." in module or module in sys.modules or sys.meta_path != _FINDERS
            or module in sys.builtin_module_names or _imp.is_frozen(module)):
        return None
    try:
        with _io.FileIO(app + _CACHED % module) as f:
            data = f.readall()
    except OSError:
        return None
    return data if data[:8] == _UNCHECKED else None


class Own:
    """import MODULE, which is the function's own, in two steps: of its code nothing runs in the first.
    The import system, asked for it, would touch a hundred pages that are still shared with the
    zygote, and each costs a copy."""

    def __init__(self, app, module, data):
        path = "%s/%s.py" % (app, module)
        spec = _bootstrap.ModuleSpec(module, _external.SourceFileLoader(module, path), origin=path)
        spec._set_fileattr = True
        spec.cached = app + _CACHED % module
        self.made = _bootstrap.module_from_spec(spec)
        self.code = _marshal.loads(memoryview(data)[16:])
        self.name, self.spec = module, spec

    def run(self):
        sys.modules[self.name] = self.made
        self.spec._initializing = True
        try:
            exec(self.code, self.made.__dict__)
        except BaseException:
            sys.modules.pop(self.name, None)
            raise
        finally:
            self.spec._initializing = False


def entry_of(module, attr):
    handler = getattr(sys.modules[module], attr, None)
    if not callable(handler):
        raise LookupError("%s has no function called %s" % (module, attr))
    return handler


class Instance:
    def __init__(self, state, stream, name):
        self.state, self.stream, self.name = state, stream, name
        self.handler = self.own = self.load_error = None
        self.import_us = 0

    def find(self, app, candidates):
        for entry in candidates:
            module, _, attr = entry.rpartition(".")
            data = bytecode(app, module)
            self.entry = (module, attr) if data else find_entry(app, entry)
            if data:
                try:
                    self.own = Own(app, module, data)
                except Exception:
                    pass  # broken bytecode: the import system says how, when there is a call
            if self.entry:
                return
        self.load_error = ("start", LookupError(
            "no handler: none of %s is there" % ", ".join(candidates)))

    def load(self):
        clock = self.state.c.clock_us
        began = clock()
        try:
            if self.load_error is None:
                if self.own:
                    self.own.run()
                else:
                    __import__(self.entry[0])
                self.handler = entry_of(*self.entry)
            self.with_context = takes_context(self.handler)
        except BaseException as e:
            self.load_error = ("start", e)
        self.import_us = clock() - began

    def call(self, fields):
        c = self.state.c
        event = fields.get(c.T_BODY, b"")
        if fields.get(c.T_KIND) != b"bytes":
            event = json_loads(event.decode("utf-8")) if event.strip() else None
        args = (event,)
        if self.with_context:
            request_id = fields.get(c.T_NAME, b"").decode()
            args += (Context(self.state, self.name, request_id, number(fields, c.T_DEADLINE_MS),
                             number(fields, c.T_MEMORY)),)
        result = self.handler(*args)
        if hasattr(result, "__await__"):
            import asyncio

            result = asyncio.run(_await(result))
        if isinstance(result, (bytes, bytearray, memoryview)):
            return bytes(result), "bytes"
        return json_dumps(result).encode(), "json"

    def answer(self, ident, fields):
        c = self.state.c
        began = c.clock_us()
        reply = {}
        try:
            if self.load_error is not None:
                raise self.load_error[1]
            body, kind = self.call(fields)
            reply = {c.T_STATUS: 0, c.T_BODY: body, c.T_KIND: kind}
        except BaseException as e:
            kind = "start" if self.load_error is not None else "handler"
            reply = {c.T_ERR_KIND: kind, c.T_ERR_TEXT: one_line(e), c.T_BODY: format_error(e)}
        reply[c.T_TIMING] = ["import=%d" % self.import_us, "handler=%d" % (c.clock_us() - began)]
        flush()
        try:
            c.send(self.stream, c.REPLY, ident, reply)
        except OSError as e:
            reply = {c.T_ERR_KIND: "limit", c.T_ERR_TEXT: "the answer is too large: %s" % e}
            c.send(self.stream, c.REPLY, ident, reply)
        self.import_us = 0


async def _await(result):
    return await result


def flush():
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (AttributeError, OSError, ValueError):
            pass


def set_up(state, stream, fields, use_environment):
    """Environment, arguments, path; returns the directory of the function's code."""
    c = state.c
    app = fields.get(c.T_CWD, b"/app").decode("utf-8", "surrogateescape")
    state.clean_environment(state, state.fixed + fields.get(c.T_ENV, b""))
    if b"TZ" in os.environ._data:
        import time

        time.tzset()
    use_environment()
    if b"PYTHON" in fields.get(c.T_ENV, b""):
        afresh = state.part("afresh")
        if not state.again and afresh["needed"]():
            afresh["handler"](state, stream, fields)
        afresh["follow"]()
    sys.path.insert(0, app)
    sys.argv = [""]
    if hasattr(sys, "orig_argv"):
        sys.orig_argv = [sys.executable]
    try:
        os.chdir(app)
    except OSError:
        pass
    process = sys.modules.get("multiprocessing.process")
    if process is not None:
        process.ORIGINAL_DIR = os.getcwd()  # what it found when it was imported
    return app


REHEARSED = bytes(16) + _marshal.dumps(compile("def handler(event, context):\n    return event\n", "handler.py", "exec"))
REHEARSAL = "pipsqueak rehearses"  # no module is called so


def rehearse(state, times):
    """What runs in each child beside the function's own code. In a root, before it sleeps, often: the
    interpreter rewrites code while it learns how it is used, and fills its caches; a child that did so would
    copy a page for each of them, 50 of 180. In a child that is forked ahead, once: the pages that are
    written are copied then. Of this nothing is left but that."""
    c = state.c
    path, argv, cwd, fixed = list(sys.path), sys.argv, os.fsencode(os.getcwd()), state.fixed
    state.fixed = b"".join(b"%s=%s\0" % pair for pair in os.environ._data.items())
    call_from, call_to, reply_from, reply_to = streams = os.pipe() + os.pipe()
    for _ in range(times):
        state.part("reseed")["reseed"](state)
        app = set_up(state, reply_to, {c.T_CWD: cwd}, lambda: None)
        instance = Instance(state, reply_to, "rehearsal")
        instance.find(app, ["handler.handler"])
        instance.own, instance.entry, instance.load_error = Own(app, REHEARSAL, REHEARSED), (REHEARSAL, "handler"), None
        c.send(call_to, c.CALL, 1, {c.T_BODY: b'{"a": [1, "b", null]}', c.T_NAME: b"request"})
        _, ident, call = c.recv(call_from)
        instance.load()
        instance.answer(ident, call)
        c.recv(reply_from)
        del sys.modules[REHEARSAL]
    state.fixed, sys.path[:], sys.argv = fixed, path, argv
    for fd in streams:
        os.close(fd)


def start(state, stream, fields, use_environment):
    """Answers calls until the link ends."""
    c = state.c
    app = set_up(state, stream, fields, use_environment)
    candidates = state.words(fields, c.T_ENTRY)
    instance = Instance(state, stream, fields.get(c.T_NAME, b"").decode())
    instance.find(app, candidates)
    recorder = None
    if b"record\0" in fields.get(c.T_FLAGS, b""):
        recorder = state.part("record")["Recorder"](state)
        recorder.start()
    loaded = once = timed = False
    if b"again\0" in fields.get(c.T_FLAGS, b""):
        c.again(stream)  # from here on: a child, for one call
        state.part("reseed")["reseed"](state)
        once = True
    while True:
        try:
            kind, ident, call = c.recv(stream)
        except EOFError:
            flush()
            c.exit(0)
        if kind != c.CALL:
            c.exit(125)
        if not loaded:
            timed = recorder is None and call.get(c.T_FLAGS) == b"time\0"
            if timed:
                recorder = state.part("record")["Recorder"](state)
                recorder.start()
            instance.load()  # not before: an instance forked ahead runs no code of the function
            loaded = True
        instance.answer(ident, call)
        if recorder:
            recorder.stop()
            c.send(stream, c.PROFILE, 0, recorder.news() if timed else recorder.fields())
            recorder = None
        if once:
            c.leave()
