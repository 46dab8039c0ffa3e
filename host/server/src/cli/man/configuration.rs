//! portcullis.toml(5), from the file with all keys and their defaults.

use clap_mangen::roff::{Roff, bold, roman};
use portcullis_config::documentation::{Item, items};

use super::parts::{reference, source};

/// Returns the page for a configuration file in which comments describe the keys below them.
pub(super) fn page(defaults: &str) -> String {
    let mut roff = Roff::new();
    roff.control(
        "TH",
        ["portcullis.toml", "5", "", source().as_str(), "Portcullis"],
    );
    roff.control("SH", ["NAME"]);
    roff.text([roman("portcullis.toml - configuration of portcullis")]);
    roff.control("SH", ["DESCRIPTION"]);
    for paragraph in INTRODUCTION {
        roff.text([roman(paragraph)]);
        roff.control("PP", []);
    }
    for item in items(defaults) {
        write(&item, &mut roff);
    }
    roff.control("SH", ["FILES"]);
    for (file, meaning) in FILES {
        roff.control("TP", []);
        roff.text([bold(file)]);
        roff.text([roman(meaning)]);
    }
    roff.control("SH", ["SEE ALSO"]);
    let mut line = reference("portcullis", "1");
    line.push(roman(", "));
    line.extend(reference("portcullis-check", "1"));
    roff.text(line);
    roff.render()
}

const INTRODUCTION: [&str; 1] = [
    "The configuration of a host, in TOML. `portcullis check` reports every error in it; `portcullis check --defaults` prints this page as a file.",
];

const FILES: [(&str, &str); 2] = [
    ("./portcullis.toml", "is read if no file is named."),
    (
        "/etc/portcullis/portcullis.toml",
        "is read if the current directory has none.",
    ),
];

fn write(item: &Item<'_>, roff: &mut Roff) {
    match item {
        Item::Remark(text) => {
            roff.text([roman(text)]);
            roff.control("PP", []);
        }
        Item::Section(name, text) => {
            roff.control("SH", [*name]);
            roff.text([roman(text)]);
        }
        Item::Keys(keys, text) => {
            for (at, key) in keys.iter().enumerate() {
                roff.control(if at == 0 { "TP" } else { "TQ" }, []);
                roff.text([bold(key.text)]);
            }
            roff.text([roman(text)]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_line_of_text_is_taken_for_a_request_of_roff() {
        let page = page("# 'quoted' and\n# .dotted \\ text\nkey = '.'\n");

        assert!(!page.contains("\n'quoted"), "{page}");
        assert!(!page.contains("\n.dotted"), "{page}");
    }
}
