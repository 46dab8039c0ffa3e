//! Parses a response: its status code, and the id of its request.

use memchr::memmem::Finder;

use crate::call::BYE_BRANCH;
use crate::template::{BRANCH, parse_id};

/// A response to one of our requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    /// Status code.
    pub(crate) code: u16,
    /// The request's id.
    pub(crate) id: u64,
    /// Whether it answers the BYE of a call.
    pub(crate) is_to_bye: bool,
}

/// A parser of responses, with prepared searchers.
#[derive(Debug)]
pub(crate) struct Reader {
    branch: Finder<'static>,
    call_id: Finder<'static>,
}

impl Reader {
    /// A parser.
    pub(crate) fn new() -> Self {
        Self {
            branch: Finder::new(b"branch="),
            call_id: Finder::new(b"\r\nCall-ID: "),
        }
    }

    /// Parses a response. `None` unless its top Via is ours (a proxy has removed its own) and Call-ID names the same request.
    pub(crate) fn read(&self, bytes: &[u8]) -> Option<Answer> {
        let code = bytes.strip_prefix(b"SIP/2.0 ")?.get(..4)?;
        let [a, b, c, b' '] = code else { return None };
        let code = [a, b, c]
            .into_iter()
            .try_fold(0, |code, digit| match digit {
                b'0'..=b'9' => Some(code * 10 + u16::from(digit - b'0')),
                _ => None,
            })?;
        let branch = self.branch.find(bytes)? + b"branch=".len();
        let branch = &bytes[branch..];
        let (id, is_to_bye) = match branch.strip_prefix(BRANCH) {
            Some(id) => (id, false),
            None => (branch.strip_prefix(BYE_BRANCH)?, true),
        };
        let id = parse_id(id)?;
        let call_id = self.call_id.find(bytes)? + b"\r\nCall-ID: ".len();
        (parse_id(&bytes[call_id..])? == id).then_some(Answer {
            code,
            id,
            is_to_bye,
        })
    }
}

impl Default for Reader {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OURS: &str = "SIP/2.0 401 Address not authorised\r\n\
        Via: SIP/2.0/UDP 127.1.0.1:40000;branch=z9hG4bK-load-00000000000000ff;rport=40000\r\n\
        Call-ID: 00000000000000ff@127.1.0.1\r\n\r\n";

    #[test]
    fn code_and_id_are_read() {
        let answer = Reader::new().read(OURS.as_bytes());
        let expected = Answer {
            code: 401,
            id: 255,
            is_to_bye: false,
        };
        assert_eq!(answer, Some(expected));
        let bye = OURS.replace("z9hG4bK-load-", "z9hG4bK-bye-");
        let answer = Reader::new().read(bye.as_bytes());
        assert!(answer.is_some_and(|answer| answer.is_to_bye && answer.id == 255));
    }

    #[test]
    fn what_is_no_answer_of_ours_is_refused() {
        let foreign = [
            OURS.replace("z9hG4bK-load-", "z9hG4bK-else-"),
            OURS.replace("Call-ID: 00000000000000ff", "Call-ID: 00000000000000fe"),
            OURS.replace("SIP/2.0 401", "SIP/2.0 4x1"),
            OURS.replace("SIP/2.0 401 A", "INVITE sip:a"),
            OURS.replace(
                "Via: ",
                "Via: SIP/2.0/UDP 127.0.0.1;branch=z9hG4bKproxy\r\nVia: ",
            ),
            String::new(),
        ];
        for text in foreign {
            assert_eq!(Reader::new().read(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn a_cut_answer_is_refused_wherever_it_is_cut() {
        let ids_end = OURS.find("@127").unwrap();
        for end in 0..ids_end {
            assert_eq!(Reader::new().read(&OURS.as_bytes()[..end]), None);
        }
    }
}
