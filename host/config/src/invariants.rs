//! Properties of every text, as assertions that property tests and fuzz targets share.
//!
//! Each function panics when its property does not hold.

use std::sync::OnceLock;

use crate::config::Config;
use crate::problem::Problem;
use crate::token::without_secret;

/// Reads a configuration file. What is accepted reads the same when it is written by another program.
pub fn config(text: &str) {
    let (config, problems) = Config::parse_as_far_as_possible(text);
    assert_eq!(
        (&config, &problems),
        (&Config::parse_as_far_as_possible(text).0, &problems),
        "a file reads the same twice"
    );
    explained(text, &problems);
    if problems.is_empty() {
        assert_eq!(Config::parse(&written(&table(text))), Ok(config));
    }
}

/// Reads a tenant of the database. What is accepted reads the same as it is stored, and as a section of the configuration file.
pub fn tenant(text: &str) {
    let host = host();
    let others = &host.tenants;
    let parsed = host.parse_tenant(NAME, text, others);
    assert_eq!(parsed, host.parse_tenant(NAME, text, others));
    let tenant = match parsed {
        Ok(tenant) => tenant,
        Err(problems) => {
            assert!(!problems.is_empty());
            return explained(text, &problems);
        }
    };
    let stored = without_secret(text, tenant.token.as_ref());
    let again = host.parse_tenant(NAME, &stored, others);
    assert_eq!(again.as_ref(), Ok(&tenant), "{stored}");
    let kept = again.ok().and_then(|tenant| tenant.token);
    assert!(kept.is_none_or(|token| token.secret().is_none()));

    let mut file = table(HOST);
    let tenants = file.get_mut("tenants").and_then(toml::Value::as_table_mut);
    let tenants = tenants.expect("the host has tenants");
    tenants.insert(NAME.to_owned(), table(text).into());
    let config = Config::parse(&written(&file)).expect("a section like that of the database");
    assert!(
        config.tenants.iter().any(|one| **one == tenant),
        "{config:?}"
    );
}

/// The tenant that is read.
const NAME: &str = "acme";

/// The configuration of a host that reads tenants of the database.
const HOST: &str = r#"
listen = ["udp:0.0.0.0:5060", "tcp:127.0.0.1:5060"]
[control]
token = "0123456789abcdef"
[relay.next-hops]
pstn = "sip:192.0.2.80:5080"
backup = "sip:backup.example.net;transport=tcp"
[tenants.other]
uri-domains = ["other.example"]
from-domains = ["*.other.example"]
source-groups = [7]
local = ["udp:192.0.2.7:5060"]
token = "fedcba9876543210"
"#;

fn host() -> &'static Config {
    static READ: OnceLock<Config> = OnceLock::new();
    READ.get_or_init(|| Config::parse(HOST).expect("a configuration"))
}

fn table(text: &str) -> toml::Table {
    text.parse().expect("what is accepted is TOML")
}

fn written(table: &toml::Table) -> String {
    toml::to_string(table).expect("a table can be written")
}

