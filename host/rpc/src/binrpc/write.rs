//! Writes replies, faults and requests.

use std::borrow::Cow;
use std::ops::ControlFlow;

use super::packet::{Kind, MAGIC_AND_VERSION};
use super::record::{DOUBLE, END, INT, NAME, STRUCT, TEXT};
use crate::buffer::{Buffer, TooLarge};
use crate::{Call, Fault, Param, Reply, RowsForm, Value};

/// Writes a reply of at most `most` bytes, header included. Send it in one piece: `kamcmd` expects the whole header in its first
/// read.
///
/// # Errors
/// If it has more bytes.
pub fn reply(cookie: u32, reply: Reply, most: usize) -> Result<Vec<u8>, TooLarge> {
    let mut body = Buffer::new(most.saturating_sub(MOST_HEADER));
    match reply {
        Reply::One(Value::List(values)) | Reply::Each(values) => {
            values.iter().for_each(|each| value(&mut body, each));
        }
        Reply::One(one) => value(&mut body, &one),
        Reply::Rows(rows) if rows.form() == RowsForm::Each => {
            // Bytes above the limit are only counted.
            let _all = rows.each(&mut |row| {
                value(&mut body, &row);
                ControlFlow::Continue(())
            });
        }
        Reply::Rows(rows) => repeated(&mut body, rows),
    }
    let body = body.finish().map_err(|error| TooLarge {
        bytes: error.bytes.saturating_add(MOST_HEADER),
        most,
    })?;
    Ok(packet(Kind::Reply, cookie, &body))
}

/// Writes a fault. Its text is cut to the 255 bytes that Kamailio allows.
pub fn fault(cookie: u32, fault: &Fault) -> Vec<u8> {
    let message = fault.message.as_str();
    let mut body = Buffer::new(usize::MAX);
    integer(&mut body, fault.code);
    text(
        &mut body,
        TEXT,
        message
            .get(..message.floor_char_boundary(MOST_FAULT))
            .unwrap_or(message),
    );
    packet(Kind::Fault, cookie, &body.finish().unwrap_or_default())
}

/// Writes a request as `kamcmd` does. Parameters of a kind that BINRPC cannot carry are left out.
pub fn request(cookie: u32, call: &Call) -> Vec<u8> {
    let mut body = Buffer::new(usize::MAX);
    text(&mut body, TEXT, &call.method);
    for param in &call.params {
        match param {
            Param::Int(number) => value(&mut body, &Value::Int(*number)),
            Param::Double(number) => double(&mut body, *number),
            Param::Text(param) => text(&mut body, TEXT, param),
            Param::Other(_) => {}
        }
    }
    packet(Kind::Request, cookie, &body.finish().unwrap_or_default())
}

fn packet(kind: Kind, cookie: u32, body: &[u8]) -> Vec<u8> {
    // No buffer here is longer than a four-byte length can express.
    let length = u32::try_from(body.len()).unwrap_or(u32::MAX);
    let (length, cookie) = (length.to_be_bytes(), cookie.to_be_bytes());
    // Both have at least one byte, even for 0.
    let (length, cookie) = (at_least_one(&length), at_least_one(&cookie));
    let widths = (length.len() - 1) << 2 | (cookie.len() - 1);
    let mut packet = vec![MAGIC_AND_VERSION, kind.number() << 4 | widths as u8];
    packet.extend_from_slice(length);
    packet.extend_from_slice(cookie);
    packet.extend_from_slice(body);
    packet
}

/// One structure that repeats the member names for each row.
fn repeated(out: &mut Buffer<'_>, rows: crate::Rows) {
    out.push(&[STRUCT]);
    let _all = rows.each(&mut |row| {
        if let Value::Struct(members) = &row {
            members.iter().for_each(|member| self::member(out, member));
        } else {
            value(out, &row);
        }
        ControlFlow::Continue(())
    });
    out.push(&[END | STRUCT]);
}

fn value(out: &mut Buffer<'_>, value: &Value<'_>) {
    match value {
        Value::Null => text(out, TEXT, ""),
        Value::Bool(yes) => integer(out, i32::from(*yes)),
        Value::Int(number) => match i32::try_from(*number) {
            Ok(number) => integer(out, number),
            Err(_) => text(out, TEXT, &number.to_string()),
        },
        Value::Double(number) => double(out, *number),
        Value::Text(content) => text(out, TEXT, content),
        // Kamailio's clients do not accept a list within a structure; its server writes a structure of values without names.
        Value::List(values) => {
            out.push(&[STRUCT]);
            values.iter().for_each(|each| self::value(out, each));
            out.push(&[END | STRUCT]);
        }
        Value::Struct(members) => {
            out.push(&[STRUCT]);
            members.iter().for_each(|member| self::member(out, member));
            out.push(&[END | STRUCT]);
        }
    }
}

fn member(out: &mut Buffer<'_>, (name, value): &(Cow<'_, str>, Value<'_>)) {
    text(out, NAME, name);
    self::value(out, value);
}

fn integer(out: &mut Buffer<'_>, number: i32) {
    let bytes = number.to_be_bytes();
    let bytes = minimal(&bytes);
    out.push(&[(bytes.len() as u8) << 4 | INT]);
    out.push(bytes);
}

fn double(out: &mut Buffer<'_>, number: f64) {
    let thousandths = (number * 1000.0).round() as i64;
    let bytes = thousandths.to_be_bytes();
    let bytes = minimal(&bytes);
    out.push(&[(bytes.len() as u8) << 4 | DOUBLE]);
    out.push(bytes);
}

fn text(out: &mut Buffer<'_>, kind: u8, text: &str) {
    let length = text.len() + 1;
    if length < 8 {
        out.push(&[(length as u8) << 4 | kind]);
    } else {
        let bytes = (length as u64).to_be_bytes();
        let bytes = minimal(&bytes);
        out.push(&[END | (bytes.len() as u8) << 4 | kind]);
        out.push(bytes);
    }
    out.push(text.as_bytes());
    out.push(&[0]);
}

/// The bytes without leading zeros.
fn minimal(bytes: &[u8]) -> &[u8] {
    let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
    bytes.get(zeros..).unwrap_or_default()
}

fn at_least_one(bytes: &[u8]) -> &[u8] {
    match minimal(bytes) {
        [] => &[0],
        minimal => minimal,
    }
}

/// Two bytes, length and cookie.
const MOST_HEADER: usize = 10;

/// Longest text of a fault, in bytes (`MAX_FAULT_LEN`, without its NUL).
const MOST_FAULT: usize = 255;
