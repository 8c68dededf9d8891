#!/bin/sh
# guest.sh: what the virtual machine of tools/kernel.sh runs, as root, in a service of systemd's.
top=/srv/project
results=/srv/results
uname -sr
cp -a /srv/config/. / || exit 1
echo "127.0.0.1 kernel" >>/etc/hosts
# shellcheck disable=SC1091
. /srv/env
cd $top && mkdir -p build/test-cache && mount /dev/vdc build/test-cache && chmod 755 build/test-cache || exit 1
status=0
# What ran out of time is interrupted, so that its results are told.
in_time() {
	timeout --foreground -s INT -k 60 "$((KERNEL_SECONDS - $(cut -d. -f1 /proc/uptime) - 90))" "$@"
}
# tests NAME ARGUMENT...: pytest, its results as NAME.xml.
tests() {
	name=$1
	shift
	PIPSQUEAK_BUILD=$top/build PYTHONPATH='' in_time /usr/bin/python3 -m pytest -q --color=no -rfE --junitxml="$results/$name.xml" \
		-o junit_family=xunit2 -p no:cacheprovider "$@" || status=1
}
if [ -n "$KERNEL_TESTS" ]; then
	# shellcheck disable=SC2086
	tests chosen $KERNEL_TESTS
else
	tests kernel tests/kernel
	# Those of the unit tests that ask the kernel for something. To a file: on a line meson draws moons.
	meson test -C build --no-rebuild --print-errorlogs -t "$PIPSQUEAK_SLOWER" test_jail test_zygote \
		>$results/unit.log 2>&1 || status=1
	tail -25 $results/unit.log
	cp build/meson-logs/testlog.junit.xml $results/unit.xml || status=1
	tests pytest tests/security tests/e2e
fi
umount build/test-cache
echo $status >$results/exit
sync
exit $status
