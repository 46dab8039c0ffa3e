//! Reads requests.

use serde_json::{Number, Value};

use crate::{Call, Fault, Param};

/// A request that could be read.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    /// The command and its parameters.
    pub call: Call,
    /// The `id` that the answer carries back: a number, a text or null.
    pub id: Value,
    /// The pipe for the answer, in a request through the FIFO.
    pub reply_name: Option<String>,
}

/// A request that could not be read, with the parts that the answer needs.
#[derive(Clone, Debug, PartialEq)]
pub struct BadRequest {
    /// What is wrong.
    pub fault: Fault,
    /// As far as it could be read.
    pub id: Value,
    /// As far as it could be read.
    pub reply_name: Option<String>,
}

impl Request {
    /// Reads one request.
    ///
    /// # Errors
    /// If it is not JSON or not a request.
    pub fn read(body: &[u8]) -> Result<Self, Box<BadRequest>> {
        let mut request: Value = serde_json::from_slice(body).map_err(|error| {
            Box::new(BadRequest {
                fault: Fault::new(-32700, "Parse error").because(error),
                id: Value::Null,
                reply_name: None,
            })
        })?;
        let id = match request.get_mut("id").map(Value::take) {
            Some(id @ (Value::Number(_) | Value::String(_))) => id,
            _ => Value::Null,
        };
        let reply_name = match request.get_mut("reply_name").map(Value::take) {
            Some(Value::String(name)) => Some(name),
            _ => None,
        };
        match call(request) {
            Ok(call) => Ok(Self {
                call,
                id,
                reply_name,
            }),
            Err(fault) => Err(Box::new(BadRequest {
                fault,
                id,
                reply_name,
            })),
        }
    }
}

fn call(mut request: Value) -> Result<Call, Fault> {
    let invalid = |cause: &str| Fault::new(-32600, "Invalid Request").because(cause);
    if request.is_array() {
        return Err(invalid("batches are not taken: send one call at a time"));
    }
    if request["jsonrpc"] != "2.0" {
        return Err(invalid("the member \"jsonrpc\" must be \"2.0\""));
    }
    let Value::String(method) = request["method"].take() else {
        return Err(invalid("the member \"method\" must be a text"));
    };
    if request.get("store_path").is_some() {
        let cause = "\"store_path\" is not supported: leave it out, and the reply comes to you";
        return Err(Fault::new(500, "Storing failed").because(cause));
    }
    let params = match request["params"].take() {
        Value::Null => Vec::new(),
        Value::Array(params) => params.into_iter().map(param).collect(),
        // In the order in which they are written.
        Value::Object(params) => params.into_iter().map(|(_, value)| param(value)).collect(),
        Value::Bool(_) | Value::Number(_) | Value::String(_) => {
            return Err(Fault::new(-32602, "Invalid params")
                .because("the member \"params\" must be a list or an object"));
        }
    };
    Ok(Call { method, params })
}

fn param(value: Value) -> Param {
    match value {
        Value::Null => Param::Other("null"),
        Value::Bool(_) => Param::Other("boolean"),
        Value::Number(number) => self::number(&number),
        Value::String(text) => Param::Text(text),
        Value::Array(_) => Param::Other("array"),
        Value::Object(_) => Param::Other("structure"),
    }
}

fn number(number: &Number) -> Param {
    match (number.as_i64(), number.as_f64()) {
        (Some(whole), _) => Param::Int(whole),
        (None, Some(double)) => Param::Double(double),
        (None, None) => Param::Other("number out of range"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(text: &str) -> Request {
        Request::read(text.as_bytes()).unwrap()
    }

    #[test]
    fn requests_are_read_with_and_without_id_and_parameters() {
        let request = read(r#"{"jsonrpc":"2.0","method":"core.version","params":[],"id":7}"#);
        assert_eq!(
            (request.call.method.as_str(), request.id, request.reply_name),
            ("core.version", json!(7), None)
        );
        let request = read(r#"{"jsonrpc":"2.0","method":"m","id":"x","reply_name":"pipe"}"#);
        assert_eq!(
            (request.id, request.reply_name.as_deref()),
            (json!("x"), Some("pipe"))
        );
        assert_eq!(read(r#"{"jsonrpc":"2.0","method":"m"}"#).id, Value::Null);
    }

    #[test]
    fn the_names_of_parameters_do_not_matter_but_their_order_does() {
        let params = |params: &str| {
            read(&format!(
                r#"{{"jsonrpc":"2.0","method":"m","params":{params}}}"#
            ))
            .call
            .params
        };
        assert_eq!(
            params(r#"["a", 1, 1.5, {}, [], true, null]"#),
            [
                Param::Text("a".into()),
                Param::Int(1),
                Param::Double(1.5),
                Param::Other("structure"),
                Param::Other("array"),
                Param::Other("boolean"),
                Param::Other("null"),
            ]
        );
        assert_eq!(
            params(r#"{"z": "first", "a": "second"}"#),
            [Param::Text("first".into()), Param::Text("second".into())]
        );
    }

    #[test]
    fn bad_requests_are_told_apart() {
        for (text, code, id) in [
            ("{", -32700, Value::Null),
            ("", -32700, Value::Null),
            ("\u{0}", -32700, Value::Null),
            (
                r#"[{"jsonrpc":"2.0","method":"m","id":1}]"#,
                -32600,
                Value::Null,
            ),
            (r#""text""#, -32600, Value::Null),
            (r#"{"method":"m","id":1}"#, -32600, json!(1)),
            (r#"{"jsonrpc":"1.0","method":"m","id":1}"#, -32600, json!(1)),
            (r#"{"jsonrpc":"2.0","method":5,"id":1}"#, -32600, json!(1)),
            (
                r#"{"jsonrpc":"2.0","method":"m","params":"p","id":"a"}"#,
                -32602,
                json!("a"),
            ),
            (r#"{"jsonrpc":"2.0","id":{}}"#, -32600, Value::Null),
            (
                r#"{"jsonrpc":"2.0","method":"m","store_path":"/tmp/x","id":2}"#,
                500,
                json!(2),
            ),
        ] {
            let bad = Request::read(text.as_bytes()).unwrap_err();
            assert_eq!((bad.fault.code, bad.id), (code, id), "{text}");
        }
    }
}
