# SPDX-License-Identifier: Apache-2.0
"""What build_sdist.py reads of an sdist, and what the resolver makes of names and formats. The whole way, with real
archives and builds, is in tests/e2e/test_sdist.py."""

import json
import sys

import pytest
from conftest import ROOT, Tool, python_info

sys.path[:0] = [str(ROOT / "python"), str(ROOT / "tests/unit_py/standin")]

import build_sdist  # noqa: E402
from resolver_files import Asked, Options, split_sdist  # noqa: E402
from resolver_input import Python  # noqa: E402


@pytest.mark.parametrize(
    "headers, known",
    [
        ("Metadata-Version: 2.1\nName: a\nVersion: 1", False),
        ("Metadata-Version: 2.2\nName: a\nVersion: 1", True),
        ("Metadata-Version: 2.2\nName: a\nVersion: 1\nDynamic: Description\nDynamic: License", True),
        ("Metadata-Version: 2.2\nName: a\nVersion: 1\nDynamic: requires-DIST", False),
        ("Metadata-Version: 2.3\nName: a\nVersion: 1\nDynamic: Requires-Python", False),
        ("Metadata-Version: 2.10\nName: a\nVersion: 1\nDynamic: Provides-Extra", False),
        ("Metadata-Version: new\nName: a\nVersion: 1", False),
        ("Metadata-Version: 2.2\nName: a", False),
        ("", False),
    ],
)
def test_static_metadata(tmp_path, headers, known):
    (tmp_path / "PKG-INFO").write_text(headers + "\n\nMetadata-Version: 9\n")
    assert (build_sdist.static_metadata(str(tmp_path)) is not None) == known


def test_static_metadata_is_what_matters(tmp_path):
    lines = "Metadata-Version: 2.4\nName: a\nVersion: 1\nSummary: s\nRequires-Dist: b>1;\n  python_version>'3'\n"
    (tmp_path / "PKG-INFO").write_text(lines + "Requires-Dist: c\nProvides-Extra: x\nRequires-Python: >=3.8\n\nText\n")
    assert build_sdist.static_metadata(str(tmp_path)).splitlines() == [
        "Name: a",
        "Version: 1",
        "Requires-Python: >=3.8",
        "Requires-Dist: b>1; python_version>'3'",
        "Requires-Dist: c",
        "Provides-Extra: x",
    ]


LEGACY = {"requires": build_sdist.LEGACY_REQUIRES, "backend": build_sdist.LEGACY, "path": []}
PLANS = [
    (None, LEGACY),
    ("[project]\nname = 'x'", LEGACY),
    ("[build-system]\nrequires = ['setuptools<60']", {**LEGACY, "requires": ["setuptools<60"]}),
    ("[build-system]\nrequires = ['cython']", {**LEGACY, "requires": ["cython", *build_sdist.LEGACY_REQUIRES]}),
    (
        "[build-system]\nrequires = ['f']\nbuild-backend = 'f.a:b.c'\nbackend-path = ['.']",
        {"requires": ["f"], "backend": "f.a:b.c", "path": ["."]},
    ),
]


@pytest.mark.parametrize("text, plan", PLANS)
def test_plans(tmp_path, text, plan):
    (tmp_path / "setup.py").write_text("")
    if text is not None:
        (tmp_path / "pyproject.toml").write_text(text)
    assert build_sdist.read_plan(str(tmp_path)) == plan


@pytest.mark.parametrize("text", ["[build-system]\nx = 1", "build-system = 5", "[build-system]\nrequires = [1]",
                                  "[build-system]\nrequires = []\nbuild-backend = []",
                                  "[build-system]\nrequires = []\nbackend-path = 'x'", "x ="])
def test_plans_that_are_none(tmp_path, text):
    (tmp_path / "pyproject.toml").write_text(text)
    with pytest.raises(build_sdist.Failed, match="pyproject.toml"):
        build_sdist.read_plan(str(tmp_path))


def test_sdist_names():
    assert split_sdist("Foo_Bar-1.0.tar.gz") == ("foo-bar", "1.0")
    assert split_sdist("foo-bar-1.0rc1.zip") == ("foo-bar", "1.0rc1")
    assert split_sdist("v1.tar.gz") == ("", "")
    assert split_sdist("main.zip") == ("", "")
    assert split_sdist("foo-1.0-py3-none-any.whl") is None
    assert split_sdist("foo-1.0.exe") is None


@pytest.mark.parametrize(
    "lines, formats",
    [
        ([], (True, True)),
        (["--no-binary a"], (False, True)),
        (["--only-binary a"], (True, False)),
        (["--no-binary :all:"], (False, True)),
        (["--no-binary :all:", "--only-binary a"], (True, False)),
        (["--only-binary :all:", "--no-binary a"], (False, True)),
        (["--no-binary a", "--only-binary :all:"], (True, False)),
        (["--no-binary a", "--no-binary :none:"], (True, True)),
        (["--no-binary b,a", "--only-binary a"], (True, False)),
    ],
)
def test_formats(lines, formats):
    """As pip's FormatControl has them."""
    for allow in (True, False):
        asked = Asked({"allow_sdist": allow}, Python(python_info()))
        for line in lines:
            Options(asked, "r.txt", False, 0).line(line)
        assert asked.formats("a") == (formats[0], formats[1] and allow)


def test_without_a_sandbox_nothing_is_built(index, tool: Tool):
    index.add("alpha").filename = "alpha-1.0.tar.gz"
    answer = tool("alpha", inputs=json.dumps({"allow_sdist": True}))
    assert answer.status == 2 and "cannot be built here" in answer.text
