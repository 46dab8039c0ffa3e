//! `portcullis config`: what editors need of the configuration file.

use std::io::Write;
use std::process::ExitCode;

use super::print::stdout;

#[derive(Debug, clap::Subcommand)]
pub(super) enum ConfigCommand {
    /// Print the JSON Schema of the configuration file: keys, values, defaults and their meaning
    // The example would be taken for Rust in a doc comment.
    #[command(
        long_about = "Print the JSON Schema of the configuration file: keys, values, defaults and their meaning\n\n\
            Editors with Taplo complete and check a file whose first line names it:\n\n    \
            #:schema file:///usr/share/portcullis/portcullis.schema.json"
    )]
    Schema,
}

impl ConfigCommand {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        match self {
            Self::Schema => {
                let schema = serde_json::to_string_pretty(&portcullis_config::schema())?;
                writeln!(stdout(), "{schema}")?;
                Ok(ExitCode::SUCCESS)
            }
        }
    }
}
