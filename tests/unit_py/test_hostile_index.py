# SPDX-License-Identifier: Apache-2.0
"""An index that lies, drips, loops and floods. Each time: one clear sentence or survival, nothing
spoiled in the cache, and the next good answer works."""

import base64
import gzip
import hashlib
import io
import json
import os
import ssl
import subprocess
import threading
import time
import zipfile

import conftest
import pytest

USAGE, NOT_FOUND, LIMIT, DENIED, CORRUPT, UPSTREAM, TIMEOUT = 2, 3, 6, 7, 8, 9, 10
PAGE = "/simple/alpha/"


def sentence(answer):
    """The one line that says what was wrong."""
    lines = [line for line in answer.text.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, answer.text
    assert len(lines[0]) < 700
    return lines[0]


def refused(answer, status, *words):
    assert answer.status == status, answer.text
    text = sentence(answer)
    assert all(word in text for word in words), text


def well_again(index, tool, **options):
    """What is good is taken, whatever came before."""
    index.routes.clear()
    index.fail.clear()
    index.files.clear()
    index.add("alpha", **options)
    answer = tool("--fetch", "alpha")
    assert answer.status == 0, answer.text
    dist = answer.lock["dists"][0]
    path = tool.cache / "wheels" / dist["sha256"] / dist["filename"]
    assert hashlib.sha256(path.read_bytes()).hexdigest() == dist["sha256"]


def no_wheels(tool):
    return not list((tool.cache / "wheels").rglob("*.whl"))


def page_of(**changes):
    page = {"meta": {"api-version": "1.1"}, "name": "alpha", "files": []}
    page.update(changes)
    return json.dumps(page).encode()


def entry(filename="alpha-1.0-py3-none-any.whl", **changes):
    return {"filename": filename, "url": f"/files/{filename}", "hashes": {}, **changes}


def serve(index, path, body, content_type=conftest.JSON_TYPE, **headers):
    index.routes[path] = lambda h: index.answer(h, 200, body, Content_Type=content_type, **headers)


def raw(index, path, head, *parts, pause=0.0, times=1):
    """An answer byte by byte as given; the connection is closed behind it."""

    def send(handler):
        handler.close_connection = True
        try:
            handler.wfile.write(head)
            for _ in range(times):
                for part in parts:
                    handler.wfile.write(part)
                    handler.wfile.flush()
                    time.sleep(pause)
        except OSError:
            pass

    index.routes[path] = send


BROKEN_PAGES = {
    "no JSON": (b"{", "JSON is broken"),
    "cut": (page_of(files=[entry()])[:-20], "JSON is broken"),
    "more behind it": (page_of() + b"{}", "something follows"),
    "not UTF-8": (page_of(name="\x01").replace(b"\\u0001", b"\xff\xfe"), "not UTF-8"),
    "a list": (b"[]", "no list of files"),
    "no files": (b"{}", "no list of files"),
    "deep": (b'{"x": ' + b"[" * 100_000, "nested too deeply"),
    "deep objects": (b'{"files": [' + b'{"x":' * 5000, "nested too deeply"),
    "control characters": (b'{"files": [], "name": "a\nb"}', "control character"),
    "version 9": (page_of(meta={"api-version": "9.0"}), "version 9.0"),
    "nothing": (b"", "a value is missing"),
}


def test_broken_pages(index, tool):
    for body, word in BROKEN_PAGES.values():
        serve(index, PAGE, body)
        refused(tool("alpha"), CORRUPT, "no index page" if "version" not in word else "", word)
    well_again(index, tool)


STRANGE_FILES = {
    "slashes": entry("../../alpha-1.0-py3-none-any.whl"),
    "dots": entry(".."),
    "a path": entry("alpha-1.0-py3-none-any.whl/../../x.whl"),
    "a NUL": entry("alpha-1.0-py3-none-any.whl\0.whl"),
    "a tab": entry("alpha-1.0\t-py3-none-any.whl"),
    "long": entry("alpha-" + "1" * 5000 + "-py3-none-any.whl"),
    "numbers": {"filename": 1, "url": 2, "hashes": 3, "yanked": {}, "requires-python": []},
    "a file URL": entry(url="file:///etc/passwd"),
    "another scheme": entry(url="gopher://127.0.0.1/alpha-1.0-py3-none-any.whl"),
    "no URL": entry(url="http://"),
    "a lone surrogate": entry("alpha-1.0-py3-none-any.whl").copy(),
}
STRANGE_FILES["a lone surrogate"]["filename"] = "alpha-1.0\ud800-py3-none-any.whl"


def test_strange_files_are_left_out(index, tool):
    serve(index, PAGE, page_of(files=list(STRANGE_FILES.values())))
    answer = tool("--fetch", "alpha")
    assert answer.status == NOT_FOUND, answer.text
    sentence(answer)
    assert [path for path, _ in index.asked] == [PAGE]
    well_again(index, tool)


HTML = {
    "binary": os.urandom(100_000),
    "a picture": b"GIF89a" + b"<a href=" * 1000,
    "open tags": b"<a " * 100_000 + b"<base " * 1000,
    "a long attribute": b'<a href="' + b"x" * 3_000_000,
    "invalid UTF-8": b'<a href="/files/alpha-1.0-py3-none-any.whl\xff\xfe#sha256=\xff">x</a>',
    "a comment": b"<!-- " * 50_000,
}


def test_html_that_is_none(index, tool):
    for body in HTML.values():
        serve(index, PAGE, body, "text/html")
        answer = tool("alpha")
        assert answer.status == NOT_FOUND, answer.text
        sentence(answer)
    well_again(index, tool)


def test_a_page_of_40_mb(index, tool):
    files = [entry(f"alpha-0.{i}.tar.gz", **{"x" * 300: "y" * 300}) for i in range(60_000)]
    files.append(entry(size=5))
    body = page_of(files=files)
    assert len(body) > 40_000_000
    wheel = conftest.make_wheel("alpha")
    serve(index, "/files/alpha-1.0-py3-none-any.whl", wheel, "x/wheel")
    files[-1]["size"] = len(wheel)
    serve(index, PAGE, page_of(files=files))
    began = time.monotonic()
    answer = tool("--fetch", "alpha")
    assert answer.versions == {"alpha": "1.0"}
    assert time.monotonic() - began < 20
    assert answer.peak_mb < 200, "a page must not be held many times over"


def test_a_page_above_its_ceiling(index, tool):
    raw(index, PAGE, b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n", b" " * 1_000_000, times=80)
    refused(tool("alpha"), LIMIT, "more than 67108864 bytes")
    well_again(index, tool)


def test_a_million_files(index, tool):
    lines = b"".join(b'<a href="alpha-0.%d.zip">\n' % i for i in range(1_000_000))
    serve(index, PAGE, lines, "text/html")
    answer = tool("alpha")
    assert answer.status in (NOT_FOUND, LIMIT), answer.text
    sentence(answer)
    well_again(index, tool)


def test_too_many_wheels_are_a_limit(index, tool):
    lines = b"".join(
        b'<a href="/files/alpha-0.%d-py3-none-any.whl#sha256=%064d">\n' % (i, i)
        for i in range(300_000)
    )
    serve(index, PAGE, lines, "text/html")
    refused(tool("alpha"), LIMIT, "too many files of 'alpha'")
    well_again(index, tool)


@pytest.mark.parametrize("layers", [1, 8])
def test_gzip_bomb(index, tool, layers):
    body = b" " * 300_000_000 if layers == 1 else b" " * 1_000_000
    for _ in range(layers):
        body = gzip.compress(body, 1)
    serve(index, PAGE, body, Content_Encoding=", ".join(["gzip"] * layers))
    answer = tool("alpha")
    assert answer.status in (LIMIT, UPSTREAM), answer.text
    sentence(answer)
    assert answer.peak_mb < 200
    well_again(index, tool)


def test_headers_without_end(index, tool):
    raw(index, PAGE, b"HTTP/1.1 200 OK\r\n", b"X-Filler: " + b"x" * 900 + b"\r\n", times=5000)
    refused(tool("alpha"), LIMIT, "bytes of headers")
    well_again(index, tool)


def test_an_error_page_without_end(index, tool):
    raw(index, PAGE, b"HTTP/1.1 404 No\r\n\r\n", b"x" * 100_000, pause=0.001, times=3000)
    began = time.monotonic()
    assert tool("alpha").status == NOT_FOUND
    assert time.monotonic() - began < 10
    well_again(index, tool)


def test_a_page_that_drips(index, tool):
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n"
    raw(index, PAGE, head, b"<!-- x -->", pause=0.2, times=300)
    tool.settings["timeout"] = 1
    began = time.monotonic()
    refused(tool("alpha"), TIMEOUT, "did not answer in time")
    assert time.monotonic() - began < 15
    tool.settings["timeout"] = 5
    well_again(index, tool)


def test_redirect_to_another_scheme(index, tool):
    for target in ("file:///etc/passwd", "ftp://127.0.0.1/x", "gopher://127.0.0.1/"):
        index.routes[PAGE] = lambda h, to=target: index.answer(h, 302, Location=to)
        refused(tool("alpha"), UPSTREAM, "neither http nor https")
    well_again(index, tool)


def test_redirects_that_grow(index, tool):
    def on(handler):
        index.answer(handler, 302, Location=handler.path + "x/")

    class All(dict):
        def __contains__(self, path):
            return path.startswith(PAGE)

        def __getitem__(self, path):
            return on

    index.routes = All()
    refused(tool("alpha"), UPSTREAM, "redirects more than")
    index.routes = {}
    well_again(index, tool)


def test_come_back_in_a_second(index, tool):
    index.add("alpha")
    times = []

    def busy(handler):
        times.append(time.monotonic())
        if len(times) == 1:
            return index.answer(handler, 429, Retry_After="1")
        return index.answer(handler, 200, index.page_json("alpha"), Content_Type=conftest.JSON_TYPE)

    index.routes[PAGE] = busy
    assert tool("alpha").status == 0
    assert times[1] - times[0] >= 0.95


def test_come_back_tomorrow(index, tool):
    index.routes[PAGE] = lambda h: index.answer(h, 503, Retry_After="86400")
    began = time.monotonic()
    refused(tool("alpha"), UPSTREAM, "come back in 86400 s")
    assert time.monotonic() - began < 5
    well_again(index, tool)


# --- metadata ------------------------------------------------------------------------------------


def test_metadata_of_another_name(index, tool):
    file = index.add("alpha", padding=200_000)
    file.data = conftest.make_wheel("beta", padding=200_000)
    answer = tool("alpha")
    assert answer.status in (CORRUPT, NOT_FOUND), answer.text
    assert file.filename in sentence(answer) or "alpha" in sentence(answer)
    well_again(index, tool)


def test_metadata_that_names_another_dist(index, tool):
    file = index.add("alpha", padding=200_000)
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as z:
        z.writestr("alpha-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: beta\nVersion: 1.0\n")
    file.data = out.getvalue()
    answer = tool("alpha")
    assert answer.status in (USAGE, CORRUPT, NOT_FOUND), answer.text
    sentence(answer)
    well_again(index, tool)


def test_core_metadata_that_lies(index, tool):
    file = index.add("alpha", padding=200_000, core=b"Name: alpha\nVersion: 1.0\n")
    serve(index, f"/files/{file.filename}.metadata", b"Name: alpha\nVersion: 9\n")
    refused(tool("alpha"), CORRUPT, "promised")
    well_again(index, tool)


def test_core_metadata_that_is_not_there(index, tool):
    file = index.add("alpha", padding=200_000, core=b"x")
    index.routes[f"/files/{file.filename}.metadata"] = lambda h: index.answer(h, 404)
    assert tool("alpha").status == 0


def test_metadata_without_end(index, tool):
    file = index.add("alpha", padding=200_000, core=b"x")
    head = b"HTTP/1.1 200 OK\r\n\r\n"
    raw(index, f"/files/{file.filename}.metadata", head, b"Name: alpha\n" * 10_000, times=100)
    assert tool("alpha").status == 0, "then it is read out of the wheel"


def test_ranges_from_nowhere(index, tool):
    file = index.add("alpha", padding=200_000)

    def lie(handler):
        if handler.headers.get("Range"):
            return index.answer(handler, 206, file.data[:65536], Content_Range="bytes 0-65535/65536")
        return index.answer(handler, 200, file.data)

    index.routes[f"/files/{file.filename}"] = lie
    assert tool("--fetch", "alpha").status == 0


# --- what is kept ----------------------------------------------------------------------------------


def test_max_age_and_last_modified(index, tool):
    index.add("alpha")
    seen = []

    def page(handler):
        seen.append(handler.headers.get("If-Modified-Since"))
        if seen[-1]:
            handler.send_response(304)
            handler.end_headers()
            return
        index.answer(
            handler,
            200,
            index.page_json("alpha"),
            Content_Type=conftest.JSON_TYPE,
            Cache_Control="max-age=0, public",
            Last_Modified="Fri, 27 Nov 2026 08:00:00 GMT",
        )

    index.routes[PAGE] = page
    assert tool("alpha").status == 0
    assert tool("alpha").status == 0
    assert seen == [None, "Fri, 27 Nov 2026 08:00:00 GMT"]


def test_answers_do_not_pile_up(index, tool):
    """Pages and METADATA have a budget: what was not used for longest goes."""
    index.add("alpha")
    assert tool("alpha").status == 0
    kept = {path for kind in ("pages", "metadata") for path in (tool.cache / kind).iterdir()}
    assert len(kept) == 2
    large = []
    for n, kind in enumerate(("pages", "metadata", "builds")):
        large.append(tool.cache / kind / ("0" * 64))
        with open(large[-1], "wb") as f:
            f.truncate(600 << 20)
        os.utime(large[-1], (time.time() - 1000 * (3 - n),) * 2)
    assert tool("alpha").status == 0
    assert [path.exists() for path in large] == [False, False, True]
    assert all(path.exists() for path in kept)


def test_no_store_is_not_kept(index, tool):
    index.add("alpha")
    serve(index, PAGE, index.page_json("alpha"), Cache_Control="no-store")
    assert tool("alpha").status == 0
    assert list((tool.cache / "pages").iterdir()) == []


def test_offline(index, tool):
    index.add("alpha", requires=["beta"])
    index.add("beta")
    first = tool("--fetch", "alpha")
    for page in (tool.cache / "pages").iterdir():
        os.utime(page, (1, 1))
    tool.settings["offline"] = True
    index.asked.clear()
    assert tool("--fetch", "alpha").lock == first.lock
    refused(tool("gamma"), UPSTREAM, "not in the cache", "--offline")
    assert index.asked == []


def test_first_index_that_knows_a_name_has_all_of_it(index, tool):
    index.add("alpha", "2.0")
    index.add("beta", "1.0")
    old = conftest.File("alpha-1.0-py3-none-any.whl", conftest.make_wheel("alpha", "1.0"))
    body = page_of(files=[entry(old.filename)])
    index.routes["/mine/alpha/"] = lambda h: index.answer(h, 200, body, Content_Type="x/json")
    serve(index, f"/files/{old.filename}", old.data, "x/wheel")
    tool.settings["first_indexes"] = [f"http://{index.host}/mine/"]
    assert tool("alpha", "beta").versions == {"alpha": "1.0", "beta": "1.0"}
    index.routes["/mine/alpha/"] = lambda h: index.answer(h, 500)
    assert tool("--cache", str(tool.where / "other"), "alpha").status == UPSTREAM


def test_status_of_a_project(index, tool):
    index.add("alpha")
    page = json.loads(index.page_json("alpha"))
    page["project-status"] = {"status": "archived", "reason": "see \x1b[31mbeta"}
    serve(index, PAGE, json.dumps(page).encode())
    answer = tool("alpha")
    assert answer.status == 0 and "calls alpha archived" in answer.text
    assert "\x1b" not in answer.text
    page["project-status"] = {"status": "quarantined", "reason": "malware"}
    serve(index, PAGE, json.dumps(page).encode())
    answer = tool("--cache", str(tool.where / "other"), "alpha")
    assert answer.status == NOT_FOUND
    assert "calls alpha quarantined (malware)" in answer.text


def test_several_credentials_of_one_host(index, tool):
    seen = {}

    def page(handler):
        seen[handler.path] = handler.headers.get("Authorization")
        index.answer(handler, 200, page_of(), Content_Type=conftest.JSON_TYPE)

    index.routes["/one/simple/alpha/"] = index.routes["/two/simple/alpha/"] = page
    tool.settings["index_url"] = f"http://a:one@{index.host}/one/simple"
    tool.settings["extra_index_urls"] = [f"http://b:two@{index.host}/two/simple"]
    tool("alpha")
    for path, who in {"/one/simple/alpha/": b"a:one", "/two/simple/alpha/": b"b:two"}.items():
        assert seen[path] == "Basic " + base64.b64encode(who).decode()


def test_proxy_of_the_caller(index, tool, monkeypatch):
    """The proxy sees the whole URL; the tool's own environment, as a daemon's, does not count."""
    index.add("alpha")
    seen = []
    served = index.serve

    def proxied(handler):
        seen.append(handler.path)
        handler.path = handler.path.removeprefix("http://nowhere.invalid")
        served(handler)

    index.serve = proxied
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    tool.settings["index_url"] = "http://nowhere.invalid/simple"
    tool.settings["http_proxy"] = f"http://user:s3cret@{index.host}"
    answer = tool("alpha")
    assert answer.status == 0, answer.text
    assert seen[0] == "http://nowhere.invalid/simple/alpha/"
    tool.settings["no_proxy"] = "nowhere.invalid"
    answer = tool("beta")
    assert answer.status == UPSTREAM and "s3cret" not in answer.text


def test_two_daemons_on_one_cache(index, tool):
    """One begins while the other downloads: nothing of the other's is swept away."""
    file = index.add("alpha", padding=3_000_000)
    slow = threading.Event()

    def wait(handler):
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(file.data)))
        handler.end_headers()
        handler.wfile.write(file.data[:1_000_000])
        handler.wfile.flush()
        slow.wait(20)
        handler.wfile.write(file.data[1_000_000:])

    index.routes[f"/files/{file.filename}"] = lambda h: (
        index.serve_file(h, file) if h.headers.get("Range") else wait(h)
    )
    index.add("beta")
    tool.alone = False
    done = []
    first = threading.Thread(target=lambda: done.append(tool("--fetch", "alpha")))
    first.start()
    deadline = time.monotonic() + 20
    while not any(r is None for r in index.downloads(file)) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert tool("--fetch", "beta").status == 0
    slow.set()
    first.join()
    assert done[0].status == 0, done[0].text
    assert list((tool.cache / "tmp").iterdir()) == []


