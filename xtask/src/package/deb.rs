//! The package for Debian and its derivatives.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::archive::gzip;
use super::release::{MAINTAINER, Release};
use super::tree::{CONFIGURATION, Tree};
use crate::process::{capture, run as run_command};
use crate::workspace::root;

/// How hard the compressor tries.
#[derive(Clone, Copy, Debug)]
pub(super) enum Compression {
    Best,
    /// For packages that only a test installs.
    Quick,
}

/// Scripts of the package manager.
const SCRIPTS: [&str; 3] = ["postinst", "prerm", "postrm"];

/// Builds NAME.deb in the folder from the tree, to which it adds what only Debian has.
pub(super) fn build(
    tree: &Tree,
    release: &Release,
    compression: Compression,
    folder: &Path,
) -> Result<PathBuf> {
    let source = root().join("packaging/debian");
    add_changelog(tree, release)?;
    tree.copy(
        &source.join("lintian-overrides"),
        "usr/share/lintian/overrides/portcullis",
        0o644,
    )?;

    let files = tree.files()?;
    let sums = md5sums(tree, &files)?;
    let size: u64 = files
        .iter()
        .map(|file| Ok::<_, anyhow::Error>(tree.root().join(file).metadata()?.len().div_ceil(1024)))
        .sum::<Result<u64>>()?;
    let arch = capture(Command::new("dpkg").arg("--print-architecture"))?;
    let arch = arch.trim();
    let control = fs::read_to_string(source.join("control"))?
        .replace("@VERSION@", &release.version)
        .replace("@REVISION@", &release.revision.to_string())
        .replace("@ARCH@", arch)
        .replace("@MAINTAINER@", MAINTAINER)
        .replace("@SIZE@", &size.to_string())
        .replace(
            "@DEPENDS@",
            &libraries(&tree.root().join("usr/bin/portcullis"))?,
        );

    tree.write(&control, "DEBIAN/control", 0o644)?;
    tree.write(&format!("/{CONFIGURATION}\n"), "DEBIAN/conffiles", 0o644)?;
    tree.write(&sums, "DEBIAN/md5sums", 0o644)?;
    for script in SCRIPTS {
        tree.copy(&source.join(script), &format!("DEBIAN/{script}"), 0o755)?;
    }
    tree.set_times()?;

    let file = folder.join(format!(
        "portcullis_{}-{}_{arch}.deb",
        release.version, release.revision
    ));
    let options: &[&str] = match compression {
        Compression::Best => &["-Zxz"],
        Compression::Quick => &["-Zgzip", "-z1"],
    };
    run_command(
        Command::new("dpkg-deb")
            .env("SOURCE_DATE_EPOCH", release.epoch.to_string())
            .arg("--root-owner-group")
            .args(options)
            .arg("--build")
            .arg(tree.root())
            .arg(&file),
    )?;
    Ok(file)
}

fn add_changelog(tree: &Tree, release: &Release) -> Result<()> {
    let text = format!(
        "portcullis ({}-{}) unstable; urgency=medium\n\n  * Release {}; changelog.gz says what is new.\n\n -- {MAINTAINER}  {}\n",
        release.version,
        release.revision,
        release.version,
        release.date("%a, %d %b %Y %H:%M:%S +0000")?
    );
    let file = tree.write(&text, "usr/share/doc/portcullis/changelog.Debian", 0o644)?;
    gzip(&file)
}

fn md5sums(tree: &Tree, files: &[PathBuf]) -> Result<String> {
    let files = files
        .iter()
        .filter(|file| *file != Path::new(CONFIGURATION));
    capture(Command::new("md5sum").current_dir(tree.root()).args(files))
}

/// Returns the packages with the libraries that the program needs, as in `Depends`.
fn libraries(program: &Path) -> Result<String> {
    let folder = tempfile::tempdir()?;
    fs::set_permissions(folder.path(), Permissions::from_mode(0o755))?;
    // The program refuses to run without these.
    fs::create_dir(folder.path().join("debian"))?;
    fs::write(
        folder.path().join("debian/control"),
        "Source: portcullis\n\nPackage: portcullis\nArchitecture: any\n",
    )?;
    let said = capture(
        Command::new("dpkg-shlibdeps")
            .current_dir(folder.path())
            .args(["-O", "-e"])
            .arg(fs::canonicalize(program)?),
    )?;
    let libraries = said.trim().strip_prefix("shlibs:Depends=");
    Ok(libraries
        .context("dpkg-shlibdeps did not answer as expected")?
        .to_owned())
}
