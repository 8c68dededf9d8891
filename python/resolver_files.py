# SPDX-License-Identifier: Apache-2.0
"""What the caller asks for, out of every form that requirements come in.

Runs in: the resolver's process (see resolver.py). It has no files: the texts of those that others
name (-r, -c), and what is known of local wheels, come with the request under the name that the
naming file's directory and the written name give together, as C joins them (base/needs.c).
"""

import datetime
import os
import re
import shlex
import tomllib
from urllib.parse import unquote, urlsplit

from packaging.specifiers import InvalidSpecifier
from resolver_input import Failure, Python, Wanted, canonical, parse_requirement, wanted_of
from resolver_versions import spec_of, version_key

MAX_DEPTH = 16  # of files that name files
VCS = re.compile(r"(?:[^@]*@\s*)?(?:git|hg|svn|bzr)\+")
LOCAL_SUM = re.compile(r"[#&]sha256=([0-9a-fA-F]{64})")
COMMENT = re.compile(r"(^|\s+)#.*$")
FILE = re.compile(
    r"(?P<path>[^\[\];]*?\.(?:whl|tar\.gz|zip|tgz|tar\.bz2|tar\.xz))(?![^\s\[;?#])\s*"
    r"(?:\[(?P<extras>[^\]]*)\])?(?P<rest>.*)",
    re.S,
)
NAMED = re.compile(r"\s*([A-Za-z0-9][A-Za-z0-9._-]*)\s*(?:\[([^\]]*)\])?\s*@\s*(\S.*)", re.S)
SDIST = (".tar.gz", ".zip", ".tgz", ".tar.bz2", ".tar.xz")  # as src/index/name.c has it
NO_SOURCE = "build a wheel of it (pip wheel) and give the wheel's path or URL"
ALLOW = "--allow-sdist builds it here, in a sandbox"


class Asked:
    """What the caller asks for, from all kinds of input."""

    def __init__(self, request: dict, python: Python):
        self.request = request
        self.python = python
        self.wanted = []
        self.constraints = {}  # name -> list of Wanted
        self.hashes = {}  # name -> set of sha256
        self.has_hash = False  # any line has, also one that its marker leaves out
        self.summed = set()  # names whose URL says its sha256
        self.must_hash = None  # told by --require-hashes or --no-require-hashes; None: if one has a hash
        self.sources = []  # (mode, URL or path): indexes and find-links that a file names
        self.pre = {}  # name or ":all:" -> may prereleases be taken
        self.no_binary, self.only_binary = set(), set()  # names, ":all:"
        self.prefer_binary = False
        self.allow_sdist = bool(request.get("allow_sdist"))
        self.locked = None  # dists of a lock
        self.local = {}  # URL of a local wheel -> {"sha256", "size"}
        self.before = None  # files uploaded from then on do not count

    def add(self, wanted: Wanted):
        self.wanted.append(wanted)

    def needs_hash(self, name: str) -> bool:
        """pip's rule: once a requirement or constraint has a hash, all that is installed must have one."""
        must = self.has_hash if self.must_hash is None else self.must_hash
        return must and name not in self.hashes and name not in self.summed

    def allows_pre(self, name: str):
        return self.pre.get(name, self.pre.get(":all:"))

    def formats(self, name: str):
        """(wheels, sdists): may they be taken? pip's rule, but that sdists must be allowed, too."""
        if name in self.only_binary:
            return True, False
        if name in self.no_binary:
            return False, self.allow_sdist
        if ":all:" in self.only_binary:
            return True, False
        return ":all:" not in self.no_binary, self.allow_sdist


# --- one requirement ---------------------------------------------------------------------------


def split_wheel(filename: str):
    """(name, version, build, tags) of a wheel's file name; None when it is none."""
    parts = filename[:-4].split("-") if filename.endswith(".whl") else []
    if len(parts) not in (5, 6) or not version_key(parts[1]):
        return None
    return canonical(parts[0]), parts[1], build_order(parts[2] if len(parts) == 6 else ""), parts[-3:]


