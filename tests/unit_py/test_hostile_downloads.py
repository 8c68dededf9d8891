# SPDX-License-Identifier: Apache-2.0
"""Wheels from an index that breaks off, stalls, lies about what it sends, and never ends."""

import fcntl
import hashlib
import os
import subprocess
import threading
import time

import pytest
from test_hostile_index import CORRUPT, LIMIT, TIMEOUT, UPSTREAM, no_wheels, raw, refused, well_again


def flaky(index, file, good, breaks, tag='"v1"', lie=None):
    """Sends a third, breaks off, and goes on by ranges; lie: what it sends for a range."""
    seen = []

    def send(handler):
        wanted = handler.headers.get("Range")
        seen.append((wanted, handler.headers.get("If-Range")))
        if wanted and lie:
            return lie(handler, int(wanted[6:].rstrip("-")))
        first = int(wanted[6:].rstrip("-")) if wanted else 0
        part = good[first:]
        handler.send_response(206 if wanted else 200)
        handler.send_header("Content-Length", str(len(part)))
        if wanted:
            handler.send_header("Content-Range", f"bytes {first}-{len(good) - 1}/{len(good)}")
        if tag:
            handler.send_header("ETag", tag)
        handler.end_headers()
        if len(seen) <= breaks:
            handler.wfile.write(part[: len(good) // 3])
            handler.close_connection = True
        else:
            handler.wfile.write(part)
        return None

    index.routes[f"/files/{file.filename}"] = send
    return seen


@pytest.mark.parametrize("tag", ['"v1"', 'W/"v1"', None])
def test_a_broken_download_goes_on(index, tool, tag):
    file = index.add("alpha", padding=200_000, core=b"Name: alpha\nVersion: 1.0\n")
    third = len(file.data) // 3
    seen = flaky(index, file, file.data, breaks=2, tag=tag)
    assert tool("--fetch", "alpha").status == 0
    strong = tag if tag == '"v1"' else None
    assert seen == [(None, None), (f"bytes={third}-", strong), (f"bytes={2 * third}-", strong)]


class Stalling:
    """Sends so many bytes of a wheel, then nothing more until told; by ranges from then on."""

    def __init__(self, index, file, first):
        self.index, self.file, self.first = index, file, first
        self.asked, self.go_on = [], threading.Event()
        index.routes[f"/files/{file.filename}"] = self.send

    def send(self, handler):
        data, wanted = self.file.data, handler.headers.get("Range")
        self.asked.append(wanted)
        if wanted:
            at = int(wanted[6:].rstrip("-"))
            place = f"bytes {at}-{len(data) - 1}/{len(data)}"
            return self.index.answer(handler, 206, data[at:], Content_Range=place)
        if len(self.asked) > 1:
            return self.index.answer(handler, 200, data)
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(data)))
        handler.end_headers()
        handler.wfile.write(data[: self.first])
        handler.close_connection = True
        self.go_on.wait(30)
        return None


