//! Which host a subcommand speaks to, if it does.

use std::path::PathBuf;

use anyhow::bail;

/// What a subcommand works on that does not speak to the running host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::cli) enum Elsewhere {
    /// The database of the configuration.
    Database,
    /// Files of this machine.
    Files,
    /// A registry.
    Registry,
}

/// Subcommands of which some speak to the running host.
pub(in crate::cli) trait Reaching {
    /// The name of the subcommand and what it works on, if it does not speak to the host.
    fn elsewhere(&self) -> Option<(&'static str, Elsewhere)>;
}

/// Where the control port of the running host is, if not where the configuration says.
#[derive(Clone, Debug, Default, clap::Args)]
pub(in crate::cli) struct Reach {
    /// The control port, such as https://edge.example.com:8060 [default: PORTCULLIS_URL, or that of the configuration]
    #[arg(long, global = true, value_name = "URL")]
    pub(super) url: Option<String>,
    /// Certificates to trust with https, in PEM [default: PORTCULLIS_CA, `certificate` of the configuration for its own port, or those of the system]
    #[arg(long, global = true, value_name = "FILE")]
    pub(super) ca: Option<PathBuf>,
}

/// Subcommands that may speak to the running host.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Remote<C: clap::Subcommand> {
    #[command(subcommand)]
    command: C,
    #[command(flatten)]
    reach: Reach,
}

impl<C: clap::Subcommand + Reaching> Remote<C> {
    /// The subcommand, and where the host is.
    ///
    /// # Errors
    /// If `--url` or `--ca` is given to a subcommand that does not speak to the host: it would have no effect.
    pub(in crate::cli) fn checked(self) -> anyhow::Result<(C, Reach)> {
        let Self { command, reach } = self;
        let option = match (&reach.url, &reach.ca) {
            (Some(_), _) => "--url",
            (None, Some(_)) => "--ca",
            (None, None) => return Ok((command, reach)),
        };
        let Some((name, place)) = command.elsewhere() else {
            return Ok((command, reach));
        };
        let reason = match (place, option) {
            (Elsewhere::Database, _) => {
                "it works on the database of the configuration (`url` in [database], or PORTCULLIS_DATABASE_URL)"
            }
            (Elsewhere::Files, _) => "it does not speak to a running host",
            (Elsewhere::Registry, "--ca") => {
                "it is for the control port; SSL_CERT_FILE names the authorities for registries"
            }
            (Elsewhere::Registry, _) => "it speaks to the registry that oci://HOST names",
        };
        bail!("{option} does not apply to `{name}`: {reason}")
    }
}
