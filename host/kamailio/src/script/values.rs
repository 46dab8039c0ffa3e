//! Values of a script: pseudo-variables, core keywords and texts as Rust expressions.

use super::context::{Context, Helper, Variable};
use super::syntax::{Expression, Term};

/// A Rust expression.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Value {
    /// Of type `String`.
    Owned(String),
    /// Of type `&str`.
    Borrowed(String),
    /// Of type `i64`.
    Number(String),
}

impl Value {
    /// The expression, whatever its type.
    pub(super) fn code(&self) -> &str {
        let (Self::Owned(code) | Self::Borrowed(code) | Self::Number(code)) = self;
        code
    }

    /// The expression as an argument of type `&str`; `None` for numbers.
    pub(super) fn as_argument(&self) -> Option<String> {
        match self {
            Self::Owned(code) => Some(format!("&{code}")),
            Self::Borrowed(code) => Some(code.clone()),
            Self::Number(_) => None,
        }
    }

    /// The expression as a `String`.
    pub(super) fn as_owned(&self) -> String {
        match self {
            Self::Owned(code) => code.clone(),
            Self::Borrowed(code) | Self::Number(code) => format!("{code}.to_string()"),
        }
    }
}

/// The value of an expression; `None` if there is no counterpart.
pub(super) fn value(expression: &Expression, context: &mut Context) -> Option<Value> {
    match &expression.term {
        Term::Text(text) => Some(Value::Borrowed(format!("{text:?}"))),
        Term::Variable(name) => variable(name, context),
        Term::Word(word) => match word.parse::<i64>() {
            Ok(number) => Some(Value::Number(number.to_string())),
            Err(_) => keyword(word, context),
        },
        Term::Sum(parts) => sum(parts, context),
        Term::Or(..)
        | Term::And(..)
        | Term::Not(_)
        | Term::Compare(..)
        | Term::Call(_)
        | Term::Address(_)
        | Term::Other => None,
    }
}

/// `"sip:" + $rU + "@10.0.0.7"`
fn sum(parts: &[Expression], context: &mut Context) -> Option<Value> {
    // The first one says what `+` does.
    if let [first, rest @ ..] = parts
        && let Value::Number(first) = value(first, context)?
    {
        let mut sum = first;
        for part in rest {
            let Value::Number(number) = value(part, context)? else {
                return None;
            };
            sum = format!("i64::wrapping_add({sum}, {number})");
        }
        return Some(Value::Number(sum));
    }
    let (mut format, mut arguments) = (String::new(), String::new());
    for part in parts {
        if let Term::Text(text) = &part.term {
            format.push_str(&braced(text));
            continue;
        }
        format.push_str("{}");
        arguments.push_str(&format!(", {}", value(part, context)?.code()));
    }
    Some(Value::Owned(format!("format!({format:?}{arguments})")))
}

/// A pseudo-variable. One that is unset is an empty text in a comparison, here as in Kamailio.
pub(super) fn variable(name: &str, context: &mut Context) -> Option<Value> {
    if let Some(parameter) = name.strip_prefix("$sel(cfg_get.") {
        let text = context.parameters.get(parameter.strip_suffix(')')?)?;
        return Some(Value::Borrowed(format!("{text:?}")));
    }
    if let Some(variable) = context.variables.get(name) {
        let Variable {
            field, is_number, ..
        } = variable;
        return Some(match is_number {
            true => Value::Number(format!("self.{field}")),
            false => Value::Owned(format!("self.{field}.clone()")),
        });
    }
    let uri = if context.is_stateful() {
        "self.uri()"
    } else {
        "request::uri()"
    };
    let user = |uri: &str| Value::Borrowed(format!("uri::user(&{uri}).unwrap_or_default()"));
    let host = |uri: &str| Value::Borrowed(format!("uri::host(&{uri})"));
    let owned = |code: &str| Some(Value::Owned(code.into()));
    let number = |code: &str| Some(Value::Number(format!("i64::from({code})")));
    match name {
        "$rm" => owned("request::method()"),
        "$ru" => owned(uri),
        "$rU" => Some(user(uri)),
        "$rd" => Some(host(uri)),
        "$rp" => number(&format!("uri::port(&{uri}).unwrap_or(5060)")),
        "$ou" => owned("request::uri()"),
        "$oU" => Some(user("request::uri()")),
        "$od" => Some(host("request::uri()")),
        "$fu" => owned("request::from_uri()"),
        "$fU" => Some(user("request::from_uri()")),
        "$fd" => Some(host("request::from_uri()")),
        "$tu" => owned("request::to_uri()"),
        "$tU" => Some(user("request::to_uri()")),
        "$td" => Some(host("request::to_uri()")),
        "$si" => owned("request::source_address()"),
        "$sp" => number("request::source_port()"),
        "$Ri" => owned("request::local_address()"),
        "$Rp" => number("request::local_port()"),
        "$proto" | "$pr" => owned("request::transport().to_ascii_lowercase()"),
        "$ci" => owned("request::call_id()"),
        "$cs" => number("request::cseq_number()"),
        "$ua" => owned("request::header(\"User-Agent\").unwrap_or_default()"),
        "$T_reply_code" => {
            context.need(Helper::ReplyCode);
            number("reply_code()")
        }
        "$null" => Some(Value::Borrowed("\"\"".into())),
        _ => bracketed(name, context),
    }
}

