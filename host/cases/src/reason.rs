//! Which row gave an answer.

use std::net::IpAddr;

use portcullis_address::{DEFAULT_RULES, Entries, Entry, Match, Snapshot, parse_ip};
use portcullis_records::Question;
use portcullis_request::Request;

/// Which rows a reason may name.
#[derive(Clone, Copy, Debug)]
pub enum Sight<'s> {
    /// All rows of all tables.
    All,
    /// Rows of these address groups.
    Groups(&'s [u32]),
}

/// Why the host gave this answer from these tables; `None` if the answer does not come from a table, or from one out of sight.
pub fn reason_for(
    question: &Question,
    request: &Request,
    tables: &Snapshot,
    sight: Sight<'_>,
) -> Option<String> {
    let (interface, function) = question.function.split_once('.')?;
    let arguments = question.arguments.as_array().map(Vec::as_slice);
    let arguments = arguments.unwrap_or_default();
    let number = |at: usize| arguments.get(at).and_then(serde_json::Value::as_u64);
    let text = |at: usize| arguments.get(at).and_then(serde_json::Value::as_str);
    let source = request.source();
    let address = |name: &str, entries, port, group| address(name, entries, port, group, sight);
    match (interface, function) {
        ("permissions", "allow-source-address") => {
            let entries = tables.table.lookup(source.ip());
            Some(address(
                &source.ip().to_string(),
                entries,
                source.port(),
                number(0),
            ))
        }
        ("permissions", "source-address-group") => {
            let entries = tables.table.lookup(source.ip());
            Some(address(
                &source.ip().to_string(),
                entries,
                source.port(),
                None,
            ))
        }
        ("permissions", "allow-address") => {
            let (name, port) = (text(1)?, port(number(2)?)?);
            Some(address(name, entries(tables, name), port, number(0)))
        }
        ("permissions", "address-group") => {
            let (name, port) = (text(0)?, port(number(1)?)?);
            Some(address(name, entries(tables, name), port, None))
        }
        ("trusted" | "rules", _) if !sight.is_all() => None,
        ("trusted", "allow-trusted" | "count-trusted") => {
            Some(trusted(question, tables, &source.ip().to_string()))
        }
        ("trusted", "allow-trusted-address" | "count-trusted-address") => {
            Some(trusted(question, tables, text(0)?))
        }
        ("rules", _) => Some(rules(tables, text(0).unwrap_or(DEFAULT_RULES))),
        _ => None,
    }
}

impl Sight<'_> {
    fn is_all(self) -> bool {
        matches!(self, Self::All)
    }

    fn has(self, group: u32) -> bool {
        match self {
            Self::All => true,
            Self::Groups(groups) => groups.contains(&group),
        }
    }
}

fn port(number: u64) -> Option<u16> {
    number.try_into().ok()
}

fn entries<'t>(tables: &'t Snapshot, name: &str) -> Entries<'t> {
    match parse_ip(name) {
        Some(ip) => tables.table.lookup(ip),
        None => tables.table.lookup_name(name),
    }
}

/// `row: group 200, any port, tag "Office"`, or which rows there are instead.
fn address(
    name: &str,
    entries: Entries<'_>,
    port: u16,
    group: Option<u64>,
    sight: Sight<'_>,
) -> String {
    let fits = |of: u16| of == 0 || of == port;
    let is_asked = |of: u32| group.is_none_or(|group| group == u64::from(of));
    let row = |group: u32, port: u16, tag: Option<&str>| {
        let port = match port {
            0 => "any port".to_owned(),
            port => format!("port {port}"),
        };
        let tag = tag.map(|tag| format!(", tag {tag:?}")).unwrap_or_default();
        format!("group {group}, {port}{tag}")
    };
    // A query without a group finds the first row of the search.
    let found = match group.map(u32::try_from) {
        None if !sight.is_all() => {
            let mut seen = entries.iter().filter(|entry| sight.has(entry.group));
            let first = seen.find(|entry| fits(entry.port));
            first.map(|Entry { group, tag, .. }| Match { group, tag })
        }
        None => entries.first(port),
        Some(Ok(group)) if !sight.has(group) => None,
        Some(Ok(group)) => entries.find(group, port),
        Some(Err(_)) => None,
    };
    if let Some(found) = found {
        let mut of_group = entries.iter().filter(|entry| entry.group == found.group);
        let port = of_group
            .find(|entry| fits(entry.port))
            .map_or(0, |entry| entry.port);
        return format!("row: {}", row(found.group, port, found.tag));
    }
    let others = entries
        .iter()
        .filter(|entry| sight.has(entry.group))
        .map(|entry| row(entry.group, entry.port, entry.tag));
    let others: Vec<_> = others.take(3).collect();
    if others.is_empty() {
        return format!("no row has {name}");
    }
    let has_group = entries
        .iter()
        .any(|entry| is_asked(entry.group) && sight.has(entry.group));
    let why = match has_group {
        true => format!("no row has {name} with port {port}"),
        false => format!("no row of this group has {name}"),
    };
    format!("{why}; there is {}", others.join("; "))
}

