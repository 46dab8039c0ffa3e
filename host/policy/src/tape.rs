//! The tape of one call: the queries of the policy and the host's answers, to record and to replay.

use std::borrow::Cow;
use std::mem::size_of;

use serde_json::{Value, json};

use crate::clock::Moment;
use crate::failed_attempts::{Attempt, Cause};
use crate::flow_state::FlowState;
use crate::forwarding::Refusal;
use crate::standing::Standing;

/// The queries and answers of one call. Bounded: beyond [`Tape::MOST_QUESTIONS`] or [`Tape::MOST_BYTES`] the tape is truncated.
#[derive(Clone, Debug, PartialEq)]
pub struct Tape {
    moment: Moment,
    /// Recorded queries that have not been replayed yet.
    recorded: Vec<Asked>,
    /// Whether queries are answered by the host; false for a replay.
    pub(crate) is_live: bool,
    asked: Vec<Asked>,
    unanswered: Vec<Asked>,
    /// Bytes of `asked` and `unanswered`, as [`Asked::weight`] counts them.
    bytes: usize,
    is_cut: bool,
}

/// One query and its answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Asked {
    /// The function of the contract: `permissions.allow-source-address`.
    pub function: Cow<'static, str>,
    /// The arguments in order.
    pub arguments: Value,
    /// The result.
    pub answer: Value,
    /// The result of `last-tag` (a text or null) or `tags` (a list) after a positive answer; `None` for functions without this side effect.
    pub left: Option<Value>,
}

/// An answer that can be recorded and replayed.
pub(crate) trait Answer: Sized {
    fn write(&self) -> Value;
    fn read(value: &Value) -> Option<Self>;
    /// Whether the query found something.
    fn is_positive(&self) -> bool {
        false
    }
}

/// The side effect of a function on the results of other functions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SideEffect {
    None,
    /// Sets the result of `permissions.last-tag`.
    Tag,
    /// Sets the result of `trusted.tags`.
    Tags,
}

impl Tape {
    /// Maximum number of recorded queries of one call.
    pub const MOST_QUESTIONS: usize = 256;

    /// Maximum size of the recorded queries in bytes, in memory or as JSON, whichever is larger.
    pub const MOST_BYTES: usize = 128 << 10;

    /// An empty tape that records the queries of a call at this moment.
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

    /// A tape that replays recorded answers, each once and in any order of queries. Queries that were not recorded are answered by the host
    /// and listed by [`Tape::unanswered`].
    pub fn replaying(moment: Moment, recorded: Vec<Asked>) -> Self {
        Self {
            recorded,
            is_live: false,
            ..Self::new(moment)
        }
    }

    /// The time of the call.
    pub fn moment(&self) -> Moment {
        self.moment
    }

    /// The queries in order.
    pub fn asked(&self) -> &[Asked] {
        &self.asked
    }

    /// Queries of a replay that had not been recorded, with the host's answers. Empty for a tape that records.
    pub fn unanswered(&self) -> &[Asked] {
        &self.unanswered
    }

    /// The queries in order, without a copy.
    pub fn into_asked(self) -> Vec<Asked> {
        self.asked
    }

    /// Whether the tape is truncated: the call made more queries than were recorded.
    pub fn is_cut(&self) -> bool {
        self.is_cut
    }

    /// Size of the recorded queries in bytes, in memory or as JSON, whichever is larger.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether the next query must be passed to the tape. A truncated recording takes no more queries, so that further queries cost the same
    /// as without a tape.
    pub(crate) fn is_listening(&self) -> bool {
        !self.is_live || !self.is_cut
    }

    /// Records a query, if there is room.
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

    /// Takes the first recorded answer to a query. A query that was recorded once and is repeated gets the same answer again.
    pub(crate) fn take(&mut self, function: &str, arguments: &Value) -> Option<Asked> {
        let is_it = |asked: &Asked| asked.function == function && asked.arguments == *arguments;
        match self.recorded.iter().position(is_it) {
            Some(at) => Some(self.recorded.remove(at)),
            None => self.asked.iter().rev().find(|asked| is_it(asked)).cloned(),
        }
    }
}

impl Asked {
    /// Size in bytes, in memory or as JSON, whichever is larger.
    fn weight(&self) -> usize {
        let left = self.left.as_ref().map_or(0, weight);
        size_of::<Self>()
            + self.function.len()
            + weight(&self.arguments)
            + weight(&self.answer)
            + left
    }
}

