# SPDX-License-Identifier: Apache-2.0
"""count_tests.py DIR: add up the JUnit files below DIR; prints "N passed, N failed"."""
import os
import sys
import xml.etree.ElementTree as xml


def main():
    passed = failed = 0
    must_run = os.environ.get("PIPSQUEAK_MUST_RUN") == "1"
    for name in sorted(os.listdir(sys.argv[1])):
        for case in xml.parse(os.path.join(sys.argv[1], name)).iter("testcase"):
            kinds = {child.tag for child in case}
            if "failure" in kinds or "error" in kinds or ("skipped" in kinds and must_run):
                failed += 1
                print("failed: %s %s" % (case.get("classname"), case.get("name")))
            elif "skipped" not in kinds:
                passed += 1
    print("%d passed, %d failed" % (passed, failed))
    return 1 if failed or not passed else 0


sys.exit(main())
