# SPDX-License-Identifier: Apache-2.0
"""Siblings are unique (S9): after the fork every source of randomness is seeded anew.

Runs in: every child, before anything else; remember() in nodes before they sleep. The table follows
what was measured among children of one zygote; what is not loaded is not touched. What the
interpreter does by itself (module-level random, uuid4, secrets) is not here.
"""
import os
import sys

gc = gc  # noqa: F821  put here by bootstrap.py, which keeps it out of sys.modules


def number(bits):
    return int.from_bytes(os.urandom(bits // 8), "little")


def seed_numpy(numpy):
    """As numpy.random.seed() does: that makes a SeedSequence, which writes to twice as many pages."""
    try:
        numpy.random.set_state(("MT19937", memoryview(os.urandom(2496)).cast("I"), 624))
    except (TypeError, ValueError):  # another generator was put in its place
        numpy.random.seed()


def seed_faker(faker):
    faker.generator.random.seed()


def seed_multiprocessing(process):
    process.current_process().authkey = os.urandom(32)


def seed_cv2(cv2):
    cv2.setRNGSeed(number(32) >> 1)


def seed_polars(polars):
    polars.set_random_seed(number(56))


def seed_sympy(core):
    core.rng.seed()


def seed_torch(torch):
    torch.manual_seed(number(56))


def seed_tensorflow(tensorflow):
    tensorflow.random.set_seed(number(56))


def seed_uuid(uuid):
    uuid._last_timestamp = None
    # uuid1 shares its clock sequence among siblings: a generated node id makes it theirs alone.
    uuid._generate_time_safe = None
    uuid._node = None
    uuid._GETTERS = []


def seed_bson(objectid):
    objectid.ObjectId._pid = None  # then its random part is drawn again
    objectid.ObjectId._inc = number(24)


def seed_hypothesis(core):
    core.threadlocal._hypothesis_global_random = None


def seed_sentry(sentry):
    sentry.get_isolation_scope().set_new_propagation_context()


def seed_dask(array):
    array.random.seed(number(32))


def seed_zmq(_):
    import ctypes

    ctypes.CDLL(None).srand(number(32))  # its automatic identities come from libc's rand()


def after_restore(snapshot):
    """AWS's snapshot_restore_py: what packages registered with it while a node imported them."""
    for hook, args, kwargs in snapshot.get_after_restore():
        hook(*args, **kwargs)


TABLE = (
    ("numpy.random", "numpy", seed_numpy),
    ("faker.generator", "faker", seed_faker),
    ("multiprocessing.process", "multiprocessing.process", seed_multiprocessing),
    ("cv2", "cv2", seed_cv2),
    ("polars", "polars", seed_polars),
    ("sympy.core.random", "sympy.core.random", seed_sympy),
    ("torch", "torch", seed_torch),
    ("tensorflow", "tensorflow", seed_tensorflow),
    ("uuid", "uuid", seed_uuid),
    ("bson.objectid", "bson.objectid", seed_bson),
    ("hypothesis.core", "hypothesis.core", seed_hypothesis),
    ("sentry_sdk", "sentry_sdk", seed_sentry),
    ("dask.array", "dask.array", seed_dask),
    ("zmq", "zmq", seed_zmq),
    ("snapshot_restore_py", "snapshot_restore_py", after_restore),
)


def reseed_object(thing):
    generator = getattr(thing, "bit_generator", None)
    if generator is not None:
        generator.state = type(generator)().state
    elif hasattr(thing, "seed"):
        thing.seed()
    else:
        thing.state = type(thing)().state  # a bit generator by itself


def attempt(what, seed, thing):
    """A failure of one never keeps a child from starting; it is told on its standard error."""
    try:
        seed(thing)
    except BaseException as e:
        try:
            sys.stderr.write("pipsqueak: reseeding %s: %r\n" % (what, e))
        except (AttributeError, OSError, ValueError):
            pass


def reseed(state):
    """In a child, before anything else."""
    for name, seed, module in state.tables:
        attempt(name, seed, module)
    for ref in state.seeds:
        thing = ref()
        if thing is not None:
            attempt("a generator", reseed_object, thing)


def before_snapshot(state):
    """In a node, after its imports: the last to register comes first, as on AWS."""
    snapshot = sys.modules.get("snapshot_restore_py")
    if snapshot is None:
        return

    def run(hooks):
        for hook, args, kwargs in reversed(list(hooks.get_before_snapshot())):
            hook(*args, **kwargs)

    attempt("snapshot_restore_py", run, snapshot)


def kinds():
    found = []
    for module, names in (("random", ("Random",)),
                          ("numpy.random", ("Generator", "RandomState", "BitGenerator"))):
        module = sys.modules.get(module)
        found += [getattr(module, name) for name in names if hasattr(module, name)]
    return tuple(found)


def seeded_anyway(state):
    """Ids of generators that the interpreter seeds after each fork, or the table does."""
    found = [getattr(sys.modules.get("random"), "_inst", None)]
    if any(name == "numpy" for name, _, _ in state.tables):
        of_all = getattr(sys.modules.get("numpy.random.mtrand"), "_rand", None)
        inner = getattr(of_all, "_bit_generator", None)
        if type(inner).__name__ == "MT19937":
            found += [of_all, inner]
    return {id(thing) for thing in found}


def remember(state):
    """What of the table is loaded (a child that looks for itself pays a copied page for each row);
    and references, weak where they can be, to every generator that exists before the fork."""
    state.tables = [(name, seed, sys.modules[name]) for needs, name, seed in TABLE
                    if needs in sys.modules and name in sys.modules]
    wanted = kinds()
    if not wanted:
        return
    import _weakref

    skip = getattr(sys.modules.get("random"), "SystemRandom", ())
    seen = {id(ref()) for ref in state.seeds} | seeded_anyway(state)
    ours = {}  # is objects' type one of the wanted?
    for thing in gc.get_objects():
        kind = type(thing)
        is_wanted = ours.get(kind)
        if is_wanted is None:
            is_wanted = ours[kind] = (issubclass(kind, wanted)
                                      and not (skip and issubclass(kind, skip)))
        if is_wanted and id(thing) not in seen:
            try:
                state.seeds.append(_weakref.ref(thing))
            except TypeError:  # a C type without weak references: it is kept alive instead
                state.seeds.append(lambda thing=thing: thing)
