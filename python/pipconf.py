# SPDX-License-Identifier: Apache-2.0
"""Print pip's effective settings as one JSON object.

Runs in: /usr/bin/python3 with the environment of the caller, started by the client (or by who
starts the daemon). Configuration files, PIP_* variables and pip's own default index are read by
pip's own code, out of the wheel of Debian's package python3-pip-whl: no host is named here.

Keys: index_url (null when switched off), extra_index_urls, find_links (directories are absolute),
cert, client_cert, cert_file and cert_dir (OpenSSL's variables), timeout (seconds), trusted_hosts,
proxy (pip's own), http_proxy, https_proxy, no_proxy (the environment's, which pip's own replaces),
auth (list of origin, user, password from the caller's netrc), files (the configuration files that
pip reads, there or not: who caches this output looks whether they changed, and at the variables
that src/cli/interpreter.c lists).
"""

import glob
import json
import netrc
import os
import sys
import types
from importlib.machinery import ModuleSpec
from urllib.parse import urlsplit

PIP_WHEELS = "/usr/share/python-wheels/pip-*.whl"


def fail(text: str):
    sys.stderr.write(f"pipconf: {text}\n")
    sys.exit(1)


class Nothing:
    """Stands for any class or decorator of a library that is left out."""

    def __init__(self, *args, **kwargs):
        pass

    def __call__(self, *args, **kwargs):
        return args[0] if args else self


class LeftOut(types.ModuleType):
    __path__ = ()

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return Nothing


class LeaveOut:
    """Reading options needs none of what pip downloads and paints with: three quarters of the time
    that importing it takes."""

    UNUSED = ("requests", "rich", "urllib3", "tenacity", "pygments", "chardet")

    def find_spec(self, name, path=None, target=None):
        words = name.split(".")
        if words[:2] == ["pip", "_vendor"] and len(words) > 2 and words[2] in self.UNUSED:
            return ModuleSpec(name, self, is_package=True)
        return None

    def create_module(self, spec):
        return LeftOut(spec.name)

    def exec_module(self, module):
        pass


def pip_options():
    """The options of `pip install` as configuration files and environment set them."""
    wheels = sorted(glob.glob(PIP_WHEELS))
    if not wheels:
        fail("pip's wheel is not there; install the package python3-pip-whl")
    sys.path.insert(0, wheels[-1])
    # not create_command("install"), which imports all of pip: three times as slow
    from pip._internal.cli import cmdoptions
    from pip._internal.cli.parser import ConfigOptionParser

    parser = ConfigOptionParser(name="install", add_help_option=False, isolated=False)
    for group in (cmdoptions.general_group, cmdoptions.index_group):
        parser.add_option_group(cmdoptions.make_option_group(group, parser))
    options, _ = parser.parse_args([])
    return options


def quick_options():
    """The same, sooner; should this pip need more than others do, then without short cuts."""
    short = LeaveOut()
    sys.meta_path.insert(0, short)
    try:
        return pip_options()
    except (ImportError, AttributeError, TypeError):
        sys.meta_path.remove(short)
        for name in [name for name in sys.modules if name.partition(".")[0] == "pip"]:
            del sys.modules[name]
        return pip_options()


def pip_files() -> list:
    from pip._internal.configuration import get_configuration_files

    found = [path for paths in get_configuration_files().values() for path in paths]
    if os.environ.get("PIP_CONFIG_FILE"):
        found.append(os.environ["PIP_CONFIG_FILE"])
    return sorted({os.path.abspath(path) for path in found if path != os.devnull})


def absolute(link: str) -> str:
    return link if "://" in link else os.path.abspath(os.path.expanduser(link))


def netrc_auth(urls: list) -> list:
    """What the caller's netrc has for the hosts of these URLs."""
    try:
        known = netrc.netrc(os.environ.get("NETRC"))
    except (OSError, netrc.NetrcParseError):
        return []
    found = []
    for url in urls:
        parts = urlsplit(url)
        if "@" in parts.netloc or not parts.hostname:
            continue
        login = known.authenticators(parts.hostname)
        if login:
            origin = f"{parts.scheme}://{parts.netloc}"
            found.append({"origin": origin, "user": login[0], "password": login[2] or ""})
    return found


def proxies() -> dict:
    """The environment's, as urllib reads it (which takes long to import): small letters before
    capitals, and no HTTP_PROXY where a CGI request could have set it."""

    def either(kind):
        if kind == "http" and "REQUEST_METHOD" in os.environ:
            return os.environ.get("http_proxy")
        return os.environ.get(f"{kind}_proxy", os.environ.get(f"{kind.upper()}_PROXY"))

    return {
        "http_proxy": either("http") or either("all") or None,
        "https_proxy": either("https") or either("all") or None,
        "no_proxy": either("no") or None,
    }


def path_or_none(path: str):
    return os.path.abspath(os.path.expanduser(path)) if path else None


def settings() -> dict:
    options = quick_options()
    environ = os.environ
    indexes = [] if options.no_index else [options.index_url, *options.extra_index_urls]
    links = [absolute(link) for link in options.find_links]
    cert = options.cert or environ.get("REQUESTS_CA_BUNDLE") or environ.get("CURL_CA_BUNDLE")
    return {
        "index_url": indexes[0] if indexes else None,
        "extra_index_urls": indexes[1:],
        "find_links": links,
        "cert": path_or_none(cert),
        "cert_file": path_or_none(environ.get("SSL_CERT_FILE")),
        "cert_dir": path_or_none(environ.get("SSL_CERT_DIR")),
        "client_cert": path_or_none(options.client_cert),
        "timeout": options.timeout,
        "trusted_hosts": options.trusted_hosts,
        "proxy": options.proxy or None,
        "auth": netrc_auth(indexes + [link for link in links if "://" in link]),
        "files": pip_files(),
        **proxies(),
    }


if __name__ == "__main__":
    json.dump(settings(), sys.stdout, sort_keys=True)
    sys.stdout.write("\n")
