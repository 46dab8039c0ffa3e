//! Requests within an admitted dialog follow the dialog, whichever policy is active and whichever process receives them.

#![forbid(unsafe_code)]

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;

use portcullis_testkit::callee::ok_to;
use portcullis_testkit::guests::rejecting;
use portcullis_testkit::host::{Builder, Host};
use portcullis_testkit::messages::Request;
use portcullis_testkit::sip::{Caller, Message};
use portcullis_testkit::{policy, wait};
use serde_json::Value;

const CALLER: u8 = 10;
const CALLEE: u8 = 3;

/// A host with a policy that relays everything to the callee, and the callee.
fn start(builder: Builder, transport: &str) -> (Host, Caller) {
    let callee = builder.lease().addr(CALLEE, 5080);
    let host = builder
        .policy(policy("observe"))
        .set("relay", &format!("next-hop = \"sip:{callee}{transport}\""))
        .start();
    let callee = Caller::udp_from(callee, host.sip());
    (host, callee)
}

/// An established call, with the messages that both ends have seen.
struct Call {
    invite: Request,
    /// The INVITE as the callee got it.
    seen: Message,
    /// The 200 as the caller got it.
    answer: Message,
}

impl Call {
    fn set_up(caller: &mut Caller, callee: &mut Caller) -> Self {
        let invite = caller.request("INVITE", "sip:bob@example.com");
        caller.send(&invite.bytes());
        let seen = callee.receive();
        callee.send(&ok_to(&seen, callee.local()));
        let answer = caller.receive();
        assert_eq!(answer.code(), 200, "{}", answer.start_line());
        Self {
            invite,
            seen,
            answer,
        }
    }

    /// A request of the caller's within the call.
    fn of_caller(&self, method: &str, uri: &str) -> Request {
        let mut request = self.invite.clone();
        request.method = method.into();
        request.uri = uri.into();
        request.branch = format!("{}-{method}", self.invite.branch);
        request.to = self.answer.header("To").expect("an answer has To").into();
        let mut routes = self.answer.headers("Record-Route");
        routes.reverse();
        request.extra = routes
            .iter()
            .map(|route| format!("Route: {route}"))
            .collect();
        request
    }

    /// Returns a request of the callee within the call, in which the tags are swapped.
    fn of_callee(&self, callee: &Caller, method: &str, uri: &str) -> Vec<u8> {
        let own = self.answer.header("To").expect("an answer has To");
        let other = self.answer.header("From").expect("an answer has From");
        let routes: String = self
            .seen
            .headers("Record-Route")
            .iter()
            .map(|route| format!("Route: {route}\r\n"))
            .collect();
        format!(
            "{method} {uri} SIP/2.0\r\nVia: SIP/2.0/UDP {};rport;branch=z9hG4bKcallee-{method}\r\nMax-Forwards: 70\r\n{routes}\
             From: {own}\r\nTo: {other}\r\nCall-ID: {}\r\nCSeq: 1 {method}\r\nContent-Length: 0\r\n\r\n",
            callee.local(),
            self.invite.call_id,
        )
        .into_bytes()
    }
}

/// Activates a policy that rejects every request.
fn swap(host: &Host) {
    host.replace_policy(&rejecting(486, "Busy Here"));
    host.run("policy reload");
}

fn followed(host: &Host) -> f64 {
    host.metric("portcullis_in_dialog_total", &["seal=\"followed\""])
}

#[test]
fn a_swap_breaks_neither_ack_nor_bye() {
    let (host, mut callee) = start(Builder::new(), "");
    let mut caller = host.udp(CALLER);
    let call = Call::set_up(&mut caller, &mut callee);
    swap(&host);
    let contact = format!("sip:callee@{}", callee.local());
    caller.send(&call.of_caller("ACK", &contact).bytes());
    assert_eq!(
        callee.receive().start_line(),
        format!("ACK {contact} SIP/2.0")
    );
    // This host is not in `domains`, so the request takes the path of the INVITE.
    caller.send(&call.of_caller("BYE", "sip:callee@203.0.113.7:5070").bytes());
    let bye = callee.receive();
    assert_eq!(bye.start_line(), "BYE sip:callee@203.0.113.7:5070 SIP/2.0");
    callee.send(&ok_to(&bye, callee.local()));
    assert_eq!(caller.receive().code(), 200);
    assert_eq!(followed(&host), 2.0);
    let other = caller.request("INVITE", "sip:bob@example.com");
    assert_eq!(
        caller.ask(&other).code(),
        486,
        "policies are called for a new dialog"
    );
}