fn trusted(question: &Question, tables: &Snapshot, source: &str) -> String {
    let ip = parse_ip(source);
    let is_same = |text: &str| text == source || ip.is_some() && parse_ip(text) == ip;
    let rows = tables.trusted.table.rows();
    let count = rows.filter(|row| is_same(row.source)).count();
    let is_positive = question.answer.as_bool() == Some(true) || question.answer.as_u64() > Some(0);
    match (count, is_positive) {
        (0, _) => format!(
            "no trusted peer is {}",
            ip.map_or_else(|| source.to_owned(), |ip: IpAddr| ip.to_string())
        ),
        (n, false) => format!("{n} of the trusted peers are {source}; transport or URIs differ"),
        (_, true) => match &question.left {
            Some(tags) => format!("a trusted peer, tags {tags}"),
            None => "a trusted peer".to_owned(),
        },
    }
}

fn rules(tables: &Snapshot, name: &str) -> String {
    let sets = tables.rules.rules.names();
    let found = sets.iter().find(|(set, ..)| *set == name);
    match found {
        None => format!("there is neither {name}.allow nor {name}.deny: everything is allowed"),
        Some((_, allow, deny)) => {
            format!("lines of {name}.allow: {allow}, of {name}.deny: {deny}")
        }
    }
}

#[cfg(test)]
mod tests {
    use portcullis_sip::{Arrival, Transport};
    use serde_json::{Value, json};

    use super::*;
    use crate::message::{MessageFields, read_message};
    use crate::tables::TablesSpec;

    #[test]
    fn an_answer_names_its_row() {
        let tables: TablesSpec = toml::from_str(
            "address = [\"200 192.0.2.0/24\", \"250 192.0.2.7 32 5061 Test\"]\ntrusted = [{ source = \"192.0.2.7\", tag = \"x\" }]\n\
             [rules.permissions]\nallow = [\"ALL : ALL\"]",
        )
        .unwrap();
        let tables = tables.build().unwrap();
        let arrival = Arrival {
            source: "192.0.2.7:5060".parse().unwrap(),
            local: "192.0.2.9:5060".parse().unwrap(),
            transport: Transport::Udp,
            connection: None,
        };
        let message = MessageFields::default().write(&arrival, 1);
        let request = read_message(&message, arrival).unwrap();
        let seen = |function: &'static str, arguments: Value, answer: Value, sight: Sight<'_>| {
            let question = Question {
                function: function.into(),
                arguments,
                answer,
                left: Some(json!(["x"])),
            };
            reason_for(&question, &request, &tables, sight)
        };
        let reason = |function, arguments, answer| seen(function, arguments, answer, Sight::All);
        for (function, arguments, answer, expected) in [
            (
                "permissions.allow-source-address",
                json!([200]),
                json!(true),
                "row: group 200, any port",
            ),
            (
                "permissions.allow-source-address",
                json!([250]),
                json!(false),
                "no row has 192.0.2.7 with port 5060; there is group 250, port 5061, tag \"Test\"; group 200, any port",
            ),
            (
                "permissions.source-address-group",
                json!([]),
                json!(200),
                "row: group 200, any port",
            ),
            (
                "permissions.address-group",
                json!(["10.0.0.1", 5060]),
                json!(null),
                "no row has 10.0.0.1",
            ),
            (
                "trusted.allow-trusted",
                json!([]),
                json!(true),
                "a trusted peer, tags [\"x\"]",
            ),
            (
                "trusted.allow-trusted-address",
                json!(["10.0.0.1", "udp", null]),
                json!(false),
                "no trusted peer is 10.0.0.1",
            ),
            (
                "rules.allow-routing",
                json!([null]),
                json!(true),
                "lines of permissions.allow: 1, of permissions.deny: 0",
            ),
            (
                "rules.allow-routing",
                json!(["x"]),
                json!(true),
                "there is neither x.allow nor x.deny: everything is allowed",
            ),
        ] {
            assert_eq!(
                reason(function, arguments, answer).as_deref(),
                Some(expected),
                "{function}"
            );
        }
        assert_eq!(reason("counters.value", json!(["a"]), json!(0)), None);

        // Rows of other groups are not named.
        let of_250 = |function, arguments| {
            seen(function, arguments, json!(null), Sight::Groups(&[250])).unwrap_or_default()
        };
        for (function, arguments, expected) in [
            (
                "permissions.allow-source-address",
                json!([200]),
                "no row of this group has 192.0.2.7; there is group 250, port 5061, tag \"Test\"",
            ),
            (
                "permissions.source-address-group",
                json!([]),
                "no row has 192.0.2.7 with port 5060; there is group 250, port 5061, tag \"Test\"",
            ),
            (
                "permissions.address-group",
                json!(["192.0.2.7", 5061]),
                "row: group 250, port 5061, tag \"Test\"",
            ),
            (
                "permissions.address-group",
                json!(["192.0.2.8", 5061]),
                "no row has 192.0.2.8",
            ),
            ("trusted.allow-trusted", json!([]), ""),
            ("rules.allow-routing", json!([null]), ""),
        ] {
            assert_eq!(of_250(function, arguments), expected, "{function}");
        }
    }
}
