#!/bin/sh
# run-tests.sh BUILD: every suite of `make test`; the last line is "N passed, N failed".
set -u
build=$1
cd "$(dirname "$0")/.." || exit 1
build=$(realpath "$build")
results=$build/test-results
rm -rf "$results"
mkdir -p "$results"
status=0
meson test -C "$build" --no-rebuild --print-errorlogs --suite unit || status=1
cp "$build"/meson-logs/testlog.junit.xml "$results/unit.xml" 2>/dev/null || status=1
PIPSQUEAK_BUILD=$build PYTHONPATH='' /usr/bin/python3 -m pytest -q -rfE \
	--junitxml="$results/pytest.xml" -o junit_family=xunit2 -p no:cacheprovider \
	tests/e2e tests/security || status=1
/usr/bin/python3 tools/count_tests.py "$results" || status=1
exit $status
