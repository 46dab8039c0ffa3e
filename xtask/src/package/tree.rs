//! The files of a package, where they will be installed.

use std::fs::{self, File, FileTimes, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};

use super::archive::gzip;
use super::flavour::Flavour;
use super::notices::Dependencies;
use super::release::Release;
use super::{configuration, sbom};
use crate::process::{capture, run as run_command};
use crate::workspace::{Workspace, root};

/// What the packages are made of, each in a file or a directory.
#[derive(Debug)]
pub(super) struct Parts {
    folder: PathBuf,
    policies: Vec<PathBuf>,
    epoch: u64,
}

/// A directory with the files of a package.
#[derive(Debug)]
pub(super) struct Tree {
    root: PathBuf,
    epoch: u64,
}

/// Path of the configuration file in a tree.
pub(super) const CONFIGURATION: &str = "etc/portcullis/portcullis.toml";

impl Parts {
    /// Splits the binary into what runs and what a debugger reads, and has it write its manual pages and completions.
    pub(super) fn prepare(
        workspace: &Workspace,
        host: &Path,
        release: &Release,
        dependencies: &Dependencies,
        folder: &Path,
    ) -> Result<Self> {
        let parts = Self {
            folder: folder.join("parts"),
            policies: policies(workspace)?,
            epoch: release.epoch,
        };
        fs::create_dir_all(&parts.folder)?;
        parts.split(host)?;
        run_command(Command::new(host).arg("man").arg(parts.folder.join("man")))?;
        let schema = capture(Command::new(host).args(["config", "schema"]))?;
        fs::write(parts.folder.join(SCHEMA), schema)?;
        for (shell, file) in SHELLS {
            let text = capture(Command::new(host).args(["completions", shell]))?;
            fs::write(parts.folder.join(file), text)?;
        }
        fs::write(
            parts.folder.join("portcullis.cdx.json"),
            sbom::document(dependencies, release)?,
        )?;
        let notices = parts.folder.join("third-party.txt");
        fs::write(&notices, dependencies.notices()?)?;
        gzip(&notices)?;
        Ok(parts)
    }

    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// The binary without what a debugger reads.
    pub(super) fn binary(&self) -> PathBuf {
        self.folder.join("portcullis")
    }

    /// Puts what a debugger reads beside the packages; returns its path.
    pub(super) fn debug_file(&self, release: &Release, folder: &Path) -> Result<PathBuf> {
        let name = format!(
            "portcullis-{}-{}.debug",
            release.version,
            std::env::consts::ARCH
        );
        let to = folder.join(name);
        fs::rename(self.folder.join("portcullis.debug"), &to)?;
        Ok(to)
    }

    /// Puts the list of components beside the packages; returns its path.
    pub(super) fn sbom_file(&self, release: &Release, folder: &Path) -> Result<PathBuf> {
        let name = format!(
            "portcullis-{}-{}.cdx.json",
            release.version,
            std::env::consts::ARCH
        );
        let to = folder.join(name);
        fs::copy(self.folder.join("portcullis.cdx.json"), &to)?;
        Ok(to)
    }

    fn split(&self, host: &Path) -> Result<()> {
        let stripped = self.binary();
        run_command(
            Command::new("objcopy")
                .args(["--only-keep-debug", "--compress-debug-sections"])
                .arg(host)
                .arg(self.folder.join("portcullis.debug")),
        )?;
        run_command(
            Command::new("strip")
                .args(["--strip-unneeded", "-o"])
                .arg(&stripped)
                .arg(host),
        )?;
        run_command(
            Command::new("objcopy")
                .current_dir(&self.folder)
                .args(["--remove-section=.comment"])
                .arg("--add-gnu-debuglink=portcullis.debug")
                .arg(&stripped),
        )
    }
}

/// What editors read of the configuration file. The configuration of packages names it in its first line.
const SCHEMA: &str = "portcullis.schema.json";

/// Shells, and the file of the completions for each.
const SHELLS: [(&str, &str); 3] = [
    ("bash", "completion.bash"),
    ("zsh", "completion.zsh"),
    ("fish", "completion.fish"),
];

/// The bundled policies, which must have been built.
fn policies(workspace: &Workspace) -> Result<Vec<PathBuf>> {
    let folder = workspace.target.join("policies");
    workspace
        .policies()
        .map(|policy| {
            let file = folder.join(&policy.name).with_extension("wasm");
            file.is_file().then_some(file).with_context(|| {
                format!(
                    "{}.wasm is not built: cargo xtask build --policies",
                    policy.name
                )
            })
        })
        .collect()
}

