# SPDX-License-Identifier: Apache-2.0
"""Well-known packages: a call from the bare interpreter, one forked from the package's own sleeping
interpreter and a fresh python3 process with the same files answer alike (DESIGN.md, S10)."""
import json
import os
import re
import subprocess

import pytest

from conftest import BUILD

# What each handler returns says more than that the import worked: registries, defaults and compiled
# parts are used, and what depends on how the process came to be (addresses, times) is left out.
USES = {
    "numpy": """
import numpy as np
def handler(e):
    a = np.random.RandomState(5).rand(40, 40)
    return [round(float(np.linalg.svd(a)[1].sum()), 9), np.fft.rfft(a[0]).real.round(9).tolist(),
            np.get_printoptions()["precision"], np.geterr(), np.ma.array([1, 2], mask=[0, 1]).sum().item(),
            np.polynomial.Polynomial([1, 2, 3])(2.0), str(np.dtype("datetime64[ns]"))]
""",
    "pandas": """
import io
import pandas as pd
def handler(e):
    f = pd.read_csv(io.StringIO("day,k,v\\n2024-01-01,a,1\\n2024-01-02,b,2\\n2024-02-01,a,4\\n"), parse_dates=["day"])
    return [f.groupby("k").v.sum().to_json(), f.resample("MS", on="day").v.mean().to_json(), str(f.dtypes.to_dict()),
            f.merge(f, on="k").shape, str(f), f.day.dt.tz_localize("UTC").dt.tz_convert("Asia/Tokyo").astype(str).tolist(),
            pd.get_option("display.max_rows")]
""",
    "requests": """
import requests
def handler(e):
    s = requests.Session()
    p = s.prepare_request(requests.Request("POST", "http://bücher.example/a b", json={"x": [1]}, auth=("u", "p")))
    try:
        s.send(p, timeout=2)
        failed = None
    except requests.RequestException as x:
        failed = type(x).__name__
    return [p.url, dict(p.headers), p.body.decode(), failed, sorted(s.adapters), requests.certs.where()]
""",
    "flask": """
import flask
app = flask.Flask("shop")
app.secret_key = "k"
@app.route("/<int:n>", methods=["GET", "POST"])
def item(n):
    flask.session["n"] = n
    return flask.render_template_string("{{ n }}: {{ '<b>' }} {{ [1, 2] | join('-') }}", n=n)
def handler(e):
    c = app.test_client()
    return [c.get("/7").get_data(as_text=True), c.get("/x").status_code, c.post("/8").status_code,
            sorted(str(r) for r in app.url_map.iter_rules())]
""",
    "pydantic": """
import datetime
import pydantic
class Line(pydantic.BaseModel):
    n: int = pydantic.Field(gt=0)
    when: datetime.date
class Order(pydantic.BaseModel):
    lines: list[Line]
    note: "str | None" = None
def handler(e):
    try:
        Order(lines=[{"n": -1, "when": "x"}])
        bad = None
    except pydantic.ValidationError as x:
        bad = [[list(d["loc"]), d["type"], d["msg"]] for d in x.errors()]
    return [Order(lines=[{"n": "3", "when": "2024-02-29"}]).model_dump_json(), bad, Order.model_json_schema()]
""",
    "sqlalchemy": """
import sqlalchemy as sa
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column
class Base(DeclarativeBase):
    pass
class Thing(Base):
    __tablename__ = "thing"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
def handler(e):
    engine = sa.create_engine("sqlite://")
    Base.metadata.create_all(engine)
    with Session(engine) as s:
        s.add_all([Thing(name=n) for n in ("b", "a", "c")])
        s.commit()
        names = s.scalars(sa.select(Thing.name).order_by(Thing.name.desc())).all()
    return [list(names), str(sa.select(Thing).where(Thing.name.in_(["x"])))]
""",
    "pillow": """
import hashlib, io
from PIL import Image, ImageDraw, ImageFilter, features
def handler(e):
    i = Image.new("RGB", (64, 48), (10, 200, 30))
    ImageDraw.Draw(i).ellipse((5, 5, 50, 40), fill=(255, 0, 0))
    out = []
    for kind in ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP"):
        b = io.BytesIO()
        i.filter(ImageFilter.GaussianBlur(2)).resize((20, 15)).save(b, kind)
        out.append([kind, len(b.getvalue()), Image.open(io.BytesIO(b.getvalue())).size, hashlib.sha1(b.getvalue()).hexdigest()])
    return [out, sorted(Image.registered_extensions())[:5], features.check("jpg")]
""",
    "matplotlib": """
import io
import matplotlib
matplotlib.use("Agg")
import matplotlib.pyplot as plt
def handler(e):
    f, a = plt.subplots()
    a.plot([1, 3, 2], label="a line")
    a.legend()
    a.set_title("$x^2$ and text")
    b = io.BytesIO()
    f.savefig(b, dpi=50, metadata={"Software": None})
    width, height = f.canvas.get_width_height()
    plt.close(f)
    return [b.getvalue()[:8].hex(), width, height, len(b.getvalue()), matplotlib.get_backend(),
            matplotlib.rcParams["font.family"]]
""",
}


def plain_name(text):
    name, _, version = text.replace(" ", "-").rpartition("-")
    return re.sub(r"[-_.]+", "_", name).lower() + "-" + version


def installed(dists):
    """The environment tree of this lock, to be read by a fresh process on the host."""
    want = {plain_name(d) for d in dists}
    envs = os.path.join(BUILD, "test-cache", "cache", "store", "envs")
    for name in sorted(os.listdir(envs)):
        site = os.path.join(envs, name, "lib", "python3.11", "site-packages")
        infos = os.listdir(site) if os.path.exists(site) else ()
        if {plain_name(i[:-10]) for i in infos if i.endswith(".dist-info")} == want:
            return site
    raise AssertionError("no environment of %s" % sorted(want))


def fresh(site, code, home):
    """The handler's answer in a new python3, found through the same kind of path."""
    script = ("import json, os, sys\nos.umask(0o22)\nsource = sys.stdin.read()\nspace = {'__name__': 'handler'}\n"
              "import types\nm = types.ModuleType('handler'); sys.modules['handler'] = m\n"
              "exec(compile(source, '/app/handler.py', 'exec'), m.__dict__)\nprint(json.dumps(m.handler(None)))\n")
    env = {"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", "HOME": home, "PYTHONPATH": site,
           "OPENBLAS_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    out = subprocess.run(["/usr/bin/python3", "-c", script], input=code, env=env, cwd=home, text=True,
                         capture_output=True, timeout=120)
    assert out.returncode == 0, out.stderr
    return json.loads(out.stdout.splitlines()[-1].replace(site, "/pipsqueak/env/lib/python3.11/site-packages"))


@pytest.mark.parametrize("dist", USES)
def test_the_same_answer_however_started(daemon, workdir, dist):
    name = "alike-" + dist
    made = daemon.deployed(name, {"handler.py": USES[dist], "requirements.txt": dist,
                                  "pipsqueak.toml": "reuse = false\ntimeout = 60\n"})
    want = fresh(installed(made["dists"]), USES[dist], workdir)
    first = daemon.call(name)
    assert first.status == 200, first.body
    assert first.json == want
    daemon.wait_for_node(dist)
    for _ in range(3):
        forked = daemon.call(name)
        assert forked.status == 200, forked.body
        assert forked.start in ("fork", "spare")
        assert forked.json == want
