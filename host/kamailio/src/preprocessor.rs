//! Executes the directives: definitions, disabled parts, included files, substitutions. Returns the remaining tokens.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::finding::{Finding, Place, excerpt};
use super::lexer::{Kind, Lexer, Piece};
use super::substitution::{Rule, Substitution};
use super::surroundings::Surroundings;

/// A token for the parser.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Token {
    pub(super) kind: Kind,
    pub(super) place: Place,
    /// Whether a blank, a line break or a comment precedes it.
    pub(super) spaced: bool,
}

/// Reads a file with everything that it includes.
pub(super) struct Preprocessor<'s> {
    surroundings: &'s dyn Surroundings,
    frames: Vec<Frame>,
    defines: HashMap<String, String>,
    substitutions: Vec<Substitution>,
    conditions: Vec<Condition>,
    skipped: Vec<Skipped>,
    tokens: Vec<Token>,
    findings: Vec<Finding>,
    pieces: usize,
    includes: usize,
}

/// A text being read: a file, or the value of a definition.
struct Frame {
    lexer: Lexer,
    file: Arc<Path>,
    expansion: Option<Expansion>,
    /// Whether the first token counts as preceded by a blank: true for a file; for an expansion, as for the word that it replaces.
    first_spaced: Option<bool>,
}

struct Expansion {
    name: String,
    place: Place,
}

/// An `#!ifdef` without its end yet.
struct Condition {
    text: String,
    place: Place,
    holds: bool,
}

/// Lines in a disabled part that an operator may miss.
struct Skipped {
    conditions: Vec<String>,
    place: Place,
    lines: Vec<Place>,
}

impl<'s> Preprocessor<'s> {
    pub(super) fn new(
        file: &Path,
        text: &str,
        defines: &[(String, String)],
        surroundings: &'s dyn Surroundings,
    ) -> Self {
        Self {
            surroundings,
            frames: vec![Frame {
                lexer: Lexer::new(text),
                file: file.into(),
                expansion: None,
                first_spaced: Some(true),
            }],
            defines: defines.iter().cloned().collect(),
            substitutions: Vec::new(),
            conditions: Vec::new(),
            skipped: Vec::new(),
            tokens: Vec::new(),
            findings: Vec::new(),
            pieces: 0,
            includes: 0,
        }
    }

    /// Reads everything.
    pub(super) fn run(mut self) -> (Vec<Token>, Vec<Finding>) {
        while let Some(frame) = self.frames.last_mut() {
            let Some(piece) = frame.lexer.next_piece() else {
                self.frames.pop();
                continue;
            };
            let place = frame.place(piece.line);
            let spaced = frame.spaced(&piece);
            self.pieces += 1;
            if self.pieces > MOST_PIECES {
                let what = format!("more than {MOST_PIECES} words");
                let mend =
                    "the rest is not read; a definition that holds itself many times does this";
                self.note(&place, what, mend);
                break;
            }
            self.take(piece.kind, place, spaced);
        }
        self.close_conditions();
        self.tell_skipped();
        (self.tokens, self.findings)
    }

    fn take(&mut self, kind: Kind, place: Place, spaced: bool) {
        let kind = match kind {
            Kind::Directive { name, rest } => return self.directive(&name, &rest, &place),
            Kind::Word(word) if word == "include_file" || word == "import_file" => {
                return self.include_word(&word, &place);
            }
            Kind::Word(word) => match self.definition(&word) {
                Some(value) => return self.expand(word, value, place, spaced),
                None => Kind::Word(word),
            },
            Kind::Text(text) => Kind::Text(self.substitute(text)),
            Kind::Variable(text) => Kind::Variable(self.substitute(text)),
            Kind::Unclosed(what) => {
                let mend = "Kamailio loses the rest of the file as well: close it";
                return self.note(&place, format!("a {what} that does not end"), mend);
            }
            Kind::Sign(sign) => Kind::Sign(sign),
        };
        self.tokens.push(Token {
            kind,
            place,
            spaced,
        });
    }

