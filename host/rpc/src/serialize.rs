//! A reply type as a [`Value`]: every protocol writes the same types, in the order of their fields.

use std::borrow::Cow;
use std::fmt;

use serde::ser::{self, Serialize};

use crate::Value;

/// The value of a type that implements `Serialize`. Whole numbers beyond `i64` become the largest one.
///
/// # Errors
/// If the type has no form in [`Value`]: a map whose names are no texts, or what its `Serialize` refuses.
pub fn value_of(of: &(impl Serialize + ?Sized)) -> Result<Value<'static>, Unserializable> {
    of.serialize(ToValue)
}

/// The type has no form in [`Value`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the reply has no form in this protocol: {0}")]
pub struct Unserializable(String);

impl ser::Error for Unserializable {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self(message.to_string())
    }
}

type Serialized = Result<Value<'static>, Unserializable>;

#[derive(Clone, Copy)]
struct ToValue;

impl ser::Serializer for ToValue {
    type Ok = Value<'static>;
    type Error = Unserializable;
    type SerializeSeq = List;
    type SerializeTuple = List;
    type SerializeTupleStruct = List;
    type SerializeTupleVariant = Within<List>;
    type SerializeMap = Members;
    type SerializeStruct = Members;
    type SerializeStructVariant = Within<Members>;

    fn serialize_bool(self, yes: bool) -> Serialized {
        Ok(yes.into())
    }

    fn serialize_i8(self, number: i8) -> Serialized {
        Ok(i32::from(number).into())
    }

    fn serialize_i16(self, number: i16) -> Serialized {
        Ok(i32::from(number).into())
    }

    fn serialize_i32(self, number: i32) -> Serialized {
        Ok(number.into())
    }

    fn serialize_i64(self, number: i64) -> Serialized {
        Ok(number.into())
    }

    fn serialize_u8(self, number: u8) -> Serialized {
        Ok(number.into())
    }

    fn serialize_u16(self, number: u16) -> Serialized {
        Ok(number.into())
    }

    fn serialize_u32(self, number: u32) -> Serialized {
        Ok(number.into())
    }

    fn serialize_u64(self, number: u64) -> Serialized {
        Ok(number.into())
    }

    fn serialize_f32(self, number: f32) -> Serialized {
        Ok(Value::Double(number.into()))
    }

    fn serialize_f64(self, number: f64) -> Serialized {
        Ok(Value::Double(number))
    }

    fn serialize_char(self, letter: char) -> Serialized {
        Ok(letter.to_string().into())
    }

    fn serialize_str(self, text: &str) -> Serialized {
        Ok(text.to_owned().into())
    }

    fn serialize_bytes(self, _: &[u8]) -> Serialized {
        Err(ser::Error::custom("bytes"))
    }

    fn serialize_none(self) -> Serialized {
        Ok(Value::Null)
    }

    fn serialize_some<T: Serialize + ?Sized>(self, some: &T) -> Serialized {
        some.serialize(self)
    }

    fn serialize_unit(self) -> Serialized {
        Ok(Value::Null)
    }

    fn serialize_unit_struct(self, _: &'static str) -> Serialized {
        Ok(Value::Null)
    }

    fn serialize_unit_variant(self, _: &'static str, _: u32, name: &'static str) -> Serialized {
        Ok(name.into())
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        of: &T,
    ) -> Serialized {
        of.serialize(self)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        name: &'static str,
        of: &T,
    ) -> Serialized {
        Ok([(name, of.serialize(self)?)].into())
    }

    fn serialize_seq(self, length: Option<usize>) -> Result<List, Unserializable> {
        Ok(List(Vec::with_capacity(length.unwrap_or_default())))
    }

    fn serialize_tuple(self, length: usize) -> Result<List, Unserializable> {
        self.serialize_seq(Some(length))
    }

    fn serialize_tuple_struct(
        self,
        _: &'static str,
        length: usize,
    ) -> Result<List, Unserializable> {
        self.serialize_seq(Some(length))
    }

    fn serialize_tuple_variant(
        self,
        _: &'static str,
        _: u32,
        name: &'static str,
        length: usize,
    ) -> Result<Within<List>, Unserializable> {
        let inner = self.serialize_seq(Some(length))?;
        Ok(Within { name, inner })
    }

    fn serialize_map(self, length: Option<usize>) -> Result<Members, Unserializable> {
        Ok(Members {
            all: Vec::with_capacity(length.unwrap_or_default()),
            name: None,
        })
    }

    fn serialize_struct(self, _: &'static str, length: usize) -> Result<Members, Unserializable> {
        self.serialize_map(Some(length))
    }

    fn serialize_struct_variant(
        self,
        _: &'static str,
        _: u32,
        name: &'static str,
        length: usize,
    ) -> Result<Within<Members>, Unserializable> {
        let inner = self.serialize_map(Some(length))?;
        Ok(Within { name, inner })
    }
}

