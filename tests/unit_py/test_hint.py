# SPDX-License-Identifier: Apache-2.0
"""Which package is named when a module is missing."""

import sys

import pytest
from conftest import ROOT

sys.path.insert(0, str(ROOT / "python"))
import pipsqueak_hint


@pytest.mark.parametrize(
    "module, dist",
    [
        ("cv2", "opencv-python"),
        ("PIL", "pillow"),
        ("yaml", "pyyaml"),
        ("sklearn", "scikit-learn"),
        ("bs4", "beautifulsoup4"),
        ("some_thing", "some-thing"),
        ("google.protobuf", "protobuf"),
        ("google.cloud.storage.blob", "google-cloud-storage"),
        ("azure.identity", "azure-identity"),
        ("google", None),
        ("a.b", None),
        ("os.nothing", None),
        ("_posixsubprocess", None),
    ],
)
def test_module_and_dist(module, dist):
    text = pipsqueak_hint.hint(None, ModuleNotFoundError("no", name=module), [])
    if dist is None:
        assert text is None
    else:
        assert text == f"no package given provides '{module}'; try --with {dist}"
