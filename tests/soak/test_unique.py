# SPDX-License-Identifier: Apache-2.0
"""Siblings are unique (S9): thirty children of one node draw thirty different values from every
source of randomness that was measured to repeat itself, or that would be missed most if it did."""
import re

import pytest

CHILDREN = 30
# What is drawn: requirements, and code whose last line says it as `value`.
SOURCES = {
    "random": ("", "import random\nvalue = random.random()"),
    "random of its own": ("", "import random\nvalue = random.Random().random()"),
    "secrets": ("", "import secrets\nvalue = secrets.token_hex()"),
    "uuid1": ("", "import uuid\nvalue = [str(uuid.uuid1()) for _ in range(9)]"),
    "uuid1's sequence and node": ("", "import uuid\nvalue = str(uuid.uuid1())[19:]"),
    "uuid4": ("", "import uuid\nvalue = str(uuid.uuid4())"),
    "tempfile": ("", "import tempfile\nvalue = next(tempfile._get_candidate_names())"),
    "authkey": ("", "import multiprocessing, base64\n"
                    "value = base64.b64encode(multiprocessing.current_process().authkey).decode()"),
    "ssl": ("", "import ssl\nvalue = ssl.RAND_bytes(16).hex()"),
    "sqlite3": ("", "import sqlite3\n"
                    "value = sqlite3.connect(':memory:').execute('select random()').fetchone()"),
    "numpy": ("numpy", "import numpy as np\nvalue = np.random.rand(3).tolist()"),
    "numpy's default_rng": ("numpy", "import numpy as np\n"
                                   "value = np.random.default_rng().random(3).tolist()"),
    "scipy.stats": ("scipy", "import scipy.stats as s\nvalue = s.norm.rvs(size=3).tolist()"),
    "pandas": ("pandas", "import pandas as p\n"
                         "value = p.Series(range(10**6)).sample(3).tolist()"),
    "scikit-learn": ("scikit-learn", "from sklearn.utils import shuffle\n"
                                     "value = shuffle(list(range(50)))"),
    "faker": ("faker", "import faker\nvalue = faker.Faker().pystr()"),
    "opencv": ("opencv-python-headless", "import cv2, numpy as np\n"
               "value = cv2.randu(np.zeros(9), 0, 1).tolist()"),
    "duckdb": ("duckdb", "import duckdb\nvalue = duckdb.sql('select random()').fetchall()"),
    "duckdb's new connection": ("duckdb", "import duckdb\nvalue = duckdb.connect().execute("
                                "'select random(), gen_random_uuid()::varchar').fetchall()"),
    "polars": ("polars", "import polars as p\n"
                         "value = p.Series(range(1000)).sample(9, shuffle=True).to_list()"),
    "sympy": ("sympy", "import sympy.core.random as r\nvalue = r.random()"),
    "dask": ("dask[array]", "import dask.array as d\nvalue = d.random.random(3).compute().tolist()"),
    "dask's old generator": ("dask[array]", "import dask.array as d\n"
                             "value = d.random.RandomState().random_sample(3).compute().tolist()"),
    "pyzmq": ("pyzmq", "import zmq\nc = zmq.Context()\nr, d = c.socket(zmq.ROUTER), "
              "c.socket(zmq.DEALER)\nr.bind('inproc://x')\nd.connect('inproc://x')\n"
              "d.send(b'')\nvalue = r.recv_multipart()[0].hex()"),
    "hypothesis": ("hypothesis", "import hypothesis as h, hypothesis.strategies as s\nvalue = []\n"
                   "h.settings(database=None, max_examples=30)(h.given(s.integers())"
                   "(lambda n: value.append(n)))()"),
    "sentry": ("sentry-sdk", "import sentry_sdk\nvalue = "
               "sentry_sdk.get_isolation_scope().get_active_propagation_context().trace_id"),
    "bson": ("pymongo", "import bson\nvalue = str(bson.ObjectId())"),
    "bson's counter": ("pymongo", "import bson\nvalue = str(bson.ObjectId())[18:]"),
    "pyarrow": ("pyarrow", "import pyarrow.compute as c\nvalue = c.random(3).to_pylist()"),
    "cryptography": ("cryptography", "from cryptography.hazmat.primitives.asymmetric import ec\n"
                     "value = hex(ec.generate_private_key(ec.SECP256R1()).private_numbers()"
                     ".private_value)"),
    "fernet": ("cryptography", "from cryptography.fernet import Fernet\n"
               "value = Fernet.generate_key().decode()"),
    "pynacl": ("pynacl", "import nacl.utils\nvalue = nacl.utils.random(16).hex()"),
    "pycryptodome": ("pycryptodome", "from Crypto.Random import get_random_bytes\n"
                     "value = get_random_bytes(16).hex()"),
    "bcrypt": ("bcrypt", "import bcrypt, unittest  # alone it is too quick to be worth a node\nvalue = bcrypt.gensalt().decode()"),
    "paramiko": ("paramiko", "import paramiko\n"
                 "value = paramiko.ECDSAKey.generate().get_base64()"),
    "networkx": ("networkx[default]", "import networkx\n"
                 "value = sorted(networkx.gnp_random_graph(30, 0.5).edges())"),
    "numba": ("numba", "import numba, numpy as np\n"
              "value = numba.njit(lambda: np.random.rand())()"),
    "igraph": ("igraph", "import igraph\nvalue = igraph.Graph.Erdos_Renyi(30, p=0.5).get_edgelist()"),
}

ALIKE_WHEN_FRESH = ("opencv", "pyzmq")  # these begin with the same number in every new process


@pytest.mark.parametrize("source", SOURCES)
def test_thirty_children_draw_thirty_values(daemon, source):
    requirement, code = SOURCES[source]
    name = "unique-" + re.sub(r"\W+", "-", source).lower()
    handler = "def handler(event):\n    space = {}\n    exec(SOURCE, space)\n    return space['value']\n"
    daemon.deployed(name, {"handler.py": "SOURCE = %r\n%s" % (code, handler),
                           "requirements.txt": requirement,
                           "pipsqueak.toml": "reuse = false\ntimeout = 120\nmemory = \"2G\"\n"})
    replies = [daemon.call(name) for _ in range(2)]
    if requirement:
        daemon.wait_for_node(re.sub(r"\[.*", "", requirement))
    replies += [daemon.call(name) for _ in range(CHILDREN)]
    assert {r.status for r in replies} == {200}, replies[0].body
    values = [str(r.json) for r in replies[2 if source in ALIKE_WHEN_FRESH else 0:]]
    assert len(set(values)) == len(values), sorted(values)
    if requirement:
        assert {r.start for r in replies[2:]} <= {"fork", "spare"}
