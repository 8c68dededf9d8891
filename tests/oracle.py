# SPDX-License-Identifier: Apache-2.0
"""pip as the oracle: the newest pip of the index, in a virtual environment of its own, and what it
would install for a set of requirements."""
import glob
import json
import os
import subprocess
import sys

TOP = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
BUILD = os.path.abspath(os.environ.get("PIPSQUEAK_BUILD", os.path.join(TOP, "build")))
VENV = os.path.join(BUILD, "oracle-venv")
CACHE = os.path.join(BUILD, "oracle-cache")

# Each set: requirement lines. Kept by kind; `make test` takes the first of each kind.
SETS = {
    "pure": ["requests", "flask", "django", "rich", "httpx", "jinja2", "pytest", "black", "attrs",
             "beautifulsoup4", "click", "tqdm"],
    "compiled": ["numpy", "pandas", "pydantic", "cryptography", "lxml", "pillow", "scipy", "orjson",
                 "psycopg2-binary", "grpcio", "polars", "duckdb", "opencv-python-headless", "pyarrow",
                 "regex", "aiohttp"],
    "extras": ["fastapi[standard]", "uvicorn[standard]", "requests[socks,security]", "celery[redis]",
               "httpx[http2,brotli]", "pydantic[email]", "sqlalchemy[asyncio]", "pandas[excel,plot]",
               "django-allauth[mfa]", "black[d,jupyter]", "coverage[toml]", "jsonschema[format]"],
    "ranges": ["django>=3.2,<5", "numpy<2\npandas<2.2", "sqlalchemy~=1.4.0", "urllib3!=2.0.0,<2.1",
               "flask==2.*", "pydantic<2\nfastapi<0.100", "requests>=2.20,<2.29", "scikit-learn<1.4",
               "celery>=5,<5.3", "attrs==22.2"],
    "markers": ["requests; python_version >= '3'\nflask; sys_platform == 'win32'",
                "tomli; python_version < '3.11'\nclick",
                "colorama; os_name == 'nt'\ntqdm; platform_system == 'Linux'",
                "importlib-metadata; python_full_version < '3.12'\nzipp"],
    "old": ["numpy==1.24.0", "pandas==1.5.3", "django==2.2.28", "flask==0.12.5", "requests==2.6.0",
            "sqlalchemy==1.3.24", "six==1.0.0\nattrs", "jinja2==2.11.3\nmarkupsafe<2.1", "boto3==1.20.0"],
    "prereleases": ["black>=23.0a0", "django>=5.0a1,<5.1", "pydantic>=2.0b1,<2.1", "opentelemetry-instrumentation",
                    "opentelemetry-instrumentation-flask", "azure-monitor-opentelemetry"],
    "yanked": ["cryptography==37.0.3", "attrs==21.1.0", "urllib3==1.25\nrequests", "jsonschema==4.0.0"],
    "namespace": ["google-cloud-storage", "azure-storage-blob\nazure-identity",
                  "zope.interface\nzope.event", "sphinxcontrib-htmlhelp\nsphinx",
                  "jaraco.text\njaraco.functools", "ruamel.yaml"],
    "backtracking": ["typing-extensions<4.6\nfastapi\nsqlalchemy", "botocore<1.34\nboto3\ns3fs", "boto3\naiobotocore", "urllib3<2\nboto3\nrequests",
                     "importlib-metadata<5\nflake8\nsphinx", "jupyter-client<7\nnotebook",
                     "protobuf<4\ngrpcio-tools",
                     "markupsafe<2\nflask", "packaging<22\nblack\npytest"],
    "applications": [
        "pandas\nscikit-learn\nmatplotlib\nboto3\ndjango\nfastapi\nuvicorn\nsqlalchemy\nflask\ncelery",
        "jupyterlab", "scrapy", "spacy", "streamlit", "langchain\nopenai", "mkdocs-material",
        "ansible-core\nmolecule", "dask[complete]", "great-expectations", "prefect<3", "gradio",
        "poetry", "cookiecutter\ntox\nnox", "apache-airflow-client\nsentry-sdk[flask]"],
    "named twice": ["requests\nrequests[socks]>=2.28", "Flask_SQLAlchemy\nflask-sqlalchemy<3.1",
                    "pandas>=1\npandas<3\nnumpy>=1.20"],
    "conflicts": ["flask==2.0.0\nwerkzeug==1.0.0", "numpy==99", "no-such-package-of-this-name",
                  "pandas==2.2.0\nnumpy<1.20", "django==5.0\nasgiref<3", "tensorflow==0.12.0",
                  "boto3==1.34.0\nbotocore==1.33.0"],
}


# What was uploaded before a moment; and for other interpreters.
DATED = [("pandas\nflask", "2024-06-01T00:00:00Z"), ("boto3\nrequests", "2023-03-01T12:00:00Z"),
         ("fastapi[all]", "2025-01-15T00:00:00Z"), ("notebook", "2022-10-01T00:00:00Z")]