    /// The value of a word, unless the word is part of its own expansion.
    fn definition(&self, word: &str) -> Option<String> {
        let expansions = self.frames.iter().filter_map(|f| f.expansion.as_ref());
        if expansions.clone().any(|expansion| expansion.name == word) {
            return None;
        }
        self.defines.get(word).cloned()
    }

    fn expand(&mut self, name: String, value: String, place: Place, spaced: bool) {
        self.frames.push(Frame {
            lexer: Lexer::new(value),
            file: place.file.clone(),
            expansion: Some(Expansion { name, place }),
            first_spaced: Some(spaced),
        });
    }

    fn substitute(&self, text: String) -> String {
        let rules = self.substitutions.iter();
        rules.fold(text, |text, rule| {
            let text = rule.apply(&text);
            match text.char_indices().nth(LONGEST_TEXT) {
                Some((end, _)) => text[..end].to_owned(),
                None => text,
            }
        })
    }

    fn directive(&mut self, name: &str, rest: &str, place: &Place) {
        match name {
            "define" | "def" | "trydefine" | "trydef" | "redefine" | "redef" => {
                self.define(name, rest, place);
            }
            "defenv" | "defenvs" | "trydefenv" | "trydefenvs" => {
                self.define_from_environment(name, rest, place);
            }
            "subst" | "substdef" | "substdefs" => self.substitution(name, rest, place),
            "ifdef" | "ifndef" | "ifexp" => self.open_condition(name, rest, place),
            "else" | "endif" if rest.is_empty() => self.turn_condition(name, place),
            "else" | "endif" => {
                let what = format!("#!{name} followed by other text");
                let mend =
                    "Kamailio and the import treat it as a comment: put it on a line of its own";
                self.note(place, what, mend);
            }
            "include_file" | "import_file" => match Lexer::new(rest).next_piece().map(|p| p.kind) {
                Some(Kind::Text(file)) => self.include(name, file, place),
                _ => self.no_file_name(name, place),
            },
            _ => {
                let mend = "not understood here; see whether it concerns listen lines, the database or permissions";
                self.note(place, format!("#!{name} {}", excerpt(rest)), mend);
            }
        }
    }

    fn define(&mut self, directive: &str, rest: &str, place: &Place) {
        let end = rest.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
        let (name, value) = rest.split_at(end.unwrap_or(rest.len()));
        if name.is_empty() {
            let mend = "write #!define NAME or #!define NAME VALUE";
            return self.note(place, format!("#!{directive} without a name"), mend);
        }
        let again = self.defines.contains_key(name);
        if again && directive.starts_with("try") {
            return;
        }
        if again && directive.starts_with("def") {
            let mend = "Kamailio would not start; the second value is used here";
            self.note(place, format!("{name} is defined twice"), mend);
        }
        self.defines.insert(name.into(), value.trim().into());
    }

    /// `#!defenv NAME` or `#!defenv ID=NAME`: the environment of the service may differ from ours.
    fn define_from_environment(&mut self, directive: &str, rest: &str, place: &Place) {
        let (name, variable) = rest.split_once('=').unwrap_or((rest, rest));
        let (name, variable) = (name.trim(), variable.trim());
        if directive.starts_with("try") && self.defines.contains_key(name) {
            return;
        }
        let Some(value) = self.surroundings.variable(variable) else {
            let what = format!("#!{directive} {}", excerpt(rest));
            let mend = format!(
                "{variable} is not in the environment of this command, so {name} is not defined: set it as Kamailio's service has it, or use --define {name}=VALUE"
            );
            return self.note(place, what, mend);
        };
        let value = match directive.ends_with('s') {
            true => format!("\"{value}\""),
            false => value,
        };
        self.defines.insert(name.into(), value);
    }

