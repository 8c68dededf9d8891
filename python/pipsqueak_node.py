# SPDX-License-Identifier: Apache-2.0
"""A child that becomes a node: import, look what was left behind, freeze, sleep.

Runs in: nodes.
"""
import os
import sys

gc = gc  # noqa: F821  put here by bootstrap.py, which keeps it out of sys.modules


def installed_dists(state):
    """Normalized name -> version of the dists in the mounted environment."""
    try:
        names = os.listdir(state.site)
    except OSError:
        return {}
    found = {}
    for name in names:
        if name.endswith((".dist-info", ".egg-info")):
            dist, _, version = name.rpartition(".")[0].partition("-")
            found[normalize(dist)] = version
    return found


def normalize(name):
    out = name.lower().replace("_", "-").replace(".", "-")
    while "--" in out:
        out = out.replace("--", "-")
    return out


def import_all(names):
    """Import in order; what fails (a settings module that only a function has) is reported."""
    failed = []
    for name in names:
        if name in sys.modules:
            continue
        try:
            __import__(name)
        except BaseException as e:
            failed.append((name, "%s: %s" % (type(e).__name__, str(e)[:200])))
    return failed


def threads():
    """(how many, are all of the others asleep?). One that was just joined may still be listed, and
    one that was just made may still be on its way to sleep."""
    calm = 0
    for _ in range(1000):
        states = thread_states()
        # This thread itself is running.
        calm = calm + 1 if sum(1 for s in states if s != "S") <= 1 else 0
        if len(states) == 1 or calm == 5:
            break
        os.sched_yield()
    return len(states) - 1, len(states) == 1 or calm > 0


def thread_states():
    states = []
    for task in os.listdir("/proc/self/task"):
        try:
            with open("/proc/self/task/%s/stat" % task) as f:
                states.append(f.read().rpartition(")")[2].split()[0])
        except OSError:
            continue
    return states


def open_files():
    """What is open beyond what a zygote holds: (descriptor, target)."""
    found = []
    for name in os.listdir("/proc/self/fd"):
        try:
            found.append((int(name), os.readlink("/proc/self/fd/" + name)))
        except OSError:
            continue  # the listing's own descriptor
    return found


def harmless(state, fd, target):
    """A regular file of the environment or the interpreter, open for reading (pyproj's proj.db). Not
    a directory, by which a child would climb out of its sandbox into the node's."""
    if not target.startswith((state.env + "/", sys.base_prefix + "/")):
        return False
    try:
        if os.fstat(fd).st_mode & 0o170000 != 0o100000:
            return False
        with open("/proc/self/fdinfo/%d" % fd) as f:
            flags = [line for line in f if line.startswith("flags:")][0]
    except (OSError, IndexError):
        return False
    return int(flags.split()[1], 8) & 3 == 0


def kept_files(state):
    """Descriptors of harmless files: a child opens each anew, or it would share their offsets with
    every other child."""
    return [fd for fd, target in open_files() if harmless(state, fd, target)]


def shared_mappings():
    """Of which a child could write to what its siblings see, now or after a call of mprotect()."""
    with open("/proc/self/maps") as f:
        if not any(line.split(None, 2)[1][3] == "s" for line in f):
            return 0
    with open("/proc/self/smaps") as f:
        flags = [line.split()[1:] for line in f if line.startswith("VmFlags:")]
    return sum(1 for words in flags if "ms" in words and "mw" in words)


def caught_signals():
    """Masks of what is caught and what is ignored; libraries' own handlers count, too."""
    with open("/proc/self/status") as f:
        lines = dict(line.split(":", 1) for line in f if line.startswith(("SigCgt", "SigIgn")))
    return int(lines["SigCgt"], 16), int(lines["SigIgn"], 16)


def python_handlers():
    import _signal

    return [_signal.getsignal(n) for n in range(1, _signal.NSIG) if n not in (32, 33)]


def fork_safe(state):
    path = os.path.join(os.path.dirname(state.env), "lib", "forksafe.json")
    with open(path) as f:
        return state.part("handler")["json_loads"](f.read())


def allowed_threads(state):
    """Idle threads that data/forksafe.json says may sleep through a fork, with its proof."""
    dists = installed_dists(state)
    allowed = 0
    for row in fork_safe(state)["idle_threads"]:
        version = dists.get(normalize(row.get("dist", row["module"])))
        right = row["versions"] == "any" or (
            version is not None and version.startswith(tuple(row["versions"])))
        if row["module"] in sys.modules and right:
            allowed += int(row["threads"])
    return allowed


class Before:
    """How the process was before the import, to be compared with how it is after."""

    def __init__(self):
        self.fds = set(open_files())
        self.shared = shared_mappings()
        self.caught = caught_signals()
        self.handlers = python_handlers()


def thread_faults(state):
    count, asleep = threads()
    if not count:
        return []
    if not asleep:
        return ["threads=%d, not all asleep" % count]
    beyond = count - allowed_threads(state)
    return ["threads=%d" % beyond] if beyond > 0 else []


def signal_faults(before):
    changed = {n for n, (a, b) in enumerate(zip(before.handlers, python_handlers()), 1)
               if a is not b and a != b}
    for old, new in zip(before.caught, caught_signals()):
        # 32 and 33 are libc's own: set by whichever call needs them first.
        changed.update(n for n in range(1, 65)
                       if (old ^ new) >> (n - 1) & 1 and n not in (32, 33))
    return ["signal handlers=%s" % ",".join(map(str, sorted(changed)))] if changed else []


