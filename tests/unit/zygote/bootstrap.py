# SPDX-License-Identifier: Apache-2.0
"""The smallest bootstrap that exercises every link of the zygote room; for test_zygote only."""
import gc
import importlib
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import _pipsqueak as p


def report():
    status = open("/proc/self/status").read()
    fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    names = ("NSpid", "Uid", "CapEff", "CapBnd", "NoNewPrivs", "Seccomp", "Threads")
    out = {name: fields.get(name, "") for name in names}
    out["fds"] = sorted(os.listdir("/proc/self/fd"))
    out["root"] = sorted(os.listdir("/"))
    out["modules"] = [m for m in ("json", "decimal") if m in sys.modules]
    out["pid"] = os.getpid()
    return repr(out)


def child(me):
    stream = me["stream"]
    kind, number, fields = p.recv(stream)
    assert kind == p.GO, kind
    if me["role"] == "node":
        names = fields[p.T_MODULES].decode().split("\0")[:-1]
        for name in names:
            importlib.import_module(name)
        p.send(stream, p.PROFILE, 0, {p.T_MODULES: names, p.T_SELF_US: ["1"] * len(names),
                                      p.T_ORIGIN: [""] * len(names)})
        gc.freeze()
        p.send(stream, p.ASLEEP, 0, {})
        os.close(stream)
        return me["control"]
    while True:
        kind, number, fields = p.recv(stream)
        line = fields[p.T_BODY].decode()
        if line == "lie":
            p.send(stream, p.FORKED, number, {})
        elif line == "exit":
            os._exit(3)
        else:
            try:
                body = eval(line, {"os": os, "sys": sys, "report": report})
            except OSError as e:
                body = "OSError %d" % e.errno
            p.send(stream, p.REPLY, number, {p.T_BODY: str(body)})


control = int(sys.argv[1])
p.send_packet(control, p.ASLEEP, 0, {})
while True:
    control = child(p.sleep(control, []))
