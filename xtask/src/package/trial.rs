//! Packages tried in a throw-away Debian: a private mount, process and network namespace with an overlay over a root directory, so that nothing
//! outside of it changes. The scripts in packaging/tests say what is tried.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::archive::fresh;
use super::deb::{self, Compression};
use super::flavour::Flavour;
use super::manifests;
use super::notices::Dependencies;
use super::release::Release;
use super::tree::{Parts, Tree};
use crate::debian::Need;
use crate::process::{find, run as run_command};
use crate::workspace::{Workspace, root};

/// Programs that try the packages.
pub(super) const TOOLS: [Need; 5] = [
    Need {
        name: "lintian",
        package: "lintian",
    },
    Need {
        name: "mmdebstrap",
        package: "mmdebstrap",
    },
    Need {
        name: "unshare",
        package: "util-linux",
    },
    Need {
        name: "ip",
        package: "iproute2",
    },
    Need {
        name: "skopeo",
        package: "skopeo",
    },
];

/// Whether this process may create namespaces and overlays: as root, and not in most containers.
pub(super) fn is_possible() -> bool {
    let tools = ["dpkg-deb", "dpkg-shlibdeps", "objcopy", "unshare", "ip"];
    if tools.iter().any(|tool| find(tool).is_none()) {
        return false;
    }
    let mut probe = in_namespace();
    probe.arg(
        "mount -t tmpfs tmpfs /mnt && mkdir /mnt/upper /mnt/work /mnt/root \
         && mount -t overlay -o lowerdir=/,upperdir=/mnt/upper,workdir=/mnt/work overlay /mnt/root",
    );
    probe.output().is_ok_and(|output| output.status.success())
}

/// Tries all packages, with their dependencies, in a Debian that has nothing else.
pub(super) fn all(
    workspace: &Workspace,
    host: &Path,
    files: &[PathBuf],
    folder: &Path,
) -> Result<()> {
    let one = |ending: &str| {
        files
            .iter()
            .find(|file| file.to_string_lossy().ends_with(ending))
            .with_context(|| format!("no file {ending}"))
    };
    let package = one(".deb")?;
    run_command(
        Command::new("lintian")
            .args(["--allow-root", "--fail-on", "warning", "--info"])
            .arg(package),
    )?;
    run_command(Command::new("sha256sum").current_dir(folder).args([
        "--check",
        "--quiet",
        "SHA256SUMS",
    ]))?;

    let later = later(workspace, host, &folder.join("later"))?;
    let debian = debian_root(workspace)?;
    run("deb.sh", &debian, &[package, &later])?;
    run("rpm.sh", Path::new("/"), &[one(".rpm")?])?;
    run(
        "image.sh",
        Path::new("/"),
        &[one("-oci-amd64.tar").or_else(|_| one("-oci-arm64.tar"))?],
    )?;
    if let Ok(tarball) = one(".tar.gz") {
        run("static.sh", Path::new("/"), &[tarball])?;
    }
    fs::remove_dir_all(folder.join("later"))?;
    manifests::check(host)
}

/// Tries the .deb of this binary on a copy of this machine.
pub(super) fn quick(workspace: &Workspace, host: &Path, folder: &Path) -> Result<()> {
    fresh(folder)?;
    let first = quick_deb(workspace, host, 1, folder)?;
    let later = later(workspace, host, folder)?;
    run("deb.sh", Path::new("/"), &[&first, &later])?;
    Ok(fs::remove_dir_all(folder)?)
}

/// Makes the package of the next revision.
fn later(workspace: &Workspace, host: &Path, folder: &Path) -> Result<PathBuf> {
    quick_deb(workspace, host, 2, folder)
}

fn quick_deb(workspace: &Workspace, host: &Path, revision: u32, folder: &Path) -> Result<PathBuf> {
    fs::create_dir_all(folder)?;
    let release = Release {
        revision,
        ..Release::of_workspace()?
    };
    let dependencies = Dependencies::of_host()?;
    let parts = Parts::prepare(workspace, host, &release, &dependencies, folder)?;
    let tree = Tree::lay(&parts, Flavour::Debian, &folder.join("tree"))?;
    let file = deb::build(&tree, &release, Compression::Quick, folder)?;
    fs::remove_dir_all(tree.root())?;
    fs::remove_dir_all(parts.folder())?;
    Ok(file)
}

/// Returns the root directory of a Debian with the essential packages, which is made once.
fn debian_root(workspace: &Workspace) -> Result<PathBuf> {
    let folder = workspace.target.join("package-debian");
    if folder.join("bin/sh").exists() {
        return Ok(folder);
    }
    let suite = suite()?;
    let archive = workspace.target.join("package-debian.tar");
    run_command(
        Command::new("mmdebstrap")
            .args(["--quiet", "--variant=minbase"])
            .arg(&suite)
            .arg(&archive),
    )?;
    fs::create_dir_all(&folder)?;
    run_command(
        Command::new("tar")
            .args(["--extract", "--exclude=./dev/*", "--file"])
            .arg(&archive)
            .arg("--directory")
            .arg(&folder),
    )?;
    fs::remove_file(&archive)?;
    Ok(folder)
}

/// The release of Debian on this machine, whose C library the packages need.
fn suite() -> Result<String> {
    let text = fs::read_to_string("/etc/os-release").context("cannot read /etc/os-release")?;
    let name = text
        .lines()
        .find_map(|line| line.strip_prefix("VERSION_CODENAME="));
    match name {
        Some(name) => Ok(name.trim_matches('"').to_owned()),
        None => bail!("/etc/os-release has no VERSION_CODENAME: the packages are tried on Debian"),
    }
}

/// Runs a script of packaging/tests over a root directory, with these files in /packages of it.
fn run(script: &str, lower: &Path, files: &[&PathBuf]) -> Result<()> {
    let scripts = root().join("packaging/tests");
    let mut command = in_namespace();
    command
        .arg(r#". "$0""#)
        .arg(scripts.join("namespace.sh"))
        .arg(lower)
        .arg(scripts.join(script))
        .args(files);
    run_command(&mut command).with_context(|| format!("{script} over {}", lower.display()))
}

/// A shell in namespaces of its own; the caller adds its script. `/tmp` there is empty and private.
fn in_namespace() -> Command {
    let mut command = Command::new("unshare");
    command.args([
        "--mount",
        "--net",
        "--pid",
        "--ipc",
        "--uts",
        "--fork",
        "--kill-child",
        "--propagation=private",
        "sh",
        "-ec",
    ]);
    command
}
