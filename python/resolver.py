# SPDX-License-Identifier: Apache-2.0
"""Resolve requirements to a lock.

Runs in: a sandboxed process of /usr/bin/python3, without network and files, forked from a zygote
that has packaging and these modules imported. All it knows comes over one stream of wire frames:

    <- GIVE id 0 {BODY request JSON}
    -> NEED {KIND "tags", TEXT list}             the interpreter's tags, best first; not answered
    -> NEED {KIND "index", URL, MODE}            an index that a requirements file names; same
    -> NEED id {KIND "page", TEXT list of names} <- for each name, ids counting on:
                                                 GIVE id {BODY lines} or {ERR_KIND not_found}
    -> NEED id {KIND "page-all", NAME}           the same with the names of files that do not fit
    -> NEED id {KIND "metadata", TEXT list of name, URL, name, URL ...}
                                                 <- GIVE id {BODY headers, TEXT sha256} or {ERR_*}
    An sdist's URL has "#sha256=A,B ..." behind it when only these sums will do.
    -> NEED id {KIND "build", TEXT as before}    of sdists: <- GIVE id as before, with the wheel's
                                                 NAME and its sha256 (INFO)
    -> RESULT {BODY lock JSON} or {ERR_KIND, ERR_TEXT}

Many NEEDs are under way at once: as soon as a page is there, the metadata of the version that will
most likely be chosen is asked for, and then the pages of what it depends on, while the search
waits for something else. Semantics are pip's, with --only-binary :all: unless sdists are allowed.
An sdist's metadata may cost a build, so it is asked for only when the search has come to it.

    resolver.py           the feed, the candidates, the answer
    resolver_search.py    the search for a set of versions
    resolver_versions.py  versions and specifiers
    resolver_input.py     requirements and markers
    resolver_files.py     requirements.txt, pyproject.toml, script blocks
    resolver_lock.py      pylock.toml
    resolver_why.py       why there is no answer
"""

import datetime
import json
import math

import _pipsqueak
from resolver_files import Asked, build_order, read_request, split_sdist, split_wheel, url_filename
from resolver_input import Failure, Python, Wanted, canonical, parse, wanted_of
from resolver_lock import rank_of, read_pylock
from resolver_search import Impossible, Search, TooDeep
from resolver_versions import version_key
from resolver_why import why_conflict, why_source

BATCH = 64  # questions in one message
SDIST_RANK = 1000000  # as src/index/digest.h has it: behind every wheel
MAX_HOPES = 12  # of one dist

# --- pages -------------------------------------------------------------------------------------


class File:
    __slots__ = ("order", "filename", "url", "sha256", "size", "python", "yanked", "uploaded")

    def __init__(self, fields):
        rank, build, self.filename, self.url, self.sha256, size, self.python, yanked, _, time = fields
        self.order = (-int(rank), build_order(build), bool(self.sha256))
        self.size = int(size)
        self.yanked = yanked == "1"
        self.uploaded = time

    @property
    def is_sdist(self) -> bool:
        return not self.filename.endswith(".whl")


class Release:
    """One version of a dist that has files for this interpreter."""

    __slots__ = ("text", "key", "pre", "lines", "usable", "_files")

    def __init__(self, text, key, pre):
        self.text = text
        self.key = key
        self.pre = pre
        self.lines = []
        self.usable = None  # see usable()
        self._files = None

    @property
    def files(self) -> list:
        if self._files is None:
            self._files = [File(line.split("\t")) for line in self.lines]
        return self._files


