# SPDX-License-Identifier: Apache-2.0
"""The network of sandboxes that were given one, on a small internet of the test's own: the daemon's
network namespace, a wire, and another one that answers names and requests."""
import json
import os
import shutil
import subprocess
import sys
import textwrap

import pytest

from conftest import CLI, Daemon, new_base, processes

HERE, THERE = "pqt-here-%d" % os.getpid(), "pqt-there-%d" % os.getpid()
ETC = "/etc/netns/" + HERE

# http on every address, names on one; says where a request came from.
SERVER = """
import http.server, socket, sys, threading

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(("hello " + sys.argv[1] + " " + self.client_address[0]).encode())

    def log_message(self, *args):
        pass

def names():
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    s.bind((sys.argv[3], 53))
    while True:
        ask, who = s.recvfrom(512)
        end = ask.index(b"\\0", 12) + 5
        known = ask[12:end - 4] == b"\\4name\\4test\\0" and ask[end - 4:end - 2] == b"\\0\\1"
        head = ask[:2] + (b"\\x81\\x80" if known else b"\\x81\\x83") + b"\\0\\1" + (b"\\0\\1" if known else b"\\0\\0") + bytes(4)
        s.sendto(head + ask[12:end] + (b"\\xc0\\x0c\\0\\1\\0\\1\\0\\0\\0\\1\\0\\4\\x0a\\x4d\\0\\1" if known else b""), who)

server = http.server.ThreadingHTTPServer(("0.0.0.0", int(sys.argv[2])), Handler)
if sys.argv[1] == "there":
    threading.Thread(target=names, daemon=True).start()
print("ready", flush=True)
server.serve_forever()
"""

GET = """
import urllib.request
def get(url):
    return urllib.request.urlopen(url, timeout=5).read().decode()
def tries(url):
    try:
        return get(url)
    except OSError as e:
        return "refused: %s" % e
"""


def ip(*words):
    subprocess.run(["ip", *words], check=True)


def serve(space, name, port, resolver="10.77.0.1"):
    p = subprocess.Popen(["ip", "netns", "exec", space, "/usr/bin/python3", "-c", SERVER, name, str(port), resolver], stdout=subprocess.PIPE)
    assert p.stdout.readline() == b"ready\n"
    return p


class ConnectedDaemon(Daemon):
    def command(self):
        return ["ip", "netns", "exec", HERE, *super().command()]


@pytest.fixture(scope="module")
def internet():
    os.makedirs(ETC)
    with open(os.path.join(ETC, "resolv.conf"), "w") as f:
        f.write("nameserver 10.77.0.1\n")
    ip("netns", "add", HERE)
    ip("netns", "add", THERE)
    servers = []
    try:
        ip("link", "add", "wire", "netns", HERE, "type", "veth", "peer", "name", "wire", "netns", THERE)
        for space, address in ((HERE, "10.77.0.2/24"), (THERE, "10.77.0.1/24")):
            ip("-n", space, "address", "add", address, "dev", "wire")
            ip("-n", space, "link", "set", "wire", "up")
            ip("-n", space, "link", "set", "lo", "up")
        ip("-n", THERE, "address", "add", "169.254.169.254/32", "dev", "lo")  # as a cloud's machine has it
        ip("-n", HERE, "route", "add", "default", "via", "10.77.0.1")
        servers = [serve(THERE, "there", 8080), serve(HERE, "host", 8081)]
        yield
    finally:
        for p in servers:
            p.kill()
            p.wait()
        ip("netns", "del", HERE)
        ip("netns", "del", THERE)
        shutil.rmtree(ETC)
        if not os.listdir("/etc/netns"):
            os.rmdir("/etc/netns")


@pytest.fixture(scope="module")
def connected(internet):
    d = ConnectedDaemon(new_base())
    yield d
    d.stop()
    d.check_log()
    shutil.rmtree(d.base)


def run(d, *words, code):
    out = d.cli("run", *words, "-c", GET + textwrap.dedent(code))
    assert out.returncode == 0, out.stderr
    return out.stdout


def attached(d):
    """For each of this daemon's pastas the network namespace that it is at, by number."""
    now = processes()
    found = []
    for p in now.values():
        above = [p]
        while above[-1].parent in now:
            above.append(now[above[-1].parent])
        if p.words.startswith(b"pasta\0") and d.process.pid in [a.pid for a in above]:
            try:
                found.append(networks_of(p.pid))
            except FileNotFoundError:
                assert not os.path.exists("/proc/%d/fd/0" % p.pid), "pasta %d could not be looked at" % p.pid  # it has ended
    return found


def networks_of(pid):
    links = [os.readlink("/proc/%d/fd/%s" % (pid, fd)) for fd in os.listdir("/proc/%d/fd" % pid)]
    return {int(link[5:-1]) for link in links if link.startswith("net:[")}


def test_names_and_requests(connected):
    for _ in range(3):
        assert run(connected, "--allow-net", code="print(get('http://name.test:8080/'))") == "hello there 10.77.0.1\n".replace(
            "10.77.0.1", "10.77.0.2")
    assert run(connected, "-A", code="print(get('http://10.77.0.1:8080/'))") == "hello there 10.77.0.2\n"


