# SPDX-License-Identifier: Apache-2.0
"""The resolver: pip's semantics, every form of input, and a sentence for everything that fails."""

import hashlib

import pytest

USAGE, NOT_FOUND, CONFLICT = 2, 3, 4


def test_newest_final_version_by_value_not_text(index, tool):
    for version in ("1.9", "1.10", "1.2", "2.0rc1", "2.0.dev3", "1.10.post1"):
        index.add("alpha", version)
    assert tool("alpha").versions == {"alpha": "1.10.post1"}


def test_prerelease_when_asked_for_or_nothing_else(index, tool):
    index.add("alpha", "1.0")
    index.add("alpha", "2.0rc1")
    index.add("beta", "1.0b2")
    assert tool("alpha", "beta").versions == {"alpha": "1.0", "beta": "1.0b2"}
    assert tool("alpha>=2.0rc1").versions == {"alpha": "2.0rc1"}


def test_yanked_only_when_pinned(index, tool):
    index.add("alpha", "1.0")
    index.add("alpha", "2.0", yanked=True)
    assert tool("alpha").versions == {"alpha": "1.0"}
    assert tool("alpha==2.0").versions == {"alpha": "2.0"}
    assert tool("alpha==2.*").status == NOT_FOUND


def test_requires_python_of_the_target(index, tool):
    index.add("alpha", "1.0", python=">=3.8")
    index.add("alpha", "2.0", python=">=3.12")
    assert tool("alpha").versions == {"alpha": "1.0"}
    tool.info.update(version="3.12.1", version_info=[3, 12, 1], cache_tag="cpython-312")
    answer = tool("alpha")
    assert answer.versions == {"alpha": "2.0"}
    assert answer.lock["python_tag"] == "cpython-312"


def test_requires_python_said_only_by_metadata(index, tool):
    old = index.add("alpha", "1.0")
    new = index.add("alpha", "2.0", python=">=3.99")
    new.python = None
    assert old.python is None
    assert tool("alpha").versions == {"alpha": "1.0"}
    answer = tool("alpha==2.0")
    assert answer.status == CONFLICT and "wants Python >=3.99" in answer.text


def test_best_tag_wins(index, tool):
    for tags in ("py3-none-any", "cp311-abi3-manylinux_2_17_x86_64", "cp311-cp311-win_amd64"):
        index.add("alpha", "1.0", tags)
    best = index.add("alpha", "1.0", "cp311-cp311-manylinux_2_17_x86_64.manylinux2014_x86_64")
    tool.info["markers"]["platform_machine"] = "x86_64"
    answer = tool("alpha")
    if "x86_64" in tool.info["platform"]:
        assert answer.lock["dists"][0]["filename"] == best.filename


def test_free_threaded_takes_neither_abi3_nor_gil_wheels(index, tool):
    machine = tool.info["markers"]["platform_machine"]
    plat = f"manylinux_2_17_{machine}"
    index.add("alpha", "1.0", f"cp313-abi3-{plat}")
    index.add("alpha", "1.0", f"cp313-cp313-{plat}")
    tool.info.update(version="3.13.0", version_info=[3, 13, 0], free_threaded=True)
    answer = tool("alpha")
    assert answer.status == NOT_FOUND and "free-threaded" in answer.text
    index.add("beta", "1.0", f"cp313-cp313t-{plat}")
    assert tool("beta").versions == {"beta": "1.0"}


def test_build_number_breaks_the_tie(index, tool):
    index.add("alpha", "1.0")
    second = index.add("alpha", "1.0", "2-py3-none-any")
    index.add("alpha", "1.0", "10-py3-none-any")
    answer = tool("alpha")
    assert answer.lock["dists"][0]["filename"] == "alpha-1.0-10-py3-none-any.whl"
    assert second.filename == "alpha-1.0-2-py3-none-any.whl"


def test_extras_and_markers(index, tool):
    index.add(
        "alpha",
        requires=[
            "beta; extra == 'More_Things'",
            "gamma; python_version < '3'",
            "delta; sys_platform == 'linux' and extra == \"other\"",
            "epsilon; (extra == 'x' or python_version >= '3')",
        ],
        extras=["More_Things", "other"],
    )
    for name in ("beta", "gamma", "delta", "epsilon"):
        index.add(name)
    assert set(tool("alpha").versions) == {"alpha", "epsilon"}
    assert set(tool("alpha[more-things]").versions) == {"alpha", "beta", "epsilon"}
    assert set(tool("alpha[other]", "Alpha").versions) == {"alpha", "delta", "epsilon"}


