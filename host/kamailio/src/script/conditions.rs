//! Conditions of a script as Rust expressions of type `bool`.

use std::net::{IpAddr, Ipv4Addr};

use super::after_failure::{after_failure, has_code};
use super::context::{Context, Helper, Part};
use super::kinds::advice;
use super::pattern::Matching;
use super::routes::Routes;
use super::syntax::{Call, Expression, Operator, Term};
use super::tables::table_of;
use super::values::{Value, is_header, value};

/// A Rust expression of type `bool`. An operand without counterpart is a call of `untranslated`, which ends the script: whatever the
/// condition protects stays closed.
pub(super) fn condition(expression: &Expression, routes: &Routes, context: &mut Context) -> String {
    match &expression.term {
        Term::Or(left, right) => {
            let (left, right) = (
                operand(left, '|', routes, context),
                operand(right, '|', routes, context),
            );
            joined(left, right, '|')
        }
        Term::And(left, right) => {
            let (left, right) = (
                operand(left, '&', routes, context),
                operand(right, '&', routes, context),
            );
            joined(left, right, '&')
        }
        Term::Not(inner) => negated(&condition(inner, routes, context)),
        Term::Compare(operator, left, right) => {
            let code = comparison(*operator, left, right, context);
            code.unwrap_or_else(|| untranslated(expression, context))
        }
        Term::Call(call) => {
            let code = function(call, expression, routes, context);
            code.unwrap_or_else(|| untranslated(expression, context))
        }
        Term::Word(word) if matches!(&**word, "1" | "true" | "yes") => "true".into(),
        Term::Word(word) if matches!(&**word, "0" | "false" | "no") => "false".into(),
        Term::Variable(_) => match value(expression, context) {
            Some(Value::Number(number)) => format!("{number} != 0"),
            Some(Value::Owned(_) | Value::Borrowed(_)) | None => untranslated(expression, context),
        },
        Term::Sum(_) | Term::Text(_) | Term::Word(_) | Term::Address(_) | Term::Other => {
            untranslated(expression, context)
        }
    }
}

/// An operand of `||` or `&&`, in parentheses if it has the other operator.
fn operand(expression: &Expression, sign: char, routes: &Routes, context: &mut Context) -> String {
    let code = condition(expression, routes, context);
    match (&expression.term, sign) {
        (Term::Or(..), '&') if code.contains(" || ") => format!("({code})"),
        (Term::And(..), '|') if code.contains(" && ") => format!("({code})"),
        _ => code,
    }
}

/// `left || right` or `left && right`. What the host has checked before is no operand.
fn joined(left: String, right: String, sign: char) -> String {
    let (neutral, decisive) = match sign {
        '|' => ("false", "true"),
        _ => ("true", "false"),
    };
    if left == decisive || right == neutral {
        return bare(left);
    }
    if left == neutral {
        return bare(right);
    }
    format!("{left} {sign}{sign} {right}")
}

/// Without the parentheses that an operand needs.
fn bare(code: String) -> String {
    let inner = code
        .strip_prefix('(')
        .and_then(|code| code.strip_suffix(')'));
    match inner {
        Some(inner) if is_one_call(&code) => inner.to_owned(),
        _ => code,
    }
}

/// `!code`, in parentheses if `code` has operators. Two negations cancel each other.
fn negated(code: &str) -> String {
    match code {
        "true" => return "false".into(),
        "false" => return "true".into(),
        _ => {}
    }
    if let Some(number) = code.strip_suffix(" != 0")
        && !number.contains(' ')
    {
        return format!("{number} == 0");
    }
    let is_call = |code: &str| !code.contains([' ', '\n']) || is_one_call(code);
    match code.strip_prefix('!') {
        Some(rest) if is_call(rest) => rest.to_owned(),
        _ if is_call(code) => format!("!{code}"),
        _ => format!("!({code})"),
    }
}

