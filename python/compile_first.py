# SPDX-License-Identifier: Apache-2.0
"""What compile_wheel.py needs for "first": which modules a first import is likely to load, found while compiling.

Runs in: the sandbox of compile_wheel.py, which executes this file; nothing here decides what is right.
"""
import os
import select
import sys
from opcode import opmap

AHEAD = 2  # files that a worker holds: it never waits for the next

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


def serve(compiler, requests, replies):
    for line in requests:
        found = compiler.compile(line[:-1])
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
                serve(compiler, open(down[0]), open(up[1], "w"))
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
