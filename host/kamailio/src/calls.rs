//! The calls of Kamailio's `permissions` module in a routing logic, and the Rust code that replaces each in a policy.

use super::finding::{Finding, Place};
use super::statement::Value;

/// The fate of the first call that forces `rport`.
pub(super) fn force_rport(place: &Place, function: &str) -> Finding {
    let mend = "taken over as force-rport = true of [sip], for the requests to every UDP listener: where the script calls it for \
                some only, list the listeners in front of phones there";
    Finding::at(place, format!("{function}()"), mend)
}

/// The replacement of a call in the policy.
pub(super) fn finding(place: &Place, function: &str, arguments: &[Value]) -> Finding {
    let kamailio: Vec<_> = arguments.iter().map(Value::as_written).collect();
    let what = format!("{function}({})", kamailio.join(", "));
    let mut blanks = Vec::new();
    let Some(rust) = rust(function, arguments, &mut blanks) else {
        let mend =
            "no such form of this function in Kamailio's module: see what it was meant to ask";
        return Finding::at(place, what, mend);
    };
    let mut mend = format!("in the policy, write {rust}");
    if !blanks.is_empty() {
        mend += &format!(", where {}", blanks.join(" and "));
    }
    if function == "allow_trusted" {
        mend += "; rows are tried as with db_mode = 1, the highest priority first (Kamailio's default is the lowest)";
    }
    Finding::at(place, what, mend)
}

/// The Rust expression; `blanks` collects the placeholders that the author has to fill in.
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
        ("allow_trusted", []) => "allow_trusted()".to_owned(),
        ("allow_trusted", [address, transport]) => format!(
            "allow_trusted_address({}, {}, None)",
            text(address, "address", blanks),
            text(transport, "transport", blanks)
        ),
        ("allow_trusted", [address, transport, from]) => format!(
            "allow_trusted_address({}, {}, Some({}))",
            text(address, "address", blanks),
            text(transport, "transport", blanks),
            text(from, "from", blanks)
        ),
        ("allow_routing", []) => "allow_routing(None)".to_owned(),
        ("allow_uri", [basename, uri]) => format!(
            "allow_uri(Some({}), {})",
            text(basename, "basename", blanks),
            text(uri, "uri", blanks)
        ),
        ("allow_routing" | "allow_register" | "allow_register_include_port", [basename]) => {
            format!("{function}(Some({}))", text(basename, "basename", blanks))
        }
        ("allow_routing" | "allow_register" | "allow_register_include_port", [allow, deny]) => {
            blanks.push(format!(
                "{} and {} are renamed to NAME.allow and NAME.deny",
                allow.as_written(),
                deny.as_written()
            ));
            format!("{function}(Some(\"NAME\"))")
        }
        _ => return None,
    };
    Some(call)
}

/// A number, or a placeholder for the value of a variable.
fn number(value: &Value, name: &'static str, blanks: &mut Vec<String>) -> String {
    match (value, value.text().parse::<u32>()) {
        (_, Ok(number)) => number.to_string(),
        _ => variable(value, name, blanks),
    }
}

/// A quoted text, or a placeholder for the value of a variable.
fn text(value: &Value, name: &'static str, blanks: &mut Vec<String>) -> String {
    match value {
        _ if is_known(value.text()) => format!("&{}", known(value.text())),
        Value::Text(text) | Value::Word(text) if !text.contains('$') => format!("{text:?}"),
        Value::Text(_) | Value::Word(_) | Value::Variable(_) => {
            format!("&{}", variable(value, name, blanks))
        }
    }
}

fn variable(value: &Value, name: &'static str, blanks: &mut Vec<String>) -> String {
    if is_known(value.text()) {
        return known(value.text()).to_owned();
    }
    blanks.push(format!("{name} is what {} held", value.as_written()));
    name.to_owned()
}

fn is_known(variable: &str) -> bool {
    !known(variable).is_empty()
}

/// The query that replaces a Kamailio variable in a policy; empty if there is none.
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
        assert_eq!(
            said("allow_uri", &[text("basename"), variable("$rt")]),
            "k.cfg:7: allow_uri(\"basename\", $rt): in the policy, write allow_uri(Some(\"basename\"), &uri), \
             where uri is what $rt held"
        );
        assert!(said("allow_routing", &[text("a.allow"), text("b.deny")]).contains("renamed"));
        assert!(said("allow_uri", &[]).contains("no such form"));
    }
}
