# SPDX-License-Identifier: Apache-2.0
"""Resolve requirements to a lock.

Runs in: a sandboxed process of /usr/bin/python3, without network and files, forked from a zygote
that has packaging and resolvelib imported. All it knows comes over one stream of wire frames:

    <- GIVE id 0 {BODY request JSON}
    -> NEED {KIND "tags", TEXT list}             the interpreter's tags, best first; not answered
    -> NEED {KIND "index", URL, MODE}            an index that a requirements file names; same
    -> NEED id {KIND "page", NAME}               <- GIVE id {BODY lines} or {ERR_KIND not_found}
    -> NEED id {KIND "page-all", NAME}           the same with the names of files that do not fit
    -> NEED id {KIND "metadata", NAME, URL}      <- GIVE id {BODY headers, TEXT sha256} or {ERR_*}
    -> RESULT {BODY lock JSON} or {ERR_KIND, ERR_TEXT}

Many NEEDs are under way at once: as soon as a page is there, the metadata of the version that will
most likely be chosen is asked for, and then the pages of what it depends on, while resolvelib
waits for something else. Semantics are pip's with --only-binary :all:.
"""

import itertools
import json
import math
import re
import tomllib

import _pipsqueak
from packaging import tags as packaging_tags
from packaging.markers import InvalidMarker, Marker, UndefinedComparison
from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version
from resolvelib import AbstractProvider, BaseReporter, ResolutionImpossible, Resolver
from resolvelib.resolvers import ResolutionTooDeep

MAX_ROUNDS = 20000
SIMPLE_VERSION = re.compile(r"\d+(?:\.\d+)*\Z")
ONLY_EXTRA = re.compile(r"""(?:^|\band\s*)extra\s*==\s*(['"])[^'"]*\1\s*$""")


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
    if text.startswith((".", "/", "file:")) or text.endswith((".whl", ".tar.gz")) and "@" not in text:
        raise Failure("usage", f"{where}: '{text}' is a path; give a package's name instead")
    if re.match(r"(git|hg|svn|bzr)\+|https?://", text):
        raise Failure("usage", f"{where}: write 'NAME @ URL' (of a wheel) instead of '{text}'")
    requirement = parse_requirement(text, where)
    if requirement.url and not requirement.url.startswith(("https://", "http://")):
        raise Failure(
            "usage", f"{where}: '{text}': only http and https URLs of wheels can be used"
        )
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


# --- pages -------------------------------------------------------------------------------------


def version_key(text: str):
    """Sorts as PEP 440 says; only unusual versions are parsed in full. None: not a version."""
    if SIMPLE_VERSION.match(text):
        release = [int(part) for part in text.split(".")]
        while len(release) > 1 and not release[-1]:
            release.pop()
        return (0, tuple(release), (1, "", 0), -1, math.inf, ()), False
    try:
        version = Version(text)
    except InvalidVersion:
        return None
    release = list(version.release)
    while len(release) > 1 and not release[-1]:
        release.pop()
    pre = (0, *version.pre) if version.pre else (1, "", 0)
    if not version.pre and version.post is None and version.dev is not None:
        pre = (-1, "", 0)
    post = -1 if version.post is None else version.post
    dev = math.inf if version.dev is None else version.dev
    local = version.local.split(".") if version.local else ()
    local = tuple((1, int(p), "") if p.isdigit() else (0, 0, p) for p in local)
    return (version.epoch, tuple(release), pre, post, dev, local), version.is_prerelease


class File:
    __slots__ = ("rank", "build", "filename", "url", "sha256", "size", "python", "yanked")


class Release:
    """One version of a dist that has wheels for this interpreter."""

    __slots__ = ("text", "key", "pre", "files", "_version")

    def __init__(self, text, key, pre):
        self.text = text
        self.key = key
        self.pre = pre
        self.files = []
        self._version = None

    @property
    def version(self) -> Version:
        if self._version is None:
            self._version = Version(self.text)
        return self._version


