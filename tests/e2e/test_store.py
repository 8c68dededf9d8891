# SPDX-License-Identifier: Apache-2.0
"""Tier 2: hostile wheels leave the store unchanged, what is installed is what pip installs, and the cache's verbs."""
import glob
import json
import os
import shutil
import stat
import subprocess
import zipfile

import pytest

import site_oracle
import wheels
from conftest import Daemon, apart, new_base


@pytest.fixture(scope="module")
def own_store():
    """A daemon whose store is its own, for all tests of this file."""
    with apart() as d:
        yield d


def run(daemon, index, *args):
    return daemon.cli("run", "--index-url", index.url, *args)


def objects(daemon):
    return {kind: sorted(os.listdir(os.path.join(daemon.store, kind))) for kind in ("wheels", "bytecode", "envs")}


def file_info(name, mode=stat.S_IFREG | 0o644):
    info = zipfile.ZipInfo(name)
    info.external_attr = mode << 16
    info.compress_type = zipfile.ZIP_DEFLATED
    return info


def without_hash_of(name):
    good = wheels.raw_wheel([("evil.py", b""), (name, b"x")])
    with zipfile.ZipFile(__import__("io").BytesIO(good)) as z:
        lines = z.read("evil-1.0.dist-info/RECORD").decode().splitlines()
    return "\n".join(line for line in lines if not line.startswith((name, "evil-1.0.dist-info/RECORD"))) + "\n"


def patched(data, old, new):
    """Names of equal length in both directories of the zip: zipfile itself would not write them."""
    assert len(old) == len(new) and old in data
    return data.replace(old, new)


def record_of(**changed):
    files = {"evil.py": b"", "a.py": b"1\n", **{k.replace("_", "."): v for k, v in changed.items()}}
    return "".join(wheels.record_line(n, d) + "\n" for n, d in files.items())


ATTACKS = {
    "ratio": (lambda: wheels.raw_wheel([("evil.py", b""), ("zeros", bytes(64 << 20))]), "bomb"),
    "parent": (lambda: wheels.raw_wheel([("../evil.py", b"")]), "unsafe path"),
    "inner parent": (lambda: wheels.raw_wheel([("a/../../evil.py", b"")]), "unsafe path"),
    "absolute": (lambda: wheels.raw_wheel([("/tmp/evil.py", b"")]), "absolute path"),
    "backslash": (lambda: patched(wheels.raw_wheel([("a/b.py", b"")]), b"a/b.py", b"a\\b.py"), "odd path"),
    "duplicate": (lambda: wheels.raw_wheel([("evil.py", b"1"), ("evil.py", b"2")]), "twice"),
    "case": (lambda: wheels.raw_wheel([("evil/A.py", b"1"), ("evil/a.py", b"2")]), "differ in case only"),
    "file and directory": (lambda: wheels.raw_wheel([("evil", b"1"), ("evil-x", b""), ("evil/a.py", b"2")]),
                           "a file and a directory"),
    "symlink": (lambda: wheels.raw_wheel([(file_info("evil.py", stat.S_IFLNK | 0o777), b"/etc/passwd")]),
                "not a regular file"),
    "device": (lambda: wheels.raw_wheel([(file_info("evil.py", stat.S_IFCHR | 0o666), b"")]), "not a regular file"),
    "hash": (lambda: wheels.raw_wheel([("evil.py", b"")], record=record_of(evil_py=b"other").split("a.py")[0]),
             "RECORD does not vouch for"),
    "extra member": (lambda: wheels.raw_wheel([("evil.py", b""), ("more.py", b"x")], record=without_hash_of("more.py")),
                     "RECORD does not vouch for 'more.py'"),
    "missing member": (lambda: wheels.raw_wheel(
        [("evil.py", b"")], record=without_hash_of("more.py") + wheels.record_line("gone.py", b"") + "\n"),
                       "RECORD names 'gone.py', which is not there"),
    "md5": (lambda: wheels.raw_wheel([("evil.py", b"")], record=without_hash_of("more.py").replace(
        wheels.record_line("evil.py", b""), "evil.py,md5=1B2M2Y8AsgTpgAmY7PhCfg,0")), "RECORD uses md5"),
    "scheme": (lambda: wheels.raw_wheel([("evil-1.0.data/boot/x", b"")]), "no known install scheme"),
    "no zip": (lambda: b"<html>not found</html>", "not a readable zip"),
    "truncated": (lambda: wheels.raw_wheel([("evil.py", os.urandom(4096))])[:3000], "not a readable zip"),
    "two dist-infos": (lambda: wheels.raw_wheel([("other-1.0.dist-info/METADATA", b"Name: other\n")]),
                       "two dist-info directories"),
}


