//! Call-IDs in the form in which they are shown.

/// The longest Call-ID that is kept or logged, in bytes.
pub(super) const CALL_ID: usize = 128;

/// A Call-ID as text, truncated. The text is not escaped yet.
pub(crate) fn cut(call_id: &[u8]) -> String {
    let cut = call_id.get(..CALL_ID).unwrap_or(call_id);
    String::from_utf8_lossy(cut).into_owned()
}
