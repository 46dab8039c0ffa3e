//! The configuration file of the packages.

use anyhow::{Result, bail};

use super::flavour::Flavour;

/// Returns the file with all keys, in which a key that has its default is a comment, so that later defaults apply without a change of the file.
pub(super) fn of_package(defaults: &str, flavour: Flavour) -> Result<String> {
    let overrides = overrides(flavour);
    let mut text = HEAD.to_owned();
    let mut section = "";
    let mut applied = 0;
    // The first paragraph says what the file of defaults is.
    let keys = defaults
        .split_once("\n\n")
        .map_or(defaults, |(_, keys)| keys);
    for line in keys.lines() {
        if line.starts_with('[') {
            section = line;
        }
        let chosen = overrides
            .iter()
            .find(|(of, key, _)| *of == section && line.starts_with(&format!("{key} = ")));
        match chosen {
            Some((_, key, value)) => {
                applied += 1;
                text += &format!("{key} = {value}\n");
            }
            None if line.is_empty() || line.starts_with(['#', '[']) => {
                text += line;
                text.push('\n');
            }
            None => text += &format!("#{line}\n"),
        }
    }
    if applied != overrides.len() {
        bail!("the defaults lack a key that packages set: {overrides:?}");
    }
    Ok(text)
}

const HEAD: &str = "\
#:schema file:///usr/share/portcullis/portcullis.schema.json
#
# Portcullis: the configuration of this host. See portcullis.toml(5), and `portcullis check` for every error in this file.
# A line that begins with # and a key is the default of that key: remove the # to change it.
# Relative paths start in /var/lib/portcullis for the service, and in the current directory for commands: write absolute paths.
# Durations have a unit: us, ms, s, m, h. So do sizes: B, KiB, MiB, GiB. \"\" means none, unless the comment of a key says otherwise.
# Policies to begin with are in /usr/share/portcullis/policies.

";

/// Keys with other values than the defaults: section, key and value. A service has paths of its own, and a container is reached from outside.
fn overrides(flavour: Flavour) -> Vec<(&'static str, &'static str, &'static str)> {
    let mut overrides = vec![
        (
            "[database]",
            "url",
            "\"sqlite:/var/lib/portcullis/portcullis.db\"",
        ),
        (
            "[control]",
            "token-file",
            "\"/var/lib/portcullis/portcullis.token\"",
        ),
    ];
    match flavour {
        Flavour::Debian | Flavour::Rpm | Flavour::Static => {}
        Flavour::Image => {
            overrides.push(("", "listen", "[\"udp:0.0.0.0:5060\", \"tcp:0.0.0.0:5060\"]"));
        }
    }
    overrides
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::workspace::root;

    fn defaults() -> String {
        fs::read_to_string(root().join("host/config/src/defaults.toml")).expect("it is there")
    }

    #[test]
    fn only_what_differs_from_the_defaults_is_set() {
        let text = of_package(&defaults(), Flavour::Debian).expect("a configuration");
        let table: toml::Table = text.parse().expect("TOML");

        let set: Vec<_> = table
            .iter()
            .filter_map(|(section, value)| Some((section, value.as_table()?)))
            .flat_map(|(section, keys)| keys.iter().map(move |(key, value)| (section, key, value)))
            .filter(|(_, _, value)| !value.is_table())
            .map(|(section, key, value)| format!("{section}.{key} = {value}"))
            .collect();
        assert_eq!(
            set,
            [
                "control.token-file = \"/var/lib/portcullis/portcullis.token\"",
                "database.url = \"sqlite:/var/lib/portcullis/portcullis.db\"",
            ]
        );
        assert!(text.starts_with("#:schema file:///usr/share/portcullis/portcullis.schema.json\n"));
        assert!(text.contains("\n#workers = \"auto\"\n"));
        assert!(!table.contains_key("listen"));
    }

    #[test]
    fn a_container_listens_to_the_network() {
        let text = of_package(&defaults(), Flavour::Image).expect("a configuration");

        assert!(text.contains("\nlisten = [\"udp:0.0.0.0:5060\""));
    }

    #[test]
    fn a_key_that_is_gone_is_an_error() {
        assert!(of_package("# A\n\n[control]\n", Flavour::Debian).is_err());
    }
}
