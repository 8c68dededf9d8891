# SPDX-License-Identifier: Apache-2.0
"""The other half of every zygote: started as `python bootstrap.py CONTROL_FD` in a sandbox.

Runs in: zygotes and their children. It imports nothing that a plain `python3 -c pass` has not
loaded, for a script must find the interpreter as a fresh one (S10). What only children need is in
files beside this one (pipsqueak_*.py), compiled here once and run in the child that needs them.
"""
import gc
import os
import sys

LIB = os.path.dirname(os.path.abspath(__file__))
PARTS = ("record", "node", "handler", "run", "reseed")


def load_parts():
    """Code objects of the files beside this one; no module of ours is left in sys.modules."""
    parts = {}
    for name in PARTS:
        path = os.path.join(LIB, "pipsqueak_%s.py" % name)
        with open(path, "rb") as f:
            source = f.read()
        # The recorder stands between an import statement and the import system: under this name
        # the interpreter leaves its frames out of tracebacks, as it does with its own.
        shown = "<frozen importlib._bootstrap>" if name == "record" else "<pipsqueak>"
        parts[name] = compile(source, shown, "exec", dont_inherit=True)
    return parts


class State:
    """What a zygote hands down to its children, in memory, by being forked."""

    def __init__(self):
        sys.path.insert(0, LIB)
        import _pipsqueak

        sys.path.remove(LIB)
        del sys.modules["_pipsqueak"]
        self.c = _pipsqueak
        self.codes = load_parts()
        self.loaded = {}
        self.baseline = set(sys.modules)
        self.known = {}  # module -> (self time in us, origin), in import order
        self.pth = ()  # .pth files run so far
        self.seeds = []  # weak references to generators made before the fork
        self.signals = None
        self.allow_threads = 1
        import _signal

        self.signal = _signal
        self.handlers = self.signal_handlers()

    def signal_handlers(self):
        return [self.signal.getsignal(n) for n in range(1, self.signal.NSIG) if n not in (32, 33)]

    def part(self, name):
        """The namespace of pipsqueak_<name>.py, run on first use."""
        space = self.loaded.get(name)
        if space is None:
            space = {"__name__": "pipsqueak_" + name, "__builtins__": __builtins__}
            exec(self.codes[name], space)
            self.loaded[name] = space
        return space


def use_environment(state, base):
    """Make the mounted environment tree this interpreter's, as a virtual environment's python is."""
    home = "/pipsqueak/env"
    version = "python%d.%d" % sys.version_info[:2]
    site_dir = home + "/lib/" + version + "/site-packages"
    sys.prefix = sys.exec_prefix = home
    sys.executable = home + "/bin/python"
    sys._base_executable = base["executable"]
    os.environ["VIRTUAL_ENV"] = home
    for path in list(sys.path):
        if path.endswith(("site-packages", "dist-packages")) and path != site_dir:
            sys.path.remove(path)
    sys.path_importer_cache.clear()
    if site_dir not in sys.path:
        sys.path.append(site_dir)
    try:
        names = tuple(sorted(n for n in os.listdir(site_dir) if n.endswith(".pth")))
    except OSError:
        return
    if names != state.pth:
        import site

        for name in names:
            if name not in state.pth:
                site.addpackage(site_dir, name, None)
        state.pth = names


def clean_environment(pairs):
    """os.environ and the C one: only what the child is to see, nothing of the zygote's."""
    os.environ.clear()
    for pair in pairs:
        name, _, value = pair.partition("=")
        os.environ[name] = value


def words(fields, tag):
    """A list field as strings."""
    data = fields.get(tag, b"")
    return [w.decode("utf-8", "surrogateescape") for w in data.split(b"\0")[:-1]]


def serve(state, me, base):
    """In a child: do what its role is. Returns the control socket if it is now a zygote."""
    c = state.c
    state.part("reseed")["reseed"](state)
    kind, _, fields = c.recv(me["stream"])
    if kind != c.GO:
        c.exit(125)
    if me["env"]:
        use_environment(state, base)
    role = me["role"]
    if role == "node":
        state.part("node")["become_node"](state, me["stream"], words(fields, c.T_MODULES))
        os.close(me["stream"])
        return me["control"]
    gc.enable()
    if role == "run":
        state.part("run")["run"](state, me["stream"], fields, words, clean_environment)
    elif role == "instance":
        state.part("handler")["serve"](state, me["stream"], fields, words, clean_environment)
    else:
        import resolver

        resolver.main(me["stream"])
    c.exit(0)


def main():
    control = int(sys.argv[1])
    state = State()
    base = {"executable": sys.executable}
    if sys.path and os.path.abspath(sys.path[0]) == LIB:
        del sys.path[0]
    if os.path.isdir("/pipsqueak/env/lib"):
        # Our own tools' root (the resolver): our files are modules like any other here.
        use_environment(state, base)
        sys.path.append(LIB)
        sys.modules["_pipsqueak"] = state.c
    sys.argv = [""]
    # Objects made from here on are few; the collector must not walk, and so copy, the rest.
    gc.collect()
    gc.disable()
    gc.freeze()
    state.c.send_packet(control, state.c.ASLEEP, 0, {})
    while True:
        try:
            control = serve(state, state.c.sleep(control), base)
        except BaseException:
            sys.excepthook(*sys.exc_info())
            state.c.exit(125)


if __name__ == "__main__":
    main()
