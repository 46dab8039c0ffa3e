//! Lifts results of a module out of its memory: the verdict, the next step, and the result of `validate-settings`.

use crate::failure::Failure;
use crate::next_step::NextStep;
use crate::verdict::{InvalidVerdict, Rejection, Verdict};

/// Bytes of a verdict or a next step in memory: the discriminant, then the largest payload, a rejection.
const VERDICT: usize = 24;
/// Bytes of a header field in memory: name and value, each an address and a length.
const HEADER: usize = 16;

/// The memory, and how many bytes may still be copied out of it.
struct Reader<'a> {
    memory: &'a [u8],
    limit: usize,
    left: usize,
}

/// Reads the verdict at `at`. At most `limit` bytes are copied.
pub(super) fn verdict(memory: &[u8], at: u32, limit: usize) -> Result<Verdict, Failure> {
    let mut reader = Reader::of_result(memory, at, limit)?;
    let raw = reader.bytes(at, VERDICT, "pointer out of bounds of memory")?;
    match raw[0] {
        0 => Ok(Verdict::Relay(match raw[4] {
            0 => None,
            1 => Some(reader.text(word(raw, 8), word(raw, 12))?),
            _ => return Err(unreadable("invalid option discriminant")),
        })),
        1 => Ok(Verdict::Reject(reader.rejection(raw)?)),
        2 => Ok(Verdict::Drop),
        3 => Ok(Verdict::Pass),
        case => Err(unreadable(&format!("unexpected discriminant: {case}"))),
    }
}

/// Reads the next step at `at`. At most `limit` bytes are copied.
pub(super) fn next_step(memory: &[u8], at: u32, limit: usize) -> Result<NextStep, Failure> {
    let mut reader = Reader::of_result(memory, at, limit)?;
    let raw = reader.bytes(at, VERDICT, "pointer out of bounds of memory")?;
    match raw[0] {
        0 => Ok(NextStep::Best),
        1 => Ok(NextStep::Answer(reader.rejection(raw)?)),
        2 => Ok(NextStep::Again),
        case => Err(unreadable(&format!("unexpected discriminant: {case}"))),
    }
}

/// Reads the result of `validate-settings` at `at`.
pub(super) fn result(memory: &[u8], at: u32, limit: usize) -> Result<Result<(), String>, Failure> {
    const RESULT: usize = 12;
    let mut reader = Reader::of_result(memory, at, limit)?;
    let raw = reader.bytes(at, RESULT, "pointer out of bounds of memory")?;
    match raw[0] {
        0 => Ok(Ok(())),
        1 => Ok(Err(reader.text(word(raw, 4), word(raw, 8))?)),
        case => Err(unreadable(&format!("unexpected discriminant: {case}"))),
    }
}

impl<'a> Reader<'a> {
    /// A reader for the result at `at`, which must be aligned.
    fn of_result(memory: &'a [u8], at: u32, limit: usize) -> Result<Self, Failure> {
        match at.is_multiple_of(4) {
            true => Ok(Self {
                memory,
                limit,
                left: limit,
            }),
            false => Err(unreadable("return pointer not aligned")),
        }
    }

    /// The payload of a verdict or a next step.
    fn rejection(&mut self, raw: &[u8]) -> Result<Rejection, Failure> {
        Ok(Rejection {
            code: u16::from_le_bytes([raw[4], raw[5]]),
            reason: self.text(word(raw, 8), word(raw, 12))?,
            headers: self.headers(word(raw, 16), word(raw, 20))?,
        })
    }

    fn headers(&mut self, at: u32, count: u32) -> Result<Vec<(String, String)>, Failure> {
        let size = (count as usize).saturating_mul(HEADER);
        let raw = self.bytes(at, size, "list pointer/length out of bounds of memory")?;
        self.spend((count as usize).saturating_mul(size_of::<(String, String)>()))?;
        if !at.is_multiple_of(4) {
            return Err(unreadable("list pointer is not aligned"));
        }
        let mut headers = Vec::with_capacity(count as usize);
        for raw in raw.chunks_exact(HEADER) {
            let name = self.text(word(raw, 0), word(raw, 4))?;
            let value = self.text(word(raw, 8), word(raw, 12))?;
            headers.push((name, value));
        }
        Ok(headers)
    }

    fn text(&mut self, at: u32, length: u32) -> Result<String, Failure> {
        let cause = "string pointer/length out of bounds of memory";
        let bytes = self.bytes(at, length as usize, cause)?;
        self.spend(bytes.len())?;
        let text = std::str::from_utf8(bytes).map_err(|_| InvalidVerdict::NotUtf8)?;
        Ok(text.to_owned())
    }

    fn bytes(&self, at: u32, size: usize, cause: &str) -> Result<&'a [u8], Failure> {
        self.memory
            .get(at as usize..)
            .and_then(|rest| rest.get(..size))
            .ok_or_else(|| unreadable(cause))
    }

    fn spend(&mut self, bytes: usize) -> Result<(), Failure> {
        let limit = self.limit;
        self.left = self
            .left
            .checked_sub(bytes)
            .ok_or(Failure::HostCall { limit })?;
        Ok(())
    }
}

/// The 32-bit value at `at` of a slice that is long enough.
fn word(raw: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([raw[at], raw[at + 1], raw[at + 2], raw[at + 3]])
}

#[cold]
fn unreadable(cause: &str) -> Failure {
    InvalidVerdict::Unreadable(cause.into()).into()
}
