# SPDX-License-Identifier: Apache-2.0
"""The index client against an index that does what real ones do on bad days."""

import base64
import hashlib
import os
import threading

import pytest

# exit codes of base/err.c
NOT_FOUND, CONFLICT, LIMIT, DENIED, CORRUPT, UPSTREAM, TIMEOUT = 3, 4, 6, 7, 8, 9, 10


def test_json_index(index, tool):
    index.add("alpha", requires=["beta>=1"])
    index.add("beta", "1.0")
    index.add("beta", "0.9")
    answer = tool("--fetch", "alpha")
    assert answer.versions == {"alpha": "1.0", "beta": "1.0"}
    for dist in answer.lock["dists"]:
        path = tool.cache / "wheels" / dist["sha256"] / dist["filename"]
        assert hashlib.sha256(path.read_bytes()).hexdigest() == dist["sha256"]


def test_html_index(index, tool):
    index.html = True
    index.add("alpha", "1.0", requires=["beta"])
    index.add("alpha", "2.0", python=">=3.99")
    index.add("alpha", "3.0", yanked=True)
    index.add("beta")
    assert tool("--fetch", "alpha").versions == {"alpha": "1.0", "beta": "1.0"}


def test_second_time_asks_nothing(index, tool):
    index.add("alpha", requires=["beta"])
    index.add("beta")
    first = tool("--fetch", "alpha")
    index.asked.clear()
    assert tool("--fetch", "alpha").lock == first.lock
    assert index.asked == []


def test_wrong_hash_is_refused(index, tool):
    file = index.add("alpha", padding=200_000, sha256="0" * 64)
    answer = tool("--fetch", "alpha")
    assert answer.status == CORRUPT
    assert "was expected" in answer.text and file.filename in answer.text
    assert not list((tool.cache / "wheels").rglob("*.whl"))


def test_truncated_wheel_fails_after_retries(index, tool):
    file = index.add("alpha", padding=200_000, cut=1000)
    answer = tool("--fetch", "alpha")
    assert answer.status == UPSTREAM
    assert "cut short" in answer.text
    whole = [r for r in index.downloads(file) if r is None or r.endswith("-")]
    assert len(whole) == 5  # once and LIMIT_RETRIES times, from where it broke off
    assert not list((tool.cache / "wheels").rglob("*.whl"))


def test_error_then_success(index, tool):
    file = index.add("alpha", padding=200_000, fail=[500, 503])
    index.fail["/simple/alpha/"] = [502]
    answer = tool("--fetch", "alpha")
    assert answer.status == 0
    assert len(index.downloads(file)) >= 3


def test_unknown_package(index, tool):
    answer = tool("nothing-like-it")
    assert answer.status == NOT_FOUND
    assert "no package called 'nothing-like-it' on the index; check the name" in answer.text


def test_unknown_dependency_says_who_wants_it(index, tool):
    index.add("alpha", requires=["nowhere"])
    answer = tool("alpha")
    assert answer.status == NOT_FOUND
    assert "'nowhere'" in answer.text and "wanted by alpha 1.0" in answer.text


def test_endless_page(index, tool):
    def endless(handler):
        handler.send_response(200)
        handler.send_header("Content-Type", "text/html")
        handler.send_header("Connection", "close")
        handler.end_headers()
        handler.close_connection = True
        chunk = b"<a href='x'>" * 100_000
        try:
            for _ in range(1000):
                handler.wfile.write(chunk)
        except OSError:
            pass

    index.routes["/simple/alpha/"] = endless
    answer = tool("alpha")
    assert answer.status == LIMIT
    assert "more than" in answer.text


def test_redirect_loop(index, tool):
    def loop(handler):
        index.answer(handler, 302, Location="/simple/alpha/")

    index.routes["/simple/alpha/"] = loop
    answer = tool("alpha")
    assert answer.status == UPSTREAM
    assert "redirects more than" in answer.text
    assert len(index.asked) < 20


def test_redirect_to_file_is_refused(index, tool):
    index.routes["/simple/alpha/"] = lambda h: index.answer(h, 302, Location="file:///etc/passwd")
    assert tool("alpha").status == UPSTREAM


