//! Parses the routes (Kamailio: `core/cfg.y`). What is not understood becomes `Other` with its text, and the parser goes on behind it.

use std::collections::BTreeMap;

use crate::finding::Place;
use crate::lexer::Kind;
use crate::preprocessor::Token;

use super::syntax::{Action, Call, Expression, Operator, Route, Statement, Term, text_of};

/// The deepest nesting of blocks and expressions. What is nested deeper is `Other`.
const DEEPEST: usize = 200;

/// Most cases, and most labels, of a `switch` that is understood: each is a condition or an operand within the one before.
const MOST_CASES: usize = 50;

/// Returns the routes of a configuration.
pub(super) fn routes(tokens: &[Token]) -> Vec<Route> {
    let mut parser = Parser {
        tokens,
        at: 0,
        depth: 0,
    };
    let mut routes = Vec::new();
    while parser.at < tokens.len() {
        match parser.route() {
            Some(route) => routes.push(route),
            None => parser.skip_item(),
        }
    }
    routes
}

/// The custom parameters of a configuration that are texts, by `GROUP.NAME`: `pstn.gw_ip = "192.0.2.1" desc "gateway"`.
pub(super) fn parameters(tokens: &[Token]) -> BTreeMap<String, String> {
    let mut parameters = BTreeMap::new();
    for window in tokens.windows(5) {
        let kinds = [0, 1, 2, 3, 4].map(|at| &window[at].kind);
        if let [
            Kind::Word(group),
            Kind::Sign('.'),
            Kind::Word(name),
            Kind::Sign('='),
            Kind::Text(value),
        ] = kinds
        {
            parameters.insert(format!("{group}.{name}"), value.clone());
        }
    }
    parameters
}

struct Parser<'t> {
    tokens: &'t [Token],
    at: usize,
    depth: usize,
}