def test_what_a_dead_daemon_left_is_swept(index, tool):
    left = tool.cache / "tmp" / "123-abcdef"
    left.mkdir(parents=True)
    (left / "half").write_bytes(b"x" * 1000)
    index.add("alpha")
    assert tool("--fetch", "alpha").status == 0
    assert not left.exists()


# --- secrets and certificates ----------------------------------------------------------------------


def test_credentials_of_a_direct_url_are_not_told(index, tool):
    file = index.add("alpha", padding=200_000)
    index.auth = "Basic " + base64.b64encode(b"user:s3cret").decode()
    url = f"http://user:s3cret@{index.host}/files/{file.filename}"
    for status in (None, 500, 404):
        if status:
            index.routes[f"/files/{file.filename}"] = lambda h, s=status: index.answer(h, s)
        answer = tool("--fetch", f"alpha @ {url}")
        assert (answer.status == 0) == (status is None), answer.text
        assert status or "s3cret" not in json.dumps(answer.lock)
        assert "s3cret" not in answer.text, answer.text
    for path in tool.cache.rglob("*"):
        assert "s3cret" not in path.name
        assert path.is_dir() or b"s3cret" not in path.read_bytes()


def make_authority(where):
    """An authority, a server's certificate for 127.0.0.1 and a client's, each with its key."""

    def openssl(*args):
        subprocess.run(["openssl", *args], cwd=where, check=True, capture_output=True)

    new = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2")
    openssl("req", "-x509", *new, "-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=ca")
    (where / "server.ext").write_text("subjectAltName = IP:127.0.0.1\n")
    (where / "client.ext").write_text("extendedKeyUsage = clientAuth\n")
    for who in ("server", "client"):
        openssl("req", *new[:-2], "-keyout", f"{who}.key", "-out", f"{who}.csr", "-subj", f"/CN={who}")
        openssl(
            *("x509", "-req", "-in", f"{who}.csr", "-CA", "ca.pem", "-CAkey", "ca.key"),
            *("-CAcreateserial", "-days", "2", "-extfile", f"{who}.ext", "-out", f"{who}.crt"),
        )
        both = (where / f"{who}.key").read_text() + (where / f"{who}.crt").read_text()
        (where / f"{who}.pem").write_text(both)


