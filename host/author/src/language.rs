//! The languages that policies are written in.

use std::fmt;
use std::str::FromStr;

use serde::Deserialize;

/// A language with a template and a build.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum Language {
    /// Rust, with the SDK.
    Rust,
    /// C, with generated bindings.
    C,
    /// Zig, with bindings by hand.
    Zig,
    /// AssemblyScript, with bindings by hand.
    AssemblyScript,
    /// Go, with bindings by hand.
    Go,
    /// JavaScript, in an interpreter.
    JavaScript,
    /// Python, in an interpreter.
    Python,
}

/// The text names no language.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no language of policies: choose rust, c, zig, assemblyscript, go, js or python")]
pub struct UnknownLanguage(String);

impl Language {
    /// All languages.
    pub const ALL: [Self; 7] = [
        Self::Rust,
        Self::C,
        Self::Zig,
        Self::AssemblyScript,
        Self::Go,
        Self::JavaScript,
        Self::Python,
    ];

    /// The word on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Rust => "rust",
            Self::C => "c",
            Self::Zig => "zig",
            Self::AssemblyScript => "assemblyscript",
            Self::Go => "go",
            Self::JavaScript => "js",
            Self::Python => "python",
        }
    }
}

impl fmt::Display for Language {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Rust => "Rust",
            Self::C => "C",
            Self::Zig => "Zig",
            Self::AssemblyScript => "AssemblyScript",
            Self::Go => "Go",
            Self::JavaScript => "JavaScript",
            Self::Python => "Python",
        })
    }
}

impl FromStr for Language {
    type Err = UnknownLanguage;

    fn from_str(text: &str) -> Result<Self, UnknownLanguage> {
        match text.to_ascii_lowercase().as_str() {
            "as" | "ts" | "typescript" => return Ok(Self::AssemblyScript),
            "javascript" => return Ok(Self::JavaScript),
            "golang" => return Ok(Self::Go),
            "py" => return Ok(Self::Python),
            _ => {}
        }
        let named = |one: &Self| one.name().eq_ignore_ascii_case(text);
        let found = Self::ALL.into_iter().find(named);
        found.ok_or_else(|| UnknownLanguage(text.to_owned()))
    }
}

impl TryFrom<String> for Language {
    type Error = UnknownLanguage;

    fn try_from(text: String) -> Result<Self, UnknownLanguage> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_language_has_one_word() {
        for language in Language::ALL {
            assert_eq!(language.name().parse(), Ok(language));
        }
        assert_eq!("as".parse(), Ok(Language::AssemblyScript));
        assert_eq!("JavaScript".parse(), Ok(Language::JavaScript));
        let error = "cobol"
            .parse::<Language>()
            .expect_err("there is no such language");
        assert!(error.to_string().contains("`cobol`"), "{error}");
    }
}