class Page:
    """A dist's page: releases, newest first. Most lines are never looked into."""

    def __init__(self, name: str, body: bytes = b"", missing: bool = False):
        self.name = name
        self.missing = missing
        found = {}
        for line in body.decode("utf-8", "replace").split("\n"):
            text, tab, rest = line.partition("\t")
            if not tab:
                continue
            release = found.get(text)
            if release is None:
                known = version_key(text)
                if known is None:
                    continue
                release = found[text] = Release(text, *known)
            release.lines.append(rest)
        self.releases = merged(sorted(found.values(), key=lambda r: r.key, reverse=True))
        self.at = {release.text: i for i, release in enumerate(self.releases)}
        self.masks = {}  # Spec -> which releases it takes, a bit each

    def mask(self, wanted: Wanted) -> int:
        """Bit i: releases[i] will do. A search asks thousands of times for the same few."""
        if wanted.exact is not None:
            return 1 << self.at[wanted.exact] if wanted.exact in self.at else 0
        mask = self.masks.get(wanted.spec)
        if mask is None:
            mask = (1 << len(self.releases)) - 1
            for clause in wanted.spec.clauses:
                mask &= self.clause_mask(clause)
            self.masks[wanted.spec] = mask
        return mask

    def clause_mask(self, clause) -> int:
        releases = self.releases
        low, high = 0, len(releases)
        if clause.slow is not None or clause.operator not in (">=", ">", "<=", "<"):
            hits = (1 << i for i, r in enumerate(releases) if clause.allows(r.key, r.pre, r.text))
            return sum(hits)
        upwards = clause.operator[0] == ">"  # then the newest are in, up to some release
        while low < high:
            middle = (low + high) // 2
            release = releases[middle]
            if clause.allows(release.key, release.pre, release.text) == upwards:
                low = middle + 1
            else:
                high = middle
        upper = (1 << low) - 1
        return upper if upwards else ((1 << len(releases)) - 1) ^ upper


def merged(releases: list) -> list:
    """1.0 and 1.0.0 are one release."""
    found = releases[:1]
    for release in releases[1:]:
        if release.key == found[-1].key:
            found[-1].lines += release.lines
        else:
            found.append(release)
    return found


class Metadata:
    """What METADATA (or an sdist's PKG-INFO) says about dependencies."""

    def __init__(self, body: bytes):
        self.name = self.version = self.requires_python = ""
        self.problem = None  # why pip would not take this version
        self.lines = []  # Parsed
        self._wanted = {}
        for line in body.decode("utf-8", "replace").splitlines():
            key, _, value = line.partition(":")
            key = key.lower()
            if key == "requires-dist":
                self._line(value.strip())
            elif key == "requires-python":
                self.requires_python = value.strip()
            elif key == "name":
                self.name = self.name or canonical(value.strip())
            elif key == "version":
                self.version = self.version or value.strip()

    def _line(self, text: str):
        try:
            self.lines.append(parse(text))
        except ValueError as error:  # what packaging raises is one
            self.problem = f"'{text}' is not a requirement: {str(error).splitlines()[0]}"

    def belongs_to(self, name: str, release) -> bool:
        if self.name and self.name != name:
            return False
        known = version_key(self.version) if self.version else None
        return known is None or known[0] == release.key

    def wanted(self, python: Python, extras) -> list:
        found = self._wanted.get(extras)
        if found is None:
            kept = tuple(sorted(extras))
            found = self._wanted[extras] = []
            for parsed in self.lines:
                try:
                    holds = python.holds(parsed.marker, kept)
                except ValueError as error:
                    self.problem = f"'{parsed.marker}' is not a marker: {error}"
                    holds = False
                if holds:
                    found += wanted_of(parsed).parts()
        return found


class Built:
    """The wheel that an sdist became."""

    def __init__(self, fields):
        self.metadata = Metadata(fields.get(_pipsqueak.T_BODY, b""))
        self.filename = fields.get(_pipsqueak.T_NAME, b"").decode()
        self.sha256 = fields.get(_pipsqueak.T_INFO, b"").decode()


# --- the feed ----------------------------------------------------------------------------------


