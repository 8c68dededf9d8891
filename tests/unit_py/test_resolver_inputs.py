# SPDX-License-Identifier: Apache-2.0
"""Every form of input, and pip's rules for which release is taken."""

import hashlib
import io
import json
import zipfile

import pytest

USAGE, NOT_FOUND, CONFLICT, CORRUPT = 2, 3, 4, 8


def inputs(**keys) -> str:
    return json.dumps(keys)


def local(tmp_path, index, name, version="1.0", **options):
    file = index.add(name, version, **options)
    index.files[name].remove(file)
    path = tmp_path / file.filename
    path.write_bytes(file.data)
    return path


# --- which release -----------------------------------------------------------------------------


def test_a_yanked_final_still_keeps_prereleases_away(index, tool):
    index.add("alpha", "1.0", yanked=True)
    index.add("alpha", "2.0rc1")
    assert tool("alpha").status == NOT_FOUND


def test_yanked_only_when_nothing_else_satisfies_the_pin(index, tool):
    index.add("alpha", "1.0+b1", yanked=True)
    index.add("alpha", "1.0")
    assert tool("alpha==1.0").versions == {"alpha": "1.0"}


def test_a_release_with_malformed_metadata_is_passed_over(index, tool):
    index.add("alpha", "1.0")
    index.add("alpha", "2.0", requires=["beta>=1.0.*"])
    assert tool("alpha").versions == {"alpha": "1.0"}
    answer = tool("alpha==2.0")
    assert answer.status == USAGE and "the metadata of alpha 2.0" in answer.text


def test_metadata_of_another_dist_is_passed_over(index, tool):
    index.add("alpha", "1.0")
    file = index.add("alpha", "2.0")
    before, out = zipfile.ZipFile(io.BytesIO(file.data)), io.BytesIO()
    with zipfile.ZipFile(out, "w") as after:
        for name in before.namelist():
            after.writestr(name, before.read(name).replace(b"Name: alpha", b"Name: beta"))
    file.data = out.getvalue()
    assert tool("alpha").versions == {"alpha": "1.0"}


def test_hostile_versions_and_lines_end_soon(index, tool):
    index.add("alpha", "1.0", requires=["beta" + " " * 30000 + "!", "gamma>=" + "9" * 6000])
    index.add("alpha", "0.9", requires=["beta", "gamma; python_version < '" + "3" * 6000 + "'"])
    index.add("alpha", "0.8")
    index.add("alpha", "9" * 100)
    index.files["alpha"][-1].filename = "alpha-%s-py3-none-any.whl" % ("9" * 6000)
    index.add("beta", "1.0", "1" * 5000 + "-py3-none-any")
    assert tool("alpha").versions["alpha"] in ("0.9", "0.8")


def test_same_version_spelled_two_ways(index, tool):
    index.add("alpha", "1.0", "py3-none-any")
    index.add("alpha", "1.0.0", "cp311-none-any")
    assert tool("alpha").versions == {"alpha": "1.0.0"}


@pytest.mark.parametrize(
    "spec, want",
    [
        (">1.0", "1.1"), (">1.0.post1", "1.1"), ("<1.1", "1.0.post1"), ("~=1.0.0", "1.0.post1"),
        ("==1.0", "1.0"), ("==1.0.*", "1.0.post1"), ("!=1.1", "1.0.post1"), ("<=1.0", "1.0"),
        ("===1.0", "1.0"), (">=1.1a1", "1.2rc1"), ("<1.0", "0.9"), ("<1.0,!=0.9", None),
    ],
)  # fmt: skip
def test_specifiers(index, tool, spec, want):
    for version in ("0.9", "1.0rc1", "1.0", "1.0.post1", "1.1", "1.2rc1"):
        index.add("alpha", version)
    answer = tool("alpha" + spec)
    if want is None:
        assert "no version" in answer.text or answer.versions == {"alpha": "1.0rc1"}
    else:
        assert answer.versions == {"alpha": want}


