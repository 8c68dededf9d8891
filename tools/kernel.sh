#!/bin/sh
# kernel.sh: the end-to-end and security tests as they are committed, and the systemd unit, in a virtual machine with
# Debian 12's own kernel (6.1: Landlock ABI 2, no scopes), cgroup v2 and systemd (tests/kernel). By KVM where
# that works, else by emulation. Needs root. The last line is "N passed, N failed"; so is the exit code.
#   KERNEL_MINUTES   at most so long (60; emulated 400)
#   KERNEL_MEMORY    of the machine, in MiB (6144)
#   KERNEL_RESULTS   where the results are put as kernel-*.xml
#   KERNEL_TESTS     pytest's arguments instead of tests/e2e tests/security; then nothing else is run
# build-kernel keeps the system's disk, made from Debian's packages as this machine's apt is configured, and a
# disk of downloaded packages; all else is removed at the end, also when this is killed.
set -u
cd "$(dirname "$0")/.." || exit 1
top=$(pwd)
dir=$top/build-kernel
results=${KERNEL_RESULTS:-$dir/results}
fail() {
	echo "kernel: $*" >&2
	exit 1
}
[ "$(id -u)" = 0 ] || fail "making a system's disk needs root"
tools/setup.sh soak || exit 1
mkdir -p "$dir" "$results" || exit 1
# One at a time: what a killed one left in run.* goes now.
exec 9>"$dir/lock"
flock -n 9 || fail "another one runs"
rm -rf --one-file-system "$dir"/run.* "$results"/kernel-*.xml
run=$(mktemp -d "$dir/run.XXXXXX") || exit 1
child=
finish() {
	trap - EXIT INT TERM HUP
	# shellcheck disable=SC2086
	[ -z "$child" ] || { kill -TERM $child && wait $child; } 2>/dev/null
	rm -rf --one-file-system "$run"
	exit "$1"
}
trap 'finish $?' EXIT
trap 'finish 130' INT
trap 'finish 143' TERM HUP

# started COMMAND...: in the background, so that a signal is taken at once; it dies with this script.
started() {
	setpriv --pdeathsig TERM "$@" 9>&- &
	child=$!
	wait "$child"
	code=$?
	child=
	return $code
}

# The packages that setup.sh installs, and what makes a machine of them.
packages="$(sed -n '/^packages="/,/"$/p' tools/setup.sh | tr -d '"' | sed 's/^packages=//' | tr '\n' ' ')
linux-image-amd64 systemd-sysv dbus apparmor make"
recipe=$(cat tests/kernel/system.sh; echo "$packages")
if [ "$(cat "$dir/system.recipe" 2>/dev/null)" != "$recipe" ]; then
	echo "kernel: making the system's disk"
	rm -f "$dir/system.recipe"
	mirror=$(apt-get indextargets --format '$(REPO_URI) $(RELEASE)' 'Created-By: Packages' |
		sed -n 's/ bookworm$//p' | sed -n 1p)
	[ -n "$mirror" ] || fail "this machine's apt has no Debian 12"
	# In mounts of its own: what it mounts in there is gone with it.
	# shellcheck disable=SC2086
	started unshare --mount --propagation private debootstrap --variant=minbase --include="$(echo $packages | tr ' ' ',')" bookworm \
		"$run/system" "$mirror" >"$dir/debootstrap.log" 2>&1 || { tail -20 "$dir/debootstrap.log"; fail "debootstrap"; }
	sh tests/kernel/system.sh "$run/system" || fail "tests/kernel/system.sh"
	cp "$run"/system/boot/vmlinuz-* "$dir/vmlinuz" && cp "$run"/system/boot/initrd.img-* "$dir/initrd" || exit 1
	rm -f "$dir/system.img"
	mke2fs -qF -t ext4 -d "$run/system" "$dir/system.img" 8G >/dev/null && rm -rf --one-file-system "$run/system" || exit 1
	printf "%s\n" "$recipe" >"$dir/system.recipe"
fi
[ -f "$dir/packages.img" ] || mke2fs -qF -t ext4 "$dir/packages.img" 8G >/dev/null || exit 1

