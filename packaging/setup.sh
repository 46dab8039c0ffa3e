#!/bin/sh
# /usr/share/portcullis/setup: what the packages do on installation and upgrade, after the files are in place. `setup configure` creates the
# user and its directories; `setup check` says whether a host could start with the present configuration.
set -e

USER=portcullis
CONFIG=/etc/portcullis/portcullis.toml
STATE=/var/lib/portcullis

configure() {
    if ! id -u "$USER" >/dev/null 2>&1; then
        if command -v systemd-sysusers >/dev/null; then
            systemd-sysusers portcullis.conf
        else
            useradd --system --user-group --no-create-home --home-dir "$STATE" --shell /usr/sbin/nologin --comment "Portcullis, a SIP edge" "$USER"
        fi
    fi
    for folder in "$STATE" /var/cache/portcullis /var/log/portcullis; do
        [ -d "$folder" ] || install -d -m 0700 -o "$USER" -g "$USER" "$folder"
    done
    # The configuration may contain passwords. An administrator who has chosen another owner or group keeps it.
    if [ "$(stat -c %U:%G "$CONFIG" 2>/dev/null)" = root:root ]; then
        chgrp "$USER" "$CONFIG"
        chmod 0640 "$CONFIG"
    fi
}

# As the service runs, so that what its user cannot read is found. Prints the findings only if there is an error.
check() {
    cd "$STATE"
    if findings=$(STATE_DIRECTORY="$STATE" CACHE_DIRECTORY=/var/cache/portcullis setpriv --reuid "$USER" --regid "$USER" --init-groups \
        /usr/bin/portcullis check --start --config "$CONFIG" 2>&1); then
        return 0
    fi
    printf '%s\n' "$findings" >&2
    return 1
}

case "$1" in
configure) configure ;;
check) check ;;
*)
    echo "usage: setup configure|check" >&2
    exit 2
    ;;
esac
