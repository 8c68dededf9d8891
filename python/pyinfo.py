# SPDX-License-Identifier: Apache-2.0
"""Describe the interpreter that runs this file: one JSON object on standard output.

Runs in: the target interpreter (3.9 or newer), standard library only. The resolver (which runs on
another interpreter of the same machine) computes markers and tags from this, never from itself.
"""

import json
import os
import platform
import sys
import sysconfig


def implementation_version() -> str:
    info = sys.implementation.version
    version = f"{info.major}.{info.minor}.{info.micro}"
    if info.releaselevel != "final":
        version += info.releaselevel[0] + str(info.serial)
    return version


def markers() -> dict:
    """The environment of PEP 508 markers, but `extra`."""
    return {
        "implementation_name": sys.implementation.name,
        "implementation_version": implementation_version(),
        "os_name": os.name,
        "platform_machine": platform.machine(),
        "platform_release": platform.release(),
        "platform_system": platform.system(),
        "platform_version": platform.version(),
        "python_full_version": platform.python_version(),
        "platform_python_implementation": platform.python_implementation(),
        "python_version": ".".join(platform.python_version_tuple()[:2]),
        "sys_platform": sys.platform,
    }


def describe() -> dict:
    return {
        "path": os.path.abspath(sys.executable),
        "prefix": sys.prefix,
        "base_prefix": sys.base_prefix,
        "version": platform.python_version(),
        "version_info": list(sys.version_info[:3]),
        "cache_tag": sys.implementation.cache_tag,
        "soabi": sysconfig.get_config_var("SOABI") or "",
        "abiflags": getattr(sys, "abiflags", ""),
        "free_threaded": bool(sysconfig.get_config_var("Py_GIL_DISABLED")),
        "debug": bool(sysconfig.get_config_var("Py_DEBUG")),
        "implementation": {
            "name": sys.implementation.name,
            "version": implementation_version(),
        },
        "platform": sysconfig.get_platform(),
        "markers": markers(),
    }


if __name__ == "__main__":
    json.dump(describe(), sys.stdout, sort_keys=True)
    sys.stdout.write("\n")
