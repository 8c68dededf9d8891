#!/bin/sh
# fuzz.sh [TARGET...]: each target of tests/fuzz (default: all) for FUZZ_SECONDS (60), as many at a time as
# there are cores. What is found is written to tests/fuzz/corpus/TARGET/found-*, where `make test` replays
# it for ever; inputs that reach new code stay in build-fuzz/corpus. The last line is "N passed, N failed";
# FUZZ_JUNIT names a file for the same as JUnit XML.
set -u
cd "$(dirname "$0")/.." || exit 1
build=${FUZZ_BUILD:-build-fuzz}
export FUZZ_BUILD="$build" FUZZ_SECONDS="${FUZZ_SECONDS:-60}"
if [ "${1:-}" = --one ]; then
	t=$2
	mkdir -p "$build/corpus/$t"
	if "$build/tests/fuzz/fuzz_$t" -max_total_time="$FUZZ_SECONDS" -timeout=10 -rss_limit_mb=2048 \
		-max_len=65536 -artifact_prefix="tests/fuzz/corpus/$t/found-" -print_final_stats=1 -verbosity=0 \
		"$build/corpus/$t" "tests/fuzz/corpus/$t" >"$build/$t.log" 2>&1; then
		echo "passed $t: $(sed -n 's/^stat::number_of_executed_units: *//p' "$build/$t.log") inputs"
	else
		echo "failed $t: see $build/$t.log"
	fi
	exit 0
fi
tools/setup.sh soak || exit 1
[ -f "$build/build.ninja" ] || CC=clang meson setup "$build" -Dfuzz=true -Db_sanitize=address,undefined \
	-Dc_args=-fsanitize=float-cast-overflow -Dwerror=false >/dev/null || exit 1
ninja -C "$build" fuzzers >/dev/null || exit 1
# shellcheck disable=SC2046
[ $# -gt 0 ] || set -- $(ls tests/fuzz/corpus)
results=$(printf '%s\n' "$@" | xargs -P "$(nproc)" -n 1 tools/fuzz.sh --one)
echo "$results"
if [ -n "${FUZZ_JUNIT:-}" ]; then
	{
		echo '<testsuites><testsuite name="fuzz">'
		echo "$results" | sed -n 's|^passed \([a-z0-9_]*\).*|<testcase classname="fuzz" name="\1"/>|p
			s|^failed \([a-z0-9_]*\).*|<testcase classname="fuzz" name="\1"><failure/></testcase>|p'
		echo '</testsuite></testsuites>'
	} >"$FUZZ_JUNIT"
fi
bad=$(echo "$results" | grep -c '^failed')
echo "$(echo "$results" | grep -c '^passed') passed, $bad failed"
[ "$bad" = 0 ]
