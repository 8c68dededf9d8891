# SPDX-License-Identifier: Apache-2.0
import os
import sys

import pytest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import harness


@pytest.fixture(scope="session", params=harness.pythons())
def zygote(request):
    z = harness.Zygote(request.param)
    z.start()
    yield z
    z.close()
