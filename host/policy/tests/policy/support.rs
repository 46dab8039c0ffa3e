//! Guests, requests and runtimes for the tests.

use std::borrow::Cow;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use portcullis_address::{Row, Snapshot, TableBuilder};
use portcullis_policy::{
    Contact, Evaluator, Failure, Limits, LoadError, LoadProblem, PlainUri, Policy, Rejection,
    RequestView, Runtime, Scope, Verdict,
};

/// A deadline that no honest policy misses, however busy the machine is.
const PATIENT: Duration = Duration::from_secs(20);

/// A request as a test wants it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Request {
    pub(crate) method: String,
    pub(crate) source: SocketAddr,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body_length: u32,
    pub(crate) contacts: Vec<Contact<'static>>,
    /// How long it takes to tell the length of the body.
    pub(crate) delay: Duration,
}

/// A runtime, and an evaluator with its table.
pub(crate) struct Host {
    pub(crate) runtime: Runtime,
    pub(crate) evaluator: Evaluator<Request>,
    pub(crate) scope: Arc<Scope>,
    pub(crate) addresses: Arc<Snapshot>,
}

impl Request {
    pub(crate) fn invite() -> Self {
        Self {
            method: "INVITE".into(),
            source: "192.0.2.1:5060".parse().unwrap(),
            headers: vec![
                ("Via".into(), "SIP/2.0/UDP 192.0.2.1;branch=z9hG4bK1".into()),
                ("Via".into(), "SIP/2.0/UDP 192.0.2.2;branch=z9hG4bK2".into()),
                ("Subject".into(), "Grüße".into()),
            ],
            body_length: 0,
            contacts: Vec::new(),
            delay: Duration::ZERO,
        }
    }

    pub(crate) fn from(source: &str) -> Self {
        Self {
            source: source.parse().unwrap(),
            ..Self::invite()
        }
    }
}

impl RequestView for Request {
    fn method(&self) -> Cow<'_, str> {
        (&*self.method).into()
    }

    fn uri(&self) -> Cow<'_, str> {
        "sip:bob@example.com".into()
    }

    fn from_uri(&self) -> Cow<'_, str> {
        "sip:alice@example.org".into()
    }

    fn to_uri(&self) -> Cow<'_, str> {
        "sip:bob@example.net".into()
    }

    fn call_id(&self) -> Cow<'_, str> {
        "call-1\r\n@192.0.2.1".into()
    }

    fn cseq_number(&self) -> u32 {
        42
    }

    fn source(&self) -> SocketAddr {
        self.source
    }

    fn local(&self) -> SocketAddr {
        "[2001:db8::5]:5061".parse().unwrap()
    }

    fn transport(&self) -> &'static str {
        "TCP"
    }

    fn header(&self, name: &str) -> Option<Cow<'_, str>> {
        let mut named = self
            .headers
            .iter()
            .filter(|(own, _)| own.eq_ignore_ascii_case(name));
        named.next().map(|(_, value)| (&**value).into())
    }

    fn headers(&self, name: &str, each: &mut dyn FnMut(Cow<'_, str>)) {
        let named = self
            .headers
            .iter()
            .filter(|(own, _)| own.eq_ignore_ascii_case(name));
        for (_, value) in named {
            each((&**value).into());
        }
    }

    fn plain_uri(&self) -> Option<PlainUri<'_>> {
        Some(plain("bob", "example.com", None))
    }

    fn contacts(&self, each: &mut dyn FnMut(Contact<'_>)) {
        self.contacts.iter().cloned().for_each(each);
    }

    fn body_length(&self) -> u32 {
        if !self.delay.is_zero() {
            std::thread::sleep(self.delay);
        }
        self.body_length
    }
}

impl Host {
    pub(crate) fn new() -> Self {
        Self::with(Limits {
            deadline: PATIENT,
            ..Limits::default()
        })
    }

    pub(crate) fn with(limits: Limits) -> Self {
        Self {
            runtime: Runtime::new(limits).unwrap(),
            evaluator: Evaluator::new(),
            scope: Arc::default(),
            addresses: table(&[]),
        }
    }

