# SPDX-License-Identifier: Apache-2.0
"""A resolver that was taken over: the daemon's side believes nothing that it did not give."""

import hashlib
import time

import pytest
from conftest import ROOT, File, Tool

CORRUPT, DIED, SYSTEM = 8, 12, 11

HEAD = """
import json, os, struct
import _pipsqueak as p
NEED, RESULT, GIVE = p.NEED, p.RESULT, p.GIVE
def need(fd, number, **f):
    p.send(fd, NEED, number, {getattr(p, "T_" + k): v for k, v in f.items()})
def page(fd, name):
    need(fd, 0, KIND="tags", TEXT=["py3-none-any"])
    need(fd, 1, KIND="page", TEXT=[name])
    return p.recv(fd)[2][p.T_BODY].decode().split("\\n")[0].split("\\t")
def result(fd, **dist):
    lock = {"python_tag": dist.pop("tag", "cpython-311"), "dists": [dist] if dist else []}
    p.send(fd, RESULT, 0, {p.T_BODY: json.dumps(lock)})
def main(fd):
    p.recv(fd)
"""


@pytest.fixture
def lying(tmp_path, index):
    class Lying(Tool):
        def __call__(self, *args, body="", **texts):
            lies = tmp_path / "lies"
            lies.mkdir(exist_ok=True)
            (lies / "resolver.py").write_text(HEAD + body)
            self.resolver = f"{lies}:{ROOT / 'tests/unit_py/standin'}"
            return super().__call__(*args, **texts)

    return Lying(tmp_path, index)


def test_honest_double_is_believed(index, lying):
    file = index.add("alpha")
    answer = lying(
        body="""
    _, _, _, filename, url, sha256, size, *_ = page(fd, "alpha")
    result(fd, name="alpha", version="1.0", filename=filename, url=url, sha256=sha256,
           size=int(size))
"""
    )
    assert answer.lock["dists"][0]["sha256"] == hashlib.sha256(file.data).hexdigest()


LIES = {
    "a list that is not ended": """
    need(fd, 0, KIND="tags", TEXT=["py3-none-any"])
    need(fd, 1, KIND="page", TEXT="alpha")
""",
    "another sha256": """
    _, _, _, filename, url, sha256, *_ = page(fd, "alpha")
    result(fd, name="alpha", version="1.0", filename=filename, url=url, sha256="0"*64, size=5)
""",
    "another url": """
    _, _, _, filename, url, sha256, *_ = page(fd, "alpha")
    result(fd, name="alpha", version="1.0", filename=filename, url=url + "x", sha256=sha256,
           size=5)
""",
    "another file name": """
    _, _, _, filename, url, sha256, *_ = page(fd, "alpha")
    result(fd, name="alpha", version="2.0", filename="alpha-2.0-py3-none-any.whl", url=url,
           sha256=sha256, size=5)
""",
    "a dist that no page was given of": """
    result(fd, name="beta", version="1.0", filename="beta-1.0-py3-none-any.whl",
           url="http://127.0.0.1:1/beta", sha256="0"*64, size=5)
""",
    "another interpreter": """
    result(fd, tag="cpython-27")
""",
    "no lock": """
    p.send(fd, RESULT, 0, {p.T_BODY: "[]"})
""",
    "metadata of a foreign url": """
    page(fd, "alpha")
    need(fd, 2, KIND="metadata", TEXT=["alpha", "http://127.0.0.1:1/secret"])
    p.recv(fd)
""",
    "metadata of a file": """
    page(fd, "alpha")
    need(fd, 2, KIND="metadata", TEXT=["alpha", "file:///etc/passwd"])
    p.recv(fd)
""",
    "an index of its own": """
    need(fd, 0, KIND="index", URL="http://127.0.0.1:1/", MODE="first")
    p.recv(fd)
""",
    "a name that is a path": """
    need(fd, 0, KIND="page", TEXT=["../../etc"])
    p.recv(fd)
""",
    "an unknown wish": """
    need(fd, 0, KIND="shell", NAME="alpha")
    p.recv(fd)
""",
    "a message of another role": """
    p.send(fd, p.FORK, 0, {})
    p.recv(fd)
""",
    "a broken frame": """
    os.write(fd, struct.pack("<HHII", NEED, 7, 0, 0))
    p.recv(fd)
""",
    "a field that is not whole": """
    os.write(fd, struct.pack("<HHII", NEED, 0, 0, 4) + b"abcd")
    p.recv(fd)
""",
    "a frame without end": """
    os.write(fd, struct.pack("<HHII", NEED, 0, 0, 0xffffffff))
    p.recv(fd)
""",
}


