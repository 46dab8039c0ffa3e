# What the scripts in this directory share.

step() { echo "-- $*"; }

fail() {
    echo "FAILED: $*" >&2
    exit 1
}

# expect TEXT COMMAND…: the command succeeds, and its output contains the text.
expect() {
    wanted=$1
    shift
    if ! output=$("$@" 2>&1); then
        fail "\`$*\`: $output"
    fi
    case "$output" in
    *"$wanted"*) ;;
    *) fail "\`$*\` did not print \"$wanted\": $output" ;;
    esac
}

# within COMMAND…: the command succeeds within 30 seconds.
within() {
    until "$@" >/dev/null 2>&1; do
        tries=$((tries + 1))
        [ "$tries" -lt 300 ] || fail "\`$*\` does not succeed: $("$@" 2>&1; cat /run/log)"
        sleep 0.1
    done
}
