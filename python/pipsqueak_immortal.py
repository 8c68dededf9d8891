# SPDX-License-Identifier: Apache-2.0
"""Objects whose reference count never changes again (CPython 3.12 and 3.13, PEP 683): a child that uses
what a zygote made would else write to, and so copy, the page of every object that it only looks at.

Runs in: zygotes, just before they sleep. Only objects that nobody sees die: code, functions, classes,
descriptors and plain values. What may have a finalizer, a weak reference that matters or contents of others
(instances, lists, dicts, modules) stays as it is.
"""
import sys

gc = gc  # noqa: F821  put here by bootstrap.py, which keeps it out of sys.modules

VERSIONS = ((3, 12), (3, 13))
CHUNK = 1000
IMMORTAL = (1 << 32) - 1


def of_code(code):
    """What the collector does not know: code objects are not its."""
    return [code.co_consts, code.co_names, code.co_name, code.co_qualname, code.co_filename, *code.co_consts, *code.co_names]


def kinds():
    """As module types has them, which a fresh interpreter has not imported."""
    function = type(of_code)
    return {str, bytes, int, float, complex, tuple, frozenset, slice, range, property, classmethod, staticmethod,
            function, type(of_code.__code__), type(len), type(str.join), type(object.__init__), type(type.__dict__),
            type(function.__code__), type(function.__globals__), type(dict.__dict__["fromkeys"]), type(list[int])}


def immortalize(state):
    if sys.version_info[:2] not in VERSIONS:
        return
    wanted, code = kinds(), type(of_code.__code__)
    seen, found, todo = set(), [], gc.get_objects()
    while todo:
        new = []
        for o in todo:
            if id(o) in seen or sys.getrefcount(o) == IMMORTAL:
                continue
            seen.add(id(o))
            new.append(o)
            kind = type(o)
            if kind in wanted or issubclass(kind, type):
                found.append(o)
        todo = [o for at in range(0, len(new), CHUNK) for o in gc.get_referents(*new[at:at + CHUNK])]
        todo += [o for c in new if type(c) is code for o in of_code(c)]
    state.c.immortalize(found)
