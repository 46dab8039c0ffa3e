//! An authoritative name server of one test: knot in a temporary directory.

use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use crate::wait;

/// The zone that the server has.
pub const ZONE: &str = "carrier.example";

/// The TTL of each record, in seconds: the shortest one that the host counts.
pub const TTL: u64 = 5;

/// A running knot with the zone `carrier.example`.
#[derive(Debug)]
pub struct Zone {
    server: Child,
    folder: TempDir,
}

impl Zone {
    /// Starts the server on this address, with these records beside SOA and NS. Returns when it answers.
    ///
    /// # Panics
    /// If knot is not installed, or does not read the zone.
    pub fn start(listen: SocketAddr, records: &str) -> Self {
        let folder = tempfile::tempdir().expect("a temporary directory can be made");
        let place = folder.path().display();
        let (ip, port) = (listen.ip(), listen.port());
        let config = format!(
            "server:\n    listen: {ip}@{port}\n    rundir: {place}\ndatabase:\n    storage: {place}/db\n\
             control:\n    listen: {place}/knot.sock\nlog:\n  - target: stderr\n    any: warning\n\
             zone:\n  - domain: {ZONE}\n    file: {place}/zone\n    zonefile-sync: -1\n    journal-content: none\n"
        );
        let zone = format!(
            "$ORIGIN {ZONE}.\n$TTL {TTL}\n@ SOA ns hostmaster 1 60 60 60 5\n@ NS ns\nns A {ip}\n{records}"
        );
        let write = |name: &str, text: &str| {
            std::fs::write(folder.path().join(name), text).expect("a file can be written");
        };
        write("knot.conf", &config);
        write("zone", &zone);
        let log = std::fs::File::create(folder.path().join("log")).expect("a log can be written");
        let server = Command::new("knotd")
            .arg("-c")
            .arg(folder.path().join("knot.conf"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .process_group(0)
            .spawn()
            .expect("knotd is installed: apt-get install knot");
        let zone = Self { server, folder };
        wait::until("knot has its zone", || {
            let output = zone.knotc(&["zone-status", ZONE]);
            output.contains("serial: 1").then_some(())
        });
        zone
    }

    /// Replaces the records of a type of a name. Returns when the server answers with the new one.
    ///
    /// # Panics
    /// If knot refuses it.
    pub fn replace(&self, name: &str, kind: &str, data: &str) {
        let ttl = TTL.to_string();
        for words in [
            &["zone-begin", ZONE][..],
            &["zone-unset", ZONE, name, kind],
            &["zone-set", ZONE, name, &ttl, kind, data],
            &["zone-commit", ZONE],
        ] {
            let said = self.knotc(words);
            assert!(said.contains("OK"), "knotc {words:?}: {said}");
        }
    }

    fn knotc(&self, words: &[&str]) -> String {
        let output = Command::new("knotc")
            .arg("-s")
            .arg(self.folder.path().join("knot.sock"))
            .args(words)
            .output()
            .expect("knotc is installed: apt-get install knot");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }
}

impl Drop for Zone {
    fn drop(&mut self) {
        let _ended = self.server.kill();
        let _reaped = self.server.wait();
    }
}
