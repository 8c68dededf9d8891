# SPDX-License-Identifier: Apache-2.0
"""Siblings are unique (S9): after the fork every source of randomness is seeded anew.

Runs in: every child, before anything else; remember() in nodes before they sleep. The table follows
what was measured among children of one zygote; what is not loaded is not touched. What the
interpreter does by itself (module-level random, uuid4, secrets) is not here.
"""
import gc
import os
import sys


def number(bits):
    return int.from_bytes(os.urandom(bits // 8), "little")


def seed_numpy(numpy):
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
    objectid.ObjectId._pid = None


def seed_hypothesis(core):
    core.threadlocal._hypothesis_global_random = None


def seed_sentry(sentry):
    sentry.get_isolation_scope().set_new_propagation_context()


def seed_dask(array):
    array.random.seed(number(32))


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
)


def reseed_object(thing):
    generator = getattr(thing, "bit_generator", None)
    if generator is not None:
        generator.state = type(generator)().state
    else:
        thing.seed()


def reseed(state):
    """A failure of one never keeps a child from starting; it is told on its standard error."""
    for needs, name, seed in TABLE:
        if needs in sys.modules:
            try:
                seed(sys.modules[name])
            except Exception as e:
                print("pipsqueak: reseeding %s: %r" % (name, e), file=sys.stderr)
    for ref in state.seeds:
        thing = ref()
        if thing is not None:
            try:
                reseed_object(thing)
            except Exception as e:
                print("pipsqueak: reseeding a generator: %r" % (e,), file=sys.stderr)


def kinds():
    found = []
    random = sys.modules.get("random")
    if random is not None:
        found.append(random.Random)
    numpy_random = sys.modules.get("numpy.random")
    if numpy_random is not None:
        found.append(numpy_random.Generator)
        found.append(numpy_random.RandomState)
    return tuple(found)


def remember(state):
    """Weak references to every generator that exists before the fork."""
    wanted = kinds()
    if not wanted:
        return
    import _weakref

    random = sys.modules.get("random")
    skip = getattr(random, "SystemRandom", ())
    seen = {id(ref()) for ref in state.seeds}
    for thing in gc.get_objects():
        kind = type(thing)
        if issubclass(kind, wanted) and not (skip and issubclass(kind, skip)):
            if id(thing) not in seen:
                try:
                    state.seeds.append(_weakref.ref(thing))
                except TypeError:  # a C type without weak references: it is kept alive instead
                    state.seeds.append(lambda thing=thing: thing)
