//! Guests, requests and runtimes for the tests.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use portcullis_address::{Row, Snapshot, TableBuilder};
use portcullis_policy::{
    Evaluator, Exports, Failure, Limits, LoadError, LoadProblem, Policy, Rejection, Runtime, Scope,
    Verdict,
};
use portcullis_request::Request;
use portcullis_sip::{Arrival, Framing, Index, Transport, scan};
use tracing::{Event, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt as _};

/// A deadline that no correct policy exceeds, however busy the machine is.
const PATIENT: Duration = Duration::from_secs(20);

/// The default source of requests.
const SOURCE: &str = "192.0.2.1:5060";

/// A folded Call-ID, which must not break a log line.
const CALL_ID: &str = "call-1\r\n @192.0.2.1";

/// A runtime, an evaluator and its tables.
pub(crate) struct Host {
    pub(crate) runtime: Runtime,
    pub(crate) evaluator: Evaluator,
    pub(crate) scope: Arc<Scope>,
    pub(crate) addresses: Arc<Snapshot>,
}

impl Host {
    pub(crate) fn new() -> Self {
        Self::with(Self::patient())
    }

    /// Limits with a deadline that no correct policy exceeds.
    pub(crate) fn patient() -> Limits {
        Limits {
            deadline: PATIENT,
            ..Limits::default()
        }
    }

    pub(crate) fn with(limits: Limits) -> Self {
        Self {
            runtime: Runtime::new(limits).unwrap(),
            evaluator: Evaluator::new(),
            scope: Arc::default(),
            addresses: table(&[]),
        }
    }

    /// A host with a short deadline, for endless loops.
    pub(crate) fn hasty() -> Self {
        Self::with(Limits {
            deadline: Duration::from_millis(20),
            ..Limits::default()
        })
    }

    pub(crate) fn load(&self, name: &str) -> Policy {
        self.runtime.load(name, &guest(name)).unwrap()
    }

    pub(crate) fn load_text(&self, wat: &str) -> Policy {
        self.runtime.load("inline", &embedded(wat)).unwrap()
    }

    pub(crate) fn refusal(&self, bytes: &[u8]) -> LoadProblem {
        let refused: Result<Policy, LoadError> = self.runtime.load("test.wasm", bytes);
        let error = refused.unwrap_err();
        assert!(
            error.to_string().starts_with("policy test.wasm: "),
            "{error}"
        );
        error.problem
    }

    pub(crate) fn ask(&mut self, policy: &Policy, request: Request) -> Result<Verdict, Failure> {
        let (back, outcome) =
            self.evaluator
                .decide(policy, &self.scope, &self.addresses, request.clone());
        assert_eq!(back.bytes, request.bytes, "the request comes back");
        assert_eq!(back.arrival, request.arrival, "the request comes back");
        outcome
    }
}

/// An INVITE from Alice to Bob.
pub(crate) fn invite() -> Request {
    invite_from(SOURCE)
}

/// The same from another address.
pub(crate) fn invite_from(source: &str) -> Request {
    request(source, CALL_ID, "", 0)
}

/// A REGISTER from another address.
pub(crate) fn register_from(source: &str) -> Request {
    with_method("REGISTER", source, CALL_ID, "", 0)
}

/// The same with a body of this length.
pub(crate) fn with_body(length: usize) -> Request {
    request(SOURCE, CALL_ID, "", length)
}

/// The same with more header lines, each with its line end.
pub(crate) fn with_lines(lines: &str) -> Request {
    request(SOURCE, CALL_ID, lines, 0)
}

/// The same with another Call-ID.
pub(crate) fn with_call_id(call_id: &str) -> Request {
    request(SOURCE, call_id, "", 0)
}

fn request(source: &str, call_id: &str, lines: &str, body: usize) -> Request {
    with_method("INVITE", source, call_id, lines, body)
}

fn with_method(method: &str, source: &str, call_id: &str, lines: &str, body: usize) -> Request {
    let bytes = format!(
        "{method} sip:bob@example.com SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.1;branch=z9hG4bK1\r\n\
         Via: SIP/2.0/UDP 192.0.2.2;branch=z9hG4bK2\r\nFrom: <sip:alice@example.org>;tag=1\r\nTo: <sip:bob@example.net>\r\n\
         Call-ID: {call_id}\r\nCSeq: 42 {method}\r\nSubject: Grüße\r\n{lines}Content-Length: {body}\r\n\r\n{}",
        "x".repeat(body)
    );
    // Bodies and header fields are larger than a datagram allows.
    let limits = portcullis_sip::Limits {
        message_bytes: 1 << 20,
        header_bytes: 1 << 16,
        ..Default::default()
    };
    let mut index = Index::default();
    scan(bytes.as_bytes(), Framing::Stream, &limits, &mut index).unwrap();
    Request {
        bytes: bytes.into_bytes(),
        index,
        arrival: Arrival {
            source: source.parse().unwrap(),
            local: "[2001:db8::5]:5061".parse().unwrap(),
            transport: Transport::Tcp,
            connection: None,
        },
    }
}

/// Runs `run` with a log in which each line of a policy takes longer than the deadline of a [hasty](Host::hasty) host. To a call, this looks
/// like a slow host function or a preempted thread.
pub(crate) fn with_slow_log<T>(run: impl FnOnce() -> T) -> T {
    let subscriber = tracing_subscriber::registry().with(SlowLog);
    tracing::subscriber::with_default(subscriber, run)
}

struct SlowLog;

impl<S: Subscriber> Layer<S> for SlowLog {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        if event.metadata().target() == "policy" {
            std::thread::sleep(Duration::from_millis(30));
        }
    }
}

/// A guest of `tests/guests` as a module for the contract.
pub(crate) fn guest(name: &str) -> Vec<u8> {
    embedded(&guest_text(name))
}