    fn substitution(&mut self, directive: &str, rest: &str, place: &Place) {
        // Never show the replacement: passwords are inserted this way.
        let Some(Kind::Text(text)) = Lexer::new(rest).next_piece().map(|piece| piece.kind) else {
            let what = format!("#!{directive} without a text in quotes");
            return self.note(place, what, "nothing is replaced");
        };
        let Some(rule) = Rule::split(&text) else {
            let what = format!("#!{directive} without a rule");
            let mend = "nothing is replaced: write \"/pattern/replacement/flags\"";
            return self.note(place, what, mend);
        };
        let what = format!("#!{directive} of {}", excerpt(rule.pattern));
        if rule.replacement.contains('$') {
            let mend = "variables in a replacement are not evaluated here: look at the values that it goes into";
            self.note(place, what.clone(), mend);
        }
        if directive != "subst" {
            let value = match directive {
                "substdefs" => format!("\"{}\"", rule.replacement),
                _ => rule.replacement.to_owned(),
            };
            self.defines.insert(rule.pattern.into(), value);
        }
        match rule.compile() {
            Ok(rule) if self.substitutions.len() < MOST_SUBSTITUTIONS => {
                self.substitutions.push(rule);
            }
            Ok(_) => self.note(place, what, "too many substitutions: not applied"),
            Err(error) => {
                let reason = excerpt(error.to_string().lines().last().unwrap_or_default());
                self.note(place, what, format!("nothing is replaced: {reason}"));
            }
        }
    }

    fn open_condition(&mut self, directive: &str, rest: &str, place: &Place) {
        let name = rest.split_whitespace().next().unwrap_or_default();
        let is_defined = self.defines.contains_key(name);
        if directive == "ifexp" {
            let mend = "expressions are not evaluated here, the part is read as if it held; what is in its #!else is not";
            self.note(place, format!("#!ifexp {}", excerpt(rest)), mend);
        }
        self.conditions.push(Condition {
            text: format!("#!{directive} {}", excerpt(rest)),
            place: place.clone(),
            holds: match directive {
                "ifdef" => is_defined,
                "ifndef" => !is_defined,
                _ => true,
            },
        });
        self.skip();
    }

    fn turn_condition(&mut self, directive: &str, place: &Place) {
        let known = match (directive, self.conditions.last_mut()) {
            (_, None) => false,
            ("else", Some(condition)) => {
                condition.holds = !condition.holds;
                if !condition.text.ends_with(ELSE) {
                    condition.text += ELSE;
                }
                true
            }
            (_, Some(_)) => {
                self.conditions.pop();
                true
            }
        };
        if !known {
            let what = format!("#!{directive} without #!ifdef");
            return self.note(place, what, "Kamailio also ignores it: remove it");
        }
        self.skip();
    }

    /// Skips the following part if a condition is false.
    fn skip(&mut self) {
        let unmet: Vec<_> = self.conditions.iter().filter(|c| !c.holds).collect();
        let (Some(first), Some(frame)) = (unmet.first(), self.frames.last_mut()) else {
            return;
        };
        let passed = frame.lexer.skip_part();
        let lines: Vec<_> = passed
            .iter()
            .filter(|(_, text)| is_of_interest(text))
            .map(|(line, _)| frame.place(*line))
            .collect();
        let skipped = Skipped {
            conditions: unmet.iter().map(|c| c.text.clone()).collect(),
            place: first.place.clone(),
            lines,
        };
        let same = |other: &&mut Skipped| other.conditions == skipped.conditions;
        match self.skipped.iter_mut().find(same) {
            Some(other) => other.lines.extend(skipped.lines),
            None if skipped.lines.is_empty() => {}
            None => self.skipped.push(skipped),
        }
    }

    fn close_conditions(&mut self) {
        for condition in std::mem::take(&mut self.conditions) {
            let mend = "Kamailio would not start: write #!endif where the part ends";
            self.note(
                &condition.place,
                format!("{} has no #!endif", condition.text),
                mend,
            );
        }
    }