def split_sdist(filename: str):
    """(name, version) of an sdist's file name; the version "" when it says none, None: no sdist."""
    end = next((end for end in SDIST if filename.endswith(end)), None)
    if end is None:
        return None
    name, dash, version = filename[: -len(end)].rpartition("-")
    return (canonical(name), version) if dash and version_key(version) else ("", "")


def build_order(build: str):
    match = re.match(r"(\d{1,100})(.*)", build)
    return (int(match[1]), match[2]) if match else ()


def url_filename(url: str) -> str:
    return unquote(urlsplit(url).path.rpartition("/")[2])


def beside(where: str, written: str) -> str:
    """The name of a file that `where` names; as base/needs.c joins them."""
    return os.path.join(os.path.dirname(where), written)


def local_wheel(asked: Asked, path: str, base: str, where: str) -> str:
    """The URL of a wheel that came along with the request."""
    if path.startswith("file:"):
        path = unquote(path[5:])
        path = path[2:] if path.startswith("///") else path
    known = asked.request.get("wheels", {}).get(beside(base, path))
    sums = known and asked.request.get("sums", {}).get(known[0])
    if not sums:
        raise Failure("not_found", f"{where}: there is no file '{path}' that can be read")
    url = f"file://{known[0]}"
    asked.local[url] = sums
    return url


def file_wanted(url: str, named, extras, where: str) -> Wanted:
    """named: what the requirement calls it, or None. An sdist's file name need not say it."""
    filename = url_filename(url)
    split = split_wheel(filename) or split_sdist(filename)
    if not split:
        raise Failure("usage", f"{where}: '{filename}' is not a wheel's file name")
    name = split[0] or (canonical(named) if named else "")
    if not name:
        raise Failure("usage", f"{where}: '{filename}' does not say of what it is; write NAME @ before it")
    extras = frozenset(canonical(e.strip()) for e in extras.split(",") if e.strip())
    return Wanted(name, extras, None, url)


def refuse_source(asked: Asked, text: str, where: str):
    if VCS.match(text):
        raise Failure("usage", f"{where}: '{text}' is fetched by version control; {NO_SOURCE}")
    target = text.split(";")[0].split("#")[0].split("[")[0].strip()
    if target.endswith((*SDIST, ".tar")) and not (asked.allow_sdist and target.endswith(SDIST)):
        why = "is source and Pipsqueak installs wheels"
        raise Failure("usage", f"{where}: '{text}' {why}; {ALLOW}, or {NO_SOURCE}")


def direct_wanted(asked: Asked, text: str, where: str):
    """A wheel or sdist by URL or path, with or without a name before it; None: something else."""
    named = NAMED.match(text)
    target = named[3] if named else text
    if not (named or FILE.fullmatch(text) or ".whl" in text or re.match(r"https?://|file:|\.{0,2}/", text)):
        return None
    if asked.request.get("build"):  # it could tell the outside what the code of an sdist has seen
        raise Failure("usage", f"'{text}': what a build requires is taken from the index only")
    refuse_source(asked, text, where)
    found = FILE.match(target)
    if not found:
        kind = "a directory" if not named and "://" not in text else "not a wheel"
        raise Failure("usage", f"{where}: '{text}' is {kind}; {NO_SOURCE}")
    rest, _, marker = found["rest"].partition(";")
    if marker and not holds(asked, marker.strip(), where):
        return ()
    url = found["path"].strip()
    if not re.match(r"https?://", url):
        if "://" in url and not url.startswith("file:"):
            raise Failure("usage", f"{where}: '{text}': only http, https and file URLs can be used")
        url = local_wheel(asked, url, base_of(where), where)
        local_sum, rest = LOCAL_SUM.search(rest), ""
        if local_sum:  # nobody but us will compare it
            asked.hashes.setdefault(file_wanted(url, None, "", where).name, set()).add(local_sum[1].lower())
    elif "@" in urlsplit(url).netloc:
        raise Failure(
            "usage",
            f"{where}: the URL of {url_filename(url)} holds a password, which would stand in the "
            "lock; put it into netrc or pip's configuration",
        )
    wanted = file_wanted(url, named and named[1], found["extras"] or "", where)
    wanted.url += rest.strip()  # "?..." and "#sha256=..."
    if named and canonical(named[1]) != wanted.name:
        raise Failure("usage", f"{where}: '{text}': the {'wheel' if url.endswith('.whl') else 'file'} is one of {wanted.name}")
    if named and named[2]:
        extras = frozenset(canonical(e.strip()) for e in named[2].split(",") if e.strip())
        wanted = Wanted(wanted.name, wanted.extras | extras, None, wanted.url)
    return wanted


