# SPDX-License-Identifier: Apache-2.0
"""What an import loads, how long each module takes by itself, and what it asks for.

Runs in: nodes while they import; instances and scripts during their first call.
"""
import sys

import _frozen_importlib
import _thread


class Listener:
    """First on sys.meta_path: hears every look-up of a dist's metadata, finds nothing itself."""

    def __init__(self, recorder):
        self.recorder = recorder

    def find_spec(self, name, path=None, target=None):
        return None

    def find_distributions(self, context=None):
        name = getattr(context, "name", None)
        if name is not None:
            self.recorder.queried[name] = None
            return iter(())
        group = self.asked_group()
        if group is None:
            self.recorder.queried["*"] = None
        else:
            self.recorder.absent["group:" + group] = None
        return iter(())

    @staticmethod
    def asked_group():
        """entry_points(group=...) lists every dist, but only this group of it matters."""
        frame = sys._getframe(2)
        while frame is not None:
            if frame.f_globals.get("__name__") in ("importlib.metadata", "importlib_metadata"):
                if frame.f_code.co_name == "entry_points":
                    group = frame.f_locals.get("params", {}).get("group")
                    return group if isinstance(group, str) else None
            frame = frame.f_back
        return None


class Missing:
    """Last on sys.meta_path: whatever comes here was found by nobody."""

    def __init__(self, recorder):
        self.recorder = recorder

    def find_spec(self, name, path=None, target=None):
        self.recorder.absent["import:" + name] = None
        return None


class Recorder:
    """Between start() and stop() every import is timed. With `asks` also what is asked for and
    not there, dists whose metadata is read, and environment variables (DESIGN 3.4)."""

    def __init__(self, state, asks=False):
        self.state = state
        self.asks = asks
        self.absent = {}
        self.queried = {}
        self.env = {}
        self.original = None
        self.listener, self.missing = Listener(self), Missing(self)

    def new_us(self):
        """Self time of what was imported since start()."""
        times = list(self.state.known.values())
        return sum(times[self.known_before:])

    def start(self):
        self.known_before = len(self.state.known)
        original = self.original = _frozen_importlib._find_and_load
        known, order = self.state.known, self.state.order
        clock, ident = self.state.c.clock_us, _thread.get_ident
        inner = {}  # thread -> for each import under way, the time of the imports inside it

        def _find_and_load(name, import_):
            stack = inner.setdefault(ident(), [0])
            stack.append(0)
            order.setdefault(name)
            began = clock()
            try:
                return original(name, import_)
            finally:
                took = clock() - began
                own = took - stack.pop()
                stack[-1] += took
                if name not in known and name in sys.modules:
                    known[name] = own if own > 0 else 0

        _frozen_importlib._find_and_load = _find_and_load
        if self.asks:
            sys.meta_path.insert(0, self.listener)
            sys.meta_path.append(self.missing)
            self.listen_environment()

    def listen_environment(self):
        import os

        kind, env = type(os.environ), self.env
        names = ("__getitem__", "__contains__", "__iter__")
        self.methods = {name: kind.__dict__.get(name) for name in names}
        getitem, contains, iterate = kind.__getitem__, kind.__contains__, kind.__iter__

        def note(key):
            if isinstance(key, bytes):  # os.environb
                key = os.fsdecode(key)
            if isinstance(key, str):
                env[key] = None

        def note_getitem(self, key):
            note(key)
            return getitem(self, key)

        def note_contains(self, key):
            note(key)
            return contains(self, key)

        def note_iter(self):
            env["*"] = None
            return iterate(self)

        kind.__getitem__, kind.__contains__, kind.__iter__ = note_getitem, note_contains, note_iter
        self.kind = kind
        self.state.c.getenv_names()  # what was asked before does not count

    def asked(self):
        """What was asked for so far, if asks: names of variables and dists, absent things."""
        for name in self.state.c.getenv_names():
            self.env[name] = None
        return [*("env:" + name for name in self.env),
                *("reads:%s" % name for name in self.queried), *self.absent]

    def stop(self):
        _frozen_importlib._find_and_load = self.original
        if not self.asks:
            return
        for finder in (self.listener, self.missing):
            if finder in sys.meta_path:
                sys.meta_path.remove(finder)
        for name, method in self.methods.items():
            if method is None:
                delattr(self.kind, name)
            else:
                setattr(self.kind, name, method)
        self.asked()
        for key in list(self.absent):
            # A finder that a module added at the end (six) came after us and did find it.
            if key.startswith("import:") and key[7:] in sys.modules:
                del self.absent[key]

    def fields(self):
        """The fields of a PROFILE: everything loaded since the root, in the order in which the
        imports began. What was put into sys.modules by hand has no spec and is left out."""
        order = dict.fromkeys(self.state.order)
        order.update(dict.fromkeys(sys.modules))  # what C code or exec brought
        return self.fields_of(order)

    def news(self):
        """The same of what was imported since start() alone: nothing else is looked at, so no page is
        copied for it."""
        return self.fields_of(list(self.state.known)[self.known_before:])

    def fields_of(self, order):
        c = self.state.c
        names, times, origins = [], [], []
        for name in order:
            module = sys.modules.get(name)
            if module is None or not isinstance(name, str) or "\0" in name:
                continue
            if name in self.state.baseline:
                continue
            spec = getattr(module, "__spec__", None)
            if spec is None or name in ("__main__", "__mp_main__"):
                continue
            origin = getattr(module, "__file__", None) or getattr(spec, "origin", None)
            if not isinstance(origin, str) or not origin.startswith("/") or "\0" in origin:
                origin = ""
            names.append(name)
            times.append(str(self.state.known.get(name, 0)))
            origins.append(origin)
        return {c.T_MODULES: names, c.T_SELF_US: times, c.T_ORIGIN: origins}