def killed_midway(index, tool, file, first=2_000_000):
    """A download that stands still when its daemon is killed; what is left of it."""
    server = Stalling(index, file, first)
    partial = tool.cache / "partial" / hashlib.sha256(file.data).hexdigest()
    going = subprocess.Popen(tool.command("--fetch", "alpha"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 30
    while not partial.exists() or partial.stat().st_size < first:
        assert time.monotonic() < deadline and going.poll() is None
        time.sleep(0.01)
    going.kill()
    going.wait()
    server.go_on.set()
    return server, partial


def big(index):
    return index.add("alpha", padding=3_000_000, core=b"Name: alpha\nVersion: 1.0\n")


def test_a_killed_download_goes_on(index, tool):
    file = big(index)
    server, partial = killed_midway(index, tool, file)
    answer = tool("--fetch", "alpha")
    assert answer.status == 0, answer.text
    assert server.asked == [None, "bytes=2000000-"]
    assert not partial.exists() and len(list((tool.cache / "wheels").rglob("*.whl"))) == 1


def test_a_part_that_is_not_one(index, tool):
    """Other bytes than the wheel's, all bytes, too many: the sum is the last word."""
    file = big(index)
    size = len(file.data)
    for n, (left, asked) in enumerate((
        (bytes(2_000_000), ["bytes=2000000-", None]),
        (file.data, []),
        (bytes(size), [None]),
        (bytes(size + 1), [None]),
    )):
        server, partial = killed_midway(index, tool, file)
        partial.write_bytes(left)
        del server.asked[1:]
        answer = tool("--fetch", "alpha")
        assert answer.status == 0, (n, answer.text)
        assert server.asked[1:] == asked, n
        for wheel in (tool.cache / "wheels").rglob("*.whl"):
            assert wheel.read_bytes() == file.data
            wheel.unlink()
        assert not partial.exists()


def test_parts_do_not_pile_up(index, tool):
    """Little, and what nobody came back for, goes at the next start."""
    file = big(index)
    _, partial = killed_midway(index, tool, file)
    old, small = partial.with_name("0" * 64), partial.with_name("1" * 64)
    old.write_bytes(bytes(2_000_000))
    small.write_bytes(b"x")
    os.utime(old, (time.time() - 90_000,) * 2)
    index.add("beta")
    assert tool("beta").status == 0
    assert partial.exists() and not old.exists() and not small.exists()


def test_two_take_one_part(index, tool):
    """What another daemon works at is left alone."""
    file = big(index)
    server, partial = killed_midway(index, tool, file)
    with open(partial, "rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert tool("--fetch", "alpha").status == 0
        assert server.asked == [None, None]
        assert partial.stat().st_size == 2_000_000


LIES = {
    "another part": lambda h, n, i, f: i.answer(
        h, 206, f.data[5:], Content_Range=f"bytes 5-{len(f.data) - 1}/{len(f.data)}"
    ),
    "no range said": lambda h, n, i, f: i.answer(h, 206, f.data[n:]),
    "not satisfiable": lambda h, n, i, f: i.answer(h, 416),
    "the whole": lambda h, n, i, f: i.answer(h, 200, f.data),
    "other bytes": lambda h, n, i, f: i.answer(
        h, 206, bytes(len(f.data) - n), Content_Range=f"bytes {n}-{len(f.data) - 1}/{len(f.data)}"
    ),
}


@pytest.mark.parametrize("kind", LIES)
def test_lies_about_the_rest(index, tool, kind):
    """The sum is the last word: pieces that do not fit are fetched once more, in one."""
    file = index.add("alpha", padding=200_000, core=b"Name: alpha\nVersion: 1.0\n")
    lie = LIES[kind]
    seen = flaky(index, file, file.data, breaks=1, lie=lambda h, n: lie(h, n, index, file))
    answer = tool("--fetch", "alpha")
    assert answer.status == 0, answer.text
    assert seen[-1][0] is None or kind == "the whole"
    assert len(seen) <= 3


def test_always_other_bytes(index, tool):
    file = index.add("alpha", padding=200_000, core=b"Name: alpha\nVersion: 1.0\n")
    bad = bytes(len(file.data))
    flaky(index, file, bad, breaks=1)
    refused(tool("--fetch", "alpha"), CORRUPT, "was expected", file.filename)
    assert no_wheels(tool)
    well_again(index, tool)


def test_a_wheel_without_end(index, tool):
    file = index.add("alpha", padding=200_000, core=b"Name: alpha\nVersion: 1.0\n")
    head = b"HTTP/1.1 200 OK\r\n\r\n"
    raw(index, f"/files/{file.filename}", head, b"x" * 100_000, times=1000)
    refused(tool("--fetch", "alpha"), LIMIT, "more than")
    assert no_wheels(tool)
    well_again(index, tool)


def test_a_wheel_that_drips(index, tool):
    file = index.add("alpha", padding=200_000, core=b"Name: alpha\nVersion: 1.0\n")
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 200000\r\n\r\n"
    raw(index, f"/files/{file.filename}", head, b"x" * 10, pause=0.2, times=300)
    tool.settings["timeout"] = 1
    began = time.monotonic()
    refused(tool("--fetch", "alpha"), TIMEOUT, "did not answer in time")
    assert time.monotonic() - began < 15
    assert no_wheels(tool)


@pytest.mark.parametrize("said", [10, 10_000_000])
def test_wrong_content_length(index, tool, said):
    file = index.add("alpha", padding=200_000, core=b"Name: alpha\nVersion: 1.0\n")
    head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % said
    raw(index, f"/files/{file.filename}", head, file.data)
    answer = tool("--fetch", "alpha")
    refused(answer, CORRUPT if said == 10 else UPSTREAM, file.filename)
    assert no_wheels(tool)
    well_again(index, tool)


def test_no_size_and_no_hash_said(index, tool):
    """An old-fashioned HTML page: the end of the wheel is asked for without knowing its size."""
    index.html = True
    file = index.add("alpha", padding=200_000)
    assert tool("alpha").status == 0
    assert index.downloads(file) == ["bytes=-65536"]