class Feed:
    """The stream to the daemon: what was asked for, what has come, what will be asked for."""

    def __init__(self, fd: int, python: Python, asked: Asked, ranks: dict):
        self.fd = fd
        self.python = python
        self.asked = asked
        self.ranks = ranks  # tag -> rank
        self.next_id = 1
        self.open = {}  # id -> what to do with the answer
        self.queues = {"page": [], "metadata": [], "build": []}  # what to ask, and then
        self.pages = {}  # name -> Page, or None while it is on its way
        self.metadata = {}  # URL -> Metadata or Failure, or None while on its way
        self.sums = {}  # URL -> sha256 as the daemon computed it
        self.built = {}  # URL of an sdist -> Built or Failure, or None while it is being built
        self.expected = {}  # URL of an sdist of a lock -> set of sha256
        self.hopes = {}  # name -> list of Wanted seen so far: what will likely be resolved

    def tell(self, kind: str, number: int, **fields):
        tags = {getattr(_pipsqueak, f"T_{name}"): value for name, value in fields.items()}
        tags[_pipsqueak.T_KIND] = kind
        _pipsqueak.send(self.fd, _pipsqueak.NEED, number, tags)

    def flush(self):
        for kind, queue in self.queues.items():
            while queue:
                part, rest = queue[:BATCH], queue[BATCH:]
                words = [word for words, _ in part for word in words]
                for at, (_, then) in enumerate(part):
                    self.open[self.next_id + at] = then
                self.tell(kind, self.next_id, TEXT=words)
                self.next_id += len(part)
                queue[:] = rest

    def step(self):
        """Take one answer."""
        self.flush()
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
            self.queues["page"].append(((name,), then))

    def page(self, name: str) -> Page:
        self.ask_page(name)
        while self.pages[name] is None:
            self.step()
        return self.pages[name]

    def names_of_all(self, name: str) -> list:
        """The names of all files of a dist, fitting or not: for saying why nothing fits."""
        answer = []
        self.open[self.next_id] = lambda fields, failure: answer.append(fields)
        self.tell("page-all", self.next_id, NAME=name)
        self.next_id += 1
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
            self.queues["metadata"].append(((name, self.with_sums(name, url)), then))

    def metadata_of(self, name: str, url: str) -> Metadata:
        self.ask_metadata(name, url)
        while self.metadata[url] is None:
            self.step()
        if isinstance(self.metadata[url], Failure):
            raise self.metadata[url]
        return self.metadata[url]

    def with_sums(self, name: str, url: str) -> str:
        """Nothing is unpacked or run of an sdist before its sum is found right."""
        sums = self.expected.get(url) or self.asked.hashes.get(name)
        return f"{url}#sha256={','.join(sorted(sums))}" if sums and split_sdist(url_filename(url)) else url

    def ask_build(self, name: str, url: str):
        def then(fields, failure):
            self.built[url] = failure or Built(fields)
            if not failure:
                self.sums[url] = fields.get(_pipsqueak.T_TEXT, b"").decode()

        if url not in self.built:
            self.built[url] = None
            self.queues["build"].append(((name, self.with_sums(name, url)), then))

    def built_of(self, name: str, url: str):
        self.ask_build(name, url)
        while self.built[url] is None:
            self.step()
        if isinstance(self.built[url], Failure):
            raise self.built[url]
        return self.built[url]

    def hope(self, wanted: Wanted):
        """Somebody wants this: have its page and metadata fetched before they are needed."""
        hopes = self.hopes.setdefault(wanted.name, [])
        if len(hopes) >= MAX_HOPES:
            return  # the search goes back and forth: what it will come to cannot be guessed
        if any(h.spec is wanted.spec and h.ident == wanted.ident and h.url == wanted.url for h in hopes):
            return
        hopes.append(wanted)
        if wanted.url:
            if not split_sdist(url_filename(wanted.url)):
                self.ask_metadata(wanted.name, wanted.url.split("#")[0])
        elif self.pages.get(wanted.name):
            self.guess(wanted.name)
        else:
            self.ask_page(wanted.name)

    def guess(self, name: str):
        """The page is there: ask for the metadata of what will likely be chosen."""
        hopes = self.hopes.get(name, [])
        if any(h.url for h in hopes):
            return
        for _, file in matches(self, name, [*hopes, *self.asked.constraints.get(name, ())], ()):
            if self.metadata.get(file.url):
                self.follow(name, file.url)
            elif not file.is_sdist:
                self.ask_metadata(name, file.url)
            break

    def follow(self, name: str, url: str):
        """Metadata is there: what it depends on will be needed too."""
        metadata = self.metadata[url]
        if isinstance(metadata, Failure):
            return  # a guess only: said when this version is really chosen
        extras = frozenset().union(*(h.extras for h in self.hopes.get(name, [])))
        for wanted in metadata.wanted(self.python, extras):
            self.hope(wanted)