/// Whether the parenthesis that opens first closes at the end: `matches!(a, b | c)`, but not `f(a) && g(b)`.
fn is_one_call(code: &str) -> bool {
    let code = code.strip_suffix('?').unwrap_or(code);
    let Some(open) = code.find('(') else {
        return false;
    };
    if code[..open].contains(' ') {
        return false;
    }
    let mut depth = 0_usize;
    let mut is_text = false;
    for (at, letter) in code.char_indices().skip(open) {
        match letter {
            '"' if !code[..at].ends_with('\\') => is_text = !is_text,
            '(' if !is_text => depth += 1,
            ')' if !is_text => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth == 0 {
            return at + 1 == code.len();
        }
    }
    false
}

/// An operand without counterpart.
fn untranslated(expression: &Expression, context: &mut Context) -> String {
    let text = match expression.text.as_str() {
        "" => "nothing, where a condition has to be",
        text => text,
    };
    let mend = advice(text).unwrap_or("no counterpart");
    let mend = format!("{mend}: the policy answers 500 where this decides");
    context.close(&expression.place, text, &mend);
    format!("untranslated({}, {text:?})?", expression.place.line)
}

fn comparison(
    operator: Operator,
    left: &Expression,
    right: &Expression,
    context: &mut Context,
) -> Option<String> {
    if let Term::Word(word) = &right.term
        && word == "myself"
    {
        return of_myself(operator, left, context);
    }
    if matches!(operator, Operator::Matches | Operator::MatchesNot) {
        return matching(operator, left, right, context);
    }
    if let Term::Address(address) = &right.term {
        return of_address(operator, left, address, context);
    }
    // Keywords of the core compare with words, and methods without case.
    if let (Term::Word(keyword), Some(literal)) = (&left.term, right.literal()) {
        match &**keyword {
            "method" => {
                let equals = format!("request::method().eq_ignore_ascii_case({literal:?})");
                return equality(operator, equals);
            }
            "proto" => {
                let transport = literal.to_ascii_uppercase();
                let is_known = ["UDP", "TCP", "TLS", "SCTP", "WS", "WSS"].contains(&&*transport);
                let equals = format!("request::transport() == {transport:?}");
                return equality(operator, is_known.then_some(equals)?);
            }
            "uri" | "from_uri" | "to_uri" => return None,
            _ => {}
        }
    }
    let is_null = |one: &Expression| matches!(&one.term, Term::Variable(name) if name == "$null");
    let is_var =
        |one: &Expression| matches!(&one.term, Term::Variable(name) if name.starts_with("$var("));
    if let Term::Variable(name) = &left.term
        && is_null(right)
        && table_of(name).is_some_and(|table| context.empty_tables.contains(table))
    {
        let mend = "taken as $null: nothing in the configuration fills the table. What a program writes into it over RPC (htable.sets) is not seen here: \
                    keep such addresses in a group of the table address";
        context.remark(&left.place, name, mend);
        return equality(operator, "true".into());
    }
    let may_be_empty = |one: &Expression| matches!(&one.term, Term::Variable(name) if context.variables.get(name).is_some_and(|one| one.may_be_empty));
    // A `$var` that has never been set is the number 0, and an empty text is not `$null`.
    let is_not_null = |one: &Expression| is_var(one) || may_be_empty(one);
    if is_not_null(left) && is_null(right) || is_null(left) && is_not_null(right) {
        return None;
    }
    let right_literal = right.literal();
    let (left, right) = (value(left, context)?, value(right, context)?);
    let is_order = !matches!(operator, Operator::Equal | Operator::Different);
    match (&left, &right) {
        (Value::Number(left), Value::Number(right)) => {
            // Without parentheses, `i64::from(a) < b` is a comparison, but `a as i64 < b` is not.
            Some(format!("{left} {} {right}", operator.as_rust()))
        }
        // `$T_reply_code == "408"`
        (Value::Number(left), Value::Borrowed(_)) => {
            let number = right_literal.and_then(|text| text.parse::<i64>().ok())?;
            Some(format!("{left} {} {number}", operator.as_rust()))
        }
        (Value::Number(_), Value::Owned(_)) | (_, Value::Number(_)) => None,
        _ if is_order => None,
        _ => Some(format!(
            "{} {} {}",
            left.code(),
            operator.as_rust(),
            right.code()
        )),
    }
}

fn equality(operator: Operator, equals: String) -> Option<String> {
    match operator {
        Operator::Equal => Some(equals),
        Operator::Different => Some(negated(&equals)),
        Operator::Matches
        | Operator::MatchesNot
        | Operator::Less
        | Operator::LessOrEqual
        | Operator::Greater
        | Operator::GreaterOrEqual => None,
    }
}

/// `uri == myself`, `$rd == myself`, `src_ip == myself`
fn of_myself(operator: Operator, left: &Expression, context: &mut Context) -> Option<String> {
    let (Term::Word(left) | Term::Variable(left)) = &left.term else {
        return None;
    };
    if matches!(&**left, "src_ip" | "$si") {
        context.need(Helper::Myself);
        context.need(Helper::MyAddress);
        let is_own = "is_my_address(&request::source_address())";
        return equality(operator, is_own.to_owned());
    }
    let uri = match &**left {
        "uri" | "$ru" if context.is_stateful() => "self.uri()",
        "uri" | "$ru" => "request::uri()",
        "from_uri" | "$fu" => "request::from_uri()",
        "to_uri" | "$tu" => "request::to_uri()",
        _ => return None,
    };
    context.need(Helper::Myself);
    equality(operator, format!("is_myself(&{uri})"))
}

fn matching(
    operator: Operator,
    left: &Expression,
    right: &Expression,
    context: &mut Context,
) -> Option<String> {
    let Term::Text(pattern) = &right.term else {
        return None;
    };
    if matches!(&left.term, Term::Variable(name) if name == "$T_reply_code") {
        let matches = has_code(pattern, context)?;
        return match operator == Operator::MatchesNot {
            true => Some(negated(&matches)),
            false => Some(matches),
        };
    }
    let text = value(left, context)?;
    let argument = text.as_argument()?;
    let matches = match Matching::of(pattern)? {
        Matching::Method("eq", literal) => format!("{} == {literal:?}", text.code()),
        Matching::Lower("eq", literal) => {
            format!("{}.eq_ignore_ascii_case({literal:?})", text.code())
        }
        Matching::Method(method, literal) => format!("{}.{method}({literal:?})", text.code()),
        Matching::Lower(method, literal) => {
            format!("{}.to_ascii_lowercase().{method}({literal:?})", text.code())
        }
        Matching::Node(node) => {
            context.need(Helper::Matcher);
            format!("matches({argument}, &{node})")
        }
    };
    match operator == Operator::MatchesNot {
        true => Some(negated(&matches)),
        false => Some(matches),
    }
}

/// `src_ip == 10.0.0.0/8`
fn of_address(
    operator: Operator,
    left: &Expression,
    address: &str,
    context: &mut Context,
) -> Option<String> {
    let text = value(left, context)?;
    let is_address =
        matches!(&left.term, Term::Word(word) if matches!(&**word, "src_ip" | "dst_ip"));
    if !is_address {
        return None;
    }
    let Some((network, mask)) = address.split_once('/') else {
        let address: IpAddr = address.parse().ok()?;
        return equality(operator, format!("{} == \"{address}\"", text.code()));
    };
    let network: Ipv4Addr = network.parse().ok()?;
    let mask = match mask.parse::<u32>() {
        Ok(bits) if bits <= 32 => u32::MAX.checked_shl(32 - bits).unwrap_or(0),
        Ok(_) => return None,
        Err(_) => mask.parse::<Ipv4Addr>().ok()?.to_bits(),
    };
    let network = network.to_bits() & mask;
    context.need(Helper::Subnet);
    let argument = text.as_argument()?;
    equality(
        operator,
        format!("is_in({argument}, {network:#010x}, {mask:#010x})"),
    )
}

/// Flags of `nat_uac_test` that a policy can test: all but those that look into SDP (8, 256), and 512.
const NAT_FLAGS: u32 = 1 | 2 | 4 | 16 | 32 | 64 | 128;

fn nat_uac_test(flags: &str, context: &mut Context) -> Option<String> {
    let flags: u32 = flags.parse().ok()?;
    if flags & !NAT_FLAGS != 0 {
        return None;
    }
    context.need(Helper::Nat);
    Some(format!("nat_uac_test({flags})"))
}

/// A function whose result decides.
fn function(
    call: &Call,
    expression: &Expression,
    routes: &Routes,
    context: &mut Context,
) -> Option<String> {
    let arguments = &call.arguments[..];
    match (&*call.name, arguments) {
        ("is_method", [methods]) => is_method(methods.literal()?),
        ("has_totag", []) => Some("request::has_to_tag()".into()),
        ("has_body", []) => Some("request::body_length() > 0".into()),
        ("is_present_hf", [name]) => {
            let name = name.literal().filter(|name| is_header(name))?;
            Some(format!("request::header({name:?}).is_some()"))
        }
        ("route", [name]) => {
            let function = routes.function(name.literal()?)?;
            Some(format!("{}{function}()?", context.receiver()))
        }
        // The host has done this before it calls a policy.
        ("mf_process_maxfwd_header" | "sanity_check" | "record_route" | "force_rport", _)
        // A policy is called for requests, each of which has a transaction.
        | ("is_request" | "t_newtran", [])
        // It fails only if it cannot be read, and nothing is to be read.
        | ("handle_ruri_alias", []) => Some("true".into()),
        ("pike_check_req", []) => {
            let mend = "true: the guard drops floods before (`rate` in [guard]), but not those of sources that it exempts, such as those in the table address";
            context.remark(&expression.place, "pike_check_req()", mend);
            Some("true".into())
        }
        // Neither responses nor branches come to a policy.
        ("is_reply" | "t_is_branch_route", []) => Some("false".into()),
        // Also that of a set.
        ("isdsturiset", []) if context.has(Part::Set) => None,
        ("isdsturiset", []) => Some(match context.is_stateful() {
            true => "self.destination.is_some()".into(),
            false => "false".into(),
        }),
        ("is_first_hop", []) => {
            context.need(Helper::FirstHop);
            Some("is_first_hop()".into())
        }
        ("strempty", [text]) => match value(text, context)? {
            Value::Owned(code) | Value::Borrowed(code) => Some(format!("{code}.is_empty()")),
            Value::Number(_) => None,
        },
        // A text has variables within; here, only single variables are translated.
        ("starts_with", [text, _]) if matches!(&text.term, Term::Text(text) if text.contains('$')) => None,
        ("starts_with", [text, prefix]) => {
            let prefix = prefix.literal()?.to_owned();
            match value(text, context)? {
                Value::Owned(code) | Value::Borrowed(code) => {
                    Some(format!("{code}.starts_with({prefix:?})"))
                }
                Value::Number(_) => None,
            }
        }
        ("isflagset" | "isbflagset", [_]) => {
            let flag = context.flag(call)?;
            if call.name == "isbflagset" {
                context.need(Helper::BranchFlags);
            }
            Some(format!("self.has_flag({flag})"))
        }
        ("t_is_set", [what]) if what.literal() == Some("failure_route") => {
            Some(match context.has(Part::FailureRoute) {
                true => "!self.failure_route.is_empty()".into(),
                // Nothing has set one.
                false => "false".into(),
            })
        }
        ("nat_uac_test", [flags]) => nat_uac_test(flags.literal()?, context),
        (
            "t_check_trans" | "t_precheck_trans" | "t_lookup_request" | "t_lookup_cancel"
            | "t_relay_cancel",
            _,
        ) => Some("false".into()),
        ("loose_route", []) => {
            let mend = "the host follows the Route of dialogs that it knows, before it calls a policy: false for a request without Route, and \
                        for others the policy answers 500 where this decides";
            context.remark(&expression.place, "loose_route()", mend);
            context.need(Helper::Untranslated);
            let line = expression.place.line;
            Some(format!(
                "(request::header(\"Route\").is_some() && untranslated({line}, \"loose_route()\")?)"
            ))
        }
        ("ds_select_dst" | "ds_next_dst" | "ds_mark_dst", _) => destination(call, context),
        _ => after_failure(call, expression.place.line, context)
            .or_else(|| permission(call, context)),
    }
}

/// The functions of the module `dispatcher`, as a condition; `None` if there is no counterpart.
pub(super) fn destination(call: &Call, context: &Context) -> Option<String> {
    let number = |at: usize| -> Option<u32> { call.arguments.get(at)?.literal()?.parse().ok() };
    match (&*call.name, call.arguments.len()) {
        ("ds_select_dst", 2 | 3) if context.has(Part::Set) => {
            let (set, algorithm) = (number(0)?, number(1)?);
            // 7 needs `hash_pvar`, and 12 sends to all of them.
            let is_known = matches!(algorithm, 0..=6 | 8..=11 | 13);
            is_known.then(|| format!("self.select({set}, {algorithm})"))
        }
        ("ds_next_dst", 0) if context.has(Part::Set) => Some("self.next_destination()".into()),
        // The host counts failures by itself.
        ("ds_mark_dst", 0) => Some("true".into()),
        ("ds_mark_dst", 1) => {
            let is_of_failure =
                matches!(call.arguments[0].literal()?, "p" | "i" | "t" | "ip" | "tp");
            is_of_failure.then(|| "true".into())
        }
        _ => None,
    }
}

fn is_method(methods: &str) -> Option<String> {
    let names: Vec<_> = methods.split('|').map(str::trim).collect();
    let is_token = |name: &&str| {
        !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
    };
    if !names.iter().all(is_token) {
        return None;
    }
    match &names[..] {
        [name] => Some(format!("request::method().eq_ignore_ascii_case({name:?})")),
        names => {
            let names: Vec<_> = names.iter().map(|name| format!("{name:?}")).collect();
            Some(format!(
                "[{}].iter().any(|name| request::method().eq_ignore_ascii_case(name))",
                names.join(", ")
            ))
        }
    }
}

/// The functions of the module `permissions`.
fn permission(call: &Call, context: &mut Context) -> Option<String> {
    let mut text = |expression: &Expression| {
        let has_variables = matches!(&expression.term, Term::Text(text) if text.contains('$'));
        match has_variables {
            true => None,
            false => value(expression, context)?.as_argument(),
        }
    };
    let group = |expression: &Expression| expression.literal()?.parse::<u32>().ok();
    let name = |expression: &Expression| expression.literal().map(|name| format!("Some({name:?})"));
    let code = match (&*call.name, &call.arguments[..]) {
        ("allow_source_address", []) => "allow_source_address(1)".into(),
        ("allow_source_address", [of]) => format!("allow_source_address({})", group(of)?),
        ("allow_source_address_group", []) => "allow_source_address_group().is_some()".into(),
        ("allow_address", [of, address, port]) => {
            format!(
                "allow_address({}, {}, {})",
                group(of)?,
                text(address)?,
                port_of(port)?
            )
        }
        ("allow_address_group", [address, port]) => {
            format!(
                "allow_address_group({}, {}).is_some()",
                text(address)?,
                port_of(port)?
            )
        }
        ("allow_trusted", []) => "allow_trusted()".into(),
        ("allow_trusted", [address, transport]) => {
            format!(
                "allow_trusted_address({}, {}, None)",
                text(address)?,
                text(transport)?
            )
        }
        ("allow_trusted", [address, transport, from]) => format!(
            "allow_trusted_address({}, {}, Some({}))",
            text(address)?,
            text(transport)?,
            text(from)?
        ),
        ("allow_routing", []) => "allow_routing(None)".into(),
        ("allow_routing" | "allow_register" | "allow_register_include_port", [basename]) => {
            format!("{}({})", call.name, name(basename)?)
        }
        ("allow_uri", [basename, uri]) => format!("allow_uri({}, {})", name(basename)?, text(uri)?),
        _ => return None,
    };
    Some(code)
}

/// A port of type `u16`.
fn port_of(expression: &Expression) -> Option<String> {
    if let Term::Variable(name) = &expression.term {
        return match &**name {
            "$sp" => Some("request::source_port()".into()),
            "$Rp" => Some("request::local_port()".into()),
            _ => None,
        };
    }
    Some(expression.literal()?.parse::<u16>().ok()?.to_string())
}
