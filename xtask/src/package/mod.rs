//! `cargo xtask package`

mod archive;
mod configuration;
mod deb;
mod flavour;
mod image;
mod manifests;
mod notices;
mod release;
mod rpm;
mod sbom;
mod statics;
mod tree;
mod trial;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use self::archive::fresh;
use self::flavour::Flavour;
use self::notices::Dependencies;
use self::release::Release;
use self::tree::{Parts, Tree};
use crate::build::{self, Profile, Set};
use crate::debian::{self, Need};
use crate::process::capture;
use crate::workspace::Workspace;

/// Make packages of the host in target/package: .deb, .rpm, an OCI image, SHA256SUMS and an SBOM
///
/// The host is built as `cargo xtask build --release` builds it, and with --static once more. The packages are the same for the same
/// source and compiler: their time is SOURCE_DATE_EPOCH, or that of the last commit. They need the C library of the machine on which they were
/// made, or a later one. Other programs are installed when this runs as root on Debian; elsewhere the missing ones are listed.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Package target/dist/portcullis and target/policies as they are
    #[arg(long)]
    no_build: bool,
    /// Package this binary as it is, and the policies of target/policies
    #[arg(long, value_name = "FILE", conflicts_with = "no_build")]
    binary: Option<PathBuf>,
    /// Also make a tarball with a static binary, which takes a second build of the host, with musl
    #[arg(long = "static")]
    with_static: bool,
    /// Then check the packages: lintian, and installation, upgrade, start, removal and purge in a throw-away Debian
    #[arg(long)]
    test: bool,
}

/// Programs that make the packages.
const TOOLS: [Need; 7] = [
    Need {
        name: "dpkg-deb",
        package: "dpkg",
    },
    Need {
        name: "dpkg-shlibdeps",
        package: "dpkg-dev",
    },
    Need {
        name: "rpmbuild",
        package: "rpm",
    },
    Need {
        name: "strip",
        package: "binutils",
    },
    Need {
        name: "objcopy",
        package: "binutils",
    },
    Need {
        name: "gzip",
        package: "gzip",
    },
    Need {
        name: "tar",
        package: "tar",
    },
];

pub(crate) fn run(args: &Args) -> Result<()> {
    let workspace = Workspace::own()?;
    debian::require(&TOOLS)?;
    if args.test {
        debian::require(&trial::TOOLS)?;
    }
    if args.with_static {
        debian::require(&[statics::MUSL])?;
    }
    let release = Release::of_workspace()?;
    release::warn_of_maintainer();
    let folder = workspace.target.join("package");
    let host = match (&args.binary, args.no_build) {
        (Some(binary), _) => fs::canonicalize(binary)?,
        (None, true) => build::built(&workspace, Profile::Dist, "portcullis"),
        (None, false) => build::host_and_policies(&workspace, Profile::Dist, Set::Bundled)?.0,
    };

    // Both builds before the packages: an error in one of them leaves the packages of before.
    let with_musl = match args.with_static {
        true => Some(statics::host(&workspace, args.no_build)?),
        false => None,
    };

    let mut files = make(&workspace, &host, &release, &folder)?;
    if let Some(host) = with_musl {
        files.push(statics::package(&workspace, &host, &release, &folder)?);
    }
    files.push(sums(&folder, &files)?);
    for file in &files {
        println!("{} ({} bytes)", file.display(), file.metadata()?.len());
    }
    if args.test {
        trial::all(&workspace, &host, &files, &folder)?;
    }
    Ok(())
}

/// Whether this machine permits the namespaces and overlays in which packages are tried.
pub(crate) fn can_try() -> bool {
    trial::is_possible()
}

/// Makes the package for Debian of a binary, and tries it on a copy of this machine.
pub(crate) fn try_quickly(workspace: &Workspace, host: &Path) -> Result<()> {
    trial::quick(workspace, host, &workspace.target.join("package-trial"))
}

/// Makes everything but the static tarball; returns the files.
fn make(
    workspace: &Workspace,
    host: &Path,
    release: &Release,
    folder: &Path,
) -> Result<Vec<PathBuf>> {
    fresh(folder)?;
    let dependencies = Dependencies::of_host()?;
    let parts = Parts::prepare(workspace, host, release, &dependencies, folder)?;

    let deb = Tree::lay(&parts, Flavour::Debian, &folder.join("tree-deb"))?;
    let rpm = Tree::lay(&parts, Flavour::Rpm, &folder.join("tree-rpm"))?;
    let image = Tree::lay(&parts, Flavour::Image, &folder.join("tree-image"))?;
    let files = vec![
        deb::build(&deb, release, deb::Compression::Best, folder)?,
        rpm::build(&rpm, release, folder)?,
        image::build(&image, &parts, release, folder)?,
        parts.debug_file(release, folder)?,
        parts.sbom_file(release, folder)?,
    ];
    for tree in [deb, rpm, image] {
        fs::remove_dir_all(tree.root())?;
    }
    fs::remove_dir_all(parts.folder())?;
    Ok(files)
}

/// Writes SHA256SUMS of these files, which are all in the folder.
fn sums(folder: &Path, files: &[PathBuf]) -> Result<PathBuf> {
    let names = files.iter().filter_map(|file| file.file_name());
    let mut command = Command::new("sha256sum");
    command.current_dir(folder).args(names);
    let path = folder.join("SHA256SUMS");
    fs::write(&path, capture(&mut command)?)?;
    Ok(path)
}
