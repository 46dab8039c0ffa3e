# Run by `cargo xtask package --test` in private namespaces: lays an overlay in memory over the root directory LOWER, and runs SCRIPT there.
# Nothing below LOWER changes, and everything is gone with the last process.
# Usage: namespace.sh LOWER SCRIPT FILE…
lower=$1
script=$2
shift 2

ip link set lo up
# The overlay is mounted where it hides nothing that is still needed: the packages may be below /tmp.
work=/mnt
mount -t tmpfs -o mode=0755 tmpfs "$work"
mkdir "$work/upper" "$work/work" "$work/root"
mount -t overlay -o "lowerdir=$lower,upperdir=$work/upper,workdir=$work/work" overlay "$work/root"
root=$work/root
for folder in proc dev run tmp; do
    mkdir -p "$root/$folder"
done
mount -t proc proc "$root/proc"
mount -t tmpfs -o mode=1777 tmpfs "$root/tmp"
mount -t tmpfs -o mode=0755 tmpfs "$root/run"
mount -t tmpfs -o mode=0755 tmpfs "$root/dev"
for device in null zero random urandom tty; do
    touch "$root/dev/$device"
    mount --bind "/dev/$device" "$root/dev/$device"
done
mkdir "$root/packages"
cp "$script" "$root/packages/script"
cp "$(dirname "$script")/functions.sh" "$root/packages/"
cp "$@" "$root/packages/"

exec env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C.UTF-8 DEBIAN_FRONTEND=noninteractive \
    chroot "$root" sh -eu /packages/script
