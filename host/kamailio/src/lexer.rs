//! Splits a text of Kamailio's configuration language into tokens (Kamailio: `core/cfg.lex`).

/// One token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Piece {
    pub(super) kind: Kind,
    /// The line that it starts on, from 1.
    pub(super) line: usize,
    /// Whether a blank, a line break or a comment precedes it.
    pub(super) spaced: bool,
}

/// The kind of a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Letters, digits and `_`: a keyword, a name or a number.
    Word(String),
    /// A quoted text, without quotes and with escapes resolved; adjacent double-quoted texts are one text.
    Text(String),
    /// A variable with its `$`: `$rU`, `$var(x)`, `$(hdr(From){nameaddr.uri})`.
    Variable(String),
    /// Any other character.
    Sign(char),
    /// A preprocessor line: `#!name rest`.
    Directive {
        /// `define`, `ifdef`, …
        name: String,
        /// The rest of the line; lines that end in `\` are joined.
        rest: String,
    },
    /// An unterminated text or comment.
    Unclosed(&'static str),
}

/// A text being read.
#[derive(Debug)]
pub(super) struct Lexer {
    text: String,
    at: usize,
    line: usize,
}

impl Lexer {
    pub(super) fn new(text: impl Into<String>) -> Self {
        Self {
            text: text.into(),
            at: 0,
            line: 1,
        }
    }

    pub(super) fn next_piece(&mut self) -> Option<Piece> {
        let start = self.at;
        let unclosed = self.skip_blanks();
        let spaced = self.at > start;
        let line = self.line;
        let piece = |kind| Some(Piece { kind, line, spaced });
        if unclosed {
            return piece(Kind::Unclosed("comment"));
        }
        if let Some(name) = self.directive_name() {
            return piece(self.directive(name));
        }
        let kind = match self.peek()? {
            '"' => self.quoted(),
            '\'' => self.ticked(),
            '$' => self.variable(),
            c if is_word(c) => Kind::Word(self.take_while(is_word)),
            c => {
                self.advance(c);
                Kind::Sign(c)
            }
        };
        piece(kind)
    }

    /// Skips a part that an `#!ifdef` disables, up to the next directive that may enable again, which is not consumed, or to the end.
    /// Passes each skipped line with its number to the caller.
    pub(super) fn skip_part(&mut self) -> Vec<(usize, String)> {
        let mut passed = Vec::new();
        while self.at < self.text.len() {
            let rest = &self.text[self.at..];
            let end = rest.find('\n').map_or(rest.len(), |at| at + 1);
            if let Some(at) = switch(&rest[..end]) {
                self.at += at;
                break;
            }
            passed.push((self.line, rest[..end].trim().to_owned()));
            self.at += end;
            self.line += usize::from(rest[..end].ends_with('\n'));
        }
        passed
    }

    /// Skips blanks and comments. True if a comment is unterminated.
    fn skip_blanks(&mut self) -> bool {
        loop {
            let rest = &self.text[self.at..];
            if rest.starts_with("/*") {
                if self.skip_comment() {
                    return true;
                }
            } else if rest.starts_with("//")
                || (rest.starts_with('#') && self.directive_name().is_none())
            {
                self.take_while(|c| c != '\n');
            } else if rest.starts_with("\\\n") {
                self.advance('\\');
                self.advance('\n');
            } else {
                match self.peek() {
                    Some(c) if c.is_whitespace() || c == '\u{8}' => self.advance(c),
                    _ => return false,
                }
            }
        }
    }

    /// Comments of this kind nest in Kamailio. True if it is unterminated.
    fn skip_comment(&mut self) -> bool {
        let mut depth = 0;
        loop {
            let rest = &self.text[self.at..];
            if rest.starts_with("/*") {
                depth += 1;
                self.at += 2;
            } else if rest.starts_with("*/") {
                depth -= 1;
                self.at += 2;
                if depth == 0 {
                    return false;
                }
            } else {
                match self.peek() {
                    Some(c) => self.advance(c),
                    None => return true,
                }
            }
        }
    }

