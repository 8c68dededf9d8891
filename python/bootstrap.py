# SPDX-License-Identifier: Apache-2.0
"""The other half of every zygote: started as `python bootstrap.py CONTROL_FD` in a sandbox.

Runs in: zygotes and their children. It imports nothing that a plain `python3 -c pass` has not
loaded, for a script must find the interpreter as a fresh one (S10). What only children need is in
files beside this one (pipsqueak_*.py), compiled here once and run in the child that needs them.
"""
import os
import sys

import gc  # isort: skip

del sys.modules["gc"]  # as a fresh interpreter; the parts get it from here

LIB = os.path.dirname(os.path.abspath(__file__))
PARTS = ("record", "node", "handler", "run", "exit", "hint", "reseed", "afresh", "immortal",
         "warm")
# The recorder stands between an import statement and the import system, and all our frames lie
# below those of a script: under this name the interpreter leaves them out of the tracebacks of
# imports and does not blame them in warnings, as it does with its own.
SHOWN = "<frozen importlib._bootstrap>"
HIGH_FD = 1000  # where the stream goes in a child, so that a script's first open() gives 3


def load_parts():
    """Code objects of the files beside this one; no module of ours is left in sys.modules."""
    parts = {}
    for name in PARTS:
        path = os.path.join(LIB, "pipsqueak_%s.py" % name)
        with open(path, "rb") as f:
            source = f.read()
        parts[name] = compile(source, SHOWN, "exec", dont_inherit=True)
    return parts


class State:
    """What a zygote hands down to its children, in memory, by being forked."""

    def __init__(self):
        before = set(sys.modules)
        sys.path.insert(0, LIB)
        import _pipsqueak

        sys.path.remove(LIB)
        del sys.modules["_pipsqueak"]
        self.c = _pipsqueak
        # The environment is mounted beside our own files: JAIL_ENV beside JAIL_LIB.
        self.env = os.path.join(os.path.dirname(LIB), "env")
        self.site = "%s/lib/python%d.%d/site-packages" % ((self.env,) + sys.version_info[:2])
        self.fixed = os.fsencode("PATH=%s/bin:/usr/local/bin:/usr/bin:/bin\0HOME=/home/user\0"
                                 "LANG=C.UTF-8\0" % self.env)  # of a function
        self.codes = load_parts()
        self.loaded = {}
        # Run once here and not in each child; what they import of the standard library is theirs
        # alone and leaves no trace.
        for name in PARTS:
            self.part(name)
        for name in set(sys.modules) - before:
            del sys.modules[name]
        self.again = False  # a new interpreter, not a fork
        self.baseline = before
        self.known = {}  # module -> self time in us
        self.order = {}  # modules in the order in which their imports began
        self.pth = ()  # .pth files run so far
        self.plain = None  # prefix, path and the like, as they are without an environment
        self.tables, self.seeds = [], []  # what to seed anew in a child
        self.warmed = set()  # dists whose warm-up lines were run, here or in a node above
        self.kept = []  # descriptors of files that a child opens anew
        self.asked = {"absent": {}, "env": {}, "reads": {}}  # by all nodes above, and this one

    def part(self, name):
        """The namespace of pipsqueak_<name>.py, run on first use."""
        space = self.loaded.get(name)
        if space is None:
            space = {"__name__": "pipsqueak_" + name, "__builtins__": __builtins__, "gc": gc}
            exec(self.codes[name], space)
            self.loaded[name] = space
        return space


def forget_paths():
    """A tree was mounted over what importers may have listed before."""
    sys.path_importer_cache.clear()
    import _frozen_importlib_external as external

    kind = external._NamespacePath
    if hasattr(kind, "_epoch"):
        kind._epoch += 1
    # These keep listings by path and time of change; merged trees may agree in both.
    for name in ("importlib.metadata", "importlib_metadata"):
        finder = getattr(sys.modules.get(name), "MetadataPathFinder", None)
        forget = getattr(finder, "invalidate_caches", None)
        if forget is not None:
            try:
                forget()
            except TypeError:
                forget(finder)  # 3.9: not a class method


def plain_site(site):
    return site and (site.PREFIXES, site.ENABLE_USER_SITE)


def leave_environment(state):
    """A child without an environment, of a node that imported in one (of its dists, nothing)."""
    if state.plain is None:
        return
    sys.prefix, sys.exec_prefix, sys.executable, sys.path[:], of_site = state.plain
    site = sys.modules.get("site")
    if site is not None and of_site:
        site.PREFIXES, site.ENABLE_USER_SITE = of_site
    forget_paths()


