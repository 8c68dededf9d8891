# SPDX-License-Identifier: Apache-2.0
"""Take an sdist apart, and build a wheel of it (PEP 517).

Runs in: a job of its own (jail/job.h, hostile), without network; standard library only. The archive
and, in `build`, the code in it are from outside: what this program reports is believed by nobody.

    build_sdist.py look  FILENAME LIMIT        by /usr/bin/python3, which has tomllib: the plan
    build_sdist.py build FILENAME LIMIT PLAN   by the interpreter of the build's environment

FILENAME says what kind of archive it is, LIMIT is how many bytes may come out of it, PLAN is what
`look` reported, with "final": true when no further requirement may be asked for. Descriptors: 0 the
archive, 1 the report, 2 what the build prints, 3 the wheel, 4 ends as soon as limits hold.

The report is one JSON object: {"requires", "backend", "path", "metadata"} of look, where metadata is
null when only a build can tell it; {"more": [...]} or {"wheel": FILENAME} of build; or {"failed": a
sentence}.
"""

import json
import os
import posixpath
import resource
import shutil
import stat
import sys
import tarfile
import traceback
import zipfile

TOP = "/tmp/sdist"
MAX_MEMBERS = 50000
MAX_TEXT = 1 << 20  # pyproject.toml, PKG-INFO, an answer of a hook
LEGACY = "setuptools.build_meta:__legacy__"
LEGACY_REQUIRES = ["setuptools>=40.8.0", "wheel"]
STATIC = ("requires-dist", "requires-python", "provides-extra")
MATTERS = ("Name", "Version", "Requires-Python", "Requires-Dist", "Provides-Extra")


class Failed(Exception):
    """A sentence for a person."""


# --- the archive -------------------------------------------------------------------------------


def inside(name: str) -> str:
    """Where the member goes; it may not leave the tree, nor go through a link."""
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if name.startswith("/") or ".." in parts or "\0" in name or "\\" in name:
        raise Failed(f"it has a member outside of it: '{name[:200]}'")
    path = os.path.join(TOP, *parts)
    parent = os.path.dirname(path) if parts else TOP
    if os.path.realpath(parent) != parent and parts:
        raise Failed(f"it writes through a link: '{name[:200]}'")
    return path


class Budget:
    def __init__(self, limit: int):
        self.limit = limit
        self.left = limit
        self.members = 0

    def member(self):
        self.members += 1
        if self.members > MAX_MEMBERS:
            raise Failed(f"it has more than {MAX_MEMBERS} members")

    def copy(self, source, path: str, executable: bool):
        """Counted as they come, for what a header says of the size may be a lie."""
        os.makedirs(os.path.dirname(path), exist_ok=True)
        if os.path.lexists(path):
            os.unlink(path)
        with open(path, "xb") as out:
            while block := source.read(1 << 16):
                self.left -= len(block)
                if self.left < 0:
                    raise Failed(f"it unpacks to more than {self.limit >> 20} MiB")
                out.write(block)
        os.chmod(path, 0o755 if executable else 0o644)


def link(member, path: str):
    """A link that stays inside. Hard links are to a member that came before."""
    base = "" if member.islnk() else posixpath.dirname(member.name)
    target = posixpath.normpath(posixpath.join(base, member.linkname))
    if member.linkname.startswith("/"):
        raise Failed(f"it links outside of itself: '{member.name[:200]}'")
    if target == ".." or target.startswith("../"):
        raise Failed(f"it links outside of itself: '{member.name[:200]}'")
    os.makedirs(os.path.dirname(path), exist_ok=True)
    if os.path.lexists(path):
        os.unlink(path)
    if member.issym():
        os.symlink(member.linkname, path)
    else:
        os.link(inside(target), path, follow_symlinks=False)


def unpack_tar(source, budget: Budget):
    with tarfile.open(fileobj=source, mode="r:*") as archive:
        for member in archive:
            budget.member()
            path = inside(member.name)
            if member.isdir():
                os.makedirs(path, exist_ok=True)
            elif member.isreg():
                budget.copy(archive.extractfile(member), path, bool(member.mode & 0o111))
                os.utime(path, (member.mtime, member.mtime))
            elif member.issym() or member.islnk():
                link(member, path)
            elif member.type not in (tarfile.XGLTYPE, tarfile.XHDTYPE):
                raise Failed(f"it has a device or something odder: '{member.name[:200]}'")