def wheel_text(files):
    info = "evil-1.0.dist-info"
    whole = {"evil.py": b"", info + "/METADATA": b"Metadata-Version: 2.1\nName: evil\nVersion: 1.0\n",
             info + "/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n", **files}
    return wheels.raw_wheel_of(whole, info)


LIES = {
    "another name": ({"evil-1.0.dist-info/METADATA": b"Metadata-Version: 2.1\nName: good\nVersion: 1.0\n"},
                     "the wheel of 'evil' says that it is 'good'"),
    "another version": ({"evil-1.0.dist-info/METADATA": b"Metadata-Version: 2.1\nName: evil\nVersion: 1.0.1\n"},
                        "the wheel of version 1.0 says that it is 1.0.1"),
    "no version": ({"evil-1.0.dist-info/METADATA": b"Metadata-Version: 2.1\nName: evil\n"}, "METADATA lacks"),
    "another tag": ({"evil-1.0.dist-info/WHEEL": b"Wheel-Version: 1.0\nTag: cp27-none-any\n"}, "speaks of other tags"),
    "a platform": ({"evil-1.0.dist-info/WHEEL": b"Wheel-Version: 1.0\nTag: py3-none-linux_x86_64\n"},
                   "speaks of other tags"),
    "another format": ({"evil-1.0.dist-info/WHEEL": b"Wheel-Version: 2.0\nTag: py3-none-any\n"}, "of version 2.0"),
}


def check_refused(own_store, index, data, sentence):
    index.files["evil-1.0-py3-none-any.whl"] = data
    before = objects(own_store)
    out = own_store.cli("deploy", "--index-url", index.url, os.path.join(own_store.base, "f"), "--name", "f")
    assert out.returncode != 0
    assert sentence in out.stderr, out.stderr
    assert len(out.stderr.strip().splitlines()) <= 3, out.stderr
    assert objects(own_store) == before
    assert own_store.get("/healthz").status == 200


@pytest.fixture(scope="module", autouse=True)
def evil_lock(own_store):
    """A lock is enough to fetch and install: attacks on the resolver are another test's."""
    os.mkdir(os.path.join(own_store.base, "f"))
    for name, text in (("handler.py", "def handler(e): pass\n"), ("requirements.txt", "evil\n")):
        with open(os.path.join(own_store.base, "f", name), "w") as f:
            f.write(text)


@pytest.mark.parametrize("attack", ATTACKS)
def test_a_hostile_wheel_is_refused(own_store, index, attack, monkeypatch):
    make, sentence = ATTACKS[attack]
    index.metadata["evil-1.0-py3-none-any.whl"] = b"Metadata-Version: 2.1\nName: evil\nVersion: 1.0\n"
    check_refused(own_store, index, make(), sentence)


@pytest.mark.parametrize("lie", LIES)
def test_a_wheel_that_lies_of_itself_is_refused(own_store, index, lie):
    files, sentence = LIES[lie]
    index.metadata["evil-1.0-py3-none-any.whl"] = b"Metadata-Version: 2.1\nName: evil\nVersion: 1.0\n"
    check_refused(own_store, index, wheel_text(files), sentence)


def add_clash(index):
    index.add("late", {"both/__init__.py": "", "both/a.py": "who = 'late'\n"}, requires=["early"])
    index.add("early", {"both/__init__.py": "", "both/a.py": "who = 'early'\n", "both/b.py": "b = 1\n"})