def test_backtracks(index, tool):
    index.add("alpha", "2.0", requires=["beta<2"])
    index.add("alpha", "1.0", requires=["beta"])
    index.add("beta", "1.0")
    index.add("beta", "2.0")
    assert tool("alpha", "beta>=2").versions == {"alpha": "1.0", "beta": "2.0"}


def test_conflict_says_who_wants_what(index, tool):
    index.add("alpha", "1.0", requires=["beta<2"])
    index.add("beta", "1.0")
    index.add("beta", "2.0")
    answer = tool("alpha", "beta>=2")
    assert answer.status == CONFLICT
    assert "you ask for beta>=2" in answer.text and "alpha 1.0 wants beta<2" in answer.text


def test_no_wheel_for_this_machine_names_the_tags(index, tool):
    index.add("alpha", "1.0", "cp27-cp27m-win32")
    answer = tool("alpha")
    assert answer.status == NOT_FOUND
    assert "CPython 3.11" in answer.text and "cp27-cp27m-win32" in answer.text


def test_source_only(index, tool):
    index.add("alpha").filename = "alpha-1.0.tar.gz"
    answer = tool("alpha")
    assert answer.status == NOT_FOUND
    assert "is there only as source: --allow-sdist builds" in answer.text


def test_version_that_is_not_there_names_the_newest(index, tool):
    index.add("alpha", "1.5")
    answer = tool("alpha>=2")
    assert answer.status == NOT_FOUND
    assert "no version of 'alpha' satisfies 'alpha>=2'; the newest is 1.5" in answer.text


def test_wheels_for_other_pythons_only(index, tool):
    index.add("alpha", "1.5", python=">=3.99")
    answer = tool("alpha")
    assert answer.status == NOT_FOUND and "another Python version" in answer.text


@pytest.mark.parametrize(
    "line, word",
    [
        ("alpha==>", "not a requirement"),
        ("git+https://example.org/x", "fetched by version control; build a wheel"),
        ("alpha @ git+https://example.org/x@main", "fetched by version control; build a wheel"),
        ("alpha @ https://example.org/alpha-1.0.tar.gz", "is source"),
        ("./sub/alpha", "is a directory; build a wheel"),
        ("alpha @ ftp://example.org/alpha-1.0-py3-none-any.whl", "only http, https and file"),
        ("https://example.org/alpha.whl", "is not a wheel's file name"),
        ("alpha; nonsense == '1'", "not a requirement"),
    ],
)
def test_malformed_requirements(tool, line, word):
    answer = tool(line)
    assert answer.status == USAGE and word in answer.text
    assert "me:pw" not in answer.text


def test_requirements_txt(index, tool):
    index.add("alpha", "1.0")
    index.add("alpha", "2.0")
    index.add("beta")
    index.add("gamma")
    text = """
# a comment
alpha < \\
    2   # the old one
beta ; python_version >= "3"
gamma; python_version < "3"
--only-binary :all:
"""
    assert tool(requirements=text).versions == {"alpha": "1.0", "beta": "1.0"}


@pytest.mark.parametrize(
    "line, word",
    [
        ("-r other.txt", "'other.txt', which is not there"),
        ("-c https://example.org/c.txt", "read from files only"),
        ("-e .", "installs source in place; build a wheel"),
        ("--no-such-option x", "'--no-such-option' is not an option"),
        ("alpha --hash=md5:1", "is not a hash"),
        ("alpha --hash=sha512:1", "add --hash=sha256"),
        ("--index-url", "needs a value"),
        ("alpha --find-links x", "only --hash=sha256"),
    ],
)
def test_requirements_txt_options_that_are_refused(tool, line, word):
    answer = tool(requirements=f"{line}\n")
    assert answer.status == USAGE and word in answer.text


