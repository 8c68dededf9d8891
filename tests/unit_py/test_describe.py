# SPDX-License-Identifier: Apache-2.0
"""pyinfo.py and pipconf.py: what they print is what the interpreter and pip say."""

import glob
import json
import os
import subprocess

import pytest
from conftest import ROOT

PYTHONS = sorted(
    {
        os.path.realpath(path)
        for pattern in ("/usr/bin/python3", "/usr/bin/python3.?", "/usr/bin/python3.??")
        for path in glob.glob(pattern)
    }
)


def pipconf(tmp_path, config="", **env):
    """In an environment of its own: nothing of the machine's but its site configuration."""
    (tmp_path / "pip.conf").write_text(config)
    env = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), **env}
    env.setdefault("PIP_CONFIG_FILE", str(tmp_path / "pip.conf"))
    out = subprocess.run(
        ["/usr/bin/python3", ROOT / "python/pipconf.py"],
        env=env,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(out.stdout)


@pytest.mark.parametrize("python", PYTHONS)
def test_pyinfo_markers_are_those_of_packaging(python):
    out = subprocess.run([python, ROOT / "python/pyinfo.py"], capture_output=True, check=True)
    info = json.loads(out.stdout)
    code = "import json; from packaging.markers import *; print(json.dumps(default_environment()))"
    theirs = subprocess.run(["/usr/bin/python3", "-c", code], capture_output=True, check=True)
    expected = json.loads(theirs.stdout)
    if python == os.path.realpath("/usr/bin/python3"):
        assert info["markers"] == expected
    assert set(info["markers"]) == set(expected)
    assert info["cache_tag"] == f"cpython-{info['version_info'][0]}{info['version_info'][1]}"


def test_resolver_tags_are_those_of_packaging():
    code = """
import json, sys
sys.path[:0] = sys.argv[1:]
from packaging.tags import sys_tags
from resolver_input import Python
ours = Python(json.loads(sys.stdin.read())).tags()
theirs = [str(tag) for tag in sys_tags()]
assert ours == theirs, [x for x in zip(ours, theirs) if x[0] != x[1]][:5]
"""
    info = subprocess.run(
        ["/usr/bin/python3", ROOT / "python/pyinfo.py"], capture_output=True, check=True
    )
    argv = ["/usr/bin/python3", "-c", code, str(ROOT / "python")]
    subprocess.run(argv, input=info.stdout, check=True)


def test_pip_default_index_is_an_url(tmp_path):
    found = pipconf(tmp_path, PIP_CONFIG_FILE="/dev/null")
    assert found["index_url"].startswith("https://")
    assert found["timeout"] == 15


def test_pip_configuration_file(tmp_path):
    found = pipconf(
        tmp_path,
        "[global]\nindex-url = https://i.example/simple\ntimeout = 7\n"
        "[install]\nfind-links = ./wheels\n  https://l.example/\n"
        "extra-index-url = https://e.example/one\n https://e.example/two\n"
        "trusted-host = t.example\n",
    )
    assert found["index_url"] == "https://i.example/simple"
    assert found["extra_index_urls"] == ["https://e.example/one", "https://e.example/two"]
    assert found["find_links"] == [str(tmp_path / "wheels"), "https://l.example/"]
    assert found["trusted_hosts"] == ["t.example"]
    assert found["timeout"] == 7
    assert str(tmp_path / "pip.conf") in found["files"]


def test_environment_wins_over_file(tmp_path):
    config = "[global]\nindex-url = https://i.example/simple\n"
    found = pipconf(tmp_path, config, PIP_INDEX_URL="https://v.example/s", PIP_CERT="/c.pem")
    assert found["index_url"] == "https://v.example/s"
    assert found["cert"] == "/c.pem"
    assert pipconf(tmp_path, config, PIP_NO_INDEX="1")["index_url"] is None
    assert pipconf(tmp_path, config, REQUESTS_CA_BUNDLE="/r.pem")["cert"] is not None


def test_netrc(tmp_path):
    (tmp_path / ".netrc").write_text("machine i.example login me password secret\n")
    (tmp_path / ".netrc").chmod(0o600)
    found = pipconf(tmp_path, PIP_INDEX_URL="https://i.example/simple")
    expected = {"origin": "https://i.example", "user": "me", "password": "secret"}
    assert found["auth"] == [expected]