@pytest.mark.parametrize("padding", [200_000, 100])
def test_ranges_save_the_download(index, tool, padding):
    file = index.add("alpha", padding=padding)
    assert tool("alpha").status == 0
    ranges = index.downloads(file)
    if padding > 65536:
        assert ranges and None not in ranges
    else:  # a small wheel is fetched whole: one request, and it is needed anyway
        assert ranges == [None]


def test_many_members_make_the_directory_longer_than_the_tail(index, tool):
    import io
    import zipfile

    file = index.add("alpha", padding=100)
    out = io.BytesIO(file.data)
    with zipfile.ZipFile(out, "a") as z:
        for i in range(3000):
            z.writestr(f"alpha/some_rather_long_name_of_a_module_{i}.py", b"")
    file.data = out.getvalue()
    answer = tool("alpha")
    assert answer.status == 0
    ranges = index.downloads(file)
    assert len(ranges) == 3 and None not in ranges


def test_without_ranges_the_whole_wheel_is_read(index, tool):
    file = index.add("alpha", padding=200_000, ranges=False, requires=["beta"])
    index.add("beta")
    answer = tool("--fetch", "alpha")
    assert answer.versions == {"alpha": "1.0", "beta": "1.0"}
    assert len([r for r in index.downloads(file) if r is None]) == 1


def test_lying_ranges(index, tool):
    """A server whose 206 holds other bytes: the wheel is read whole instead."""
    file = index.add("alpha", padding=200_000)
    whole = file.data

    def lie(handler):
        if handler.headers.get("Range"):
            return index.answer(handler, 206, os.urandom(65536), Content_Range="bytes 0-1/9")
        return index.answer(handler, 200, whole)

    index.routes[f"/files/{file.filename}"] = lie
    assert tool("--fetch", "alpha").status == 0


def test_core_metadata(index, tool):
    file = index.add("alpha", padding=200_000, core=b"Name: alpha\nRequires-Dist: beta\n\n")
    index.add("beta")
    assert tool("alpha").versions == {"alpha": "1.0", "beta": "1.0"}
    assert index.downloads(file) == []


def test_wrong_core_metadata(index, tool):
    file = index.add("alpha", padding=200_000, core=b"Name: alpha\n")
    index.routes[f"/files/{file.filename}.metadata"] = lambda h: index.answer(h, 200, b"Name: x\n")
    answer = tool("alpha")
    assert answer.status == CORRUPT and "promised" in answer.text


def test_index_down_serves_stale_page_with_a_note(index, tool):
    index.add("alpha")
    first = tool("--fetch", "alpha")
    for page in (tool.cache / "pages").iterdir():
        os.utime(page, (1, 1))
    index.routes["/simple/alpha/"] = lambda h: index.answer(h, 503)
    answer = tool("alpha")
    assert answer.lock == first.lock
    assert "not reachable; using its page of alpha" in answer.text


def test_stale_page_is_asked_for_again_by_its_etag(index, tool):
    index.add("alpha")
    seen = []

    def tagged(handler):
        seen.append(handler.headers.get("If-None-Match"))
        if seen[-1] == '"one"':
            handler.send_response(304)
            handler.end_headers()
            return
        body = index.page_json("alpha")
        index.answer(handler, 200, body, Content_Type="application/json", ETag='"one"')

    index.routes["/simple/alpha/"] = tagged
    first = tool("alpha")
    for page in (tool.cache / "pages").iterdir():
        os.utime(page, (1, 1))
    assert tool("alpha").lock == first.lock
    assert tool("alpha").lock == first.lock
    assert seen == [None, '"one"']


def test_index_down_and_nothing_cached(index, tool):
    tool.settings["index_url"] = "http://127.0.0.1:1/simple"
    answer = tool("alpha")
    assert answer.status == UPSTREAM
    assert "could not be fetched" in answer.text