def test_requirements_txt_names_its_index(index, tool):
    index.add("alpha")
    good = tool.settings["index_url"]
    tool.settings["index_url"] = "http://127.0.0.1:1/simple"
    assert tool(requirements=f"--index-url {good}\nalpha\n").versions == {"alpha": "1.0"}
    tool.settings["index_url"] = f"http://{index.host}/empty"
    assert tool(requirements=f"--extra-index-url={good}\nalpha\n").versions == {"alpha": "1.0"}


def test_requirements_txt_hashes(index, tool):
    file = index.add("alpha", requires=["beta"])
    beta = index.add("beta")
    one, two = (hashlib.sha256(f.data).hexdigest() for f in (file, beta))
    lines = f"alpha==1.0 --hash=sha256:{'0' * 64} \\\n  --hash=sha256:{one}\n"
    answer = tool(requirements=lines)
    assert answer.status == USAGE and "beta 1.0, which is needed too, has none" in answer.text
    assert tool(requirements=f"{lines}beta --hash=sha256:{two}\n").status == 0
    answer = tool(requirements=f"{lines}beta --hash=sha256:{one}\n")
    assert answer.status == CONFLICT and "has a hash" in answer.text


def test_pep723(index, tool):
    index.add("alpha")
    assert tool(pep723='dependencies = ["alpha"]').versions == {"alpha": "1.0"}
    answer = tool(pep723='requires-python = ">=3.99"\ndependencies = ["alpha"]')
    assert answer.status == CONFLICT and "choose another interpreter" in answer.text
    assert tool(pep723="dependencies = [").status == USAGE
    assert tool(pep723="dependencies = 'alpha'").status == USAGE


def test_pyproject(index, tool):
    index.add("alpha")
    text = '[project]\nname = "x"\ndependencies = ["alpha"]\n[tool.other]\ny = 1\n'
    assert tool(pyproject=text).versions == {"alpha": "1.0"}
    assert tool(pyproject="[tool.x]\n").versions == {}
    answer = tool(pyproject='[project]\ndynamic = ["dependencies"]\n')
    assert answer.status == USAGE and "dynamic" in answer.text


def test_pylock_asks_no_index(index, tool):
    file = index.add("alpha", padding=200_000)
    sha256 = hashlib.sha256(file.data).hexdigest()
    text = f"""
lock-version = "1.0"
[[packages]]
name = "alpha"
version = "1.0"
[[packages.wheels]]
name = "alpha-1.0-cp27-none-any.whl"
url = "http://{index.host}/files/alpha-1.0-cp27-none-any.whl"
hashes = {{sha256 = "{"0" * 64}"}}
[[packages.wheels]]
url = "http://{index.host}/files/{file.filename}"
hashes = {{sha256 = "{sha256}"}}
[[packages]]
name = "windows-only"
marker = "sys_platform == 'win32'"
"""
    answer = tool(pylock=text)
    assert answer.versions == {"alpha": "1.0"}
    assert index.asked == []
    assert tool("--fetch", pylock=text).status == 0
    answer = tool(pylock=text.replace("py3-none-any", "cp27-none-any"))
    assert answer.status == NOT_FOUND and "lock again" in answer.text


def test_direct_url(index, tool):
    file = index.add("alpha", "1.0+local", extras=["x"], requires=["beta; extra == 'x'"])
    index.add("beta", requires=["alpha"])
    index.add("alpha", "9.0")
    url = f"http://{index.host}/files/{file.filename}"
    answer = tool("--fetch", f"alpha[x] @ {url}")
    assert answer.versions == {"alpha": "1.0+local", "beta": "1.0"}
    sha256 = hashlib.sha256(file.data).hexdigest()
    assert answer.lock["dists"][0]["sha256"] == sha256
    assert tool(f"alpha @ {url}#sha256={sha256}").status == 0
    assert tool(f"alpha @ {url}#sha256={'0' * 64}").status != 0
    answer = tool(f"alpha @ http://{index.host}/files/alpha-1.0.tar.gz")
    assert answer.status == USAGE


def test_nothing_asked_for(tool):
    assert tool().versions == {}


def test_metadata_that_is_malformed(index, tool):
    index.add("alpha", requires=["beta=!3"])
    answer = tool("alpha")
    assert answer.status == USAGE and "the metadata of alpha 1.0" in answer.text