def is_late(file: File, before) -> bool:
    """Uploaded when it does not count any more; a file of which that is not known counts as late,
    one of a directory (which has no times) does not."""
    if before is None or file.url.startswith("file:"):
        return False
    try:
        return datetime.datetime.fromisoformat(file.uploaded).timestamp() >= before
    except (ValueError, OverflowError):
        return True


def usable(feed: Feed, name: str, release: Release) -> list:
    """The files of a release for this interpreter, and of the format and time asked for."""
    allows, before = feed.python.allows, feed.asked.before
    if release.usable is None:
        formats = feed.asked.formats(name)
        release.usable = [
            file
            for file in release.files
            if formats[file.is_sdist]
            and not (file.python and not allows(file.python))
            and not is_late(file, before)
        ]
    return release.usable


def best_of(feed: Feed, name: str, files: list):
    hashes = feed.asked.hashes.get(name)
    if hashes:
        files = [file for file in files if not file.sha256 or file.sha256 in hashes]
    return max(files, key=lambda file: file.order, default=None)


def matches(feed: Feed, name: str, wanted: list, excluded):
    """(release, file) pairs that all of wanted take, in pip's order."""
    found = newest_first(feed, name, wanted, excluded)
    return sorted(found, key=lambda pair: pair[1].is_sdist) if feed.asked.prefer_binary else found


def newest_first(feed: Feed, name: str, wanted: list, excluded):
    """Without --prefer-binary: the newest first, prereleases only
    when asked for or when there is no final release, yanked ones only when a version is named and
    nothing else satisfies it. Found as they are asked for."""
    pre = feed.asked.allows_pre(name)
    if pre is None and any(w.spec.pre for w in wanted):
        pre = True
    late, held, finals = [], [], False
    any_good = False

    def good(release, files):
        nonlocal any_good
        kept = [file for file in files if not file.yanked]
        any_good = any_good or bool(kept)
        if not kept:
            held.append((release, files))
        file = best_of(feed, name, kept) if kept and release.text not in excluded else None
        return [(release, file)] if file else []

    page = feed.page(name)
    mask = (1 << len(page.releases)) - 1
    for one in wanted:
        mask &= page.mask(one)
    while mask:
        lowest = mask & -mask
        mask ^= lowest
        release = page.releases[lowest.bit_length() - 1]
        files = usable(feed, name, release)
        if not files:
            continue
        if release.pre and not pre:
            late.append((release, files))
            continue
        finals = True
        yield from good(release, files)
    if not finals and pre is None:
        for release, files in late:
            yield from good(release, files)
    if not any_good and any(w.spec.pinned or w.exact for w in wanted):
        for release, files in held:
            file = best_of(feed, name, files)
            if file and release.text not in excluded:
                yield release, file


# --- candidates --------------------------------------------------------------------------------


class Candidate:
    __slots__ = ("name", "extras", "ident", "release", "file", "url", "wanted")

    def __init__(self, name, extras, release, file, url=None):
        self.name = name
        self.extras = extras
        self.ident = (name, extras)
        self.release = release
        self.file = file
        self.url = url  # of a direct reference
        self.wanted = None  # its dependencies, once known

    def __str__(self):
        return f"{self.name} {self.release.text}"


