# SPDX-License-Identifier: Apache-2.0
"""A child that becomes a node: import, look what was left behind, freeze, sleep.

Runs in: nodes.
"""
import gc
import os
import sys


def installed_dists():
    """Normalized names of the dists in the mounted environment."""
    site_dir = "/pipsqueak/env/lib/python%d.%d/site-packages" % sys.version_info[:2]
    try:
        names = os.listdir(site_dir)
    except OSError:
        return set()
    return {normalize(n.split("-")[0]) for n in names if n.endswith(".dist-info")}


def normalize(name):
    out = name.lower().replace("_", "-").replace(".", "-")
    while "--" in out:
        out = out.replace("--", "-")
    return out


def import_all(names):
    """Import in order; what fails is left out and reported, for a function may do without."""
    failed = []
    for name in names:
        if name in sys.modules:
            continue
        try:
            __import__(name)
        except BaseException as e:
            failed.append("failed=%s: %s: %s" % (name, type(e).__name__, str(e)[:200]))
    return failed


def count_threads():
    return len(os.listdir("/proc/self/task"))


def open_files():
    """What is open beyond what a zygote holds: (descriptor, target)."""
    found = []
    for name in os.listdir("/proc/self/fd"):
        try:
            found.append((int(name), os.readlink("/proc/self/fd/" + name)))
        except OSError:
            continue  # the listing's own descriptor
    return found


def harmless(fd, target):
    """A regular file of the environment or the interpreter, open for reading (pyproj's proj.db)."""
    if not target.startswith(("/pipsqueak/env/", sys.base_prefix + "/")):
        return False
    try:
        with open("/proc/self/fdinfo/%d" % fd) as f:
            flags = [line for line in f if line.startswith("flags:")][0]
    except (OSError, IndexError):
        return False
    return int(flags.split()[1], 8) & 3 == 0


def shared_mappings():
    with open("/proc/self/maps") as f:
        return sum(1 for line in f if line.split()[1][1] == "w" and line.split()[1][3] == "s")


def allowed_threads(state):
    """Idle threads that data/forksafe.json says may sleep through a fork, with its proof."""
    try:
        with open("/pipsqueak/lib/forksafe.json") as f:
            table = state.part("handler")["json_loads"](f.read())
    except (OSError, ValueError):
        return 0
    return max([0] + [int(row["threads"]) for row in table["idle_threads"]
                      if row["module"] in sys.modules])


def what_is_left(state, before):
    left = []
    if state.c.atfork_cycle():
        left.append("at-fork handlers=more than can be recorded")
    threads = count_threads()
    if threads > 1 + allowed_threads(state):
        left.append("threads=%d" % (threads - 1))
    for fd, target in open_files():
        if fd not in before and not harmless(fd, target):
            left.append("descriptor=%s" % target)
    changed = [n for n, (a, b) in enumerate(zip(state.handlers, state.signal_handlers()), 1)
               if a is not b and a != b]
    if changed:
        left.append("signal handlers=%s" % ",".join(map(str, changed)))
    if shared_mappings() > state.shared:
        left.append("shared mappings=%d" % (shared_mappings() - state.shared))
    return left


def owner_reads(state, recorder):
    """Queries of importlib.metadata: those answered, and those that found nothing."""
    have = installed_dists()
    reads, absent = [], []
    for name in recorder.queried:
        if name == "*":
            reads.append("*")
        elif normalize(name) in have:
            reads.append(normalize(name))
        else:
            absent.append("meta:" + normalize(name))
    # pkg_resources lists every dist by itself; .pth files ran before anything was asked for.
    if "*" not in reads and ("pkg_resources" in sys.modules or state.pth):
        reads.append("*")
    return reads, absent


def become_node(state, stream, names):
    c = state.c
    if not hasattr(state, "shared"):
        state.shared = shared_mappings()
    before = {fd for fd, _ in open_files()}
    recorder = state.part("record")["Recorder"](state, asks=True)
    recorder.start()
    try:
        failed = import_all(names)
    finally:
        recorder.stop()
    fields = recorder.fields()
    reads, absent = owner_reads(state, recorder)
    asked = getattr(state, "asked", None) or {"absent": {}, "env": {}, "reads": {}}
    asked = {key: dict(value) for key, value in asked.items()}
    for key, values in (("absent", list(recorder.absent) + absent), ("env", recorder.env),
                        ("reads", reads)):
        asked[key].update(dict.fromkeys(values))
    state.asked = asked  # a node below inherits what its parents asked
    fields[c.T_ABSENT] = list(asked["absent"])
    fields[c.T_ENV_READ] = [n for n in asked["env"] if isinstance(n, str)]
    fields[c.T_READS] = list(asked["reads"])
    fields[c.T_LEFT] = what_is_left(state, before)
    for line in failed:
        print("not imported in the node:", line, file=sys.stderr)
    sys.stdout.flush()
    sys.stderr.flush()
    state.part("reseed")["remember"](state)
    # Never collect between import and freeze: a collection writes to every object it visits.
    gc.freeze()
    c.send(stream, c.PROFILE, 0, fields)
    c.send(stream, c.ASLEEP, 0, {})