def test_credentials_are_used_and_never_told(index, tool):
    index.auth = "Basic " + base64.b64encode(b"user:s3cret").decode()
    index.add("alpha", requires=["nowhere; python_version<'3'"], padding=200_000)
    tool.settings["index_url"] = f"http://user:s3cret@{index.host}/simple"
    answer = tool("--fetch", "alpha")
    assert answer.versions == {"alpha": "1.0"}
    assert "s3cret" not in answer.text + str(answer.lock)
    for path in tool.cache.rglob("*"):
        assert path.is_dir() or b"s3cret" not in path.read_bytes()
    index.auth = "Basic other"
    answer = tool("beta")
    assert answer.status == DENIED and "s3cret" not in answer.text
    assert "check the credentials" in answer.text


def test_credentials_stay_with_their_host(index, tool):
    seen = []

    def elsewhere(handler):
        seen.append(handler.headers.get("Authorization"))
        index.answer(handler, 404)

    index.routes["/other/alpha/"] = elsewhere
    port = index.server.server_port
    target = f"http://localhost:{port}/other/alpha/"
    index.routes["/simple/alpha/"] = lambda h: index.answer(h, 302, Location=target)
    tool.settings["index_url"] = f"http://user:s3cret@{index.host}/simple"
    assert tool("alpha").status == NOT_FOUND
    assert seen == [None]


def test_find_links_directory(index, tool, tmp_path):
    index.add("alpha", requires=["beta[x]"])
    newer = index.add("beta", "2.0", extras=["x"], requires=["gamma; extra == 'x'"])
    index.add("gamma")
    index.files["beta"].clear()
    index.add("beta", "1.0")
    links = tmp_path / "links"
    links.mkdir()
    (links / newer.filename).write_bytes(newer.data)
    (links / "beta-3.0.tar.gz").write_bytes(b"")
    tool.settings["find_links"] = [str(links)]
    answer = tool("--fetch", "alpha")
    assert answer.versions == {"alpha": "1.0", "beta": "2.0", "gamma": "1.0"}
    beta = next(d for d in answer.lock["dists"] if d["name"] == "beta")
    assert beta["sha256"] == hashlib.sha256(newer.data).hexdigest()
    assert beta["url"].startswith("file:///")


def test_find_links_directory_that_is_not_there_is_said_once(index, tool):
    index.add("alpha", requires=["beta"])
    index.add("beta")
    tool.settings["find_links"] = ["/nowhere/at/all"]
    answer = tool("alpha")
    assert answer.status == 0
    assert answer.text.count("/nowhere/at/all") == 1


def test_extra_indexes_are_merged(index, tool):
    index.add("alpha", "1.0")
    other = index.add("beta", "5.0")
    body = index.page_json("beta")
    index.routes["/extra/beta/"] = lambda h: index.answer(h, 200, body, Content_Type="x/json")
    index.files["beta"].clear()
    index.add("beta", "4.0")
    index.files["beta"].append(other)
    tool.settings["extra_index_urls"] = [f"http://{index.host}/extra"]
    assert tool("alpha", "beta").versions == {"alpha": "1.0", "beta": "5.0"}


def test_damaged_wheel_in_the_cache_is_fetched_again(index, tool):
    index.add("alpha")
    first = tool("--fetch", "alpha")
    dist = first.lock["dists"][0]
    path = tool.cache / "wheels" / dist["sha256"] / dist["filename"]
    path.write_bytes(path.read_bytes()[:-5])
    assert tool("--fetch", "alpha").status == 0
    assert hashlib.sha256(path.read_bytes()).hexdigest() == dist["sha256"]


def test_no_settings_is_a_clear_error(index, tool):
    tool.settings = {}
    answer = tool("alpha")
    assert answer.status == NOT_FOUND


def test_stalled_download_times_out(index, tool):
    file = index.add("alpha")
    gone = threading.Event()

    def stall(handler):
        handler.send_response(200)
        handler.send_header("Content-Length", "1000")
        handler.end_headers()
        handler.wfile.write(b"x" * 10)
        handler.wfile.flush()
        gone.wait(20)

    index.routes[f"/files/{file.filename}"] = stall
    tool.settings["timeout"] = 1
    answer = tool("--fetch", "alpha")
    gone.set()
    assert answer.status == TIMEOUT and "did not answer in time" in answer.text
    assert len(index.downloads(file)) == 2
