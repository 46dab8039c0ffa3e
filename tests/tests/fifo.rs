//! The FIFO of control and its clients: garbage, incomplete requests, names of other files, pipes without a reader.

#![forbid(unsafe_code)]

use std::fs;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::path::Path;

use portcullis_testkit::control::{ReplyPipe, ask, make_pipe, open_all, write_fifo};
use portcullis_testkit::host::{Builder, Host};
use portcullis_testkit::wait;
use serde_json::{Value, json};

fn assert_answers(host: &Host) {
    assert!(ask(host, &["permissions.addressReload"]).says("Reload OK"));
}

/// A request through the FIFO whose reply goes to the pipe of this name.
fn fifo_request(method: &str, reply_name: &str) -> Vec<u8> {
    let request = json!({"jsonrpc": "2.0", "method": method, "reply_name": reply_name, "id": 7});
    format!("{request}\n").into_bytes()
}

/// A host whose reply pipes are in its own directory.
fn start_with_pipes() -> (Host, tempfile::TempDir) {
    let pipes = tempfile::tempdir_in("/tmp").expect("a temporary directory can be made");
    let host = open_all(Builder::new())
        .set("control", &format!("fifo-reply-dir = {:?}", pipes.path()))
        .start();
    (host, pipes)
}

fn assert_fifo_answers(host: &Host, pipes: &Path) {
    let pipe = ReplyPipe::open(&pipes.join("asks"));
    write_fifo(host, &fifo_request("core.version", "asks"));
    let reply: Value = serde_json::from_str(&pipe.reply()).expect("the reply is JSON");
    assert!(
        reply["result"]
            .as_str()
            .is_some_and(|version| version.starts_with("portcullis"))
    );
    assert_eq!(reply["id"], 7);
}

#[test]
fn the_fifo_survives_every_writer() {
    let (host, pipes) = start_with_pipes();
    let pipes = pipes.path();
    assert_fifo_answers(&host, pipes);
    for bytes in [
        &b"garbage } it's \"quoted\n"[..],
        b"{\"half\": \"a request, and its writer goes",
        b"{{{{",
        b"{}",
        b"{\"jsonrpc\": \"2.0\", \"method\": \"core.version\", \"id\": 1}",
        &[b'{'; 70_000],
        &fifo_request("core.version", "../../etc/passwd"),
        &fifo_request("core.version", "no_such_pipe"),
    ] {
        write_fifo(&host, bytes);
        // The next writer can only be told from this one when the host has seen it go.
        wait::until("the host has read it", || fifo_is_read(&host).then_some(()));
        assert_fifo_answers(&host, pipes);
    }
    assert_answers(&host);
}

/// True if nothing waits in the FIFO, and the host has opened it afresh behind the last writer.
fn fifo_is_read(host: &Host) -> bool {
    // The probe is a request whose pipe does not exist: it only shows that the host has read it.
    let log = host.log();
    write_fifo(host, b"{\"probe\": 1}");
    wait::until("the probe is seen", || {
        (host.log().len() > log.len()).then_some(())
    });
    host.log()[log.len()..].contains("names no pipe")
}

#[test]
fn replies_are_written_to_pipes_only() {
    let (host, pipes) = start_with_pipes();
    let pipes = pipes.path();
    let file = pipes.join("file");
    fs::write(&file, "precious").expect("a file can be written");
    make_pipe(&pipes.join("real"));
    symlink(pipes.join("real"), pipes.join("link")).expect("a link can be made");
    make_pipe(&pipes.join("two"));
    fs::hard_link(pipes.join("two"), pipes.join("names")).expect("a link can be made");
    let _socket = UnixListener::bind(pipes.join("socket")).expect("a socket can be bound");
    for name in ["file", "link", "names", "socket"] {
        write_fifo(&host, &fifo_request("core.version", name));
    }
    assert_fifo_answers(&host, pipes);
    assert_eq!(
        fs::read_to_string(&file).expect("the file can be read"),
        "precious"
    );
}

#[test]
fn a_client_that_never_reads_its_pipe_does_not_delay_others() {
    let (host, pipes) = start_with_pipes();
    let pipes = pipes.path();
    for number in 0..30 {
        let name = format!("deaf{number}");
        make_pipe(&pipes.join(&name));
        write_fifo(&host, &fifo_request("core.version", &name));
    }
    assert_fifo_answers(&host, pipes);
}