impl Tree {
    /// Lays out the files below `to`.
    pub(super) fn lay(parts: &Parts, flavour: Flavour, to: &Path) -> Result<Self> {
        let tree = Self {
            root: to.to_owned(),
            epoch: parts.epoch,
        };
        let defaults = fs::read_to_string(root().join("host/config/src/defaults.toml"))?;
        let configuration = configuration::of_package(&defaults, flavour)?;

        tree.copy(&parts.binary(), "usr/bin/portcullis", 0o755)?;
        tree.write(&configuration, CONFIGURATION, 0o640)?;
        tree.copy_into(&parts.folder.join(SCHEMA), "usr/share/portcullis")?;
        for policy in &parts.policies {
            tree.copy_into(policy, "usr/share/portcullis/policies")?;
        }
        tree.copy_all(
            &root().join("policy-wit"),
            "wit",
            "usr/share/portcullis/wit",
        )?;
        let documents = "usr/share/doc/portcullis";
        for name in ["portcullis.cdx.json", "third-party.txt.gz"] {
            tree.copy_into(&parts.folder.join(name), documents)?;
        }
        match flavour {
            Flavour::Image => {}
            Flavour::Debian => {
                tree.lay_system(parts, "usr/share/zsh/vendor-completions")?;
                tree.copy(
                    &root().join("packaging/debian/copyright"),
                    "usr/share/doc/portcullis/copyright",
                    0o644,
                )?;
            }
            Flavour::Rpm | Flavour::Static => {
                tree.lay_system(parts, "usr/share/zsh/site-functions")?;
                tree.copy_into(&root().join("LICENSE"), documents)?;
            }
        }
        Ok(tree)
    }