/// `$hdr(X-Name)`, `$time(hour)`
fn bracketed(name: &str, context: &mut Context) -> Option<Value> {
    let (class, inner) = name.strip_prefix('$')?.strip_suffix(')')?.split_once('(')?;
    match class {
        "hdr" if is_header(inner) => Some(Value::Owned(format!(
            "request::header({inner:?}).unwrap_or_default()"
        ))),
        "time" | "utime" => {
            let field = match inner {
                "sec" => "second",
                "min" => "minute",
                "hour" => "hour",
                "mday" => "day",
                "mon" => "month",
                "year" => "year",
                // 1 is Sunday there, and Monday here.
                "wday" => "weekday % 7 + 1",
                _ => return None,
            };
            let zone = if class == "time" {
                context.need(Helper::Zone);
                "ZONE"
            } else {
                "\"UTC\""
            };
            context.need(Helper::Now);
            Some(Value::Number(format!("i64::from(now({zone}).{field})")))
        }
        _ => None,
    }
}

/// A keyword of the core.
fn keyword(word: &str, context: &mut Context) -> Option<Value> {
    let name = match word {
        "method" => "$rm",
        "uri" => "$ru",
        "from_uri" => "$fu",
        "to_uri" => "$tu",
        "src_ip" => "$si",
        "src_port" => "$sp",
        "dst_ip" => "$Ri",
        "dst_port" => "$Rp",
        _ => return None,
    };
    variable(name, context)
}

/// The arguments of `format!` for a text with pseudo-variables, as in `xlog`; a variable without counterpart stays as it is written.
pub(super) fn formatted(text: &str, context: &mut Context) -> (String, String, Vec<String>) {
    let (mut format, mut arguments, mut unknown) = (String::new(), String::new(), Vec::new());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        format.push_str(&braced(&rest[..at]));
        rest = &rest[at..];
        let length = variable_length(rest);
        let name = &rest[..length];
        let plain = name
            .strip_prefix("$(")
            .and_then(|name| name.strip_suffix(')'));
        let plain = plain.map(|name| format!("${name}"));
        match variable(plain.as_deref().unwrap_or(name), context) {
            _ if name == "$$" => format.push('$'),
            Some(value) => {
                format.push_str("{}");
                arguments.push_str(&format!(", {}", value.code()));
            }
            None => {
                format.push_str(&braced(name));
                unknown.push(name.to_owned());
            }
        }
        rest = &rest[length..];
    }
    format.push_str(&braced(rest));
    (format, arguments, unknown)
}

/// The length of the variable at the beginning of the text.
fn variable_length(text: &str) -> usize {
    let behind = &text[1..];
    if behind.starts_with('$') {
        return 2;
    }
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let name = behind.find(|c| !is_name(c)).unwrap_or(behind.len());
    let mut depth = 0_i32;
    if !behind[name..].starts_with('(') {
        return 1 + name;
    }
    for (at, letter) in behind[name..].char_indices() {
        match letter {
            '(' => depth += 1,
            ')' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return 1 + name + at + 1;
        }
    }
    text.len()
}

/// Braces as `format!` needs them.
pub(super) fn braced(text: &str) -> String {
    text.replace('{', "{{").replace('}', "}}")
}

/// Whether this is the name of a header field.
pub(super) fn is_header(name: &str) -> bool {
    let is_token = |c: char| c.is_ascii_alphanumeric() || "-.!%*_+`'~".contains(c);
    !name.is_empty() && name.chars().all(is_token)
}
