# SPDX-License-Identifier: Apache-2.0
"""The tree under a small budget for minutes of deploys, calls, removals, restarts and kills."""
import shutil

import chaos
from soaking import MINUTES, luck

from conftest import Daemon, new_base


def test_the_tree_holds_whatever_happens(index):
    d = Daemon(new_base(), ["--memory", "72M", "--root-age", "20"])
    d.allowed += ["forks|forking|BrokenPipe|ConnectionReset|EOFError|Traceback|went away|ended with status|could not start as a zygote"]
    mad = chaos.Chaos(d, index, luck("tree"))
    steps = mad.run(max(20, 60 * MINUTES / 6), 1)
    assert steps > 30 and mad.calls > 50, (steps, mad.calls)
    d.stop()
    d.check_log()
    shutil.rmtree(d.base)
