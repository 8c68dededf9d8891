# SPDX-License-Identifier: Apache-2.0
"""One function does its worst; how long do the calls of another take?"""
import statistics
import threading
import time

import pytest

from hostile import deploy

# All at once, in one function, for as long as its call lasts: what holds it back are its limits.
WORST = """
def fork_bomb():
    while True:
        try: os.fork()
        except OSError: pass
def memory_hog():
    while True:
        if os.fork() == 0:
            kept = []
            while True: kept.append(bytearray(os.urandom(1 << 16) * 64))
        try: os.wait()
        except OSError: pass
def log_flood():
    while True: os.write(1, b'flood ' * 10000 + b'\\n'); os.write(2, b'flood\\n' * 10000)
def spin():
    while True: pass
def handler(e):
    for worst in (memory_hog, log_flood, spin, spin, fork_bomb):
        try:
            if os.fork() == 0:
                try: worst()
                finally: os._exit(0)
        except OSError: pass  # the bomb was quicker
    time.sleep(e)
    return len([p for p in os.listdir('/proc') if p.isdigit()])
"""
CALLS, ROUNDS = 200, 3
FLOOR_MS = 4  # what the clock of a machine of two processors is good for


def p99(daemon, name, start):
    took = []
    for n in range(CALLS):
        began = time.monotonic()
        reply = daemon.call(name, n)
        took.append((time.monotonic() - began) * 1e3)
        assert reply.json == n and reply.start in start, (reply.start, reply.body)
    return sorted(took)[CALLS * 99 // 100 - 1]


def attacked(daemon, measure):
    """measure() while the worst goes on, called again whenever its call ends."""
    replies, over = [], threading.Event()

    def attack():
        while not over.is_set():
            replies.append(daemon.call("worst", 0.7))
    t = threading.Thread(target=attack)
    t.start()
    time.sleep(0.3)
    try:
        return measure()
    finally:
        over.set()
        t.join()
        assert all(r.status == 200 and r.json > 10 or r.status == 502 and "memory" in r.body.decode() for r in replies), (
            [r.body for r in replies])


@pytest.mark.parametrize("reuse", ["true", "false"])
def test_p99_beside_the_worst(own_daemon, reuse):
    d = own_daemon
    deploy(d, "worst", WORST, toml='memory = "64M"\nprocesses = 40\nconcurrency = 1\ntimeout = 20\n')
    d.deployed("quick", {"handler.py": "def handler(e): return e\n", "pipsqueak.toml": "reuse = %s\n" % reuse})
    for n in range(20):
        d.call("quick", n)
    start = {"warm", "spare"} | ({"fork", "cold"} if reuse == "false" else set())
    quiet, loud = [], []
    for _ in range(3 * ROUNDS):  # a noisy machine gets more rounds, not a looser bound
        quiet.append(p99(d, "quick", start))
        loud.append(attacked(d, lambda: p99(d, "quick", start)))
        print("p99 quiet %.2f ms, beside the worst %.2f ms" % (quiet[-1], loud[-1]))
        if len(loud) >= ROUNDS and statistics.median(loud) <= 2 * max(statistics.median(quiet), FLOOR_MS):
            break
    else:
        raise AssertionError("p99 quiet %s, beside the worst %s" % (quiet, loud))
    assert b"flood" in d.get("/functions/worst/logs").body
