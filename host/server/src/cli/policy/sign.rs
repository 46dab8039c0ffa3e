//! Keys and signatures.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use anyhow::Context;
use portcullis_signature as signature;

use crate::modes;

use super::super::print::clean;

/// Writes a key that only its owner can read.
pub(super) fn keygen(path: &Path, out: &mut impl Write) -> anyhow::Result<()> {
    let (key, pem) = signature::new_key()?;
    let mut options = OpenOptions::new();
    let file = options.write(true).create_new(true).mode(0o600).open(path);
    let mut file = file.with_context(|| format!("cannot make {}", path.display()))?;
    file.write_all(pem.as_bytes())?;
    let name = path.file_stem().unwrap_or_default().to_string_lossy();
    let public = signature::shown(&key.verifying_key());
    writeln!(
        out,
        "{} is the private key: keep it secret",
        clean(&path.display().to_string())
    )?;
    writeln!(
        out,
        "add to [policy.signers] or [tenants.NAME.signers] of the host:\n"
    )?;
    writeln!(out, "{} = \"{public}\"", clean(&name))?;
    Ok(())
}

/// Writes the signature next to the file.
pub(super) fn sign(file: &Path, key: &Path, out: &mut impl Write) -> anyhow::Result<()> {
    if let Some(text) = modes::too_open(key, modes::PRIVATE) {
        eprintln!("warning: {}", clean(&text));
    }
    let bytes = fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
    let pem = fs::read_to_string(key).with_context(|| format!("cannot read {}", key.display()))?;
    let signed = signature::sign(&bytes, &pem)
        .with_context(|| format!("{} is not an Ed25519 key in PKCS #8 format", key.display()))?;
    let path = signature::file_of(file);
    fs::write(&path, format!("{signed}\n"))
        .with_context(|| format!("cannot write {}", path.display()))?;
    writeln!(out, "{}", clean(&path.display().to_string()))?;
    Ok(())
}
