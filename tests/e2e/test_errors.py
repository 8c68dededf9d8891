# SPDX-License-Identifier: Apache-2.0
"""Every failure is one typed answer, and the daemon goes on."""
import threading

import pytest

NO_HOST_PATH = ("/tmp/pqt", "/mnt/", "/pipsqueak/lib", "state/apps")

HANDLER_ERRORS = {
    "raises": ("def handler(e):\n    raise ValueError('boom')\n", 500, "handler", "ValueError: boom"),
    "exits": ("import sys\ndef handler(e):\n    sys.exit(3)\n", 500, "handler", "SystemExit"),
    "dies": ("import os\ndef handler(e):\n    os._exit(3)\n", 502, "died", ""),
    "killed": ("import os\ndef handler(e):\n    os.kill(os.getpid(), 9)\n", 502, "died", ""),
    "hungry": ("def handler(e):\n    x = []\n    while True:\n        x.append(bytearray(1 << 20))\n", 502,
               "died", "memory"),
    "slow": ("import time\ndef handler(e):\n    time.sleep(60)\n", 504, "timeout", ""),
    "spins": ("def handler(e):\n    while True:\n        pass\n", 504, "timeout", ""),
    "broken": ("import nosuchmodule\ndef handler(e):\n    pass\n", 503, "start", "nosuchmodule"),
    "syntax": ("def handler(e:\n", 503, "start", "SyntaxError"),
    "not-json": ("def handler(e):\n    return object()\n", 500, "handler", "JSON"),
}


@pytest.mark.parametrize("name", HANDLER_ERRORS)
def test_a_handler_that_fails(daemon, name):
    code, status, kind, text = HANDLER_ERRORS[name]
    daemon.deployed("err-" + name, {"handler.py": code,
                                    "pipsqueak.toml": 'timeout = 1\nmemory = "64M"\n'})
    for _ in range(2):  # the second finds a clean instance
        reply = daemon.call("err-" + name)
        assert reply.status == status, reply.body
        assert reply.error["kind"] == kind
        assert text in reply.error["message"]
        assert not any(p in reply.body.decode() for p in NO_HOST_PATH), reply.body
    if name == "raises":
        assert 'File "/app/handler.py", line 2, in handler' in reply.error["traceback"]


def test_requests_that_are_wrong(daemon):
    daemon.deployed("echo", {"handler.py": "def handler(e): return e"})
    assert daemon.call("nosuch").status == 404
    bad = daemon.call("echo", raw=b'{"a": ')
    assert bad.status == 400 and "JSON" in bad.error["message"]
    big = daemon.call("echo", raw=b'"' + b"x" * (7 << 20) + b'"')
    assert big.status == 413
    assert daemon.request("POST", "/functions/echo/nosuch").status in (404, 405)
    assert daemon.call("echo", {"still": "works"}).json == {"still": "works"}


def test_a_full_queue(daemon):
    daemon.deployed("busy", {"handler.py": "import time\ndef handler(e):\n    time.sleep(1.5)\n    return 1\n",
                             "pipsqueak.toml": "concurrency = 1\n"})
    results = []

    def one():
        results.append(daemon.call("busy").status)

    threads = [threading.Thread(target=one) for _ in range(300)]
    for t in threads:
        t.start()
    deadline = 60
    for t in threads:
        t.join(deadline)
        if results.count(429) >= 30:
            break
    assert 429 in results
    assert daemon.request("DELETE", "/functions/busy").status in (200, 204)
    for t in threads:
        t.join(60)
    assert len(results) == 300  # every accepted call was answered


BAD_DEPLOYS = {
    "unknown package": ({"handler.py": "", "requirements.txt": "nosuch-package-of-pipsqueak-tests"}, "",
                        404, "nosuch-package-of-pipsqueak-tests"),
    "conflict": ({"handler.py": "", "requirements.txt": "urllib3==1.26.0\nurllib3==2.0.0"}, "", 409, "urllib3"),
    "no wheel": ({"handler.py": "", "requirements.txt": "pandas==0.1"}, "", None, "pandas"),
    "bad requirement": ({"handler.py": "", "requirements.txt": "numpy=>1"}, "", 400, "numpy=>1"),
    "no code": ({"readme.txt": "hi"}, "", 400, "handler"),
    "bad settings": ({"handler.py": "", "pipsqueak.toml": "memory = ["}, "", 400, "pipsqueak.toml"),
    "unknown setting": ({"handler.py": "", "pipsqueak.toml": "memroy = 5"}, "", 400, "memroy"),
    "no interpreter": ({"handler.py": ""}, "?python=/nosuch/python3", None, "/nosuch"),
    "climbing path": ({"../x.py": "", "handler.py": ""}, "", 400, ".."),
}


@pytest.mark.parametrize("name", BAD_DEPLOYS)
def test_a_deploy_that_is_wrong(daemon, name):
    files, query, status, text = BAD_DEPLOYS[name]
    reply = daemon.deploy("bad", files, query)
    assert 400 <= reply.status < 600, reply.body
    if status:
        assert reply.status == status, reply.body
    assert text in reply.error["message"], reply.body
    assert daemon.call("bad").status == 404


def test_names_and_archives_are_checked(daemon):
    assert daemon.deploy("Bad%20Name", {"handler.py": ""}).status == 400
    reply = daemon.request("PUT", "/functions/nozip", b"this is no zip", [("Content-Type", "application/zip")])
    assert reply.status == 400 and "zip" in reply.error["message"]