class Provider:
    """What the search asks; with pip's preferences, so that the same set of versions is found."""

    def __init__(self, feed: Feed):
        self.feed = feed
        self.made = {}
        self.order = {}
        self.roots = []
        for i, wanted in enumerate(feed.asked.wanted):
            parts = wanted.parts()
            self.order.setdefault(parts[0].ident, i)
            self.roots += parts
        self.roots.sort(key=lambda w: bool(w.extras))

    def preference(self, ident, information):
        wanted = [w for w, _ in information]
        direct = any(w.url or w.exact for w in wanted)
        specs = [w.spec for w in wanted if not (w.url or w.exact)]
        order = self.order.get(ident, math.inf)
        name = ident[0] + (f"[{','.join(sorted(ident[1]))}]" if ident[1] else "")
        pinned, upper = any(s.pinned for s in specs), any(s.upper for s in specs)
        return not direct, not pinned, not upper, order, not any(s.clauses for s in specs), name

    def candidate(self, name, extras, release, file, url=None):
        key = name, extras, file.url
        made = self.made.get(key)
        if made is None:
            made = self.made[key] = Candidate(name, extras, release, file, url)
        return made

    def find(self, ident, requirements, base, incompatible):
        name, extras = ident
        if not name:  # stands for a Python that this interpreter is not
            return
        wanted = [*requirements, *base]
        limits = self.feed.asked.constraints.get(name, [])
        excluded = {c.release.text for c in incompatible}
        urls = {w.url for w in [*wanted, *limits] if w.url}
        if not urls and any(self.feed.asked.formats(name)):
            every = [*wanted, *limits]
            for release, file in matches(self.feed, name, every, excluded):
                if self.is_valid(name, release, file):
                    yield self.candidate(name, extras, release, file)
            return
        if not urls:
            raise Failure("usage", why_source(name))
        for url in sorted(urls):
            made = self.direct(name, extras, url)
            fits = all(self.is_satisfied_by(w, made) for w in [*requirements, *limits])
            if fits and made.release.text not in excluded:
                yield made

    def is_valid(self, name, release, file) -> bool:
        """pip passes over a version whose metadata is malformed or of another wheel."""
        metadata = self.feed.metadata_of(name, file.url)
        return not metadata.problem and metadata.belongs_to(name, release)

    def direct(self, name, extras, url):
        """name @ URL: the one file that the URL leads to."""
        plain = url.split("#")[0]
        filename = url_filename(plain)
        split = split_wheel(filename) or split_sdist(filename)
        if not split or split[0] not in (name, ""):
            text = f"'{name} @ {url}': only the URL of a wheel or sdist of {name} can be used"
            raise Failure("usage", text)
        if filename.endswith(".whl"):
            rank, version = rank_of(split[3], self.feed.ranks), split[1]
        else:
            rank, version = SDIST_RANK, self.version_inside(name, plain)
        if rank is None:
            raise Failure("not_found", f"{filename} does not fit {self.feed.python.describe()}")
        known = self.feed.asked.local.get(plain, {})
        size, sha256 = str(known.get("size", 0)), known.get("sha256", "")
        file = File((str(rank), "", filename, plain, sha256, size, "", "0", "", ""))
        return self.candidate(name, extras, Release(version, *version_key(version)), file, url)

    def version_inside(self, name, url) -> str:
        """The file name of an sdist by URL says nothing that counts, as with pip."""
        if not self.feed.asked.allow_sdist:  # of a dist's own metadata: pip would build it
            raise Failure("usage", f"'{name} @ {url}' is source; --allow-sdist builds it, in a sandbox")
        metadata = self.feed.metadata_of(name, url)
        if metadata.name != name or not version_key(metadata.version):
            text = f"'{name} @ {url}' is {metadata.name or 'nothing'} {metadata.version} inside"
            raise Failure("corrupt", text)
        return metadata.version

    def is_satisfied_by(self, requirement, candidate):
        if requirement.url and requirement.url != candidate.url:
            return False
        return requirement.allows(candidate.release)

    def dependencies(self, candidate):
        if candidate.wanted is None:
            candidate.wanted = self.read_dependencies(candidate)
        return candidate.wanted

    def read_dependencies(self, candidate):
        python = self.feed.python
        metadata = self.feed.metadata_of(candidate.name, candidate.file.url)
        if candidate.url and metadata.problem:
            raise Failure("usage", f"the metadata of {candidate}: {metadata.problem}")
        if metadata.requires_python and not python.allows(metadata.requires_python):
            unfit = Wanted("")
            unfit.exact = metadata.requires_python
            return [unfit]
        found = list(metadata.wanted(python, candidate.extras))
        for wanted in found:
            self.feed.hope(wanted)
        if candidate.extras:
            base = Wanted(candidate.name, url=candidate.url)
            base.exact = candidate.release.text
            found.insert(0, base)
        return found


# --- the resolution ----------------------------------------------------------------------------