def base_of(where: str) -> str:
    return "" if where == "--with" else where


def holds(asked: Asked, marker: str, where: str, extras=()) -> bool:
    try:
        return asked.python.holds(marker, tuple(extras))
    except ValueError as error:
        raise Failure("usage", f"{where}: '{marker}' is not a requirement's marker: {error}") from None


def read_one(asked: Asked, text: str, where: str):
    """The Wanted of one line; None when its marker is false here."""
    if VCS.match(text):
        refuse_source(asked, text, where)
    wanted = direct_wanted(asked, text, where)
    if wanted is not None:
        return wanted or None
    parsed = parse_requirement(text, where)
    if not holds(asked, parsed.marker, where):
        return None
    return wanted_of(parsed)


def read_line(asked: Asked, text: str, where: str):
    wanted = read_one(asked, text, where)
    if wanted:
        asked.add(wanted)
    return wanted


# --- requirements.txt --------------------------------------------------------------------------


def joined_lines(text: str):
    """Continued lines joined, comments gone: as pip does it."""
    parts = []
    for line in text.splitlines():
        comment = COMMENT.match(line)
        if line.endswith("\\") and not comment:
            parts.append(line.strip("\\"))
            continue
        parts.append(" " + line if comment else line)
        yield COMMENT.sub("", "".join(parts)).strip()
        parts = []
    if parts:
        yield COMMENT.sub("", "".join(parts)).strip()


class Options:
    """The options of one requirements file, in pip's spelling."""

    IGNORED = {"--no-cache-dir": 0, "--use-feature": 1, "--trusted-host": 1}
    VALUED = ("-i", "--index-url", "--pypi-url", "--extra-index-url", "-f", "--find-links", "-r",
              "--requirement", "-c", "--constraint", "-e", "--editable", "--no-binary",
              "--only-binary", "--all-releases", "--only-final")

    def __init__(self, asked: Asked, where: str, constraint: bool, depth: int):
        self.asked = asked
        self.where = where
        self.constraint = constraint
        self.depth = depth

    def line(self, text: str):
        try:
            words = shlex.split(text)
        except ValueError as error:
            raise Failure("usage", f"{self.where}: an option's line: {error}") from None
        while words:
            name, equals, value = words.pop(0).partition("=")
            if not name.startswith("--") and len(name) > 2:
                name, value, equals = name[:2], name[2:] + equals + value, "="
            if name in self.VALUED or self.IGNORED.get(name):
                if not equals and not words:
                    raise Failure("usage", f"{self.where}: {name} needs a value")
                value = value if equals else words.pop(0)
            self.one(name, value)

    def one(self, name: str, value: str):
        asked = self.asked
        if name in ("-i", "--index-url", "--pypi-url"):
            asked.sources.append(("first", value))
        elif name == "--extra-index-url":
            asked.sources.append(("extra", value))
        elif name == "--no-index":
            asked.sources.append(("none", ""))
        elif name in ("-f", "--find-links"):
            asked.sources.append(("links", self.place(value)))
        elif name in ("-r", "--requirement", "-c", "--constraint"):
            read_file(asked, beside(self.where, value), self.constraint or "c" in name[:3], self.depth + 1)
        elif name == "--prefer-binary":
            asked.prefer_binary = True
        elif name == "--pre":
            asked.pre[":all:"] = True
        elif name in ("--all-releases", "--only-final"):
            self.releases(value, name == "--all-releases")
        elif name in ("--no-binary", "--only-binary"):
            self.formats(value, name == "--no-binary")
        elif name in ("--require-hashes", "--no-require-hashes"):
            must = name == "--require-hashes"
            if asked.must_hash not in (None, must):
                raise Failure("usage", f"{self.where}: --require-hashes and --no-require-hashes exclude each other")
            asked.must_hash = must
        elif name in ("-e", "--editable"):
            raise Failure("usage", f"{self.where}: '-e {value}' installs source in place; {NO_SOURCE}")
        elif name not in self.IGNORED:
            raise Failure("usage", f"{self.where}: '{name}' is not an option that can be used here; remove it")

    def place(self, value: str) -> str:
        if "://" in value:
            return value
        return os.path.normpath(os.path.join(self.asked.request.get("root", "/"), beside(self.where, value)))

    def releases(self, value: str, pre: bool):
        for name in value.split(","):
            if name == ":none:":
                self.asked.pre = {n: p for n, p in self.asked.pre.items() if p != pre}
            elif name == ":all:":
                self.asked.pre = {":all:": pre}
            else:
                self.asked.pre[canonical(name)] = pre

    def formats(self, value: str, source: bool):
        target, other = self.asked.no_binary, self.asked.only_binary
        if not source:
            target, other = other, target
        for name in value.split(","):
            if name == ":none:":
                target.clear()
            elif name == ":all:":
                target.clear()
                other.clear()
                target.add(name)
            else:
                target.add(canonical(name))
                other.discard(canonical(name))


