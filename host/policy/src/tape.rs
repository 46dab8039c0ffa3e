//! What a policy asked in one call and what it was told: written down, or read back.

use std::borrow::Cow;
use std::mem::size_of;

use serde_json::{Value, json};

use crate::clock::Moment;

/// A record of one call. What it takes is bounded, whatever the policy asks: beyond [`Tape::MOST_QUESTIONS`] or [`Tape::MOST_BYTES`] it is
/// cut.
#[derive(Clone, Debug, PartialEq)]
pub struct Tape {
    moment: Moment,
    /// What is still to be read back.
    recorded: Vec<Asked>,
    /// Whether what is not recorded may be asked of what the host knows now.
    pub(crate) is_live: bool,
    asked: Vec<Asked>,
    unanswered: Vec<Asked>,
    /// What `asked` and `unanswered` take.
    bytes: usize,
    is_cut: bool,
}

/// One question and its answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Asked {
    /// The function of the contract: `permissions.allow-source-address`.
    pub function: Cow<'static, str>,
    /// What was passed, in order.
    pub arguments: Value,
    /// What was answered.
    pub answer: Value,
    /// What a positive answer left for `last-tag` (a text or null) or `tags` (a list); absent for functions that leave nothing.
    pub left: Option<Value>,
}

/// An answer that can be written down and read back.
pub(crate) trait Answer: Sized {
    fn write(&self) -> Value;
    fn read(value: &Value) -> Option<Self>;
    /// Whether something was found.
    fn is_positive(&self) -> bool {
        false
    }
}

/// What a function leaves behind for other functions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Leaves {
    Nothing,
    /// For `permissions.last-tag`.
    Tag,
    /// For `trusted.tags`.
    Tags,
}

impl Tape {
    /// The most questions of one call that are written down.
    pub const MOST_QUESTIONS: usize = 256;

    /// The most bytes that they take, in memory or as JSON, whichever is more.
    pub const MOST_BYTES: usize = 128 << 10;

    /// An empty one, for a call at this moment. It writes down what is asked.
    pub fn new(moment: Moment) -> Self {
        Self {
            moment,
            recorded: Vec::new(),
            is_live: true,
            asked: Vec::new(),
            unanswered: Vec::new(),
            bytes: 0,
            is_cut: false,
        }
    }

    /// One that answers with what was recorded, each answer once, whatever the order of the questions. What was not recorded is asked of
    /// the host if that is allowed here, and of an empty one otherwise; either is told by [`Tape::unanswered`].
    pub fn replaying(moment: Moment, recorded: Vec<Asked>) -> Self {
        Self {
            recorded,
            is_live: false,
            ..Self::new(moment)
        }
    }

    /// When the call is.
    pub fn moment(&self) -> Moment {
        self.moment
    }

    /// What was asked, in order.
    pub fn asked(&self) -> &[Asked] {
        &self.asked
    }

    /// What was asked and had not been recorded, with the host's answers. Empty for a tape that replays nothing.
    pub fn unanswered(&self) -> &[Asked] {
        &self.unanswered
    }

    /// What was asked, in order, without a copy.
    pub fn into_asked(self) -> Vec<Asked> {
        self.asked
    }

    /// Whether the call asked more than was written down.
    pub fn is_cut(&self) -> bool {
        self.is_cut
    }

    /// What the written questions take at most, in memory and as JSON.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether it wants to know of the next question. One that is cut takes no more, so that asking on costs what it costs without a tape.
    pub(crate) fn is_listening(&self) -> bool {
        !self.is_live || !self.is_cut
    }

    /// Writes a question down, if there is room.
    pub(crate) fn note(&mut self, asked: Asked, is_unanswered: bool) {
        let bytes = asked.weight();
        let many = self.asked.len().max(self.unanswered.len()) >= Self::MOST_QUESTIONS;
        if self.is_cut || many || bytes > Self::MOST_BYTES - self.bytes {
            self.is_cut = true;
            return;
        }
        self.bytes += bytes;
        match is_unanswered {
            true => self.unanswered.push(asked),
            false => self.asked.push(asked),
        }
    }

    /// Takes the first recorded answer to a question. Where it was asked once and is asked again, the answer is the same.
    pub(crate) fn take(&mut self, function: &str, arguments: &Value) -> Option<Asked> {
        let is_it = |asked: &Asked| asked.function == function && asked.arguments == *arguments;
        match self.recorded.iter().position(is_it) {
            Some(at) => Some(self.recorded.remove(at)),
            None => self.asked.iter().rev().find(|asked| is_it(asked)).cloned(),
        }
    }
}

impl Asked {
    /// What it takes, in memory or as JSON, whichever is more.
    fn weight(&self) -> usize {
        let left = self.left.as_ref().map_or(0, weight);
        size_of::<Self>()
            + self.function.len()
            + weight(&self.arguments)
            + weight(&self.answer)
            + left
    }
}

