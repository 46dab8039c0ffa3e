//! `#!subst "/pattern/replacement/flags"`: a replacement that Kamailio applies to every quoted text of its configuration.

use regex::{Captures, Regex, RegexBuilder};

/// One rule.
///
/// Kamailio's patterns are POSIX extended regular expressions; here they are those of the `regex` crate. The two agree on what is used in
/// configurations: plain words, classes, groups, repetitions.
#[derive(Clone, Debug)]
pub(super) struct Substitution {
    pattern: Regex,
    replacement: String,
    all: bool,
}

/// The three parts of a rule, not compiled yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rule<'a> {
    pub(super) pattern: &'a str,
    pub(super) replacement: &'a str,
    flags: &'a str,
}

impl<'a> Rule<'a> {
    /// The parts of `/pattern/replacement/flags`; the first character is the separator.
    pub(super) fn split(text: &'a str) -> Option<Self> {
        let separator = text.chars().next().filter(|c| *c != '\\')?;
        let rest = &text[separator.len_utf8()..];
        let (pattern, rest) = split_unescaped(rest, separator)?;
        let (replacement, flags) = split_unescaped(rest, separator)?;
        (!pattern.is_empty()).then_some(Self {
            pattern,
            replacement,
            flags,
        })
    }

    /// The rule, ready for use.
    pub(super) fn compile(self) -> Result<Substitution, regex::Error> {
        let pattern = RegexBuilder::new(self.pattern)
            .case_insensitive(self.flags.contains('i'))
            .dot_matches_new_line(self.flags.contains('s'))
            .size_limit(LARGEST_PATTERN)
            .build()?;
        Ok(Substitution {
            pattern,
            replacement: self.replacement.to_owned(),
            all: self.flags.contains('g'),
        })
    }
}

impl Substitution {
    /// The text with the rule applied.
    pub(super) fn apply(&self, text: &str) -> String {
        let most = if self.all { 0 } else { 1 };
        let replacement = |found: &Captures<'_>| self.expand(found);
        self.pattern.replacen(text, most, replacement).into_owned()
    }

    /// The replacement with `\1` and the like substituted.
    fn expand(&self, found: &Captures<'_>) -> String {
        let mut text = String::new();
        let mut chars = self.replacement.chars();
        while let Some(c) = chars.next() {
            match c {
                '\\' => match chars.next() {
                    Some(digit @ '0'..='9') => {
                        let group = found.get(digit as usize - '0' as usize);
                        text += group.map_or("", |group| group.as_str());
                    }
                    Some('n') => text.push('\n'),
                    Some('r') => text.push('\r'),
                    Some('t') => text.push('\t'),
                    Some(other) => text.push(other),
                    None => text.push('\\'),
                },
                c => text.push(c),
            }
        }
        text
    }
}

fn split_unescaped(text: &str, separator: char) -> Option<(&str, &str)> {
    let is_end = |(at, _): &(usize, &str)| !text[..*at].ends_with('\\');
    let (at, _) = text.match_indices(separator).find(is_end)?;
    Some((&text[..at], &text[at + separator.len_utf8()..]))
}

/// Memory limit of a compiled pattern, in bytes.
const LARGEST_PATTERN: usize = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    fn applied(rule: &str, text: &str) -> String {
        Rule::split(rule).unwrap().compile().unwrap().apply(text)
    }

    #[test]
    fn rules_replace_as_their_flags_say() {
        assert_eq!(applied("/DB/10.0.0.1/", "DB DB"), "10.0.0.1 DB");
        assert_eq!(applied("!DB!a/b!g", "DB DB"), "a/b a/b");
        assert_eq!(applied("/db/x/i", "DB"), "x");
        assert_eq!(applied(r"/(a+)-(b)/\2-\1/", "xaa-by"), "xb-aay");
        assert_eq!(applied(r"/a\/b/c\/d/", "a/b"), "c/d");
        assert_eq!(applied("/a/$1/", "a"), "$1");
    }

    #[test]
    fn what_is_no_rule_is_refused() {
        for text in ["", "/", "/a", "/a/b", "//b/", r"\a\b\", "é"] {
            assert_eq!(Rule::split(text), None, "{text}");
        }
        assert!(Rule::split("/(/b/").unwrap().compile().is_err());
    }
}
