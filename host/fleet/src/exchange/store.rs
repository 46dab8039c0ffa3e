//! The script that reads and writes Redis, and its answer.

use redis::{Cmd, Value};

use super::ledger::{Cursor, Field, Instance, Key, Reply};
use super::options::Options;
use super::shared::Change;

const SCRIPT: &str = include_str!("script.lua");

/// Most items of one part in Redis, over all hosts. One takes about 400 bytes there.
const MOST_KEPT: usize = 1 << 20;

/// Redis keeps what a fleet has stored for this long after the last exchange of the last host.
const LIFE_MS: u64 = 7 * 86_400_000;

/// Who exchanges.
#[derive(Clone, Debug)]
pub(super) struct Own {
    /// Random for each process.
    pub(super) instance: Instance,
    /// The instance in hexadecimal digits, and the name of the host.
    pub(super) label: String,
    /// Number of the last exchange that was answered for all parts.
    pub(super) answered: u64,
}

/// The command that gives the script to the server, which answers the digest.
pub(super) fn script() -> Cmd {
    let mut command = redis::cmd("SCRIPT");
    command.arg("LOAD").arg(SCRIPT);
    command
}

/// The command that stores these changes and reads at most so many of those of the others, by the digest of the script.
#[expect(clippy::too_many_arguments, reason = "the arguments of the script")]
pub(super) fn exchange(
    script: &str,
    options: &Options,
    part: &str,
    own: &Own,
    number: u64,
    cursor: &Cursor,
    fresh: &str,
    changes: &[Change],
    most_read: usize,
) -> Cmd {
    let mut command = redis::cmd("EVALSHA");
    command.arg(script).arg(5);
    for key in keys(&options.prefix, part) {
        command.arg(key);
    }
    command
        .arg(&own.instance[..])
        .arg(&own.label)
        .arg(number)
        .arg(&cursor.epoch)
        .arg(cursor.version)
        .arg(fresh)
        .arg(MOST_KEPT)
        .arg(most_read)
        .arg(u64::try_from(options.absence().as_millis()).unwrap_or(u64::MAX))
        .arg(LIFE_MS)
        .arg(own.answered);
    for change in changes {
        command
            .arg(&change.key[..])
            .arg(change.value)
            .arg(change.ends);
    }
    command
}

/// The keys of a part. The braces put all of them into one slot of a cluster.
pub(super) fn keys(prefix: &str, part: &str) -> [String; 5] {
    ["state", "values", "changes", "ends", "hosts"]
        .map(|name| format!("{{{prefix}}}:{part}:{name}"))
}

/// What the script answers; `None` if it is not what the script writes.
pub(super) fn reply(value: Value) -> Option<Reply> {
    let Value::Array(values) = value else {
        return None;
    };
    let [epoch, version, now, hosts, refused, more, items] = <[Value; 7]>::try_from(values).ok()?;
    let Value::Array(items) = items else {
        return None;
    };
    let mut reply = Reply {
        epoch: String::from_utf8(bytes(epoch)?).ok()?,
        version: number(version)?,
        now: number(now)?,
        hosts: usize::try_from(number(hosts)?).ok()?,
        refused: number(refused)?,
        more: number(more)? != 0,
        fields: Vec::with_capacity(items.len() / 2),
        garbage: 0,
    };
    let mut items = items.into_iter();
    while let (Some(item), Some(value)) = (items.next(), items.next()) {
        match field(item, value) {
            Some(field) => reply.fields.push(field),
            None => reply.garbage += 1,
        }
    }
    Some(reply)
}

fn field(item: Value, value: Value) -> Option<(Key, Field)> {
    let item = <[u8; 32]>::try_from(bytes(item)?).ok()?;
    let (key, instance) = item.split_at(16);
    let value = String::from_utf8(bytes(value)?).ok()?;
    let (value, ends) = value.split_once(' ')?;
    let field = Field {
        instance: instance.try_into().ok()?,
        value: value.parse().ok()?,
        ends: ends.parse().ok()?,
    };
    Some((key.try_into().ok()?, field))
}

#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "the enum is the library's, and the script writes two forms of text"
)]
fn bytes(value: Value) -> Option<Vec<u8>> {
    match value {
        Value::BulkString(bytes) => Some(bytes),
        Value::SimpleString(text) => Some(text.into_bytes()),
        _ => None,
    }
}

fn number(value: Value) -> Option<u64> {
    if let Value::Int(number) = value {
        return u64::try_from(number).ok();
    }
    String::from_utf8(bytes(value)?).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Value {
        Value::BulkString(text.as_bytes().to_vec())
    }

    #[test]
    fn all_keys_of_a_part_are_in_one_slot() {
        let keys = keys("edge", "bans");
        assert!(
            keys.iter().all(|key| key.starts_with("{edge}:bans:")),
            "{keys:?}"
        );
    }

    #[test]
    fn what_others_wrote_is_skipped_if_it_is_garbage() {
        let item = |last: u8| {
            let mut item = vec![7; 16];
            item.extend([last; 16]);
            Value::BulkString(item)
        };
        let items = vec![
            item(1),
            text("5 1700000000000"),
            item(2),
            text("five tomorrow"),
            text("short"),
            text("5 1700000000000"),
            item(3),
            text(""),
            item(4),
            Value::Nil,
        ];
        let value = Value::Array(vec![
            text("abc"),
            text("12"),
            text("1699999999999"),
            Value::Int(3),
            Value::Int(0),
            Value::Int(1),
            Value::Array(items),
        ]);
        let reply = reply(value).unwrap();
        let read = Field {
            instance: [1; 16],
            value: 5,
            ends: 1_700_000_000_000,
        };
        assert_eq!(reply.fields, [([7; 16], read)]);
        assert_eq!((reply.garbage, reply.hosts, reply.more), (4, 3, true));
        assert_eq!((reply.epoch.as_str(), reply.version), ("abc", 12));
        assert_eq!(super::reply(Value::Array(vec![text("abc")])), None);
        assert_eq!(super::reply(Value::Okay), None);
    }
}
