//! Escapes text from policies and from the network for logs and messages.

use std::borrow::Cow;
use std::fmt::Write as _;

/// Returns `text`, cut to `limit` bytes, with control characters and characters that change the direction of text escaped. Allocates only if
/// the text changes.
pub(crate) fn shown(text: &str, limit: usize) -> Cow<'_, str> {
    let cut = &text[..text.floor_char_boundary(limit)];
    let whole = cut.len() == text.len();
    if whole && !cut.chars().any(is_active) {
        return Cow::Borrowed(cut);
    }

    let mut shown = String::with_capacity(cut.len() + 16);
    for c in cut.chars() {
        match is_active(c) {
            true => shown.extend(c.escape_default()),
            false => shown.push(c),
        }
    }
    if !whole {
        let _ = write!(shown, "… ({} bytes)", text.len());
    }
    Cow::Owned(shown)
}

/// Whether a character controls a terminal or the direction of the text around it.
fn is_active(c: char) -> bool {
    c.is_control()
        || matches!(
            c,
            '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}'
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_text_is_borrowed() {
        assert!(matches!(
            shown("Ünïcode, plain", 64),
            Cow::Borrowed("Ünïcode, plain")
        ));
    }

    #[test]
    fn control_characters_are_escaped() {
        assert_eq!(
            shown("a\r\nb\x1b[31m\u{85}\0\u{202e}", 64),
            "a\\r\\nb\\u{1b}[31m\\u{85}\\u{0}\\u{202e}"
        );
    }

    #[test]
    fn long_text_is_cut_between_characters() {
        assert_eq!(shown("ääää", 5), "ää… (8 bytes)");
        assert_eq!(shown("abcd", 4), "abcd");
    }
}
