# SPDX-License-Identifier: Apache-2.0
"""What the benchmarks share: a daemon with a directory of its own, and uv to compare with."""
import os
import shutil
import signal
import subprocess
import sys
import tempfile


def environment(**more):
    """The caller's, in which both sides write bytecode."""
    env = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    env.update(more)
    return env


def start_daemon(build, base, env, lib=None):
    lib = lib or os.path.join(build, "lib")
    daemon = subprocess.Popen([os.path.join(build, "pipsqueakd"), "--dir", base, "--lib", lib],
                              stdout=subprocess.PIPE, stderr=open(os.path.join(base, "log"), "a"), env=env)
    if not daemon.stdout.readline():
        with open(os.path.join(base, "log")) as f:
            sys.exit(f.read())
    return daemon


def uv_program(build):
    """uv in a virtual environment below the build directory."""
    venv = os.path.join(build, "bench-venv")
    uv = os.path.join(venv, "bin", "uv")
    if not os.path.exists(uv):
        subprocess.run(["/usr/bin/python3", "-m", "venv", venv], check=True)
        subprocess.run([venv + "/bin/pip", "install", "-q", "uv"], check=True)
    return uv


class Ground:
    def __init__(self, build):
        self.build = os.path.abspath(build)
        self.base = tempfile.mkdtemp(prefix="pqb-", dir="/tmp")
        os.chmod(self.base, 0o755)
        self.env = environment(PIPSQUEAK_DIR=self.base)
        self.cli = os.path.join(self.build, "pipsqueak")

    def start(self):
        self.daemon = start_daemon(self.build, self.base, self.env)

    def stop(self):
        self.daemon.send_signal(signal.SIGTERM)
        self.daemon.wait(30)
        shutil.rmtree(self.base, ignore_errors=True)

    def uv(self):
        return uv_program(self.build)
