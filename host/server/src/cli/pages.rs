//! The commands in the documentation exist, with their options; `docs/commands.md` describes all of them.

use std::fmt::Write as _;
use std::fs;

use clap::{Arg, Command, CommandFactory, Parser};
use portcullis_testkit::documents::{Block, Page};
use portcullis_testkit::root;

use super::Cli;

const INTRODUCTION: &str = "\
# Commands

Every command of `portcullis`, as `--help` describes it; the manual pages (`man portcullis-policy-push`) are made of the same. Commands find the host
by the configuration: they read the file that `--config` names, else `portcullis.toml` in the current directory, else
`/etc/portcullis/portcullis.toml`.
";

/// The page, from the command line itself.
fn page() -> String {
    let mut command = tree();
    let mut page = INTRODUCTION.to_owned();
    write_command(&mut command, "portcullis", &mut page);
    page
}

/// Returns the command line without `help`, which each command has.
fn tree() -> Command {
    let mut command = Cli::command().disable_help_subcommand(true);
    command.build();
    command
}

fn write_command(command: &mut Command, name: &str, page: &mut String) {
    if command.is_hide_set() {
        return;
    }
    writeln!(page, "\n## {name}").unwrap();
    let about = command.get_long_about().or_else(|| command.get_about());
    if let Some(about) = about {
        writeln!(page, "\n{about}").unwrap();
    }
    let usage = command.render_usage().to_string();
    let usage = usage.trim_start_matches("Usage: ");
    writeln!(page, "\n```text\n{usage}\n```").unwrap();
    let arguments = command
        .get_arguments()
        .filter(|argument| !argument.is_hide_set());
    let rows: Vec<_> = arguments
        .filter(|argument| is_its_own(argument, name))
        .map(row)
        .collect();
    if !rows.is_empty() {
        page.push_str("\n| argument | meaning |\n|---|---|\n");
        page.extend(rows);
    }
    let subcommands: Vec<_> = command
        .get_subcommands()
        .filter(|one| !one.is_hide_set())
        .collect();
    if !subcommands.is_empty() {
        page.push_str("\n| command | |\n|---|---|\n");
        for one in subcommands {
            let path = format!("{name} {}", one.get_name());
            let anchor = path.replace(' ', "-");
            let about = one.get_about().map(ToString::to_string).unwrap_or_default();
            writeln!(page, "| [`{path}`](#{anchor}) | {} |", cell(&about)).unwrap();
        }
    }
    let notes = command
        .get_after_long_help()
        .or_else(|| command.get_after_help());
    if let Some(notes) = notes {
        writeln!(page, "\n{notes}").unwrap();
    }
    for one in command.get_subcommands_mut() {
        let path = format!("{name} {}", one.get_name());
        write_command(one, &path, page);
    }
}

/// Whether an argument is worth a row: `--help` and `--config` are the same everywhere.
fn is_its_own(argument: &Arg, command: &str) -> bool {
    let is_everywhere = ["help", "version", "config"].contains(&argument.get_id().as_str());
    !is_everywhere || command == "portcullis"
}

fn row(argument: &Arg) -> String {
    let takes_value = argument.get_action().takes_values();
    let values = argument.get_value_names().unwrap_or_default();
    let value = values
        .iter()
        .map(|value| format!("<{value}>"))
        .collect::<Vec<_>>()
        .join(" ");
    let mut form = match (argument.get_short(), argument.get_long()) {
        (Some(short), Some(long)) => format!("-{short}, --{long}"),
        (None, Some(long)) => format!("--{long}"),
        (Some(short), None) => format!("-{short}"),
        (None, None) => String::new(),
    };
    if takes_value && !value.is_empty() {
        let separator = if form.is_empty() { "" } else { " " };
        form = format!("{form}{separator}{value}");
    }
    let mut meaning = argument
        .get_help()
        .map(ToString::to_string)
        .unwrap_or_default();
    let defaults = argument.get_default_values();
    if takes_value
        && let [default] = defaults
        && !default.is_empty()
    {
        meaning += &format!(" [default: {}]", default.to_string_lossy());
    }
    let possible = argument.get_possible_values();
    if takes_value && !possible.is_empty() {
        let names: Vec<_> = possible
            .iter()
            .map(|value| value.get_name().to_owned())
            .collect();
        meaning += &format!(" [{}]", names.join(", "));
    }
    format!("| `{}` | {} |\n", form.replace('|', "\\|"), cell(&meaning))
}

/// The help is plain text; a table has one line for each row.
fn cell(text: &str) -> String {
    text.replace('\n', " ")
        .replace('|', "\\|")
        .replace('<', "\\<")
        .replace('[', "\\[")
}

#[test]
fn the_page_describes_every_command() {
    let file = root().join("docs/commands.md");
    let page = page();
    if std::env::var_os("PORTCULLIS_WRITE").is_some() {
        fs::write(&file, &page).unwrap();
    }
    assert!(
        fs::read_to_string(&file).unwrap_or_default() == page,
        "docs/commands.md is not what the command line says: PORTCULLIS_WRITE=1 cargo nextest run -p portcullis-server the_page"
    );
}

