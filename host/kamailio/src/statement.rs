//! Finds parameters, module parameters, listen lines and calls among the tokens (Kamailio: `core/cfg.y`).
//!
//! The routing logic itself is not parsed: within braces, only relevant calls are recognised.

use super::finding::{Finding, Place};
use super::functions;
use super::lexer::Kind;
use super::preprocessor::Token;

/// One statement of a configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Statement {
    pub(super) place: Place,
    pub(super) what: What,
}

/// The content of a statement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum What {
    /// `name = value`
    Set { name: String, value: Value },
    /// `listen = …`, or a `socket` block.
    Listen(Listen),
    /// `alias = …`
    Alias(Vec<String>),
    /// `loadmodule "name.so"`: the name without suffix and directory.
    Module(String),
    /// `modparam("modules", "name", value)`
    Parameter {
        modules: String,
        name: String,
        value: Value,
    },
    /// A call of the routing logic.
    Call {
        function: &'static str,
        arguments: Vec<Value>,
    },
}

/// A value as written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Value {
    /// A quoted text.
    Text(String),
    /// A number, a word or an address.
    Word(String),
    /// Anything that contains a variable.
    Variable(String),
}

/// Addresses to listen on, each as `[proto:]host[:port]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Listen {
    pub(super) sockets: Vec<String>,
    pub(super) advertise: Option<String>,
}

impl What {
    /// `modparamx` evaluates variables in texts; `modparam` does not.
    fn with_variables(mut self) -> Self {
        if let Self::Parameter { value, .. } = &mut self
            && let Value::Text(text) = value
            && text.contains('$')
        {
            *value = Value::Variable(std::mem::take(text));
        }
        self
    }
}

impl Value {
    /// The value as it is in the file, with its quotes.
    pub(super) fn as_written(&self) -> String {
        match self {
            Self::Text(text) => format!("{text:?}"),
            Self::Word(text) | Self::Variable(text) => text.clone(),
        }
    }

    /// The value without its quotes.
    pub(super) fn text(&self) -> &str {
        let (Self::Text(text) | Self::Word(text) | Self::Variable(text)) = self;
        text
    }

    /// A number as Kamailio parses it: decimal, `0x…`, octal with a leading zero, or yes and no in their spellings.
    pub(super) fn number(&self) -> Option<i64> {
        let text = self.text();
        let (sign, digits) = match text.strip_prefix('-') {
            Some(digits) => (-1, digits),
            None => (1, text),
        };
        let magnitude = match digits {
            "yes" | "true" | "on" | "enable" => 1,
            "no" | "false" | "off" | "disable" => 0,
            _ => match digits.strip_prefix("0x") {
                Some(hex) => i64::from_str_radix(hex, 16).ok()?,
                None if digits.len() > 1 && digits.starts_with('0') => {
                    i64::from_str_radix(digits, 8).ok()?
                }
                None => digits.parse().ok()?,
            },
        };
        Some(sign * magnitude)
    }
}

/// All statements among the tokens, in order.
pub(super) fn statements(tokens: &[Token]) -> (Vec<Statement>, Vec<Finding>) {
    let mut parser = Parser {
        tokens,
        at: 0,
        blocks: Vec::new(),
        statements: Vec::new(),
        findings: Vec::new(),
    };
    while parser.at < tokens.len() {
        parser.step();
    }
    for place in parser.blocks {
        let mend = "Kamailio would not start: close it with }";
        parser
            .findings
            .push(Finding::at(&place, "a block that does not end", mend));
    }
    (parser.statements, parser.findings)
}

struct Parser<'t> {
    tokens: &'t [Token],
    at: usize,
    /// The places of the open braces.
    blocks: Vec<Place>,
    statements: Vec<Statement>,
    findings: Vec<Finding>,
}

impl<'t> Parser<'t> {
    /// Parses the statement at the current token; always advances.
    fn step(&mut self) {
        let token = &self.tokens[self.at];
        let place = token.place.clone();
        self.at += 1;
        match &token.kind {
            Kind::Sign('{') => self.blocks.push(place),
            Kind::Sign('}') if self.blocks.pop().is_none() => {
                let mend = "Kamailio would not start: remove it, or open its block";
                self.findings
                    .push(Finding::at(&place, "a } without its {", mend));
            }
            Kind::Word(word) => match functions::function(word) {
                Some(function) if self.is_sign(self.at, '(') => self.call(function, place),
                _ if self.blocks.is_empty() => self.top_level(word, place),
                _ => {}
            },
            Kind::Text(_)
            | Kind::Variable(_)
            | Kind::Sign(_)
            | Kind::Directive { .. }
            | Kind::Unclosed(_) => {}
        }
    }

