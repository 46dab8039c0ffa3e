//! Regular expressions of a script (POSIX, extended, without case) as Rust.

use std::iter::Peekable;
use std::str::Chars;

/// The matcher that a policy needs for expressions that are more than a literal. Single characters repeat in a loop, because a policy has a
/// small stack.
pub(super) const MATCHER: &str = concat!("\n", include_str!("matcher.rs"));

/// The deepest nesting of groups, and the largest number in braces.
const DEEPEST: usize = 20;
const MOST: usize = 255;

/// A part of a regular expression.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Node {
    One(char),
    Any,
    Set(bool, Vec<(char, char)>),
    Start,
    End,
    Sequence(Vec<Self>),
    Choice(Vec<Self>),
    Repeat(Box<Self>, usize, usize),
}

/// A Rust expression of a pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Matching {
    /// A method of `str` with its argument.
    Method(&'static str, String),
    /// As above, of the text in lower case.
    Lower(&'static str, String),
    /// An expression for [`MATCHER`].
    Node(String),
}

impl Matching {
    /// Translates a pattern; `None` if it has something that is not POSIX, or not translated.
    pub(super) fn of(pattern: &str) -> Option<Self> {
        let mut parser = Parser {
            rest: pattern.chars().peekable(),
            depth: 0,
        };
        let node = parser.choice()?;
        if parser.rest.next().is_some() {
            return None;
        }
        Some(literal(&node).unwrap_or_else(|| Self::Node(rust(&node))))
    }
}

/// A pattern without anything but letters and anchors.
fn literal(node: &Node) -> Option<Matching> {
    let Node::Sequence(nodes) = node else {
        return None;
    };
    let (nodes, is_start) = match nodes.split_first() {
        Some((Node::Start, rest)) => (rest, true),
        _ => (&nodes[..], false),
    };
    let (nodes, is_end) = match nodes.split_last() {
        Some((Node::End, rest)) => (rest, true),
        _ => (nodes, false),
    };
    let letters = nodes.iter().map(|node| match node {
        Node::One(letter) => Some(*letter),
        Node::Any
        | Node::Set(..)
        | Node::Start
        | Node::End
        | Node::Sequence(_)
        | Node::Choice(_)
        | Node::Repeat(..) => None,
    });
    let text = letters.collect::<Option<String>>()?;
    let method = match (is_start, is_end) {
        (true, true) => "eq",
        (true, false) => "starts_with",
        (false, true) => "ends_with",
        (false, false) => "contains",
    };
    let has_letters = text.chars().any(|c| c.is_ascii_alphabetic());
    Some(match has_letters {
        true => Matching::Lower(method, text),
        false => Matching::Method(method, text),
    })
}

fn rust(node: &Node) -> String {
    let list = |nodes: &[Node]| nodes.iter().map(rust).collect::<Vec<_>>().join(", ");
    let sequence = |nodes: &[Node]| {
        let is_letter = |node: &Node| matches!(node, Node::One(_));
        let runs = nodes.chunk_by(|one, next| is_letter(one) && is_letter(next));
        let parts: Vec<_> = runs
            .map(|run| text_of(run).unwrap_or_else(|| list(run)))
            .collect();
        match &parts[..] {
            [part] => part.clone(),
            parts => format!("Node::Sequence(&[{}])", parts.join(", ")),
        }
    };
    match node {
        Node::One(letter) => format!("Node::One({letter:?})"),
        Node::Any => "Node::Any".into(),
        Node::Set(is_negated, ranges) => format!("Node::Set({is_negated}, &{ranges:?})"),
        Node::Start => "Node::Start".into(),
        Node::End => "Node::End".into(),
        Node::Sequence(nodes) => sequence(nodes),
        Node::Choice(nodes) => format!("Node::Choice(&[{}])", list(nodes)),
        Node::Repeat(inner, least, usize::MAX) => {
            format!("Node::Repeat(&{}, {least}, usize::MAX)", rust(inner))
        }
        Node::Repeat(inner, least, most) => {
            format!("Node::Repeat(&{}, {least}, {most})", rust(inner))
        }
    }
}

/// Several letters.
fn text_of(run: &[Node]) -> Option<String> {
    let letters = run.iter().map(|node| match node {
        Node::One(letter) => Some(*letter),
        Node::Any
        | Node::Set(..)
        | Node::Start
        | Node::End
        | Node::Sequence(_)
        | Node::Choice(_)
        | Node::Repeat(..) => None,
    });
    let text = letters.collect::<Option<String>>()?;
    (run.len() > 1).then(|| format!("Node::Text({text:?})"))
}

struct Parser<'t> {
    rest: Peekable<Chars<'t>>,
    depth: usize,
}