def test_jumps_back_over_what_is_not_involved(index, tool):
    """Without backjumping these are 15 ** 5 steps."""
    for version in range(1, 16):
        index.add("alpha", f"{version}.0", requires=["zeta==1.0" if version == 1 else "zeta==2.0"])
        for name in ("beta", "gamma", "delta", "epsilon"):
            index.add(name, f"{version}.0")
    index.add("zeta", "1.0")
    index.add("zeta", "2.0")
    index.add("omega", "1.0", requires=["zeta<2"])
    names = ["alpha", "beta", "gamma", "delta", "epsilon", "omega"]
    assert tool(*names).versions["alpha"] == "1.0"


def test_r_every_jump_remembers_those_before(index, tool):
    """The front's newest two were tried in turn for ever."""
    for version in range(1, 8):
        index.add("front", f"{version}.0", requires=[f"middle=={version}.0"])
        index.add("middle", f"{version}.0", requires=[f"base>={version}.0"])
        index.add("base", f"{version}.0")
    answer = tool("base<2", "front")
    assert answer.versions == {"base": "1.0", "front": "1.0", "middle": "1.0"}


def test_conflict_names_versions(index, tool):
    index.add("alpha", "1.0", requires=["beta<2"])
    index.add("beta", "1.0")
    index.add("beta", "2.0")
    answer = tool("alpha", "beta>=2")
    assert answer.status == CONFLICT and "beta is there as 2.0, 1.0" in answer.text


def test_no_version_lists_what_there_is(index, tool):
    for version in ("1.5", "1.10"):
        index.add("alpha", version)
    answer = tool("alpha>=2")
    assert "the newest is 1.10 (there are 1.10, 1.5)" in answer.text


# --- requirements.txt --------------------------------------------------------------------------


def test_files_that_files_name(index, tool):
    index.add("alpha", "1.0")
    index.add("alpha", "2.0")
    index.add("beta", "1.0", requires=["alpha"])
    files = {"d/a.txt": "-c ../d/c.txt\nbeta # what\n", "d/../d/c.txt": "alpha<2\nunused==9\n"}
    answer = tool(inputs=inputs(requirements="-r d/a.txt\n", files=files))
    assert answer.versions == {"alpha": "1.0", "beta": "1.0"}


def test_a_constraint_conflict_says_so(index, tool):
    index.add("alpha", "2.0")
    text = inputs(requirements="alpha>=2\n-c c.txt", files={"c.txt": "alpha<2"})
    answer = tool(inputs=text)
    assert answer.status == CONFLICT and "a constraint says alpha<2" in answer.text


def test_files_in_a_circle_end(tool):
    text = inputs(requirements="-r a.txt", files={"a.txt": "-r a.txt"})
    answer = tool(inputs=text)
    assert answer.status == USAGE and "in a circle" in answer.text


def test_continued_lines_and_comments(index, tool):
    index.add("alpha", "1.0")
    index.add("beta")
    text = 'alpha \\\n  >=1, \\\n  <2 # as it was\n# a \\\nbeta ; \\\n python_version > "3" # x\n'
    assert tool(requirements=text).versions == {"alpha": "1.0", "beta": "1.0"}


def test_find_links_and_no_index(index, tool, tmp_path):
    made = index.add("alpha", "2.0")
    (tmp_path / "links").mkdir()
    (tmp_path / "links" / made.filename).write_bytes(made.data)
    index.files["alpha"].remove(made)
    index.add("alpha", "3.0")
    text = "--no-index\n--find-links ./links\nalpha\n"
    answer = tool(inputs=inputs(requirements=text, root=str(tmp_path)))
    assert answer.versions == {"alpha": "2.0"}
    assert index.asked == []


def test_pre_and_formats(index, tool):
    index.add("alpha", "1.0")
    index.add("alpha", "2.0rc1")
    index.add("beta", "1.0")
    index.add("beta", "2.0rc1")
    assert tool(requirements="--pre\nalpha\n").versions == {"alpha": "2.0rc1"}
    text = "--all-releases beta\nalpha\nbeta\n"
    assert tool(requirements=text).versions == {"alpha": "1.0", "beta": "2.0rc1"}
    answer = tool(requirements="--no-binary alpha\nalpha\n")
    assert answer.status == USAGE and "to be built from source" in answer.text
    assert tool(requirements="--no-binary :all:\n--only-binary alpha,:all:\nalpha\n").status == 0


