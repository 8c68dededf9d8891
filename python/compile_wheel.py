# SPDX-License-Identifier: Apache-2.0
"""compile_wheel.py SITE RUNTIME_SITE PART PARTS: write unchecked-hash bytecode beside the sources.

Runs in: the installer's sandbox, and one for a function's own code when it is deployed; under the
interpreter that the bytecode is for. A file that does not compile (a template, another version's
syntax) is left without bytecode, as pip leaves it.
"""
import os
import sys
from importlib._bootstrap_external import _code_to_hash_pyc
from importlib.util import cache_from_source, source_hash


def fail(error):
    raise error  # os.walk() would leave out what it cannot read


def sources(site):
    for folder, folders, names in os.walk(site, onerror=fail):
        folders.sort()
        for name in sorted(names):
            if name.endswith(".py"):
                yield os.path.join(folder, name)


def compile_one(path, shown):
    with open(path, "rb") as f:
        source = f.read()
    try:
        code = compile(source, shown, "exec", dont_inherit=True, optimize=0)
    except (SyntaxError, ValueError, RecursionError, MemoryError, OverflowError):
        return
    target = cache_from_source(path, optimization="")
    os.makedirs(os.path.dirname(target), exist_ok=True)
    if os.path.exists(target):
        os.unlink(target)  # uploaded with the sources, by another id
    with open(target, "wb") as f:
        f.write(_code_to_hash_pyc(code, source_hash(source), False))


def main():
    site, runtime, part, parts = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    import warnings

    warnings.simplefilter("ignore")
    # Dealt out by size, largest first, so that the parts end together.
    files = sorted(sources(site), key=lambda path: (-os.path.getsize(path), path))
    for path in files[part::parts]:
        compile_one(path, runtime + path[len(site):])


main()
