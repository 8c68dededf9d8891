# SPDX-License-Identifier: Apache-2.0
"""What is asked for: the target interpreter, and requirements in all the forms they come in.

Runs in: the resolver's process (see resolver.py). Everything here is text from the caller; what
cannot be understood ends the resolution with a sentence that says what to do.
"""

import itertools
import re
import tomllib

from packaging import tags as packaging_tags
from packaging.markers import InvalidMarker, Marker, UndefinedComparison
from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version


class Failure(Exception):
    """Ends the resolution: a kind of base/err.h and a sentence that says what to do."""

    def __init__(self, kind: str, text: str):
        super().__init__(text)
        self.kind = kind
        self.text = text


# --- the interpreter ---------------------------------------------------------------------------


class Python:
    """The target interpreter as pyinfo.py described it."""

    def __init__(self, info: dict):
        try:
            self.cache_tag = info["cache_tag"]
            self.full = Version(info["version"].rstrip("+"))
            self.major, self.minor = (int(part) for part in info["version_info"][:2])
            self.markers = {key: str(value) for key, value in info["markers"].items()}
            self.name = info["implementation"]["name"]
        except (KeyError, ValueError, TypeError, AttributeError) as error:
            raise Failure("usage", f"the interpreter is not well described: {error}") from None
        self.threaded = bool(info.get("free_threaded"))
        self.debug = bool(info.get("debug"))
        self.markers["extra"] = ""
        # "3.13.0+" (a build from a checkout) is no PEP 440 version
        full = self.markers.get("python_full_version", "")
        self.markers["python_full_version"] = full.rstrip("+")
        self._allows = {}
        if self.name != "cpython":
            raise Failure("usage", f"{self.name} is not supported; choose a CPython with --python")

    def describe(self) -> str:
        build = " (free-threaded)" if self.threaded else ""
        machine = self.markers.get("platform_machine", "")
        return f"CPython {self.major}.{self.minor}{build} on Linux {machine}"

    def allows(self, requires_python: str) -> bool:
        """Requires-Python; one that is malformed forbids nothing, as with pip."""
        known = self._allows.get(requires_python)
        if known is None:
            try:
                known = SpecifierSet(requires_python).contains(self.full, prereleases=True)
            except InvalidSpecifier:
                known = True
            self._allows[requires_python] = known
        return known

    def tags(self) -> list:
        """PEP 425 tags, best first, in the order of packaging.tags.sys_tags()."""
        platforms = list(packaging_tags.platform_tags())
        short = f"cp{self.major}{self.minor}"
        abi = short + ("t" if self.threaded else "") + ("d" if self.debug else "")
        pairs = [(short, abi)]
        if not self.threaded:
            pairs.append((short, "abi3"))
        pairs.append((short, "none"))
        if not self.threaded:
            pairs += [(f"cp{self.major}{minor}", "abi3") for minor in range(self.minor - 1, 1, -1)]
        generic = [f"py{self.major}{self.minor}", f"py{self.major}"]
        generic += [f"py{self.major}{minor}" for minor in range(self.minor - 1, -1, -1)]
        pairs += [(version, "none") for version in generic]
        found = [f"{python}-{abi}-{plat}" for python, abi in pairs for plat in platforms]
        found.append(f"{short}-none-any")
        found += [f"{version}-none-any" for version in generic]
        return found


# --- requirements ------------------------------------------------------------------------------


class Wanted:
    """One requirement of somebody, its marker already found true."""

    __slots__ = ("name", "extras", "spec", "url", "text", "exact", "_known")

    def __init__(self, name, extras=frozenset(), spec=None, url=None, text=None):
        self.name = name
        self.extras = extras
        self.spec = spec if spec is not None else SpecifierSet()
        self.url = url
        self.text = text or name
        self.exact = None  # the text of the one release that will do
        self._known = {}

    def allows(self, release) -> bool:
        if self.exact is not None:
            return release.text == self.exact
        known = self._known.get(release.text)
        if known is None:
            known = not self.spec or self.spec.contains(release.version, prereleases=True)
            self._known[release.text] = known
        return known

    def is_pinned(self) -> bool:
        """By == or ===, not by ==1.*: then a yanked release may be taken."""
        return self.exact is not None or any(
            one.operator == "===" or (one.operator == "==" and not one.version.endswith(".*"))
            for one in self.spec
        )