def test_certificates(index, tool, tmp_path):
    make_authority(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "server.pem")
    index.server.socket = context.wrap_socket(index.server.socket, server_side=True)
    index.add("alpha")
    tool.settings["index_url"] = f"https://{index.host}/simple"
    plain = dict(tool.settings)

    def status(**settings):
        tool.settings = {**plain, **settings}
        return tool("--cache", str(tmp_path / f"cache-{len(settings)}-{time.monotonic()}"), "alpha")

    refused(status(), UPSTREAM, "its certificate is not trusted")
    assert status(cert=str(tmp_path / "ca.pem")).status == 0
    assert status(cert_file=str(tmp_path / "ca.pem")).status == 0
    assert status(trusted_hosts=["127.0.0.1"]).status == 0
    refused(status(cert=str(tmp_path / "nothing.pem")), UPSTREAM, "cannot be read")
    # pip's own setting is all that counts
    other = status(cert="/etc/ssl/certs/ca-certificates.crt", cert_file=str(tmp_path / "ca.pem"))
    refused(other, UPSTREAM, "its certificate is not trusted")


def test_client_certificate(index, tool, tmp_path):
    make_authority(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "server.pem")
    context.load_verify_locations(tmp_path / "ca.pem")
    context.verify_mode = ssl.CERT_REQUIRED
    index.server.socket = context.wrap_socket(index.server.socket, server_side=True)
    index.add("alpha")
    tool.settings.update(index_url=f"https://{index.host}/simple", cert=str(tmp_path / "ca.pem"))
    assert tool("alpha").status == UPSTREAM
    tool.settings["client_cert"] = str(tmp_path / "nothing.pem")
    refused(tool("alpha"), UPSTREAM, "client certificate cannot be used")
    tool.settings["client_cert"] = str(tmp_path / "client.pem")
    assert tool("alpha").status == 0


def test_https_is_not_left(index, tool, tmp_path):
    """A redirect from https to http could be read and changed on its way."""
    make_authority(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "server.pem")
    index.server.socket = context.wrap_socket(index.server.socket, server_side=True)
    tool.settings.update(index_url=f"https://{index.host}/simple", cert=str(tmp_path / "ca.pem"))
    index.routes[PAGE] = lambda h: index.answer(h, 302, Location="http://127.0.0.1:1/x/")
    refused(tool("alpha"), UPSTREAM, "from https to http")
