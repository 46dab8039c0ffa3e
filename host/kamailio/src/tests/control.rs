//! Control endpoints.

use super::*;

/// What is written in `[control]`.
fn control(text: &str) -> (Vec<String>, Vec<String>) {
    let import = imported(text);
    let section = import.text.split("[control]\n").nth(1).unwrap_or_default();
    let section = section.split("\n[").next().unwrap_or_default();
    let plain = |line: &str| {
        line.split("  # ")
            .next()
            .unwrap_or_default()
            .trim_start_matches(['#', ' '])
            .to_owned()
    };
    let lines = section.lines().map(plain).filter(|line| !line.is_empty());
    (lines.collect(), said(&import))
}

#[test]
fn modules_that_are_loaded_have_their_default_endpoints() {
    assert_eq!(control("").0, [""; 0]);
    let (lines, _) = control("loadmodule \"ctl.so\"\nloadmodule \"/usr/lib/jsonrpcs.so\"");
    assert_eq!(
        lines,
        [
            "binrpc = [",
            "\"unix:/run/kamailio/kamailio_ctl\",",
            "]",
            "fifo = \"/run/kamailio/kamailio_rpc.fifo\"",
            "datagram = [",
            "\"unix:/run/kamailio/kamailio_rpc.sock\",",
            "]",
        ]
    );
}

#[test]
fn endpoints_are_where_kamailio_had_them() {
    let (lines, said) = control(
        "loadmodule \"ctl\"\nloadmodule(\"jsonrpcs\")\nrun_dir=\"/tmp/k/\"\n\
         modparam(\"ctl\", \"binrpc\", \"unix:/tmp/ctl\")\nmodparam(\"ctl\", \"binrpc\", \"tcp:127.0.0.1:2049\")\n\
         modparam(\"ctl\", \"binrpc\", \"unixd:near\")\nmodparam(\"ctl\", \"mode\", 0660)\n\
         modparam(\"jsonrpcs\", \"fifo_name\", \"rpc\")\nmodparam(\"jsonrpcs\", \"transport\", 3)\n\
         modparam(\"jsonrpcs\", \"fifo_mode\", \"0640\")\nmodparam(\"jsonrpcs\", \"fifo_group\", \"voice\")\n\
         modparam(\"jsonrpcs\", \"fifo_reply_dir\", \"/run/r\")\nmodparam(\"ctl\", \"fifo\", \"/tmp/old\")\n\
         modparam(\"ctl\", \"mode\", 9)\nmodparam(\"jsonrpcs\", \"pretty_format\", 1)\n",
    );
    assert_eq!(
        lines,
        [
            "socket-group = \"voice\"",
            "fifo-reply-dir = \"/run/r\"",
            "binrpc = [",
            "\"unix:/tmp/ctl\",",
            "\"tcp:127.0.0.1:2049\",",
            "\"unixd:/tmp/k/near\",",
            "]",
            "fifo = \"/tmp/k/rpc\"",
            "socket-mode = \"0640\"",
        ]
    );
    let said = said.join("\n");
    for words in [
        "k.cfg:6: ctl: binrpc = unixd:near: a relative path",
        "k.cfg:2: jsonrpcs over HTTP: JSON-RPC over HTTP is served at",
        "k.cfg:7: different modes for control endpoints: one mode applies to FIFO and sockets here; the narrowest, 0640, is taken",
        "k.cfg:13: ctl: fifo = /tmp/old: the old line protocol is not supported",
        "k.cfg:14: mode 9: not an octal mode",
    ] {
        assert!(said.contains(words), "{words} is not in\n{said}");
    }
}
