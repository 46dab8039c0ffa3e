//! Columns of rows that are shown as they are stored.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The value of a column that should be a number: a number if it is one, else its text. NULL is null.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Cell {
    /// A whole number.
    Number(i64),
    /// Something else, which no load uses.
    Text(String),
}

impl From<String> for Cell {
    fn from(text: String) -> Self {
        match text.parse::<i64>() {
            Ok(number) if number.to_string() == text => Self::Number(number),
            Ok(_) | Err(_) => Self::Text(text),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_a_number_and_everything_else_its_text() {
        let json = |text: &str| serde_json::to_string(&Cell::from(text.to_owned())).unwrap();
        for (text, expected) in [
            ("24", "24"),
            ("-1", "-1"),
            ("0", "0"),
            ("007", "\"007\""),
            (" 7", "\" 7\""),
            ("", "\"\""),
            ("18446744073709551615", "\"18446744073709551615\""),
        ] {
            assert_eq!(json(text), expected);
        }
    }
}
