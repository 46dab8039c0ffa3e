# Runs in a Debian of its own: installs, starts, upgrades, breaks, removes and purges the package.
. /packages/functions.sh
first=$(echo /packages/portcullis_*-1_*.deb)
later=$(echo /packages/portcullis_*-2_*.deb)
config=/etc/portcullis/portcullis.toml

# Services of this machine are not to be started, and its policies of starting services do not count. This systemctl notes what it is asked.
rm -f /usr/sbin/policy-rc.d
mkdir -p /usr/local/sbin /run/systemd/system
asked=/run/asked
cat >/usr/local/sbin/systemctl <<'SYSTEMCTL'
#!/bin/sh
echo "$*" >>/run/asked
case "$*" in
*is-active*) [ -e /run/active ] ;;
*is-enabled*) echo enabled ;;
esac
SYSTEMCTL
chmod 755 /usr/local/sbin/systemctl
has_asked() { grep -q -e "$1" "$asked"; }

step "installation: user, files, permissions, and a start"
dpkg --install "$first"
expect portcullis id -un portcullis
expect "root:portcullis 640" stat -c "%U:%G %a" "$config"
expect "portcullis:portcullis 700" stat -c "%U:%G %a" /var/lib/portcullis
expect "no errors" portcullis check
for file in /usr/share/man/man1/portcullis-policy-push.1.gz /usr/share/man/man5/portcullis.toml.5.gz \
    /usr/share/bash-completion/completions/portcullis /usr/share/portcullis/wit/routing-policy.wit \
    /usr/share/portcullis/portcullis.schema.json \
    /usr/lib/systemd/system/portcullis.service /usr/lib/sysusers.d/portcullis.conf; do
    [ -s "$file" ] || [ -e /etc/dpkg/dpkg.cfg.d/docker ] || fail "no $file"
done
has_asked "start portcullis.service" || fail "the service was not started: $(cat "$asked")"
! has_asked USR2 || fail "there was nothing to upgrade"
# Where systemd is installed, its own program makes the link.
[ -e /etc/systemd/system/multi-user.target.wants/portcullis.service ] || has_asked "preset portcullis.service" || fail "the service is not enabled"

step "the installed host serves, with a policy of the package"
sed -i '/^#\?\[policy\]/,/^#file = ""/s|^#file = ""|file = "/usr/share/portcullis/policies/address-acl.wasm"|' "$config"
serve() {
    cd /var/lib/portcullis
    STATE_DIRECTORY=/var/lib/portcullis exec setpriv --reuid portcullis --regid portcullis --init-groups portcullis serve >/run/log 2>&1
}
(serve) &
host=$!
cd /
within portcullis probe sip:127.0.0.1:5060
expect "address-acl" portcullis policy status
expect "yes" portcullis status
# An unknown source, as the policy in the README decides.
expect 401 sh -c 'portcullis probe sip:127.0.0.1:5060 --method INVITE || true'
expect 192.0.2.7 sh -c 'portcullis address add 200 192.0.2.7 && portcullis address show'
kill -INT "$host"
wait "$host" || fail "the host did not end well: $(cat /run/log)"

step "what authors need comes with the package"
cd /run
portcullis policy new acl --lang rust
for file in src/lib.rs cases.toml vendor/portcullis-sdk/src/lib.rs; do
    [ -s "acl/$file" ] || fail "policy new writes no $file"
done
cp /usr/share/portcullis/policies/address-acl.wasm acl/acl.wasm
expect "can be used" portcullis policy check acl/acl.wasm
expect "reject 401" portcullis policy run acl/acl.wasm --no-tables --from 203.0.113.9
rm -r acl
cd /

step "upgrade of a running host: the configuration is kept, and the process is asked to upgrade itself"
echo "# mine" >>"$config"
touch /run/active
: >"$asked"
dpkg --install "$later"
expect "# mine" cat "$config"
expect "root:portcullis 640" stat -c "%U:%G %a" "$config"
has_asked "kill --signal=USR2" || fail "the service was not upgraded: $(cat "$asked")"
! has_asked restart || fail "the service was restarted"

step "an administrator's owner of the configuration is kept"
chown root:adm "$config"
dpkg --install "$later" >/dev/null
expect "root:adm" stat -c "%U:%G" "$config"
chown root:portcullis "$config"

step "a broken configuration: the package is installed, and nothing is started or upgraded"
echo 'colour = "red"' >/run/broken
cat "$config" >>/run/broken
cp -p "$config" /run/sound
cat /run/broken >"$config"
for active in yes no; do
    [ "$active" = yes ] || rm /run/active
    : >"$asked"
    expect "colour" dpkg --install "$later"
    ! has_asked USR2 || fail "a host with a broken configuration was upgraded"
    ! has_asked start || fail "a host with a broken configuration was started"
done
cat /run/sound >"$config"
dpkg --install "$later" >/dev/null
has_asked "start portcullis.service" || fail "the mended configuration does not start"

step "a row that cannot be used is an error of check, and does not keep a running host from its upgrade"
printf '200 10.0.0.300\n200 192.0.2.1\n' >/etc/portcullis/addresses
sed -i 's|^#\?address-file = ""|address-file = "/etc/portcullis/addresses"|' "$config"
expect "10.0.0.300" sh -c 'portcullis check || true'
! portcullis check >/dev/null || fail "check says nothing of the row"
touch /run/active
: >"$asked"
dpkg --install "$later" >/dev/null
has_asked "kill --signal=USR2" || fail "the service was not upgraded: $(cat "$asked")"
cat /run/sound >"$config"
rm /etc/portcullis/addresses

step "removal: the program goes, the configuration and the state stay"
dpkg --remove portcullis
[ ! -e /usr/bin/portcullis ] || fail "the program is still there"
[ -s "$config" ] && [ -s /var/lib/portcullis/portcullis.db ] || fail "configuration or state are gone"
has_asked "stop portcullis.service" || fail "the service was not stopped"

step "purge: everything goes"
dpkg --purge portcullis
for path in /etc/portcullis /var/lib/portcullis /var/cache/portcullis /var/log/portcullis /usr/share/portcullis \
    /etc/systemd/system/multi-user.target.wants/portcullis.service; do
    [ ! -e "$path" ] || fail "$path is still there: $(ls -la "$path")"
done
