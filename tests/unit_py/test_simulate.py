# SPDX-License-Identifier: Apache-2.0
"""`pipsqueak simulate` and `pipsqueak fit` from outside: what they print, and what they say of bad input."""

import json
import os
import subprocess
import xml.etree.ElementTree as ET

import pytest

PROGRAM = os.path.join(os.environ["PIPSQUEAK_BUILD"], "src/cli/pipsqueak")


def run(*args):
    return subprocess.run([PROGRAM, *map(str, args)], capture_output=True, text=True, timeout=120)


def test_simulate_a_generated_workload(tmp_path):
    svg = tmp_path / "plot.svg"
    done = run("simulate", "generated:60", "--zipf", 1, "--calls", 300, "--train", 100, "--memory", "100M,300M",
               "--policy", "none,lru,gdsf,sock", "--policy", "online,fitted,bound", "--json", "--svg", svg)  # fmt: skip
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)
    mean = {(r["policy"], r["allowed_gb"]): r["residual_ms"]["mean"] for r in rows}
    assert len(mean) == 14
    for gb in (0.1, 0.3):
        assert mean["bound", gb] == 0
        for policy in ("lru", "gdsf", "sock", "online", "fitted"):
            assert 0 < mean[policy, gb] < mean["none", gb] / 2
    assert all(r["memory_gb"] <= r["allowed_gb"] for r in rows)
    assert ET.parse(svg).getroot().tag.endswith("svg")
    assert done.stdout == run("simulate", "generated:60", "--zipf", 1, "--calls", 300, "--train", 100, "--memory",
                              "100M,300M", "--policy", "none,lru,gdsf,sock,online,fitted,bound", "--json").stdout  # fmt: skip


def test_a_fitted_tree_can_be_replayed(tmp_path):
    tree = tmp_path / "tree.json"
    assert run("fit", "--memory", "200M", "--from", "generated:60", "-o", tree).returncode == 0
    assert json.loads(tree.read_text())["packages"] == []
    done = run("simulate", "generated:60", "--memory", "200M", "--policy", f"tree:{tree},fitted", "--json")
    replayed, fitted = json.loads(done.stdout)
    assert replayed["residual_ms"] == fitted["residual_ms"]
    assert replayed["memory_gb"] == fitted["memory_gb"]


@pytest.mark.parametrize(
    "args, said",
    [
        (["simulate"], "which workload"),
        (["simulate", "/nowhere"], "packages.json"),
        (["simulate", "generated:0"], "generated:N"),
        (["simulate", "generated:9", "--policy", "best"], "no policy 'best'"),
        (["simulate", "generated:9", "--policy", "lru:x"], "no policy"),
        (["simulate", "generated:9", "--policy", "forklift:/dev/null"], "/dev/null"),
        (["simulate", "generated:9", "--memory", "2"], "--memory takes"),
        (["simulate", "generated:9", "--memory", "60M"], "--memory takes"),
        (["simulate", "generated:9", "--zipf", "nan"], "--zipf takes"),
        (["simulate", "generated:9", "--zipf"], "without its value"),
        (["simulate", "generated:9", "--splits", "2", "--drift", "1"], "--splits is for"),
        (["simulate", "generated:9", "--frobnicate", "2"], "unexpected '--frobnicate'"),
        (["fit", "--memory", "2G", "-o", "x"], "--from"),
        (["fit", "--memory", "2", "--from", "generated", "-o", "x"], "--memory takes"),
        (["fit", "--memory", "2G", "--from", "generated", "-o", "/nowhere/x"], "/nowhere/x"),
    ],
)
def test_bad_input_is_told(args, said):
    done = run(*args)
    assert done.returncode in (2, 3, 8, 11), done
    assert said in done.stderr
    assert done.stdout == ""
