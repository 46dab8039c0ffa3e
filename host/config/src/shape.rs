//! Which values a key may have, for editors and for the reference.

use std::fmt;

use serde_json::{Value as Json, json};

/// Which values a key may have, as far as that can be said of the value alone. The parsers of values state it in their errors, so that it is what
/// they read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    /// A string. What else must hold for it depends on the key.
    Text,
    /// `true` or `false`.
    Boolean,
    /// A whole number from the first value to the second; `None` if another key limits it.
    Number(u64, Option<u64>),
    /// A time with its unit.
    Duration,
    /// A size with its unit, or a number of bytes.
    Size,
    /// A percentage.
    Share,
    /// A number of calls: `"1000 calls"`.
    Calls,
    /// One of these strings.
    OneOf(&'static [&'static str]),
    /// A list. Its items have a shape of their own.
    List,
    /// Any of these.
    Any(Vec<Self>),
}

impl Shape {
    /// Whether a list is permitted.
    pub(super) fn has_lists(&self) -> bool {
        match self {
            Self::List => true,
            Self::Any(shapes) => shapes.iter().any(Self::has_lists),
            Self::Text
            | Self::Boolean
            | Self::Number(..)
            | Self::Duration
            | Self::Size
            | Self::Share
            | Self::Calls
            | Self::OneOf(_) => false,
        }
    }

    /// Returns the same without the most that a number may be.
    pub(super) fn unlimited(self) -> Self {
        match self {
            Self::Number(least, _) => Self::Number(least, None),
            Self::Any(shapes) => Self::Any(shapes.into_iter().map(Self::unlimited).collect()),
            same @ (Self::Text
            | Self::Boolean
            | Self::Duration
            | Self::Size
            | Self::Share
            | Self::Calls
            | Self::OneOf(_)
            | Self::List) => same,
        }
    }

    /// Returns the JSON schema of the values. `items` is that of the items of a list.
    pub(super) fn schema(&self, items: Option<&Self>) -> Json {
        match self {
            Self::Text => json!({"type": "string"}),
            Self::Boolean => json!({"type": "boolean"}),
            Self::Number(least, None) => json!({"type": "integer", "minimum": least}),
            Self::Number(least, Some(most)) => {
                json!({"type": "integer", "minimum": least, "maximum": most})
            }
            Self::Duration => pattern("^[0-9]+ *(us|µs|ms|s|m|h)$"),
            Self::Size => json!({"anyOf": [
                pattern("^[0-9]+ *(B|KiB|MiB|GiB)$"),
                {"type": "integer", "minimum": 0},
            ]}),
            Self::Share => pattern("^[0-9]+([.][0-9]+)?%$"),
            Self::Calls => pattern("^[0-9]+ calls?$"),
            Self::OneOf(words) => json!({"enum": words}),
            Self::List => {
                let items = items.map_or_else(|| json!({}), |items| items.schema(None));
                json!({"type": "array", "items": items})
            }
            Self::Any(shapes) => {
                let any: Vec<_> = shapes.iter().map(|shape| shape.schema(items)).collect();
                json!({"anyOf": any})
            }
        }
    }
}

/// For the reference: "a whole number from 1 to 1024, or \"auto\"".
impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text => f.write_str("a string"),
            Self::Boolean => f.write_str("true or false"),
            Self::Number(0, None) => f.write_str("a whole number"),
            Self::Number(least, None) => write!(f, "a whole number from {least}"),
            Self::Number(least, Some(most)) => write!(f, "a whole number from {least} to {most}"),
            Self::Duration => f.write_str("a duration"),
            Self::Size => f.write_str("a size"),
            Self::Share => f.write_str("a percentage"),
            Self::Calls => f.write_str("a number of calls"),
            Self::OneOf(words) => {
                for (at, word) in words.iter().enumerate() {
                    let separator = match at {
                        0 => "",
                        _ if at + 1 == words.len() => " or ",
                        _ => ", ",
                    };
                    write!(f, "{separator}`\"{word}\"`")?;
                }
                Ok(())
            }
            Self::List => f.write_str("a list"),
            Self::Any(shapes) => {
                for (at, shape) in shapes.iter().enumerate() {
                    let separator = if at == 0 { "" } else { ", or " };
                    write!(f, "{separator}{shape}")?;
                }
                Ok(())
            }
        }
    }
}

fn pattern(pattern: &str) -> Json {
    json!({"type": "string", "pattern": pattern})
}