    fn top_level(&mut self, word: &str, place: Place) {
        let is_set = self.is_sign(self.at, '=');
        let what = match word {
            "loadmodule" | "loadmodulex" => self.module(),
            "modparam" => self.parameter(),
            "modparamx" => self.parameter().map(What::with_variables),
            "listen" if is_set => self.listen(),
            "socket" if is_set && self.is_sign(self.at + 1, '{') => self.socket(),
            "alias" | "domain" if is_set => {
                self.at += 1;
                Some(What::Alias(self.sockets()))
            }
            _ if is_set => {
                self.at += 1;
                self.value().map(|value| What::Set {
                    name: word.to_owned(),
                    value,
                })
            }
            // group.name = value: a custom parameter of the configuration.
            _ if self.is_sign(self.at, '.') && self.is_sign(self.at + 2, '=') => {
                let name = match self.kind(self.at + 1) {
                    Some(Kind::Word(name)) => format!("{word}.{name}"),
                    _ => return,
                };
                self.at += 3;
                self.value().map(|value| What::Set { name, value })
            }
            _ => return,
        };
        match what {
            Some(what) => self.statements.push(Statement { place, what }),
            None => {
                let mend = "not understood: see what it sets, and whether it concerns listen lines, the database or permissions";
                self.findings.push(Finding::at(&place, word, mend));
            }
        }
    }

    fn module(&mut self) -> Option<What> {
        self.at += usize::from(self.is_sign(self.at, '('));
        let Some(Kind::Text(file)) = self.kind(self.at) else {
            return None;
        };
        let file = file.rsplit('/').next().unwrap_or(file);
        let name = file.strip_suffix(".so").unwrap_or(file).to_owned();
        self.at += 1;
        Some(What::Module(name))
    }

    fn parameter(&mut self) -> Option<What> {
        let arguments = self.arguments()?;
        let [modules, name, value] = arguments.try_into().ok()?;
        Some(What::Parameter {
            modules: modules.text().to_owned(),
            name: name.text().to_owned(),
            value,
        })
    }

    fn call(&mut self, function: &'static str, place: Place) {
        match self.arguments() {
            Some(arguments) => self.statements.push(Statement {
                place,
                what: What::Call {
                    function,
                    arguments,
                },
            }),
            None => {
                let mend = "its arguments do not end: Kamailio would not start";
                self.findings.push(Finding::at(&place, function, mend));
            }
        }
    }

    fn listen(&mut self) -> Option<What> {
        self.at += 1;
        let sockets = self.sockets();
        let mut advertise = None;
        loop {
            match self.kind(self.at) {
                Some(Kind::Word(word)) if matches!(word.as_str(), "advertise" | "ADVERTISE") => {
                    self.at += 1;
                    advertise = Some(self.glued()?);
                }
                Some(Kind::Word(word)) if matches!(word.as_str(), "name" | "NAME") => self.at += 2,
                Some(Kind::Word(word)) if word == "virtual" => self.at += 1,
                _ => break,
            }
        }
        (!sockets.is_empty()).then_some(What::Listen(Listen { sockets, advertise }))
    }

    /// `socket = { bind = …; advertise = …; … }` of versions after 5.6.
    fn socket(&mut self) -> Option<What> {
        self.at += 2;
        let mut listen = Listen {
            sockets: Vec::new(),
            advertise: None,
        };
        while !self.is_sign(self.at, '}') {
            let Kind::Word(name) = self.kind(self.at)?.clone() else {
                self.at += 1;
                continue;
            };
            self.at += 1;
            if !self.is_sign(self.at, '=') {
                continue;
            }
            self.at += 1;
            let value = self.glued()?;
            match name.as_str() {
                "bind" => listen.sockets.push(value),
                "advertise" => listen.advertise = Some(value),
                _ => {}
            }
        }
        self.at += 1;
        (!listen.sockets.is_empty()).then_some(What::Listen(listen))
    }

