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

import _pipsqueak
from packaging.version import InvalidVersion, Version
from resolvelib import AbstractProvider, BaseReporter, ResolutionImpossible, Resolver
from resolvelib.resolvers import ResolutionTooDeep
from resolver_input import (
    Asked,
    Failure,
    Python,
    Wanted,
    marker_holds,
    parse_requirement,
    rank_of,
    read_request,
    split_wheel,
    wanted_of,
)

MAX_ROUNDS = 20000
SIMPLE_VERSION = re.compile(r"\d+(?:\.\d+)*\Z")
ONLY_EXTRA = re.compile(r"""(?:^|\band\s*)extra\s*==\s*(['"])[^'"]*\1\s*$""")


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
    try:
        kind, _, fields = _pipsqueak.recv(stream)
        if kind != _pipsqueak.GIVE:
            return
        try:
            lock = resolve(stream, json.loads(fields[_pipsqueak.T_BODY]))
            answer = {_pipsqueak.T_BODY: json.dumps(lock)}
        except Failure as failure:
            text = failure.text[:1000]
            answer = {_pipsqueak.T_ERR_KIND: failure.kind, _pipsqueak.T_ERR_TEXT: text}
        _pipsqueak.send(stream, _pipsqueak.RESULT, 0, answer)
    except (EOFError, BrokenPipeError, ConnectionResetError):
        pass  # nobody waits for the answer any more
