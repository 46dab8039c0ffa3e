//! JSON-RPC 2.0 as Kamailio's `jsonrpcs` speaks it over HTTP: what a request may look like, and how answers are framed.

use serde::Serialize;
use serde_json::Value;

/// A call that could be read.
#[derive(Debug, PartialEq)]
pub(super) struct Call {
    pub(super) method: String,
    /// What the caller wants to find in the answer: a number, a text or null.
    pub(super) id: Value,
}

/// Why a call has no result.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Fault {
    /// Kamailio's code, which is the HTTP status too, or a code of JSON-RPC (negative).
    pub(super) code: i32,
    pub(super) message: String,
    /// More than Kamailio says: the cause.
    pub(super) data: Option<String>,
}

impl Fault {
    pub(super) fn new(code: i32, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            data: None,
        }
    }

    /// The same with its cause.
    pub(super) fn because(mut self, cause: impl std::fmt::Display) -> Self {
        self.data = Some(cause.to_string());
        self
    }

    /// The HTTP status that goes with the fault.
    pub(super) fn http_status(&self) -> u16 {
        match self.code {
            100..=599 => u16::try_from(self.code).unwrap_or(500),
            _ => 400,
        }
    }
}

/// Reads a call. With the fault comes the id, as far as it could be read.
pub(super) fn read(body: &[u8]) -> Result<Call, (Fault, Value)> {
    let parse_error = |error| {
        (
            Fault::new(-32700, "Parse error").because(error),
            Value::Null,
        )
    };
    let mut request: Value = serde_json::from_slice(body).map_err(parse_error)?;
    let id = match request.get_mut("id").map(Value::take) {
        Some(id @ (Value::Number(_) | Value::String(_))) => id,
        _ => Value::Null,
    };
    let invalid = |cause: &str| Fault::new(-32600, "Invalid Request").because(cause);
    if request.is_array() {
        return Err((
            invalid("batches are not taken: send one call at a time"),
            id,
        ));
    }
    if request["jsonrpc"] != "2.0" {
        return Err((invalid("the member \"jsonrpc\" must be \"2.0\""), id));
    }
    let Value::String(method) = request["method"].take() else {
        return Err((invalid("the member \"method\" must be a text"), id));
    };
    // Parameters come in order or by name; no method of this host takes any.
    if !matches!(
        request["params"],
        Value::Null | Value::Array(_) | Value::Object(_)
    ) {
        let fault = Fault::new(-32602, "Invalid params")
            .because("the member \"params\" must be a list or an object");
        return Err((fault, id));
    }
    Ok(Call { method, id })
}

/// The answer with a result.
pub(super) fn success(id: &Value, result: &impl Serialize) -> serde_json::Result<Vec<u8>> {
    #[derive(Serialize)]
    struct Success<'a, R> {
        jsonrpc: &'static str,
        result: &'a R,
        id: &'a Value,
    }
    let jsonrpc = "2.0";
    line(&Success {
        jsonrpc,
        result,
        id,
    })
}

/// The answer with a fault.
pub(super) fn failure(id: &Value, fault: &Fault) -> serde_json::Result<Vec<u8>> {
    #[derive(Serialize)]
    struct Error<'a> {
        code: i32,
        message: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        data: Option<&'a str>,
    }
    #[derive(Serialize)]
    struct Failure<'a> {
        jsonrpc: &'static str,
        error: Error<'a>,
        id: &'a Value,
    }
    let error = Error {
        code: fault.code,
        message: &fault.message,
        data: fault.data.as_deref(),
    };
    let jsonrpc = "2.0";
    line(&Failure { jsonrpc, error, id })
}

fn line(answer: &impl Serialize) -> serde_json::Result<Vec<u8>> {
    let mut body = serde_json::to_vec(answer)?;
    body.push(b'\n');
    Ok(body)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn calls_are_read_with_and_without_id_and_parameters() {
        let read = |text: &str| read(text.as_bytes()).unwrap();
        let call = read(r#"{"jsonrpc":"2.0","method":"core.version","params":[],"id":7}"#);
        assert_eq!((call.method.as_str(), call.id), ("core.version", json!(7)));
        assert_eq!(
            read(r#"{"jsonrpc":"2.0","method":"m","params":{"a":1},"id":"x"}"#).id,
            json!("x")
        );
        assert_eq!(read(r#"{"jsonrpc":"2.0","method":"m"}"#).id, Value::Null);
    }

    #[test]
    fn bad_calls_are_told_apart() {
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
        ] {
            let (fault, fault_id) = read(text.as_bytes()).unwrap_err();
            assert_eq!((fault.code, fault_id), (code, id), "{text}");
            assert_eq!(fault.http_status(), 400);
        }
    }

    #[test]
    fn answers_are_framed() {
        let text = |body: serde_json::Result<Vec<u8>>| String::from_utf8(body.unwrap()).unwrap();
        assert_eq!(
            text(success(&json!(1), &"Reload OK")),
            "{\"jsonrpc\":\"2.0\",\"result\":\"Reload OK\",\"id\":1}\n"
        );
        let fault = Fault::new(500, "Method Not Found");
        assert_eq!(fault.http_status(), 500);
        assert_eq!(
            text(failure(&Value::Null, &fault)),
            "{\"jsonrpc\":\"2.0\",\"error\":{\"code\":500,\"message\":\"Method Not Found\"},\"id\":null}\n"
        );
    }
}
