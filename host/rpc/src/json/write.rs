//! Writing replies.

use serde_json::Value as Id;

use crate::buffer::{Buffer, TooLarge};
use crate::{Fault, Reply, Value};

/// How a text looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// On one line without blanks.
    Compact,
    /// As Kamailio prints it (`pretty_format`): a member a line, a tab for each level. `kamctl` reads its lines with awk, which
    /// expects `"result":`, a tab, and the begin of the value.
    Tabs,
}

/// The answer with a result, of at most `most` bytes.
///
/// # Errors
/// If it has more bytes.
pub fn success(id: &Id, reply: Reply, layout: Layout, most: usize) -> Result<Vec<u8>, TooLarge> {
    let mut out = Writer::new(layout, most);
    out.begin();
    out.name("result");
    match reply {
        Reply::One(value) => out.value(&value),
        Reply::Each(values) => out.list(|list| {
            for value in &values {
                list(value);
            }
        }),
        Reply::Rows(rows) => out.list(|list| rows.each(&mut |row| list(&row))),
    }
    out.end(id)
}

/// The answer with a fault.
pub fn failure(id: &Id, fault: &Fault, layout: Layout) -> Vec<u8> {
    let mut members = vec![
        ("code", Value::from(fault.code)),
        ("message", fault.message.as_str().into()),
    ];
    if let Some(cause) = &fault.data {
        members.push(("data", cause.as_str().into()));
    }
    let mut out = Writer::new(layout, usize::MAX);
    out.begin();
    out.name("error");
    out.value(&Value::Struct(members));
    out.end(id).unwrap_or_default()
}

struct Writer {
    out: Buffer,
    layout: Layout,
    /// How many objects and lists are open around what is written.
    depth: usize,
}

impl Writer {
    fn new(layout: Layout, most: usize) -> Self {
        Self {
            out: Buffer::new(most),
            layout,
            depth: 0,
        }
    }

    /// Opens the answer, up to the member that makes the difference.
    fn begin(&mut self) {
        self.out.push(b"{");
        self.depth += 1;
        self.name("jsonrpc");
        self.text("2.0");
        self.out.push(b",");
    }

    fn end(mut self, id: &Id) -> Result<Vec<u8>, TooLarge> {
        self.out.push(b",");
        self.name("id");
        // A number or a text: it can be written, and looks the same in both layouts.
        let _written = serde_json::to_writer(&mut self.out, id);
        self.depth -= 1;
        self.line();
        self.out.push(b"}");
        self.out.finish()
    }

    fn value(&mut self, value: &Value<'_>) {
        match value {
            Value::Null => self.out.push(b"null"),
            Value::Bool(true) => self.out.push(b"true"),
            Value::Bool(false) => self.out.push(b"false"),
            Value::Int(number) => self.out.push(number.to_string().as_bytes()),
            Value::Double(number) => self.double(*number),
            Value::Text(text) => self.text(text),
            Value::List(values) => self.list(|list| {
                for value in values {
                    list(value);
                }
            }),
            Value::Struct(members) => self.object(members),
        }
    }