def test_two_dists_one_path(own_store, index):
    add_clash(index)
    out = run(own_store, index, "--with", "late", "-c", "import both.a, both.b; print(both.a.who, both.b.b)")
    assert out.stdout == "late 1\n", out.stderr  # pip installs what is required first
    assert "early and late both bring" in out.stderr
    assert "both/a.py" in out.stderr


def test_strictness_and_an_override_for_one_dist(index):
    add_clash(index)
    index.add("liar", {"liar.py": "x = 1\n"}, record=["liar.py,sha256=AAAA,1"])
    index.add("other", {"other.py": "x = 1\n"}, record=["other.py,sha256=AAAA,1"])
    base = new_base()
    d = Daemon(base, ["--cache", os.path.join(base, "cache"), "--strict-packages", "--accept-record", "Liar"])
    try:
        assert run(d, index, "--with", "liar", "-c", "import liar; print(liar.x)").stdout == "1\n"
        refused = run(d, index, "--with", "other", "-c", "1")
        assert refused.returncode == 8
        assert "--accept-record other" in refused.stderr
        assert d.cli("cache", "verify").returncode == 0
        out = run(d, index, "--with", "late", "-c", "1")
        assert out.returncode == 4
        assert "early and late both bring" in out.stderr
    finally:
        d.stop()
        shutil.rmtree(base)


def test_strictness_and_the_override_of_one_request(own_store, index):
    add_clash(index)
    index.add("fibber", {"fibber.py": "x = 1\n"}, record=["fibber.py,sha256=AAAA,1"])
    index.add("honest", {"honest.py": "x = 2\n"})
    code = "import fibber; print(fibber.x)"

    def refused():
        out = run(own_store, index, "--with", "fibber", "-c", code)
        assert (out.returncode, out.stdout) == (8, "")
        assert "use --accept-record fibber" in out.stderr
        assert len(out.stderr.strip().splitlines()) <= 3, out.stderr
        return out.stderr

    assert "installed for others" not in refused()
    assert run(own_store, index, "--accept-record", "Fibber", "--with", "fibber", "-c", code).stdout == "1\n"
    assert "installed for others" in refused(), "what one accepted is not the next one's"
    assert run(own_store, index, "--accept-record=fibber", "--with", "fibber", "-c", code).stdout == "1\n"
    # A wheel that needs no such trust is everybody's, whoever was first.
    accept = ("--accept-record", "honest", "--with", "honest", "-c", "import honest; print(honest.x)")
    assert run(own_store, index, *accept).stdout == run(own_store, index, *accept[2:]).stdout == "2\n"
    assert "0 damaged" in own_store.cli("cache", "verify").stdout

    loose = ("--with", "late", "-c", "import both.a; print(both.a.who)")
    assert run(own_store, index, *loose).stdout == "late\n"
    strict = run(own_store, index, "--strict", *loose)
    assert strict.returncode == 4
    assert "early and late both bring" in strict.stderr
    assert run(own_store, index, *loose).stdout == "late\n"


def test_the_override_of_a_function(own_store, index):
    index.add("tale", {"tale.py": "x = 3\n"}, record=["tale.py,sha256=AAAA,1"])
    where = os.path.join(own_store.base, "teller")
    os.mkdir(where)
    for name, text in (("handler.py", "import tale\ndef handler(e): return tale.x\n"), ("requirements.txt", "tale\n")):
        with open(os.path.join(where, name), "w") as f:
            f.write(text)
    deploy = ("deploy", "--index-url", index.url, where)
    out = own_store.cli(*deploy)
    assert out.returncode == 8
    assert "use --accept-record tale" in out.stderr
    assert own_store.cli(*deploy, "--accept-record", "tale").returncode == 0
    assert own_store.call("teller").json == 3
    own_store.stop()
    own_store.start()
    assert own_store.call("teller").json == 3
    assert own_store.cli("rm", "teller").returncode == 0