/// A list that grows.
struct List(Vec<Value<'static>>);

/// Members in the order in which they come.
struct Members {
    all: Vec<(Cow<'static, str>, Value<'static>)>,
    /// Of the member whose value comes next.
    name: Option<Cow<'static, str>>,
}

/// What a variant of an enum holds: the only member of a structure, under the variant's name.
struct Within<T> {
    name: &'static str,
    inner: T,
}

impl List {
    fn push(&mut self, value: &(impl Serialize + ?Sized)) -> Result<(), Unserializable> {
        self.0.push(value_of(value)?);
        Ok(())
    }
}

impl ser::SerializeSeq for List {
    type Ok = Value<'static>;
    type Error = Unserializable;

    fn serialize_element<T: Serialize + ?Sized>(&mut self, one: &T) -> Result<(), Self::Error> {
        self.push(one)
    }

    fn end(self) -> Serialized {
        Ok(Value::List(self.0))
    }
}

impl ser::SerializeTuple for List {
    type Ok = Value<'static>;
    type Error = Unserializable;

    fn serialize_element<T: Serialize + ?Sized>(&mut self, one: &T) -> Result<(), Self::Error> {
        self.push(one)
    }

    fn end(self) -> Serialized {
        Ok(Value::List(self.0))
    }
}

impl ser::SerializeTupleStruct for List {
    type Ok = Value<'static>;
    type Error = Unserializable;

    fn serialize_field<T: Serialize + ?Sized>(&mut self, one: &T) -> Result<(), Self::Error> {
        self.push(one)
    }

    fn end(self) -> Serialized {
        Ok(Value::List(self.0))
    }
}

impl ser::SerializeTupleVariant for Within<List> {
    type Ok = Value<'static>;
    type Error = Unserializable;

    fn serialize_field<T: Serialize + ?Sized>(&mut self, one: &T) -> Result<(), Self::Error> {
        self.inner.push(one)
    }

    fn end(self) -> Serialized {
        Ok([(self.name, Value::List(self.inner.0))].into())
    }
}

impl ser::SerializeMap for Members {
    type Ok = Value<'static>;
    type Error = Unserializable;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, name: &T) -> Result<(), Self::Error> {
        let Value::Text(name) = value_of(name)? else {
            return Err(ser::Error::custom("a name that is no text"));
        };
        self.name = Some(name);
        Ok(())
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Self::Error> {
        let name = self.name.take().unwrap_or_default();
        self.all.push((name, value_of(value)?));
        Ok(())
    }

    fn end(self) -> Serialized {
        Ok(Value::Struct(self.all))
    }
}

impl ser::SerializeStruct for Members {
    type Ok = Value<'static>;
    type Error = Unserializable;

    fn serialize_field<T: Serialize + ?Sized>(
        &mut self,
        name: &'static str,
        value: &T,
    ) -> Result<(), Self::Error> {
        self.all.push((name.into(), value_of(value)?));
        Ok(())
    }

    fn end(self) -> Serialized {
        Ok(Value::Struct(self.all))
    }
}

impl ser::SerializeStructVariant for Within<Members> {
    type Ok = Value<'static>;
    type Error = Unserializable;

    fn serialize_field<T: Serialize + ?Sized>(
        &mut self,
        name: &'static str,
        value: &T,
    ) -> Result<(), Self::Error> {
        ser::SerializeStruct::serialize_field(&mut self.inner, name, value)
    }

    fn end(self) -> Serialized {
        Ok([(self.name, Value::Struct(self.inner.all))].into())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::json;

    use super::*;
    use crate::json::{Layout, success};

    #[derive(serde::Serialize)]
    struct Inner {
        rows: u64,
        error: Option<String>,
    }

    #[derive(serde::Serialize)]
    #[serde(rename_all = "lowercase")]
    enum Kind {
        Plain,
        With(u8),
        Named { port: u16 },
        Pair(i8, bool),
    }

    #[derive(serde::Serialize)]
    struct Whole {
        status: &'static str,
        #[serde(flatten)]
        inner: Inner,
        kinds: [Kind; 4],
        counts: BTreeMap<String, u64>,
        share: f64,
        #[serde(flatten)]
        absent: Option<Inner>,
    }

    fn whole() -> Whole {
        Whole {
            status: "Reload OK",
            inner: Inner {
                rows: u64::MAX,
                error: None,
            },
            kinds: [
                Kind::Plain,
                Kind::With(1),
                Kind::Named { port: 5060 },
                Kind::Pair(-1, true),
            ],
            counts: BTreeMap::from([("timeout".to_owned(), 3)]),
            share: 0.5,
            absent: None,
        }
    }

    /// JSON as `serde_json` writes the same type, but for numbers beyond `i64`, and members in the order of the fields.
    #[test]
    fn a_type_is_written_as_serde_json_writes_it() {
        let value = value_of(&whole()).unwrap();
        let text = success(&json!(1), value.into(), Layout::Compact, usize::MAX).unwrap();
        assert_eq!(
            String::from_utf8(text).unwrap(),
            format!(
                r#"{{"jsonrpc":"2.0","result":{{"status":"Reload OK","rows":{},"error":null,"kinds":["plain",{{"with":1}},{{"named":{{"port":5060}}}},{{"pair":[-1,true]}}],"counts":{{"timeout":3}},"share":0.5}},"id":1}}"#,
                i64::MAX
            )
        );
        assert_eq!(value_of(&Some("text")), Ok("text".into()));
        assert_eq!(value_of(&()), Ok(Value::Null));
    }

    #[test]
    fn what_has_no_form_is_refused() {
        assert!(value_of(&BTreeMap::from([(5, "five")])).is_err());
    }
}