def test_without_the_flag_there_is_none(connected):
    out = connected.cli("run", "-c", GET + "get('http://name.test:8080/')")
    assert out.returncode == 1
    assert out.stderr.endswith("pipsqueak: the network needs --allow-net (or -A)\n"), out.stderr
    said = run(connected, code="print(tries('http://10.77.0.1:8080/'))")
    assert "unreachable" in said, said


def test_an_unknown_name(connected):
    out = connected.cli("run", "--allow-net", "-c", GET + "get('http://other.test/')")
    assert out.returncode == 1
    assert "Name or service not known" in out.stderr and "--allow-net" not in out.stderr


def test_what_stays_out_of_reach(connected):
    """The host's loopback, services of the host on its own address, the link-local addresses; the test's host
    reaches all of them itself."""
    urls = ["http://127.0.0.1:8081/", "http://10.77.0.2:8081/", "http://169.254.169.254:8080/", "http://10.77.0.1:8081/"]
    there = subprocess.run(["ip", "netns", "exec", HERE, sys.executable, "-c", GET + "print([tries(u) for u in %r])" % urls[:3]],
                           capture_output=True, text=True, check=True).stdout
    assert there.count("hello") == 3, there
    said = run(connected, "--allow-net", code="import json\nprint(json.dumps([tries(u) for u in %r]))" % urls)
    assert all(answer.startswith("refused: ") for answer in json.loads(said)), said
    assert "No route to host" in json.loads(said)[2]
    # the fence is not the script's to take down
    assert "not permitted" in run(connected, "--allow-net", code="""
        import socket, struct
        s = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)
        s.send(struct.pack("=IHHII", 36, 25, 5, 1, 0) + struct.pack("=BBBBBBBBI", 2, 16, 0, 0, 254, 4, 0, 7, 0) + struct.pack("=HH4B", 8, 1, 169, 254, 0, 0))
        import os; print(os.strerror(-struct.unpack_from("=i", s.recv(999), 16)[0]))
        """)


def test_functions(connected):
    handler = GET + "def handler(event):\n    return tries('http://name.test:8080/')\n"
    for name, network, reuse in (("warm", '"full"', "true"), ("cold", "true", "false")):
        connected.deployed(name, {"handler.py": handler, "pipsqueak.toml": "network = %s\nreuse = %s\n" % (network, reuse)})
        for _ in range(3):
            assert connected.call(name).json == "hello there 10.77.0.2"
    connected.deployed("none", {"handler.py": handler})
    assert connected.call("none").json.startswith("refused: ")
    reply = connected.deploy("bad", {"handler.py": handler, "pipsqueak.toml": 'network = "some"\n'})
    assert reply.status == 400 and '"full"' in reply.json["error"]["message"]
    for name in ("warm", "cold", "none"):
        assert connected.cli("rm", name).returncode == 0


def test_pasta_ends_with_its_cell(connected):
    assert "network: true" in connected.cli("status").stdout
    sleeper = subprocess.Popen(
        [CLI, "run", "--allow-net", "-c", "import os, time; print(os.stat('/proc/self/ns/net').st_ino, flush=True); time.sleep(1000)"],
        env=connected.environment(), stdout=subprocess.PIPE)
    space = int(sleeper.stdout.readline())
    assert attached(connected).count({space}) == 1
    sleeper.terminate()
    sleeper.wait()
    sleeper.stdout.close()
    connected.becomes(lambda: {space} not in attached(connected))
    for _ in range(8):
        run(connected, "--allow-net", code="pass")
    # Ready is one for each node and each of --allow-net and -A.
    connected.becomes(lambda: len(attached(connected)) <= 2 * len(connected.nodes()))


def test_a_resolver_on_the_hosts_loopback(internet):
    """As with systemd-resolved: what stands in the host's /etc/resolv.conf is of no use in a sandbox."""
    with open(os.path.join(ETC, "resolv.conf"), "w") as f:
        f.write("nameserver 127.0.0.53\n")
    server = serve(HERE, "there", 8082, "127.0.0.53")
    d = ConnectedDaemon(new_base())
    try:
        for flag in ("--allow-net", "-A"):
            assert run(d, flag, code="print(get('http://name.test:8080/'))") == "hello there 10.77.0.2\n"
    finally:
        server.kill()
        server.wait()
        with open(os.path.join(ETC, "resolv.conf"), "w") as f:
            f.write("nameserver 10.77.0.1\n")
        d.stop()
        shutil.rmtree(d.base)


def test_no_way_out(internet):
    """A host without a route: -A goes without, --allow-net says why."""
    ip("-n", HERE, "route", "del", "default")
    d = ConnectedDaemon(new_base())
    try:
        assert d.cli("run", "-A", "-c", "print(1)").stdout == "1\n"
        out = d.cli("run", "--allow-net", "-c", "print(1)")
        assert out.returncode != 0 and "no network can be had here" in out.stderr, out.stderr
        d.deployed("full", {"handler.py": "def handler(e): return e", "pipsqueak.toml": "network = true\n"})
        reply = d.call("full")
        assert reply.status == 503 and "no network can be had here" in reply.json["error"]["message"], reply.body
    finally:
        ip("-n", HERE, "route", "add", "default", "via", "10.77.0.1")
        d.stop()
        shutil.rmtree(d.base)
