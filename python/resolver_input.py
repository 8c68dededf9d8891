# SPDX-License-Identifier: Apache-2.0
"""What a requirement is, and the target interpreter that its marker is judged by.

Runs in: the resolver's process (see resolver.py). Everything here is text from outside; what cannot
be understood ends the resolution with a sentence that says what to do.
"""

import functools
import re

from packaging import tags as packaging_tags
from packaging.markers import InvalidMarker, Marker, UndefinedComparison, UndefinedEnvironmentName
from packaging.requirements import Requirement
from packaging.specifiers import InvalidSpecifier
from packaging.version import InvalidVersion, Version
from resolver_versions import spec_of

RUNS = re.compile(r"[-_.]+")
NAME = r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?"
# What nearly every line of metadata looks like; packaging reads the others.
PLAIN = re.compile(
    rf"\s*({NAME})\s*(?:\[([A-Za-z0-9._,\s-]*)\])?\s*(?:\(([^()@;]*)\)|([<>=!~][^()@;\[\]]*)|)"
    r"\s*(?:;\s*(.*\S))?\s*\Z"
)
EXTRA_ALONE = re.compile(r"""extra\s*==\s*(['"])([^'"]*)\1\Z""")
EXTRA_LAST = re.compile(r"""(?:^|\band\s*)\(?\s*extra\s*==\s*(['"])[^'"]*\1\s*\)?\s*\Z""")


@functools.cache
def canonical(name: str) -> str:
    return RUNS.sub("-", name).lower()


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
        self._holds = {}
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
                known = spec_of(requires_python).allows_text(str(self.full))
            except (InvalidSpecifier, InvalidVersion):
                known = True
            self._allows[requires_python] = known
        return known

    def holds(self, marker: str, extras=()) -> bool:
        """Is the marker true here, with one of these extras? ValueError: it is no marker."""
        if not marker:
            return True
        alone = EXTRA_ALONE.match(marker)
        if alone:
            return canonical(alone[2]) in extras
        if not extras and " or " not in marker and EXTRA_LAST.search(marker):
            return False  # most lines of most dists belong to an extra that nobody asked for
        known = self._holds.get((marker, extras))
        if known is None:
            known = self._holds[marker, extras] = self._evaluate(marker, extras)
        return known

    def _evaluate(self, text: str, extras) -> bool:
        try:
            marker = Marker(text)
        except InvalidMarker as error:
            raise ValueError(str(error).split("\n", 1)[0]) from None
        for extra in extras or ("",):
            try:
                if marker.evaluate(dict(self.markers, extra=extra)):
                    return True
            except (ValueError, UndefinedComparison, UndefinedEnvironmentName):
                continue
        return False

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


class Parsed:
    """A requirement line taken apart; its marker is not judged yet."""

    __slots__ = ("name", "extras", "spec", "url", "marker")

    def __init__(self, name, extras, spec, url, marker):
        self.name = canonical(name)
        self.extras = frozenset(canonical(extra) for extra in extras)
        self.spec = spec
        self.url = url
        self.marker = marker


@functools.cache
def parse(line: str) -> Parsed:
    """Raises packaging's exceptions when the line is no requirement."""
    line = " ".join(line.split())  # the pattern would try every way to share out white space
    match = PLAIN.match(line)
    if match:
        name, extras, inside, behind, marker = match.groups()
        extras = [extra.strip() for extra in (extras or "").split(",") if extra.strip()]
        try:
            return Parsed(name, extras, spec_of(inside or behind or ""), None, marker or "")
        except (InvalidSpecifier, InvalidVersion):
            pass  # said better below
    read = Requirement(line)
    marker = str(read.marker) if read.marker else ""
    return Parsed(read.name, read.extras, spec_of(str(read.specifier)), read.url, marker)


def parse_requirement(line: str, where: str) -> Parsed:
    try:
        return parse(line)
    except ValueError as error:  # what packaging raises is one
        reason = str(error).split("\n")[0]
        raise Failure("usage", f"{where}: '{line}' is not a requirement: {reason}") from None


class Wanted:
    """One requirement of somebody, its marker already found true."""

    __slots__ = ("name", "extras", "ident", "spec", "url", "exact")

    def __init__(self, name, extras=frozenset(), spec=None, url=None):
        self.name = name
        self.extras = extras
        self.ident = (name, extras)
        self.spec = spec if spec is not None else spec_of("")
        self.url = url
        self.exact = None  # the text of the one release that will do

    @property
    def text(self) -> str:
        """As a person would write it."""
        extras = f"[{','.join(sorted(self.extras))}]" if self.extras else ""
        if self.url:
            return f"{self.name}{extras} @ {self.url}"
        spec = f"=={self.exact}" if self.exact else re.sub(r"\s+", "", self.spec.text)
        return f"{self.name}{extras}{spec}"

    def allows(self, release) -> bool:
        return release.text == self.exact if self.exact is not None else self.spec.allows(release)

    def parts(self) -> list:
        """As pip does: what is said of a version or URL is said of the dist without extras, too."""
        if self.extras and (self.url or self.spec.clauses):
            return [Wanted(self.name, frozenset(), self.spec, self.url), self]
        return [self]


def wanted_of(parsed: Parsed) -> Wanted:
    return Wanted(parsed.name, parsed.extras, parsed.spec, parsed.url)

