//! Bracket expressions: `[a-z]`, `[^[:digit:]]`, `[[.-.]]` (POSIX, "RE Bracket Expression").

use super::error::{PatternError, invalid};
use super::set::ByteSet;

/// Reader of a bracket expression, after the `[`.
pub(super) struct Bracket<'p> {
    pattern: &'p [u8],
    at: usize,
    /// Whether case is ignored.
    fold: bool,
}

/// An element of the bracket expression.
enum Element {
    Byte(u8),
    Set(ByteSet),
}

/// The next token.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Token {
    /// `[.`, `[=` or `[:`, by its second character.
    Open(u8),
    /// `-`
    Range,
    Close,
    Byte(u8),
}

impl<'p> Bracket<'p> {
    /// Reads the set at `at`; also returns the position after it.
    pub(super) fn read(
        pattern: &'p [u8],
        at: usize,
        fold: bool,
    ) -> Result<(ByteSet, usize), PatternError> {
        let mut bracket = Self { pattern, at, fold };
        let set = bracket.set()?;
        Ok((set, bracket.at))
    }

    fn set(&mut self) -> Result<ByteSet, PatternError> {
        let is_negated = self.pattern.get(self.at) == Some(&b'^');
        if is_negated {
            self.at += 1;
        }
        let mut set = ByteSet::default();
        let mut is_first = true;
        loop {
            let (token, length) = self.peek()?;
            if token == Token::Close && !is_first {
                self.at += length;
                break;
            }
            // A `]` directly after the `[` is a character.
            let token = if matches!(token, Token::Close) {
                Token::Byte(b']')
            } else {
                token
            };
            set = set.union(self.item(token, length, is_first)?);
            is_first = false;
        }
        // If case is ignored, texts and patterns are compared in upper case.
        let fold = self.fold;
        let set = match is_negated {
            true => set.complement(),
            false => set,
        };
        Ok(match fold {
            true => ByteSet::of(|byte| set.contains(byte.to_ascii_uppercase())),
            false => set,
        })
    }

    /// Reads one character, class or range.
    fn item(
        &mut self,
        token: Token,
        length: usize,
        is_first: bool,
    ) -> Result<ByteSet, PatternError> {
        let first = match self.element(token, length, is_first)? {
            Element::Set(set) => return Ok(set),
            Element::Byte(byte) => byte,
        };
        let (token, length) = self.peek()?;
        if token != Token::Range {
            return Ok(one(first));
        }
        let hyphen = self.at;
        self.at += length;
        let (token, length) = self.peek()?;
        if token == Token::Close {
            // A hyphen before the `]` is a character, and is read next.
            self.at = hyphen;
            return Ok(one(first));
        }
        match self.element(token, length, true)? {
            Element::Byte(last) if first <= last => {
                Ok(ByteSet::of(|byte| (first..=last).contains(&byte)))
            }
            Element::Byte(_) => Err(invalid("has a range that ends before it begins")),
            Element::Set(_) => Err(invalid("has a range that ends with a class")),
        }
    }

    fn element(
        &mut self,
        token: Token,
        length: usize,
        takes_hyphen: bool,
    ) -> Result<Element, PatternError> {
        self.at += length;
        match token {
            Token::Open(kind) => self.named(kind),
            Token::Range if !takes_hyphen && self.peek()?.0 != Token::Close => Err(invalid(
                "has a hyphen in brackets that is neither a range nor first or last",
            )),
            Token::Range => Ok(Element::Byte(b'-')),
            Token::Close => Ok(Element::Byte(b']')),
            Token::Byte(byte) => Ok(Element::Byte(self.folded(byte))),
        }
    }

    /// Reads `[:NAME:]`, `[.NAME.]` or `[=NAME=]`, after its second character.
    fn named(&mut self, kind: u8) -> Result<Element, PatternError> {
        let rest = self.pattern.get(self.at..).unwrap_or_default();
        let end = rest.windows(2).position(|two| two == [kind, b']']);
        let end = end.ok_or_else(unclosed)?;
        let name = &rest[..end];
        self.at += end + 2;
        match (kind, name) {
            (b':', name) => class(name, self.fold).map(Element::Set),
            (b'=', &[byte]) => Ok(Element::Set(one(self.folded(byte)))),
            (_, &[byte]) => Ok(Element::Byte(self.folded(byte))),
            _ => Err(invalid(
                "has a collating element that is not a single character",
            )),
        }
    }

    fn peek(&self) -> Result<(Token, usize), PatternError> {
        let rest = self.pattern.get(self.at..).unwrap_or_default();
        Ok(match rest {
            [] => return Err(unclosed()),
            [b'[', kind @ (b'.' | b'=' | b':'), ..] => (Token::Open(*kind), 2),
            [b'-', ..] => (Token::Range, 1),
            [b']', ..] => (Token::Close, 1),
            [byte, ..] => (Token::Byte(*byte), 1),
        })
    }

    fn folded(&self, byte: u8) -> u8 {
        match self.fold {
            true => byte.to_ascii_uppercase(),
            false => byte,
        }
    }
}

fn one(byte: u8) -> ByteSet {
    ByteSet::of(|other| other == byte)
}

fn class(name: &[u8], fold: bool) -> Result<ByteSet, PatternError> {
    let fits: fn(u8) -> bool = match name {
        b"upper" | b"lower" if fold => |byte| byte.is_ascii_alphabetic(),
        b"upper" => |byte| byte.is_ascii_uppercase(),
        b"lower" => |byte| byte.is_ascii_lowercase(),
        b"alpha" => |byte| byte.is_ascii_alphabetic(),
        b"digit" => |byte| byte.is_ascii_digit(),
        b"alnum" => |byte| byte.is_ascii_alphanumeric(),
        b"xdigit" => |byte| byte.is_ascii_hexdigit(),
        b"space" => is_space,
        b"blank" => |byte| matches!(byte, b' ' | b'\t'),
        b"punct" => |byte| byte.is_ascii_punctuation(),
        b"print" => |byte| matches!(byte, b' '..=b'~'),
        b"graph" => |byte| byte.is_ascii_graphic(),
        b"cntrl" => |byte| byte.is_ascii_control(),
        _ => return Err(invalid("has an unknown class of characters")),
    };
    Ok(ByteSet::of(fits))
}

/// `isspace` of the locale "C".
pub(super) fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t'..=b'\r')
}

fn unclosed() -> PatternError {
    invalid("has a [ without its ]")
}