#[test]
fn a_callee_can_end_the_call_of_a_caller_outside_the_domains() {
    for is_tcp in [false, true] {
        let (host, mut callee) = start(Builder::new(), "");
        let mut caller = match is_tcp {
            true => host.tcp(CALLER),
            false => host.udp(CALLER),
        };
        let call = Call::set_up(&mut caller, &mut callee);
        swap(&host);
        // The address that the caller has for itself, behind a NAT, and the one that the host knows.
        let transport = if is_tcp { ";transport=tcp" } else { "" };
        for (method, contact) in [
            ("INFO", format!("sip:caller@10.0.0.1:5060{transport}")),
            ("BYE", format!("sip:caller@{}{transport}", caller.local())),
        ] {
            callee.send(&call.of_callee(&callee, method, &contact));
            let got = caller.receive();
            assert_eq!(got.start_line(), format!("{method} {contact} SIP/2.0"));
            caller.send(&ok_to(&got, caller.local()));
            assert_eq!(callee.receive().code(), 200);
        }
        assert_eq!(followed(&host), 2.0);
    }
}

#[test]
fn a_seal_is_valid_for_its_own_dialog_only() {
    let (host, mut callee) = start(Builder::new(), "");
    let mut caller = host.udp(CALLER);
    let call = Call::set_up(&mut caller, &mut callee);
    swap(&host);
    let contact = format!("sip:callee@{}", callee.local());
    let mut other = call.of_caller("INVITE", &contact);
    other.call_id = format!("{}-other", other.call_id);
    assert_eq!(caller.ask(&other).code(), 486);
    let mut first = call.of_caller("INVITE", &contact);
    first.to = "<sip:bob@example.com>".into();
    assert_eq!(caller.ask(&first).code(), 486, "it begins a dialog");
    let register = call.of_caller("REGISTER", &contact);
    assert_eq!(caller.ask(&register).code(), 486);
    let forged = host.metric("portcullis_in_dialog_total", &["seal=\"forged\""]);
    assert_eq!((followed(&host), forged), (0.0, 1.0));
}

#[test]
fn policies_are_called_within_dialogs_if_configured() {
    let builder = Builder::new().set("policy", "in-dialog = \"ask\"");
    let (host, mut callee) = start(builder, "");
    let mut caller = host.udp(CALLER);
    let call = Call::set_up(&mut caller, &mut callee);
    swap(&host);
    let bye = call.of_caller("BYE", &format!("sip:callee@{}", callee.local()));
    assert_eq!(caller.ask(&bye).code(), 486);
    assert_eq!(followed(&host), 0.0);
}

#[test]
fn another_process_with_the_key_file_recognises_the_dialog() {
    let folder = tempfile::tempdir().expect("a temporary directory can be made");
    let file = folder.path().join("seal.key");
    let key_file = format!("key-file = {file:?}");
    let (first, mut callee) = start(Builder::new().set("sip", &key_file), "");
    let mode = std::fs::metadata(&file)
        .expect("the key is made")
        .permissions();
    assert_eq!(mode.mode() & 0o777, 0o600);

    let mut caller = first.udp(CALLER);
    let call = Call::set_up(&mut caller, &mut callee);
    let contact = format!("sip:callee@{}", callee.local());
    let bye = call.of_caller("BYE", &contact);
    let to_first = |builder: Builder, callee: SocketAddr| {
        let name = format!("aliases = [\"{}\"]", first.sip());
        builder
            .set("sip", &name)
            .set("relay", &format!("next-hop = \"sip:{callee}\""))
    };
    // Another host of the fleet, whose policy rejects every request.
    let second = to_first(Builder::new(), callee.local())
        .set("sip", &key_file)
        .start();
    caller.turn_to(second.sip());
    caller.send(&bye.bytes());
    assert_eq!(callee.receive().first_word(), "BYE");
    assert_eq!(followed(&second), 1.0);
    // It also recognises rejections of the fleet: the ACK to one is absorbed.
    let invite = caller.request("INVITE", "sip:bob@example.com");
    caller.turn_to(second.sip());
    let rejection = caller.ask(&invite);
    assert_eq!(rejection.code(), 401);
    let ack = invite.ack_for(&rejection).bytes();
    let absorbed = |host: &Host| host.metric("portcullis_absorbed_acks_total", &[]);
    caller.turn_to(first.sip());
    caller.send(&ack);
    wait::until("the ACK ends", || (absorbed(&first) == 1.0).then_some(()));
    // A host with another key.
    let stranger = to_first(Builder::new(), callee.local()).start();
    caller.turn_to(stranger.sip());
    caller.send(&ack);
    assert_eq!(caller.ask(&bye).code(), 401);
    assert_eq!(absorbed(&stranger), 0.0);
}

