//! What a command answers, before a protocol writes it.

use std::borrow::Cow;
use std::fmt;

/// One value of a reply.
#[derive(Clone, Debug, PartialEq)]
pub enum Value<'a> {
    /// Nothing: null in JSON, the empty text in BINRPC.
    Null,
    /// Yes or no: 1 or 0 in BINRPC.
    Bool(bool),
    /// A whole number. BINRPC has 32 bits; there a number beyond them is written as text.
    Int(i64),
    /// A number; BINRPC keeps three digits behind the point.
    Double(f64),
    /// A text.
    Text(Cow<'a, str>),
    /// Values one after another.
    List(Vec<Self>),
    /// Members in order; a name may come more than once.
    Struct(Vec<(&'a str, Self)>),
}

/// What a command answers.
#[derive(Debug)]
pub enum Reply {
    /// One record.
    One(Value<'static>),
    /// Records one after another (Kamailio's flag `RET_ARRAY`): a list in JSON.
    Each(Vec<Value<'static>>),
    /// The rows of a table, which may be many: each is made, written and forgotten.
    Rows(Rows),
}

/// The rows of a table, made as they are written.
pub struct Rows {
    form: RowsForm,
    each: Box<EachRow>,
}

/// How rows stand in a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RowsForm {
    /// Each row is a record: `permissions.addressDump`.
    Each,
    /// As `permissions.domainDump` has it: BINRPC has one structure in which the names of the members come again for each row.
    /// JSON has a list here too, because most readers keep the last of equal names only; Kamailio repeats them.
    Repeated,
}

type EachRow = dyn FnOnce(&mut dyn FnMut(Value<'_>)) + Send;

impl Rows {
    /// Rows that `each` gives to the function it gets, one after another. Each is a [`Value::Struct`].
    pub fn new(
        form: RowsForm,
        each: impl FnOnce(&mut dyn FnMut(Value<'_>)) + Send + 'static,
    ) -> Self {
        Self {
            form,
            each: Box::new(each),
        }
    }

    /// How they stand in a reply.
    pub fn form(&self) -> RowsForm {
        self.form
    }

    /// Makes all rows and gives them to `write`.
    pub fn each(self, write: &mut dyn FnMut(Value<'_>)) {
        (self.each)(write);
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
        Self::Struct(members.into())
    }
}

macro_rules! from_integers {
    ($($small:ty),+; $($large:ty),+) => {
        $(impl From<$small> for Value<'_> {
            fn from(number: $small) -> Self {
                Self::Int(number.into())
            }
        })+
        // None of what the host counts comes near the end of the range.
        $(impl From<$large> for Value<'_> {
            fn from(number: $large) -> Self {
                Self::Int(i64::try_from(number).unwrap_or(i64::MAX))
            }
        })+
    };
}

from_integers!(i32, i64, u8, u16, u32; u64, usize);