def cut_off(body):
    """The stream ends under the liar's hands."""
    lines = "\n".join("    " + line for line in body.strip("\n").split("\n"))
    return f"    try:\n{lines}\n    except (EOFError, BrokenPipeError, ConnectionResetError):\n        pass\n"


@pytest.mark.parametrize("lie", LIES)
def test_lie_ends_the_resolution(index, lying, lie):
    index.add("alpha")
    answer = lying(body=cut_off(LIES[lie]))
    assert answer.status == CORRUPT
    assert "the resolver broke its protocol" in answer.text


def test_resolver_that_dies(lying):
    assert lying(body="    os._exit(3)\n").status == DIED


@pytest.mark.parametrize("ms", [0, 1, 3, 10, 30, 100])
def test_close_in_the_middle(index, tool, ms):
    """Whatever is under way when the index is closed ends with an error and leaks nothing."""
    for i in range(6):
        index.add(f"dist-{i}", requires=[f"dist-{i + 1}"] if i < 5 else [], padding=300_000)
    index.routes["/simple/dist-5/"] = lambda h: time.sleep(0.5)
    answer = tool("--close", str(ms), "--fetch", "dist-0")
    assert answer.status == SYSTEM and "shutting down" in answer.text


@pytest.mark.parametrize("ms", [0, 5, 200])
def test_close_while_wheels_wait_for_their_turn(index, tool, ms):
    names = [f"dist-{i}" for i in range(20)]
    for name in names:
        index.add(name, padding=200_000)
    assert tool(*names).status == 0  # metadata is known from now on
    for files in index.files.values():
        index.routes[f"/files/{files[0].filename}"] = lambda h: time.sleep(1)
    answer = tool("--close", str(ms), "--at-lock", "--fetch", *names)
    assert answer.status == SYSTEM and answer.text.count("shutting down") == 20


def test_one_download_however_many_ask(index, tool):
    for i in range(12):
        index.add(f"dist-{i}", padding=200_000)
    answer = tool("--twice", "--fetch", *index.files)
    assert answer.status == 0
    for (file,) in index.files.values():
        assert len([r for r in index.downloads(file) if r is None]) == 1
    assert len(answer.lock["dists"]) == 12


SDIST_LIES = {
    "a build that nobody allowed": (False, """
    need(fd, 2, KIND="build", TEXT=["alpha", URL])
    p.recv(fd)
"""),
    "a build of a wheel": (True, """
    _, _, _, _, url, *_ = page(fd, "beta")
    need(fd, 2, KIND="build", TEXT=["beta", url])
    p.recv(fd)
"""),
    "a wheel that was not built": (True, """
    page(fd, "alpha")
    result(fd, name="alpha", version="1.0", filename="alpha-1.0-py3-none-any.whl", url=URL, sha256="0" * 64,
           size=0, sdist={"filename": "alpha-1.0.tar.gz", "sha256": SUM, "size": 4})
"""),
    "an sdist in a wheel's place": (True, """
    page(fd, "alpha")
    result(fd, name="alpha", version="1.0", filename="alpha-1.0.tar.gz", url=URL, sha256=SUM, size=4)
"""),
    "a wheel of an index as built": (True, """
    _, _, _, filename, url, sha256, *_ = page(fd, "beta")
    result(fd, name="beta", version="1.0", filename=filename, url=url, sha256=sha256, size=0,
           sdist={"filename": "beta-1.0.tar.gz", "sha256": SUM, "size": 4})
"""),
}


@pytest.mark.parametrize("what", SDIST_LIES)
def test_lies_about_sdists(index, lying, what):
    allowed, body = SDIST_LIES[what]
    index.files["alpha"] = [File("alpha-1.0.tar.gz", b"data")]
    index.add("beta")
    names = f"""
    URL = "http://{index.host}/files/alpha-1.0.tar.gz"
    SUM = "{hashlib.sha256(b"data").hexdigest()}"
"""
    answer = lying("alpha", body=cut_off(names + body), inputs='{"allow_sdist": %s}' % str(allowed).lower())
    assert answer.status == CORRUPT and "broke its protocol" in answer.text
