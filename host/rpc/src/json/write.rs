//! Writes replies.

use std::borrow::Cow;
use std::ops::ControlFlow;

use serde_json::Value as Id;

use crate::buffer::{Buffer, TooLarge};
use crate::{Fault, Reply, Value};

/// Layout of the JSON text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// One line without blanks.
    Compact,
    /// As Kamailio prints it (`pretty_format`): one member a line, a tab for each level. `kamctl` parses the lines with awk and
    /// expects `"result":`, a tab, and the start of the value.
    Tabs,
}

/// Writes the answer with a result, of at most `most` bytes.
///
/// # Errors
/// If it has more bytes.
pub fn success(id: &Id, reply: Reply, layout: Layout, most: usize) -> Result<Vec<u8>, TooLarge> {
    let mut out = Writer::new(layout, Buffer::new(most));
    let _all = out.success(reply);
    out.end(id)
}

/// Writes a result alone, on one line.
pub fn bare(reply: Reply) -> Vec<u8> {
    let mut out = Writer::new(Layout::Compact, Buffer::new(usize::MAX));
    let _all = out.result(reply);
    out.out.finish().unwrap_or_default()
}

/// Writes the answer with a result in parts of about 64 KiB, which it passes to `sink` one after another. Returns `Break` if `sink`
/// refused one: the answer is then incomplete.
pub fn success_in_parts(
    id: &Id,
    reply: Reply,
    layout: Layout,
    sink: &mut (dyn FnMut(Vec<u8>) -> ControlFlow<()> + '_),
) -> ControlFlow<()> {
    let last = {
        let mut give = |part: Vec<u8>| sink(part);
        let mut out = Writer::new(layout, Buffer::in_parts(&mut give));
        out.success(reply)?;
        out.end(id).unwrap_or_default()
    };
    sink(last)
}

/// Writes the answer with a fault.
pub fn failure(id: &Id, fault: &Fault, layout: Layout) -> Vec<u8> {
    let mut members = vec![
        ("code".into(), Value::from(fault.code)),
        ("message".into(), fault.message.as_str().into()),
    ];
    if let Some(cause) = &fault.data {
        members.push(("data".into(), cause.as_str().into()));
    }
    let mut out = Writer::new(layout, Buffer::new(usize::MAX));
    out.begin();
    out.name("error");
    out.value(&Value::Struct(members));
    out.end(id).unwrap_or_default()
}

struct Writer<'s> {
    out: Buffer<'s>,
    layout: Layout,
    /// Number of objects and lists that are open.
    depth: usize,
}

impl<'s> Writer<'s> {
    fn new(layout: Layout, out: Buffer<'s>) -> Self {
        Self {
            out,
            layout,
            depth: 0,
        }
    }

    /// Everything up to the end of the result.
    fn success(&mut self, reply: Reply) -> ControlFlow<()> {
        self.begin();
        self.name("result");
        self.result(reply)
    }

    fn result(&mut self, reply: Reply) -> ControlFlow<()> {
        match reply {
            Reply::One(value) => {
                self.value(&value);
                ControlFlow::Continue(())
            }
            Reply::Each(values) => self.list(|list| values.iter().try_for_each(list)),
            Reply::Rows(rows) => self.list(|list| rows.each(&mut |row| list(&row))),
        }
    }

    /// Writes the start of the answer, up to `result` or `error`.
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
        // A number or a text, which looks the same in both layouts.
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
            Value::List(values) => {
                let _all = self.list(|list| values.iter().try_for_each(list));
            }
            Value::Struct(members) => self.object(members),
        }
    }

    /// Writes a list of the values that `each` yields, as long as the buffer accepts them.
    fn list(
        &mut self,
        each: impl FnOnce(&mut dyn FnMut(&Value<'_>) -> ControlFlow<()>) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        self.out.push(b"[");
        self.depth += 1;
        let mut first = true;
        let whole = each(&mut |value| {
            if !std::mem::take(&mut first) {
                self.out.push(match self.layout {
                    Layout::Compact => b",",
                    Layout::Tabs => b", ",
                });
            }
            self.value(value);
            self.out.give()
        });
        self.depth -= 1;
        self.out.push(b"]");
        whole
    }

    fn object(&mut self, members: &[(Cow<'_, str>, Value<'_>)]) {
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
        // Writing to a buffer does not fail.
        let _written = serde_json::to_writer(&mut self.out, text);
    }

    fn double(&mut self, number: f64) {
        // A number that JSON cannot express becomes null.
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
                row([("group", Value::from(group)), ("item", item.into())].into())?;
            }
            ControlFlow::Continue(())
        })
    }

    #[test]
    fn a_result_alone_has_no_frame() {
        let text = |reply| String::from_utf8(bare(reply)).unwrap();
        assert_eq!(text(Value::from("Reload OK").into()), "\"Reload OK\"");
        assert_eq!(text(Reply::Each(vec![1.into(), Value::Null])), "[1,null]");
        assert!(text(rows().into()).starts_with(r#"[{"group":1,"item":{"ip":"#));
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

    #[test]
    fn an_answer_in_parts_is_the_same_and_ends_where_nobody_takes_it() {
        use std::cell::Cell;
        use std::rc::Rc;
        use std::sync::Arc;
        use std::sync::atomic::{AtomicU32, Ordering};

        let made = Arc::new(AtomicU32::new(0));
        let rows = || {
            let made = Arc::clone(&made);
            Rows::new(RowsForm::Each, move |row| {
                (0..20_000).try_for_each(|number| {
                    made.fetch_add(1, Ordering::Relaxed);
                    row([("number", Value::from(number)), ("tag", "x".into())].into())
                })
            })
        };
        let whole = success(&json!(1), rows().into(), Layout::Tabs, usize::MAX).unwrap();
        let mut parts = Vec::new();
        let mut take = |part: Vec<u8>| {
            parts.push(part);
            ControlFlow::Continue(())
        };
        assert!(success_in_parts(&json!(1), rows().into(), Layout::Tabs, &mut take).is_continue());
        assert!(parts.len() > 5 && parts.iter().all(|part| part.len() < 66_000));
        assert_eq!(parts.concat(), whole);

        made.store(0, Ordering::Relaxed);
        let taken = Rc::new(Cell::new(0));
        let mut refuse = |_: Vec<u8>| {
            taken.set(taken.get() + 1);
            match taken.get() {
                2 => ControlFlow::Break(()),
                _ => ControlFlow::Continue(()),
            }
        };
        assert!(success_in_parts(&json!(1), rows().into(), Layout::Tabs, &mut refuse).is_break());
        assert_eq!(taken.get(), 2);
        assert!(made.load(Ordering::Relaxed) < 10_000);
    }
}