    /// One or more addresses, up to the next statement.
    fn sockets(&mut self) -> Vec<String> {
        let mut sockets = Vec::new();
        loop {
            let start = self.at;
            match self.kind(start) {
                Some(Kind::Word(word)) if is_behind_addresses(word) => break,
                Some(Kind::Word(_) | Kind::Text(_) | Kind::Sign('[' | '*')) => {}
                _ => break,
            }
            let Some(socket) = self.glued() else {
                break;
            };
            // A word followed by one of these starts the next statement.
            let is_next = matches!(
                self.kind(self.at),
                Some(Kind::Sign('=' | '(' | '{' | '[') | Kind::Text(_))
            );
            if is_next && !sockets.is_empty() {
                self.at = start;
                break;
            }
            sockets.push(socket);
        }
        sockets
    }

    fn value(&mut self) -> Option<Value> {
        match self.kind(self.at)? {
            Kind::Text(text) => {
                let value = Value::Text(text.clone());
                self.at += 1;
                Some(value)
            }
            Kind::Variable(text) => {
                let value = Value::Variable(text.clone());
                self.at += 1;
                Some(value)
            }
            Kind::Word(_) | Kind::Sign(_) | Kind::Directive { .. } | Kind::Unclosed(_) => {
                self.glued().map(Value::Word)
            }
        }
    }

    /// Adjacent tokens without blanks between them, as one word: an address, a signed number.
    fn glued(&mut self) -> Option<String> {
        let mut word = String::new();
        while let Some(token) = self.tokens.get(self.at) {
            let follows = !token.spaced || token.kind == Kind::Sign(':') || word.ends_with(':');
            if !word.is_empty() && !follows {
                break;
            }
            match &token.kind {
                Kind::Word(part) | Kind::Text(part) => word += part,
                Kind::Sign(sign @ ('.' | ':' | '-' | '+' | '[' | ']' | '*' | '/')) => {
                    word.push(*sign);
                }
                Kind::Variable(_) | Kind::Sign(_) | Kind::Directive { .. } | Kind::Unclosed(_) => {
                    break;
                }
            }
            self.at += 1;
        }
        (!word.is_empty()).then_some(word)
    }

    /// The text in parentheses, split at its commas.
    fn arguments(&mut self) -> Option<Vec<Value>> {
        if !self.is_sign(self.at, '(') {
            return None;
        }
        self.at += 1;
        let mut arguments = Vec::new();
        let mut parts = Vec::new();
        let mut depth = 0;
        loop {
            let kind = self.kind(self.at)?.clone();
            self.at += 1;
            match kind {
                Kind::Sign(')') if depth == 0 => break,
                Kind::Sign(',') if depth == 0 => {
                    arguments.push(argument(&std::mem::take(&mut parts)));
                    continue;
                }
                Kind::Sign('(') => depth += 1,
                Kind::Sign(')') => depth -= 1,
                // An argument never contains these: the parenthesis was not closed.
                Kind::Sign('{' | '}' | ';') => return None,
                Kind::Word(_)
                | Kind::Text(_)
                | Kind::Variable(_)
                | Kind::Sign(_)
                | Kind::Directive { .. }
                | Kind::Unclosed(_) => {}
            }
            parts.push(kind);
        }
        if !parts.is_empty() || !arguments.is_empty() {
            arguments.push(argument(&parts));
        }
        Some(arguments)
    }

    fn kind(&self, at: usize) -> Option<&'t Kind> {
        self.tokens.get(at).map(|token| &token.kind)
    }

    fn is_sign(&self, at: usize, sign: char) -> bool {
        self.kind(at) == Some(&Kind::Sign(sign))
    }
}

/// Words that end a list of addresses.
fn is_behind_addresses(word: &str) -> bool {
    matches!(
        word,
        "advertise"
            | "ADVERTISE"
            | "name"
            | "NAME"
            | "virtual"
            | "loadmodule"
            | "loadmodulex"
            | "modparam"
            | "modparamx"
    )
}

fn argument(parts: &[Kind]) -> Value {
    match parts {
        [Kind::Text(text)] => Value::Text(text.clone()),
        _ => {
            let word: String = parts.iter().map(written).collect();
            match parts.iter().any(|part| matches!(part, Kind::Variable(_))) {
                true => Value::Variable(word),
                false => Value::Word(word),
            }
        }
    }
}

fn written(kind: &Kind) -> String {
    match kind {
        Kind::Word(word) | Kind::Variable(word) => word.clone(),
        Kind::Text(text) => format!("{text:?}"),
        Kind::Sign(sign) => sign.to_string(),
        Kind::Directive { .. } | Kind::Unclosed(_) => String::new(),
    }
}