def lock_dist(feed: Feed, candidate: Candidate) -> dict:
    file = candidate.file
    sha256 = file.sha256 or feed.sums.get(file.url, "")
    hashes = feed.asked.hashes
    if feed.asked.needs_hash(candidate.name):
        raise Failure(
            "usage",
            f"where one requirement has a hash, or --require-hashes stands, all must have one, and {candidate}, "
            f"which is needed too, has none: add the line {candidate.name}=={candidate.release.text} --hash=sha256:"
            + (sha256 or "..."),
        )
    if candidate.name in hashes and sha256 not in hashes[candidate.name]:
        text = f"{file.filename} has sha256 {sha256}, which requirements.txt does not list"
        raise Failure("corrupt", text)
    if file.is_sdist:
        sdist = {"filename": file.filename, "url": file.url, "sha256": sha256, "size": file.size}
        return {"name": candidate.name, "version": candidate.release.text, "build": sdist}
    return {
        "name": candidate.name,
        "version": split_wheel(file.filename)[1],
        "filename": file.filename,
        "url": file.url,
        "sha256": sha256,
        "size": file.size,
    }


def built_dist(feed: Feed, name: str, version: str, sdist: dict) -> dict:
    """The wheel of an sdist ({"filename", "url", "sha256", "size"}), which must be what the sdist
    says it is; the daemon has checked its sum."""
    built = feed.built_of(name, sdist["url"])
    split = split_wheel(built.filename)
    metadata = built.metadata
    key = version_key(version) if version else None
    right = split and split[0] == name == metadata.name and version_key(metadata.version)
    if not right or (key and not key == version_key(split[1]) == version_key(metadata.version)):
        found = f"{built.filename}, which says it is {metadata.name} {metadata.version}"
        text = f"building {sdist['filename']} gave {found}, not {name} {version}"
        raise Failure("corrupt", text)
    if rank_of(split[3], feed.ranks) is None:
        text = f"building {sdist['filename']} gave {built.filename}, which does not fit this interpreter"
        raise Failure("corrupt", text)
    known = {"filename": sdist["filename"], "sha256": feed.sums[sdist["url"]], "size": sdist["size"]}
    return {
        "name": name,
        "version": split[1],
        "filename": built.filename,
        "url": sdist["url"],
        "sha256": built.sha256,
        "size": 0,
        "sdist": known,
    }


def built_dists(feed: Feed, dists: list) -> list:
    """Each that is to be built, many at a time, in place of what the lock has of it."""
    for dist in dists:
        if "build" in dist:
            if dist["build"]["sha256"]:
                feed.expected[dist["build"]["url"]] = {dist["build"]["sha256"]}
            feed.ask_build(dist["name"], dist["build"]["url"])
    return [
        built_dist(feed, d["name"], d["version"], d["build"]) if "build" in d else d for d in dists
    ]


def resolve_wanted(feed: Feed) -> list:
    for wanted in feed.asked.wanted:
        feed.hope(wanted)
    provider = Provider(feed)
    try:
        found = Search(provider).run(provider.roots)
    except Impossible as error:
        raise why_conflict(feed, error.causes, matches) from None
    except TooDeep:
        raise Failure("limit", "resolving takes too many steps; pin some versions") from None
    chosen = {c.name: c for c in found.values()}
    return [lock_dist(feed, candidate) for _, candidate in sorted(chosen.items())]


def resolve(stream: int, request: dict) -> dict:
    python = Python(request.get("python", {}))
    tags = python.tags()
    ranks = {tag: i for i, tag in reversed(list(enumerate(tags)))}
    asked = read_request(request, python, lambda a, text, where: read_pylock(a, text, where, ranks))
    feed = Feed(stream, python, asked, ranks)
    for mode, url in asked.sources:
        feed.tell("index", 0, URL=url, MODE=mode)
    feed.tell("tags", 0, TEXT=tags)
    dists = resolve_wanted(feed) if asked.wanted else []
    if asked.locked is not None:
        known = {d["name"] for d in asked.locked}
        dists = asked.locked + [d for d in dists if d["name"] not in known]
    return {"python_tag": python.cache_tag, "dists": built_dists(feed, dists)}


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
            text = failure.text[:2000]
            answer = {_pipsqueak.T_ERR_KIND: failure.kind, _pipsqueak.T_ERR_TEXT: text}
        _pipsqueak.send(stream, _pipsqueak.RESULT, 0, answer)
    except (EOFError, BrokenPipeError, ConnectionResetError):
        pass  # nobody waits for the answer any more
