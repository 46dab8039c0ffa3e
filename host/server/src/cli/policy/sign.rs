//! Keys and signatures.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use portcullis_registry::{Access, Digest, Reference, Repository, SigningKey};
use portcullis_signature as signature;

use crate::modes;

use super::super::print::clean;
use super::registry::{self, Connection};

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Args {
    /// The policy: a file, or an artifact in a registry (oci://HOST/REPOSITORY:TAG or @sha256:DIGEST)
    #[arg(value_name = "FILE.wasm|oci://…")]
    policy: PathBuf,
    /// The private key, from `keygen` or `openssl genpkey -algorithm ed25519`; for a registry also one for ECDSA on P-256
    #[arg(long, value_name = "KEY.pem")]
    key: PathBuf,
    #[command(flatten)]
    connection: Connection,
}

impl Args {
    /// Whether it signs an artifact in a registry.
    pub(super) fn is_of_registry(&self) -> bool {
        registry::is_reference(&self.policy)
    }
}

pub(super) fn run(args: &Args, out: &mut impl Write) -> anyhow::Result<()> {
    if let Some(text) = modes::too_open(&args.key, modes::PRIVATE) {
        eprintln!("warning: {}", clean(&text));
    }
    match registry::reference(&args.policy)? {
        Some(reference) => sign_artifact(&reference, args, out),
        None => sign_file(&args.policy, &args.key, out),
    }
}

/// Writes a key that only its owner can read.
pub(super) fn keygen(path: &Path, out: &mut impl Write) -> anyhow::Result<()> {
    let (key, pem) = signature::new_key()?;
    let public_file = path.with_extension("pub");
    if public_file == path {
        bail!(
            "{} is the name for the public key: name the file for the private key KEY.pem",
            path.display()
        );
    }
    if public_file.exists() {
        bail!(
            "{} exists: name another file for the keys",
            public_file.display()
        );
    }
    let create = |path: &Path, mode| {
        let mut options = OpenOptions::new();
        let file = options.write(true).create_new(true).mode(mode).open(path);
        file.with_context(|| format!("cannot make {}", path.display()))
    };
    let mut file = create(path, 0o600)?;
    file.write_all(pem.as_bytes())?;
    create(&public_file, 0o644)?
        .write_all(signature::public_pem(&key.verifying_key()).as_bytes())?;
    let name = path.file_stem().unwrap_or_default().to_string_lossy();
    let public = signature::shown(&key.verifying_key());
    writeln!(
        out,
        "{} is the private key: keep it secret",
        clean(&path.display().to_string())
    )?;
    writeln!(
        out,
        "{} is the public key, for --verify-key",
        clean(&public_file.display().to_string())
    )?;
    writeln!(
        out,
        "add to [policy.signers] or [tenants.NAME.signers] of the host:\n"
    )?;
    writeln!(out, "{} = \"{public}\"", clean(&name))?;
    Ok(())
}

/// Uploads the signature of an artifact.
fn sign_artifact(reference: &Reference, args: &Args, out: &mut impl Write) -> anyhow::Result<()> {
    let key = registry::signing_key(&args.key)?;
    let repository = args.connection.open(reference, Access::Push)?;
    let digest = repository.resolve()?;
    write_signed(&repository, digest, (&args.key, &key), out)
}

/// Signs the artifact with this digest, with a key and its file.
pub(super) fn write_signed(
    repository: &Repository,
    digest: Digest,
    (file, key): (&Path, &SigningKey),
    out: &mut impl Write,
) -> anyhow::Result<()> {
    let signed = portcullis_registry::sign(repository, digest, key)?;
    let exact = repository.reference().at(signed.digest);
    let key = key.verify_key(&file.display().to_string());
    let state = match signed.is_new {
        true => "signed",
        false => "signed already",
    };
    writeln!(
        out,
        "{exact}: {state} with {}, under the tag {}",
        clean(&key.to_string()),
        signed.tag
    )?;
    Ok(())
}

/// Writes the signature next to the file.
fn sign_file(file: &Path, key_file: &Path, out: &mut impl Write) -> anyhow::Result<()> {
    let bytes = fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
    let pem = fs::read_to_string(key_file)
        .with_context(|| format!("cannot read {}", key_file.display()))?;
    let signed = signature::sign(&bytes, &pem).with_context(|| match SigningKey::from_pem(&pem) {
        Ok(key) if key.is_ecdsa() => format!(
            "{} is a key for ECDSA, which signs artifacts in registries only; hosts check Ed25519: `portcullis policy keygen` makes such a key",
            key_file.display()
        ),
        Ok(_) | Err(_) => format!("{} is not an Ed25519 key in PKCS #8 format", key_file.display()),
    })?;
    let path = signature::file_of(file);
    fs::write(&path, format!("{signed}\n"))
        .with_context(|| format!("cannot write {}", path.display()))?;
    writeln!(out, "{}", clean(&path.display().to_string()))?;
    Ok(())
}
