//! The FIFO through which `kamctl` sends JSON-RPC (`src/modules/jsonrpcs/jsonrpcs_fifo.c`): where a request ends, and which
//! pipes may get a reply.
//!
//! Any number of writers share one FIFO, and only the braces of its JSON show where a request ends.

use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::MOST_REQUEST;

/// Cuts what comes through a FIFO into requests: each ends where its braces balance outside of quotes. What stands between
/// requests is passed over.
#[derive(Debug, Default)]
pub struct FifoReader {
    request: Vec<u8>,
    /// How many braces are open.
    depth: usize,
    quoted: bool,
    escaped: bool,
    /// Length so far of a request that is too long and is not kept.
    overlong: Option<usize>,
}

/// A request that is too long. It was read to its end and discarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("a request of {bytes} bytes, {MOST_REQUEST} at most")]
pub struct Overlong {
    /// Its length.
    pub bytes: usize,
}

/// Why a pipe gets no reply.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum BadReplyName {
    /// The name could lead out of the directory for replies.
    #[error(
        "reply_name {0:?} is no name of a pipe: it must not be empty nor hold '.', '/', '\\' or control characters"
    )]
    Forbidden(String),
    /// Kamailio's limit (`JSONRPC_MAX_FILENAME`).
    #[error("the path of the reply pipe has {0} bytes, {MOST_PATH} at most")]
    TooLong(usize),
}

impl FifoReader {
    /// Reads these bytes, and passes each request that ends in them to `take`.
    pub fn push(&mut self, bytes: &[u8], mut take: impl FnMut(Result<Vec<u8>, Overlong>)) {
        for &byte in bytes {
            if let Some(request) = self.byte(byte) {
                take(request);
            }
        }
    }

    /// True if a request has begun and not ended.
    pub fn is_within(&self) -> bool {
        self.depth > 0
    }

    /// Discards an incomplete request: its writer is gone.
    pub fn reset(&mut self) {
        *self = Self::default();
    }

    fn byte(&mut self, byte: u8) -> Option<Result<Vec<u8>, Overlong>> {
        if self.depth == 0 && byte != b'{' {
            return None;
        }
        self.keep(byte);
        if self.quoted {
            match byte {
                _ if self.escaped => self.escaped = false,
                b'\\' => self.escaped = true,
                b'"' => self.quoted = false,
                _ => {}
            }
            return None;
        }
        match byte {
            b'"' => self.quoted = true,
            b'{' => self.depth += 1,
            b'}' => self.depth -= 1,
            _ => {}
        }
        if self.depth > 0 {
            return None;
        }
        let ended = std::mem::take(self);
        Some(match ended.overlong {
            Some(bytes) => Err(Overlong { bytes }),
            None => Ok(ended.request),
        })
    }

    fn keep(&mut self, byte: u8) {
        match &mut self.overlong {
            Some(bytes) => *bytes = bytes.saturating_add(1),
            None if self.request.len() == MOST_REQUEST => {
                self.request = Vec::new();
                self.overlong = Some(MOST_REQUEST + 1);
            }
            None => self.request.push(byte),
        }
    }
}

/// Returns the pipe in `folder` that a request names for its reply.
///
/// # Errors
/// If the name could lead out of `folder`.
pub fn reply_pipe(folder: &Path, name: &str) -> Result<PathBuf, BadReplyName> {
    let forbidden = |c: char| matches!(c, '.' | '/' | '\\') || c.is_control();
    if name.is_empty() || name.contains(forbidden) {
        return Err(BadReplyName::Forbidden(name.chars().take(80).collect()));
    }
    let path = folder.join(name);
    match path.as_os_str().len() {
        length if length > MOST_PATH => Err(BadReplyName::TooLong(length)),
        _ => Ok(path),
    }
}

const MOST_PATH: usize = 127;

#[cfg(test)]
mod tests {
    use super::*;

    fn requests(bytes: &[u8]) -> Vec<String> {
        let mut requests = Vec::new();
        FifoReader::default().push(bytes, |request| {
            requests.push(String::from_utf8(request.unwrap()).unwrap());
        });
        requests
    }

    #[test]
    fn requests_end_where_their_braces_balance() {
        assert_eq!(
            requests(b"{\"a\": 1}\n  {\"b\": {\"c\": {}}}{}"),
            ["{\"a\": 1}", "{\"b\": {\"c\": {}}}", "{}"]
        );
        assert_eq!(requests(b"{\"a\": {}"), Vec::<String>::new());
    }

    #[test]
    fn braces_in_quotes_do_not_count() {
        for request in [
            r#"{"a": "}"}"#,
            r#"{"a": "{{"}"#,
            r#"{"a": "\"}"}"#,
            r#"{"a": "\\"}"#,
            r#"{"}": "it's"}"#,
        ] {
            assert_eq!(requests(request.as_bytes()), [request]);
        }
    }

    #[test]
    fn what_stands_between_requests_is_passed_over() {
        assert_eq!(
            requests(b"}} it's \"quoted\n\0\xff{\"a\": 1}]\\{}"),
            ["{\"a\": 1}", "{}"]
        );
    }

    #[test]
    fn a_request_that_is_too_long_is_passed_over_whole() {
        let of_length = |length: usize| {
            let mut request = vec![b' '; length];
            request[0] = b'{';
            request[length - 1] = b'}';
            request
        };
        let stream = [
            of_length(MOST_REQUEST),
            of_length(MOST_REQUEST + 1),
            of_length(MOST_REQUEST * 3),
            b"{}".to_vec(),
        ]
        .concat();
        let mut lengths = Vec::new();
        let mut reader = FifoReader::default();
        for chunk in stream.chunks(4096) {
            reader.push(chunk, |request| {
                lengths.push(request.map(|request| request.len()));
            });
            assert!(reader.request.len() <= MOST_REQUEST);
        }
        assert_eq!(
            lengths,
            [
                Ok(MOST_REQUEST),
                Err(Overlong {
                    bytes: MOST_REQUEST + 1
                }),
                Err(Overlong {
                    bytes: MOST_REQUEST * 3
                }),
                Ok(2)
            ]
        );
    }

    #[test]
    fn a_writer_that_has_gone_leaves_nothing_behind() {
        let mut reader = FifoReader::default();
        reader.push(b"{\"half\": \"a", |_| panic!("it has not ended"));
        assert!(reader.is_within());
        reader.reset();
        assert!(!reader.is_within());
        let mut count = 0;
        reader.push(b"{}", |request| {
            assert_eq!(request, Ok(b"{}".to_vec()));
            count += 1;
        });
        assert_eq!(count, 1);
    }

    #[test]
    fn replies_go_to_the_folder_for_replies_only() {
        let folder = Path::new("/tmp");
        assert_eq!(
            reply_pipe(folder, "kamailio_receiver_17"),
            Ok("/tmp/kamailio_receiver_17".into())
        );
        for name in ["", "..", "a.b", "../x", "/etc/x", "a\\b", "a\0b", "a\nb"] {
            assert_eq!(
                reply_pipe(folder, name),
                Err(BadReplyName::Forbidden(name.into()))
            );
        }
        assert!(reply_pipe(folder, &"x".repeat(122)).is_ok());
        assert_eq!(
            reply_pipe(folder, &"x".repeat(123)),
            Err(BadReplyName::TooLong(128))
        );
    }
}
