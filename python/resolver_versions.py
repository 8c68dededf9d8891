# SPDX-License-Identifier: Apache-2.0
"""Versions and specifiers of PEP 440, made to be compared often.

Runs in: the resolver's process (see resolver.py). A version is a tuple that sorts as PEP 440 says;
a specifier is read once and then compares tuples. `packaging` does the same some twenty times
slower, and still has the word for every form that is not understood here.
"""

import math
import re

from packaging.specifiers import InvalidSpecifier, Specifier
from packaging.version import InvalidVersion, Version

SIMPLE_VERSION = re.compile(r"\d+(?:\.\d+)*\Z")
CLAUSE = re.compile(r"\s*(===|==|~=|!=|<=|>=|<|>)\s*([^\s,;()]+)\s*\Z")
# What may be compared here; local versions in specifiers and odd spellings are left to packaging.
PLAIN = re.compile(
    r"(?:\d+!)?(\d+(?:\.\d+)*)((?:a|b|rc)\d+)?(\.post\d+)?(\.dev\d+)?\Z"
)
FINAL = (1, "", 0)
MAX_TEXT = 200  # characters of a version; int() refuses thousands of digits


def trimmed(release) -> tuple:
    """Without trailing zeros: 1.0 and 1 are one version."""
    release = list(release)
    while len(release) > 1 and not release[-1]:
        release.pop()
    return tuple(release)


def version_key(text: str):
    """(key, is it a prerelease), where keys sort as PEP 440 says. None: not a version."""
    if len(text) > MAX_TEXT:
        return None
    if SIMPLE_VERSION.match(text):
        release = tuple(map(int, text.split(".")))
        if not release[-1]:
            release = trimmed(release)
        return (0, release, FINAL, -1, math.inf, ()), False
    try:
        version = Version(text)
    except InvalidVersion:
        return None
    pre = (0, *version.pre) if version.pre else FINAL
    if not version.pre and version.post is None and version.dev is not None:
        pre = (-1, "", 0)
    post = -1 if version.post is None else version.post
    dev = math.inf if version.dev is None else version.dev
    local = version.local.split(".") if version.local else ()
    local = tuple((1, int(p), "") if p.isdigit() else (0, 0, p) for p in local)
    key = (version.epoch, trimmed(version.release), pre, post, dev, local)
    return key, version.is_prerelease


def starts_with(release: tuple, prefix: tuple) -> bool:
    if len(release) < len(prefix):
        release += (0,) * (len(prefix) - len(release))
    return release[: len(prefix)] == prefix


class Clause:
    """One comparison: `>=1.2`."""

    __slots__ = ("operator", "version", "key", "public", "bound", "pre", "prefix", "slow")

    def __init__(self, operator: str, version: str):
        self.operator = operator
        self.version = version
        self.prefix = self.slow = None
        if len(version) > MAX_TEXT:
            raise InvalidSpecifier(f"Invalid specifier: '{operator}{version[:40]}...' is too long")
        self.pre = False
        wild = operator in ("==", "!=") and version.endswith(".*")
        plain = PLAIN.match(version[:-2] if wild else version)
        simple = plain is not None and operator != "===" and not (wild and plain.lastindex != 1)
        if operator == "~=" and simple and "." not in plain[1]:
            simple = False
        if not simple:
            self.slow = Specifier(operator + version)  # or InvalidSpecifier
            self.pre = bool(not wild and operator != "!=" and self._is_pre(version))
            return
        self.key, pre = version_key(version[:-2] if wild else version)
        self.public = self.key[:5]
        self.pre = pre and operator != "!=" and not wild
        if wild:
            self.prefix = tuple(map(int, plain[1].split(".")))
        elif operator == "<":  # below 1.0 are none of the prereleases of 1.0
            self.bound = self.key if pre else version_key(version + ".dev0")[0]
        elif operator == "~=":
            self.prefix = tuple(map(int, plain[1].split(".")))[:-1]

    @staticmethod
    def _is_pre(version: str) -> bool:
        known = version_key(version)
        return known is not None and known[1]

    def allows(self, key: tuple, pre: bool, text: str) -> bool:
        operator = self.operator
        if self.slow is not None:
            return self.slow.contains(Version(text), prereleases=True)
        if self.prefix is not None:
            hit = key[0] == self.key[0] and starts_with(key[1], self.prefix)
            if operator == "~=":
                return hit and key[:5] >= self.public
            return hit if operator == "==" else not hit
        if operator == ">=":
            return key[:5] >= self.public
        if operator == "==":
            return key[:5] == self.public
        if operator == "!=":
            return key[:5] != self.public
        if operator == "<=":
            return key[:5] <= self.public
        if operator == "<":
            return key < self.bound
        # ">": no local version of what it names, and no post release unless it names one
        if key[3] >= 0 and self.key[3] < 0 and self.key[4] == math.inf:
            return key[:3] != self.key[:3] and key[:5] > self.public
        return key[:5] > self.public


class Spec:
    """A set of clauses, as a requirement has it; "" takes everything."""

    __slots__ = ("text", "clauses", "pre", "pinned", "upper", "_known")

    def __init__(self, text: str = ""):
        self.text = text.strip()
        self.clauses = []
        for part in self.text.split(","):
            if not part.strip():
                continue
            match = CLAUSE.match(part)
            if not match:
                raise InvalidSpecifier(f"Invalid specifier: '{part.strip()}'")
            self.clauses.append(Clause(match[1], match[2]))
        named = [(c.operator, c.version) for c in self.clauses]
        self.pre = any(c.pre for c in self.clauses)
        # as pip looks at them when it chooses what to resolve next
        self.pinned = any(o[:2] == "==" and "*" not in v for o, v in named)
        self.upper = any(o in ("<", "<=", "~=") or (o == "==" and "*" in v) for o, v in named)
        self._known = {}

    def allows(self, release) -> bool:
        """release: anything with key, pre and text."""
        known = self._known.get(release.text)
        if known is None:
            known = all(c.allows(release.key, release.pre, release.text) for c in self.clauses)
            self._known[release.text] = known
        return known

    def allows_text(self, text: str) -> bool:
        known = version_key(text)
        return known is not None and all(c.allows(*known, text) for c in self.clauses)


_specs = {}


def spec_of(text: str) -> Spec:
    """The same object for the same text. Raises packaging's InvalidSpecifier."""
    spec = _specs.get(text)
    if spec is None:
        spec = _specs[text] = Spec(text)
    return spec
