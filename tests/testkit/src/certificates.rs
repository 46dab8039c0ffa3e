//! Certificates of servers under test, made by the `openssl` program.

use std::path::Path;
use std::process::Command;

/// Creates a self-signed authority in this directory: `NAME.pem` and `NAME.key`.
///
/// # Panics
/// If openssl is not installed, or fails.
pub fn authority(folder: &Path, name: &str) {
    openssl(
        folder,
        &format!(
            "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN={name} \
             -addext basicConstraints=critical,CA:TRUE -keyout {name}.key -out {name}.pem"
        ),
    );
}

/// Creates a certificate of the authority `ca` for a host: `NAME.pem` and `NAME.key`. The host is written as in `subjectAltName`.
///
/// # Panics
/// If openssl is not installed, or fails.
pub fn certificate(folder: &Path, name: &str, host: &str) {
    openssl(
        folder,
        &format!(
            "req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj /CN={name} -keyout {name}.key -out {name}.csr"
        ),
    );
    let extensions = format!("basicConstraints=CA:FALSE\nsubjectAltName={host}\n");
    std::fs::write(folder.join("ext"), extensions).expect("a file can be written");
    openssl(
        folder,
        &format!(
            "x509 -req -in {name}.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile ext -out {name}.pem"
        ),
    );
}

/// Writes the list of revoked certificates of the authority `ca`, `crl.pem`, with the certificates of these names on it.
///
/// # Panics
/// If openssl is not installed, or fails.
pub fn revocations(folder: &Path, names: &[&str]) {
    write_revocations(folder, names, "");
}

/// The same for a list whose time is over.
///
/// # Panics
/// If openssl is not installed, or fails.
pub fn expired_revocations(folder: &Path, names: &[&str]) {
    let times = "-crl_lastupdate 20200101000000Z -crl_nextupdate 20200102000000Z";
    write_revocations(folder, names, times);
}

fn write_revocations(folder: &Path, names: &[&str], times: &str) {
    let config = "[ca]\ndefault_ca = own\n[own]\ndatabase = index.txt\ncrlnumber = crlnumber\ndefault_md = sha256\n\
         default_crl_days = 2\ncrl_extensions = list\n[list]\nauthorityKeyIdentifier = keyid:always\n";
    for (name, text) in [
        ("lists.cnf", config),
        ("index.txt", ""),
        ("crlnumber", "01\n"),
    ] {
        std::fs::write(folder.join(name), text).expect("a file can be written");
    }
    let authority = "-config lists.cnf -keyfile ca.key -cert ca.pem";
    for name in names {
        openssl(folder, &format!("ca {authority} -revoke {name}.pem"));
    }
    openssl(
        folder,
        &format!("ca {authority} -gencrl {times} -out crl.pem"),
    );
}

fn openssl(folder: &Path, words: &str) {
    let output = Command::new("openssl")
        .args(words.split_whitespace())
        .current_dir(folder)
        .output()
        .expect("openssl is installed");
    assert!(
        output.status.success(),
        "openssl {words}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}