def use_environment(state):
    """Make the mounted environment tree this interpreter's, as a virtual environment's python."""
    site = sys.modules.get("site")
    if state.plain is None:
        state.plain = sys.prefix, sys.exec_prefix, sys.executable, list(sys.path), plain_site(site)
    sys.prefix = sys.exec_prefix = state.env
    sys.executable = state.env + "/bin/python"
    for path in list(sys.path):
        if path.endswith(("site-packages", "dist-packages")) and path != state.site:
            sys.path.remove(path)
    forget_paths()
    if state.site not in sys.path:
        sys.path.append(state.site)
    if site is None:
        return
    site.PREFIXES = [state.env]
    site.ENABLE_USER_SITE = False
    try:
        names = tuple(sorted(n for n in os.listdir(state.site) if n.endswith(".pth")))
    except OSError:
        return
    for name in names:
        if name not in state.pth:
            site.addpackage(state.site, name, None)
    state.pth += tuple(n for n in names if n not in state.pth)


def clean_environment(state, text):
    """os.environ and the C one: only what the child is to see, nothing of the zygote's; text has a
    NUL behind each NAME=VALUE. Both are filled by C code: here, as everywhere in what runs before
    the user's code, each Python object that is looked at is a page to be copied."""
    state.c.set_environment(os.environ._data, text)


def words(fields, tag):
    """A list field as strings."""
    data = fields.get(tag, b"")
    return [w.decode("utf-8", "surrogateescape") for w in data.split(b"\0")[:-1]]


def move_high(fd):
    """Out of the way of a script that counts on small descriptor numbers."""
    try:
        os.dup2(fd, HIGH_FD, False)
    except OSError:
        return fd
    os.close(fd)
    return HIGH_FD


def fresh_main():
    """No trace of this file under the name __main__. The module is the one that a script will run
    in: what a node imports (multiprocessing, pandas) may keep it. The order of names, too, is that
    of a fresh interpreter."""
    import _frozen_importlib

    main = type(sys)("__main__")
    names = main.__dict__
    names["__loader__"] = _frozen_importlib.BuiltinImporter
    if sys.version_info < (3, 14):
        names["__annotations__"] = {}
    names["__builtins__"] = sys.modules["builtins"]
    sys.modules["__main__"] = main


def serve(state, me):
    """In a child: do what its role is. Returns the control socket if it is now a zygote."""
    c = state.c
    if me["role"] == "ahead":
        state.part("handler")["rehearse"](state, 1)
        me = c.adopt(me["stream"])
    state.part("reseed")["reseed"](state)
    kind, _, fields = c.recv(me["stream"])
    if kind != c.GO:
        c.exit(125)
    role = me["role"]
    if role == "node":
        if me["env"]:
            use_environment(state)
        state.part("node")["become_node"](state, me["stream"], words(fields, c.T_MODULES),
                                          words(fields, c.T_FLAGS))
        os.close(me["stream"])
        return me["control"]
    gc.enable()
    if role == "resolver":
        import resolver

        resolver.main(me["stream"])
        c.exit(0)
    stream = move_high(me["stream"])
    part = "run" if role == "run" else "handler"
    state.part(part)["start"](state, stream, fields,
                              lambda: (use_environment if me["env"] else leave_environment)(state))
    c.exit(0)


def go_on(state, kept):
    """A function's instance that needed an interpreter of its own (pipsqueak_afresh.py): here it is.
    Its start-up has found the environment by itself."""
    state.again = True
    gc.enable()
    stream, fields = state.part("afresh")["again"](state, kept)
    state.part("handler")["start"](state, stream, fields, lambda: None)
    state.c.exit(0)


def main():
    words_given = sys.argv[1:]
    state = State()
    state.words, state.clean_environment, state.forget_paths = words, clean_environment, forget_paths
    if sys.path and os.path.abspath(sys.path[0]) == LIB:
        del sys.path[0]
    again = words_given[0] == "again"
    if not again and os.path.isdir(state.env + "/lib"):
        # Our own tools' root (the resolver): our files are modules like any other here.
        use_environment(state)
        sys.path.append(LIB)
        sys.modules["_pipsqueak"] = state.c
    sys.argv = [""]
    if hasattr(sys, "orig_argv"):
        sys.orig_argv = [sys.executable]
    fresh_main()
    if again:
        go_on(state, int(words_given[1]))
    control = int(words_given[0])
    state.part("reseed")["remember"](state)
    state.part("handler")["rehearse"](state, 12)  # CPython specializes code that ran eight times
    # Objects made from here on are few; the collector must not walk, and so copy, the rest.
    gc.collect()
    gc.disable()
    state.part("immortal")["immortalize"](state)
    gc.freeze()
    state.c.collapse()
    state.c.send_packet(control, state.c.ASLEEP, 0, {})
    while True:
        try:
            control = serve(state, state.c.sleep(control, state.kept))
        except BaseException:
            sys.excepthook(*sys.exc_info())
            state.c.exit(125)


if __name__ == "__main__":
    main()
