//! The routing logic as a tree.

use crate::finding::{Place, excerpt};
use crate::lexer::Kind;
use crate::preprocessor::Token;

/// A route with its statements.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Route {
    pub(super) place: Place,
    /// `request_route`, `route`, `failure_route`, …
    pub(super) kind: String,
    /// The name in brackets; empty without one.
    pub(super) name: String,
    pub(super) body: Vec<Statement>,
}

/// A statement as written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Statement {
    pub(super) place: Place,
    /// The text for a comment: one line, of limited length.
    pub(super) text: String,
    pub(super) action: Action,
}

/// What a statement does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Action {
    /// `if (…) … else …`
    If {
        condition: Expression,
        then: Vec<Statement>,
        otherwise: Vec<Statement>,
    },
    /// `{ … }`
    Block(Vec<Statement>),
    /// `name(…);`
    Call(Call),
    /// `$variable = …;`
    Assign { variable: String, value: Expression },
    /// `exit;` and `drop;`
    Exit,
    /// `return;` with its number, 1 without one.
    Return(i64),
    /// Anything else.
    Other,
}

/// A call of a function.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Call {
    pub(super) name: String,
    pub(super) arguments: Vec<Expression>,
}

/// An expression as written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Expression {
    pub(super) place: Place,
    /// The text for a comment: one line, of limited length.
    pub(super) text: String,
    pub(super) term: Term,
}

/// What an expression computes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Term {
    /// `a || b`
    Or(Box<Expression>, Box<Expression>),
    /// `a && b`
    And(Box<Expression>, Box<Expression>),
    /// `!a`
    Not(Box<Expression>),
    /// `a == b` and its kind
    Compare(Operator, Box<Expression>, Box<Expression>),
    /// `a + b`
    Sum(Vec<Expression>),
    /// `name(…)`
    Call(Call),
    /// `"…"`
    Text(String),
    /// `$…`
    Variable(String),
    /// A word or a number.
    Word(String),
    /// `10.0.0.0/8`
    Address(String),
    /// Anything else.
    Other,
}

/// An operator between two values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operator {
    Equal,
    Different,
    Matches,
    MatchesNot,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

impl Operator {
    /// In Rust; a match is a comparison with the result of a matcher.
    pub(super) fn as_rust(self) -> &'static str {
        match self {
            Self::Equal | Self::Matches => "==",
            Self::Different | Self::MatchesNot => "!=",
            Self::Less => "<",
            Self::LessOrEqual => "<=",
            Self::Greater => ">",
            Self::GreaterOrEqual => ">=",
        }
    }
}

impl Expression {
    /// The text or word, if the value is known without a request.
    pub(super) fn literal(&self) -> Option<&str> {
        match &self.term {
            Term::Text(text) if !text.contains('$') => Some(text),
            Term::Word(word) => Some(word),
            Term::Text(_)
            | Term::Or(..)
            | Term::And(..)
            | Term::Not(_)
            | Term::Compare(..)
            | Term::Sum(_)
            | Term::Call(_)
            | Term::Variable(_)
            | Term::Address(_)
            | Term::Other => None,
        }
    }
}

/// The tokens as text on one line, of limited length.
pub(super) fn text_of(tokens: &[Token]) -> String {
    /// Tokens beyond the length of an excerpt need not be written.
    const MOST: usize = 100;
    let mut text = String::new();
    for (at, token) in tokens.iter().take(MOST).enumerate() {
        if token.spaced && at > 0 {
            text.push(' ');
        }
        match &token.kind {
            Kind::Word(part) | Kind::Variable(part) => text.push_str(part),
            Kind::Text(part) => text.push_str(&format!("{part:?}")),
            Kind::Sign(sign) => text.push(*sign),
            Kind::Directive { name, rest } => text.push_str(&format!("#!{name} {rest}")),
            Kind::Unclosed(what) => text.push_str(what),
        }
    }
    // A comment must not change the direction of what follows.
    let is_direction = |c: char| matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    excerpt(&text).replace(is_direction, "?")
}
