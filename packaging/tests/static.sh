# Runs the static binary where there is no C library.
. /packages/functions.sh
tar -C /run --strip-components=1 -xzf /packages/*.tar.gz
mkdir -p /run/root/proc /run/root/dev
cp /run/usr/bin/portcullis /run/usr/share/portcullis/policies/address-acl.wasm /run/root/
mount -t proc proc /run/root/proc
touch /run/root/dev/null /run/root/dev/urandom
mount --bind /dev/null /run/root/dev/null
mount --bind /dev/urandom /run/root/dev/urandom

step "the static binary runs without any library"
expect "portcullis" chroot /run/root /portcullis --version
expect "no errors" chroot /run/root /portcullis check
chroot /run/root /portcullis policy check /address-acl.wasm
(chroot /run/root /portcullis serve >/run/log 2>&1) &
within chroot /run/root /portcullis probe sip:127.0.0.1:5060
expect "no policy" chroot /run/root /portcullis policy status