PYTHONS = ["pandas\nscikit-learn\nmatplotlib", "aiohttp\nuvicorn[standard]", "tomli; python_version < '3.11'\nrich",
           "sqlalchemy\ngrpcio\nlxml"]


def pythons() -> list:
    """Other interpreters of this machine that the newest pip runs on."""
    found = glob.glob(os.path.expanduser("~/.pyenv/versions/3.1[0-9]*/bin/python3.1[0-9]"))
    return sorted(path for path in found if "3.11" not in path)


def all_sets() -> list:
    return [(kind, lines) for kind, sets in SETS.items() for lines in sets]


def some_sets() -> list:
    return [(kind, sets[0]) for kind, sets in SETS.items() if kind != "applications"]


def pip() -> str:
    """The newest pip that the index has; made once below the build directory."""
    path = os.path.join(VENV, "bin", "pip")
    if not os.path.exists(path):
        subprocess.run(["/usr/bin/python3", "-m", "venv", VENV], check=True)
        subprocess.run([path, "install", "-q", "--upgrade", "pip"], check=True)
    return path


def answer_of_pip(text: str, where, *options, python=None):
    """{name: (version, sha256)}, or None when pip finds no answer."""
    other = ["--python", python] if python else []
    lines = os.path.join(where, "oracle-requirements.txt")
    report = os.path.join(where, "oracle-report.json")
    with open(lines, "w") as f:
        f.write(text + "\n")
    if os.path.exists(report):
        os.remove(report)
    done = subprocess.run(
        [pip(), *other, "install", "--dry-run", "--ignore-installed", "--only-binary", ":all:", "-q", "--cache-dir", CACHE,
         "--disable-pip-version-check", "--report", report, *options, "-r", lines],
        capture_output=True, text=True, timeout=600, cwd=where)
    if done.returncode:
        return None
    with open(report) as f:
        found = json.load(f)["install"]
    result = {}
    for item in found:
        name = item["metadata"]["name"].lower().replace("_", "-").replace(".", "-")
        sha256 = item["download_info"]["archive_info"]["hashes"]["sha256"]
        result[name] = (item["metadata"]["version"], sha256)
    return result


def answer_of_ours(text: str, where, *options, python="/usr/bin/python3"):
    """The same of src/index with the resolver as a plain process; and what it said."""
    tool = os.path.join(BUILD, "tests", "unit", "index_tool")
    paths = {"info": os.path.join(TOP, "python", "pyinfo.py"), "settings": os.path.join(TOP, "python", "pipconf.py")}
    args = []
    for key, program in paths.items():
        by = python if key == "info" else "/usr/bin/python3"
        out = subprocess.run([by, program], capture_output=True, check=True)
        path = os.path.join(where, key)
        with open(path, "wb") as f:
            f.write(out.stdout)
        args += ["--" + key, path]
    lines = os.path.join(where, "our-requirements.txt")
    with open(lines, "w") as f:
        f.write(text + "\n")
    resolver = "%s:%s" % (os.path.join(TOP, "python"), os.path.join(TOP, "tests/unit_py/standin"))
    done = subprocess.run(
        [tool, "--cache", os.path.join(BUILD, "oracle-index"), "--resolver", resolver, *args, *options,
         "--requirements", lines], capture_output=True, text=True, timeout=600)
    assert "Traceback" not in done.stderr, done.stderr
    if done.returncode:
        return None, done.stderr
    dists = json.loads(done.stdout)["dists"]
    return {d["name"]: (d["version"], d["sha256"]) for d in dists}, done.stderr


def difference(theirs, ours) -> list:
    names = sorted(set(theirs) | set(ours))
    return [(n, theirs.get(n), ours.get(n)) for n in names if theirs.get(n) != ours.get(n)]


def check(lines: str, where, before=None, python=None):
    theirs = answer_of_pip(lines, where, *(["--uploaded-prior-to", before] if before else []), python=python)
    options = []
    if before:
        options = ["--inputs", os.path.join(where, "inputs")]
        with open(options[1], "w") as f:
            json.dump({"exclude_newer": before}, f)
    ours, said = answer_of_ours(lines, where, *options, python=python or "/usr/bin/python3")
    if theirs is None:
        assert ours is None, "pip finds no answer, but: %s" % ours
        assert any(line.startswith("error: ") and len(line) > 40 for line in said.splitlines()), said
    else:
        assert ours is not None, said
        assert difference(theirs, ours) == []


if __name__ == "__main__":  # one set by hand: python3 tests/oracle.py 'requests' 'flask<2'
    import tempfile

    with tempfile.TemporaryDirectory() as where:
        text = "\n".join(sys.argv[1:])
        print(difference(answer_of_pip(text, where) or {}, answer_of_ours(text, where)[0] or {}))