/// Size of a value in bytes, in memory or as JSON, whichever is larger.
fn weight(value: &Value) -> usize {
    /// Size of a value without its content. A number has at most 24 digits and signs; quotes, brackets and a comma are included.
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

/// The length of a text as JSON without its quotes. A control character has six bytes.
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
        match value.is_null() {
            true => Some(None),
            false => u32::read(value).map(Some),
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

/// Optional values. A missing one is null.
macro_rules! optional_answer {
    ($($kind:ty: $read:expr),+ $(,)?) => {$(
        impl Answer for Option<$kind> {
            fn write(&self) -> Value {
                json!(self)
            }

            fn read(value: &Value) -> Option<Self> {
                let read: fn(&Value) -> Option<$kind> = $read;
                match value.is_null() {
                    true => Some(None),
                    false => read(value).map(Some),
                }
            }
        }
    )+};
}

optional_answer! {
    bool: Value::as_bool,
    i64: Value::as_i64,
    u64: Value::as_u64,
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

impl Answer for u8 {
    fn write(&self) -> Value {
        json!(self)
    }

    fn read(value: &Value) -> Option<Self> {
        value.as_u64()?.try_into().ok()
    }
}

/// Bytes that are UTF-8 are a text, which records can mask; others are a list of numbers.
impl Answer for Vec<u8> {
    fn write(&self) -> Value {
        match std::str::from_utf8(self) {
            Ok(text) => json!(text),
            Err(_) => json!(self),
        }
    }

    fn read(value: &Value) -> Option<Self> {
        if let Some(text) = value.as_str() {
            return Some(text.as_bytes().to_vec());
        }
        value.as_array()?.iter().map(u8::read).collect()
    }
}

/// A function without a result.
impl Answer for () {
    fn write(&self) -> Value {
        Value::Null
    }

    fn read(value: &Value) -> Option<Self> {
        value.is_null().then_some(())
    }
}

/// A success is null.
impl Answer for Result<(), Refusal> {
    fn write(&self) -> Value {
        match self {
            Ok(()) => Value::Null,
            Err(refusal) => json!(refusal.to_string()),
        }
    }

    fn read(value: &Value) -> Option<Self> {
        if value.is_null() {
            return Some(Ok(()));
        }
        let name = value.as_str()?;
        let mut all = Refusal::ALL.into_iter();
        all.find(|refusal| refusal.to_string() == name).map(Err)
    }
}

/// A success is a list of texts.
impl Answer for Result<Vec<String>, Refusal> {
    fn write(&self) -> Value {
        match self {
            Ok(texts) => json!(texts),
            Err(refusal) => json!(refusal.to_string()),
        }
    }

    fn read(value: &Value) -> Option<Self> {
        if let Some(texts) = texts(value) {
            return Some(Ok(texts));
        }
        let name = value.as_str()?;
        let mut all = Refusal::ALL.into_iter();
        all.find(|refusal| refusal.to_string() == name).map(Err)
    }
}

impl Answer for Standing {
    fn write(&self) -> Value {
        json!(self.as_str())
    }

    fn read(value: &Value) -> Option<Self> {
        let name = value.as_str()?;
        let mut all = Self::ALL.into_iter();
        all.find(|standing| standing.as_str() == name)
    }
}

impl Answer for FlowState {
    fn write(&self) -> Value {
        json!(self.as_str())
    }

    fn read(value: &Value) -> Option<Self> {
        let name = value.as_str()?;
        Self::ALL.into_iter().find(|flow| flow.as_str() == name)
    }
}

impl Answer for Attempt {
    fn write(&self) -> Value {
        json!({
            "place": self.place,
            "status": self.status,
            "cause": self.cause.as_str(),
            "milliseconds": self.milliseconds,
        })
    }

    fn read(value: &Value) -> Option<Self> {
        let cause = value.get("cause")?.as_str()?;
        Some(Self {
            place: value.get("place")?.as_str()?.to_owned(),
            status: value.get("status")?.as_u64()?.try_into().ok()?,
            cause: Cause::ALL.into_iter().find(|one| one.as_str() == cause)?,
            milliseconds: value.get("milliseconds")?.as_u64()?.try_into().ok()?,
        })
    }
}

impl Answer for Option<Attempt> {
    fn write(&self) -> Value {
        self.as_ref().map_or(Value::Null, Answer::write)
    }

    fn read(value: &Value) -> Option<Self> {
        match value.is_null() {
            true => Some(None),
            false => Attempt::read(value).map(Some),
        }
    }
}

impl Answer for Vec<Attempt> {
    fn write(&self) -> Value {
        self.iter().map(Answer::write).collect()
    }

    fn read(value: &Value) -> Option<Self> {
        value.as_array()?.iter().map(Attempt::read).collect()
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
    fn a_tape_is_truncated_at_its_limits_of_bytes_and_queries() {
        // A text whose bytes are written to JSON as they are, and one whose bytes are escaped to six bytes each.
        for (text, fit) in [("a".repeat(10_000), 12), ("\u{1}".repeat(10_000), 2)] {
            let mut tape = Tape::new(Moment::now());
            for _ in 0..20 {
                tape.note(asked(&text), false);
            }
            assert_eq!((tape.asked().len(), tape.is_cut()), (fit, true));
            assert!(tape.bytes() <= Tape::MOST_BYTES, "{}", tape.bytes());
            // A truncated tape takes no further query, however short.
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

    #[test]
    fn answers_are_read_as_they_are_written() {
        fn same<T: Answer + PartialEq + std::fmt::Debug>(answer: T) {
            assert_eq!(T::read(&answer.write()), Some(answer));
        }
        let attempt = Attempt {
            place: "carrier-a".into(),
            status: 408,
            cause: Cause::NoAnswer,
            milliseconds: 4000,
        };
        same(Some(attempt.clone()));
        same(vec![attempt]);
        same(None::<Attempt>);
        same(7_u8);
        same(Some(7_u64));
        Standing::ALL.into_iter().for_each(same);
        FlowState::ALL.into_iter().for_each(same);
        same(Vec::<u8>::new());
        same((0..=255).collect::<Vec<u8>>());
        same(Ok::<(), Refusal>(()));
        for refusal in Refusal::ALL {
            same(Err::<(), _>(refusal));
        }
        for wrong in [json!(7), json!([256]), json!(["a"]), json!(null)] {
            assert_eq!(Vec::<u8>::read(&wrong), None, "{wrong}");
        }
        assert_eq!(Result::<(), Refusal>::read(&json!("perhaps")), None);
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
        fn no_value_is_longer_as_json_than_its_weight(value in values()) {
            prop_assert!(value.to_string().len() <= weight(&value));
        }
    }
}