def what_is_left(state, before):
    """Why this process may not sleep and be forked (DESIGN 3.2); empty: it may."""
    left = []
    if state.c.atfork_cycle():
        left.append("at-fork handlers=more than can be recorded")
    left += thread_faults(state)
    for fd, target in open_files():
        if (fd, target) not in before.fds and not harmless(state, fd, target):
            left.append("descriptor=%s" % target)
    left += signal_faults(before)
    if shared_mappings() > before.shared:
        left.append("shared mappings=%d" % (shared_mappings() - before.shared))
    return left


class Blocked(BaseException):
    """In place of an import of what cannot sleep, in a node that is made to find out."""


class Watch:
    """Whose import leaves behind what cannot be forked, and what else comes to import it? The node
    that asks this is not kept. A module found guilty is taken away and every further import of it
    fails, in a way that nobody who can do without it catches: so each way to it is seen."""

    def __init__(self, state, before):
        self.state, self.before = state, before
        self.stack, self.guilty, self.ways = [], {}, {}

    def start(self):
        import _frozen_importlib

        self.system = _frozen_importlib
        self.original = _frozen_importlib._find_and_load
        _frozen_importlib._find_and_load = self.find_and_load

    def stop(self):
        self.system._find_and_load = self.original

    def find_and_load(self, name, import_):
        self.stack.append(name)
        try:
            if name in self.guilty:
                self.refuse(name)
            had = what_is_left(self.state, self.before)
            module = self.original(name, import_)
            new = [fault for fault in what_is_left(self.state, self.before) if fault not in had]
            if new:
                self.guilty[name] = new
                self.take_away(name)
                self.refuse(name)
            return module
        finally:
            self.stack.pop()

    @staticmethod
    def take_away(name):
        """Also from its package, where `from package import name` would find it."""
        package, _, last = name.rpartition(".")
        sys.modules.pop(name, None)
        if package in sys.modules:
            vars(sys.modules[package]).pop(last, None)

    def refuse(self, name):
        self.ways.update(dict.fromkeys(self.stack))
        raise Blocked(name)

    def found(self):
        return (["blame=%s: %s" % (name, ", ".join(why)) for name, why in self.guilty.items()]
                + ["way=" + name for name in self.ways])


def owner_reads(state, recorder):
    """Queries of importlib.metadata: those answered, and those that found nothing."""
    have = installed_dists(state)
    reads, absent = [], []
    for name in recorder.queried:
        if name == "*":
            reads.append("*")
        elif normalize(str(name)) in have:
            reads.append(normalize(str(name)))
        else:
            absent.append("meta:" + normalize(str(name)))
    # pkg_resources lists every dist by itself; .pth files ran before anything was asked for.
    if "*" not in reads and ("pkg_resources" in sys.modules or state.pth):
        reads.append("*")
    return reads, absent


def remember_asked(state, recorder):
    """A node below inherits what the nodes above it asked: its modules saw those answers."""
    reads, absent = owner_reads(state, recorder)
    asked = {key: dict(value) for key, value in state.asked.items()}
    for key, values in (("absent", list(recorder.absent) + absent), ("env", recorder.env),
                        ("reads", reads)):
        asked[key].update(dict.fromkeys(values))
    state.asked = asked


def tell_failed(failed):
    for name, why in failed:
        print("not imported in the node: %s: %s" % (name, why), file=sys.stderr)
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (AttributeError, OSError, ValueError):
            pass


def become_node(state, stream, names, flags):
    """With the flag "watch" it only finds out which of the modules cannot sleep. "cold=DIST": no
    warm-up line of it is run."""
    c = state.c
    watched = "watch" in flags
    told = []
    before = Before()
    watch = Watch(state, before) if watched else None
    recorder = state.part("record")["Recorder"](state, asks=True)
    if watch:
        watch.start()
    recorder.start()
    try:
        failed = import_all(names)
        if not watched:
            told = state.part("warm")["warm"](
                state, installed_dists, {f[5:] for f in flags if f.startswith("cold=")},
                recorder.asked, lambda: what_is_left(state, before))
    finally:
        recorder.stop()
        if watch:
            watch.stop()
    fields = recorder.fields()
    remember_asked(state, recorder)
    reseeding = state.part("reseed")
    reseeding["before_snapshot"](state)
    fields[c.T_ABSENT] = list(state.asked["absent"])
    fields[c.T_ENV_READ] = list(state.asked["env"])
    fields[c.T_READS] = list(state.asked["reads"])
    fields[c.T_LEFT] = what_is_left(state, before)
    if watch:
        fields[c.T_LEFT] = watch.found() + fields[c.T_LEFT]
    else:
        fields[c.T_LEFT] += ["failed=" + name for name, _ in failed] + told
        tell_failed(failed)
    reseeding["remember"](state)
    state.kept = kept_files(state)
    state.forget_paths()  # each child would: a fifth of the pages that a child of pandas copies
    # Never collect between import and freeze: a collection writes to every object it visits.
    state.part("immortal")["immortalize"](state)
    gc.freeze()
    c.collapse()
    c.send(stream, c.PROFILE, 0, fields)
    c.send(stream, c.ASLEEP, 0, {})
