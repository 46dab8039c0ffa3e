//! The result of a command, before a protocol writes it.

use std::borrow::Cow;
use std::fmt;
use std::ops::ControlFlow;

/// One value of a reply.
#[derive(Clone, Debug, PartialEq)]
pub enum Value<'a> {
    /// No value: null in JSON, the empty text in BINRPC.
    Null,
    /// A boolean: 1 or 0 in BINRPC.
    Bool(bool),
    /// A whole number. BINRPC has 32 bits; a larger number is written there as text.
    Int(i64),
    /// A number; BINRPC keeps three decimals.
    Double(f64),
    /// A text.
    Text(Cow<'a, str>),
    /// A list of values.
    List(Vec<Self>),
    /// Members in order; a name may occur more than once.
    Struct(Vec<(Cow<'a, str>, Self)>),
}

/// The result of a command.
#[derive(Debug)]
pub enum Reply {
    /// One record.
    One(Value<'static>),
    /// Records one after another (Kamailio's flag `RET_ARRAY`): a list in JSON.
    Each(Vec<Value<'static>>),
    /// The rows of a table, which may be many: each row is made, written and dropped before the next.
    Rows(Rows),
}

/// The rows of a table, made as they are written.
pub struct Rows {
    form: RowsForm,
    each: Box<EachRow>,
}

/// Form of rows in a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RowsForm {
    /// Each row is a record: `permissions.addressDump`.
    Each,
    /// As in `permissions.domainDump`: BINRPC has one structure that repeats the member names for each row. JSON has a list, because
    /// most readers keep only the last of equal names; Kamailio repeats them there, too.
    Repeated,
}

/// Accepts one row; returns whether to go on.
pub type Write<'w> = dyn FnMut(Value<'_>) -> ControlFlow<()> + 'w;

type EachRow = dyn FnOnce(&mut Write<'_>) -> ControlFlow<()> + Send;

impl Rows {
    /// Rows that `each` passes to its argument one after another, until that returns `Break`. Each row is a [`Value::Struct`].
    pub fn new(
        form: RowsForm,
        each: impl FnOnce(&mut Write<'_>) -> ControlFlow<()> + Send + 'static,
    ) -> Self {
        Self {
            form,
            each: Box::new(each),
        }
    }

    /// Their form in a reply.
    pub fn form(&self) -> RowsForm {
        self.form
    }

    /// Makes the rows and passes them to `write`, until that returns `Break`.
    pub fn each(self, write: &mut Write<'_>) -> ControlFlow<()> {
        (self.each)(write)
    }
}

impl fmt::Debug for Rows {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rows")
            .field("form", &self.form)
            .finish_non_exhaustive()
    }
}

impl From<Value<'static>> for Reply {
    fn from(value: Value<'static>) -> Self {
        Self::One(value)
    }
}

impl From<Rows> for Reply {
    fn from(rows: Rows) -> Self {
        Self::Rows(rows)
    }
}

impl<'a> From<&'a str> for Value<'a> {
    fn from(text: &'a str) -> Self {
        Self::Text(Cow::Borrowed(text))
    }
}

impl From<String> for Value<'_> {
    fn from(text: String) -> Self {
        Self::Text(Cow::Owned(text))
    }
}

impl From<bool> for Value<'_> {
    fn from(yes: bool) -> Self {
        Self::Bool(yes)
    }
}

impl<'a, T: Into<Self>> From<Option<T>> for Value<'a> {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Null, Into::into)
    }
}

impl<'a, T: Into<Self>> From<Vec<T>> for Value<'a> {
    fn from(values: Vec<T>) -> Self {
        Self::List(values.into_iter().map(Into::into).collect())
    }
}

impl<'a, const N: usize> From<[(&'a str, Self); N]> for Value<'a> {
    fn from(members: [(&'a str, Self); N]) -> Self {
        let members = members.into_iter();
        Self::Struct(members.map(|(name, value)| (name.into(), value)).collect())
    }
}

macro_rules! from_integers {
    ($($small:ty),+; $($large:ty),+) => {
        $(impl From<$small> for Value<'_> {
            fn from(number: $small) -> Self {
                Self::Int(number.into())
            }
        })+
        // No count of the host comes near the end of the range.
        $(impl From<$large> for Value<'_> {
            fn from(number: $large) -> Self {
                Self::Int(i64::try_from(number).unwrap_or(i64::MAX))
            }
        })+
    };
}

from_integers!(i32, i64, u8, u16, u32; u64, usize);
