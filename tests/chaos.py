# SPDX-License-Identifier: Apache-2.0
"""The tree under whatever happens: deploys, calls, removals, restarts and deaths by chance; what must hold is checked
after each step."""
import os
import signal
import time

from conftest import of_daemon

PARTS = {"root-a": [], "root-b": [], "mid-a": ["root-a"], "mid-b": ["root-b"], "both": ["root-a", "root-b"],
         "top-a": ["mid-a", "root-a"], "top-ab": ["both", "mid-a", "root-a", "root-b"]}
BODY = "import time\n%stime.sleep(0.02)\nKEPT = bytearray(b'x') * (%d << 20)\n"
MIB = {"root-a": 8, "root-b": 12}
DEPTH = 8


def module(dist):
    return dist.replace("-", "_")


def publish(index):
    for dist, needs in PARTS.items():
        imports = "".join("import %s\n" % module(n) for n in needs)
        index.add(dist, {module(dist) + ".py": BODY % (imports, MIB.get(dist, 3))}, requires=needs)


class Chaos:
    def __init__(self, d, index, chance):
        self.d, self.index, self.chance = d, index, chance
        self.functions, self.counter, self.killed_at, self.calls = {}, 0, 0, 0
        publish(index)

    def deploy(self):
        name = "f%d" % self.chance.randrange(6)
        wanted = self.chance.sample(sorted(PARTS), self.chance.randint(1, 3))
        needs = sorted(set(wanted) | {n for w in wanted for n in PARTS[w]})
        self.counter += 1
        toml = "reuse = %s\n" % self.chance.choice(("false", "false", "true"))
        if self.chance.random() < 0.2:
            toml += "tenant = 't%d'\nisolate = 'tenant'\n" % self.chance.randrange(2)
        code = "".join("import %s\n" % module(n) for n in needs) + "def handler(e): return [%d, e]\n" % self.counter
        self.d.deployed(name, {"handler.py": code, "requirements.txt": "\n".join(wanted), "pipsqueak.toml": toml},
                        settings=self.index.settings)
        self.functions[name] = self.counter

    def call(self):
        if not self.functions:
            return
        name = self.chance.choice(sorted(self.functions))
        for n in range(self.chance.randint(1, 6)):
            reply = self.d.call(name, n)
            self.calls += 1
            if reply.status == 200:
                assert reply.json == [self.functions[name], n], reply.body
            else:  # what worked on it may just have been killed
                assert reply.status in (502, 503) and time.monotonic() < self.killed_at + 5, (reply.status, reply.body)

    def remove(self):
        if len(self.functions) > 3:
            name = self.chance.choice(sorted(self.functions))
            assert self.d.request("DELETE", "/functions/" + name).status == 200
            del self.functions[name]

    def kill(self):
        """One of the interpreters: a root, a node, a spare, an instance."""
        found = [p for p in of_daemon(self.d.process.pid)[0] if b"bootstrap" in p.words and p.state != "Z"]
        if found:
            self.killed_at = time.monotonic()
            try:
                os.kill(self.chance.choice(found).pid, signal.SIGKILL)
            except ProcessLookupError:
                pass

    def restart(self):
        self.d.stop(kill=self.chance.random() < 0.5)
        self.d.start()

    def look(self):
        status = self.d.get("/status").json
        assert status["nodes_bytes"] <= status["memory_budget_bytes"], status
        seen = set()

        def walk(node, above, depth, tenant):
            own = {a.split()[0] for a in node["adds"]}
            assert depth <= DEPTH and node["id"] not in seen and node["busy"] >= 0
            assert not own & above and own <= set(PARTS), (own, above)
            assert tenant in (None, node.get("tenant", "")), node  # below a root all are one tenant's
            seen.add(node["id"])
            for dist in own:  # whole: a dist is nowhere without what it needs
                assert set(PARTS[dist]) <= own | above, node
            for child in node["children"]:
                walk(child, above | own, depth + 1, node.get("tenant", "") if depth else None)

        for root in self.d.get("/tree").json["roots"]:
            if "made_for" not in root:  # else what it was below has just been killed, and it ends, too
                walk(root, set(), 0, None)

    def run(self, seconds, restarts):
        end, steps = time.monotonic() + seconds, 0
        deeds = [self.deploy] * 3 + [self.call] * 14 + [self.remove] + [self.kill] * 2 + [self.restart] * restarts
        while time.monotonic() < end:
            self.chance.choice(deeds)()
            self.look()
            steps += 1
        return steps


def duplicates(d):
    """What more than one node of a tenant holds: as many modules (of the standard library, too) of the same dists."""
    held = []

    def walk(node, above, modules):
        has, modules = above | {a.split()[0] for a in node["adds"]}, modules + node["modules"]
        if node["adds"]:
            held.append((node.get("tenant", ""), modules, tuple(sorted(has))))
        for child in node["children"]:
            walk(child, has, modules)

    for root in d.get("/tree").json["roots"]:
        walk(root, frozenset(), 0)
    return [h for h in held if held.count(h) > 1]
