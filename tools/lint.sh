#!/bin/sh
# lint.sh: format, caps, headers, rooms, static analysis, Python. Every check prints what is wrong; exit 1.
cd "$(dirname "$0")/.." || exit 1
tools/setup.sh lint || exit 1
bad=0
fail() { echo "lint: $*" >&2; bad=1; }
sources=$(git ls-files '*.c')
headers=$(git ls-files '*.h')

# shellcheck disable=SC2086
clang-format --dry-run -Werror $sources $headers || fail "clang-format (make format)"
# Test programs are exempt from the caps of functions: a table of cases is long by nature.
# shellcheck disable=SC2046
pmccabe $(echo "$sources" | grep -v '^tests/') | awk '$5 > 80 || $1 > 15 {
	print "lint: " $6 " " $9 ": " $5 " lines, complexity " $1; bad = 1 } END { exit bad }' >&2 || bad=1
for f in $sources $headers $(git ls-files '*.py'); do
	lines=$(wc -l <"$f")
	case $f in *.h) cap=200 ;; *) cap=800 ;; esac
	[ "$lines" -le $cap ] || fail "$f has $lines lines, more than $cap"
	head -n 3 "$f" | grep -q 'SPDX-License-Identifier: Apache-2.0' ||
		case $f in examples/*) ;; *) fail "$f lacks its SPDX line" ;; esac
done
for f in $headers; do
	grep -q '^#pragma once$' "$f" || fail "$f lacks #pragma once"
	grep -q 'Runs in:' "$f" || case $f in tests/*) ;; *) fail "$f does not say which process it runs in" ;; esac
	printf '#include "%s"\n' "$(basename "$f")" |
		cc -D_GNU_SOURCE -DVERSION='"x"' -std=gnu17 -Isrc -Ipython -I"$(dirname "$f")" -Wno-unused \
			-Wno-pragma-once-outside-header -fsyntax-only -x c - || fail "$f does not compile alone"
done
/usr/bin/python3 tools/check_tree.py || bad=1
# clang-tidy wants compile_commands.json; one process a core, a file at a time.
[ -f build/compile_commands.json ] || meson setup build >/dev/null || fail "meson setup"
found=$(git ls-files 'src/*.c' | xargs -P "$(nproc)" -n 4 clang-tidy -p build --quiet 2>/dev/null |
	grep -E 'warning:|error:' | sort -u)
[ -z "$found" ] || { echo "$found" >&2; fail "clang-tidy"; }
ruff=build/lint-venv/bin/ruff
if [ ! -x $ruff ]; then
	/usr/bin/python3 -m venv build/lint-venv && build/lint-venv/bin/pip install -q ruff ||
		fail "ruff could not be installed"
fi
$ruff check --quiet --no-cache --output-format concise . || fail "ruff"
# What `make test` does not run must at least be found.
for tests in boot fault soak kernel; do
	PYTHONPATH='' /usr/bin/python3 -B -m pytest -q --collect-only -p no:cacheprovider tests/$tests >/dev/null ||
		fail "tests/$tests can not be collected"
done
exit $bad
