//! Conditions about the failure of a request: the functions of `tm` that a failure route asks.

use regex::RegexBuilder;

use super::context::{Context, Helper, Part};
use super::pattern::Matching;
use super::syntax::{Call, Term};

/// A function of `tm` in this line; `None` if there is no counterpart.
pub(super) fn after_failure(call: &Call, line: usize, context: &mut Context) -> Option<String> {
    let (code, helper) = match (&*call.name, &call.arguments[..]) {
        ("t_check_status", [pattern]) => {
            let (Term::Text(pattern) | Term::Word(pattern)) = &pattern.term else {
                return None;
            };
            return has_code(pattern, context);
        }
        ("t_branch_timeout", []) => ("branch_timeout()".to_owned(), Helper::BranchTimeout),
        ("t_branch_replied", []) => {
            context.need(Helper::Untranslated);
            (format!("branch_replied({line})?"), Helper::BranchReplied)
        }
        ("t_any_timeout", []) => ("any_timeout()".to_owned(), Helper::AnyTimeout),
        // `t_grep_status` and `t_any_replied` do not count the response at hand, but those before it of the same target.
        // The host does not call a policy then.
        ("t_is_canceled" | "t_is_expired", []) => return Some("false".into()),
        ("t_is_failure_route", []) if context.has(Part::FailureRoute) => {
            return Some("self.begin.is_some()".into());
        }
        ("t_is_failure_route", []) => return Some("false".into()),
        _ => return None,
    };
    context.need(helper);
    Some(code)
}

/// Whether the code of the best response matches a pattern.
pub(super) fn has_code(pattern: &str, context: &mut Context) -> Option<String> {
    let codes = codes(pattern)?;
    if codes.is_empty() {
        return Some("false".into());
    }
    context.need(Helper::ReplyCode);
    Some(format!("matches!(reply_code(), {codes})"))
}

/// The codes of failures that a pattern matches, as a pattern of Rust; empty if there is none.
fn codes(pattern: &str) -> Option<String> {
    // What both understand: POSIX, without what only `regex` has.
    Matching::of(pattern).filter(|_| !pattern.contains('\\'))?;
    let regex = RegexBuilder::new(pattern)
        .case_insensitive(true)
        .multi_line(true)
        .size_limit(LARGEST_PATTERN)
        .build()
        .ok()?;
    let mut ranges: Vec<(u16, u16)> = Vec::new();
    for code in (300..=699).filter(|code: &u16| regex.is_match(&code.to_string())) {
        match ranges.last_mut() {
            Some((_, last)) if *last + 1 == code => *last = code,
            _ => ranges.push((code, code)),
        }
    }
    let ranges = ranges.iter().map(|(first, last)| match first == last {
        true => first.to_string(),
        false => format!("{first}..={last}"),
    });
    let ranges: Vec<_> = ranges.collect();
    Some(ranges.join(" | "))
}

/// Memory limit of a compiled pattern, in bytes.
const LARGEST_PATTERN: usize = 1 << 20;

#[cfg(test)]
mod tests {
    use super::codes;

    #[test]
    fn a_pattern_becomes_the_codes_that_it_matches() {
        for (pattern, expected) in [
            ("408", "408"),
            ("408|5[0-9][0-9]", "408 | 500..=599"),
            ("486|408", "408 | 486"),
            ("^[45]", "400..=599"),
            ("^48[0-7]$", "480..=487"),
            ("[[:digit:]]", "300..=699"),
            (".", "300..=699"),
            ("", "300..=699"),
            ("200", ""),
            ("^4.[1-24]$|603", CODES_WITH_GAPS),
        ] {
            assert_eq!(codes(pattern).as_deref(), Some(expected), "{pattern}");
        }
        for other in ["(", "[", "5\\d\\d", "5(?:0)", "(4)\\1"] {
            assert_eq!(codes(other), None, "{other}");
        }
    }

    const CODES_WITH_GAPS: &str = "401..=402 | 404 | 411..=412 | 414 | 421..=422 | 424 | 431..=432 | 434 | 441..=442 | 444 | 451..=452 | 454 | \
                                   461..=462 | 464 | 471..=472 | 474 | 481..=482 | 484 | 491..=492 | 494 | 603";
}