def test_required_hashes(index, tool):
    file = index.add("alpha", "1.0")
    index.add("alpha", "2.0")
    sha256 = hashlib.sha256(file.data).hexdigest()
    answer = tool(requirements="--require-hashes\nalpha\n")
    assert answer.status == USAGE and "alpha 2.0, which is needed too, has none" in answer.text
    assert tool(requirements=f"alpha --hash=sha256:{sha256}\n").versions == {"alpha": "1.0"}


def test_hashes_of_all_or_none(index, tool):
    """As pip 26.3 has it: a pin is not asked for where there is a hash; one in a constraint, or in an URL, counts."""
    alpha, beta = index.add("alpha", "1.0", requires=["beta"]), index.add("beta", "1.0")
    one, two = (hashlib.sha256(f.data).hexdigest() for f in (alpha, beta))
    hashed, url = f"alpha --hash=sha256:{one}\n", f"http://{index.host}/files/{beta.filename}"
    answer = tool(requirements=hashed)
    assert answer.status == USAGE and f"add the line beta==1.0 --hash=sha256:{two}\n" in answer.text
    assert tool(requirements=f"{hashed}beta==1.0\n").status == USAGE
    assert tool(requirements=f"{hashed}beta>=1 --hash=sha256:{two}\n").status == 0
    assert tool(requirements=f"{hashed}beta @ {url}#sha256={two}\n").status == 0
    assert tool(requirements=f"{hashed}beta @ {url}\n").status == USAGE
    assert tool(requirements=f"--no-require-hashes\n{hashed}").versions == {"alpha": "1.0", "beta": "1.0"}
    assert tool(requirements=f"--no-require-hashes\nalpha --hash=sha256:{two}\n").status != 0, "it is checked all the same"
    assert tool(requirements=f"--no-require-hashes\n--require-hashes\n{hashed}").status == USAGE
    limits = {"c.txt": f"beta==1.0 --hash=sha256:{two}\n"}
    assert tool(inputs=inputs(files=limits), requirements="-c c.txt\nalpha\n").status == USAGE
    assert tool(inputs=inputs(files=limits), requirements=f"-c c.txt\n{hashed}").status == 0


def test_hashes_where_they_hardly_show(index, tool, tmp_path):
    """As pip 26.3: a line that its marker leaves out counts; a file's URL may have its sum, which is compared."""
    path = local(tmp_path, index, "gamma")
    sums = {n: hashlib.sha256(data).hexdigest() for n, data in (
        ("alpha", index.add("alpha").data), ("beta", index.add("beta").data), ("gamma", path.read_bytes()))}
    hashed = f"alpha --hash=sha256:{sums['alpha']}\n"
    answer = tool(requirements="beta\n" + hashed.replace("alpha", "alpha; python_version < '3'", 1))
    assert answer.status == USAGE and "beta" in answer.text
    url, key = f"gamma @ file://{path}", inputs(wheels={str(path): [str(path)]})

    def local_answer(text):
        return tool("--wheel", path, inputs=key, requirements=text)

    assert local_answer(f"{url}\n").versions == {"gamma": "1.0"}
    assert local_answer(f"{url}#sha256={sums['gamma']}\nbeta\n").versions == {"gamma": "1.0", "beta": "1.0"}
    assert local_answer(f"{hashed}{url}#sha256={sums['gamma']}\n").versions == {"alpha": "1.0", "gamma": "1.0"}
    assert local_answer(f"{hashed}{url}\n").status == USAGE
    answer = local_answer(f"{url}#sha256={sums['beta']}\n")
    assert answer.status == CORRUPT and sums["gamma"] in answer.text


# --- wheels ------------------------------------------------------------------------------------


