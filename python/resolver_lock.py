# SPDX-License-Identifier: Apache-2.0
"""pylock.toml (PEP 751), as pip, uv and others write it: which of its wheels are for us, and which
sdists are to be built when that is allowed.

Runs in: the resolver's process (see resolver.py). A lock is taken as it stands: nothing of it is
resolved again and no index is asked.
"""

import itertools
import re

from resolver_files import (
    Asked,
    check_python,
    holds,
    local_wheel,
    read_toml,
    split_sdist,
    split_wheel,
    strings,
    url_filename,
)
from resolver_input import Failure, Wanted, canonical
from resolver_versions import version_key

MEMBER = re.compile(r"""(['"])([^'"]*)\1\s+(not\s+)?in\s+(extras|dependency_groups)\b""")


def rank_of(parts, ranks: dict):
    """The best rank of compressed tags; None when none fits."""
    found = [
        ranks[tag]
        for tag in ("-".join(one) for one in itertools.product(*(p.split(".") for p in parts)))
        if tag in ranks
    ]
    return min(found, default=None)


class Lock:
    def __init__(self, asked: Asked, text: str, where: str, ranks: dict):
        self.asked = asked
        self.where = where
        self.what = where.rpartition("/")[2]
        self.ranks = ranks
        self.document = read_toml(text, self.what)
        if not str(self.document.get("lock-version", "")).startswith("1."):
            raise Failure("usage", f"{self.what}: lock-version is missing or not 1.x")
        check_python(self.document.get("requires-python"), asked.python, self.what)
        self.sets = {"extras": self.chosen("extras", "extras"), "dependency_groups": self.groups()}

    def chosen(self, key: str, option: str) -> set:
        have = {canonical(x) for x in strings(self.document.get(key, []), f"{self.what}: {key}")}
        want = {canonical(x) for x in self.asked.request.get(option, [])}
        for name in sorted(want - have):
            shown = ", ".join(sorted(have)) or "none"
            raise Failure("not_found", f"{self.what} was not locked with '{name}'; its {key} are {shown}")
        return want

    def groups(self) -> set:
        default = strings(self.document.get("default-groups", []), f"{self.what}: default-groups")
        return self.chosen("dependency-groups", "groups") | {canonical(x) for x in default}

    def holds(self, marker: str) -> bool:
        def member(match):
            inside = canonical(match[2]) in self.sets[match[4]]
            # a comparison that is always true, or always false: packaging knows no sets
            return f"os_name {'==' if inside is not bool(match[3]) else '!='} '{os_name}'"

        os_name = self.asked.python.markers.get("os_name", "")
        return holds(self.asked, MEMBER.sub(member, marker), self.what)

    def check_environment(self):
        listed = strings(self.document.get("environments", []), f"{self.what}: environments")
        if listed and not any(self.holds(marker) for marker in listed):
            raise Failure(
                "conflict",
                f"{self.what} is not for {self.asked.python.describe()}: none of its environments "
                "is; lock again for this one",
            )

    def wheels_of(self, package: dict) -> list:
        wheels = list(package.get("wheels", []))
        archive = package.get("archive")
        if archive and self.filename(archive).endswith(".whl"):
            wheels.append(archive)
        return wheels

    @staticmethod
    def filename(wheel: dict) -> str:
        path = wheel.get("path", "").rpartition("/")[2]
        return wheel.get("name") or path or url_filename(wheel.get("url", ""))

    def refuse(self, package: dict, name: str):
        if package.get("wheels"):
            raise Failure(
                "not_found",
                f"{self.what} has wheels of {name} but none that fits "
                f"{self.asked.python.describe()}: lock again for this interpreter"
                + (", or use its sdist (--allow-sdist)" if package.get("sdist") else ""),
            )
        kinds = {"vcs": "version control", "directory": "a directory", "sdist": "source only"}
        found = [word for key, word in kinds.items() if key in package]
        help = "lock a version that has one, or build it (pip wheel) and lock the wheel"
        if not found or found[0] == kinds["sdist"]:
            help = "--allow-sdist builds it, in a sandbox; or lock a version that has one"
        raise Failure(
            "not_found",
            f"{self.what} has {name} from {found[0] if found else 'source only'}; Pipsqueak installs "
            f"only wheels: {help}",
        )

    def dist(self, package: dict):
        """The best wheel; None: it is the project itself, whose code is there already."""
        name = canonical(str(package.get("name", "")))
        directory = package.get("directory")
        if directory and directory.get("path", "") in (".", "./", ""):
            return None
        best = None
        for wheel in self.wheels_of(package):
            filename = self.filename(wheel).replace("%2B", "+")
            split = split_wheel(filename)
            rank = rank_of(split[3], self.ranks) if split and split[0] == name else None
            if rank is not None and (best is None or (-rank, split[2]) > best[0]):
                best = ((-rank, split[2]), filename, wheel, split)
        if best is None:
            sdist = self.sdist_of(package)
            if sdist is None:
                self.refuse(package, name)
            return self.build_of(package, name, sdist)
        _, filename, wheel, split = best
        version = package.get("version")
        if version and version_key(str(version)) != version_key(split[1]):
            raise Failure("usage", f"{self.what}: {filename} is not version {version} of {name}")
        return self.entry(name, filename, wheel, split[1])

    def sdist_of(self, package: dict):
        archive = package.get("archive") or package.get("sdist")
        if not archive or not self.asked.allow_sdist or not split_sdist(self.filename(archive)):
            return None
        return archive

    def build_of(self, package: dict, name: str, sdist: dict) -> dict:
        filename = self.filename(sdist)
        version = str(package.get("version") or split_sdist(filename)[1])
        if not version_key(version):
            raise Failure("usage", f"{self.what} does not say which version of {name} {filename} is")
        entry = self.entry(name, filename, sdist, version)
        kept = {key: entry[key] for key in ("filename", "url", "sha256", "size")}
        return {"name": name, "version": version, "build": kept}

    def entry(self, name: str, filename: str, wheel: dict, version: str) -> dict:
        url = wheel.get("url", "")
        path = wheel.get("path") or (url if url.startswith("file:") else None)
        sha256 = wheel.get("hashes", {}).get("sha256", "").lower()
        size = int(wheel.get("size", 0))
        if path:
            url, known = self.local(path)
            if sha256 and sha256 != known["sha256"]:
                raise Failure("corrupt", f"{self.what}: {filename} has sha256 {known['sha256']}, not {sha256}")
            sha256, size = known["sha256"], known["size"]
        if not url or not sha256:
            lacks = "sha256" if url else "URL"
            raise Failure("usage", f"{self.what}: {filename} has no {lacks}; lock it again")
        return {
            "name": name,
            "version": version,
            "filename": filename,
            "url": url.split("#")[0],
            "sha256": sha256,
            "size": size,
        }

    def local(self, path: str):
        url = local_wheel(self.asked, path, self.where, self.what)
        return url, self.asked.local[url]

    def dists(self) -> list:
        found = {}
        for package in self.document.get("packages", []):
            marker = package.get("marker")
            if marker and not self.holds(marker):
                continue
            if package.get("requires-python"):
                check_python(package["requires-python"], self.asked.python, str(package.get("name")))
            dist = self.dist(package)
            if dist is None:
                continue
            if dist["name"] in found:
                raise Failure("usage", f"{self.what}: {dist['name']} is there twice for this interpreter")
            found[dist["name"]] = dist
        return list(found.values())


def read_pylock(asked: Asked, text: str, where: str, ranks: dict):
    try:
        lock = Lock(asked, text, where, ranks)
        lock.check_environment()
        asked.locked = lock.dists()
    except (AttributeError, TypeError, ValueError, KeyError) as error:
        raise Failure("usage", f"{where} is malformed: {error}") from None
    for dist in asked.locked:  # what is asked for beyond the lock must go along with it
        pin = Wanted(dist["name"])
        pin.exact = dist["version"]
        asked.constraints.setdefault(dist["name"], []).append(pin)