/// What a value takes, in memory or as JSON, whichever is more.
fn weight(value: &Value) -> usize {
    /// What a value takes by itself. A number has 24 digits and signs at most; quotes, brackets and a comma are counted.
    const EACH: usize = size_of::<Value>() + 8;

    let inner = match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => 0,
        Value::String(text) => escaped(text),
        Value::Array(all) => all.iter().map(weight).sum(),
        Value::Object(members) => members
            .iter()
            .map(|(name, value)| size_of::<String>() + escaped(name) + weight(value))
            .sum(),
    };
    EACH + inner
}

/// The length of a text as JSON without its quotes. A control character takes six bytes.
fn escaped(text: &str) -> usize {
    let length = |byte: u8| match byte {
        b'"' | b'\\' => 2,
        0..=0x1f => 6,
        _ => 1,
    };
    text.bytes().map(length).sum()
}

impl Answer for bool {
    fn write(&self) -> Value {
        json!(self)
    }

    fn read(value: &Value) -> Option<Self> {
        value.as_bool()
    }

    fn is_positive(&self) -> bool {
        *self
    }
}

impl Answer for u32 {
    fn write(&self) -> Value {
        json!(self)
    }

    fn read(value: &Value) -> Option<Self> {
        value.as_u64()?.try_into().ok()
    }

    fn is_positive(&self) -> bool {
        *self > 0
    }
}

impl Answer for Option<u32> {
    fn write(&self) -> Value {
        json!(self)
    }

    fn read(value: &Value) -> Option<Self> {
        match value {
            Value::Null => Some(None),
            value => u32::read(value).map(Some),
        }
    }

    fn is_positive(&self) -> bool {
        self.is_some()
    }
}

impl Answer for u64 {
    fn write(&self) -> Value {
        json!(self)
    }

    fn read(value: &Value) -> Option<Self> {
        value.as_u64()
    }
}

/// The kinds of settings: any of them, or null for none.
macro_rules! settings_answer {
    ($($kind:ty: $read:expr),+ $(,)?) => {$(
        impl Answer for Option<$kind> {
            fn write(&self) -> Value {
                json!(self)
            }

            fn read(value: &Value) -> Option<Self> {
                let read: fn(&Value) -> Option<$kind> = $read;
                match value {
                    Value::Null => Some(None),
                    value => read(value).map(Some),
                }
            }
        }
    )+};
}

settings_answer! {
    bool: Value::as_bool,
    i64: Value::as_i64,
    f64: Value::as_f64,
    String: |value| value.as_str().map(str::to_owned),
    Vec<String>: texts,
}

impl Answer for Vec<String> {
    fn write(&self) -> Value {
        json!(self)
    }

    fn read(value: &Value) -> Option<Self> {
        texts(value)
    }
}

impl Answer for String {
    fn write(&self) -> Value {
        json!(self)
    }

    fn read(value: &Value) -> Option<Self> {
        value.as_str().map(str::to_owned)
    }
}

fn texts(value: &Value) -> Option<Vec<String>> {
    let list = value.as_array()?;
    let texts = list.iter().map(|text| text.as_str().map(str::to_owned));
    texts.collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn asked(text: &str) -> Asked {
        Asked {
            function: "counters.value".into(),
            arguments: json!([text]),
            answer: json!(0),
            left: None,
        }
    }

    #[test]
    fn a_tape_is_cut_at_its_bytes_and_at_its_questions() {
        // The same text, in bytes that JSON writes as they are and in bytes that take six.
        for (text, fit) in [("a".repeat(10_000), 12), ("\u{1}".repeat(10_000), 2)] {
            let mut tape = Tape::new(Moment::now());
            for _ in 0..20 {
                tape.note(asked(&text), false);
            }
            assert_eq!((tape.asked().len(), tape.is_cut()), (fit, true));
            assert!(tape.bytes() <= Tape::MOST_BYTES, "{}", tape.bytes());
            // What comes behind the cut is not of interest, however short.
            assert!(!tape.is_listening());
            tape.note(asked(""), false);
            assert_eq!(tape.asked().len(), fit);
        }
        let mut tape = Tape::new(Moment::now());
        for _ in 0..Tape::MOST_QUESTIONS {
            tape.note(asked(""), false);
        }
        assert!(!tape.is_cut() && tape.is_listening());
        tape.note(asked(""), false);
        assert!(tape.is_cut());
        assert_eq!(tape.asked().len(), Tape::MOST_QUESTIONS);
    }

    fn values() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            ".*".prop_map(Value::from),
            "[\\x00-\\x20\"\\\\]{0,40}".prop_map(Value::from),
        ];
        leaf.prop_recursive(3, 40, 8, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..8).prop_map(Value::from),
                prop::collection::hash_map("[\\x00-~]{0,9}", inner, 0..8)
                    .prop_map(|members| members.into_iter().collect()),
            ]
        })
    }

    proptest! {
        #[test]
        fn no_value_is_longer_as_json_than_it_weighs(value in values()) {
            prop_assert!(value.to_string().len() <= weight(&value));
        }
    }
}
