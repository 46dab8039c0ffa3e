//! `portcullis man`: manual pages.

mod configuration;
mod parts;

use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap_mangen::Man;
use clap_mangen::roff::{Roff, roman};
use portcullis_config::DEFAULTS;

use self::parts::{reference, source};
use super::print::{clean, stdout};

#[derive(Debug, clap::Args)]
#[command(after_help = "To read a page: portcullis man pages && man pages/portcullis.1")]
pub(super) struct Args {
    /// The directory for the pages, which is created if it does not exist
    #[arg(value_name = "DIR")]
    folder: PathBuf,
}

pub(super) fn run(args: &Args, command: clap::Command) -> anyhow::Result<ExitCode> {
    let folder = &args.folder;
    let shown = folder.display();
    fs::create_dir_all(folder).with_context(|| format!("cannot create {shown}"))?;
    let pages = pages(command)?;
    for Page { name, text } in &pages {
        fs::write(folder.join(name), text)
            .with_context(|| format!("cannot write {}", folder.join(name).display()))?;
    }
    let text = format!("{} pages in {shown}", pages.len());
    writeln!(stdout(), "{}", clean(&text))?;
    Ok(ExitCode::SUCCESS)
}

/// A manual page in roff.
struct Page {
    /// The name of the file.
    name: String,
    text: Vec<u8>,
}

/// Returns the page of each command that is not hidden, and that of the configuration file.
fn pages(command: clap::Command) -> anyhow::Result<Vec<Page>> {
    let mut command = command.disable_help_subcommand(true);
    command.build();
    let mut pages = vec![Page {
        name: "portcullis.toml.5".to_owned(),
        text: configuration::page(DEFAULTS).into_bytes(),
    }];
    add_page(&command, None, &mut pages)?;
    Ok(pages)
}

/// Adds the page of a command, and those of its subcommands. `parent` is the name of the page of the command above.
fn add_page(
    command: &clap::Command,
    parent: Option<&str>,
    pages: &mut Vec<Page>,
) -> anyhow::Result<()> {
    let man = Man::new(command.clone())
        .source(source())
        .manual("Portcullis");
    let name = man.get_filename();
    let title = command
        .get_display_name()
        .unwrap_or_else(|| command.get_name());

    let mut text = Vec::new();
    man.render_title(&mut text)?;
    man.render_name_section(&mut text)?;
    man.render_synopsis_section(&mut text)?;
    man.render_description_section(&mut text)?;
    man.render_options_section(&mut text)?;
    if command
        .get_subcommands()
        .any(|command| !command.is_hide_set())
    {
        man.render_subcommands_section(&mut text)?;
    }
    if let Some(notes) = command
        .get_after_long_help()
        .or_else(|| command.get_after_help())
    {
        text.write_all(notes_section(&notes.to_string()).as_bytes())?;
    }
    text.write_all(see_also(parent).as_bytes())?;
    pages.push(Page { name, text });

    command
        .get_subcommands()
        .filter(|command| !command.is_hide_set())
        .try_for_each(|command| add_page(command, Some(title), pages))
}

/// What is printed after the help, line by line.
fn notes_section(notes: &str) -> String {
    let mut roff = Roff::new();
    roff.control("SH", ["NOTES"]);
    for line in notes.lines() {
        roff.text([roman(line)]);
        roff.control("br", []);
    }
    roff.render()
}

fn see_also(parent: Option<&str>) -> String {
    let mut roff = Roff::new();
    roff.control("SH", ["SEE ALSO"]);
    let mut line = parent
        .map(|parent| reference(parent, "1"))
        .unwrap_or_default();
    if !line.is_empty() {
        line.push(roman(", "));
    }
    line.extend(reference("portcullis.toml", "5"));
    roff.text(line);
    roff.render()
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;
    use crate::cli::Cli;

    #[test]
    fn each_command_has_a_page_and_the_hidden_one_has_none() {
        let pages = pages(Cli::command()).unwrap();
        let names: Vec<_> = pages.iter().map(|page| page.name.as_str()).collect();

        for name in [
            "portcullis.1",
            "portcullis-serve.1",
            "portcullis-address-add.1",
            "portcullis-policy-push.1",
            "portcullis.toml.5",
        ] {
            assert!(names.contains(&name), "{name}");
        }
        assert!(!names.iter().any(|name| name.contains("compile")));
        assert!(!names.iter().any(|name| name.contains("help")));
    }

    #[test]
    fn pages_say_the_version_and_where_to_read_on() {
        let pages = pages(Cli::command()).unwrap();
        for page in &pages {
            let text = String::from_utf8(page.text.clone()).unwrap();

            assert!(text.contains(&source()), "{}", page.name);
            assert!(text.contains(".SH \"SEE ALSO\""), "{}", page.name);
        }
    }
}
