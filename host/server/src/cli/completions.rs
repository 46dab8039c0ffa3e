//! `portcullis completions`: what a shell needs to complete the command line.

use std::io::Write;
use std::process::ExitCode;

use clap_complete::Shell;

use super::print::stdout;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
bash: portcullis completions bash > ~/.local/share/bash-completion/completions/portcullis
zsh:  portcullis completions zsh > DIRECTORY/_portcullis, with a directory of $fpath
fish: portcullis completions fish > ~/.config/fish/completions/portcullis.fish")]
pub(super) struct Args {
    /// The shell
    shell: Shell,
}

pub(super) fn run(args: &Args, mut command: clap::Command) -> anyhow::Result<ExitCode> {
    // The generator panics if it cannot write, so that it writes to memory first.
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut command, "portcullis", &mut script);
    stdout().write_all(&script)?;
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, ValueEnum};

    use super::*;
    use crate::cli::Cli;

    #[test]
    fn each_shell_completes_the_subcommands_but_not_the_hidden_one() {
        for &shell in Shell::value_variants() {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "portcullis", &mut script);
            let script = String::from_utf8(script).unwrap();

            assert!(script.contains("migrate"), "{shell}");
        }
    }
}