def read_hashes(asked: Asked, options: str, where: str) -> set:
    found, others = set(), []
    try:
        words = shlex.split(options)
    except ValueError as error:
        raise Failure("usage", f"{where}: '{options}': {error}") from None
    while words:
        name, equals, value = words.pop(0).partition("=")
        if name not in ("--hash", "--config-settings", "--global-option", "--config-setting"):
            raise Failure(
                "usage",
                f"{where}: '{name}' is not supported: only --hash=sha256:... may follow a requirement",
            )
        value = value if equals else (words.pop(0) if words else "")
        if name != "--hash":
            continue  # of use to builds only
        kind, _, digest = value.partition(":")
        if kind == "sha256" and re.fullmatch(r"[0-9a-fA-F]{64}", digest):
            found.add(digest.lower())
        elif kind in ("sha384", "sha512") and digest:
            others.append(kind)
        else:
            raise Failure("usage", f"{where}: '--hash={value}' is not a hash: write --hash=sha256:...")
    if others and not found:
        raise Failure("usage", f"{where}: hashes are {others[0]} only; add --hash=sha256:...")
    return found


def split_options(line: str):
    """pip's rule: options begin with the first word that starts with a dash."""
    words = line.split(" ")
    for at, word in enumerate(words):
        if word.startswith("-"):
            return " ".join(words[:at]).strip(), " ".join(words[at:])
    return line, ""


def read_requirements(asked: Asked, text: str, where: str, constraint: bool = False, depth: int = 0):
    """requirements.txt in all that pip reads of it, but VCS references and editables."""
    options = Options(asked, where, constraint, depth)
    for line in joined_lines(text):
        head, rest = split_options(line)
        if not line:
            continue
        if not head:
            options.line(line)
            continue
        wanted = read_one(asked, head, where)
        hashes = read_hashes(asked, rest, where) if rest else set()
        asked.has_hash = asked.has_hash or bool(hashes)
        if not wanted:
            continue
        if wanted.url and "#sha256=" in wanted.url:
            asked.summed.add(wanted.name)
        if hashes:
            asked.hashes[wanted.name] = asked.hashes.get(wanted.name, set()) | hashes
        if not constraint:
            asked.add(wanted)
        elif wanted.extras:
            raise Failure("usage", f"{where}: a constraint cannot have extras: '{head}'")
        else:
            asked.constraints.setdefault(wanted.name, []).append(wanted)


def read_file(asked: Asked, name: str, constraint: bool, depth: int):
    if "://" in name:
        raise Failure("usage", f"'{name}': requirements are read from files only; save it beside and name that")
    text = asked.request.get("files", {}).get(name)
    if text is None:
        raise Failure("usage", f"the requirements name the file '{name}', which is not there")
    if depth > MAX_DEPTH:
        raise Failure("usage", f"'{name}': requirements files name each other in a circle")
    read_requirements(asked, text, name, constraint, depth)