impl Parser<'_> {
    fn choice(&mut self) -> Option<Node> {
        if self.depth >= DEEPEST {
            return None;
        }
        self.depth += 1;
        let mut choices = vec![self.sequence()?];
        while self.rest.next_if_eq(&'|').is_some() {
            choices.push(self.sequence()?);
        }
        self.depth -= 1;
        match choices.len() {
            1 => choices.pop(),
            _ => Some(Node::Choice(choices)),
        }
    }

    fn sequence(&mut self) -> Option<Node> {
        let mut nodes = Vec::new();
        while let Some(letter) = self.rest.next_if(|c| !matches!(c, '|' | ')')) {
            let node = self.single(letter)?;
            nodes.push(self.repeated(node)?);
        }
        Some(Node::Sequence(nodes))
    }

    fn single(&mut self, letter: char) -> Option<Node> {
        match letter {
            '^' => Some(Node::Start),
            '$' => Some(Node::End),
            '.' => Some(Node::Any),
            '(' => {
                let inner = self.choice()?;
                self.rest.next_if_eq(&')')?;
                Some(inner)
            }
            '[' => self.set(),
            // `\d`, `\w` and back-references are not POSIX.
            '\\' => {
                let escaped = self.rest.next()?;
                (!escaped.is_alphanumeric()).then_some(Node::One(escaped))
            }
            '*' | '+' | '?' | '{' => None,
            letter => Some(Node::One(letter.to_ascii_lowercase())),
        }
    }

    fn repeated(&mut self, node: Node) -> Option<Node> {
        let (least, most) = match self.rest.peek() {
            Some('*') => (0, usize::MAX),
            Some('+') => (1, usize::MAX),
            Some('?') => (0, 1),
            Some('{') => return self.counted(node),
            _ => return Some(node),
        };
        self.rest.next();
        // `a**` means `a*`, but a repeated anchor is nonsense.
        let is_repeatable = !matches!(node, Node::Start | Node::End | Node::Repeat(..));
        is_repeatable.then(|| Node::Repeat(Box::new(node), least, most))
    }

    /// `{2}`, `{2,}`, `{2,5}`
    fn counted(&mut self, node: Node) -> Option<Node> {
        self.rest.next();
        let mut text = String::new();
        while let Some(letter) = self.rest.next_if(|c| *c != '}') {
            text.push(letter);
        }
        self.rest.next()?;
        let (least, most) = match text.split_once(',') {
            Some((least, "")) => (least.parse().ok()?, usize::MAX),
            Some((least, most)) => (least.parse().ok()?, most.parse().ok()?),
            None => {
                let count = text.parse().ok()?;
                (count, count)
            }
        };
        let is_valid = least <= most && least <= MOST && (most <= MOST || most == usize::MAX);
        is_valid.then(|| Node::Repeat(Box::new(node), least, most))
    }

    fn set(&mut self) -> Option<Node> {
        let is_negated = self.rest.next_if_eq(&'^').is_some();
        let mut ranges = Vec::new();
        loop {
            let letter = self.rest.next()?;
            match letter {
                // A bracket that comes first is a letter.
                ']' if !ranges.is_empty() => return Some(Node::Set(is_negated, ranges)),
                '[' if self.rest.peek() == Some(&':') => ranges.extend(self.class()?),
                '[' if matches!(self.rest.peek(), Some('.' | '=')) => return None,
                from => ranges.push((from, self.range_end(from)?)),
            }
        }
    }

    /// The end of `a-z`; of a single letter, that letter.
    fn range_end(&mut self, from: char) -> Option<char> {
        let mut ahead = self.rest.clone();
        let is_range = ahead.next() == Some('-') && ahead.next().is_some_and(|c| c != ']');
        if !is_range {
            return Some(from);
        }
        self.rest.next();
        self.rest.next().filter(|to| *to >= from)
    }

    /// `[:digit:]` within a set.
    fn class(&mut self) -> Option<Vec<(char, char)>> {
        self.rest.next();
        let mut name = String::new();
        while let Some(letter) = self.rest.next_if(char::is_ascii_lowercase) {
            name.push(letter);
        }
        let is_closed = self.rest.next() == Some(':') && self.rest.next() == Some(']');
        let ranges: &[(char, char)] = match (is_closed, &*name) {
            (true, "digit") => &[('0', '9')],
            (true, "alpha" | "lower" | "upper") => &[('a', 'z'), ('A', 'Z')],
            (true, "alnum") => &[('0', '9'), ('a', 'z'), ('A', 'Z')],
            (true, "xdigit") => &[('0', '9'), ('a', 'f'), ('A', 'F')],
            (true, "space") => &[(' ', ' '), ('\t', '\r')],
            _ => return None,
        };
        Some(ranges.to_vec())
    }
}