# The disk of this run: the tree, how this machine reaches its package index, and room for the results.
work=$run/work
mkdir -p "$work/project" "$work/config" "$work/results" || exit 1
git archive HEAD | tar -x -C "$work/project" || exit 1
# Built here (this is Debian 12, too), at the path that it will have there: emulated it would take long.
started unshare --mount --propagation private sh -ec 'mount -t tmpfs tmpfs /srv; mkdir /srv/project
	mount --bind "$0" /srv/project; cd /srv/project; exec make all' "$work/project" >"$dir/build.log" 2>&1 || {
	tail -40 "$dir/build.log"
	fail "the build"
}
for f in /etc/pip.conf "$HOME/.pip/pip.conf" "$HOME/.config/pip/pip.conf" /etc/hosts /etc/ssl/certs \
	/usr/local/share/ca-certificates /usr/share/ca-certificates ${PIP_FIND_LINKS:-}; do
	case $f in /*) [ -e "$f" ] || continue ;; *) continue ;; esac
	mkdir -p "$work/config$(dirname "$f")" && cp -aL "$f" "$work/config$f" || exit 1
done
# KVM works if this kernel comes as far as its init there (nested or paravirtual ones may let it begin, and hang).
accel="kvm -cpu host,arch-capabilities=off" slower=2 minutes=${KERNEL_MINUTES:-60}
# shellcheck disable=SC2086
if ! started timeout -k 1 30 qemu-system-x86_64 -accel $accel -m 512 -nodefaults -no-reboot -display none \
	-kernel "$dir/vmlinuz" -initrd "$dir/initrd" -append "rdinit=/bin/false panic=-1" >/dev/null 2>&1; then
	accel="tcg,thread=multi,tb-size=1024 -cpu max" slower=15 minutes=${KERNEL_MINUTES:-400}
fi
{
	env | sed -n "s/'/'\\\\''/g; s/^\\([A-Z_a-z]*_PROXY\\|[a-z]*_proxy\\|PIP_[A-Z_]*\\|[A-Z_]*_CERT_FILE\\|\
[A-Z_]*_CERT_DIR\\|[A-Z_]*_CA_BUNDLE\\|SSL_CERT_[A-Z]*\\|SOAK_SEED\\)=\\(.*\\)/export \\1='\\2'/p"
	echo "export PIPSQUEAK_SLOWER=${PIPSQUEAK_SLOWER:-$slower} PIPSQUEAK_MUST_RUN=1"
	echo "KERNEL_SECONDS=$((minutes * 60))"
	echo "KERNEL_TESTS='${KERNEL_TESTS:-}'"
} >"$work/env"
mke2fs -qF -t ext4 -d "$work" "$run/work.img" 8G >/dev/null || exit 1

echo "kernel: booting, ${accel%% *}, at most $minutes minutes"
# snapshot=on: the system's disk is the same for every run. No descriptor of this script's stays open in qemu.
disk="if=virtio,format=raw,cache=unsafe"
# Its tests end a little earlier by themselves.
# shellcheck disable=SC2086
started timeout -k 10 "${minutes}m" setpriv --pdeathsig KILL env TMPDIR="$run" qemu-system-x86_64 -accel $accel \
	-smp "$(nproc)" -m "${KERNEL_MEMORY:-6144}" -nodefaults -no-reboot -display none \
	-chardev stdio,id=console,signal=off,logfile="$dir/console.log" -serial chardev:console \
	-kernel "$dir/vmlinuz" -initrd "$dir/initrd" \
	-append "root=/dev/vda rw console=ttyS0 quiet panic=-1 systemd.show_status=no" \
	-drive file="$dir/system.img,snapshot=on,$disk" -drive file="$run/work.img,$disk" \
	-drive file="$dir/packages.img,$disk" -device virtio-rng-pci \
	-nic user,model=virtio-net-pci </dev/null
ended=$?
mkdir "$run/out"
debugfs -R "rdump /results $run/out" "$run/work.img" >/dev/null 2>&1
for f in "$run"/out/results/*.xml; do
	[ ! -f "$f" ] || cp "$f" "$results/kernel-$(basename "$f")" || exit 1
done
if [ ! -f "$run/out/results/exit" ]; then
	echo "kernel: the machine did not come to its end ($ended; 124: out of time)"
	echo '<testsuite><testcase classname="kernel" name="end"><failure/></testcase></testsuite>' >"$results/kernel-end.xml"
fi
mkdir "$run/count" && cp "$results"/kernel-*.xml "$run/count" || exit 1
/usr/bin/python3 tools/count_tests.py "$run/count" || exit 1
exit "$(cat "$run/out/results/exit" 2>/dev/null || echo 1)"