impl Parser<'_> {
    /// `request_route { … }`, `route[NAME] { … }`; nothing is consumed if this is something else.
    fn route(&mut self) -> Option<Route> {
        let start = self.at;
        let kind = self.word()?.to_owned();
        let is_route = kind == "route" || kind.ends_with("_route");
        if !is_route {
            return None;
        }
        let place = self.place(start);
        self.at += 1;
        let mut name = String::new();
        if self.take('[') {
            let first = self.at;
            while self.at < self.tokens.len() && !self.is(']') && !self.is('{') {
                self.at += 1;
            }
            name = text_of(&self.tokens[first..self.at]);
            name = name.trim_matches('"').to_owned();
            self.take(']');
        }
        if !self.is('{') {
            self.at = start;
            return None;
        }
        let body = self.block();
        // `route { … }` and `route[0] { … }` are the main route.
        let is_main = kind == "route" && matches!(&*name, "" | "0");
        Some(Route {
            place,
            kind: if is_main {
                "request_route".into()
            } else {
                kind
            },
            name: if is_main { String::new() } else { name },
            body,
        })
    }

    /// Skips a token, or a whole block, outside of routes.
    fn skip_item(&mut self) {
        match self.is('{') {
            true => self.skip_block(),
            false => self.at += 1,
        }
    }

    fn skip_block(&mut self) {
        let mut depth = 0_usize;
        while self.at < self.tokens.len() {
            if self.is('{') {
                depth += 1;
            } else if self.is('}') {
                depth = depth.saturating_sub(1);
            }
            self.at += 1;
            if depth == 0 {
                return;
            }
        }
    }

    /// The statements between braces.
    fn block(&mut self) -> Vec<Statement> {
        let mut statements = Vec::new();
        self.take('{');
        while self.at < self.tokens.len() && !self.take('}') {
            if self.take(';') {
                continue;
            }
            statements.push(self.statement());
        }
        statements
    }

    fn statement(&mut self) -> Statement {
        let start = self.at;
        let place = self.place(start);
        if self.depth >= DEEPEST {
            self.skip_statement();
            return self.of(start, place, Action::Other);
        }
        self.depth += 1;
        let action = self.action();
        self.depth -= 1;
        self.of(start, place, action)
    }

    fn of(&self, start: usize, place: Place, action: Action) -> Statement {
        Statement {
            place,
            text: text_of(&self.tokens[start..self.at]),
            action,
        }
    }

    fn action(&mut self) -> Action {
        if self.is('{') {
            return Action::Block(self.block());
        }
        let action = match self.kind(0) {
            Some(Kind::Word(word)) if word == "if" => return self.condition(),
            Some(Kind::Word(word)) if word == "switch" => match self.switch() {
                Some(action) => return action,
                None => None,
            },
            Some(Kind::Word(word)) => self.word_action(&word.clone()),
            Some(Kind::Variable(variable)) => self.assignment(variable.clone()),
            _ => None,
        };
        match action {
            // Something may follow that belongs to the statement: then nothing of it is understood.
            Some(action) if self.take(';') || self.is('}') || self.at >= self.tokens.len() => {
                action
            }
            _ => {
                self.skip_statement();
                Action::Other
            }
        }
    }

    fn condition(&mut self) -> Action {
        self.at += 1;
        let condition = self.expression();
        let then = self.branch();
        let otherwise = match self.word() {
            Some("else") => {
                self.at += 1;
                self.branch()
            }
            _ => Vec::new(),
        };
        Action::If {
            condition,
            then,
            otherwise,
        }
    }

    /// `switch (value) { case 1: … break; default: … }` as conditions; nothing is consumed if it is something else, or a case goes on in the next one.
    fn switch(&mut self) -> Option<Action> {
        let start = self.at;
        if self.depth + MOST_CASES > DEEPEST {
            return None;
        }
        self.depth += MOST_CASES;
        let action = self.cases();
        self.depth -= MOST_CASES;
        if action.is_none() {
            self.at = start;
        }
        action
    }

    fn cases(&mut self) -> Option<Action> {
        self.at += 1;
        if !self.take('(') {
            return None;
        }
        let value = self.expression();
        let is_simple = matches!(value.term, Term::Variable(_) | Term::Word(_));
        if !is_simple || !self.take(')') || !self.take('{') {
            return None;
        }
        let (mut cases, mut otherwise) = (Vec::new(), Vec::new());
        let mut labels = 0;
        while !self.take('}') {
            let start = self.at;
            let mut tested: Option<Expression> = None;
            let mut is_default = false;
            while let Some(word @ ("case" | "default")) = self.word() {
                is_default |= word == "default";
                let is_case = word == "case";
                self.at += 1;
                if is_case {
                    let label = self.value();
                    labels += 1;
                    let is_known = matches!(label.term, Term::Text(_) | Term::Word(_));
                    let pair = (Box::new(value.clone()), Box::new(label));
                    let equal = self.term(start, Term::Compare(Operator::Equal, pair.0, pair.1));
                    tested = Some(match tested {
                        None => equal,
                        Some(other) => self.term(start, Term::Or(Box::new(other), Box::new(equal))),
                    });
                    if !is_known || labels > MOST_CASES {
                        return None;
                    }
                }
                if !self.take(':') {
                    return None;
                }
            }
            let body = self.case()?;
            match tested {
                _ if is_default => otherwise = body,
                Some(tested) => cases.push((start, tested, body)),
                None => return None,
            }
        }
        let mut statements = otherwise;
        for (start, condition, then) in cases.into_iter().rev() {
            let otherwise = std::mem::take(&mut statements);
            statements = vec![Statement {
                place: self.place(start),
                text: condition.text.clone(),
                action: Action::If {
                    condition,
                    then,
                    otherwise,
                },
            }];
        }
        Some(Action::Block(statements))
    }

    /// The statements of a case; `None` if the script goes on in the next case.
    fn case(&mut self) -> Option<Vec<Statement>> {
        let mut statements: Vec<Statement> = Vec::new();
        loop {
            if self.at >= self.tokens.len() {
                return None;
            }
            if self.is('}') {
                return Some(statements);
            }
            match self.word() {
                Some("break") => {
                    self.at += 1;
                    self.take(';');
                    return Some(statements);
                }
                Some("case" | "default") => {
                    let last = statements.last().map(|last| &last.action);
                    let ends = matches!(last, Some(Action::Exit | Action::Return(_)));
                    return ends.then_some(statements);
                }
                Some(_) | None => {}
            }
            if !self.take(';') {
                statements.push(self.statement());
            }
        }
    }

    /// A block or a single statement.
    fn branch(&mut self) -> Vec<Statement> {
        if self.at >= self.tokens.len() || self.is('}') || self.take(';') {
            return Vec::new();
        }
        match self.statement() {
            Statement {
                action: Action::Block(statements),
                ..
            } => statements,
            statement => vec![statement],
        }
    }

    fn word_action(&mut self, word: &str) -> Option<Action> {
        match word {
            "exit" | "drop" => {
                self.at += 1;
                self.empty_parentheses();
                Some(Action::Exit)
            }
            "return" => {
                self.at += 1;
                self.returned().map(Action::Return)
            }
            _ => self.call().map(Action::Call),
        }
    }

    fn empty_parentheses(&mut self) {
        let empty = self.is('(') && matches!(self.kind(1), Some(Kind::Sign(')')));
        self.at += if empty { 2 } else { 0 };
    }

    /// The number behind `return`, in parentheses or not.
    fn returned(&mut self) -> Option<i64> {
        self.empty_parentheses();
        let in_parentheses = self.take('(');
        let sign = if self.take('-') { -1 } else { 1 };
        let number = match self.word() {
            Some("true") => 1,
            Some("false") => -1,
            Some(word) => word.parse().ok()?,
            None if in_parentheses => return None,
            None => return Some(1),
        };
        self.at += 1;
        if in_parentheses && !self.take(')') {
            return None;
        }
        Some(sign * number)
    }

    fn assignment(&mut self, variable: String) -> Option<Action> {
        self.at += 1;
        if !self.take('=') || self.is('=') {
            return None;
        }
        let value = self.expression();
        Some(Action::Assign { variable, value })
    }

    /// Skips to the end of a statement: behind its semicolon, or its block.
    fn skip_statement(&mut self) {
        let mut open = Vec::new();
        while let Some(token) = self.tokens.get(self.at) {
            match &token.kind {
                Kind::Sign('}') if !open.contains(&'{') => return,
                Kind::Sign(';') if open.is_empty() => {
                    self.at += 1;
                    return;
                }
                Kind::Sign('{') => open.push('{'),
                Kind::Sign('(') => open.push('('),
                Kind::Sign(')') if open.last() == Some(&'(') => {
                    open.pop();
                }
                Kind::Sign('}') => {
                    while open.pop() != Some('{') {}
                    if open.is_empty() {
                        self.at += 1;
                        return;
                    }
                }
                Kind::Word(_)
                | Kind::Text(_)
                | Kind::Variable(_)
                | Kind::Sign(_)
                | Kind::Directive { .. }
                | Kind::Unclosed(_) => {}
            }
            self.at += 1;
        }
    }

    fn expression(&mut self) -> Expression {
        self.binary(0)
    }

    /// The operators from `level` on, which bind closer the higher it is: `||`, `&&`, comparisons, `+`.
    fn binary(&mut self, level: usize) -> Expression {
        let start = self.at;
        if self.depth >= DEEPEST {
            return self.unknown(start);
        }
        self.depth += 1;
        let result = match level {
            0 => self.logical(start, level, '|', "or"),
            1 => self.logical(start, level, '&', "and"),
            2 => self.comparison(start),
            _ => self.sum(start),
        };
        self.depth -= 1;
        result
    }

    fn logical(&mut self, start: usize, level: usize, sign: char, word: &str) -> Expression {
        let mut left = self.binary(level + 1);
        loop {
            if self.is(sign) && self.is_joined(1, sign) {
                self.at += 2;
            } else if self.word() == Some(word) {
                self.at += 1;
            } else {
                return left;
            }
            let right = self.binary(level + 1);
            let pair = (Box::new(left), Box::new(right));
            let term = match sign {
                '|' => Term::Or(pair.0, pair.1),
                _ => Term::And(pair.0, pair.1),
            };
            left = self.term(start, term);
        }
    }

    fn comparison(&mut self, start: usize) -> Expression {
        let left = self.binary(3);
        let Some(operator) = self.operator() else {
            return left;
        };
        let right = self.binary(3);
        // `! a == b` is `(! a) == b`, which nobody means, except with `myself`.
        let is_myself = matches!(&right.term, Term::Word(word) if word == "myself");
        let term = match left {
            Expression {
                term: Term::Not(inner),
                ..
            } if is_myself => {
                let compared = Term::Compare(operator, inner, Box::new(right));
                Term::Not(Box::new(self.term(start, compared)))
            }
            Expression {
                term: Term::Not(_), ..
            } => Term::Other,
            left => Term::Compare(operator, Box::new(left), Box::new(right)),
        };
        self.term(start, term)
    }

    fn operator(&mut self) -> Option<Operator> {
        let has = |sign| self.is_joined(1, sign);
        let (operator, length) = match self.kind(0)? {
            Kind::Sign('=') if has('=') => (Operator::Equal, 2),
            Kind::Sign('=') if has('~') => (Operator::Matches, 2),
            Kind::Sign('!') if has('=') => (Operator::Different, 2),
            Kind::Sign('!') if has('~') => (Operator::MatchesNot, 2),
            Kind::Sign('<') if has('=') => (Operator::LessOrEqual, 2),
            Kind::Sign('>') if has('=') => (Operator::GreaterOrEqual, 2),
            Kind::Sign('<') => (Operator::Less, 1),
            Kind::Sign('>') => (Operator::Greater, 1),
            Kind::Word(word) if word == "eq" => (Operator::Equal, 1),
            Kind::Word(word) if word == "ne" => (Operator::Different, 1),
            Kind::Word(_)
            | Kind::Text(_)
            | Kind::Variable(_)
            | Kind::Sign(_)
            | Kind::Directive { .. }
            | Kind::Unclosed(_) => return None,
        };
        self.at += length;
        Some(operator)
    }

    fn sum(&mut self, start: usize) -> Expression {
        let first = self.value();
        if !self.is('+') {
            return first;
        }
        let mut parts = vec![first];
        while self.take('+') {
            parts.push(self.value());
        }
        self.term(start, Term::Sum(parts))
    }

    fn value(&mut self) -> Expression {
        let start = self.at;
        if self.depth >= DEEPEST {
            return self.unknown(start);
        }
        self.depth += 1;
        let term = self.simple();
        self.depth -= 1;
        match term {
            Some(Term::Other) | None => self.unknown(start),
            Some(term) => self.term(start, term),
        }
    }

    fn simple(&mut self) -> Option<Term> {
        match self.kind(0)?.clone() {
            Kind::Sign('!') => {
                self.at += 1;
                let inner = self.value();
                Some(Term::Not(Box::new(inner)))
            }
            Kind::Word(word) if word == "not" => {
                self.at += 1;
                let inner = self.value();
                Some(Term::Not(Box::new(inner)))
            }
            Kind::Sign('(') => {
                self.at += 1;
                let inner = self.expression();
                self.take(')').then_some(inner.term)
            }
            Kind::Sign('-') => {
                self.at += 1;
                let number = self.word()?.parse::<i64>().ok()?;
                self.at += 1;
                Some(Term::Word((-number).to_string()))
            }
            Kind::Text(text) => {
                self.at += 1;
                Some(Term::Text(text))
            }
            Kind::Variable(variable) => {
                self.at += 1;
                Some(Term::Variable(variable))
            }
            Kind::Word(word) => match self.call() {
                Some(call) => Some(Term::Call(call)),
                None if matches!(self.kind(1), Some(Kind::Sign('('))) => None,
                None => Some(self.address().unwrap_or_else(|| {
                    self.at += 1;
                    Term::Word(word)
                })),
            },
            Kind::Sign(_) | Kind::Directive { .. } | Kind::Unclosed(_) => None,
        }
    }

    /// `10.0.0.0/8`, whose parts are tokens without blanks between them.
    fn address(&mut self) -> Option<Term> {
        if !self.is_joined(1, '.') {
            return None;
        }
        let mut text = String::new();
        while let Some(token) = self.tokens.get(self.at) {
            if token.spaced && !text.is_empty() {
                break;
            }
            if let Kind::Word(word) = &token.kind {
                text.push_str(word);
            } else if let Kind::Sign(sign @ ('.' | '/')) = &token.kind {
                text.push(*sign);
            } else {
                break;
            }
            self.at += 1;
        }
        Some(Term::Address(text))
    }

    /// `name(…)`; nothing is consumed if this is something else.
    fn call(&mut self) -> Option<Call> {
        let start = self.at;
        let name = self.word()?.to_owned();
        self.at += 1;
        if !self.take('(') {
            self.at = start;
            return None;
        }
        let mut arguments = Vec::new();
        while !self.take(')') {
            let before = self.at;
            arguments.push(with_variable(self.expression()));
            let is_separated = self.take(',') || self.is(')');
            if !is_separated || self.at == before {
                self.at = start;
                return None;
            }
        }
        Some(Call { name, arguments })
    }

    /// Skips an operand that is not understood: to the next operator or closing sign of its level.
    fn unknown(&mut self, start: usize) -> Expression {
        self.at = start;
        let mut depth = 0_usize;
        while let Some(token) = self.tokens.get(self.at) {
            match &token.kind {
                Kind::Sign('(' | '[') => depth += 1,
                Kind::Sign(')' | ']') if depth > 0 => depth -= 1,
                Kind::Sign(')' | ';' | '{' | '}' | ',') if depth == 0 => break,
                Kind::Sign(';' | '{' | '}') => break,
                Kind::Sign(sign @ ('|' | '&')) if depth == 0 && self.is_joined(1, *sign) => break,
                Kind::Word(_)
                | Kind::Text(_)
                | Kind::Variable(_)
                | Kind::Sign(_)
                | Kind::Directive { .. }
                | Kind::Unclosed(_) => {}
            }
            self.at += 1;
        }
        self.term(start, Term::Other)
    }

    fn term(&self, start: usize, term: Term) -> Expression {
        Expression {
            place: self.place(start),
            text: text_of(&self.tokens[start..self.at.max(start)]),
            term,
        }
    }

    /// The place of a token; of the last one, behind the end. There are tokens, because a route has begun.
    fn place(&self, at: usize) -> Place {
        self.tokens[at.min(self.tokens.len() - 1)].place.clone()
    }

    fn kind(&self, ahead: usize) -> Option<&Kind> {
        self.tokens.get(self.at + ahead).map(|token| &token.kind)
    }

    fn word(&self) -> Option<&str> {
        match self.kind(0)? {
            Kind::Word(word) => Some(word),
            Kind::Text(_)
            | Kind::Variable(_)
            | Kind::Sign(_)
            | Kind::Directive { .. }
            | Kind::Unclosed(_) => None,
        }
    }

    fn is(&self, sign: char) -> bool {
        self.kind(0) == Some(&Kind::Sign(sign))
    }

    /// Whether a sign follows without a blank before it.
    fn is_joined(&self, ahead: usize, sign: char) -> bool {
        let token = self.tokens.get(self.at + ahead);
        token.is_some_and(|token| !token.spaced && token.kind == Kind::Sign(sign))
    }

    fn take(&mut self, sign: char) -> bool {
        let is = self.is(sign);
        self.at += usize::from(is);
        is
    }
}

/// In an argument, `"$si"` is the variable and not a text.
fn with_variable(argument: Expression) -> Expression {
    let Term::Text(text) = &argument.term else {
        return argument;
    };
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    let name = text.strip_prefix('$').unwrap_or_default();
    let (class, inner) = name.split_once('(').unwrap_or((name, ")"));
    let inner = inner.strip_suffix(')').unwrap_or(" ");
    let is_variable = !class.is_empty() && class.chars().chain(inner.chars()).all(is_name);
    if !is_variable {
        return argument;
    }
    Expression {
        term: Term::Variable(text.clone()),
        ..argument
    }
}
