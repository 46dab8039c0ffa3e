//! `portcullis rules …`: Kamailio's allow and deny files, and the rules of the running host.

use std::io::Write;
use std::process::ExitCode;

use anyhow::bail;
use portcullis_config::Config;
use portcullis_control::commands::permissions::Permission;
use portcullis_control::commands::rules::RulesReload;
use serde_json::json;

use super::check_tables;
use super::client::{Client, Elsewhere, Reach, Reaching};
use super::findings::{Finding, write_answered};
use super::print::{Format, clean, count, stdout, write_json};

#[derive(Debug, clap::Subcommand)]
pub(super) enum RulesCommand {
    /// Read the allow and deny files, without a running host, and list unusable lines
    Check(Format),
    /// Reload the allow and deny files of the running host, and list unusable lines
    ///
    /// The host reloads them automatically when a file changes. This command waits for the reload.
    Reload,
    /// Ask the running host whether the files allow a pair of texts, as Kamailio's permissions.allowUri does
    Test {
        /// The pair of files, without `.allow` and `.deny`
        basename: String,
        /// The text for the left patterns: a From URI or a To URI
        uri: String,
        /// The text for the right patterns: a request URI or a Contact
        contact: String,
        #[command(flatten)]
        format: Format,
    },
}

impl Reaching for RulesCommand {
    fn elsewhere(&self) -> Option<(&'static str, Elsewhere)> {
        match self {
            Self::Check(_) => Some(("rules check", Elsewhere::Files)),
            Self::Reload | Self::Test { .. } => None,
        }
    }
}

impl RulesCommand {
    pub(super) fn run(self, config: &Config, reach: &Reach) -> anyhow::Result<ExitCode> {
        let out = &mut stdout();
        match self {
            Self::Check(format) => return check(config, format, out),
            Self::Reload => reload(&Client::new(config, reach)?, out)?,
            Self::Test {
                basename,
                uri,
                contact,
                format,
            } => {
                let asked = json!([basename, uri, contact]);
                let client = Client::new(config, reach)?;
                let answer: Permission = client.call("permissions.allowUri", asked)?;
                match format.json {
                    true => write_json(out, &answer)?,
                    false => writeln!(out, "{answer}")?,
                }
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn check(config: &Config, format: Format, out: &mut impl Write) -> anyhow::Result<ExitCode> {
    if config.permissions.folder.as_os_str().is_empty() {
        bail!("no files are configured: set `folder` in [permissions] to their directory");
    }
    let mut code = ExitCode::SUCCESS;
    let findings = check_tables::rules(config);
    if format.json {
        let is_wrong =
            |finding: &Finding| matches!(finding, Finding::Skipped(_) | Finding::Wrong(_));
        if findings.iter().any(is_wrong) {
            code = ExitCode::FAILURE;
        }
        let findings = findings.iter().map(Finding::as_json);
        write_json(out, &findings.collect::<Vec<_>>())?;
        return Ok(code);
    }
    for finding in findings {
        match finding {
            Finding::Good(text) => writeln!(out, "{}", clean(&text))?,
            Finding::Odd(text) => writeln!(out, "warning: {}", clean(&text))?,
            Finding::Skipped(text) | Finding::Wrong(text) => {
                writeln!(out, "error: {}", clean(&text))?;
                code = ExitCode::FAILURE;
            }
        }
    }
    Ok(code)
}

fn reload(client: &Client, out: &mut impl Write) -> anyhow::Result<()> {
    let RulesReload { status, rules } = client.call("rules.reload", json!([]))?;
    writeln!(
        out,
        "{status}: {}, generation {}, {} ms",
        count(rules.files, "file"),
        rules.generation,
        rules.took_ms
    )?;
    for set in &rules.sets {
        writeln!(out, "  {}", clean(set))?;
    }
    Ok(write_answered(
        "line",
        (rules.skipped, &rules.errors),
        (0, &[]),
        out,
    )?)
}