#[test]
fn a_dialog_stays_with_its_tenant() {
    let builder = Builder::new();
    let callee = builder.lease().addr(CALLEE, 5080);
    // The request URI of the INVITE selects the tenant; later requests have a Contact there.
    let host = builder
        .set("relay.next-hops", &format!("acme-pbx = \"sip:{callee}\""))
        .set("tenants.acme", "uri-domains = [\"acme.example\"]")
        .set("tenants.acme", "next-hop = \"acme-pbx\"")
        .set("tenants.acme", "default = \"relay\"")
        .start();
    let mut callee = Caller::udp_from(callee, host.sip());
    let mut caller = host.udp(CALLER);
    let mut invite = caller.request("INVITE", "sip:bob@acme.example");
    caller.send(&invite.bytes());
    let seen = callee.receive();
    callee.send(&ok_to(&seen, callee.local()));
    let answer = caller.receive();
    assert_eq!(answer.code(), 200, "{}", answer.start_line());
    invite.uri = "sip:bob@203.0.113.7".into();
    let call = Call {
        invite,
        seen,
        answer,
    };
    caller.send(&call.of_caller("BYE", "sip:bob@203.0.113.7").bytes());
    assert_eq!(callee.receive().first_word(), "BYE");
    callee.send(&call.of_callee(&callee, "INFO", "sip:caller@10.0.0.1"));
    assert_eq!(caller.receive().first_word(), "INFO");
    let of = |metric: &str, tenant: &str| {
        let label = format!("tenant=\"{tenant}\"");
        host.metric(metric, &[label.as_str()])
    };
    assert_eq!(of("portcullis_tenant_requests_total", "acme"), 3.0);
    assert_eq!(of("portcullis_tenant_followed_total", "acme"), 2.0);
    assert_eq!(of("portcullis_tenant_followed_total", "default"), 0.0);
}

#[test]
fn requests_within_a_dialog_are_recorded_without_policies() {
    let builder = Builder::new().set("records", "file = \"r.jsonl\"");
    let (host, mut callee) = start(builder, "");
    let mut caller = host.udp(CALLER);
    let call = Call::set_up(&mut caller, &mut callee);
    let contact = format!("sip:callee@{}", callee.local());
    caller.send(&call.of_caller("BYE", &contact).bytes());
    assert_eq!(callee.receive().first_word(), "BYE");
    let file = host.folder().join("r.jsonl");
    let records = wait::until("both are written", || {
        let text = std::fs::read_to_string(&file).ok()?;
        (text.lines().count() == 2).then_some(text)
    });
    let records: Vec<Value> = records
        .lines()
        .map(|line| serde_json::from_str(line).expect("a record is JSON"))
        .collect();
    let asked = |record: &Value| record["policies"].as_array().map_or(0, Vec::len);
    assert_eq!((asked(&records[0]), asked(&records[1])), (1, 0));
    assert_eq!(records[1]["outcome"], "within a dialog");
    let said = host.run("replay r.jsonl --policy policy.wasm");
    assert!(said.contains("1 decision"), "{said}");
}