def test_every_data_scheme(own_store, index):
    data = "many-1.0.data/"
    index.add("many", {
        "many.py": "def main(): print('main')\n", data + "purelib/pure.py": "p = 1\n", data + "platlib/plat.py": "q = 2\n",
        data + "data/share/many/x.txt": "x", data + "headers/many.h": "// h\n",
        data + "scripts/shout": "#!python\nimport sys\nprint('HEY', *sys.argv[1:])\n",
        data + "scripts/plain": "#!/bin/sh\necho plain $1\n",
        "many-1.0.dist-info/entry_points.txt": "[console_scripts]\nmany-main = many:main\n"})
    code = ("import sys, pure, plat, os; print(pure.p, plat.q, open(sys.prefix + '/share/many/x.txt').read(),"
            "os.path.exists(sys.prefix + '/include/site/python3.11/many/many.h'))")
    assert run(own_store, index, "--with", "many", "-c", code).stdout == "1 2 x True\n"
    assert run(own_store, index, "--with", "many", "--", "shout", "a", "b").stdout == "HEY a b\n"
    assert run(own_store, index, "--with", "many", "--", "plain", "c").stdout == "plain c\n"
    assert run(own_store, index, "--from", "many", "many-main").stdout == "main\n"
    wrong = run(own_store, index, "--with", "many", "--", "no-such")
    assert wrong.returncode == 2
    assert "no package brought a command of that name" in wrong.stderr


def test_a_script_named_like_the_interpreter_replaces_nothing_outside(own_store, index):
    """r: data/scripts/python was written through the environment's link to the interpreter."""
    index.add("sly", {"sly.py": "", "sly-1.0.data/scripts/python3": "#!/bin/sh\n", "sly-1.0.data/data/pyvenv.cfg": "x"})
    real = os.stat(os.path.realpath("/usr/bin/python3"))
    run(own_store, index, "--with", "sly", "-c", "import sly")
    assert os.stat(os.path.realpath("/usr/bin/python3")).st_mtime == real.st_mtime
    assert own_store.cli("cache", "verify").returncode == 0


def test_bytecode_of_a_large_wheel_comes_in_two_parts(own_store, index):
    files = {"large/__init__.py": "from . import used\n", "large/used.py": "import large.deep.also\n",
             "large/deep/__init__.py": "", "large/deep/also.py": "", "large/bad.py": "def (\n"}
    files.update({"large/m%d.py" % i: "x = %d\n" % i for i in range(80)})
    index.add("large", files)
    assert run(own_store, index, "--with", "large", "-c", "import large, large.m7; print(large.m7.x)").stdout == "7\n"
    own_store.becomes(lambda: not os.listdir(os.path.join(own_store.store, "late")))
    for part in os.listdir(os.path.join(own_store.store, "bytecode")):
        names = {os.path.relpath(os.path.join(f, n), os.path.join(own_store.store, "bytecode", part))
                 for f, _, ns in os.walk(os.path.join(own_store.store, "bytecode", part)) for n in ns}
        if "large/__pycache__/__init__.cpython-311.pyc" in names:
            assert part.endswith(".0")
            assert {n.split("/")[-1].split(".")[0] for n in names} == {"__init__", "used", "also"}
    want = {"large/__pycache__/m%d.cpython-311.pyc" % i for i in range(80)}
    envs = os.path.join(own_store.store, "envs")
    assert any(all(os.path.exists(os.path.join(envs, e, "lib/python3.11/site-packages", n)) for n in want)
               for e in os.listdir(envs))


def first_parts(daemon, top):
    """The modules of package `top` in first parts of bytecode, by part."""
    found = {}
    for part in glob.glob(os.path.join(daemon.store, "bytecode", "*.0")):
        paths = [os.path.join(f, n) for f, _, ns in os.walk(part) for n in ns]
        names = {os.path.relpath(p, part).replace("__pycache__/", "").split(".")[0].replace("/", ".") for p in paths}
        if any(n.startswith(top + ".") for n in names):
            found[part] = {n[len(top) + 1:] for n in names if n.startswith(top + ".")}
    return found


