# SPDX-License-Identifier: Apache-2.0
"""pip as oracle: an environment of ours and what pip installs from the same wheels, file by file, and what
importlib.metadata says of both."""
import hashlib
import json
import os
import re
import subprocess

from conftest import pip_settings, zip_of

OURS = re.compile(r"\.dist-info/(RECORD|INSTALLER|REQUESTED|direct_url\.json)$|/__pycache__/|\.pyc$|^pip($|[-/])|^setuptools($|[-/])"
                  r"|^_distutils_hack/|^distutils-precedence\.pth$|^pkg_resources/")
ASK = """
import importlib.metadata as m, json, sys
out = {}
for d in m.distributions(path=[sys.argv[1]]):
    if d.metadata["Name"] in ("pip", "setuptools"):
        continue
    out[d.metadata["Name"]] = [d.version, sorted(d.requires or []), sorted(map(str, d.entry_points)),
                               sorted(map(list, d.metadata.items())), d.read_text("top_level.txt")]
print(json.dumps(out, sort_keys=True))
"""


def digest(path, script):
    if os.path.islink(path):
        return "link"
    with open(path, "rb") as f:
        data = f.read()
    if script and data.startswith(b"#!"):
        data = data.partition(b"\n")[2]
    return hashlib.sha256(data).hexdigest(), bool(os.stat(path).st_mode & 0o100)


def tree(top, script=False):
    found = {}
    for folder, _, names in os.walk(top):
        for name in names:
            path = os.path.join(folder, name)
            short = os.path.relpath(path, top)
            if not OURS.search(short):
                found[short] = digest(path, script)
    return found


def answers(site):
    return json.loads(subprocess.run(["/usr/bin/python3", "-I", "-c", ASK, site], check=True, capture_output=True,
                                     text=True).stdout)


def difference(ours, theirs):
    return {k: (ours.get(k), theirs.get(k)) for k in sorted(ours.keys() | theirs.keys()) if ours.get(k) != theirs.get(k)}


def find_env(store, versions):
    want = set(versions)
    for name in os.listdir(os.path.join(store, "envs")):
        env = os.path.join(store, "envs", name)
        site = os.path.join(env, "lib", "python3.11", "site-packages")
        infos = os.listdir(site) if os.path.isdir(site) else ()
        have = {re.sub(r"[-_.]+", "_", i[:-10].rpartition("-")[0]).lower() + " " + i[:-10].rpartition("-")[2]
                for i in infos if i.endswith(".dist-info")}
        if have == want:
            return env, site
    raise AssertionError("no environment of %s" % sorted(want))


def compare(daemon, workdir, requirements):
    name = "oracle-" + hashlib.sha256("".join(requirements).encode()).hexdigest()[:12]
    body = zip_of({"handler.py": "def handler(e): return 1\n", "requirements.txt": "\n".join(requirements) + "\n"})
    headers = [("Content-Type", "application/zip"), ("X-Pip-Settings", pip_settings())]
    reply = daemon.request("PUT", "/functions/" + name, body, headers, 600)
    assert reply.status == 200, reply.body
    dists = [d.split(" ") for d in reply.json["dists"]]
    env, site = find_env(daemon.store, [re.sub(r"[-_.]+", "_", n).lower() + " " + v for n, v in dists])
    venv = os.path.join(workdir, name)
    subprocess.run(["/usr/bin/python3", "-m", "venv", venv], check=True)
    subprocess.run([venv + "/bin/pip", "install", "-q", "--no-deps", "--no-compile", "--only-binary=:all:",
                    "--disable-pip-version-check", *("%s==%s" % (n, v) for n, v in dists)], check=True)
    theirs = os.path.join(venv, "lib", "python3.11", "site-packages")
    assert difference(tree(site), tree(theirs)) == {}
    assert difference(answers(site), answers(theirs)) == {}
    skip = re.compile(r"^(python|pip|activate|Activate|easy_install)")
    ours_bin = {k: v for k, v in tree(os.path.join(env, "bin"), True).items() if not skip.match(k)}
    theirs_bin = {k: v for k, v in tree(os.path.join(venv, "bin"), True).items() if not skip.match(k)}
    assert difference(ours_bin, theirs_bin) == {}
