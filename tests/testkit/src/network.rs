//! A network of a test's own, with interfaces that it makes.

use std::process::Command;

use nix::sched::{CloneFlags, unshare};

/// Moves this thread to a network of its own, in which only loopback is there. What the thread starts is in it as well, threads and programs.
///
/// # Panics
/// Without the right to do that.
pub fn apart() {
    unshare(CloneFlags::CLONE_NEWNET).expect("this test is run as root, in a network of its own");
    ip("link set lo up");
}

/// Runs `ip` with these words.
///
/// # Panics
/// When it fails.
pub fn ip(words: &str) {
    let output = Command::new("ip").args(words.split_whitespace()).output();
    let output = output.expect("ip is installed: apt-get install iproute2");
    assert!(
        output.status.success(),
        "ip {words}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}
