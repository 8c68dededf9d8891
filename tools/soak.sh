#!/bin/sh
# soak.sh BUILD: what proves longer things. SOAK_MINUTES (30) scales the kill loops, the mix and the fuzzing;
# about so long it takes on two cores. The last line is "N passed, N failed".
#   fuzz    every target of tests/fuzz, FUZZ_SECONDS each
#   fault   every system call of the store's and the index's steps failing in turn (tests/fault)
#   boot    interpreters: all that the machine has (tests/boot)
#   soak    kill -9 loops, a long mix (tests/soak)
#   asan    the whole suite of `make test` with AddressSanitizer and UndefinedBehaviorSanitizer
#   kernel  end-to-end and security tests, and the systemd unit, in a virtual machine with Debian's own kernel (tools/kernel.sh)
# SOAK_PARTS="fuzz fault" runs some of them only.
set -u
build=$1
cd "$(dirname "$0")/.." || exit 1
build=$(realpath "$build")
results=$build/soak-results
export SOAK_MINUTES="${SOAK_MINUTES:-30}"
export FUZZ_SECONDS="${FUZZ_SECONDS:-$(awk "BEGIN { print int(2 * $SOAK_MINUTES) + 1 }")}"
parts=${SOAK_PARTS:-fuzz fault boot soak asan kernel}
rm -rf "$results"
mkdir -p "$results"
status=0

# tests NAME DIR: pytest, its results as NAME.xml; every interpreter, no test left out.
tests() {
	env -u PIPSQUEAK_TEST_PYTHONS PIPSQUEAK_BUILD="$build" PIPSQUEAK_EXHAUSTIVE=1 PYTHONPATH='' \
		/usr/bin/python3 -B -m pytest -q -rfE --junitxml="$results/$1.xml" -o junit_family=xunit2 \
		-p no:cacheprovider "$2" || status=1
}

for part in $parts; do
	echo "soak: $part, $(date +%T)"
	case $part in
	fuzz) FUZZ_JUNIT="$results/fuzz.xml" tools/fuzz.sh || status=1 ;;
	asan)
		make asan || status=1
		for f in build-asan/test-results/*.xml; do cp "$f" "$results/asan-$(basename "$f")" || status=1; done
		;;
	kernel) KERNEL_RESULTS="$results" tools/kernel.sh || status=1 ;;
	soak)
		tests soak tests/soak
		tests forks tests/e2e/test_true_forks.py # more packages than in make test
		;;
	*) tests "$part" "tests/$part" ;;
	esac
done
/usr/bin/python3 tools/count_tests.py "$results" || status=1
exit $status