    fn tell_skipped(&mut self) {
        for skipped in std::mem::take(&mut self.skipped) {
            let lines: Vec<_> = skipped.lines.iter().map(Place::short).collect();
            let does = if skipped.conditions.len() == 1 {
                "does"
            } else {
                "do"
            };
            let what = format!(
                "{} {does} not hold, which switches off what {} says about permissions or listening",
                skipped.conditions.join(" and "),
                lines.join(", ")
            );
            let mend = "if Kamailio is started with -A NAME, give --define NAME here";
            self.note(&skipped.place, what, mend);
        }
    }

    fn include_word(&mut self, word: &str, place: &Place) {
        let next = self.frames.last_mut().and_then(|f| f.lexer.next_piece());
        match next.map(|piece| piece.kind) {
            Some(Kind::Text(file)) => self.include(word, file, place),
            _ => self.no_file_name(word, place),
        }
    }

    fn no_file_name(&mut self, directive: &str, place: &Place) {
        let mend = "write the name of the file in quotes after it";
        self.note(place, format!("{directive} without a file"), mend);
    }

    /// The name is tried as it is, then relative to the file that names it, as in Kamailio.
    fn include(&mut self, directive: &str, name: String, place: &Place) {
        let name = PathBuf::from(self.substitute(name));
        self.includes += 1;
        if self.includes > MOST_INCLUDES {
            if self.includes == MOST_INCLUDES + 1 {
                let what = format!("more than {MOST_INCLUDES} files are included");
                self.note(place, what, "the rest is left out");
            }
            return;
        }
        let files = self.frames.iter().filter(|f| f.expansion.is_none());
        if files.count() > DEEPEST_INCLUDE {
            let what = format!("{directive} {}", name.display());
            return self.note(place, what, "files are included too deep; it is left out");
        }
        let beside = place.file.parent().map(|folder| folder.join(&name));
        let mut read = self
            .surroundings
            .read(&name)
            .map(|text| (name.clone(), text));
        if let (Err(_), Some(beside), true) = (&read, beside, name.is_relative()) {
            read = self.surroundings.read(&beside).map(|text| (beside, text));
        }
        match read {
            Ok((file, text)) => self.frames.push(Frame {
                lexer: Lexer::new(text),
                file: file.into(),
                expansion: None,
                first_spaced: Some(true),
            }),
            Err(error)
                if error.kind() == std::io::ErrorKind::NotFound && directive == "import_file" => {}
            Err(error) => {
                let what = format!("{directive} {}: {error}", name.display());
                self.note(
                    place,
                    what,
                    "what it says is missing here; make it readable and import again",
                );
            }
        }
    }

    fn note(&mut self, place: &Place, what: impl Into<String>, mend: impl Into<String>) {
        self.findings.push(Finding::at(place, what, mend));
    }
}

impl Frame {
    fn place(&self, line: usize) -> Place {
        match &self.expansion {
            Some(expansion) => expansion.place.clone(),
            None => Place {
                file: self.file.clone(),
                line,
            },
        }
    }

    fn spaced(&mut self, piece: &Piece) -> bool {
        self.first_spaced.take().unwrap_or(piece.spaced)
    }
}

/// Whether a line of a disabled part would be translated if it were enabled.
fn is_of_interest(line: &str) -> bool {
    if line.starts_with('#') || line.starts_with("//") {
        return false;
    }
    line.contains("\"permissions")
        || line.starts_with("listen")
        || super::functions::is_named_in(line)
}

const ELSE: &str = " … #!else";

/// Kamailio's own limit is 10.
const DEEPEST_INCLUDE: usize = 10;

/// Real configurations have some ten thousand.
const MOST_PIECES: usize = 1_000_000;

/// Real configurations include some dozens of files.
const MOST_INCLUDES: usize = 500;

/// Kamailio has no limit; real configurations have some dozens.
const MOST_SUBSTITUTIONS: usize = 512;

/// Characters of one text. Substitutions that feed each other could otherwise grow it without limit.
const LONGEST_TEXT: usize = 65_536;
