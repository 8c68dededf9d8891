# SPDX-License-Identifier: Apache-2.0
"""demo.py BUILD: what `make run` shows.

Starts a private daemon in a new directory, deploys examples/frames (pandas from the configured index),
calls it over HTTP, and prints where each millisecond went: the first call ever, a call forked from a
sleeping interpreter, a warm call, and the same work in a fresh python3 with the same files.
"""
import json
import os
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time

BUILD = os.path.abspath(sys.argv[1] if len(sys.argv) > 1 else "build")
TOP = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
STAGES = ("resolve+install", "queue", "fork", "sandbox", "import", "handler", "whole call")
EVENT = b'{"rows": 3}'


def request(path, method, target, body=b"", headers=()):
    """One HTTP request over the daemon's Unix socket: (status, headers, body, seconds)."""
    began = time.perf_counter()
    sock = socket.socket(socket.AF_UNIX)
    sock.connect(path)
    head = "%s %s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: %d\r\n%s\r\n" % (
        method, target, len(body), "".join("%s: %s\r\n" % h for h in headers))
    sock.sendall(head.encode() + body)
    data = b""
    while True:
        block = sock.recv(1 << 16)
        if not block:
            break
        data += block
    took = time.perf_counter() - began
    head, _, body = data.partition(b"\r\n\r\n")
    return int(head.split()[1]), head.decode(), body, took


def stages(head):
    found = re.search(r"Server-Timing: (.*)", head)
    return {k: float(v) for k, v in re.findall(r"(\w+);dur=([\d.]+)", found.group(1))} if found else {}


def call(path, name):
    status, head, body, took = request(path, "POST", "/run/" + name, EVENT)
    if status != 200:
        sys.exit("the call failed: %s" % body.decode())
    start = re.search(r'start;desc="(\w+)"', head)
    return stages(head), took * 1e3, start.group(1) if start else "", body


def row(values):
    return "  ".join("%15s" % (("%.2f" % v) if isinstance(v, float) else v) for v in values)


def fresh_process(env_dir):
    """The same handler in a new python3 with the same files and their bytecode."""
    site = os.path.join(env_dir, "lib", os.listdir(os.path.join(env_dir, "lib"))[0], "site-packages")
    code = ("import sys, json; sys.path[:0] = %r; import handler; print(json.dumps(handler.handler(json"
            ".loads(%r))))" % ([os.path.join(TOP, "examples", "frames"), site], EVENT.decode()))
    env = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    times = []
    for _ in range(5):
        began = time.perf_counter()
        out = subprocess.run(["/usr/bin/python3", "-c", code], env=env, capture_output=True, check=True)
        times.append((time.perf_counter() - began) * 1e3)
    return statistics.median(times), out.stdout


def deploy(base, env):
    copy = os.path.join(base, "frames")
    shutil.copytree(os.path.join(TOP, "examples", "frames"), copy)
    with open(os.path.join(copy, "pipsqueak.toml"), "w") as f:
        f.write("reuse = true\n")
    began = time.perf_counter()
    subprocess.run([os.path.join(BUILD, "pipsqueak"), "deploy", copy], env=env, check=True)
    took = (time.perf_counter() - began) * 1e3
    with open(os.path.join(copy, "pipsqueak.toml"), "w") as f:
        f.write("reuse = false\n")  # every call forks
    subprocess.run([os.path.join(BUILD, "pipsqueak"), "deploy", copy, "--name", "frames-fresh"],
                   env=env, check=True, stdout=subprocess.DEVNULL)
    return took


def wait_for_node(path):
    """Until the node for the function's profile sleeps; at most half a minute."""
    for _ in range(300):
        tree = json.loads(request(path, "GET", "/tree")[2])
        if any(root["children"] for root in tree["roots"]):
            return True
        time.sleep(0.1)
    return False


def show(first_deploy, first, forked, warm, fresh):
    print("\nmilliseconds        " + row(("first call ever", "forked", "warm", "fresh python3")))
    for stage in STAGES:
        if stage == "resolve+install":
            values = (first_deploy, "", "", "")
        elif stage == "whole call":
            values = (first_deploy + first[1], forked[1], warm[1], fresh)
        else:
            values = tuple(t[0].get(stage, "") for t in (first, forked, warm)) + ("",)
        print("%-18s  %s" % (stage, row(values)))
    print("\nforked from a sleeping interpreter: %.0f x faster than a fresh process; warm: %.0f x\n"
          % (fresh / forked[1], fresh / warm[1]))


def median_call(path, name, count):
    runs = sorted((call(path, name) for _ in range(count)), key=lambda r: r[1])
    return runs[len(runs) // 2]


def main():
    base = tempfile.mkdtemp(prefix="pipsqueak-run-")
    os.chmod(base, 0o755)
    env = dict(os.environ, PIPSQUEAK_DIR=base)
    env.pop("PYTHONDONTWRITEBYTECODE", None)
    daemon = subprocess.Popen(
        [os.path.join(BUILD, "pipsqueakd"), "--dir", base, "--lib", os.path.join(BUILD, "lib"),
         "--listen", "127.0.0.1:0"], stdout=subprocess.PIPE,
        stderr=open(os.path.join(base, "daemon.log"), "w"), text=True)
    try:
        ready = daemon.stdout.readline().split()
        if not ready:
            sys.exit("the daemon did not start:\n" + open(os.path.join(base, "daemon.log")).read())
        path = os.path.join(base, "run", "api.sock")
        print("daemon ready; calls also by TCP: curl -d '%s' localhost:%s/run/frames"
              % (EVENT.decode(), ready[2]))
        first_deploy = deploy(base, env)
        first = call(path, "frames")
        if not wait_for_node(path):
            print("no node was made; see below:\n" + open(os.path.join(base, "daemon.log")).read())
            return 1
        call(path, "frames-fresh")
        forked = median_call(path, "frames-fresh", 11)
        warm = median_call(path, "frames", 11)
        envs = os.path.join(base, "cache", "store", "envs")
        fresh, answer = fresh_process(os.path.join(envs, sorted(os.listdir(envs))[0]))
        if json.loads(answer) != json.loads(first[3]):
            sys.exit("the fresh process answers %r, the function %r" % (answer, first[3]))
        show(first_deploy, first, forked, warm, fresh)
        subprocess.run([os.path.join(BUILD, "pipsqueak"), "tree"], env=env, check=True)
    finally:
        daemon.send_signal(signal.SIGTERM)
        daemon.wait(30)
        shutil.rmtree(base, ignore_errors=True)
    return 0


sys.exit(main())