/// The matcher, to be tested as a policy has it.
#[cfg(test)]
#[expect(
    clippy::use_self,
    clippy::wildcard_enum_match_arm,
    reason = "the text is part of a policy, which has no such lints"
)]
mod matcher {
    include!("matcher.rs");

    #[test]
    fn groups_that_may_be_empty_repeat() {
        // (a?)+b
        let repeated = Node::Sequence(&[
            Node::Repeat(&Node::Repeat(&Node::One('a'), 0, 1), 1, usize::MAX),
            Node::One('b'),
        ]);
        // ^(x|a*){3}$
        let counted = Node::Sequence(&[
            Node::Start,
            Node::Repeat(
                &Node::Choice(&[Node::One('x'), Node::Repeat(&Node::One('a'), 0, usize::MAX)]),
                3,
                3,
            ),
            Node::End,
        ]);
        for (text, is_repeated, is_counted) in [
            ("b", true, false),
            ("ab", true, false),
            ("AAB", true, false),
            ("cb", true, false),
            ("aa", false, true),
            ("", false, true),
            ("xax", false, true),
            ("xaxa", false, false),
        ] {
            assert_eq!(matches(text, &repeated), is_repeated, "{text}");
            assert_eq!(matches(text, &counted), is_counted, "{text}");
        }
    }

    #[test]
    fn words_texts_and_ends_match_without_case() {
        let exact = Node::Sequence(&[Node::Start, Node::Text("friendly"), Node::Any, Node::End]);
        assert!(matches("Friendly!", &exact));
        assert!(!matches("friendly", &exact));
        let digits = Node::Repeat(&Node::Set(false, &[('0', '9')]), 2, 3);
        assert!(matches("a12", &digits));
        assert!(!matches("a1b2", &digits));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn literals_are_methods_of_str() {
        let method = |name, text: &str| Some(Matching::Method(name, text.into()));
        assert_eq!(Matching::of("^00"), method("starts_with", "00"));
        assert_eq!(Matching::of("^\\+49$"), method("eq", "+49"));
        assert_eq!(Matching::of("112$"), method("ends_with", "112"));
        let lower = Matching::Lower("contains", "friendly-scanner".into());
        assert_eq!(Matching::of("Friendly-Scanner"), Some(lower));
    }

    #[test]
    fn expressions_are_nodes() {
        let node = |pattern: &str| match Matching::of(pattern) {
            Some(Matching::Node(text)) => text,
            other => panic!("{pattern}: {other:?}"),
        };
        assert_eq!(
            node("^[0-9]{3,}$"),
            "Node::Sequence(&[Node::Start, Node::Repeat(&Node::Set(false, &[('0', '9')]), 3, usize::MAX), Node::End])"
        );
        assert_eq!(
            node("a|b"),
            "Node::Choice(&[Node::One('a'), Node::One('b')])"
        );
        assert_eq!(
            node("^(112|9)$"),
            "Node::Sequence(&[Node::Start, Node::Choice(&[Node::Text(\"112\"), Node::One('9')]), Node::End])"
        );
        assert!(node("^[[:digit:]-]+").contains("Node::Set(false, &[('0', '9'), ('-', '-')])"));
        assert!(node("[]^]").contains("&[(']', ']'), ('^', '^')]"));
    }

    #[test]
    fn what_is_not_posix_is_not_translated() {
        for pattern in [
            "\\d+", "(a", "a)", "*a", "[a", "a{2", "[[.x.]]", "a{1000}", "^*", "(a)\\1",
        ] {
            assert_eq!(Matching::of(pattern), None, "{pattern}");
        }
        assert_eq!(Matching::of(&"(".repeat(10_000)), None);
    }
}
