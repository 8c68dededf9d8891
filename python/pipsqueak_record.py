# SPDX-License-Identifier: Apache-2.0
"""What an import loads, how long each module takes by itself, and what it asks for.

Runs in: nodes while they import; instances and scripts during their first call.
"""
import sys

import _frozen_importlib


class Recorder:
    """Between start() and stop() every import is timed. With `asks` also what is asked for and
    not there, dists whose metadata is read, and environment variables (DESIGN 3.4)."""

    def __init__(self, state, asks=False):
        self.state = state
        self.clock = state.c.clock_us
        self.asks = asks
        self.inner = [0]
        self.absent = {}
        self.queried = {}
        self.env = {}
        self.original = None

    def find_spec(self, name, path=None, target=None):
        """Last on sys.meta_path: whatever comes here was found by nobody."""
        self.absent["import:" + name] = None
        return None

    def find_distributions(self, context):
        """importlib.metadata asks every finder: here we only listen."""
        self.queried["*" if context.name is None else context.name] = None
        return iter(())

    def start(self):
        original = self.original = _frozen_importlib._find_and_load
        known, clock, inner = self.state.known, self.clock, self.inner

        def _find_and_load(name, import_):
            began = clock()
            inner.append(0)
            try:
                return original(name, import_)
            finally:
                took = clock() - began
                own = took - inner.pop()
                inner[-1] += took
                if name in sys.modules and name not in known:
                    known[name] = own if own > 0 else 0

        _frozen_importlib._find_and_load = _find_and_load
        if self.asks:
            sys.meta_path.append(self)
            self.listen_environment()

    def listen_environment(self):
        import os

        kind, env = type(os.environ), self.env
        self.methods = {n: getattr(kind, n) for n in ("__getitem__", "__contains__", "__iter__")}
        getitem, contains, iterate = (self.methods[n] for n in self.methods)

        def note_getitem(self, key):
            env[key] = None
            return getitem(self, key)

        def note_contains(self, key):
            env[key] = None
            return contains(self, key)

        def note_iter(self):
            env["*"] = None
            return iterate(self)

        # Mapping's own __contains__ goes through __getitem__; restore() puts back what was.
        kind.__getitem__, kind.__contains__, kind.__iter__ = note_getitem, note_contains, note_iter
        self.kind = kind
        self.state.c.getenv_names()

    def stop(self):
        _frozen_importlib._find_and_load = self.original
        if not self.asks:
            return
        if self in sys.meta_path:
            sys.meta_path.remove(self)
        own = {"__getitem__", "__iter__"}
        for name, method in self.methods.items():
            if name in own:
                setattr(self.kind, name, method)
            else:
                delattr(self.kind, name)
        for name in self.state.c.getenv_names():
            self.env[name] = None

    def fields(self):
        """The fields of a PROFILE: everything loaded since the root, in import order."""
        c = self.state.c
        names, times, origins = [], [], []
        for name, took in list(self.state.known.items()):
            module = sys.modules.get(name)
            if module is None or name in ("__main__", "__mp_main__"):
                continue
            spec = getattr(module, "__spec__", None)
            origin = getattr(module, "__file__", None) or getattr(spec, "origin", None)
            if not isinstance(origin, str) or not origin.startswith("/"):
                origin = ""
            names.append(name)
            times.append(str(took))
            origins.append(origin)
        return {c.T_MODULES: names, c.T_SELF_US: times, c.T_ORIGIN: origins}