/// The text of a guest of `tests/guests`.
pub(crate) fn guest_text(name: &str) -> String {
    let guests = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/guests");
    let file = guests.join(name).with_extension("wat");
    std::fs::read_to_string(file).unwrap()
}

/// A module from text, with the section that names the world.
pub(crate) fn embedded(wat: &str) -> Vec<u8> {
    let mut module = wat::parse_str(wat).unwrap();
    let exports = Exports {
        on_failure: wat.contains("(export \"on-failure\")"),
        validate_settings: wat.contains("(export \"validate-settings\")"),
    };
    portcullis_policy::embed_with(&mut module, exports).unwrap();
    module
}

/// Loads a guest as module and as component.
pub(crate) fn both_forms(host: &Host, module: &[u8]) -> [Policy; 2] {
    [module, &component(module)].map(|bytes| host.runtime.load("inline", bytes).unwrap())
}

/// The same policy as a component.
pub(crate) fn component(module: &[u8]) -> Vec<u8> {
    let encoder = wit_component::ComponentEncoder::default();
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

/// The text of a module that rejects with 300 plus the value of `body`. `text` is in its memory at 256.
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

/// The status codes of several calls, each form with a scope of its own. Module and component must agree.
pub(crate) fn codes(scope: impl Fn() -> Scope, calls: usize, wat: &str) -> Vec<u16> {
    let mut host = Host::new();
    let [module, component] = both_forms(&host, &embedded(wat)).map(|policy| {
        host.scope = Arc::new(scope());
        let code = |_| match host.ask(&policy, invite()) {
            Ok(Verdict::Reject(rejection)) => rejection.code,
            other => panic!("{other:?}"),
        };
        (0..calls).map(code).collect::<Vec<_>>()
    });
    assert_eq!(module, component);
    module
}

/// The failure of a guest, each form with a scope of its own. Module and component must fail alike.
pub(crate) fn failures(scope: impl Fn() -> Scope, wat: &str) -> Failure {
    let mut host = Host::new();
    let [module, component] = both_forms(&host, &embedded(wat)).map(|policy| {
        host.scope = Arc::new(scope());
        host.ask(&policy, invite()).unwrap_err()
    });
    assert_eq!(module.kind(), component.kind());
    module
}

/// The verdict of a guest. Its module and its component must agree.
pub(crate) fn answer(wat: &str) -> Verdict {
    answer_with(&[], wat)
}

/// The same with these rows in the address table.
pub(crate) fn answer_with(rows: &[(i64, &str, i64, i64, Option<&str>)], wat: &str) -> Verdict {
    let mut host = Host::new();
    host.addresses = table(rows);
    let [module, component] =
        both_forms(&host, &embedded(wat)).map(|policy| host.ask(&policy, invite()));
    assert_eq!(module, component, "{wat}");
    module.unwrap()
}

/// Calls a function that returns a number, and answers with 300 plus the number.
pub(crate) fn number_guest(
    interface: &str,
    function: &str,
    params: &str,
    arguments: &str,
) -> String {
    asking(
        &format!(
            r#"(import "{interface}" "{function}" (func $ask (param {params}) (result i32)))"#
        ),
        "",
        &format!("(call $code (call $ask {arguments}))"),
    )
}

/// A guest that answers 401 unless `body` changes that. `text` is in its memory at 256; 512 is free for a result.
pub(crate) fn asking(imports: &str, text: &str, body: &str) -> String {
    format!(
        r#"(module
            {imports}
            (memory (export "memory") 1)
            (global $heap (mut i32) (i32.const 4096))
            (data (i32.const 16) "\01\00\00\00" "\91\01\00\00")
            (data (i32.const 256) "{text}")
            (func (export "cabi_realloc") (param $old i32) (param $had i32) (param $align i32) (param $size i32) (result i32)
              (local $at i32)
              (global.set $heap
                (i32.and
                  (i32.add (global.get $heap) (i32.sub (local.get $align) (i32.const 1)))
                  (i32.sub (i32.const 0) (local.get $align))))
              (local.set $at (global.get $heap))
              (global.set $heap (i32.add (global.get $heap) (local.get $size)))
              local.get $at)
            ;; The code is 300 and a number.
            (func $code (param i32)
              (i32.store16 (i32.const 20)
                (i32.add (i32.const 300) (i32.rem_u (local.get 0) (i32.const 400)))))
            ;; The optional number at 512; 699 for none.
            (func $number
              (call $code
                (select (i32.load (i32.const 516)) (i32.const 399) (i32.load8_u (i32.const 512)))))
            ;; The optional text at 512; 404 for none.
            (func $reason
              (if (i32.load8_u (i32.const 512))
                (then
                  (i32.store (i32.const 24) (i32.load (i32.const 516)))
                  (i32.store (i32.const 28) (i32.load (i32.const 520))))
                (else
                  (call $code (i32.const 104)))))
            (func (export "decide") (result i32)
              {body}
              i32.const 16))"#
    )
}

/// A policy that counts its calls, and traps if the request has a body.
pub(crate) const COUNTS_AND_TRAPS: &str = r#"(module
        (import "portcullis:policy/request@0.1.0" "body-length" (func $length (result i32)))
        (memory (export "memory") 1) (global $calls (mut i32) (i32.const 300))
        (data (i32.const 16) "\01\00\00\00" "\00\00\00\00" "\40\00\00\00" "\00\00\00\00" "\00\00\00\00" "\00\00\00\00")
        (func (export "decide") (result i32)
            (global.set $calls (i32.add (global.get $calls) (i32.const 1)))
            (if (call $length) (then unreachable))
            (i32.store16 (i32.const 20) (global.get $calls))
            i32.const 16))"#;
