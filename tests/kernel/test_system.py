# SPDX-License-Identifier: Apache-2.0
"""Only where tools/kernel.sh runs them: what that machine is, the daemon as a unit of systemd's, and what
becomes of a function there that takes too much."""
import json
import os
import re
import shutil
import subprocess
import time

import pytest

from conftest import BUILD, TOP, processes

UNIT = "pipsqueakd.service"
GROUP = "/sys/fs/cgroup/system.slice/" + UNIT
CLI = "/usr/local/bin/pipsqueak"
HUNGRY = "def handler(e): return len([bytearray(1 << 20) for _ in range(4096)])"


def told(*command, **kwargs):
    out = subprocess.run(command, capture_output=True, text=True, timeout=300, **kwargs)
    assert out.returncode == 0, out.stdout + out.stderr
    return out.stdout


def show(what):
    return told("systemctl", "show", "--value", "-p", what, UNIT).strip()


def journal():
    return told("journalctl", "-b", "-o", "cat", "-u", UNIT)


def read(*parts):
    with open(os.path.join(*parts)) as f:
        return f.read()


def test_the_machine():
    """Else nothing that passes here would prove anything."""
    assert os.uname().release.startswith("6.1.")
    assert read("/proc/1/comm") == "systemd\n"
    assert not [line for line in read("/proc/mounts").splitlines() if line.split()[2] == "cgroup"]
    assert {"memory", "pids", "cpu"} <= set(read("/sys/fs/cgroup/cgroup.controllers").split())


def test_what_the_daemon_finds(daemon):
    """Started from a shell that is not alone in its cgroup: systemd gives the daemon one."""
    host = daemon.get("/status").json["host"]
    assert host["landlock_abi"] == 2 and host["mode"] == "root"
    assert host["cgroups"] is True and host["cgroup_version"] == 2
    assert [w for w in host["weaker"] if "Landlock scopes" in w] and len(host["weaker"]) == 1, host
    group = read("/proc/%d/cgroup" % daemon.process.pid).strip().removeprefix("0::")
    assert group == "/system.slice/pipsqueak-%d.scope/daemon" % daemon.process.pid


@pytest.fixture(scope="module")
def installed():
    told("make", "install", "BUILD=" + BUILD, cwd=TOP)
    told("systemctl", "daemon-reload")


@pytest.fixture(scope="module")
def unit(installed):
    """Started as a person would; afterwards it is stopped and everything of it is gone."""
    started = subprocess.run(["systemctl", "start", UNIT], capture_output=True, text=True, timeout=300)
    assert started.returncode == 0, journal()
    yield UNIT
    had = {k for k, p in processes().items() if group_of(k).startswith("/system.slice/" + UNIT)}
    assert had
    told("systemctl", "stop", UNIT)
    assert show("Result") == "success"
    assert not os.path.exists(GROUP)
    assert not had & processes().keys()
    assert "pipsqueak" not in read("/proc/self/mountinfo")
    assert os.listdir("/run/pipsqueak") in ([], ["lock"])
    assert " ERROR " not in journal()
    for where in ("/var/lib/pipsqueak", "/var/cache/pipsqueak", "/run/pipsqueak"):
        shutil.rmtree(where)


def group_of(pid):
    try:
        return read("/proc/%d/cgroup" % pid).strip().removeprefix("0::")
    except (FileNotFoundError, ProcessLookupError):
        return ""


def deploy(tmp_path, name, code, settings="", requirements=""):
    folder = tmp_path / name
    folder.mkdir()
    (folder / "handler.py").write_text(code)
    (folder / "pipsqueak.toml").write_text(settings)
    if requirements:
        (folder / "requirements.txt").write_text(requirements)
    told(CLI, "deploy", str(folder))


def invoke(name, event="null"):
    return subprocess.run([CLI, "invoke", name, event], capture_output=True, text=True, timeout=300)


def test_a_function_of_the_units_daemon(unit, tmp_path):
    pid = int(show("MainPID"))
    assert show("ActiveState") == "active" and read("/proc/%d/comm" % pid).strip() == "pipsqueakd"
    host = json.loads(told(CLI, "status", "--json"))["host"]
    assert host["cgroup_version"] == 2 and host["network"] is True, host
    deploy(tmp_path, "unit", "import six, os\ndef handler(e): return [six.__version__, e, os.getpid()]", "", "six")
    reply = invoke("unit", '{"a": 1}')
    assert reply.returncode == 0, reply.stderr
    version, event, inner = json.loads(reply.stdout)
    assert re.match(r"[\d.]+$", version) and event == {"a": 1} and inner == 2
    groups = {group_of(k) for k, p in processes().items()}
    assert "/system.slice/%s/daemon" % UNIT in groups
    assert [g for g in groups if re.match(r"/system.slice/%s/\d+$" % UNIT, g)], groups
    # A script of root's, which the client shows its directory to.
    script = tmp_path / "script.py"
    script.write_text("import sys, pathlib\nprint(pathlib.Path(__file__).read_text()[:10], sys.argv[1])")
    assert told(CLI, "run", str(script), "there") == "import sys there\n"