def modules(top, version_only, **more):
    return {top + "/__init__.py": "from . import used\n", top + "/used.py": "", top + "/%s.py" % version_only: "",
            **{"%s/m%d.py" % (top, i): "import %s.of%d\n" % (top, i) for i in range(50)},
            **{"%s/of%d.py" % (top, i): "" for i in range(50)}, **more}


def drop(daemon, what):
    daemon.becomes(lambda: what not in (daemon.cli("cache", "clean"), daemon.cli("cache", "ls"))[1].stdout)


def test_what_was_seen_loading_is_compiled_first(own_store, index):
    index.add("learnt", modules("learnt", "one"), version="1.0")
    index.add("learnt", modules("learnt", "two"), version="2.0")

    def first_part(version, code):
        assert run(own_store, index, "--with", "learnt==" + version, "-c", code).returncode == 0
        (names,) = first_parts(own_store, "learnt").values()
        own_store.becomes(lambda: not os.listdir(os.path.join(own_store.store, "late")))
        return names

    lazily = "import learnt; import learnt.m7, learnt.m8; del learnt"
    assert first_part("1.0", lazily) == {"__init__", "used"}  # the import statements' guess
    drop(own_store, "learnt-1.0")
    assert first_part("1.0", "pass") == {"__init__", "used", "m7", "of7", "m8", "of8"}  # exactly what was seen
    drop(own_store, "learnt-1.0")
    # Of another version: the guess, and what was seen of the other one as far as it is there.
    assert first_part("2.0", "import learnt.two") == {"__init__", "used", "m7", "of7", "m8", "of8"}
    drop(own_store, "learnt-2.0")
    assert first_part("2.0", "pass") == {"__init__", "used", "two"}
    drop(own_store, "learnt-2.0")


def test_what_other_wheels_import_is_compiled_first(own_store, index):
    index.add("asked", modules("asked", "one"))
    index.add("asker", {"asker/__init__.py": "from asked import (m3 as x,\n    m4)\nimport asked.m5 as y\n",
                        "asker/tests/test_it.py": "import asked.m6\n"})
    assert run(own_store, index, "--with", "asked", "--with", "asker", "-c", "pass").returncode == 0
    (names,) = first_parts(own_store, "asked").values()
    assert names == {"__init__", "used", "m3", "of3", "m4", "of4", "m5", "of5"}
    drop(own_store, "asked-1.0")


def test_the_verbs_of_the_cache(own_store, index):
    index.add("kept", {"kept.py": "x = 1\n"})
    index.add("gone", {"gone.py": "x = 2\n" + "#" * 100000})
    where = os.path.join(own_store.base, "keeper")
    os.mkdir(where)
    for name, text in (("handler.py", "import kept\ndef handler(e): return kept.x\n"), ("requirements.txt", "kept\n")):
        with open(os.path.join(where, name), "w") as f:
            f.write(text)
    assert own_store.cli("deploy", "--index-url", index.url, where).returncode == 0
    assert run(own_store, index, "--with", "gone", "-c", "import gone").returncode == 0
    listed = own_store.cli("cache", "ls").stdout
    assert "kept-1.0" in listed
    assert "gone-1.0" in listed
    sizes = json.loads(own_store.cli("cache", "size", "--json").stdout)
    assert sizes["bytes"] == sum(sizes["kinds"].values()) > 100000
    assert own_store.cli("cache", "dir").stdout.strip() == os.path.join(own_store.base, "cache")
    assert "0 damaged" in own_store.cli("cache", "verify").stdout
    for bad in (("prune", "--to"), ("prune", "--to", "x"), ("prune", "--older", "3y"), ("what",), ("ls", "--x")):
        assert own_store.cli("cache", *bad).returncode == 2
    own_store.becomes(lambda: "gone-1.0" not in (own_store.cli("cache", "clean"), own_store.cli("cache", "ls"))[1].stdout)
    assert "kept-1.0" in own_store.cli("cache", "ls").stdout  # a deployed function needs it
    for answers in ("pages", "metadata", "builds", "partial"):
        assert os.listdir(os.path.join(own_store.base, "cache", "index", answers)) == []
    assert own_store.call("keeper").json == 1
    assert own_store.cli("cache", "verify").returncode == 0
    assert run(own_store, index, "--with", "gone", "-c", "import gone; print(gone.x)").stdout == "2\n"