    fn list(&mut self, each: impl FnOnce(&mut dyn FnMut(&Value<'_>))) {
        self.out.push(b"[");
        self.depth += 1;
        let mut first = true;
        each(&mut |value| {
            if !std::mem::take(&mut first) {
                self.out.push(match self.layout {
                    Layout::Compact => b",",
                    Layout::Tabs => b", ",
                });
            }
            self.value(value);
        });
        self.depth -= 1;
        self.out.push(b"]");
    }

    fn object(&mut self, members: &[(&str, Value<'_>)]) {
        self.out.push(b"{");
        self.depth += 1;
        for (at, (name, value)) in members.iter().enumerate() {
            if at > 0 {
                self.out.push(b",");
            }
            self.name(name);
            self.value(value);
        }
        self.depth -= 1;
        self.line();
        self.out.push(b"}");
    }

    /// The name of a member, on a line of its own.
    fn name(&mut self, name: &str) {
        self.line();
        self.text(name);
        self.out.push(match self.layout {
            Layout::Compact => b":",
            Layout::Tabs => b":\t",
        });
    }

    fn line(&mut self) {
        if self.layout == Layout::Tabs {
            self.out.push(b"\n");
            (0..self.depth).for_each(|_| self.out.push(b"\t"));
        }
    }

    fn text(&mut self, text: &str) {
        // A buffer takes everything.
        let _written = serde_json::to_writer(&mut self.out, text);
    }

    fn double(&mut self, number: f64) {
        // What JSON can't say becomes null.
        let _written = serde_json::to_writer(&mut self.out, &number);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{Rows, RowsForm};

    fn text(reply: impl Into<Reply>, layout: Layout) -> String {
        let bytes = success(&json!(1), reply.into(), layout, usize::MAX).unwrap();
        String::from_utf8(bytes).unwrap()
    }

    fn rows() -> Rows {
        Rows::new(RowsForm::Repeated, |row| {
            for group in [1, 2] {
                let item = [("ip", "10.0.0.1".into()), ("tag", "a\"\t\u{1}é".into())];
                row([("group", Value::from(group)), ("item", item.into())].into());
            }
        })
    }

    #[test]
    fn answers_on_one_line() {
        assert_eq!(
            text(Value::from("Reload OK"), Layout::Compact),
            r#"{"jsonrpc":"2.0","result":"Reload OK","id":1}"#
        );
        assert_eq!(
            text(rows(), Layout::Compact),
            r#"{"jsonrpc":"2.0","result":[{"group":1,"item":{"ip":"10.0.0.1","tag":"a\"\t\u0001é"}},{"group":2,"item":{"ip":"10.0.0.1","tag":"a\"\t\u0001é"}}],"id":1}"#
        );
    }

    /// As `jsonrpcs` of Kamailio 5.6.3 prints it.
    #[test]
    fn answers_with_tabs_as_kamailio_prints_them() {
        assert_eq!(
            text(Value::from("Reload OK"), Layout::Tabs),
            "{\n\t\"jsonrpc\":\t\"2.0\",\n\t\"result\":\t\"Reload OK\",\n\t\"id\":\t1\n}"
        );
        assert_eq!(
            text(rows(), Layout::Tabs),
            "{\n\t\"jsonrpc\":\t\"2.0\",\n\t\"result\":\t[\
             {\n\t\t\t\"group\":\t1,\n\t\t\t\"item\":\t{\n\t\t\t\t\"ip\":\t\"10.0.0.1\",\n\t\t\t\t\"tag\":\t\"a\\\"\\t\\u0001é\"\n\t\t\t}\n\t\t}, \
             {\n\t\t\t\"group\":\t2,\n\t\t\t\"item\":\t{\n\t\t\t\t\"ip\":\t\"10.0.0.1\",\n\t\t\t\t\"tag\":\t\"a\\\"\\t\\u0001é\"\n\t\t\t}\n\t\t}],\n\t\"id\":\t1\n}"
        );
        assert_eq!(
            text(Reply::Each(vec!["a".into(), "b".into()]), Layout::Tabs),
            "{\n\t\"jsonrpc\":\t\"2.0\",\n\t\"result\":\t[\"a\", \"b\"],\n\t\"id\":\t1\n}"
        );
        assert_eq!(
            text(Reply::Each(Vec::new()), Layout::Tabs),
            "{\n\t\"jsonrpc\":\t\"2.0\",\n\t\"result\":\t[],\n\t\"id\":\t1\n}"
        );
    }

    #[test]
    fn faults_carry_code_text_and_cause() {
        let fault = Fault::new(500, "Method Not Found");
        let compact = |fault| String::from_utf8(failure(&Id::Null, &fault, Layout::Compact));
        assert_eq!(
            compact(fault.clone()).unwrap(),
            r#"{"jsonrpc":"2.0","error":{"code":500,"message":"Method Not Found"},"id":null}"#
        );
        assert_eq!(
            compact(fault.because("why")).unwrap(),
            r#"{"jsonrpc":"2.0","error":{"code":500,"message":"Method Not Found","data":"why"},"id":null}"#
        );
    }

    #[test]
    fn an_answer_that_is_too_large_tells_its_size() {
        let whole = text(rows(), Layout::Tabs).len();
        let written = |most| success(&json!(1), rows().into(), Layout::Tabs, most);
        assert_eq!(written(whole).unwrap().len(), whole);
        let most = whole - 1;
        assert_eq!(written(most), Err(TooLarge { bytes: whole, most }));
    }
}
