# SPDX-License-Identifier: Apache-2.0
"""compile_wheel.py SOURCES OUT SHOWN WHICH WORKERS [HAVE]: unchecked-hash bytecode of the sources below SOURCES.

Runs in: a sandbox of its own per wheel, and one for a function's own code when it is deployed (there OUT is
SOURCES); under the interpreter that the bytecode is for. SHOWN is where the sources will be when they are imported.
A file that does not compile (a template, another version's syntax) is left without bytecode, as pip leaves it.

WHICH is "all"; "first": what a first import will load, by what standard input tells of it (src/store/hint.c: modules
that were seen loading, and what other wheels import) and, where nobody saw this version, by the import statements at
module level from the top-level packages on (it decides what is compiled first, never what is right); or "rest": what is
not below HAVE.
WORKERS processes are forked from this one; they ask for one file after the other, so they end together.
Each wheel has an interpreter of its own that compiles this file first: what only "first" needs is in compile_first.py.
"""
import _imp
import gc
import marshal
import os
import sys
from _frozen_importlib_external import MAGIC_NUMBER  # importlib.util takes as long as all else


MAGIC = int.from_bytes(MAGIC_NUMBER, "little")
UNCHECKED = MAGIC_NUMBER + b"\1\0\0\0"  # PEP 552: a hash follows, which nobody compares
TAIL = "." + sys.implementation.cache_tag + ".pyc"


def fail(error):
    raise error  # os.walk() would leave out what it cannot read


def sources(site):
    """Paths below site, what is only tests last."""
    found = []
    for folder, folders, names in os.walk(site, onerror=fail):
        folders.sort()
        below = folder[len(site) + 1:]
        found += [os.path.join(below, name) for name in sorted(names) if name.endswith(".py")]
    return sorted(found, key=lambda path: "/tests/" in path or path.startswith("tests/"))


def read(path):
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        size, blocks = os.fstat(fd).st_size, []
        while block := os.read(fd, size + 1):
            blocks.append(block)
    finally:
        os.close(fd)
    return blocks[0] if len(blocks) == 1 else b"".join(blocks)


def write(path, *blocks):
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
    try:
        size = sum(map(len, blocks))
        done = os.writev(fd, blocks)
        while done < size:
            done += os.write(fd, b"".join(blocks)[done:])
    finally:
        os.close(fd)


def target(out, path):
    folder, name = os.path.split(path)
    return os.path.join(out, folder, "__pycache__", name[:-3] + TAIL)


class Compiler:
    def __init__(self, site, out, shown, wheel=None):
        self.site, self.out, self.shown, self.wheel = site, out, shown, wheel
        self.folders = set()

    def compile(self, path):
        """Write the bytecode; the paths that the module imports, when they are wanted."""
        source = read(os.path.join(self.site, path))
        try:
            code = compile(source, os.path.join(self.shown, path), "exec", dont_inherit=True, optimize=0)
        except (SyntaxError, ValueError, RecursionError, MemoryError, OverflowError):
            return set()
        to = target(self.out, path)
        folder = os.path.dirname(to)
        if folder not in self.folders:
            os.makedirs(folder, exist_ok=True)
            self.folders.add(folder)
        if self.site == self.out and os.path.lexists(to):
            os.unlink(to)  # uploaded with the sources, by another id
        write(to, UNCHECKED + _imp.source_hash(MAGIC, source), marshal.dumps(code))
        return set(self.wheel.imported(path, code)) - {None} if self.wheel else set()


def run_all(compiler, todo, count):
    """Compile todo, no more. Workers take the number of the next file out of one pipe."""
    if count < 2:
        for path in todo:
            compiler.compile(path)
        return
    numbers, up = os.pipe()
    workers = []
    for _ in range(count):
        workers.append(os.fork())
        if workers[-1] == 0:
            try:
                os.close(up)
                while number := os.read(numbers, 4):
                    compiler.compile(todo[int.from_bytes(number, "little")])
                os._exit(0)
            finally:
                os._exit(1)
    os.close(numbers)
    with open(up, "wb") as to:
        for number in range(len(todo)):
            to.write(number.to_bytes(4, "little"))
    for pid in workers:
        if os.waitpid(pid, 0)[1]:
            sys.exit("a worker failed")


def main():
    import warnings

    site, out, shown, which, workers = sys.argv[1:6]
    warnings.simplefilter("ignore")
    gc.disable()
    paths = sources(site)
    if which == "first":
        first = {}
        with open(os.path.join(os.path.dirname(__file__), "compile_first.py"), "rb") as f:
            exec(compile(f.read(), "compile_first.py", "exec"), first)
        wheel = first["Wheel"](paths)
        first["run"](Compiler(site, out, shown, wheel), wheel.first(sys.stdin), int(workers))
        return
    if which == "rest":
        os.nice(3)  # nobody waits for it
        paths = [path for path in paths if not os.path.exists(target(sys.argv[6], path))]
    run_all(Compiler(site, out, shown), paths, int(workers))


main()
os._exit(0)  # nothing is buffered, and taking an interpreter apart takes longer than a small wheel