/// Every problem is a sentence about a place in the text, in the order of the lines.
fn explained(text: &str, problems: &[Problem]) {
    let lines: Vec<&str> = text.split('\n').collect();
    for problem in problems {
        assert!(!problem.what.is_empty());
        let line = problem.line.checked_sub(1).and_then(|line| lines.get(line));
        let line = line.unwrap_or_else(|| panic!("{problem:?} is not in the text"));
        let before = problem.column.checked_sub(1).expect("columns begin at 1");
        assert!(before <= line.chars().count(), "{problem:?}");
        let rest: String = line.chars().skip(before).collect();
        let shown = &problem.value;
        let is_there = [
            Some(shown.as_str()),
            shown.strip_suffix('…'),
            shown.strip_suffix(" …"),
        ]
        .into_iter()
        .flatten()
        .any(|shown| rest.starts_with(shown));
        assert!(is_there, "{problem:?} in {rest:?}");
    }
    assert!(problems.is_sorted_by_key(|problem| (problem.line, problem.column)));
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use proptest::prelude::*;
    use proptest::sample::select;

    use super::*;

    fn seeds(target: &str, each: fn(&str)) -> Vec<String> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus");
        let seeds = std::fs::read_dir(folder.join(target)).unwrap();
        let texts: Vec<_> = seeds
            .map(|seed| std::fs::read_to_string(seed.unwrap().path()).unwrap())
            .collect();
        assert!(!texts.is_empty());
        for text in &texts {
            for (end, _) in text.char_indices() {
                each(&text[..end]);
            }
            each(text);
        }
        texts
    }

    #[test]
    fn seeds_of_configurations_and_their_beginnings_are_read_or_explained() {
        config(crate::DEFAULTS);
        let texts = seeds("config", config);
        assert!(texts.iter().any(|text| Config::parse(text).is_ok()));
    }

    #[test]
    fn seeds_of_tenants_and_their_beginnings_are_read_or_explained() {
        let texts = seeds("tenant_toml", tenant);
        let is_read = |text: &String| host().parse_tenant(NAME, text, &host().tenants).is_ok();
        assert!(texts.iter().filter(|text| is_read(text)).count() >= 3);
    }

    #[test]
    fn a_setting_beyond_64_bits_is_a_problem() {
        for number in [
            "9223372036854775808",
            "-9223372036854775809",
            "0x8000000000000000",
        ] {
            let text = format!("source-groups = [1]\n[settings.a]\nb = [1, {number}]\n");
            tenant(&text);
            let problems = host().parse_tenant(NAME, &text, &[]).unwrap_err();
            assert_eq!(
                (problems.len(), problems[0].line, problems[0].column),
                (1, 3, 9)
            );
            assert_eq!(problems[0].key, "settings.a.b[1]");
        }
        let text = "source-groups = [1]\n[settings]\na = [9223372036854775807, -0, +5, 0xff]\n";
        tenant(text);
        assert!(host().parse_tenant(NAME, text, &[]).is_ok());
    }

    #[test]
    fn a_setting_that_is_no_finite_number_is_a_problem() {
        for number in ["nan", "-inf", "+inf", "1e400"] {
            let text = format!("source-groups = [1]\n[settings]\na = {number}\n");
            tenant(&text);
            let problems = host().parse_tenant(NAME, &text, &[]).unwrap_err();
            assert_eq!(problems.len(), 1, "{number}");
            assert_eq!(problems[0].key, "settings.a");
        }
        let text = "source-groups = [1]\n[settings]\na = [1.5, -0.0, 1e300]\n";
        assert!(host().parse_tenant(NAME, text, &[]).is_ok());
    }

    fn pieces() -> impl Strategy<Value = String> {
        let piece = select(vec![
            "source-groups = [200]\n",
            "uri-domains = [\"acme.example\", \"*.Acme.example.\"]\n",
            "local = [\"udp:192.0.2.7:5060\"]\n",
            "token = \"0123456789abcdefg\"\n",
            "token = '''\n0123456789abcdefg'''\n",
            "\"token\" = \"0123456789abcdefgh\" # x\n",
            "next-hop = \"pstn\"\n",
            "default = \"relay\"\n",
            "deadline = \"2ms\"\n",
            "[settings]\n",
            "[settings.a.\"b c\"]\n",
            "[[settings.a]]\n",
            "a = 1_000\n",
            "b = [nan, -inf, 0x10, 1979-05-27T07:32:00Z]\n",
            "c.d = { e = true }\n",
            "e = 99999999999999999999\n",
            "[policy]\n",
            "[tenants.acme]\n",
            "[relay]\n",
            "[relay.next-hops]\n",
            "pstn = \"sip:192.0.2.1\"\n",
            "[signers]\n",
            "ann = \"11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=\"\n",
            "[on-failure]\n",
            "trap = \"last-good\"\n",
            "listen = [\"udp:127.0.0.1:5060\"]\n",
            "\r\n",
            "=\n",
            "[",
            "\"",
            "é",
        ]);
        proptest::collection::vec(piece, 0..10).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #[test]
        fn texts_of_pieces_are_read_or_explained(text in pieces()) {
            config(&text);
            tenant(&text);
            tenant(&format!("source-groups = [1]\n{text}"));
        }
    }
}
