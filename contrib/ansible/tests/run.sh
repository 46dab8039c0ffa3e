#!/bin/sh
# Runs the role against a root directory of its own: tests/run.sh PORTCULLIS, with ansible-playbook in PATH. No service, no root.
# The steps: a run in check mode changes nothing; a run installs everything; the second run has nothing to do; a wrong configuration replaces
# nothing; with a running host, the desired state is applied once.
set -eu
program=$(realpath "$1")
cd "$(dirname "$0")/.."
export ANSIBLE_ROLES_PATH=roles ANSIBLE_LOCALHOST_WARNING=False ANSIBLE_INVENTORY_UNPARSED_WARNING=False ANSIBLE_NOCOLOR=1
export ANSIBLE_RETRY_FILES_ENABLED=False
unset PORTCULLIS_URL PORTCULLIS_TOKEN PORTCULLIS_DATABASE_URL
root=$(mktemp -d)
host=
end() {
    if [ -n "$host" ]; then kill "$host" 2>/dev/null || true; fi
    rm -rf "$root"
}
trap end EXIT
mkdir "$root/root" "$root/state"
port=${PORTCULLIS_TRIAL_ADDRESS:-127.93.7.1}
cat >"$root/variables.yml" <<VARIABLES
ansible_python_interpreter: "{{ ansible_playbook_python }}"
portcullis_root: $root/root
portcullis_owner: $(id -un)
portcullis_group: $(id -gn)
portcullis_user: $(id -un)
portcullis_service: false
portcullis_install: binary
portcullis_binary: $program
portcullis_listen: ["udp:$port:5060"]
portcullis_control_listen: "$port:8060"
portcullis_database_url: "sqlite:$root/root/var/lib/portcullis/table.db"
portcullis_seal_key: "00112233445566778899aabbccddeeff"
VARIABLES
play() {
    ansible-playbook -i localhost, tests/trial.yml -e "@$root/variables.yml" "$@" >"$root/log" 2>&1
}
fail() {
    echo "$1" >&2
    cat "$root/log" >&2
    exit 1
}

ansible-playbook --syntax-check -i inventory.example.yml site.yml >"$root/log" 2>&1 || fail "site.yml is not valid"
play || fail "the first run fails"
config=$root/root/etc/portcullis/portcullis.toml
[ "$(stat -c %a "$config" "$root/root/etc/portcullis/seal.key" | tr '\n' ' ')" = "640 640 " ] || fail "secrets are readable by others"
[ -s "$root/root/var/lib/portcullis/table.db" ] || fail "there are no tables"
play || fail "the second run fails"
grep -q 'changed=0 ' "$root/log" || fail "the second run changes something"

cp "$config" "$root/before"
if play -e 'portcullis_next_hop=nowhere:x'; then fail "a wrong configuration is accepted"; fi
cmp -s "$config" "$root/before" || fail "a wrong configuration was written"
play --check -e '{"portcullis_listen": ["udp:'"$port"':5070"]}' || fail "the check mode fails"
grep -q 'changed=0 ' "$root/log" && fail "the check mode shows no change"
cmp -s "$config" "$root/before" || fail "the check mode changes a file"

(cd "$root/root/var/lib/portcullis" && exec "$root/root/usr/local/bin/portcullis" serve --config "$config") >"$root/host.log" 2>&1 &
host=$!
tries=0
until [ -s "$root/root/var/lib/portcullis/portcullis.token" ] && (cd "$root/root/var/lib/portcullis" && "$program" status --config "$config" >/dev/null 2>&1); do
    tries=$((tries + 1))
    [ "$tries" -lt 300 ] || { cp "$root/host.log" "$root/log"; fail "the host does not become ready"; }
    sleep 0.1
done
printf 'grp,ip_addr,mask,port,tag\n200,192.0.2.0,24,0,office\n' >"$root/state/addresses.csv"
state="portcullis_state=$root/state"
play --check -e "$state" || fail "the check mode fails with a state"
grep -q 'changed=1 ' "$root/log" || fail "the check mode does not show the difference"
play -e "$state" || fail "the state is not applied"
grep -q 'changed=2 ' "$root/log" || fail "a comparison and its application are two changes"
play -e "$state" || fail "the second application fails"
grep -q 'changed=0 ' "$root/log" || fail "the second application changes something"
(cd "$root/root/var/lib/portcullis" && "$program" address show --config "$config") >"$root/log" || fail "the rows are not shown"
grep -q 'office' "$root/log" || fail "the row is not there"
echo "the role works"