def test_the_units_network(unit, tmp_path):
    """Names and connections by pasta, under the unit's restrictions (and Debian's profile of pasta)."""
    code = ("import socket\ndef handler(e):\n    with open('/proc/net/route') as f:\n"
            "        return [line.split()[0] for line in f.readlines()[1:]]\n")
    deploy(tmp_path, "routes", code, "network = true\n")
    reply = invoke("routes")
    assert reply.returncode == 0 and json.loads(reply.stdout), reply.stderr


def test_out_of_memory_is_the_functions(unit, tmp_path):
    """A typed answer; neither the daemon nor systemd takes it for a failure of the unit's."""
    pid = show("MainPID")
    deploy(tmp_path, "hungry", HUNGRY, 'memory = "64M"\n')
    reply = invoke("hungry")
    assert reply.returncode != 0 and "memory" in reply.stderr, reply.stderr
    assert int(re.search(r"oom_kill (\d+)", read(GROUP, "memory.events"))[1]) > 0
    assert show("MainPID") == pid and show("ActiveState") == "active"
    assert invoke("unit", "2").returncode == 0


def test_the_daemon_is_nobody(unit):
    status = read("/proc", show("MainPID"), "status")
    ids = re.search(r"^Uid:\s+(\d+)\s+(\d+)", status, re.M).groups()
    assert all(int(i) >= 0x70000000 for i in ids)
    assert re.search(r"^NoNewPrivs:\s+1$", status, re.M)


def test_systemd_finds_it_safe(unit):
    """Its own judgement: 0 is best, 10 the worst; a unit without any of it gets 9.6."""
    text = told("systemd-analyze", "security", "--no-pager", UNIT)
    print(text)
    assert float(re.search(r"Overall exposure level for %s: ([\d.]+)" % UNIT, text)[1]) <= 5.0, text


@pytest.fixture
def alone(installed):
    """A plain user's daemon, in a cgroup that is delegated to that user; runs the client as that."""
    told("useradd", "--create-home", "pquser")
    told("systemd-run", "--quiet", "--unit=pquser", "--uid=pquser", "--property=Delegate=yes",
         "--property=Type=notify", "--setenv=HOME=/home/pquser", "/usr/local/libexec/pipsqueak/pipsqueakd",
         "--dir", "/home/pquser/d")

    def client(*words):
        return subprocess.run(["runuser", "-u", "pquser", "--", "env", "PIPSQUEAK_DIR=/home/pquser/d", CLI, *words],
                              capture_output=True, text=True, timeout=300, cwd="/home/pquser")
    yield client
    told("systemctl", "stop", "pquser")
    assert not os.path.exists("/sys/fs/cgroup/system.slice/pquser.service")
    told("userdel", "--remove", "pquser")


def test_a_users_daemon_that_is_alone(alone):
    """It limits memory by the cgroup, too."""
    host = json.loads(alone("status", "--json").stdout)["host"]
    assert host["mode"] == "subids" and host["cgroup_version"] == 2, host
    os.mkdir("/home/pquser/hungry")
    with open("/home/pquser/hungry/handler.py", "w") as f:
        f.write(HUNGRY)
    with open("/home/pquser/hungry/pipsqueak.toml", "w") as f:
        f.write('memory = "64M"\n')
    deployed = alone("deploy", "/home/pquser/hungry")
    assert deployed.returncode == 0, deployed.stderr
    reply = alone("invoke", "hungry", "1")
    assert "memory" in reply.stderr, reply.stderr
    events = read("/sys/fs/cgroup/system.slice/pquser.service/memory.events")
    assert int(re.search(r"oom_kill (\d+)", events)[1]) > 0


def test_the_profile_for_apparmor(installed, tmp_path):
    """Debian's parser knows all of it but what it is for, which came with AppArmor 4."""
    text = read("/usr/local/share/pipsqueak/pipsqueakd.apparmor")
    known = [line for line in text.splitlines(True) if not line.startswith("abi ") and line.strip() != "userns,"]
    assert len(known) == text.count("\n") - 2 and "/usr/local/libexec/pipsqueak/{pipsqueakd," in text
    (tmp_path / "profile").write_text("".join(known))
    told("apparmor_parser", "--skip-kernel-load", "--skip-cache", str(tmp_path / "profile"))


def test_a_restart_keeps_functions(unit):
    told("systemctl", "restart", UNIT)
    assert invoke("unit", "3").returncode == 0


def test_a_kill_leaves_nothing(unit):
    """systemd starts it again; the one before has left neither processes nor cgroups."""
    pid = int(show("MainPID"))
    had = {k for k, p in processes().items() if group_of(k).startswith("/system.slice/" + UNIT)}
    os.kill(pid, 9)
    deadline = time.monotonic() + 60
    while show("ActiveState") != "active" or show("MainPID") == str(pid):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert not had & processes().keys()
    assert invoke("unit", "4").returncode == 0
