# SPDX-License-Identifier: Apache-2.0
"""Requirements in every form, from the command line to the import; locks that other tools read, and theirs."""
import hashlib
import os
import re
import subprocess
import sys

import pytest

import oracle
import wheels
from conftest import BUILD, TOP

sys.path.append(os.path.join(TOP, "bench"))
import ground

SAY = "import importlib.metadata as m; print(sorted((d.name, d.version) for d in m.distributions()))"
BOTH = "[('alpha', '1.0'), ('beta', '1.0')]\n"


def write(where, files):
    for name, text in files.items():
        path = os.path.join(where, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb" if isinstance(text, bytes) else "w") as f:
            f.write(text)


@pytest.fixture
def two(index):
    """alpha 1.0 and 2.0, beta 1.0."""
    index.add("alpha", {"alpha.py": ""})
    index.add("alpha", {"alpha.py": ""}, "2.0")
    index.add("beta", {"beta.py": ""}, requires=["alpha"])
    return index


def run(daemon, index, workdir, *args, **kwargs):
    return daemon.cli("run", "--index-url", index.url, *args, cwd=workdir, **kwargs)


def test_a_directory_is_run_with_what_it_requires(daemon, two, workdir):
    write(workdir, {"app/__main__.py": SAY, "app/requirements.txt": "-r more/base.txt\n-c more/limits.txt\n",
                    "app/more/base.txt": "beta\n", "app/more/limits.txt": "alpha<2\n"})
    for _ in range(2):
        out = run(daemon, two, workdir, "app")
        assert out.stdout == BOTH, out.stderr
    write(workdir, {"app/more/limits.txt": "alpha>1\n"})  # a file that a file names counts, too
    assert "'2.0'" in run(daemon, two, workdir, "app").stdout


def test_the_project_itself_is_importable(daemon, two, workdir):
    write(workdir, {"app/pyproject.toml": '[project]\nname = "app"\ndependencies = ["beta"]\n',
                    "app/src/mine/__init__.py": "x = 7\n", "app/__main__.py": "import mine, beta; print(mine.x)"})
    out = run(daemon, two, workdir, "app")
    assert out.stdout == "7\n", out.stderr


def test_the_first_input_counts(daemon, two, workdir):
    write(workdir, {"app/__main__.py": SAY, "app/pyproject.toml": '[project]\nname="x"\ndependencies = ["alpha"]\n',
                    "app/requirements.txt": "alpha<2\n"})
    assert "'1.0'" in run(daemon, two, workdir, "app").stdout
    os.remove(os.path.join(workdir, "app/requirements.txt"))
    assert "'2.0'" in run(daemon, two, workdir, "app").stdout
    write(workdir, {"app/requirements.txt": "alpha<2\n"})
    assert daemon.cli("lock", "--index-url", two.url, "app", cwd=workdir).returncode == 0
    write(workdir, {"app/requirements.txt": "no-such-dist\n"})
    assert "'1.0'" in run(daemon, two, workdir, "app").stdout


def test_local_wheels(daemon, two, workdir):
    made = wheels.wheel("gamma", {"gamma.py": "x = 1"}, requires=["alpha<2"])
    name = "gamma-1.0-py3-none-any.whl"
    write(workdir, {name: made, "r.txt": "./%s\n" % name, "s.py": "# /// script\n# dependencies = "
                    "['gamma @ file://%s/%s']\n# ///\nimport gamma; print(gamma.x)\n" % (workdir, name)})
    use = ("-c", "import gamma, alpha; print(gamma.x)")
    for args in (("--with", "./" + name, *use), ("--with", os.path.join(workdir, name), *use),
                 ("--with-requirements", "r.txt", *use), ("s.py",)):
        out = run(daemon, two, workdir, *args)
        assert out.stdout == "1\n", out.stderr
    write(workdir, {name: wheels.wheel("gamma", {"gamma.py": "x = 2"})})
    assert run(daemon, two, workdir, "--with", "./" + name, "-c", "import gamma; print(gamma.x)").stdout == "2\n"
    out = run(daemon, two, workdir, "--with", "./gone-1.0-py3-none-any.whl", "-c", "1")
    assert out.returncode == 3 and "that can be read" in out.stderr


def test_find_links_and_extra_indexes(daemon, two, workdir):
    other = wheels.Index()
    other.add("gamma", {"gamma.py": ""})
    made = wheels.wheel("delta", {"delta.py": ""})
    write(workdir, {"links/delta-1.0-py3-none-any.whl": made})
    try:
        out = run(daemon, two, workdir, "--extra-index-url", other.url, "--find-links", "links", "--with",
                  "delta,gamma,beta,alpha<2", "-c", SAY)
    finally:
        other.close()
    assert out.stdout == "[('alpha', '1.0'), ('beta', '1.0'), ('delta', '1.0'), ('gamma', '1.0')]\n", out.stderr


def test_find_links_files(daemon, two, workdir):
    """A page of links on disk, by path or file:// URL, and a wheel itself."""
    made = wheels.wheel("delta", {"delta.py": ""})
    digest = hashlib.sha256(made).hexdigest()
    link = "<a href='%s#sha256=%s'>delta</a>"
    write(workdir, {"my wheels/delta-1.0-py3-none-any.whl": made, "far/delta-1.0-py3-none-any.whl": made,
                    "page.html": "<html>" + link % ("my%20wheels/delta-1.0-py3-none-any.whl", digest),
                    "a page.htm": link % ("file://%s/far/delta-1.0-py3-none-any.whl" % workdir, digest),
                    "wrong.html": link % ("far/delta-1.0-py3-none-any.whl", "0" * 64),
                    "r.txt": "-f page.html\ndelta\n", "u.txt": "-f file://%s/a%%20page.htm\ndelta\n" % workdir})
    use = ("-c", "import delta; print('there')")
    for args in (("--find-links", "page.html", "--with", "delta"), ("--with-requirements", "r.txt"),
                 ("--find-links", "file://%s/page.html" % workdir, "--with", "delta"), ("--with-requirements", "u.txt"),
                 ("--find-links", "file://%s/a%%20page.htm" % workdir, "--with", "delta"),
                 ("--find-links", "far/delta-1.0-py3-none-any.whl", "--with", "delta"),
                 ("--find-links", "my wheels", "--with", "delta")):
        out = run(daemon, two, workdir, "--upgrade", *args, *use)
        assert out.stdout == "there\n", (args, out.stderr)
    out = run(daemon, two, workdir, "--find-links", "wrong.html", "--with", "delta", "--upgrade", *use)
    assert out.returncode == 8, out.stderr


def test_an_index_cannot_name_files(daemon, two, workdir):
    made = wheels.wheel("delta", {"delta.py": ""})
    write(workdir, {"delta-1.0-py3-none-any.whl": made})
    body = "<a href='file://%s/delta-1.0-py3-none-any.whl'>delta</a>" % workdir
    two.page = lambda dist: body.encode()
    out = run(daemon, two, workdir, "--find-links", two.url + "delta/", "--with", "delta", "-c", "1")
    assert out.returncode == 3, out.stderr


def test_encodings_and_variables(daemon, two, workdir):
    env = daemon.environment()
    env["WHICH"] = "alpha<2"
    texts = {"utf16.txt": "beta # \u00fc\nalpha<2\n".encode("utf-16"), "bom.txt": b"\xef\xbb\xbfbeta\nalpha<2\n",
             "latin.txt": b"# -*- coding: latin-1 -*-\nbeta # \xfc\nalpha<2\n", "var.txt": b"beta\n${WHICH}\n"}
    write(workdir, texts)
    for name in texts:
        out = run(daemon, two, workdir, "--with-requirements", name, "-c", SAY, env=env)
        assert out.stdout == BOTH, (name, out.stderr)
    for name, text, word in (("bad.txt", b"beta # \xfc\n", "not UTF-8"), ("zero.txt", b"a\0b", "not a text file"),
                             ("gone.txt", b"-r nowhere.txt\n", "'nowhere.txt': No such file")):
        write(workdir, {name: text})
        out = run(daemon, two, workdir, "--with-requirements", name, "-c", SAY)
        assert out.returncode == 2 and word in out.stderr and len(out.stderr.splitlines()) == 1


def test_upgrade_asks_again(daemon, index, workdir):
    index.add("alpha", {"alpha.py": ""})
    args = ("--with", "alpha", "-c", SAY)
    assert "'1.0'" in run(daemon, index, workdir, *args).stdout
    index.add("alpha", {"alpha.py": ""}, "2.0")
    assert "'1.0'" in run(daemon, index, workdir, *args).stdout
    assert "'2.0'" in run(daemon, index, workdir, "--upgrade", *args).stdout
    assert "'2.0'" in run(daemon, index, workdir, *args).stdout


def test_offline_finds_what_is_there(daemon, two, workdir):
    args = ("-c", SAY)
    assert run(daemon, two, workdir, "--with", "beta", *args).returncode == 0
    two.close()
    out = run(daemon, two, workdir, "--offline", "--with", "beta>=1", *args)
    assert out.returncode == 0, out.stderr
    out = run(daemon, two, workdir, "--offline", "--with", "gamma", *args)
    assert out.returncode == 9 and "--offline" in out.stderr


def test_deploy_reads_what_the_directory_names(daemon, index, workdir):
    index.add("alpha", {"alpha.py": ""})
    index.add("alpha", {"alpha.py": ""}, "2.0")
    made = wheels.wheel("gamma", {"gamma.py": "x = 1"}, requires=["alpha"])
    write(workdir, {"fn/handler.py": "import alpha, gamma\ndef handler(e): return gamma.x\n",
                    "fn/requirements.txt": "-c limits/c.txt\n--find-links ./links\n${WHAT}\n",
                    "fn/limits/c.txt": "alpha<2\n", "fn/links/gamma-1.0-py3-none-any.whl": made})
    env = daemon.environment()
    env["WHAT"] = "./links/gamma-1.0-py3-none-any.whl"
    out = daemon.cli("deploy", "fn", "--name", "in-fn", "--index-url", index.url, cwd=workdir, env=env)
    assert out.returncode == 0 and "alpha 1.0, gamma 1.0" in out.stdout, out.stderr
    assert daemon.call("in-fn").json == 1
    env["WHAT"] = "gamma"  # now out of the directory of links
    out = daemon.cli("deploy", "fn", "--name", "in-fn", "--index-url", index.url, cwd=workdir, env=env)
    assert out.returncode == 0 and "gamma 1.0" in out.stdout, out.stderr
    write(workdir, {"fn/requirements.txt": "-r ../out.txt\n", "out.txt": "alpha\n"})
    out = daemon.cli("deploy", "fn", "--name", "in-fn", "--index-url", index.url, cwd=workdir)
    assert out.returncode == 2 and "the file '../out.txt'" in out.stderr and workdir not in out.stderr


def test_deploy_with_groups(daemon, two, workdir):
    write(workdir, {"fn/handler.py": "def handler(e):\n    " + SAY.replace("print", "return str"),
                    "fn/pyproject.toml": '[project]\nname="x"\n[dependency-groups]\nnow = ["beta", "alpha<2"]\n'})
    out = daemon.cli("deploy", "fn", "--name", "grouped", "--group", "now", "--index-url", two.url, cwd=workdir)
    assert out.returncode == 0, out.stderr
    assert "alpha 1.0, beta 1.0" in out.stdout


def test_no_wheel_of_a_local_path_is_read_twice_as_another(daemon, two, workdir):
    """What the daemon took is the file that was there, though its name stays."""
    name = "gamma-1.0-py3-none-any.whl"
    for text in ("x = 1", "x = 22", "x = 333"):
        write(workdir, {name: wheels.wheel("gamma", {"gamma.py": text})})
        out = run(daemon, two, workdir, "--with", name, "-c", "import gamma; print(gamma.x)")
        assert out.stdout == text[4:] + "\n", out.stderr


# --- locks -----------------------------------------------------------------------------------------


def uv():
    return ground.uv_program(BUILD)


def tell(args, where):
    env = dict(os.environ, UV_CACHE_DIR=os.path.join(BUILD, "test-cache", "uv"))
    out = subprocess.run(args, cwd=where, env=env, capture_output=True, text=True, timeout=240)
    assert out.returncode == 0, out.stderr
    return out.stdout


def test_uv_and_pip_install_from_our_lock(daemon, workdir):
    write(workdir, {"app/requirements.txt": "flask<3.1\nnumpy<2.3\n", "app/__main__.py": SAY})
    out = daemon.cli("lock", "app", cwd=workdir)
    assert out.returncode == 0 and out.stderr.endswith("wrote app/pylock.toml\n"), out.stderr
    tell([uv(), "venv", "-q", "--python", "/usr/bin/python3", "venv"], workdir)
    ours = daemon.cli("run", "app", cwd=workdir).stdout
    python = os.path.join(workdir, "venv/bin/python")
    tell([uv(), "pip", "sync", "-q", "--python", python, "app/pylock.toml"], workdir)
    assert tell([python, "-c", SAY], workdir) == ours
    tell([uv(), "pip", "install", "-q", "--python", python, "-r", "app/pylock.toml"], workdir)
    pip = tell([oracle.pip(), "install", "--dry-run", "--ignore-installed", "--cache-dir", oracle.CACHE,
                "-r", "app/pylock.toml"], workdir)
    assert re.search(r"Would install .*\bflask-3\.0\.\d+ ", pip, re.I)


def test_a_lock_of_a_script_is_used_by_name(daemon, two, workdir):
    write(workdir, {"s.py": "# /// script\n# dependencies = ['beta', 'alpha<2']\n# ///\n"})
    out = daemon.cli("lock", "--index-url", two.url, "s.py", cwd=workdir)
    assert out.stderr.endswith("wrote pylock.s.toml\n")
    two.files.clear()
    out = run(daemon, two, workdir, "--with-requirements", "pylock.s.toml", "-c", SAY)
    assert out.returncode == 0 or "404" in out.stderr, out.stderr
    out = daemon.cli("lock", "--index-url", two.url, "--with", "beta", "-o", "-", cwd=workdir)
    assert out.returncode == 3 and out.stdout == "", "an index without beta"


def test_a_lock_that_cannot_be_made_leaves_the_old_one(daemon, two, workdir):
    write(workdir, {"app/requirements.txt": "gamma\n", "app/pylock.toml": "old"})
    out = daemon.cli("lock", "--index-url", two.url, "app", cwd=workdir)
    assert out.returncode == 3 and "no package called 'gamma'" in out.stderr
    assert os.listdir(os.path.join(workdir, "app")) in (["requirements.txt", "pylock.toml"],
                                                        ["pylock.toml", "requirements.txt"])
    with open(os.path.join(workdir, "app/pylock.toml")) as f:
        assert f.read() == "old"
    out = daemon.cli("lock", "nowhere", cwd=workdir)
    assert out.returncode == 2 and "No such file" in out.stderr


def test_a_lock_of_uv_is_run_and_deployed(daemon, workdir):
    write(workdir, {"app/pyproject.toml": '[project]\nname = "app"\nversion = "1"\nrequires-python = ">=3.9"\n'
                    'dependencies = ["requests<2.32", "tomli; python_version < \'3.11\'"]\n'
                    '[dependency-groups]\ndev = ["six"]\n',
                    "app/__main__.py": "import requests, six; print(requests.__version__)",
                    "app/handler.py": "import requests\ndef handler(e): return requests.__version__\n"})
    app = os.path.join(workdir, "app")
    tell([uv(), "export", "-q", "--format", "pylock.toml", "-o", "pylock.toml", "--python", "/usr/bin/python3"], app)
    out = daemon.cli("run", "app", cwd=workdir)
    assert out.stdout == "2.31.0\n", out.stderr
    out = daemon.cli("deploy", "app", "--name", "uv-app", cwd=workdir)
    assert out.returncode == 0 and "requests 2.31.0" in out.stdout and "tomli" not in out.stdout, out.stderr
    assert daemon.call("uv-app").json == "2.31.0"
    os.remove(os.path.join(app, "pylock.toml"))
    out = daemon.cli("run", "app", cwd=workdir)
    assert out.returncode == 2 and "uv.lock is not read" in out.stderr
    tell([uv(), "pip", "compile", "-q", "--format", "pylock.toml", "--python", "/usr/bin/python3", "--group", "dev",
          "pyproject.toml", "-o", "pylock.pipsqueak.toml"], app)
    assert daemon.cli("run", "app", cwd=workdir).stdout == "2.31.0\n"


# --- pip as the oracle -----------------------------------------------------------------------------


@pytest.mark.parametrize("kind, lines", oracle.some_sets(), ids=lambda x: x.replace("\n", ","))
def test_same_as_pip(kind, lines, tmp_path):
    oracle.check(lines, tmp_path)
