//! Translates POSIX to the engine's syntax, token by token. What POSIX leaves undefined is read as by the GNU C library.

use std::fmt::Write as _;

use super::bracket::{Bracket, is_space};
use super::error::{PatternError, invalid};
use super::set::ByteSet;

/// Deepest nesting of groups.
const DEEPEST: usize = 100;

/// Largest number in an interval (`RE_DUP_MAX`).
const MOST_TIMES: u32 = 0x7fff;

/// The POSIX syntax of a pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Syntax {
    /// Basic, case-sensitive: the columns of the table `trusted`.
    Basic,
    /// Extended, case-insensitive: the rules files.
    Extended,
}

/// Translates a pattern to the engine's syntax, to be compiled without Unicode.
pub(super) fn translate(pattern: &[u8], syntax: Syntax) -> Result<String, PatternError> {
    let mut parser = Parser {
        pattern,
        at: 0,
        token: Token::End,
        is_basic: syntax == Syntax::Basic,
        fold: syntax == Syntax::Extended,
        depth: 0,
    };
    parser.next(true);
    parser.alternation()
}

/// A token of the pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Token {
    End,
    /// A character; after a backslash, its case is not ignored.
    Byte {
        byte: u8,
        is_escaped: bool,
    },
    Any,
    Bracket,
    /// `\w`, `\W`, `\s`, `\S`, and whether it is the complement.
    Word(bool),
    Space(bool),
    /// An anchor, in the engine's syntax. It cannot be repeated.
    Anchor(&'static str),
    Open,
    Close,
    Or,
    Star,
    Plus,
    Question,
    OpenInterval,
    CloseInterval,
    BackReference(u8),
    /// A backslash at the end of the pattern.
    Backslash,
}

struct Parser<'p> {
    pattern: &'p [u8],
    /// Position after the token.
    at: usize,
    token: Token,
    is_basic: bool,
    fold: bool,
    depth: usize,
}