/// Returns the commands of a line of a shell that begin with `portcullis`, each as words.
fn commands(line: &str) -> Vec<Vec<String>> {
    let mut commands = vec![Vec::new()];
    let mut word = String::new();
    let mut quote = None;
    let end_word = |word: &mut String, commands: &mut Vec<Vec<String>>| {
        if !word.is_empty() {
            let last = commands.last_mut().unwrap();
            last.push(std::mem::take(word));
        }
    };
    for c in line.chars() {
        match (c, quote) {
            (c, Some(open)) if c == open => quote = None,
            (c, Some(_)) => word.push(c),
            ('\'' | '"', None) => quote = Some(c),
            ('#', None) if word.is_empty() => break,
            (' ', None) => end_word(&mut word, &mut commands),
            ('|' | '&' | ';' | '(' | ')' | '>' | '<', None) => {
                end_word(&mut word, &mut commands);
                // What follows `>` or `<` is the name of a file: a command of one word, which is not ours.
                commands.push(Vec::new());
            }
            (c, None) => word.push(c),
        }
    }
    end_word(&mut word, &mut commands);
    let ours = commands.into_iter().filter_map(|words| {
        let at = words.iter().rposition(|word| word == "portcullis")?;
        let before_is_wrapper = words[..at].iter().all(|word| {
            word.contains('=')
                || ["$", "portcullis", "runuser", "-u", "sudo", "--", "exec"]
                    .contains(&word.as_str())
        });
        let has_more = words.len() > at + 1;
        (before_is_wrapper && has_more).then(|| words[at..].to_vec())
    });
    ours.collect()
}

/// Whether a word stands for what the reader writes: `SEAT`, `FILE.wasm`, `[--dry-run]`, `$TAG`.
fn is_placeholder(word: &str) -> bool {
    let letters = word.chars().filter(char::is_ascii_alphabetic);
    let is_upper = word
        .chars()
        .take_while(|c| *c != '.')
        .all(|c| c.is_ascii_uppercase() || c == '-' || c == '_');
    word.contains(['[', ']', '…', '|', '{', '$'])
        || (is_upper && letters.count() > 0 && word != "INVITE" && !word.starts_with('-'))
}

/// Checks the names of the subcommands and options, whatever their values.
fn check_names(words: &[String]) -> Result<(), String> {
    let tree = tree();
    let mut command = &tree;
    let mut is_path = true;
    for word in &words[1..] {
        let word = word.trim_matches(['[', ']', ',', '.', '`']);
        if let (true, Some(below)) = (is_path, command.find_subcommand(word)) {
            command = below;
            continue;
        }
        let is_group = command.has_subcommands();
        if is_path && is_group && !word.starts_with(['-', '…']) && !word.is_empty() {
            return Err(format!("`{}` has no command `{word}`", command.get_name()));
        }
        is_path = false;
        let Some(option) = word.strip_prefix("--") else {
            continue;
        };
        let option = option.split('=').next().unwrap_or_default();
        let is_known = command
            .get_arguments()
            .any(|argument| argument.get_long() == Some(option));
        if !option.is_empty() && !is_known && !["help", "version"].contains(&option) {
            return Err(format!("`{}` has no option --{option}", command.get_name()));
        }
    }
    Ok(())
}

fn check(words: &[String]) -> Result<(), String> {
    check_names(words)?;
    if words.iter().any(|word| is_placeholder(word)) {
        return Ok(());
    }
    match Cli::try_parse_from(words) {
        Err(error) if error.use_stderr() => Err(error.to_string()),
        Ok(_) | Err(_) => Ok(()),
    }
}

/// The lines of a block that may be commands, with lines that end in a backslash joined.
fn lines(block: &Block) -> Vec<String> {
    let is_shell = ["", "sh", "console"].contains(&block.language());
    let text = block.text.replace("\\\n", " ");
    let lines = text.lines().filter(|_| is_shell);
    let trimmed = lines.map(|line| line.strip_prefix("$ ").unwrap_or(line));
    trimmed.map(str::to_owned).collect()
}

fn note(place: &str, words: &[String], checked: Result<(), String>, wrong: &mut Vec<String>) {
    if let Err(error) = checked {
        wrong.push(format!("{place}: {}: {error}", words.join(" ")));
    }
}

#[test]
fn commands_in_the_documentation_exist() {
    let mut wrong = Vec::new();
    let mut count = 0;
    // Releases that are past had other commands.
    let pages = Page::all()
        .into_iter()
        .filter(|page| page.name() != "CHANGELOG.md");
    for page in pages {
        for block in page.blocks() {
            for words in lines(&block).iter().flat_map(|line| commands(line)) {
                count += 1;
                note(block.place(), &words, check(&words), &mut wrong);
            }
        }
        // Within a sentence, a command may lack its arguments.
        for (place, code) in page.code_in_lines() {
            for words in commands(&code) {
                count += 1;
                note(&place, &words, check_names(&words), &mut wrong);
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(count > 200, "{count}");
}

#[test]
fn commands_are_found_in_lines_of_a_shell() {
    let words = |line: &str| commands(line);
    assert_eq!(
        words("portcullis check && systemctl restart portcullis"),
        [["portcullis", "check"]]
    );
    assert_eq!(
        words("TOKEN=a portcullis policy list 'a b' # now"),
        [["portcullis", "policy", "list", "a b"]]
    );
    assert!(words("journalctl -u portcullis -o cat | grep a").is_empty());
    assert!(check(&words("portcullis policy push SEAT FILE.wasm --shadw")[0]).is_err());
    assert!(check(&words("portcullis adress show")[0]).is_err());
    assert!(check(&words("portcullis address add two 192.0.2.1")[0]).is_err());
    assert!(check(&words("portcullis address add GROUP IP [MASK [PORT [TAG]]]")[0]).is_ok());
}