def test_local_wheels(index, tool, tmp_path):
    path = local(tmp_path, index, "alpha", "3.0", requires=["beta; extra == 'x'"], extras=["x"])
    index.add("alpha", "9.0")
    index.add("beta")
    key = inputs(wheels={str(path): [str(path)], "./" + path.name: [str(path)]})
    for line in (f"./{path.name}[x]", f"alpha[x] @ file://{path}", f"{path}[x]"):
        answer = tool("--fetch", "--wheel", path, line, inputs=key)
        assert answer.versions == {"alpha": "3.0", "beta": "1.0"}, answer.text
        assert answer.lock["dists"][0]["url"] == f"file://{path}"
    answer = tool("--wheel", path, "beta @ ./" + path.name, inputs=key)
    assert answer.status == USAGE and "the wheel is one of alpha" in answer.text
    answer = tool("./other-1.0-py3-none-any.whl")
    assert answer.status == NOT_FOUND and "that can be read" in answer.text


def test_bare_url(index, tool):
    file = index.add("alpha", "1.0")
    assert tool(f"http://{index.host}/files/{file.filename}").versions == {"alpha": "1.0"}


# --- pyproject.toml ----------------------------------------------------------------------------

PROJECT = """
[project]
name = "My_Project"
dependencies = ["alpha"]
[project.optional-dependencies]
Some-Extra = ["beta", "my-project[other]"]
other = ["gamma"]
[dependency-groups]
Dev = ["delta", {include-group = "test"}]
test = ["epsilon"]
loop = [{include-group = "loop"}]
bad = [5]
"""


def test_extras_and_groups(index, tool):
    for name in ("alpha", "beta", "gamma", "delta", "epsilon"):
        index.add(name)
    assert set(tool(pyproject=PROJECT).versions) == {"alpha"}
    answer = tool(pyproject=PROJECT, inputs=inputs(extras=["some_extra"], groups=["dev"]))
    assert set(answer.versions) == {"alpha", "beta", "gamma", "delta", "epsilon"}


@pytest.mark.parametrize(
    "keys, word",
    [
        ({"groups": ["nope"]}, "no dependency group 'nope'; it has bad, dev, loop, test"),
        ({"extras": ["nope"]}, "no extra 'nope'; it has other, some-extra"),
        ({"groups": ["loop"]}, "includes itself"),
        ({"groups": ["bad"]}, "neither a requirement nor an include-group"),
        ({"uv_lock": True}, "uv.lock is not read"),
    ],
)
def test_extras_and_groups_that_are_refused(tool, keys, word):
    answer = tool(pyproject=PROJECT, inputs=inputs(**keys))
    assert answer.status in (USAGE, NOT_FOUND) and word in answer.text


@pytest.mark.parametrize(
    "text, word",
    [
        (PROJECT + '[tool.uv.sources]\nalpha = {git = "x"}\n', "which only uv reads; run 'uv export"),
        ('[tool.poetry.dependencies]\nalpha = "^1"\n', "poetry export"),
        ('[project]\nname="x"\nrequires-python = ">=3.99"\n', "choose another interpreter"),
        ("[project", "is not valid TOML"),
        ('[project]\ndependencies = "alpha"\n', "must be a list of strings"),
    ],
)
def test_projects_that_are_refused(index, tool, text, word):
    index.add("alpha")
    answer = tool(pyproject=text)
    assert answer.status in (USAGE, CONFLICT) and word in answer.text


# --- pylock.toml -------------------------------------------------------------------------------


def package(index, file, name, more="") -> str:
    sha256 = hashlib.sha256(file.data).hexdigest()
    return f"""
[[packages]]
name = "{name}"
version = "1.0"
{more}
wheels = [{{ url = "http://{index.host}/files/{file.filename}", hashes = {{ sha256 = "{sha256}" }} }}]
"""


