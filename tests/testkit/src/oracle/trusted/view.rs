//! A case with the exceptions applied: Kamailio's answers to it are the expected ones.

use std::collections::BTreeSet;

use super::super::exceptions::{
    BACK_REFERENCES, Exception, IPV4_MAPPED, TRUSTED_ROWS, TRUSTED_SOURCE,
};
use super::super::text::Text;
use super::case::{Call, Case, Question, Row};
use super::generate::{BAD_PATTERNS, REFERRING_PATTERNS};

/// The exceptions, applied to a case.
#[derive(Clone, Debug, Default)]
pub struct View {
    /// The table without rows that Kamailio cannot load or interprets differently.
    pub rows: Vec<Row>,
    /// Number of rows that Portcullis skips.
    pub skipped: usize,
    /// The requests.
    pub calls: Vec<Call>,
    /// The exceptions that apply to the case.
    pub met: BTreeSet<&'static str>,
}

impl View {
    /// Applies the exceptions to a case.
    pub fn of(case: &Case) -> Self {
        let mut view = Self::default();
        for row in &case.rows {
            let mut row = row.clone();
            if let Some(exception) = skips(&row) {
                view.met.insert(exception.name);
                view.skipped += 1;
                continue;
            }
            view.respell(&mut row.source);
            view.rows.push(row);
        }
        for call in &case.calls {
            let mut call = call.clone();
            for question in &mut call.questions {
                if let Question::Peer { source, .. } = question {
                    view.respell(source);
                }
            }
            view.calls.push(call);
        }
        view
    }

    /// Spells an address as Kamailio prints it.
    fn respell(&mut self, source: &mut String) {
        let (exception, printed) = match Text::of(source) {
            Text::V4(addr) => (TRUSTED_SOURCE, addr.to_string()),
            Text::V6 { addr, .. } => match addr.to_ipv4_mapped() {
                Some(addr) => (IPV4_MAPPED, addr.to_string()),
                None => (TRUSTED_SOURCE, addr.to_string()),
            },
            Text::Misread4 | Text::Misread6 | Text::Name | Text::Neither => return,
        };
        if printed != *source {
            self.met.insert(exception.name);
            *source = printed;
        }
    }
}

/// The exception by which Portcullis skips a row, if there is one.
fn skips(row: &Row) -> Option<Exception> {
    let is = |proto: &str| proto.eq_ignore_ascii_case(&row.proto);
    if is("none") {
        return None;
    }
    let any_of = |list: &[&str]| {
        let patterns = [&row.from, &row.ruri].into_iter().flatten();
        patterns
            .into_iter()
            .any(|pattern| list.contains(&pattern.as_str()))
    };
    if !PROTOS.iter().any(|proto| is(proto)) || any_of(&BAD_PATTERNS) {
        return Some(TRUSTED_ROWS);
    }
    any_of(&REFERRING_PATTERNS).then_some(BACK_REFERENCES)
}

const PROTOS: [&str; 7] = ["any", "udp", "tcp", "tls", "sctp", "ws", "wss"];
