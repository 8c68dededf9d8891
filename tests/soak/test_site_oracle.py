# SPDX-License-Identifier: Apache-2.0
"""Many dists of every kind: site-packages and importlib.metadata as pip makes them."""

import pytest

import site_oracle
from conftest import apart

SETS = [
    ["numpy", "pandas"], ["scipy", "scikit-learn"], ["matplotlib"], ["django", "djangorestframework"], ["sqlalchemy", "alembic"],
    ["boto3"], ["requests", "httpx", "aiohttp"], ["flask", "gunicorn"], ["fastapi", "uvicorn"], ["pydantic"],
    ["black", "mypy", "pylint"], ["jupyterlab"], ["notebook"], ["sphinx", "sphinx-rtd-theme"], ["google-cloud-storage"],
    ["azure-identity", "azure-storage-blob"], ["zope.interface", "zope.component", "zope.schema"], ["plone.event"],
    ["pillow", "opencv-python-headless"], ["lxml", "beautifulsoup4", "html5lib"], ["cryptography", "paramiko"], ["pyyaml", "ruamel.yaml"],
    ["networkx", "sympy"], ["polars"], ["pyarrow"], ["dask", "distributed"], ["nltk", "gensim"], ["ansible-core"], ["awscli"],
    ["pytest", "pytest-cov", "hypothesis"], ["poetry"], ["tox", "nox"], ["pre-commit"], ["streamlit"], ["plotly", "dash"],
    ["celery", "redis"], ["scrapy"], ["twisted"], ["jsonschema", "referencing"], ["ruff", "uv"],
]


@pytest.fixture(scope="module")
def own_store():
    with apart() as d:
        yield d


@pytest.mark.parametrize("dists", SETS, ids=" ".join)
def test_as_pip_installs_it(own_store, workdir, dists):
    site_oracle.compare(own_store, workdir, dists)