def parse_requirement(text: str, where: str) -> Requirement:
    try:
        return Requirement(text)
    except (InvalidRequirement, InvalidSpecifier, InvalidVersion) as error:
        reason = str(error).split("\n")[0]
        raise Failure("usage", f"{where}: '{text}' is not a requirement: {reason}") from None


def marker_holds(marker, python: Python, extras) -> bool:
    if marker is None:
        return True
    for extra in extras or ("",):
        try:
            if marker.evaluate(dict(python.markers, extra=extra)):
                return True
        except (InvalidVersion, UndefinedComparison):
            continue
    return False


def wanted_of(requirement: Requirement) -> Wanted:
    return Wanted(
        canonicalize_name(requirement.name),
        frozenset(canonicalize_name(extra) for extra in requirement.extras),
        requirement.specifier,
        requirement.url,
        str(requirement).split(";")[0].strip(),
    )


class Asked:
    """What the caller asks for, from all kinds of input."""

    def __init__(self):
        self.wanted = []
        self.hashes = {}  # name -> set of sha256; empty: hashes are not asked for
        self.indexes = []  # (mode, url)
        self.pre = False
        self.locked = None  # dists of a pylock.toml


def read_line(asked: Asked, text: str, python: Python, where: str):
    is_file = text.endswith((".whl", ".tar.gz")) and "@" not in text
    if is_file or text.startswith((".", "/", "file:")):
        raise Failure("usage", f"{where}: '{text}' is a path; give a package's name instead")
    if re.match(r"(git|hg|svn|bzr)\+|https?://", text):
        raise Failure("usage", f"{where}: write 'NAME @ URL' (of a wheel) instead of '{text}'")
    requirement = parse_requirement(text, where)
    if requirement.url and not requirement.url.startswith(("https://", "http://")):
        raise Failure("usage", f"{where}: '{text}': only http and https URLs of wheels can be used")
    if not marker_holds(requirement.marker, python, ()):
        return None
    wanted = wanted_of(requirement)
    asked.wanted.append(wanted)
    return wanted


HARMLESS = ("--only-binary", "--prefer-binary", "--require-hashes", "--no-cache-dir")


def read_option(asked: Asked, line: str):
    name, _, value = line.partition("=") if "=" in line.split()[0] else line.partition(" ")
    value = value.strip()
    if name in ("-i", "--index-url", "--pypi-url"):
        asked.indexes.append(("first", value))
    elif name == "--extra-index-url":
        asked.indexes.append(("extra", value))
    elif name == "--pre":
        asked.pre = True
    elif name not in HARMLESS:
        raise Failure(
            "usage",
            f"requirements.txt: '{name}' is not supported yet; "
            "write the requirements themselves into this file",
        )


def read_requirements(asked: Asked, text: str, python: Python):
    """requirements.txt: names, ranges, extras, markers, --hash, comments, continued lines."""
    joined = re.sub(r"\\\r?\n", " ", text)
    for line in joined.splitlines():
        line = re.sub(r"(^|\s+)#.*$", "", line).strip()
        if not line:
            continue
        if line.startswith("-"):
            read_option(asked, line)
            continue
        head, *options = re.split(r"\s+(?=--)", line)
        wanted = read_line(asked, head, python, "requirements.txt")
        for option in options:
            match = re.fullmatch(r"--hash[=\s]\s*sha256:([0-9a-fA-F]{64})", option.strip())
            if not match:
                raise Failure(
                    "usage",
                    f"requirements.txt: '{option.strip()}' is not supported: "
                    "only --hash=sha256:... may follow a requirement",
                )
            if wanted:
                asked.hashes.setdefault(wanted.name, set()).add(match[1].lower())


def read_toml(text: str, what: str) -> dict:
    try:
        return tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise Failure("usage", f"{what} is not valid TOML: {error}") from None


def check_python(requires, python: Python, what: str):
    if requires is None:
        return
    if not isinstance(requires, str):
        raise Failure("usage", f"{what}: requires-python must be a string")
    try:
        fits = SpecifierSet(requires).contains(python.full, prereleases=True)
    except InvalidSpecifier:
        raise Failure("usage", f"{what}: requires-python '{requires}' is malformed") from None
    if not fits:
        raise Failure(
            "conflict",
            f"{what} wants Python {requires}, but this is {python.full}; "
            "choose another interpreter with --python",
        )


