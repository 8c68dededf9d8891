# SPDX-License-Identifier: Apache-2.0
"""The smallest function: no packages."""


def handler(event):
    name = (event or {}).get("name", "world")
    return {"hello": name}