class Page:
    """A dist's page: releases, newest first."""

    def __init__(self, name: str, body: bytes = b"", missing: bool = False):
        self.name = name
        self.missing = missing
        self.wheels = self.other = 0
        self.releases = []
        found = {}
        for line in body.decode("utf-8", "replace").split("\n"):
            fields = line.split("\t")
            if len(fields) == 8:
                self._add(found, fields)
            elif line.startswith("wheels="):
                wheels, other = line.split()
                self.wheels += int(wheels[7:])
                self.other += int(other[6:])
        self.releases = sorted(found.values(), key=lambda r: r.key, reverse=True)

    def _add(self, found, fields):
        split = split_wheel(fields[1])
        if not split or split[0] != self.name:
            return
        release = found.get(split[1])
        if release is None:
            key = version_key(split[1])
            if key is None:
                return
            release = found[split[1]] = Release(split[1], *key)
        file = File()
        file.rank = int(fields[0])
        file.build = split[2]
        _, file.filename, file.url, file.sha256, size, file.python, yanked, _ = fields
        file.size = int(size)
        file.yanked = yanked == "1"
        release.files.append(file)


class Metadata:
    """What a wheel's METADATA says about dependencies."""

    def __init__(self, body: bytes):
        self.requires_python = ""
        self.lines = []
        for line in body.decode("utf-8", "replace").splitlines():
            key, _, value = line.partition(":")
            key = key.lower()
            if key == "requires-dist":
                self.lines.append(value.strip())
            elif key == "requires-python":
                self.requires_python = value.strip()

    def wanted(self, python: Python, extras, who: str) -> list:
        found = []
        for line in self.lines:
            _, _, marker = line.partition(";")
            # most lines of most dists belong to an extra that nobody asked for
            if not extras and ONLY_EXTRA.search(marker) and " or " not in marker:
                continue
            requirement = parse_requirement(line, f"the metadata of {who}")
            if marker_holds(requirement.marker, python, extras):
                found.append(wanted_of(requirement))
        return found


# --- the feed ----------------------------------------------------------------------------------


class Feed:
    """The stream to the daemon: what was asked for, what has come, what will be asked for."""

    def __init__(self, fd: int, python: Python, asked: Asked, ranks: dict):
        self.fd = fd
        self.python = python
        self.asked = asked
        self.ranks = ranks  # tag -> rank
        self.ids = itertools.count(1)
        self.open = {}  # id -> what to do with the answer
        self.pages = {}  # name -> Page, or None while it is on its way
        self.metadata = {}  # URL -> Metadata or Failure, or None while on its way
        self.sums = {}  # URL -> sha256 as the daemon computed it
        self.hopes = {}  # name -> list of Wanted seen so far: what will likely be resolved

    def need(self, kind: str, then, **fields):
        number = next(self.ids)
        self.open[number] = then
        tags = {getattr(_pipsqueak, f"T_{name}"): value for name, value in fields.items()}
        tags[_pipsqueak.T_KIND] = kind
        _pipsqueak.send(self.fd, _pipsqueak.NEED, number, tags)

    def step(self):
        """Take one answer."""
        kind, number, fields = _pipsqueak.recv(self.fd)
        then = self.open.pop(number, None)
        if kind != _pipsqueak.GIVE or then is None:
            raise Failure("system", "the daemon gave what was not asked for")
        failure = None
        if _pipsqueak.T_ERR_KIND in fields:
            failure = Failure(
                fields[_pipsqueak.T_ERR_KIND].decode(),
                fields.get(_pipsqueak.T_ERR_TEXT, b"").decode("utf-8", "replace"),
            )
        then(fields, failure)

    def ask_page(self, name: str):
        def then(fields, failure):
            if failure and failure.kind != "not_found":
                raise failure
            body = fields.get(_pipsqueak.T_BODY, b"")
            self.pages[name] = Page(name, body, missing=failure is not None)
            self.guess(name)

        if name not in self.pages:
            self.pages[name] = None
            self.need("page", then, NAME=name)

    def page(self, name: str) -> Page:
        self.ask_page(name)
        while self.pages[name] is None:
            self.step()
        return self.pages[name]

    def names_of_all(self, name: str) -> list:
        """The names of all files of a dist, fitting or not: for saying why nothing fits."""
        answer = []
        self.need("page-all", lambda fields, failure: answer.append(fields), NAME=name)
        while not answer:
            self.step()
        text = answer[0].get(_pipsqueak.T_BODY, b"").decode("utf-8", "replace")
        return [x for x in text.split("\n") if x and "\t" not in x and not x.startswith("wheels=")]

    def ask_metadata(self, name: str, url: str):
        def then(fields, failure):
            self.metadata[url] = failure or Metadata(fields.get(_pipsqueak.T_BODY, b""))
            if not failure:
                self.sums[url] = fields.get(_pipsqueak.T_TEXT, b"").decode()
                self.follow(name, url)

        if url not in self.metadata:
            self.metadata[url] = None
            self.need("metadata", then, NAME=name, URL=url)

    def metadata_of(self, name: str, url: str) -> Metadata:
        self.ask_metadata(name, url)
        while self.metadata[url] is None:
            self.step()
        if isinstance(self.metadata[url], Failure):
            raise self.metadata[url]
        return self.metadata[url]

    def hope(self, wanted: Wanted):
        """Somebody wants this: have its page and metadata fetched before they are needed."""
        hopes = self.hopes.setdefault(wanted.name, [])
        if any(h.text == wanted.text for h in hopes):
            return
        hopes.append(wanted)
        if wanted.url:
            self.ask_metadata(wanted.name, wanted.url.split("#")[0])
        elif self.pages.get(wanted.name):
            self.guess(wanted.name)
        else:
            self.ask_page(wanted.name)

    def guess(self, name: str):
        """The page is there: ask for the metadata of what will likely be chosen."""
        if self.asked.locked is not None or any(h.url for h in self.hopes.get(name, [])):
            return
        for _, file in matches(self, name, self.hopes.get(name, []), ()):
            if self.metadata.get(file.url):
                self.follow(name, file.url)
            else:
                self.ask_metadata(name, file.url)
            break

    def follow(self, name: str, url: str):
        """Metadata is there: what it depends on will be needed too."""
        extras = frozenset().union(*(h.extras for h in self.hopes.get(name, [])))
        try:
            for wanted in self.metadata[url].wanted(self.python, extras, name):
                self.hope(wanted)
        except Failure:
            pass  # a guess only: said when this version is really chosen


