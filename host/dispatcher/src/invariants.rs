//! Properties of every input, as assertions that tests and fuzz targets share.
//!
//! Each function panics when its property does not hold.

use std::path::Path;
use std::time::Duration;

use crate::algorithm::Algorithm;
use crate::file;
use crate::member::{Parts, uri_of_name};
use crate::remembered::Remembered;
use crate::set::{MOST_CHOSEN, Question};
use crate::sets::{Rows, Sets};

/// Reads a list of destinations. Those that can be used are written as lines and read back the same, and can be chosen.
pub fn list(text: &[u8]) {
    let text = String::from_utf8_lossy(text);
    let read = file::read(&text, Path::new("list"));
    let lines = text.lines().count();
    assert!(read.rows.len() + read.errors.len() <= lines);
    assert!(read.skipped as usize + read.rows.len() <= lines);
    for error in &read.errors {
        assert!(!error.to_string().is_empty());
    }
    for warning in &read.warnings {
        assert!(!warning.to_string().is_empty());
    }
    for parts in read.rows.iter().filter(|parts| has_line(parts)) {
        let again = file::read(&line_of(parts), Path::new("again"));
        let [row] = &again.rows[..] else {
            panic!("{:?} is not read back: {:?}", line_of(parts), again.errors);
        };
        let values = |parts: &Parts| {
            let Parts {
                set,
                uri,
                flags,
                priority,
                attrs,
                description,
                hop,
            } = parts.clone();
            (set, uri, flags, priority, attrs, description, hop)
        };
        assert_eq!(values(row), values(parts));
    }
    choices(read);
}

fn choices(rows: Rows) {
    let sets = Sets::new(rows, &Sets::default(), Duration::ZERO);
    for set in sets.iter() {
        for algorithm in Algorithm::ALL {
            let question = Question {
                algorithm,
                hash: Some(7),
                most: MOST_CHOSEN,
                failed: None,
            };
            let chosen = set.choose(question, |_| true);
            let mut slots: Vec<_> = chosen.slots().collect();
            assert!(slots.len() <= set.open());
            slots.sort_unstable();
            slots.dedup();
            assert_eq!(slots.len(), chosen.len(), "no destination is chosen twice");
            assert!(slots.iter().all(|slot| *slot < set.members().len()));
        }
        for member in set.members() {
            assert_eq!(uri_of_name(&member.name), &*member.uri);
            assert!(!member.host().is_empty());
            assert!(!member.ping_uri().contains([' ', '<', '>', '\r', '\n']));
            let line = Remembered::of(member).to_string();
            let has_blank =
                member.attrs.socket.contains(' ') || member.attrs.sockname.contains(' ');
            if !has_blank {
                assert_eq!(line.parse(), Ok(Remembered::of(member)));
            }
        }
    }
}

/// Whether a line can say the same. A word ends with the next quote.
fn has_line(parts: &Parts) -> bool {
    !parts.attrs.body.contains('"') && !parts.uri.contains('"')
}

fn line_of(parts: &Parts) -> String {
    let Parts {
        set,
        uri,
        flags,
        priority,
        attrs,
        description,
        ..
    } = parts;
    format!("{set} \"{uri}\" {flags} {priority} \"{attrs}\" {description}")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn lists(
            lines in prop::collection::vec(
                "[0-9]{1,3} (sip|sips|tel):[a-z@.:0-9]{1,12}(;transport=(udp|tls|ws))?( 0x)?[0-9 ]{0,5}( [a-z=;0-9\"]{0,12})?( [a-z ]{0,8})?",
                0..6,
            ),
        ) {
            super::list(lines.join("\n").as_bytes());
        }

        #[test]
        fn lists_of_any_bytes(text in prop::collection::vec(any::<u8>(), 0..200)) {
            super::list(&text);
        }
    }
}
