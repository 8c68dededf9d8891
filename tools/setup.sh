#!/bin/sh
# Install what is missing, as Debian 12 packages. Instant when everything is there. As a user that
# may not install, it prints the one command to run.
set -eu
packages="gcc meson ninja-build pkg-config libc6-dev libuv1-dev libmicrohttpd-dev
libcurl4-openssl-dev libjansson-dev libzip-dev libdeflate-dev libssl-dev libsqlite3-dev
libseccomp-dev libcap-ng-dev python3 python3-dev python3-venv python3-packaging
python3-pip-whl python3-pytest libcmocka-dev uidmap passt iproute2 procps ca-certificates git"
case ${1:-} in
lint) packages="$packages clang-format clang-tidy pmccabe" ;;
soak) packages="$packages clang libclang-rt-14-dev qemu-system-x86 debootstrap e2fsprogs" ;;
esac

missing=""
for p in $packages; do
	dpkg-query -W -f '${db:Status-Status}' "$p" 2>/dev/null | grep -q '^installed$' ||
		missing="$missing $p"
done
[ -n "$missing" ] || exit 0
if [ "$(id -u)" != 0 ]; then
	echo "missing packages; run as root:" >&2
	echo "apt-get install --no-install-recommends$missing" >&2
	exit 1
fi
echo "installing:$missing"
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
# shellcheck disable=SC2086
apt-get install -y -qq --no-install-recommends $missing >/dev/null
