//! `portcullis policy publish`

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, bail};
use portcullis_policy::{Inspection, Kind, inspect};
use portcullis_registry::{
    Access, Artifact, FILE_SIGNATURE, Interfaces, Reference, SDK, WORLD, publish,
};
use portcullis_signature as signature;
use portcullis_text::rfc3339;

use super::super::print::{clean, count};
use super::registry::{Connection, signing_key};
use super::sign::write_signed;

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Args {
    /// The policy: a WebAssembly module or component
    #[arg(value_name = "FILE.wasm")]
    file: PathBuf,
    /// Where to: oci://HOST[:PORT]/REPOSITORY:TAG; without a tag, `latest`
    #[arg(value_name = "oci://…")]
    reference: Reference,
    /// Also sign the artifact with this private key, in the form of cosign
    #[arg(long, value_name = "KEY.pem")]
    key: Option<PathBuf>,
    /// The author [default: $USER]
    #[arg(long)]
    author: Option<String>,
    /// An annotation of the artifact, for example org.opencontainers.image.source=https://example.com/acl
    #[arg(long = "annotation", value_name = "KEY=VALUE")]
    annotations: Vec<Annotation>,
    /// The signature of the file, which hosts check [default: FILE.wasm.sig if it exists]
    #[arg(long, value_name = "FILE.sig")]
    signature: Option<PathBuf>,
    #[command(flatten)]
    connection: Connection,
}

#[derive(Clone, Debug)]
struct Annotation(String, String);

impl FromStr for Annotation {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once('=') {
            Some((key, value)) if !key.is_empty() => Ok(Self(key.to_owned(), value.to_owned())),
            _ => Err("an annotation is KEY=VALUE"),
        }
    }
}

pub(super) fn run(args: &Args, out: &mut impl Write) -> anyhow::Result<()> {
    let file = &args.file;
    let shown = file.display().to_string();
    let bytes = fs::read(file).with_context(|| format!("cannot read {shown}"))?;
    let found = inspect(&bytes).with_context(|| shown.clone())?;
    // An unusable key is found before anything is uploaded.
    let key = match &args.key {
        Some(file) => Some((file, signing_key(file)?)),
        None => None,
    };
    let user = std::env::var("USER").ok();
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    let artifact = Artifact {
        bytes: &bytes,
        name: name.into_owned(),
        created: rfc3339(created()?),
        author: args.author.clone().or(user),
        interfaces: interfaces(&found),
        annotations: annotations(args, &found)?,
    };

    let repository = args.connection.open(&args.reference, Access::Push)?;
    let digest = publish(&repository, &artifact)?;
    writeln!(
        out,
        "{}: {}, from {}",
        args.reference,
        count(bytes.len() as u64, "byte"),
        clean(&shown)
    )?;
    writeln!(out, "{}", args.reference.at(digest))?;
    match key {
        // The digest, and not the tag, which may name something else by now.
        Some((file, key)) => write_signed(&repository, digest, (file, &key), out),
        None => Ok(()),
    }
}

/// The time of the artifact: that of `SOURCE_DATE_EPOCH` if it is set, so that the same file has the same digest again.
fn created() -> anyhow::Result<SystemTime> {
    let Some(seconds) = std::env::var_os("SOURCE_DATE_EPOCH") else {
        return Ok(SystemTime::now());
    };
    let seconds = seconds.to_str().and_then(|seconds| seconds.parse().ok());
    let time = seconds.and_then(|seconds| UNIX_EPOCH.checked_add(Duration::from_secs(seconds)));
    time.context("SOURCE_DATE_EPOCH is not a number of seconds since 1970")
}

/// The interfaces of a component.
fn interfaces(found: &Inspection) -> Option<Interfaces> {
    if found.kind == Kind::Module {
        return None;
    }
    let imports = found.imports.iter().map(|import| import.interface.clone());
    let imports: BTreeSet<_> = imports.collect();
    let exports = found.exports.iter().map(|export| export.name.clone());
    Some(Interfaces {
        exports: exports.collect(),
        imports: imports.into_iter().collect(),
    })
}

fn annotations(args: &Args, found: &Inspection) -> anyhow::Result<Vec<(String, String)>> {
    let signature = file_signature(args)?;
    let own = [
        (WORLD, found.world.clone()),
        (SDK, found.sdk.clone()),
        (
            FILE_SIGNATURE,
            Some(signature).filter(|text| !text.is_empty()),
        ),
    ];
    let own = own
        .into_iter()
        .filter_map(|(key, value)| Some((key.to_owned(), value?)));
    let given = args.annotations.iter();
    let given = given.map(|Annotation(key, value)| (key.clone(), value.clone()));
    Ok(own.chain(given).collect())
}

/// The signature of the file, in Base64 on one line; empty if there is none.
fn file_signature(args: &Args) -> anyhow::Result<String> {
    let read = |file: &Path| signature::read(file);
    let text = match &args.signature {
        Some(file) if !file.exists() => bail!("there is no {}", file.display()),
        Some(file) => read(file)?,
        None => read(&signature::file_of(&args.file))?,
    };
    Ok(text.split_ascii_whitespace().collect())
}
