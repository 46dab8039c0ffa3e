//! Test support: leased loopback networks, a running host, SIP callers and callees, databases.
//!
//! Nothing here depends on the crates of the host: it starts the binary, writes configuration files and uses sockets.

#![deny(unsafe_code)]
#![warn(clippy::wildcard_enum_match_arm)]

pub mod allocations;
pub mod baresip;
pub mod browser;
pub mod callee;
pub mod certificates;
pub mod contract;
pub mod control;
pub mod docker_registry;
pub mod documents;
pub mod galera;
pub mod guests;
pub mod host;
pub mod kamailio;
pub mod lease;
pub mod load;
pub mod lossy;
pub mod mariadb;
pub mod messages;
pub mod network;
pub mod office;
pub mod oracle;
pub mod pair;
pub mod peer;
pub mod peers;
pub mod postgres;
pub mod proxy;
pub mod redis;
pub mod reloads;
pub mod renewals;
pub mod replicas;
pub mod schema;
pub mod secure;
pub mod secure_gateway;
#[cfg(feature = "sessions")]
pub mod server;
pub mod sip;
pub mod spreader;
pub mod states;
pub mod steady;
pub mod tools;
pub mod wait;
pub mod zone;

use std::path::{Path, PathBuf};

/// The root of the repository.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .ancestors()
        .nth(2)
        .expect("the crate lives two directories below the repository's")
}

/// The `portcullis` binary under test: `PORTCULLIS_BIN`, else the debug build.
pub fn binary() -> PathBuf {
    let path = std::env::var_os("PORTCULLIS_BIN")
        .map_or_else(|| root().join("target/debug/portcullis"), PathBuf::from);
    assert!(
        path.exists(),
        "{} is missing: build it with `cargo build -p portcullis-server`, or run `cargo xtask test`",
        path.display()
    );
    path
}

/// A compiled policy by the name of its crate: in `PORTCULLIS_POLICIES`, else in `target/policies`.
pub fn policy(name: &str) -> PathBuf {
    let folder = std::env::var_os("PORTCULLIS_POLICIES")
        .map_or_else(|| root().join("target/policies"), PathBuf::from);
    let path = folder.join(format!("{name}.wasm"));
    assert!(
        path.exists(),
        "{} is missing: build the policies with `cargo xtask build --policies --tests`",
        path.display()
    );
    path
}
