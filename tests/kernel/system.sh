#!/bin/sh
# system.sh DIR: makes a machine of the new Debian in DIR. It boots, runs guest.sh of the second disk once,
# on the serial line, and is off.
set -eu
etc=$1/etc
echo kernel >"$etc/hostname"
echo "/dev/vda / ext4 defaults 0 0" >"$etc/fstab"
rm -f "$etc/resolv.conf"
echo "nameserver 10.0.2.3" >"$etc/resolv.conf" # of qemu's user network
printf '[Match]\nName=en*\n[Network]\nDHCP=ipv4\n' >"$etc/systemd/network/tests.network"
cat >"$etc/systemd/system/tests.service" <<END
[Unit]
Wants=network-online.target
After=network-online.target multi-user.target
SuccessAction=poweroff-force
FailureAction=poweroff-force
[Service]
Type=oneshot
Environment=HOME=/root LANG=C.UTF-8
ExecStartPre=/bin/mount /dev/vdb /srv
ExecStart=/bin/sh /srv/project/tests/kernel/guest.sh
StandardOutput=tty
StandardError=tty
TTYPath=/dev/ttyS0
TasksMax=infinity
LimitNOFILE=65536
[Install]
WantedBy=default.target
END
systemctl --quiet --root="$1" enable systemd-networkd systemd-networkd-wait-online tests.service
systemctl --quiet --root="$1" mask serial-getty@ttyS0.service getty@tty1.service apt-daily.timer \
	apt-daily-upgrade.timer