def test_what_a_running_script_has_stays(own_store, index):
    index.add("busy", {"busy.py": "", "busy_later.py": "x = 5\n"})
    args = [own_store.cli.__globals__["CLI"], "run", "--index-url", index.url, "--with", "busy", "-c",
            "import busy; print('up', flush=True); input(); import busy_later; print(busy_later.x)"]
    with subprocess.Popen(args, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=own_store.environment()) as p:
        assert p.stdout.readline() == "up\n"
        second = Daemon(new_base(), ["--cache", os.path.join(own_store.base, "cache")])  # another one, the same store
        try:
            assert second.cli("cache", "clean").returncode == 0
        finally:
            second.stop()
            shutil.rmtree(second.base)
        assert own_store.cli("cache", "clean").returncode == 0
        out, _ = p.communicate("\n", timeout=60)
    assert out == "5\n"


def test_damage_is_found(own_store, index):
    index.add("hurt", {"hurt.py": "x = 1\n"})
    assert run(own_store, index, "--with", "hurt", "-c", "import hurt").returncode == 0
    found = [os.path.join(f, "hurt.py") for f, _, ns in os.walk(os.path.join(own_store.store, "wheels")) if "hurt.py" in ns]
    with open(found[0], "r+") as f:
        f.write("y")
    out = own_store.cli("cache", "verify")
    assert out.returncode == 8
    assert "'hurt.py' is not what RECORD says" in out.stdout
    own_store.becomes(lambda: own_store.cli("cache", "clean").returncode == 0 and own_store.cli("cache", "verify").returncode == 0)


def test_the_budget_is_kept(index):
    base = new_base()
    d = Daemon(base, ["--cache", os.path.join(base, "cache"), "--cache-size", "3M"])
    d.store = os.path.join(base, "cache", "store")
    try:
        for i in range(4):
            index.add("block%d" % i, {"block%d.py" % i: "x = 1\n", "block%d.bin" % i: os.urandom(1 << 20)})
            assert run(d, index, "--with", "block%d" % i, "-c", "1").returncode == 0

        def size():
            return json.loads(d.cli("cache", "size", "--json").stdout)["bytes"]

        d.becomes(lambda: size() <= 3 << 20)
        assert d.cli("cache", "verify").returncode == 0
    finally:
        d.stop()
        shutil.rmtree(base)


def test_a_kill_leaves_only_temporaries(index):
    """At several moments of an installation; then verify is clean and the same command works."""
    for i in range(3):
        index.add("piece%d" % i, {"piece%d/m%d.py" % (i, k): "x = %d\n" % k for k in range(120)})
    words = [w for i in range(3) for w in ("--with", "piece%d" % i)]
    for moment in (0.1, 0.2, 0.4):
        base = new_base()
        d = Daemon(base, ["--cache", os.path.join(base, "cache")])
        with subprocess.Popen([d.cli.__globals__["CLI"], "run", "--index-url", index.url, *words, "-c", "1"],
                              env=d.environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                              stdin=subprocess.DEVNULL) as p:
            try:
                p.wait(moment)
            except subprocess.TimeoutExpired:
                pass
            d.stop(kill=True)
        d.start()
        try:
            assert "0 damaged" in d.cli("cache", "verify").stdout
            out = run(d, index, *words, "-c", "import piece2.m99; print(piece2.m99.x)")
            assert out.stdout == "99\n", out.stderr
            assert len(os.listdir(os.path.join(base, "cache", "store", "tmp"))) == 1
        finally:
            d.stop()
            shutil.rmtree(base)


def test_the_same_files_as_pip(own_store, workdir):
    """A few dists of different kinds; tests/soak has many."""
    site_oracle.compare(own_store, workdir, ["flask", "zope.interface", "zope.event", "pyyaml", "ruff", "jedi"])