def pick(feed: Feed, name: str, release: Release, yanked: bool):
    """The best file of a release for this interpreter; None when there is none."""
    hashes = feed.asked.hashes.get(name)
    best = None
    for file in release.files:
        if file.yanked and not yanked:
            continue
        if file.python and not feed.python.allows(file.python):
            continue
        if hashes and file.sha256 and file.sha256 not in hashes:
            continue
        order = (-file.rank, file.build, bool(file.sha256))
        if best is None or order > best[0]:
            best = (order, file)
    return best and best[1]


def matches(feed: Feed, name: str, wanted: list, excluded):
    """(release, file) pairs that all of wanted take, newest first; found as they are asked for."""
    page = feed.page(name)
    yanked = bool(wanted) and all(w.is_pinned() for w in wanted)
    pre = feed.asked.pre or any(w.spec.prereleases for w in wanted)
    late = []
    found = False
    for release in page.releases:
        if release.text in excluded or not all(w.allows(release) for w in wanted):
            continue
        if release.pre and not pre:
            late.append(release)
            continue
        file = pick(feed, name, release, yanked)
        if file:
            found = True
            yield release, file
    if not found:  # prereleases, when there is nothing else
        for release in late:
            file = pick(feed, name, release, yanked)
            if file:
                yield release, file


# --- resolvelib --------------------------------------------------------------------------------


class Candidate:
    __slots__ = ("name", "extras", "release", "file", "direct")

    def __init__(self, name, extras, release, file, direct=False):
        self.name = name
        self.extras = extras
        self.release = release
        self.file = file
        self.direct = direct

    def __str__(self):
        return f"{self.name} {self.release.text}"