    fn directive_name(&self) -> Option<&'static str> {
        let rest = &self.text[self.at..];
        let rest = rest
            .strip_prefix("#!")
            .or_else(|| rest.strip_prefix("!!"))?;
        let word = &rest[..rest.find(|c| !is_word(c)).unwrap_or(rest.len())];
        DIRECTIVES.into_iter().find(|name| *name == word)
    }

    fn directive(&mut self, name: &str) -> Kind {
        self.at += "#!".len() + name.len();
        let mut rest = String::new();
        loop {
            rest += &self.take_while(|c| c != '\n');
            let joined = rest.trim_end_matches('\r').strip_suffix('\\');
            let Some(joined) = joined.map(str::to_owned) else {
                break;
            };
            if self.peek().is_none() {
                break;
            }
            self.advance('\n');
            rest = joined;
        }
        Kind::Directive {
            name: name.to_owned(),
            rest: rest.trim().to_owned(),
        }
    }

    fn quoted(&mut self) -> Kind {
        let mut text = String::new();
        loop {
            self.advance('"');
            if !self.quoted_part(&mut text) {
                return Kind::Unclosed("text in double quotes");
            }
            // "a" "b" is one text, also across line breaks.
            let (at, line) = (self.at, self.line);
            self.take_while(char::is_whitespace);
            if self.peek() != Some('"') {
                (self.at, self.line) = (at, line);
                return Kind::Text(text);
            }
        }
    }

    /// Reads up to the closing quote. False if there is none.
    fn quoted_part(&mut self, text: &mut String) -> bool {
        while let Some(c) = self.peek() {
            self.advance(c);
            match c {
                '"' => return true,
                '\\' => self.escape(text),
                c => text.push(c),
            }
        }
        false
    }

    fn escape(&mut self, text: &mut String) {
        let rest = &self.text[self.at..];
        let Some(c) = rest.chars().next() else {
            text.push('\\');
            return;
        };
        let digits = |from: usize, radix, most| {
            let digits = rest[from..].chars().take_while(|c| c.is_digit(radix));
            let length = digits.take(most).count();
            let number = u32::from_str_radix(&rest[from..from + length], radix).ok();
            number.map(|number| (length, char::from(number as u8)))
        };
        let (length, meant) = match c {
            'n' => (1, '\n'),
            'r' => (1, '\r'),
            't' => (1, '\t'),
            'a' => (1, '\u{7}'),
            '"' | '\\' => (1, c),
            '\n' => {
                self.advance(c);
                return;
            }
            'x' => match digits(1, 16, 2) {
                Some((length, meant)) => (1 + length, meant),
                None => (0, '\\'),
            },
            '0'..='7' => match digits(0, 8, 3) {
                // A single digit is a back-reference of a substitution.
                Some((length, meant)) if length > 1 => (length, meant),
                _ => (0, '\\'),
            },
            _ => (0, '\\'),
        };
        self.at += length;
        text.push(meant);
    }

    fn ticked(&mut self) -> Kind {
        self.advance('\'');
        let text = self.take_while(|c| c != '\'');
        if self.peek().is_none() {
            return Kind::Unclosed("text in single quotes");
        }
        self.advance('\'');
        Kind::Text(text)
    }

    fn variable(&mut self) -> Kind {
        self.advance('$');
        let mut name = format!("${}", self.take_while(|c| is_word(c) || c == '.'));
        if self.peek() != Some('(') {
            return Kind::Variable(name);
        }
        let mut depth = 0;
        while let Some(c) = self.peek().filter(|c| *c != '\n') {
            self.advance(c);
            name.push(c);
            match c {
                '(' => depth += 1,
                ')' => depth -= 1,
                _ => {}
            }
            if depth == 0 {
                break;
            }
        }
        Kind::Variable(name)
    }

    fn peek(&self) -> Option<char> {
        self.text[self.at..].chars().next()
    }

    /// Consumes `c`, the result of [`peek`](Self::peek).
    fn advance(&mut self, c: char) {
        self.at += c.len_utf8();
        self.line += usize::from(c == '\n');
    }

    fn take_while(&mut self, wanted: impl Fn(char) -> bool) -> String {
        let rest = &self.text[self.at..];
        let end = rest.find(|c| !wanted(c)).unwrap_or(rest.len());
        let taken = rest[..end].to_owned();
        self.at += end;
        self.line += taken.matches('\n').count();
        taken
    }
}

/// The position in a line of a disabled part of a directive that ends the part or nests another one. Kamailio finds them everywhere, even
/// in comments.
fn switch(line: &str) -> Option<usize> {
    let starts = line
        .match_indices(['#', '!'])
        .filter(|(at, _)| line[at + 1..].starts_with('!'));
    for (at, _) in starts {
        let rest = &line[at + 2..];
        let end = rest.find(|c| !is_word(c)).unwrap_or(rest.len());
        let (name, behind) = rest.split_at(end);
        let found = match name {
            "ifdef" | "ifndef" | "ifexp" => behind.starts_with([' ', '\t']),
            "else" | "endif" => behind.trim().is_empty(),
            _ => false,
        };
        if found {
            return Some(at);
        }
    }
    None
}

fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

/// Every directive of Kamailio 5.0 to 6.1. A line that begins with `#!` and anything else is a comment.
const DIRECTIVES: [&str; 24] = [
    "define",
    "def",
    "trydefine",
    "trydef",
    "redefine",
    "redef",
    "defenv",
    "defenvs",
    "trydefenv",
    "trydefenvs",
    "defexp",
    "defexps",
    "ifdef",
    "ifndef",
    "ifexp",
    "else",
    "endif",
    "subst",
    "substdef",
    "substdefs",
    "include_file",
    "import_file",
    "undef",
    "once",
];

#[cfg(test)]
mod tests {
    use super::*;

    fn kinds(text: &str) -> Vec<Kind> {
        let mut lexer = Lexer::new(text);
        std::iter::from_fn(|| lexer.next_piece())
            .map(|piece| piece.kind)
            .collect()
    }

    fn word(text: &str) -> Kind {
        Kind::Word(text.into())
    }

    fn quoted(text: &str) -> Kind {
        Kind::Text(text.into())
    }

    #[test]
    fn comments_of_all_kinds_are_blanks() {
        let text = "a # b\nc // d\n/* e /* f */ g */ h #!KAMAILIO\n#!unknown x\n##!define y\ni";
        assert_eq!(kinds(text), [word("a"), word("c"), word("h"), word("i")]);
    }

    #[test]
    fn lines_are_counted_through_everything() {
        let mut lexer = Lexer::new("a\n/*\n*/ b \"x\ny\" c\n#!define D 1 \\\n 2\nd \\\n e");
        let lines: Vec<_> = std::iter::from_fn(|| lexer.next_piece())
            .map(|piece| piece.line)
            .collect();
        assert_eq!(lines, [1, 3, 3, 4, 5, 7, 8]);
    }

    #[test]
    fn texts_are_read_with_their_escapes() {
        assert_eq!(
            kinds(r#""a\"b\\c\td\x41\101\1\d""#),
            [quoted("a\"b\\c\tdAA\\1\\d")]
        );
        assert_eq!(kinds(r#"'a\"b'"#), [quoted(r#"a\"b"#)]);
        assert_eq!(kinds("\"a\"\n\t\"b\" 'c'"), [quoted("ab"), quoted("c")]);
        assert_eq!(kinds("\"a // b # c /* d\""), [quoted("a // b # c /* d")]);
        assert_eq!(kinds("\"a\\\nb\""), [quoted("ab")]);
    }

    #[test]
    fn what_does_not_end_is_said() {
        assert_eq!(kinds("\"a"), [Kind::Unclosed("text in double quotes")]);
        assert_eq!(kinds("\"a\\"), [Kind::Unclosed("text in double quotes")]);
        assert_eq!(kinds("'a"), [Kind::Unclosed("text in single quotes")]);
        assert_eq!(kinds("/* a"), [Kind::Unclosed("comment")]);
    }

    #[test]
    fn variables_keep_their_brackets() {
        let variable = |text: &str| Kind::Variable(text.into());
        assert_eq!(
            kinds("$rU==$var(a(b)) $(hdr(From){s.len}) $(x\n"),
            [
                variable("$rU"),
                Kind::Sign('='),
                Kind::Sign('='),
                variable("$var(a(b))"),
                variable("$(hdr(From){s.len})"),
                variable("$(x"),
            ]
        );
    }

    #[test]
    fn directives_take_their_line() {
        let directive = |name: &str, rest: &str| Kind::Directive {
            name: name.into(),
            rest: rest.into(),
        };
        assert_eq!(
            kinds("#!define A \"x\" \\\n  \"y\"\n!!ifdef A\n#!endif\nx"),
            [
                directive("define", "A \"x\"   \"y\""),
                directive("ifdef", "A"),
                directive("endif", ""),
                word("x"),
            ]
        );
    }

    #[test]
    fn a_part_is_skipped_up_to_what_may_end_it() {
        let mut lexer = Lexer::new("one\n\"two #!else x\n  #!endif\nthree");
        assert_eq!(
            lexer.skip_part(),
            [(1, "one".into()), (2, "\"two #!else x".into())]
        );
        let endif = lexer.next_piece().unwrap();
        assert_eq!(endif.line, 3);
        assert!(matches!(endif.kind, Kind::Directive { name, .. } if name == "endif"));
        assert_eq!(lexer.next_piece().unwrap().kind, word("three"));
    }
}