# --- pyproject.toml and script blocks ----------------------------------------------------------


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
        fits = spec_of(requires).allows_text(str(python.full))
    except (InvalidSpecifier, ValueError):
        raise Failure("usage", f"{what}: requires-python '{requires}' is malformed") from None
    if not fits:
        raise Failure(
            "conflict",
            f"{what} wants Python {requires}, but this is {python.full}; "
            "choose another interpreter with --python",
        )


def strings(value, what: str) -> list:
    if not isinstance(value, list) or not all(isinstance(line, str) for line in value):
        raise Failure("usage", f"{what} must be a list of strings")
    return value


def table_of(value, what: str) -> dict:
    if not isinstance(value, dict):
        raise Failure("usage", f"{what} must be a table")
    return value


def refuse_sources(document: dict, names, what: str):
    """[tool.uv.sources] says where a dist comes from; to ignore it would be another dist."""
    tool = document.get("tool", {})
    uv = tool.get("uv", {}) if isinstance(tool, dict) else {}
    sources = uv.get("sources", {}) if isinstance(uv, dict) else {}
    for name in sources if isinstance(sources, dict) else ():
        if canonical(name) in names:
            raise Failure(
                "usage",
                f"{what}: [tool.uv.sources] says where '{name}' comes from, which only uv reads; "
                "run 'uv export --format pylock.toml -o pylock.toml' and use that",
            )


def read_lines(asked: Asked, lines: list, document: dict, where: str, what: str):
    before = len(asked.wanted)
    for line in lines:
        try:
            read_line(asked, line, where)
        except Failure as failure:
            raise Failure(failure.kind, failure.text.replace(where, what, 1)) from None
    refuse_sources(document, {w.name for w in asked.wanted[before:]}, what)


def read_block(asked: Asked, text: str, where: str):
    what = "the script's block"
    table = read_toml(text, what)
    check_python(table.get("requires-python"), asked.python, what)
    lines = strings(table.get("dependencies", []), f"{what}: dependencies")
    read_lines(asked, lines, table, where, what)


class Project:
    """A pyproject.toml."""

    def __init__(self, text: str, where: str):
        self.where = where
        self.what = os.path.basename(where)
        self.document = read_toml(text, self.what)
        self.project = table_of(self.document.get("project", {}), f"{self.what}: [project]")
        self.name = canonical(str(self.project.get("name", "")))
        self.dynamic = self.project.get("dynamic", [])
        self.check()

    def check(self):
        tool = self.document.get("tool", {})
        if "project" not in self.document and isinstance(tool, dict) and "poetry" in tool:
            raise Failure(
                "usage",
                f"{self.what} has no [project] table, and Poetry's own is not read; run "
                "'poetry export -o requirements.txt' and use that",
            )
        if "dependencies" in self.dynamic:
            raise Failure(
                "usage", f"{self.what}: dependencies are dynamic; write them into [project]"
            )

    def lines(self, extras, groups) -> list:
        found = strings(self.project.get("dependencies", []), f"{self.what}: dependencies")[:]
        for extra in extras:
            found += self.extra(canonical(extra), ())
        for group in groups:
            found += self.group(canonical(group), ())
        return found

    def extra(self, extra: str, path) -> list:
        if "optional-dependencies" in self.dynamic:
            raise Failure("usage", f"{self.what}: optional-dependencies are dynamic; write them into [project]")
        title = f"{self.what}: [project.optional-dependencies]"
        known = table_of(self.project.get("optional-dependencies", {}), title)
        known = {canonical(name): lines for name, lines in known.items()}
        if extra not in known:
            have = ", ".join(sorted(known)) or "none"
            raise Failure("not_found", f"{self.what} has no extra '{extra}'; it has {have}")
        found = []
        for line in strings(known[extra], title):
            own = self.own_extras(line)
            for other in own or ():
                if other not in path and other != extra:
                    found += self.extra(other, (*path, extra))
            if own is None:
                found.append(line)
        return found

    def own_extras(self, line: str):
        """`this-project[a,b]` in an extra stands for the lines of a and b."""
        if not self.name or canonical(re.split(r"[^A-Za-z0-9._-]", line.strip())[0]) != self.name:
            return None
        parsed = parse_requirement(line, self.what)
        return sorted(parsed.extras) if parsed.name == self.name else None

    def group(self, group: str, path) -> list:
        """PEP 735."""
        title = f"{self.what}: [dependency-groups]"
        known = table_of(self.document.get("dependency-groups", {}), title)
        known = {canonical(name): entries for name, entries in known.items()}
        if group not in known:
            have = ", ".join(sorted(known)) or "none"
            raise Failure("not_found", f"{self.what} has no dependency group '{group}'; it has {have}")
        if group in path:
            raise Failure("usage", f"{title}: the group '{group}' includes itself")
        if not isinstance(known[group], list):
            raise Failure("usage", f"{title}: '{group}' must be a list")
        found = []
        for entry in known[group]:
            if isinstance(entry, str):
                found.append(entry)
            elif isinstance(entry, dict) and list(entry) == ["include-group"]:
                found += self.group(canonical(str(entry["include-group"])), (*path, group))
            else:
                raise Failure("usage", f"{title}: '{group}' holds what is neither a requirement nor an include-group")
        return found


