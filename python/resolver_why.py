# SPDX-License-Identifier: Apache-2.0
"""Why there is no answer, in words: who wants what, and which versions exist.

Runs in: the resolver's process (see resolver.py).
"""

import re

from resolver_files import split_wheel
from resolver_input import Failure, Wanted
from resolver_lock import rank_of
from resolver_versions import version_key

SHOWN = 6  # versions, tags or causes in one sentence
SOURCE_END = re.compile(r"\.(tar\.gz|zip|tar\.bz2|tgz)$")


def listed(words: list) -> str:
    more = len(words) - SHOWN
    return ", ".join(words[:SHOWN]) + (f" and {more} more" if more > 0 else "")


def why_source(name: str) -> str:
    return (
        f"'{name}' is to be built from source (--no-binary), which --allow-sdist does, in a sandbox; "
        "else remove that line"
    )


def wanted_by(parent) -> str:
    return f"{parent} wants" if parent is not None else "you ask for"


class Probe:
    """A version that is looked at only by its number."""

    __slots__ = ("text", "key", "pre")

    def __init__(self, text: str):
        self.text = text
        self.key, self.pre = version_key(text)


def all_files(feed, name: str):
    """(Probe, tags or None) of every file on the page, fitting or not."""
    for filename in feed.names_of_all(name):
        split = split_wheel(filename)
        text = split[1] if split else SOURCE_END.sub("", filename).rpartition("-")[2]
        if version_key(text):
            yield Probe(text), split[3] if split else None


def newest_first(probes) -> list:
    found = {probe.key: probe for probe in probes}
    return [found[key].text for key in sorted(found, reverse=True)]


def why_python(feed, name: str, wanted: Wanted):
    """Wheels fit the platform, but not this Python."""
    found = []
    for release in feed.page(name).releases:
        for file in release.files if wanted.allows(release) else ():
            text = f"{release.text} wants Python {file.python}"
            if file.python and not feed.python.allows(file.python) and text not in found:
                found.append(text)
    return found


def why_no_wheel(feed, name: str, wanted: Wanted) -> str:
    """No release fits although the dist is there: by its file names, why."""
    tags, sources, probes = [], 0, []
    for probe, parts in all_files(feed, name):
        probes.append(probe)
        if not wanted.allows(probe):
            continue
        if parts is None:
            sources += 1
        elif "-".join(parts) not in tags:
            tags.append("-".join(parts))
    if tags and any(rank_of(t.split("-"), feed.ranks) is not None for t in tags):
        pythons = why_python(feed, name, wanted)
        if pythons:
            return (
                f"every wheel of '{wanted.text}' wants another Python version than "
                f"{feed.python.full} ({listed(pythons)}); loosen the version or use --python"
            )
        if feed.asked.before is not None:
            return f"'{wanted.text}' has no wheel that was uploaded before --exclude-newer"
        return f"every wheel of '{wanted.text}' is yanked or a prerelease; name the version with =="
    if sources and feed.asked.allow_sdist and feed.asked.formats(name)[1]:
        pythons = why_python(feed, name, wanted)
        why = f"want another Python version than {feed.python.full} ({listed(pythons)})"
        return f"the files of '{wanted.text}' {why if pythons else 'are yanked, prereleases or too new'}"
    if tags:
        return (
            f"'{wanted.text}' has no wheel for {feed.python.describe()}; there are wheels for "
            f"{listed(tags[::-1])}{', and source, which --allow-sdist builds' if sources else ''}"
        )
    if sources:
        return (
            f"'{wanted.text}' is there only as source: --allow-sdist builds a wheel of it, in a "
            "sandbox; or choose a version that has one"
        )
    if not probes:
        return f"the index has no files of '{name}'"
    have = newest_first(probes)
    return (
        f"no version of '{name}' satisfies '{wanted.text}'; the newest is {have[0]} "
        f"(there are {listed(have)})"
    )


def why_alone(feed, wanted: Wanted, parent, matches):
    """Is this one requirement impossible whatever else is asked for?"""
    by = f" (wanted by {parent})" if parent is not None else ""
    if not wanted.name:
        return Failure(
            "conflict",
            f"{parent} wants Python {wanted.exact}, but this is {feed.python.full}; "
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
    if feed.asked.hashes.get(wanted.name) and any(wanted.allows(r) for r in page.releases):
        text = f"no wheel of '{wanted.text}' has a hash that requirements.txt lists"
        return Failure("conflict", text)
    return Failure("not_found", why_no_wheel(feed, wanted.name, wanted) + by)


def why_metadata(feed, wanted: Wanted, parent, matches):
    """Every version has metadata that pip would not take: the newest one's reason."""
    if not wanted.name or wanted.url or wanted.exact:
        return None
    for release, file in matches(feed, wanted.name, [wanted], ()):
        metadata = feed.metadata_of(wanted.name, file.url)
        if not metadata.problem and metadata.belongs_to(wanted.name, release):
            return None
        problem = metadata.problem or f"it is that of {metadata.name} {metadata.version}"
        return Failure("usage", f"the metadata of {wanted.name} {release.text}: {problem}")
    return None


def constraint_lines(feed, pairs) -> list:
    names = {wanted.name for wanted, _ in pairs}
    limits = feed.asked.constraints.items()
    return [f"a constraint says {w.text}" for name, some in limits if name in names for w in some]


def versions_line(feed, name: str) -> str:
    texts = [release.text for release in feed.page(name).releases]
    return f"{name} is there as {listed(texts)}" if texts else ""


def why_conflict(feed, causes, matches) -> Failure:
    pairs = [(requirement, parent) for requirement, parent in causes]
    for why in (why_alone, why_metadata):
        for wanted, parent in pairs:
            failure = why(feed, wanted, parent, matches)
            if failure:
                return failure
    said = []
    for wanted, parent in pairs:
        line = f"{wanted_by(parent)} {wanted.text}"
        if line not in said and not (wanted.exact and parent is not None):
            said.append(line)
    said += constraint_lines(feed, pairs)
    names = sorted({w.name for w, _ in pairs if w.name and not w.url})
    have = "; ".join(filter(None, (versions_line(feed, name) for name in names[:2])))
    text = "; ".join(said[:8])
    return Failure("conflict", f"these requirements exclude each other: {text} ({have})")