class Provider(AbstractProvider):
    """pip's preferences, so that the same set of versions is found."""

    def __init__(self, feed: Feed):
        self.feed = feed
        self.order = {}
        self.depth = {}
        for i, wanted in enumerate(feed.asked.wanted):
            self.order.setdefault(self.identify(wanted), i)

    def identify(self, requirement_or_candidate):
        one = requirement_or_candidate
        return one.name, one.extras

    def get_preference(self, identifier, resolutions, candidates, information, backtrack_causes):
        infos = list(information[identifier])
        operators = [s.operator for i in infos for s in i.requirement.spec]
        direct = any(i.requirement.url for i in infos)
        pinned = any(operator[:2] == "==" for operator in operators)
        order = self.order.get(identifier, math.inf)
        if identifier in self.order:
            depth = 1.0
        else:
            parents = [i.parent for i in infos if i.parent is not None]
            depths = [self.depth.get(self.identify(p), 0.0) for p in parents]
            depth = min(depths, default=0.0) + 1.0
        self.depth[identifier] = depth
        cause = any(
            identifier == self.identify(c.requirement)
            or (c.parent is not None and identifier == self.identify(c.parent))
            for c in backtrack_causes
        )
        name = identifier[0], sorted(identifier[1])
        return not direct, not pinned, not cause, depth, order, not operators, name

    def find_matches(self, identifier, requirements, incompatibilities):
        name, extras = identifier
        wanted = list(requirements[identifier])
        if not name:  # stands for a Python that this interpreter is not
            return []
        if extras:
            wanted += list(requirements.get((name, frozenset()), ()))
        excluded = {c.release.text for c in incompatibilities[identifier]}
        urls = {w.url.split("#")[0] for w in wanted if w.url}
        if urls:
            return self.direct(name, extras, wanted, urls, excluded)
        return lambda: (
            Candidate(name, extras, release, file)
            for release, file in matches(self.feed, name, wanted, excluded)
        )

    def direct(self, name, extras, wanted, urls, excluded):
        """name @ URL: the one wheel that the URL leads to."""
        if len(urls) > 1:
            return []
        url = urls.pop()
        filename = url.split("?")[0].split("/")[-1].replace("%2B", "+")
        split = split_wheel(filename)
        if not split or split[0] != name or not version_key(split[1]):
            text = f"'{name} @ {url}': only the URL of a wheel of {name} can be used"
            raise Failure("usage", text)
        release = Release(split[1], *version_key(split[1]))
        rank = rank_of(split[3], self.feed.ranks)
        if rank is None:
            raise Failure("not_found", f"{filename} does not fit {self.feed.python.describe()}")
        if release.text in excluded or not all(w.allows(release) for w in wanted):
            return []
        file = File()
        file.rank, file.build, file.filename, file.url = rank, split[2], filename, url
        file.sha256, file.size, file.python, file.yanked = "", 0, "", False
        return [Candidate(name, extras, release, file, direct=True)]

    def is_satisfied_by(self, requirement, candidate):
        if requirement.url and requirement.url.split("#")[0] != candidate.file.url:
            return False
        return requirement.allows(candidate.release)

    def get_dependencies(self, candidate):
        metadata = self.feed.metadata_of(candidate.name, candidate.file.url)
        if metadata.requires_python and not self.feed.python.allows(metadata.requires_python):
            return [Wanted("", text=f"Python {metadata.requires_python}")]
        found = metadata.wanted(self.feed.python, candidate.extras, str(candidate))
        for wanted in found:
            self.feed.hope(wanted)
        if candidate.extras:
            text = f"{candidate.name}=={candidate.release.text}"
            url = candidate.file.url if candidate.direct else None
            base = Wanted(candidate.name, url=url, text=text)
            base.exact = candidate.release.text
            found.insert(0, base)
        return found


# --- saying why not ----------------------------------------------------------------------------


def wanted_by(parent) -> str:
    return f"{parent} wants" if parent is not None else "you ask for"


def why_no_wheel(feed: Feed, name: str, wanted: Wanted) -> str:
    """No release fits although the dist is there: by its file names, why."""
    python = feed.python.describe()
    tags = []
    sources = 0
    newest = None
    for filename in feed.names_of_all(name):
        split = split_wheel(filename)
        text = split[1] if split else re.sub(r"\.(tar\.gz|zip|tar\.bz2|tgz)$", "", filename)
        text = text if split else text.rpartition("-")[2]
        key = version_key(text)
        if key is None:
            continue
        newest = max(newest or (key, text), (key, text))
        if not wanted.allows(Release(text, *key)):
            continue
        if split:
            tag = "-".join(split[3])
            tags = [t for t in tags if t != tag] + [tag]
        else:
            sources += 1
    if tags and any(rank_of(t.split("-"), feed.ranks) is not None for t in tags):
        return (
            f"every wheel of '{wanted.text}' wants another Python version than "
            f"{feed.python.full}, or is yanked; loosen the version or use --python"
        )
    if tags:
        shown = ", ".join(tags[-6:])
        return f"'{wanted.text}' has no wheel for {python}; there are wheels for {shown}"
    if sources:
        return (
            f"'{wanted.text}' is there only as source; Pipsqueak installs only wheels: "
            "choose a version that has one, or build a wheel and put it into a find-links directory"
        )
    if newest is None:
        return f"the index has no files of '{name}'"
    return f"no version of '{name}' satisfies '{wanted.text}'; the newest is {newest[1]}"


