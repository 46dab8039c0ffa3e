//! A case with the exceptions applied: Kamailio's answers to it are the expected ones.

use std::collections::BTreeSet;

use super::super::exceptions::{
    BACK_REFERENCES, CARRIAGE_RETURN, Exception, FILES_IN_UTF_8, LONG_LINE, STAR_BEHIND_CONTACTS,
    TELEPHONE_CONTACT, URI_SPELLING,
};
use super::case::{Case, ODD_BYTE};
use super::generate::{NO_PORT, REFERRING};

/// The exceptions, applied to a case.
#[derive(Clone, Debug)]
pub struct View {
    /// The case without the lines that Portcullis ignores.
    pub case: Case,
    /// The exceptions that apply to the case.
    pub met: BTreeSet<&'static str>,
}

impl View {
    /// Applies the exceptions to a case.
    pub fn of(case: &Case) -> Self {
        let (mut case, mut met) = (case.clone(), BTreeSet::new());
        for pair in &mut case.pairs {
            for lines in [&mut pair.allow, &mut pair.deny] {
                lines.retain(|line| {
                    let exception = skips(line);
                    met.extend(exception.map(|exception| exception.name));
                    exception.is_none()
                });
                for line in lines {
                    if line.ends_with('\r') {
                        line.pop();
                        met.insert(CARRIAGE_RETURN.name);
                    }
                    if line.len() > LONGEST_LINE {
                        *line = shortened(line);
                        met.insert(LONG_LINE.name);
                    }
                }
            }
        }
        for call in &mut case.calls {
            let contacts = call.envelope.contacts.iter_mut().flatten();
            for (at, contact) in contacts.enumerate() {
                if at > 0 && contact == "*" {
                    *contact = format!("<{UNREADABLE}nobody@example.com>");
                    met.insert(STAR_BEHIND_CONTACTS.name);
                }
                if contact.contains(NO_PORT) || contact.contains('_') {
                    let unreadable = format!("{UNREADABLE}bob@example.com");
                    *contact = contact.replace(NO_PORT, &unreadable).replace('_', "-");
                    met.insert(URI_SPELLING.name);
                }
                if contact.contains("tel:") {
                    *contact = contact.replace("tel:", UNREADABLE);
                    met.insert(TELEPHONE_CONTACT.name);
                }
            }
        }
        Self { case, met }
    }
}

/// The exception by which Portcullis ignores a line, if there is one.
fn skips(line: &str) -> Option<Exception> {
    // In the generated lines, a comment has a blank before and after its `#`.
    let rule = line.split(" # ").next().unwrap_or_default();
    if rule.contains(ODD_BYTE) {
        return Some(FILES_IN_UTF_8);
    }
    let is_referring = REFERRING.iter().any(|pattern| rule.contains(pattern));
    is_referring.then_some(BACK_REFERENCES)
}

/// The longest line that Kamailio reads in one piece, in bytes.
const LONGEST_LINE: usize = 499;

/// A line without the blanks and comments that make it long.
fn shortened(line: &str) -> String {
    let mut short = String::new();
    for c in line.chars() {
        if !([' ', 'x'].contains(&c) && short.ends_with(c)) {
            short.push(c);
        }
    }
    short
}

/// A scheme that neither server accepts.
const UNREADABLE: &str = "mailto:";
