//! Policies with one answer, and those of `tests/guests`.

use std::path::Path;

/// A policy that answers this code and reason to everything.
pub fn rejecting(code: u16, reason: &str) -> String {
    let [low, high] = code.to_le_bytes();
    let length = reason.len();
    deciding(
        &format!("\\01\\00\\00\\00\\{low:02x}\\{high:02x}\\00\\00\\40\\00\\00\\00\\{length:02x}"),
        reason,
    )
}

/// A policy that sends everything on as routed.
pub fn relaying() -> String {
    deciding("\\00", "")
}

/// A policy that sends everything to a next hop.
pub fn relaying_to(next_hop: &str) -> String {
    let length = next_hop.len();
    deciding(
        &format!("\\00\\00\\00\\00\\01\\00\\00\\00\\40\\00\\00\\00\\{length:02x}"),
        next_hop,
    )
}

/// A policy that answers nothing to anything.
pub fn dropping() -> String {
    deciding("\\02", "")
}

/// A policy without an opinion.
pub fn passing() -> String {
    deciding("\\03", "")
}

/// A policy that adds `X-By: NAME` and takes Subject out, and has no opinion beside that.
pub fn editing(name: &str) -> String {
    let length = name.len();
    format!(
        r#"(module
            (import "portcullis:policy/edits@0.1.0" "add-header"
              (func $add (param i32 i32 i32 i32) (result i32)))
            (import "portcullis:policy/edits@0.1.0" "remove-header"
              (func $remove (param i32 i32) (result i32)))
            (memory (export "memory") 1)
            (data (i32.const 16) "\03")
            (data (i32.const 64) "X-BySubject{name}")
            (func (export "decide") (result i32)
              (drop (call $add (i32.const 64) (i32.const 4) (i32.const 75) (i32.const {length})))
              (drop (call $remove (i32.const 68) (i32.const 7)))
              i32.const 16))"#
    )
}

/// One of `tests/guests`.
pub fn guest(name: &str) -> String {
    let guests = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/guests");
    std::fs::read_to_string(guests.join(name).with_extension("wat")).unwrap()
}

/// A verdict lies at 16, its text at 64.
fn deciding(verdict: &str, text: &str) -> String {
    format!(
        r#"(module
            (memory (export "memory") 1)
            (data (i32.const 16) "{verdict}")
            (data (i32.const 64) "{text}")
            (func (export "decide") (result i32) i32.const 16))"#
    )
}