def unpack_zip(source, budget: Budget):
    with zipfile.ZipFile(source) as archive:
        for member in archive.infolist():
            budget.member()
            path = inside(member.filename)
            mode = member.external_attr >> 16
            if member.is_dir():
                os.makedirs(path, exist_ok=True)
            elif stat.S_IFMT(mode) not in (0, stat.S_IFREG):
                raise Failed(f"it has a link or a device: '{member.filename[:200]}'")
            else:
                with archive.open(member) as data:
                    budget.copy(data, path, bool(mode & 0o111))


def unpack(filename: str, limit: int) -> str:
    """The directory that holds the project."""
    os.mkdir(TOP)
    try:
        with open(0, "rb", closefd=False) as source:
            unpacker = unpack_zip if filename.endswith(".zip") else unpack_tar
            unpacker(source, Budget(limit))
    except Failed:
        raise
    except OSError as error:
        raise Failed(f"it cannot be unpacked: {error.strerror or error}") from None
    except Exception as error:  # what these modules raise for bad data has no common base
        raise Failed(f"it cannot be unpacked: {type(error).__name__}: {error}") from None
    entries = os.listdir(TOP)
    root = os.path.join(TOP, entries[0]) if len(entries) == 1 else TOP
    return root if os.path.isdir(root) and not os.path.islink(root) else TOP


def read_text(path: str) -> str:
    if os.path.islink(path) or not os.path.isfile(path):
        return ""
    with open(path, encoding="utf-8", errors="replace") as file:
        return file.read(MAX_TEXT)


# --- what is needed to build it ----------------------------------------------------------------


def is_strings(value) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def read_plan(root: str) -> dict:
    import tomllib

    text = read_text(os.path.join(root, "pyproject.toml"))
    if not text and not os.path.isfile(os.path.join(root, "setup.py")):
        raise Failed("it has neither a pyproject.toml nor a setup.py")
    try:
        system = tomllib.loads(text).get("build-system", {})
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise Failed(f"its pyproject.toml is not valid TOML: {error}") from None
    if not isinstance(system, dict):
        raise Failed("its pyproject.toml: build-system is not a table")
    requires = system.get("requires", None if system else LEGACY_REQUIRES)
    backend = system.get("build-backend", LEGACY)
    path = system.get("backend-path", [])
    if not is_strings(requires):
        raise Failed("its pyproject.toml: build-system.requires is not a list of strings")
    if not isinstance(backend, str) or not is_strings(path):
        raise Failed("its pyproject.toml: build-backend or backend-path is malformed")
    if backend == LEGACY and not any(line.lower().startswith("setuptools") for line in requires):
        requires = requires + LEGACY_REQUIRES
    return {"requires": requires, "backend": backend, "path": path}


def static_metadata(root: str):
    """PEP 643: PKG-INFO tells what the wheel's METADATA will, unless it says otherwise."""
    from email.parser import HeaderParser

    headers = HeaderParser().parsestr(read_text(os.path.join(root, "PKG-INFO")))
    try:
        version = tuple(int(part) for part in (headers["Metadata-Version"] or "").split("."))
    except ValueError:
        return None
    dynamic = {str(name).strip().lower() for name in headers.get_all("Dynamic", [])}
    if version < (2, 2) or not headers["Name"] or not headers["Version"] or dynamic & set(STATIC):
        return None
    lines = [
        f"{name}: {' '.join(str(value).split())}"
        for name in MATTERS
        for value in headers.get_all(name, [])
    ]
    return "\n".join(lines) + "\n"


# --- the build ---------------------------------------------------------------------------------