def read_dependencies(asked: Asked, table: dict, python: Python, what: str):
    check_python(table.get("requires-python"), python, what)
    dependencies = table.get("dependencies", [])
    if not isinstance(dependencies, list) or not all(isinstance(d, str) for d in dependencies):
        raise Failure("usage", f"{what}: dependencies must be a list of strings")
    for line in dependencies:
        read_line(asked, line, python, what)


def read_pyproject(asked: Asked, text: str, python: Python):
    project = read_toml(text, "pyproject.toml").get("project", {})
    if not isinstance(project, dict):
        raise Failure("usage", "pyproject.toml: [project] must be a table")
    if "dependencies" in project.get("dynamic", []):
        raise Failure(
            "usage", "pyproject.toml: dependencies are dynamic; write them into [project]"
        )
    read_dependencies(asked, project, python, "pyproject.toml")


def split_wheel(filename: str):
    """(name, version, build, tags) of a wheel's file name; None when it is none."""
    parts = filename[:-4].split("-") if filename.endswith(".whl") else []
    if len(parts) not in (5, 6):
        return None
    build = parts[2] if len(parts) == 6 else ""
    match = re.match(r"(\d+)(.*)", build)
    order = (int(match[1]), match[2]) if match else (-1, "")
    return canonicalize_name(parts[0]), parts[1], order, parts[-3:]


def rank_of(parts, ranks: dict):
    """The best rank of compressed tags; None when none fits."""
    found = [
        ranks[tag]
        for tag in ("-".join(one) for one in itertools.product(*(p.split(".") for p in parts)))
        if tag in ranks
    ]
    return min(found, default=None)


def locked_dist(package: dict, ranks: dict, python: Python) -> dict:
    """One package of a pylock.toml: its best wheel."""
    name = canonicalize_name(str(package.get("name", "")))
    best = None
    for wheel in package.get("wheels", []):
        url = wheel.get("url")
        filename = wheel.get("name") or (url or wheel.get("path", "")).split("?")[0].split("/")[-1]
        filename = filename.replace("%2B", "+")
        split = split_wheel(filename)
        rank = rank_of(split[3], ranks) if split else None
        if rank is not None and (best is None or rank < best[0]):
            best = (rank, filename, url, wheel, split)
    if best is None:
        why = "wheels" if package.get("wheels") else "only sources"
        raise Failure(
            "not_found",
            f"pylock.toml has {why} of {name} but none that fits {python.describe()}; "
            "Pipsqueak installs only wheels: lock again for this interpreter",
        )
    _, filename, url, wheel, split = best
    sha256 = wheel.get("hashes", {}).get("sha256")
    if not url or not sha256:
        lacks = "sha256" if url else "URL"
        raise Failure("usage", f"pylock.toml: the wheel {filename} has no {lacks}; lock it again")
    return {
        "name": name,
        "version": split[1],
        "filename": filename,
        "url": url.split("#")[0],
        "sha256": sha256.lower(),
        "size": int(wheel.get("size", 0)),
    }


def read_pylock(asked: Asked, text: str, python: Python, ranks: dict):
    lock = read_toml(text, "pylock.toml")
    if not str(lock.get("lock-version", "")).startswith("1."):
        raise Failure("usage", "pylock.toml: lock-version is missing or not 1.x")
    check_python(lock.get("requires-python"), python, "pylock.toml")
    asked.locked = []
    try:
        for package in lock.get("packages", []):
            marker = package.get("marker")
            if marker and not marker_holds(Marker(marker), python, ()):
                continue
            if package.get("requires-python"):
                check_python(package["requires-python"], python, str(package.get("name")))
            asked.locked.append(locked_dist(package, ranks, python))
    except InvalidMarker as error:
        raise Failure("usage", f"pylock.toml: a marker is not supported: {error}") from None
    except (AttributeError, TypeError, ValueError) as error:
        raise Failure("usage", f"pylock.toml is malformed: {error}") from None


def read_request(request: dict, python: Python, ranks: dict) -> Asked:
    asked = Asked()
    for line in request.get("with", []):
        line = line.strip()
        if line:
            read_line(asked, line, python, "--with")
    if "requirements" in request:
        read_requirements(asked, request["requirements"], python)
    if "pep723" in request:
        table = read_toml(request["pep723"], "the script's block")
        read_dependencies(asked, table, python, "the script's block")
    if "pyproject" in request:
        read_pyproject(asked, request["pyproject"], python)
    if "pylock" in request:
        read_pylock(asked, request["pylock"], python, ranks)
    return asked
