#!/usr/bin/busybox sh
# The first process of a guest: mounts, loads the disk's driver, then runs what comes in on the second serial
# port, one command at a time, and what comes in on the third meanwhile. See profiler/lab/channel.py for the other end.
export PATH=/usr/bin HOME=/root LC_ALL=C PYTHONPATH=/whyerrno PYTHONDONTWRITEBYTECODE=1 TERM=dumb
mount -t devtmpfs devtmpfs /dev
mount -t proc proc /proc
mount -t sysfs sysfs /sys
exec </dev/console >/dev/console 2>&1
mount -t tracefs tracefs /sys/kernel/tracing
mount -t debugfs debugfs /sys/kernel/debug
mount -t cgroup2 cgroup2 /sys/fs/cgroup
for controller in $(cat /sys/fs/cgroup/cgroup.controllers); do
  echo "+$controller" >/sys/fs/cgroup/cgroup.subtree_control
done
mkdir -p /dev/shm /dev/pts
mount -t devpts devpts /dev/pts
mount -t tmpfs -o mode=1777 tmpfs /dev/shm
mount -t tmpfs -o mode=1777 tmpfs /tmp
mount -t tmpfs -o mode=1777 tmpfs /mnt
chmod 755 /
hostname whyerrno
ip link set lo up
# This kernel serves one recording: no rate limit by the time that sampling takes, all symbols readable,
# and no modprobe (there are no modules to find, and a helper process in each call would be recorded).
echo 100000 >/proc/sys/kernel/perf_event_max_sample_rate
echo 0 >/proc/sys/kernel/perf_cpu_time_max_percent
echo -1 >/proc/sys/kernel/perf_event_paranoid
echo 0 >/proc/sys/kernel/kptr_restrict
for module in $(cat /modules/order); do
  insmod "/modules/$module"
done
echo >/proc/sys/kernel/modprobe
if [ -s /etc/library-path ]; then export LD_LIBRARY_PATH=$(cat /etc/library-path); fi
cd /root
serve() {
  stty -F "/dev/$1" raw -echo
  exec 3<>"/dev/$1"
  printf '\036ready %s\n' "$(uname -r)" >&3
  while read -r number script <&3; do
    echo "$script" | base64 -d >"/run/command-$1"
    printf '\036begin %s\n' "$number" >&3
    sh "/run/command-$1" </dev/null >&3 2>&1
    printf '\036end %s %s\n' "$number" "$?" >&3
  done
}
# Not by this process: it is sent SIGCHLD whenever an orphan ends, and busybox's `read` then begins its line anew and
# forgets what it had of it, that is, a command.
serve ttyS2 &
serve ttyS1 &
wait