    /// What a machine with a service manager and users gets.
    fn lay_system(&self, parts: &Parts, zsh: &str) -> Result<()> {
        let source = root().join("packaging");
        let unit = fs::read_to_string(root().join("host/server/dist/portcullis.service"))?;
        self.write(
            &unit_of_package(&unit),
            "usr/lib/systemd/system/portcullis.service",
            0o644,
        )?;
        for (from, to, mode) in [
            ("sysusers.conf", "usr/lib/sysusers.d/portcullis.conf", 0o644),
            ("tmpfiles.conf", "usr/lib/tmpfiles.d/portcullis.conf", 0o644),
            ("setup.sh", "usr/share/portcullis/setup", 0o755),
        ] {
            self.copy(&source.join(from), to, mode)?;
        }
        for (from, to) in [
            (
                "completion.bash",
                "usr/share/bash-completion/completions/portcullis".to_owned(),
            ),
            ("completion.zsh", format!("{zsh}/_portcullis")),
            (
                "completion.fish",
                "usr/share/fish/vendor_completions.d/portcullis.fish".to_owned(),
            ),
        ] {
            self.copy(&parts.folder.join(from), &to, 0o644)?;
        }
        for section in ["1", "5"] {
            let folder = format!("usr/share/man/man{section}");
            for page in self.copy_all(&parts.folder.join("man"), section, &folder)? {
                gzip(&page)?;
            }
        }

        // The pages, and what they link to, where the links expect them.
        let documents = "usr/share/doc/portcullis";
        for page in [
            "README.md",
            "SECURITY.md",
            "CONTRIBUTING.md",
            "CHANGELOG.md",
        ] {
            self.copy_into(&root().join(page), documents)?;
        }
        for (folder, extension) in [
            ("docs", "md"),
            ("docs", "json"),
            ("docs/console", "png"),
            ("docs/decisions", "md"),
        ] {
            let to = format!("{documents}/{folder}");
            self.copy_all(&root().join(folder), extension, &to)?;
        }
        self.copy(
            &root().join("CHANGELOG.md"),
            "usr/share/doc/portcullis/changelog",
            0o644,
        )?;
        gzip(&self.root.join("usr/share/doc/portcullis/changelog"))?;
        // Examples for Kubernetes, Prometheus and so on.
        let contrib = root().join("contrib");
        if contrib.is_dir() {
            self.copy_tree(&contrib, &format!("{documents}/contrib"))?;
        }
        Ok(())
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    /// Returns the paths of all files, relative to the root, sorted.
    pub(super) fn files(&self) -> Result<Vec<PathBuf>> {
        let mut files = Vec::new();
        walk(&self.root, &mut files)?;
        let mut files: Vec<_> = files
            .iter()
            .filter_map(|file| Some(file.strip_prefix(&self.root).ok()?.to_owned()))
            .collect();
        files.sort();
        Ok(files)
    }

    pub(super) fn write(&self, text: &str, to: &str, mode: u32) -> Result<PathBuf> {
        let to = self.parent_of(to)?;
        fs::write(&to, text).with_context(|| format!("cannot write {}", to.display()))?;
        fs::set_permissions(&to, Permissions::from_mode(mode))?;
        Ok(to)
    }

    pub(super) fn copy(&self, from: &Path, to: &str, mode: u32) -> Result<PathBuf> {
        let to = self.parent_of(to)?;
        fs::copy(from, &to).with_context(|| format!("cannot copy {}", from.display()))?;
        fs::set_permissions(&to, Permissions::from_mode(mode))?;
        Ok(to)
    }

    /// Gives all files the time of the release. The package managers do so for directories.
    pub(super) fn set_times(&self) -> Result<()> {
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(self.epoch);
        let times = FileTimes::new().set_accessed(time).set_modified(time);
        let mut all = Vec::new();
        walk(&self.root, &mut all)?;
        for file in &all {
            File::open(file)?.set_times(times)?;
        }
        Ok(())
    }

    fn copy_into(&self, from: &Path, folder: &str) -> Result<PathBuf> {
        let name = from.file_name().unwrap_or_default().to_string_lossy();
        self.copy(from, &format!("{folder}/{name}"), 0o644)
    }

    /// Copies the files of a directory that have this extension; returns the copies.
    fn copy_all(&self, from: &Path, extension: &str, to: &str) -> Result<Vec<PathBuf>> {
        let files = fs::read_dir(from)
            .with_context(|| format!("cannot read {}", from.display()))?
            .map(|entry| Ok(entry?.path()))
            .collect::<Result<Vec<_>>>()?;
        files
            .iter()
            .filter(|file| file.extension().is_some_and(|found| found == extension))
            .map(|file| self.copy_into(file, to))
            .collect()
    }

    fn copy_tree(&self, from: &Path, to: &str) -> Result<()> {
        let mut files = Vec::new();
        walk(from, &mut files)?;
        for file in files {
            let below = file.strip_prefix(from)?.to_string_lossy();
            self.copy(&file, &format!("{to}/{below}"), 0o644)?;
        }
        Ok(())
    }

    fn parent_of(&self, path: &str) -> Result<PathBuf> {
        let path = self.root.join(path);
        let parent = path.parent().unwrap_or(&path);
        fs::create_dir_all(parent)
            .with_context(|| format!("cannot create {}", parent.display()))?;
        // Whatever the umask.
        for folder in parent
            .ancestors()
            .take_while(|one| one.starts_with(&self.root))
        {
            fs::set_permissions(folder, Permissions::from_mode(0o755))?;
        }
        Ok(path)
    }
}

/// Returns the unit with the paths of a package, and without the instructions for an installation by hand.
fn unit_of_package(unit: &str) -> String {
    let head = "# Portcullis as a service with its own user and the minimum of privileges. To change it: systemctl edit portcullis\n\n";
    let body = unit.find("[Unit]").map_or(unit, |at| &unit[at..]);
    head.to_owned()
        + &body
            .replace("/usr/local/bin/", "/usr/bin/")
            .replace(
                "Description=Portcullis, a SIP edge\n",
                "Description=Portcullis, a SIP edge\nDocumentation=man:portcullis(1) man:portcullis.toml(5)\n",
            )
}

fn walk(folder: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        match path.is_dir() {
            true => walk(&path, files)?,
            false => files.push(path),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_unit_of_a_package_starts_the_binary_of_the_package() {
        let unit = fs::read_to_string(root().join("host/server/dist/portcullis.service"))
            .expect("it is there");
        let unit = unit_of_package(&unit);

        assert!(unit.contains("\nExecStart=/usr/bin/portcullis serve "));
        assert!(unit.contains("\nDocumentation=man:"));
        assert!(!unit.contains("/usr/local"));
        assert!(!unit.contains("useradd"));
    }

    /// With `ProcSubset=pid`, the host would see neither `vm.max_map_count` nor the name of the machine, which the audit and events have.
    #[test]
    fn the_unit_shows_the_host_what_it_reads_of_the_machine() {
        let unit = fs::read_to_string(root().join("host/server/dist/portcullis.service"))
            .expect("it is there");

        assert!(!unit.contains("\nProcSubset="));
        assert!(unit.contains("\nProtectProc=invisible\n"));
    }
}
