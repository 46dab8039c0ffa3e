//! Other programs that are needed: installed on Debian when root, and listed elsewhere.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::sync::Once;

use anyhow::{Context, Result, bail};

use crate::process::{capture, find, library_file, run};

/// A program or file that is needed, and the Debian package that contains it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Need {
    /// A program, or, with a slash in it, a file below the system's library directories.
    pub(crate) name: &'static str,
    pub(crate) package: &'static str,
}

/// The programs that start a MariaDB server and connect to it.
pub(crate) const MARIADB: [Need; 3] = [
    Need {
        name: "mariadbd",
        package: "mariadb-server",
    },
    Need {
        name: "mariadb-install-db",
        package: "mariadb-server",
    },
    Need {
        name: "mariadb",
        package: "mariadb-client",
    },
];

/// A cluster of MariaDB, and how its nodes take their state from each other.
pub(crate) const GALERA: [Need; 2] = [
    Need {
        name: "galera/libgalera_smm.so",
        package: "galera-4",
    },
    Need {
        name: "rsync",
        package: "rsync",
    },
];

/// What hosts count together goes through it.
pub(crate) const REDIS: Need = Need {
    name: "redis-server",
    package: "redis-server",
};

/// A name server whose zones change.
pub(crate) const KNOT: Need = Need {
    name: "knotd",
    package: "knot",
};

/// Checks that everything is installed, and installs what is missing if possible.
///
/// # Errors
/// If something is missing and cannot be installed. The error names it and how to install it.
pub(crate) fn require(needs: &[Need]) -> Result<()> {
    let is_missing = |need: &&Need| match need.name.contains('/') {
        true => library_file(need.name).is_none(),
        false => find(need.name).is_none(),
    };
    let missing: Vec<_> = needs.iter().filter(is_missing).copied().collect();
    if missing.is_empty() {
        return Ok(());
    }

    let names = list(missing.iter().map(|need| need.name));
    let packages: Vec<_> = unique(missing.iter().map(|need| need.package));
    if !can_install() {
        bail!(
            "{names}: not found. On Debian: `{}` (or run this command as root, which does it by itself)",
            install_line(&packages)
        );
    }
    install(&packages)
        .with_context(|| format!("{names}: not found, and could not be installed"))?;
    match missing.iter().find(is_missing) {
        Some(Need { name, package }) => {
            bail!("package {package} is installed, but brought no {name}")
        }
        None => Ok(()),
    }
}

/// Whether this is Debian or a derivative, and packages can be installed.
pub(crate) fn can_install() -> bool {
    find("apt-get").is_some() && is_root()
}

/// Installs packages without prompts, without removing any, and without starting services.
pub(crate) fn install(packages: &[&str]) -> Result<()> {
    static UPDATE: Once = Once::new();
    // The existing package lists may be enough: offline, or if the mirror lacks an index, the installation itself reports the error.
    UPDATE.call_once(|| {
        if let Err(error) = run(apt_get().arg("update")) {
            eprintln!("warning: {error:#}");
        }
    });

    let _quiet = NoServices::new()?;
    run(apt_get()
        .args(["--yes", "--no-install-recommends", "--no-remove", "install"])
        .args(packages))
}

/// Returns the command that installs packages.
pub(crate) fn install_line(packages: &[&str]) -> String {
    format!("apt-get install {}", packages.join(" "))
}

fn apt_get() -> Command {
    let mut command = Command::new("apt-get");
    command
        .env("DEBIAN_FRONTEND", "noninteractive")
        .args(["--quiet", "--option=Dpkg::Use-Pty=0"]);
    command
}

fn is_root() -> bool {
    capture(Command::new("id").arg("-u")).is_ok_and(|id| id.trim() == "0")
}

fn unique<'a>(items: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let mut items: Vec<_> = items.collect();
    items.sort_unstable();
    items.dedup();
    items
}

fn list<'a>(items: impl Iterator<Item = &'a str>) -> String {
    items.collect::<Vec<_>>().join(", ")
}

/// While this exists, packages do not start their services. A rule of another program is left alone.
struct NoServices {
    ours: bool,
}

impl NoServices {
    fn new() -> Result<Self> {
        if Path::new(RULE).exists() {
            return Ok(Self { ours: false });
        }
        let guard = Self { ours: true };
        fs::write(RULE, "#!/bin/sh\nexit 101\n").with_context(|| format!("cannot write {RULE}"))?;
        File::open(RULE)?.set_permissions(Permissions::from_mode(0o755))?;
        Ok(guard)
    }
}

impl Drop for NoServices {
    fn drop(&mut self) {
        if self.ours
            && let Err(error) = fs::remove_file(RULE)
        {
            eprintln!(
                "warning: cannot remove {RULE}, which keeps packages from starting their services: {error}"
            );
        }
    }
}

const RULE: &str = "/usr/sbin/policy-rc.d";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn installed_programs_are_not_installed_again() {
        require(&[Need {
            name: "sh",
            package: "no-such-package",
        }])
        .expect("sh is there");
        assert!(library_file("no-such-folder/no-such.so").is_none());
    }

    #[test]
    fn a_package_is_named_once() {
        assert_eq!(unique(["b", "a", "b"].into_iter()), ["a", "b"]);
    }
}