def why_alone(feed: Feed, wanted: Wanted, parent):
    """Is this one requirement impossible whatever else is asked for?"""
    by = f" (wanted by {parent})" if parent is not None else ""
    if not wanted.name:
        return Failure(
            "conflict",
            f"{parent} wants {wanted.text}, but this is {feed.python.full}; "
            "choose another interpreter with --python",
        )
    if wanted.url or wanted.exact:
        return None
    page = feed.page(wanted.name)
    if page.missing:
        text = f"no package called '{wanted.name}' on the index{by}; check the name"
        return Failure("not_found", text)
    if any(True for _ in matches(feed, wanted.name, [wanted], ())):
        return None
    if feed.asked.hashes.get(wanted.name):
        text = f"no wheel of '{wanted.text}' has a hash that requirements.txt lists"
        return Failure("conflict", text)
    return Failure("not_found", why_no_wheel(feed, wanted.name, wanted) + by)


def why_conflict(feed: Feed, causes) -> Failure:
    pairs = [(cause.requirement, cause.parent) for cause in causes]
    for wanted, parent in pairs:
        failure = why_alone(feed, wanted, parent)
        if failure:
            return failure
    said = []
    for wanted, parent in pairs:
        line = f"{wanted_by(parent)} {wanted.text}"
        if line not in said:
            said.append(line)
    text = "; ".join(said[:8])
    return Failure("conflict", f"these requirements exclude each other: {text}")


# --- the resolution ----------------------------------------------------------------------------


def lock_dist(feed: Feed, candidate: Candidate) -> dict:
    file = candidate.file
    sha256 = file.sha256 or feed.sums.get(file.url, "")
    hashes = feed.asked.hashes
    if hashes and candidate.name not in hashes:
        raise Failure(
            "usage",
            f"requirements.txt has hashes, but none for {candidate}, which is needed too; "
            "list it with its --hash",
        )
    if hashes and sha256 not in hashes[candidate.name]:
        text = f"{file.filename} has sha256 {sha256}, which requirements.txt does not list"
        raise Failure("corrupt", text)
    return {
        "name": candidate.name,
        "version": split_wheel(file.filename)[1],
        "filename": file.filename,
        "url": file.url,
        "sha256": sha256,
        "size": file.size,
    }


def resolve_wanted(feed: Feed) -> list:
    for wanted in feed.asked.wanted:
        feed.hope(wanted)
    resolver = Resolver(Provider(feed), BaseReporter())
    try:
        result = resolver.resolve(feed.asked.wanted, max_rounds=MAX_ROUNDS)
    except ResolutionImpossible as error:
        raise why_conflict(feed, error.causes) from None
    except ResolutionTooDeep:
        raise Failure("limit", "resolving takes too many steps; pin some versions") from None
    chosen = {c.name: c for c in result.mapping.values()}
    return [lock_dist(feed, candidate) for _, candidate in sorted(chosen.items())]


def resolve(stream: int, request: dict) -> dict:
    python = Python(request.get("python", {}))
    tags = python.tags()
    ranks = {tag: i for i, tag in reversed(list(enumerate(tags)))}
    asked = read_request(request, python, ranks)
    feed = Feed(stream, python, asked, ranks)
    send = _pipsqueak.send
    for mode, url in asked.indexes:
        fields = {_pipsqueak.T_KIND: "index", _pipsqueak.T_URL: url, _pipsqueak.T_MODE: mode}
        send(stream, _pipsqueak.NEED, 0, fields)
    send(stream, _pipsqueak.NEED, 0, {_pipsqueak.T_KIND: "tags", _pipsqueak.T_TEXT: tags})
    dists = resolve_wanted(feed) if asked.wanted else []
    if asked.locked is not None:
        known = {d["name"] for d in asked.locked}
        dists = asked.locked + [d for d in dists if d["name"] not in known]
    return {"python_tag": python.cache_tag, "dists": dists}


def main(stream: int):
    """Serve one request on this stream and return."""
    kind, _, fields = _pipsqueak.recv(stream)
    if kind != _pipsqueak.GIVE:
        return
    try:
        lock = resolve(stream, json.loads(fields[_pipsqueak.T_BODY]))
        answer = {_pipsqueak.T_BODY: json.dumps(lock)}
    except Failure as failure:
        answer = {_pipsqueak.T_ERR_KIND: failure.kind, _pipsqueak.T_ERR_TEXT: failure.text[:1000]}
    _pipsqueak.send(stream, _pipsqueak.RESULT, 0, answer)
