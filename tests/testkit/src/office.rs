//! A host with allow and deny files, an office whose address is in group 200, and a callee as the next hop.

use std::fs;

use tempfile::TempDir;

use crate::callee::Callee;
use crate::host::{Builder, Host};
use crate::policy;

/// The office: the last part of its address.
pub const OFFICE: u8 = 10;

/// Starts a host with this bundled policy; the files are in a directory of their own.
pub fn start(name: &str, files: &[(&str, &str)]) -> (Host, Callee, TempDir) {
    let folder = tempfile::tempdir().expect("a temporary directory");
    for (file, text) in files {
        fs::write(folder.path().join(file), text).expect("a file can be written");
    }
    let builder = Builder::new();
    let office = builder.lease().ip(OFFICE);
    let callee = Callee::start(builder.lease().addr(3, 5080));
    let host = builder
        .policy(policy(name))
        .set("relay", &format!("next-hop = \"sip:{}\"", callee.addr()))
        .set("permissions", &format!("folder = {:?}", folder.path()))
        .row(&format!("200 {office} 32 0 Office"))
        .start();
    (host, callee, folder)
}
