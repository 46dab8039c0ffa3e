//! Requests within a dialog.

use portcullis_testkit::callee::Callee;
use portcullis_testkit::host::Builder;
use portcullis_testkit::messages::Message;

use crate::call::Call;
use crate::site::{Site, builder, wait_until_idle};

/// 26 and 27.
#[test]
fn requests_within_a_dialog_follow_its_route_set() {
    let (host, site) = Site::host();
    let (call, callee) = Call::start(site);
    let (caller, invite) = (&call.caller, &call.invite);
    let seen = call.arrives_at(&callee);
    callee.answer_with(&seen, 183, &["Require: 100rel", "RSeq: 1"]);
    let progress = caller.first_response("INVITE", 183);
    let prack = invite
        .within(&progress.message, "PRACK", 2)
        .header("RAck: 1 1 INVITE");
    site.send(caller, &prack);
    callee.answer(&callee.first_request("PRACK"), 200);
    caller.first_response("PRACK", 200);
    let ok = call.is_answered_by(&callee, &seen);
    let begun = host.metric("portcullis_transactions_begun_total", &[]);
    let ack = call.is_confirmed_to(&callee, &ok);
    assert_eq!(ack.message.headers("Via").len(), 2);
    assert!(
        ack.message.headers("Route").is_empty(),
        "the host's own is removed"
    );
    assert_eq!(
        host.metric("portcullis_transactions_begun_total", &[]),
        begun,
        "an ACK to a 2xx has no transaction"
    );
    for (n, method) in ["UPDATE", "INFO", "REFER", "NOTIFY", "INVITE"]
        .into_iter()
        .enumerate()
    {
        let cseq = 3 + n as u32;
        let request = invite.within(&ok.message, method, cseq);
        site.send(caller, &request);
        let is_it = |m: &Message| {
            let cseq = format!("{cseq} {method}");
            m.header("CSeq") == Some(&cseq)
        };
        let seen = callee.nth(0, method, is_it);
        assert!(
            seen.message.headers("Route").is_empty(),
            "by Route to {method}"
        );
        callee.answer(&seen, 200);
        let answer = caller.nth(0, method, |m| is_it(m) && m.code() == 200);
        if method == "INVITE" {
            // A copy of the ACK's branch rule: each ACK has a branch of its own.
            let mut again = request.clone();
            again.branch = format!("{}-2", invite.branch);
            site.ack(caller, &again, &answer);
            callee.nth_request(1, "ACK");
        }
    }
    call.hangs_up(&callee, &ok);
    wait_until_idle(&host);
}

#[test]
fn silence_within_a_dialog_leaves_room_for_the_calls_of_other_tenants() {
    let builder = builder(Builder::new());
    let answering = builder.lease().addr(4, 5080);
    let host = builder
        .set("transactions", "active = 12")
        .set("relay.next-hops", &format!("callee = \"sip:{answering}\""))
        .set("tenants.other", "uri-domains = [\"other.example\"]")
        .set(
            "tenants.other",
            "next-hop = \"callee\"\ndefault = \"relay\"",
        )
        .start();
    let _answering = Callee::start(answering);
    let site = Site::of(&host);
    let (call, callee) = Call::start(site);
    let (caller, invite) = (&call.caller, &call.invite);
    let ok = call.is_answered_by(&callee, &call.arrives_at(&callee));
    call.is_confirmed_to(&callee, &ok);
    for cseq in 2..22 {
        site.send(caller, &invite.within(&ok.message, "INFO", cseq));
        let cseq = format!("{cseq} INFO");
        callee.nth(0, "INFO", |m| m.header("CSeq") == Some(&cseq));
    }
    let labels = ["tenant=\"default\""];
    let held = host.metric("portcullis_tenant_transactions", &labels);
    assert_eq!(held, 6.0, "the others are relayed without a transaction");
    site.send(caller, &caller.request("MESSAGE", "sip:bob@other.example"));
    caller.first_response("MESSAGE", 200);
    assert_eq!(host.metric("portcullis_transactions_shed_total", &[]), 0.0);
}

#[test]
fn requests_within_a_dialog_are_never_shed() {
    let host = builder(Builder::new())
        .set("transactions", "active = 1\nadopt = \"0s\"")
        .start();
    let site = Site::of(&host);
    let (call, callee) = Call::start(site);
    let (caller, invite) = (&call.caller, &call.invite);
    let ok = call.is_answered_by(&callee, &call.arrives_at(&callee));
    call.is_confirmed_to(&callee, &ok);
    // The table is full at one, and at two for requests within a dialog.
    for cseq in [2, 3] {
        site.send(caller, &invite.within(&ok.message, "INFO", cseq));
        callee.nth_request(cseq as usize - 2, "INFO");
    }
    let other = caller.request("MESSAGE", &callee.uri());
    site.send(caller, &other);
    let shed = caller.first_response("MESSAGE", 503);
    let wait = shed.message.header("Retry-After").map(str::parse);
    assert!(matches!(wait, Some(Ok(2..=10_u8))), "{wait:?}");
    let update = invite.within(&ok.message, "UPDATE", 4);
    site.send(caller, &update);
    callee.answer(&callee.first_request("UPDATE"), 200);
    caller.first_response("UPDATE", 200);
    assert_eq!(host.metric("portcullis_transactions_shed_total", &[]), 1.0);
    host.wait_for_log("event=\"transactions_full\"");
}
