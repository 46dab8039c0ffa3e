# Runs the image as a container engine would: unpacked, with its user, environment and command.
. /packages/functions.sh
archive=$(echo /packages/*-oci-*.tar)

step "the archive is an image"
expect '"Os": "linux"' skopeo inspect "oci-archive:$archive"
expect '"serve"' skopeo inspect --config "oci-archive:$archive"

step "it runs, and needs nothing but what it contains"
root=/run/image
mkdir -p "$root" /run/layout
tar -C /run/layout -xf "$archive"
# The compressed blob is the layer.
for blob in /run/layout/blobs/sha256/*; do
    case $(head -c 2 "$blob" | od -An -tx1) in
    " 1f 8b") layer=$blob ;;
    esac
done
tar -C "$root" --numeric-owner -xzf "$layer"
mkdir -p "$root/proc" "$root/dev"
mount -t proc proc "$root/proc"
touch "$root/dev/null" "$root/dev/urandom"
mount --bind /dev/null "$root/dev/null"
mount --bind /dev/urandom "$root/dev/urandom"
inside() {
    env -i PATH=/usr/bin STATE_DIRECTORY=/var/lib/portcullis CACHE_DIRECTORY=/var/cache/portcullis \
        /usr/sbin/chroot --userspec=10001:10001 "$root" /usr/bin/portcullis "$@"
}
expect "portcullis" inside --version
expect "no errors" inside check
inside policy check /usr/share/portcullis/policies/address-acl.wasm
(inside serve >/run/log 2>&1) &
within inside probe sip:127.0.0.1:5060
expect "no policy" inside policy status
[ -s "$root/var/lib/portcullis/seal.key" ] || fail "the key is not kept in the volume"
