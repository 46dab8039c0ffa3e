# Installs and removes the .rpm with Debian's rpm, which does not know the packages that it requires.
. /packages/functions.sh
package=$(echo /packages/*.rpm)
config=/etc/portcullis/portcullis.toml

step "content"
for file in /usr/bin/portcullis "$config" /usr/lib/systemd/system/portcullis.service /usr/share/man/man5/portcullis.toml.5.gz; do
    expect "$file" rpm -qpl "$package"
done
expect "$config" rpm -qpc "$package"
expect "libc.so.6" rpm -qp --requires "$package"

step "installation"
rpm -i --nodeps "$package"
expect "root:portcullis 640" stat -c "%U:%G %a" "$config"
expect "no errors" portcullis check
expect "" rpm -V --nodeps --nogroup portcullis

step "a changed configuration is kept, a broken one is reported"
echo 'colour = "red"' >/run/broken
cat "$config" >>/run/broken
cat /run/broken >"$config"
expect "colour" rpm -U --nodeps --force "$package"
expect "colour" cat "$config"

step "removal"
rpm -e portcullis
[ ! -e /usr/bin/portcullis ] || fail "the program is still there"
[ -e "$config.rpmsave" ] || fail "the changed configuration is gone"