    /// One with a deadline that an endless loop reaches soon.
    pub(crate) fn hasty() -> Self {
        Self::with(Limits {
            deadline: Duration::from_millis(20),
            ..Limits::default()
        })
    }

    pub(crate) fn load(&self, name: &str) -> Policy<Request> {
        self.runtime.load(name, &guest(name)).unwrap()
    }

    pub(crate) fn load_text(&self, wat: &str) -> Policy<Request> {
        self.runtime.load("inline", &embedded(wat)).unwrap()
    }

    pub(crate) fn refusal(&self, bytes: &[u8]) -> LoadProblem {
        let refused: Result<Policy<Request>, LoadError> = self.runtime.load("test.wasm", bytes);
        let error = refused.unwrap_err();
        assert!(
            error.to_string().starts_with("policy test.wasm: "),
            "{error}"
        );
        error.problem
    }

    pub(crate) fn ask(
        &mut self,
        policy: &Policy<Request>,
        request: Request,
    ) -> Result<Verdict, Failure> {
        let (back, outcome) =
            self.evaluator
                .decide(policy, &self.scope, &self.addresses, request.clone());
        assert_eq!(back, request, "the request comes back");
        outcome
    }
}

/// A guest of `tests/guests`, compiled to a module of the contract.
pub(crate) fn guest(name: &str) -> Vec<u8> {
    embedded(&guest_text(name))
}

/// The text of a guest of `tests/guests`.
pub(crate) fn guest_text(name: &str) -> String {
    let guests = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/guests");
    let file = guests.join(name).with_extension("wat");
    std::fs::read_to_string(file).unwrap()
}

/// A module from text, with the section that names its world.
pub(crate) fn embedded(wat: &str) -> Vec<u8> {
    let mut module = wat::parse_str(wat).unwrap();
    portcullis_policy::embed(&mut module).unwrap();
    module
}

/// The guest as module and as component.
pub(crate) fn both_forms(host: &Host, module: &[u8]) -> [Policy<Request>; 2] {
    [module, &component(module)].map(|bytes| host.runtime.load("inline", bytes).unwrap())
}

/// The same policy as a component.
pub(crate) fn component(module: &[u8]) -> Vec<u8> {
    let mut encoder = wit_component::ComponentEncoder::default();
    encoder.module(module).unwrap().encode().unwrap()
}

/// A table of rows: group, address, mask, port, tag.
pub(crate) fn table(rows: &[(i64, &str, i64, i64, Option<&str>)]) -> Arc<Snapshot> {
    let mut builder = TableBuilder::default();
    for (&(group, ip_addr, mask, port, tag), id) in rows.iter().zip(1..) {
        let row = Row {
            id,
            group,
            ip_addr,
            mask,
            port,
            tag,
        };
        builder.push(row).unwrap();
    }
    Arc::new(Snapshot::of(builder.build()))
}

pub(crate) fn reject(code: u16, reason: &str) -> Verdict {
    Verdict::Reject(Rejection {
        code,
        reason: reason.into(),
        headers: Vec::new(),
    })
}

pub(crate) fn unauthorised() -> Verdict {
    reject(401, "Address not authorised")
}

pub(crate) fn plain(
    user: &'static str,
    host: &'static str,
    port: Option<u16>,
) -> PlainUri<'static> {
    PlainUri {
        user: user.into(),
        host: host.into(),
        port,
    }
}

/// The text of a module that rejects with the code 300 plus what `body` leaves. `text` is in its memory from 256 on.
pub(crate) fn answering(imports: &str, text: &str, body: &str) -> String {
    format!(
        r#"(module
            {imports}
            (memory (export "memory") 1)
            (global $heap (mut i32) (i32.const 4096))
            (data (i32.const 16) "\01\00\00\00")
            (data (i32.const 256) "{text}")
            (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32)
              (global.set $heap (i32.add (global.get $heap) (i32.const 256)))
              (global.get $heap))
            (func (export "decide") (result i32)
              (i32.store16 (i32.const 20) (i32.add (i32.const 300) {body}))
              i32.const 16))"#
    )
}