impl Parser<'_> {
    /// Reads branches separated by `|`.
    fn alternation(&mut self) -> Result<String, PatternError> {
        let mut out = self.branch()?;
        while self.token == Token::Or {
            self.next(true);
            out.push('|');
            out += &self.branch()?;
        }
        Ok(out)
    }

    /// Reads a sequence of expressions.
    fn branch(&mut self) -> Result<String, PatternError> {
        let mut out = String::new();
        loop {
            let is_end = matches!(self.token, Token::End | Token::Or)
                || (self.token == Token::Close && self.depth > 0);
            if is_end {
                return Ok(out);
            }
            out += &self.expression()?;
        }
    }

    /// Reads one expression with its repetition.
    fn expression(&mut self) -> Result<String, PatternError> {
        let mut atom = String::new();
        match self.token {
            Token::Anchor(anchor) => {
                self.next(false);
                return Ok(anchor.to_owned());
            }
            Token::Byte { byte, is_escaped } => self.write_byte(byte, is_escaped, &mut atom),
            Token::Any => atom.push('.'),
            Token::Word(is_not) => write_class(
                |b| b.is_ascii_alphanumeric() || b == b'_',
                is_not,
                &mut atom,
            ),
            Token::Space(is_not) => write_class(is_space, is_not, &mut atom),
            Token::Bracket => {
                let (set, at) = Bracket::read(self.pattern, self.at, self.fold)?;
                set.write(&mut atom);
                self.at = at;
            }
            Token::Open => {
                atom = self.group()?;
            }
            Token::BackReference(digit) => {
                return Err(PatternError {
                    fault: format!("has a back-reference, \\{}", char::from(digit)),
                    mend: "write out what it refers to: back-references are not supported, because they can take exponential time",
                });
            }
            Token::Backslash => return Err(invalid("ends with a backslash")),
            Token::OpenInterval if self.is_basic => return Err(nothing_to_repeat()),
            Token::Star | Token::Plus | Token::Question | Token::OpenInterval if !self.is_basic => {
                return Err(nothing_to_repeat());
            }
            Token::Close if self.is_basic => return Err(invalid("has a \\) without its \\(")),
            // Where there is nothing to repeat or to close, these are ordinary characters.
            Token::Star => self.write_byte(b'*', false, &mut atom),
            Token::Plus => self.write_byte(b'+', false, &mut atom),
            Token::Question => self.write_byte(b'?', false, &mut atom),
            Token::Close => self.write_byte(b')', false, &mut atom),
            Token::OpenInterval | Token::CloseInterval => self.write_byte(b'}', false, &mut atom),
            Token::End | Token::Or => return Ok(atom),
        }
        self.next(false);
        self.repeated(atom)
    }

    /// Reads the content of parentheses; the current token is then the closing one.
    fn group(&mut self) -> Result<String, PatternError> {
        if self.depth == DEEPEST {
            return Err(invalid("has too many nested groups"));
        }
        self.depth += 1;
        self.next(true);
        let inside = self.alternation()?;
        self.depth -= 1;
        if self.token != Token::Close {
            return Err(invalid("has a ( without its )"));
        }
        Ok(format!("(?:{inside})"))
    }

    fn repeated(&mut self, mut atom: String) -> Result<String, PatternError> {
        loop {
            let times = match self.token {
                Token::Star => "*".to_owned(),
                Token::Plus => "+".to_owned(),
                Token::Question => "?".to_owned(),
                Token::OpenInterval => self.interval()?,
                Token::End
                | Token::Byte { .. }
                | Token::Any
                | Token::Bracket
                | Token::Word(_)
                | Token::Space(_)
                | Token::Anchor(_)
                | Token::Open
                | Token::Close
                | Token::Or
                | Token::CloseInterval
                | Token::BackReference(_)
                | Token::Backslash => return Ok(atom),
            };
            self.next(false);
            atom = match &*times {
                "{0}" | "{0,0}" => "(?:)".to_owned(),
                times => format!("(?:{atom}){times}"),
            };
            if self.is_basic && matches!(self.token, Token::Star | Token::OpenInterval) {
                return Err(invalid("repeats a repetition without a group around it"));
            }
        }
    }

    /// Reads the content of braces in the engine's syntax; the current token is then the closing one.
    fn interval(&mut self) -> Result<String, PatternError> {
        let least = self.number()?;
        let is_range = matches!(
            self.token,
            Token::Byte {
                byte: b',',
                is_escaped: false
            }
        );
        let most = match is_range {
            true => self.number()?,
            false => least,
        };
        if self.token != Token::CloseInterval {
            return Err(invalid("has an interval that is not one or two numbers"));
        }
        if least.is_none() && !is_range {
            return Err(invalid("has an interval without a number"));
        }
        let least = least.unwrap_or(0);
        if most.is_some_and(|most| most < least) {
            return Err(invalid("has an interval that ends before it begins"));
        }
        if least.max(most.unwrap_or(0)) > MOST_TIMES {
            return Err(invalid("has an interval above 32767"));
        }
        Ok(match most {
            Some(most) => format!("{{{least},{most}}}"),
            None => format!("{{{least},}}"),
        })
    }

    /// Reads digits, if there are any, and the token after them.
    fn number(&mut self) -> Result<Option<u32>, PatternError> {
        let mut number = None;
        loop {
            self.next(false);
            if self.token == Token::End {
                return Err(invalid("has an interval without its end"));
            }
            let Token::Byte {
                byte: digit @ b'0'..=b'9',
                is_escaped: false,
            } = self.token
            else {
                return Ok(number);
            };
            let sum = number.unwrap_or(0) * 10 + u32::from(digit - b'0');
            number = Some(sum.min(MOST_TIMES + 1));
        }
    }

    /// Reads the next token. In a basic expression, `^` is an anchor only at the start, and where `carets` is true.
    fn next(&mut self, carets: bool) {
        let (token, length) = self.peek(self.at, carets);
        self.token = token;
        self.at += length;
    }

    fn peek(&self, at: usize, carets: bool) -> (Token, usize) {
        let rest = self.pattern.get(at..).unwrap_or_default();
        let byte = |byte, is_escaped| Token::Byte { byte, is_escaped };
        let is_extended = !self.is_basic;
        match *rest {
            [] => (Token::End, 0),
            [b'\\'] => (Token::Backslash, 1),
            [b'\\', escaped, ..] => (self.escaped(escaped), 2),
            [b'*', ..] => (Token::Star, 1),
            [b'.', ..] => (Token::Any, 1),
            [b'[', ..] => (Token::Bracket, 1),
            [b'+', ..] if is_extended => (Token::Plus, 1),
            [b'?', ..] if is_extended => (Token::Question, 1),
            [b'|', ..] if is_extended => (Token::Or, 1),
            [b'(', ..] if is_extended => (Token::Open, 1),
            [b')', ..] if is_extended => (Token::Close, 1),
            [b'{', ..] if is_extended => (Token::OpenInterval, 1),
            [b'}', ..] if is_extended => (Token::CloseInterval, 1),
            [b'^', ..] if is_extended || carets || at == 0 => (Token::Anchor(r"\A"), 1),
            [b'$', ..] if is_extended || self.ends_at(at + 1) => (Token::Anchor(r"\z"), 1),
            [other, ..] => (byte(other, false), 1),
        }
    }

    fn escaped(&self, escaped: u8) -> Token {
        match escaped {
            b'|' if self.is_basic => Token::Or,
            b'(' if self.is_basic => Token::Open,
            b')' if self.is_basic => Token::Close,
            b'{' if self.is_basic => Token::OpenInterval,
            b'}' if self.is_basic => Token::CloseInterval,
            b'+' if self.is_basic => Token::Plus,
            b'?' if self.is_basic => Token::Question,
            b'1'..=b'9' => Token::BackReference(escaped),
            b'w' => Token::Word(false),
            b'W' => Token::Word(true),
            b's' => Token::Space(false),
            b'S' => Token::Space(true),
            b'<' => Token::Anchor(r"\b{start}"),
            b'>' => Token::Anchor(r"\b{end}"),
            b'b' => Token::Anchor(r"\b"),
            b'B' => Token::Anchor(r"\B"),
            b'`' => Token::Anchor(r"\A"),
            b'\'' => Token::Anchor(r"\z"),
            byte => Token::Byte {
                byte,
                is_escaped: true,
            },
        }
    }

    /// Whether a basic expression, or a branch or group of it, ends here, so that a preceding `$` is an anchor.
    fn ends_at(&self, at: usize) -> bool {
        matches!(
            self.peek(at, false).0,
            Token::End | Token::Or | Token::Close
        )
    }

    fn write_byte(&self, byte: u8, is_escaped: bool, out: &mut String) {
        if !self.fold {
            let _infallible = write!(out, r"\x{byte:02X}");
            return;
        }
        let wanted = match is_escaped {
            true => byte,
            false => byte.to_ascii_uppercase(),
        };
        ByteSet::of(|other| other.to_ascii_uppercase() == wanted).write(out);
    }
}

fn write_class(fits: impl Fn(u8) -> bool, is_not: bool, out: &mut String) {
    ByteSet::of(|byte| fits(byte) != is_not).write(out);
}

fn nothing_to_repeat() -> PatternError {
    invalid("has a repetition with nothing to repeat")
}
