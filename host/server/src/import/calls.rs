//! The calls of Kamailio's `permissions` module in a routing logic, and the Rust that replaces each in a policy.

use super::finding::{Finding, Place};
use super::statement::Value;

/// The module's functions.
pub(super) const FUNCTIONS: [&str; 9] = [
    "allow_source_address",
    "allow_source_address_group",
    "allow_address",
    "allow_address_group",
    "allow_trusted",
    "allow_routing",
    "allow_register",
    "allow_register_include_port",
    "allow_uri",
];

/// The module's function of this name.
pub(super) fn function(word: &str) -> Option<&'static str> {
    FUNCTIONS.into_iter().find(|name| *name == word)
}

/// True if a line of text names one of the functions.
pub(super) fn is_named_in(line: &str) -> bool {
    FUNCTIONS.iter().any(|name| line.contains(name))
}

/// The others ask the trusted table and the allow and deny files.
fn is_of_the_address_table(function: &str) -> bool {
    function.contains("address")
}

/// What to write in the policy in place of a call.
pub(super) fn finding(place: &Place, function: &str, arguments: &[Value]) -> Finding {
    let kamailio: Vec<_> = arguments.iter().map(as_written).collect();
    let what = format!("{function}({})", kamailio.join(", "));
    let mut blanks = Vec::new();
    if !is_of_the_address_table(function) {
        return Finding::at(place, what, NOT_YET);
    }
    let Some(rust) = rust(function, arguments, &mut blanks) else {
        let mend =
            "no such form of this function in Kamailio's module: see what it was meant to ask";
        return Finding::at(place, what, mend);
    };
    let mut mend = format!("in the policy, write {rust}");
    if !blanks.is_empty() {
        mend += &format!(", where {}", blanks.join(" and "));
    }
    Finding::at(place, what, mend)
}

/// The Rust expression; `blanks` gets what the author has to fill in.
fn rust(function: &str, arguments: &[Value], blanks: &mut Vec<String>) -> Option<String> {
    let call = match (function, arguments) {
        ("allow_source_address", []) => "allow_source_address(1)".to_owned(),
        ("allow_source_address", [group]) => {
            format!("allow_source_address({})", number(group, "group", blanks))
        }
        ("allow_address", [group, address, port]) => format!(
            "allow_address({}, {}, {})",
            number(group, "group", blanks),
            text(address, "address", blanks),
            number(port, "port", blanks)
        ),
        ("allow_source_address_group", []) => {
            "allow_source_address_group(), which answers Some(group) or None".to_owned()
        }
        ("allow_address_group", [address, port]) => format!(
            "allow_address_group({}, {}), which answers Some(group) or None",
            text(address, "address", blanks),
            number(port, "port", blanks)
        ),
        _ => return None,
    };
    Some(call)
}

/// A number, or a name for what a variable holds.
fn number(value: &Value, name: &'static str, blanks: &mut Vec<String>) -> String {
    match (value, value.text().parse::<u32>()) {
        (_, Ok(number)) => number.to_string(),
        _ => variable(value, name, blanks),
    }
}

/// A text in quotes, or a name for what a variable holds.
fn text(value: &Value, name: &'static str, blanks: &mut Vec<String>) -> String {
    match value {
        _ if is_known(value.text()) => format!("&{}", known(value.text())),
        Value::Text(text) | Value::Word(text) if !text.contains('$') => format!("{text:?}"),
        _ => format!("&{}", variable(value, name, blanks)),
    }
}

fn variable(value: &Value, name: &'static str, blanks: &mut Vec<String>) -> String {
    if is_known(value.text()) {
        return known(value.text()).to_owned();
    }
    blanks.push(format!("{name} is what {} held", as_written(value)));
    name.to_owned()
}

fn is_known(variable: &str) -> bool {
    !known(variable).is_empty()
}

/// What a policy asks in place of one of Kamailio's variables; empty where it is none of these.
fn known(variable: &str) -> &'static str {
    match variable {
        "$si" => "request::source_address()",
        "$sp" => "request::source_port()",
        "$ru" => "request::uri()",
        "$fu" => "request::from_uri()",
        "$tu" => "request::to_uri()",
        "$rm" => "request::method()",
        "$Ri" => "request::local_address()",
        "$Rp" => "request::local_port()",
        "$proto" => "request::transport()",
        _ => "",
    }
}

fn as_written(value: &Value) -> String {
    match value {
        Value::Text(text) => format!("{text:?}"),
        Value::Word(text) | Value::Variable(text) => text.clone(),
    }
}

const NOT_YET: &str = "the trusted table and the allow and deny files are not read yet: write the rule in the policy, with what the \
     request says of itself, or put its addresses into the address table";

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn said(function: &str, arguments: &[Value]) -> String {
        let place = Place {
            file: Path::new("k.cfg").into(),
            line: 7,
        };
        finding(&place, function, arguments).to_string()
    }

    fn text(text: &str) -> Value {
        Value::Text(text.into())
    }

    fn variable(text: &str) -> Value {
        Value::Variable(text.into())
    }

    #[test]
    fn each_form_has_its_line_of_rust() {
        assert_eq!(
            said("allow_source_address", &[text("200")]),
            "k.cfg:7: allow_source_address(\"200\"): in the policy, write allow_source_address(200)"
        );
        assert_eq!(
            said("allow_source_address", &[]),
            "k.cfg:7: allow_source_address(): in the policy, write allow_source_address(1)"
        );
        assert_eq!(
            said(
                "allow_address",
                &[Value::Word("2".into()), variable("$si"), variable("$sp")]
            ),
            "k.cfg:7: allow_address(2, $si, $sp): in the policy, write \
             allow_address(2, &request::source_address(), request::source_port())"
        );
        assert_eq!(
            said("allow_source_address", &[variable("$avp(group)")]),
            "k.cfg:7: allow_source_address($avp(group)): in the policy, write allow_source_address(group), \
             where group is what $avp(group) held"
        );
        assert!(said("allow_address", &[]).contains("no such form"));
        assert!(said("allow_uri", &[text("a"), variable("$rt")]).starts_with(
            "k.cfg:7: allow_uri(\"a\", $rt): the trusted table and the allow and deny files are not read yet"
        ));
    }
}
