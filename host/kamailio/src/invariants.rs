//! Properties of every kamailio.cfg, as assertions that property tests and the fuzz target share.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};

use portcullis_config::Config;

use crate::{Finding, Surroundings, import as translate, script};

/// Imports a configuration: what precedes the first zero byte is kamailio.cfg, what follows are the files a.cfg, b.cfg and so on that it may
/// include. Panics if the result is no configuration of ours, a finding is not in these files, or the policy has a line that ends a comment.
pub fn import(text: &str) {
    let machine = Imagined {
        files: text.split('\0').collect(),
    };
    let main = Path::new("/etc/kamailio/kamailio.cfg");
    let defines = [("WITH_AUTH".to_owned(), String::new())];
    let import = translate(main, &defines, &machine).expect("the file is there");
    let read = Config::parse(&import.text);
    assert!(read.is_ok(), "{}\n{read:?}", import.text);
    assert!(import.taken <= import.text.lines().count());
    check_places(&import.findings, &machine);
    let again = translate(main, &defines, &machine).expect("the file is there");
    assert_eq!(again.text, import.text);
    assert_eq!(again.findings, import.findings);

    let policy = script(main, &defines, &machine).expect("the file is there");
    check_places(&policy.findings, &machine);
    assert!(policy.left <= policy.findings.len());
    let controls = policy.source.chars().filter(|c| c.is_control());
    assert!(controls.clone().all(|c| c == '\n'), "{}", policy.source);
    let again = script(main, &defines, &machine).expect("the file is there");
    assert_eq!(again.source, policy.source);
}

fn check_places(findings: &[Finding], machine: &Imagined<'_>) {
    for finding in findings {
        assert!(!finding.what.is_empty(), "{finding:?}");
        let Some(place) = &finding.place else {
            continue;
        };
        let text = machine.read(&place.file).expect("a file that was read");
        let lines = text.matches('\n').count() + 1;
        assert!((1..=lines).contains(&place.line), "{finding:?}");
    }
}

/// A machine with these files.
struct Imagined<'t> {
    files: Vec<&'t str>,
}

impl Surroundings for Imagined<'_> {
    fn read(&self, path: &Path) -> io::Result<String> {
        let names = ["kamailio", "a", "b", "c", "d"];
        let named = |name: &str| PathBuf::from(format!("/etc/kamailio/{name}.cfg"));
        let number = names.iter().position(|name| named(name) == path);
        let text = number.and_then(|number| self.files.get(number));
        text.map(|text| (*text).to_owned())
            .ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn interface(&self, name: &str) -> Vec<IpAddr> {
        match name {
            "eth0" => vec![
                Ipv4Addr::new(192, 0, 2, 5).into(),
                Ipv6Addr::from_bits(0xfe80_u128 << 112 | 5).into(),
            ],
            _ => Vec::new(),
        }
    }

    fn resolve(&self, name: &str) -> Vec<IpAddr> {
        match name {
            "edge.example.com" => vec![Ipv4Addr::new(192, 0, 2, 7).into()],
            _ => Vec::new(),
        }
    }

    fn variable(&self, name: &str) -> Option<String> {
        (name == "DB_HOST").then(|| "db.example.com".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_and_their_beginnings_are_imported() {
        let seeds = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus/kamailio_cfg");
        let seeds: Vec<_> = std::fs::read_dir(seeds).unwrap().collect();
        assert!(seeds.len() >= 4);
        for seed in seeds {
            let text = std::fs::read_to_string(seed.unwrap().path()).unwrap();
            for end in (0..text.len()).filter(|end| text.is_char_boundary(*end)) {
                import(&text[..end]);
            }
            import(&text);
        }
    }
}