def load(plan: dict, root: str):
    """The backend, of the tree itself when it has a backend-path."""
    import importlib

    paths = [os.path.realpath(os.path.join(root, part)) for part in plan["path"]]
    for path in paths:
        if path != root and not path.startswith(root + "/"):
            raise Failed("its backend-path leads out of it")
    sys.path[:0] = paths
    module, _, attributes = plan["backend"].partition(":")
    backend = importlib.import_module(module)
    origin = os.path.realpath(getattr(backend, "__file__", None) or "")
    if paths and not any(origin.startswith(path + "/") for path in paths):
        raise Failed(f"its backend '{module}' does not come from its backend-path")
    for name in attributes.split(".") if attributes else ():
        backend = getattr(backend, name)
    return backend


def hook_child(plan: dict, root: str, name: str, arguments, answer: str) -> int:
    try:
        backend = load(plan, root)
        hook = getattr(backend, name, None)
        if hook is None and name == "build_wheel":
            raise Failed(f"its backend '{plan['backend']}' has no build_wheel")
        value = hook(*arguments) if hook else []
        with open(answer, "w", encoding="utf-8") as out:
            json.dump(value, out)
        return 0
    except SystemExit as end:
        print(end.code, file=sys.stderr)
    except Failed as failed:
        print(failed, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
    return 1


def call(plan: dict, root: str, name: str, *arguments):
    """One hook in a process of its own, as PEP 517 has it: backends change global state."""
    answer = f"/tmp/{name}.json"
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            code = hook_child(plan, root, name, arguments, answer)
            sys.stdout.flush()
            sys.stderr.flush()
        finally:
            os._exit(code)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if code < 0:
        raise Failed(f"{name} was killed by signal {-code}")
    text = read_text(answer)
    if code or not text:
        raise Failed(f"{name} ended with exit code {code}")
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise Failed(f"{name} gave what is no answer") from None


def is_there(line: str, requires: list) -> bool:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return line in requires or bool(version(line))
    except (PackageNotFoundError, ValueError):
        return False


def set_surroundings(root: str):
    """As for any build; fixed times and hashes, so that the same sdist gives the same wheel."""
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    bin_dir = os.path.dirname(sys.executable)
    os.environ["PATH"] = f"{bin_dir}:/usr/local/bin:/usr/bin:/bin"
    os.environ.update(
        VIRTUAL_ENV=os.path.dirname(bin_dir),
        SOURCE_DATE_EPOCH="315532800",  # the first day that a zip file can name
        PYTHONHASHSEED="0",
        PYTHONDONTWRITEBYTECODE="1",
        TMPDIR="/tmp",
    )
    sys.argv[:] = [""]
    os.chdir(root)


def give_wheel(name, out: str) -> str:
    path = os.path.join(out, name) if isinstance(name, str) else out
    if not isinstance(name, str) or "/" in name or not name.endswith(".whl"):
        raise Failed("build_wheel named what is no wheel")
    if os.path.islink(path) or not os.path.isfile(path):
        raise Failed(f"build_wheel named '{name[:200]}', which is not there")
    with open(path, "rb") as source, open(3, "wb", closefd=False) as to:
        shutil.copyfileobj(source, to)
    return name


def build(plan: dict, root: str) -> dict:
    set_surroundings(root)
    if not plan["final"]:
        more = call(plan, root, "get_requires_for_build_wheel", None)
        if not is_strings(more):
            raise Failed("get_requires_for_build_wheel gave what is no list of strings")
        more = [line for line in more if not is_there(line, plan["requires"])]
        if more:
            return {"more": more}
    out = "/tmp/wheel"
    os.mkdir(out)
    return {"wheel": give_wheel(call(plan, root, "build_wheel", out, None, None), out)}


def main(verb: str, filename: str, limit: str, plan: str = "{}"):
    report = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what hooks print is no report
    os.read(4, 1)
    os.close(4)
    # of one file, so of the report and of what the build prints, too
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(limit), int(limit)))
    try:
        root = unpack(filename, int(limit))
        if verb == "look":
            found = {**read_plan(root), "metadata": static_metadata(root)}
        else:
            found = build(json.loads(plan), root)
    except Failed as failed:
        found = {"failed": str(failed)}
    except OSError as error:
        found = {"failed": f"{error}"}
    json.dump(found, report)
    report.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
