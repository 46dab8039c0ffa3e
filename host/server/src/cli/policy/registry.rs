//! What the commands with registries share.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use portcullis_registry::{
    Access, Pulled, Reference, Repository, SCHEME, SigningKey, VerifyKey, pull as pull_from,
};

use super::super::print::clean;

/// The largest policy that is downloaded, in bytes. A host has a lower limit of its own (`module` in `[policy]`).
const LARGEST: u64 = 256 << 20;

/// How a registry is reached.
#[derive(Clone, Debug, Default, clap::Args)]
pub(in crate::cli) struct Connection {
    /// Use HTTP without TLS [default: true for a registry on this machine, else false]
    #[arg(
        long,
        value_name = "true|false",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true",
        hide_possible_values = true
    )]
    plain_http: Option<bool>,
}

/// Which signature a registry must have.
#[derive(Clone, Debug, Default, clap::Args)]
pub(in crate::cli) struct Verification {
    /// Require a signature in the registry by this key: a public key in PEM, from `keygen`, `cosign` or `openssl pkey -pubout`
    #[arg(long, value_name = "KEY.pub")]
    verify_key: Option<PathBuf>,
}

impl Connection {
    /// Connects to the registry of an artifact.
    pub(super) fn open(&self, reference: &Reference, access: Access) -> anyhow::Result<Repository> {
        Ok(Repository::open(reference, self.plain_http, access)?)
    }
}

impl Verification {
    /// Refuses a key beside something that is not in a registry.
    pub(super) fn refuse_for(&self, other: &Path) -> anyhow::Result<()> {
        match self.verify_key {
            Some(_) => bail!(
                "--verify-key checks signatures in registries, and {} is in none: for files, the host has `signers` in its configuration",
                other.display()
            ),
            None => Ok(()),
        }
    }
}

/// Whether this text names something in a registry.
pub(super) fn is_reference(text: &Path) -> bool {
    text.to_str().is_some_and(|text| text.starts_with(SCHEME))
}

/// The artifact that this text names; `None` if it is something else.
pub(super) fn reference(text: &Path) -> anyhow::Result<Option<Reference>> {
    match text.to_str() {
        Some(text) if text.starts_with(SCHEME) => Ok(Some(text.parse()?)),
        _ => Ok(None),
    }
}

/// Reads the private key in a file.
pub(super) fn signing_key(file: &Path) -> anyhow::Result<SigningKey> {
    let text =
        fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    SigningKey::from_pem(&text).with_context(|| format!("cannot sign with {}", file.display()))
}

/// Downloads a policy, and says which one.
pub(super) fn pull(
    reference: &Reference,
    connection: &Connection,
    verification: &Verification,
    out: &mut impl Write,
) -> anyhow::Result<Pulled> {
    let key = match &verification.verify_key {
        Some(file) => Some(verify_key(file)?),
        None => None,
    };
    let repository = connection.open(reference, Access::Pull)?;
    let pulled = pull_from(&repository, LARGEST, key.as_ref())?;
    writeln!(out, "{}", reference.at(pulled.digest))?;
    if let Some(key) = key {
        writeln!(out, "signed with {}", clean(&key.to_string()))?;
    }
    Ok(pulled)
}

/// Reads the public key in a file.
fn verify_key(file: &Path) -> anyhow::Result<VerifyKey> {
    let name = file.display().to_string();
    let text = fs::read_to_string(file).with_context(|| format!("cannot read {name}"))?;
    VerifyKey::from_pem(&name, &text).with_context(|| format!("cannot verify with {name}"))
}
