//! A client's command, and the fault in place of a result.

use std::fmt;

/// A command with its parameters.
#[derive(Clone, Debug, PartialEq)]
pub struct Call {
    /// The command, for example `permissions.addressDump`.
    pub method: String,
    /// Its parameters in order.
    pub params: Vec<Param>,
}

/// One parameter.
#[derive(Clone, Debug, PartialEq)]
pub enum Param {
    /// A whole number.
    Int(i64),
    /// Another number.
    Double(f64),
    /// A text.
    Text(String),
    /// A value that no command accepts: a list, a structure, a boolean, null. Holds the name of its kind.
    Other(&'static str),
}

impl Call {
    /// Checks that a command without parameters has none.
    ///
    /// # Errors
    /// A fault if it has some; Kamailio ignores them.
    pub fn no_params(&self) -> Result<(), Fault> {
        match self.params.len() {
            0 => Ok(()),
            n => Err(Fault::new(
                400,
                format!("{} takes no parameters, but got {n}", self.method),
            )),
        }
    }

    /// The parameters as texts, for a command that accepts texts only.
    ///
    /// # Errors
    /// A fault that names the first parameter that is no text.
    pub fn texts(&self) -> Result<Vec<&str>, Fault> {
        let text = |(at, param): (usize, &'_ Param)| match param {
            Param::Text(_) => Ok(()),
            Param::Int(_) | Param::Double(_) | Param::Other(_) => Err(Fault::new(
                400,
                format!(
                    "error at parameter {}: expected string type but got {param}; kamcmd and kamctl make a string of s:VALUE",
                    at + 1
                ),
            )),
        };
        self.params.iter().enumerate().try_for_each(text)?;
        let texts = self.params.iter().filter_map(|param| match param {
            Param::Text(text) => Some(text.as_str()),
            Param::Int(_) | Param::Double(_) | Param::Other(_) => None,
        });
        Ok(texts.collect())
    }
}

/// The kind of a parameter in Kamailio's words (`rpc_type_name`).
impl fmt::Display for Param {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Int(_) => "integer",
            Self::Double(_) => "float",
            Self::Text(_) => "string",
            Self::Other(kind) => kind,
        })
    }
}

/// Why a call has no result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Kamailio's code, which is also the HTTP status, or a JSON-RPC code (negative).
    pub code: i32,
    /// Kamailio's text.
    pub message: String,
    /// The cause, which Kamailio does not report. JSON-RPC carries it, BINRPC has no place for it.
    pub data: Option<String>,
}

impl Fault {
    /// A fault without a cause.
    pub fn new(code: i32, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            data: None,
        }
    }

    /// A fault with its cause.
    #[must_use]
    pub fn because(mut self, cause: impl fmt::Display) -> Self {
        self.data = Some(cause.to_string());
        self
    }

    /// The HTTP status of the fault.
    pub fn http_status(&self) -> u16 {
        match self.code {
            100..=599 => u16::try_from(self.code).unwrap_or(500),
            _ => 400,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(params: Vec<Param>) -> Call {
        Call {
            method: "m".into(),
            params,
        }
    }

    #[test]
    fn parameters_that_nobody_asked_for_are_a_fault() {
        assert_eq!(call(Vec::new()).no_params(), Ok(()));
        let fault = call(vec![Param::Int(1)]).no_params().unwrap_err();
        assert_eq!(
            (fault.code, fault.message.as_str()),
            (400, "m takes no parameters, but got 1")
        );
    }

    #[test]
    fn parameters_of_another_type_are_named() {
        let texts = call(vec![Param::Text("a".into()), Param::Text(String::new())]);
        assert_eq!(texts.texts(), Ok(vec!["a", ""]));
        for (other, kind) in [
            (Param::Int(5), "integer"),
            (Param::Double(0.5), "float"),
            (Param::Other("structure"), "structure"),
        ] {
            let fault = call(vec![Param::Text("a".into()), other])
                .texts()
                .unwrap_err();
            let start = format!("error at parameter 2: expected string type but got {kind};");
            assert!(fault.message.starts_with(&start), "{}", fault.message);
        }
    }

    #[test]
    fn codes_of_http_stay_and_others_are_bad_requests() {
        for (code, status) in [(500, 500), (400, 400), (606, 400), (-32700, 400)] {
            assert_eq!(Fault::new(code, "").http_status(), status);
        }
    }
}
