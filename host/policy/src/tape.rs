//! What a policy asked in one call and what it was told: written down, or read back.

use std::borrow::Cow;

use serde_json::{Value, json};

use crate::call::Call;
use crate::clock::Moment;

/// A record of one call.
#[derive(Clone, Debug, PartialEq)]
pub struct Tape {
    moment: Moment,
    /// What is still to be read back.
    recorded: Vec<Asked>,
    /// Whether what is not recorded may be asked of what the host knows now.
    is_live: bool,
    asked: Vec<Asked>,
    unanswered: Vec<Asked>,
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
    /// An empty one, for a call at this moment. It writes down what is asked.
    pub fn new(moment: Moment) -> Self {
        Self {
            moment,
            recorded: Vec::new(),
            is_live: true,
            asked: Vec::new(),
            unanswered: Vec::new(),
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

    /// Takes the first recorded answer to a question. Where it was asked once and is asked again, the answer is the same.
    fn take(&mut self, function: &str, arguments: &Value) -> Option<Asked> {
        let is_it = |asked: &Asked| asked.function == function && asked.arguments == *arguments;
        match self.recorded.iter().position(is_it) {
            Some(at) => Some(self.recorded.remove(at)),
            None => self.asked.iter().rev().find(|asked| is_it(asked)).cloned(),
        }
    }
}

impl<R> Call<R> {
    /// Answers a question by `live`, and from or to the tape if there is one.
    #[inline]
    pub(crate) fn answered<T: Answer>(
        &mut self,
        function: &'static str,
        leaves: Leaves,
        arguments: impl FnOnce() -> Value,
        live: impl FnOnce(&mut Self) -> T,
    ) -> T {
        match self.has_tape() {
            false => live(self),
            true => self.answered_by_tape(function, leaves, arguments(), live),
        }
    }

    #[cold]
    fn answered_by_tape<T: Answer>(
        &mut self,
        function: &'static str,
        leaves: Leaves,
        arguments: Value,
        live: impl FnOnce(&mut Self) -> T,
    ) -> T {
        let recorded = self.with_tape(|tape| match tape.is_live {
            true => None,
            false => tape.take(function, &arguments),
        });
        let read = recorded
            .as_ref()
            .and_then(|asked| T::read(&asked.answer).map(|answer| (answer, asked.left.clone())));
        if let Some((answer, left)) = read {
            if let Some(left) = &left
                && answer.is_positive()
            {
                self.leave(leaves, left);
            }
            self.with_tape(|tape| tape.asked.extend(recorded));
            return answer;
        }
        let answer = live(self);
        let left = match leaves {
            _ if !answer.is_positive() => None,
            Leaves::Nothing => None,
            Leaves::Tag => Some(json!(self.last_tag())),
            Leaves::Tags => Some(json!(self.trusted_tags())),
        };
        let asked = Asked {
            function: function.into(),
            arguments,
            answer: answer.write(),
            left,
        };
        self.with_tape(|tape| {
            if !tape.is_live {
                tape.unanswered.push(asked.clone());
            }
            tape.asked.push(asked);
        });
        answer
    }
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