def read_pyproject(asked: Asked, text: str, where: str):
    request = asked.request
    project = Project(text, where)
    check_python(project.project.get("requires-python"), asked.python, project.what)
    lines = project.lines(request.get("extras", []), request.get("groups", []))
    if request.get("uv_lock"):
        raise Failure(
            "usage",
            "uv.lock is not read; write a lock that every tool reads with "
            "'uv export --format pylock.toml -o pylock.toml', or remove uv.lock",
        )
    read_lines(asked, lines, project.document, where, project.what)


# --- the whole request -------------------------------------------------------------------------

DURATION = re.compile(r"\s*(?:P?T?)(\d{1,6})\s*(w|weeks?|d|days?|h|hours?|m|minutes?)\s*\Z", re.I)
SECONDS = {"w": 604800, "d": 86400, "h": 3600, "m": 60}


def read_moment(text: str, now: float) -> float:
    """--exclude-newer: a day (which still counts), a moment, or how long ago. Seconds since 1970."""
    span = DURATION.match(text)
    if span:
        return now - int(span[1]) * SECONDS[span[2][0].lower()]
    try:
        day = len(text.strip()) == 10
        moment = datetime.datetime.fromisoformat(text.strip())
    except ValueError:
        raise Failure(
            "usage",
            f"--exclude-newer: '{text}' is neither a date (2026-01-31, 2026-01-31T12:00:00Z) "
            "nor a duration ('7 days', '36 hours')",
        ) from None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=datetime.timezone.utc)
    return moment.timestamp() + (86400 if day else 0)


def read_request(request: dict, python: Python, read_lock) -> Asked:
    """read_lock(asked, text, name): of a pylock.toml."""
    asked = Asked(request, python)
    if request.get("exclude_newer"):
        asked.before = read_moment(request["exclude_newer"], request.get("now", 0))
    if request.get("pre"):
        asked.pre[":all:"] = True
    asked.sources += [("extra", url) for url in request.get("extra_indexes", [])]
    asked.sources += [("links", place) for place in request.get("links", [])]
    for line in request.get("with", []):
        if line.strip():
            read_line(asked, line.strip(), "--with")
    if "requirements" in request:
        read_requirements(asked, request["requirements"], request.get("requirements_name", "requirements.txt"))
    if "pep723" in request:
        read_block(asked, request["pep723"], request.get("pep723_name", "the script's block"))
    if "pyproject" in request:
        read_pyproject(asked, request["pyproject"], request.get("pyproject_name", "pyproject.toml"))
    elif (request.get("extras") or request.get("groups")) and "pylock" not in request:
        raise Failure("usage", "--extra and --group are of a pyproject.toml or a pylock.toml, and there is none")
    if "pylock" in request:
        read_lock(asked, request["pylock"], request.get("pylock_name", "pylock.toml"))
    return asked

