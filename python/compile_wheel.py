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
"""
import _imp
import gc
import os
import select
import sys
from _frozen_importlib_external import MAGIC_NUMBER, _code_to_hash_pyc  # importlib.util takes as long as all else
from opcode import opmap


MAGIC = int.from_bytes(MAGIC_NUMBER, "little")
TAIL = "." + sys.implementation.cache_tag + ".pyc"
AHEAD = 2  # files that a worker holds: it never waits for the next


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


def target(out, path):
    folder, name = os.path.split(path)
    return os.path.join(out, folder, "__pycache__", name[:-3] + TAIL)


LOAD_CONST, LOAD_SMALL_INT, EXTENDED_ARG, IMPORT_NAME = (
    opmap.get(name, -1) for name in ("LOAD_CONST", "LOAD_SMALL_INT", "EXTENDED_ARG", "IMPORT_NAME"))


def instruction(text, ops, at):
    """(opcode, argument, index) of the instruction whose last unit is at index `at`."""
    op, arg, shift = ops[at], text[2 * at + 1], 8
    while at and ops[at - 1] == EXTENDED_ARG:
        at -= 1
        arg |= text[2 * at + 1] << shift
        shift += 8
    return op, arg, at


def constant(code, op, arg):
    if op == LOAD_CONST:
        return code.co_consts[arg]
    return arg if op == LOAD_SMALL_INT else None


def imports(code):
    """(level, module, names) of the import statements at module level: each loads two constants first."""
    text = code.co_code
    ops = text[::2]
    found = ops.find(IMPORT_NAME)
    while found >= 0:
        _, name, at = instruction(text, ops, found)
        if at >= 2:
            op, arg, at = instruction(text, ops, at - 1)
            names = constant(code, op, arg)
            level = constant(code, *instruction(text, ops, at - 1)[:2]) if at else None
            if isinstance(level, int):
                yield level, code.co_names[name], names if isinstance(names, tuple) else ()
        found = ops.find(IMPORT_NAME, found + 1)


class Wheel:
    """The modules of one wheel by name, and which of them a module imports. What was seen to the end is not followed."""

    def __init__(self, paths):
        self.modules, self.seen = {}, set()
        for path in paths:
            parts = path[:-3].split("/")
            self.modules[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path

    def first(self, hint):
        known, found, guess = set(), [], False
        for line in hint:
            word, _, name = line.rstrip("\n").partition(" ")
            if word == "known" and name in self.modules:
                known.add(self.modules[name])
            elif word == "import":
                parts = name.split(".")
                found += [self.modules.get(".".join(parts[:end])) for end in range(1, len(parts) + 1)]
            elif word == "guess":
                guess = True
        if guess or not known:
            found += [path for name, path in self.modules.items() if "." not in name]
        else:
            self.seen = known
        return sorted(known.union(found) - {None})

    def imported(self, path, code):
        if path in self.seen:
            return
        package = path.split("/")[:-1]
        for level, module, names in imports(code):
            base = package[:len(package) - level + 1] if level else []
            base = base + (module.split(".") if module else [])
            for end in range(1, len(base) + 1):
                yield self.modules.get(".".join(base[:end]))
            for name in names:
                yield self.modules.get(".".join([*base, name]))


class Compiler:
    def __init__(self, site, out, shown, wheel):
        self.site, self.out, self.shown, self.wheel = site, out, shown, wheel
        self.folders = set()

    def compile(self, path):
        """Write the bytecode; the paths that the module imports, when they are wanted."""
        with open(os.path.join(self.site, path), "rb") as f:
            source = f.read()
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
        with open(to, "wb", 0) as f:
            f.write(_code_to_hash_pyc(code, _imp.source_hash(MAGIC, source), False))
        return set(self.wheel.imported(path, code)) - {None} if self.wheel else set()

    def serve(self, requests, replies):
        for line in requests:
            found = self.compile(line[:-1])
            replies.write("/".join(p.replace("/", "\0") for p in found) + "\n")
            replies.flush()


class Worker:
    def __init__(self, compiler):
        down, up = os.pipe(), os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            try:
                os.close(down[1])
                os.close(up[0])
                compiler.serve(open(down[0]), open(up[1], "w"))
                os._exit(0)
            finally:
                os._exit(1)
        os.close(down[0])
        os.close(up[1])
        self.requests, self.replies, self.holds, self.text = down[1], up[0], 0, b""

    def give(self, path):
        os.write(self.requests, os.fsencode(path) + b"\n")
        self.holds += 1

    def take(self):
        block = os.read(self.replies, 65536)
        if not block:
            sys.exit("a worker ended early")
        *lines, self.text = (self.text + block).split(b"\n")
        self.holds -= len(lines)
        return [os.fsdecode(p).replace("\0", "/") for line in lines for p in line.split(b"/") if p]


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


def run(compiler, todo, count):
    """Compile todo and all that it leads to."""
    seen, todo = set(todo), todo[::-1]
    if count < 2:
        while todo:
            found = sorted(compiler.compile(todo.pop()) - seen)
            seen.update(found)
            todo += found
        return
    workers = {}
    for _ in range(count):
        worker = Worker(compiler)
        workers[worker.replies] = worker
    while todo or any(w.holds for w in workers.values()):
        for worker in workers.values():
            while todo and worker.holds < AHEAD:
                worker.give(todo.pop())
        for ready in select.select([fd for fd, w in workers.items() if w.holds], [], [])[0]:
            found = sorted(set(workers[ready].take()) - seen)
            seen.update(found)
            todo += found
    for worker in workers.values():
        os.close(worker.requests)
    for worker in workers.values():
        if os.waitpid(worker.pid, 0)[1]:
            sys.exit("a worker failed")


def main():
    import warnings

    site, out, shown, which, workers = sys.argv[1:6]
    warnings.simplefilter("ignore")
    gc.disable()
    paths = sources(site)
    wheel = Wheel(paths) if which == "first" else None
    if which == "first":
        paths = wheel.first(sys.stdin)
    elif which == "rest":
        os.nice(3)  # nobody waits for it
        paths = [path for path in paths if not os.path.exists(target(sys.argv[6], path))]
    (run if which == "first" else run_all)(Compiler(site, out, shown, wheel), paths, int(workers))


main()
