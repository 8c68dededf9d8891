# SPDX-License-Identifier: Apache-2.0
"""Every set of tests/oracle.py: the same wheels as the newest pip would install."""
import pytest

import oracle


@pytest.mark.parametrize("kind, lines", oracle.all_sets(), ids=lambda x: x.replace("\n", ","))
def test_same_as_pip(kind, lines, tmp_path):
    oracle.check(lines, tmp_path)


@pytest.mark.parametrize("lines, before", oracle.DATED, ids=lambda x: x.replace("\n", ","))
def test_same_as_pip_at_a_time(lines, before, tmp_path):
    oracle.check(lines, tmp_path, before=before)


@pytest.mark.parametrize("lines", oracle.PYTHONS, ids=lambda x: x.replace("\n", ","))
@pytest.mark.parametrize("python", oracle.pythons())
def test_same_as_pip_for_another_interpreter(python, lines, tmp_path):
    oracle.check(lines, tmp_path, python=python)