def test_pylock_extras_and_groups(index, tool):
    text = 'lock-version = "1.0"\nextras = ["x"]\ndependency-groups = ["dev", "docs"]\n'
    text += 'default-groups = ["docs"]\n'
    for name, more in (
        ("alpha", ""),
        ("beta", "marker = \"'x' in extras and python_version > '3'\""),
        ("gamma", "marker = \"'dev' in dependency_groups or sys_platform == 'win32'\""),
        ("delta", "marker = \"'docs' in dependency_groups and 'x' not in extras\""),
    ):
        text += package(index, index.add(name), name, more)
    text += '[[packages]]\nname = "project"\ndirectory = { path = ".", editable = true }\n'
    assert set(tool(pylock=text).versions) == {"alpha", "delta"}
    answer = tool(pylock=text, inputs=inputs(extras=["x"], groups=["dev"]))
    assert set(answer.versions) == {"alpha", "beta", "gamma"}
    answer = tool(pylock=text, inputs=inputs(extras=["y"]))
    assert answer.status == NOT_FOUND and "its extras are x" in answer.text


def test_pylock_refusals(index, tool):
    head = 'lock-version = "1.0"\n'
    answer = tool(pylock=head + "environments = [\"sys_platform == 'win32'\"]\npackages = []\n")
    assert answer.status == CONFLICT and "none of its environments" in answer.text
    for key, word in (("vcs = { type = 'git' }", "version control"), ("sdist = {}", "source only")):
        answer = tool(pylock=f"{head}[[packages]]\nname = 'alpha'\n{key}\n")
        assert answer.status == NOT_FOUND and word in answer.text
    twice = package(index, index.add("alpha"), "alpha") * 2
    answer = tool(pylock=head + twice)
    assert answer.status == USAGE and "twice" in answer.text


def test_what_is_added_to_a_lock_goes_along_with_it(index, tool):
    locked = index.add("alpha", "1.0")
    index.add("alpha", "2.0")
    index.add("beta", "1.0", requires=["alpha"])
    text = 'lock-version = "1.0"\n' + package(index, locked, "alpha")
    assert tool("beta", pylock=text).versions == {"alpha": "1.0", "beta": "1.0"}
    assert tool("alpha>=2", pylock=text).status == CONFLICT


def test_pylock_with_a_wheel_by_path(index, tool, tmp_path):
    path = local(tmp_path, index, "alpha")
    lock = (
        'lock-version = "1.0"\n[[packages]]\nname = "alpha"\nversion = "1.0"\n'
        f'wheels = [{{ path = "w/{path.name}", hashes = {{ sha256 = "%s" }} }}]\n'
    )
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    key = inputs(pylock_name="d/pylock.toml", wheels={f"d/w/{path.name}": [str(path)]})
    assert tool("--wheel", path, pylock=lock % sha256, inputs=key).versions == {"alpha": "1.0"}
    answer = tool("--wheel", path, pylock=lock % ("0" * 64), inputs=key)
    assert answer.status == CORRUPT and "not 0000" in answer.text


# --- time, network -----------------------------------------------------------------------------


def test_exclude_newer(index, tool):
    index.add("alpha", "1.0").uploaded = "2020-01-01T10:00:00Z"
    index.add("alpha", "2.0").uploaded = "2024-06-01T00:00:00.123456Z"
    index.add("alpha", "3.0")
    for moment, want in (
        ("2020-01-01", "1.0"),  # the whole day
        ("2024-06-01T00:00:00Z", "1.0"),
        ("2024-06-01T00:00:01Z", "2.0"),
        ("1 day", "2.0"),
        ("P2W", "2.0"),
    ):
        answer = tool("alpha", inputs=inputs(exclude_newer=moment))
        assert answer.versions == {"alpha": want}, moment
    answer = tool("alpha", inputs=inputs(exclude_newer="2019-12-31"))
    assert answer.status == NOT_FOUND and "before --exclude-newer" in answer.text
    answer = tool("alpha", inputs=inputs(exclude_newer="soon"))
    assert answer.status == USAGE and "neither a date" in answer.text


def test_offline(index, tool):
    index.add("alpha", requires=["beta"])
    index.add("beta")
    answer = tool("--offline", "alpha")
    assert answer.status != 0 and "--offline" in answer.text
    assert index.asked == []
    assert tool("alpha").status == 0
    asked = len(index.asked)
    assert tool("--offline", "alpha").versions == {"alpha": "1.0", "beta": "1.0"}
    assert len(index.asked) == asked
