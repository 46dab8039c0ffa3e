//! Limits of records, bytes and work.

use std::time::Duration;

use portcullis_sip::Transport;

use super::{Call, responses};
use crate::config::{Config, Trying};
use crate::outbox::What;
use crate::slab::Id;
use crate::testing::{Host, from_callee, from_caller, header, request, response, serial, small};
use crate::time::Time;
use crate::transactions::{BeginError, NameSlot, Receipt};

#[test]
fn new_requests_are_shed_at_the_limit_and_those_of_dialogs_at_twice_the_limit() {
    let mut host = Host::new(Config::default());
    begin(&mut host, &request("INVITE", 1, ""), false).unwrap();
    let bytes = host.core.usage().bytes;
    let by_number = Config {
        most: 1,
        ..Config::default()
    };
    let by_bytes = Config {
        bytes,
        ..Config::default()
    };
    for config in [by_number, by_bytes] {
        let mut host = Host::new(config);
        for (text, is_in_dialog, expected) in [
            (request("INVITE", 1, ""), false, Ok(())),
            (request("INVITE", 2, ""), false, Err(BeginError::Full)),
            (with_tag(3), false, Err(BeginError::Full)),
            (with_tag(3), true, Ok(())),
            (request("INVITE", 4, ""), false, Err(BeginError::Full)),
            (with_tag(5), true, Err(BeginError::Full)),
        ] {
            let begun = begin(&mut host, &text, is_in_dialog).map(|_| ());
            assert_eq!(begun, expected, "{is_in_dialog} {text}");
        }
    }
}

/// A request that claims to be of a dialog.
fn with_tag(call: u64) -> String {
    let to = "To: <sip:callee@example.com>";
    request("BYE", call, "").replace(to, &format!("{to};tag=1"))
}

fn begin(host: &mut Host, text: &str, is_in_dialog: bool) -> Result<Id, BeginError> {
    let caller = from_caller(Transport::Udp);
    let Receipt::New(name) = host.receive(text.as_bytes(), &caller) else {
        panic!("it is new");
    };
    let mut index = portcullis_sip::Index::default();
    portcullis_sip::scan(
        text.as_bytes(),
        portcullis_sip::Framing::Datagram,
        &Default::default(),
        &mut index,
    )
    .unwrap();
    let message = portcullis_sip::Message::new(text.as_bytes(), &index);
    let back = portcullis_sip::Destination {
        transport: Transport::Udp,
        addr: caller.source,
        from: None,
        connection: None,
        name: None,
        is_flow: false,
    };
    host.core
        .begin(host.now, name, message, &caller, back, is_in_dialog)
}

#[test]
fn the_oldest_absorber_is_forgotten_at_the_limit() {
    let mut host = Host::new(Config {
        absorbers: 2,
        ..Config::default()
    });
    for call in 0..3 {
        let text = request("MESSAGE", call, "");
        let id = host.begin(text.as_bytes(), &from_caller(Transport::Udp));
        host.core.answer::<&str>(host.now, id, 200, "", &[]);
        host.drain();
    }
    assert_eq!(host.core.usage().absorbers, 2);
    let receipt = |host: &mut Host, call| {
        host.receive(
            request("MESSAGE", call, "").as_bytes(),
            &from_caller(Transport::Udp),
        )
    };
    assert!(matches!(receipt(&mut host, 0), Receipt::New(_)));
    assert_eq!(receipt(&mut host, 1), Receipt::Handled);
    assert_eq!(receipt(&mut host, 2), Receipt::Handled);
}

/// Ended transactions do not shed new requests.
#[test]
fn the_oldest_absorbers_are_forgotten_at_the_limit_of_bytes() {
    let answered = |host: &mut Host, call| {
        let text = request("MESSAGE", call, "");
        let id = begin(host, &text, false)?;
        host.core.answer::<&str>(host.now, id, 200, "", &[]);
        host.drain();
        Ok::<_, BeginError>(())
    };
    let mut host = Host::new(Config::default());
    answered(&mut host, 0).unwrap();
    let bytes = host.core.usage().bytes;
    assert!(bytes > 0);
    let mut host = Host::new(Config {
        bytes: 3 * bytes,
        ..Config::default()
    });
    for call in 0..20 {
        assert_eq!(answered(&mut host, call), Ok(()), "{call}");
        assert!(host.core.usage().bytes <= 3 * bytes, "{call}");
    }
    assert_eq!(host.core.usage().absorbers, 3);
    let mut receipt = |call| {
        let text = request("MESSAGE", call, "");
        host.receive(text.as_bytes(), &from_caller(Transport::Udp))
    };
    assert!(matches!(receipt(0), Receipt::New(_)));
    assert_eq!(receipt(19), Receipt::Handled);
}

/// They count until the transaction ends.
#[test]
fn bytes_of_the_caller_count() {
    let mut host = Host::new(Config {
        bytes: 100_000,
        ..Config::default()
    });
    let message = |call| request("MESSAGE", call, "");
    let id = begin(&mut host, &message(0), false).unwrap();
    let own = host.core.usage().bytes;
    host.core.charge(id, 5_000);
    host.core.charge(id, 100_000);
    assert_eq!(host.core.usage().bytes, own + 100_000);
    assert_eq!(begin(&mut host, &message(1), false), Err(BeginError::Full));
    host.core.answer::<&str>(host.now, id, 200, "", &[]);
    host.drain();
    assert!(host.core.usage().bytes < 100_000);
    host.core.charge(id, 100_000);
    assert!(begin(&mut host, &message(2), false).is_ok());
}

#[test]
fn a_100_can_wait_or_be_left_out() {
    for (trying, expected) in [
        (Trying::After(Duration::from_millis(150)), vec![(150, 100)]),
        (Trying::Never, vec![]),
    ] {
        let config = Config {
            trying,
            ..Config::default()
        };
        let (mut call, sent) = Call::with(config, "INVITE", "", serial(&[0]));
        assert_eq!(responses(&sent), []);
        assert_eq!(responses(&call.sent_until(400)), expected);
    }
}

#[test]
fn what_is_stored_of_a_ringing_call_is_small() {
    let body = "X-Long: 12345678901234567890\r\n".repeat(20);
    let (mut call, _) = Call::with(Config::default(), "INVITE", &body, serial(&[0]));
    let before = call.host.core.usage().bytes;
    call.answer(0, 180, "");
    let after = call.host.core.usage().bytes;
    assert!(before >= 2_048 && after <= 2_048, "{before} and {after}");
}

#[test]
fn a_limit_of_work_leaves_the_rest_for_the_next_call() {
    let mut host = Host::new(Config::default());
    for call in 0..5 {
        let text = request("INVITE", call, "");
        host.begin(text.as_bytes(), &from_caller(Transport::Udp));
    }
    host.now = Time::from_millis(200);
    assert!(!host.core.expire(host.now, 3));
    assert_eq!(host.drain().0.len(), 3);
    assert!(host.core.expire(host.now, 3));
    assert_eq!(host.drain().0.len(), 2);
}

/// The worker could not run its timers for longer than most of them had.
#[test]
fn timers_that_are_long_due_run_in_order_and_a_few_at_a_time() {
    const CALLS: u64 = 20;
    const AT_ONCE: usize = 3;
    let mut host = Host::new(Config::default());
    for call in 0..CALLS {
        // The tick of a timer is 10 ms.
        host.now = Time::from_millis(call * 20);
        let text = request("MESSAGE", call, "");
        let id = host.begin(text.as_bytes(), &from_caller(Transport::Udp));
        host.core.plan(host.now, id, serial(&[0])).unwrap();
        let (sent, _) = host.drain();
        assert_eq!(sent.len(), 1);
    }
    host.now = Time::from_millis(10_000);
    let mut turns = Vec::new();
    loop {
        let is_done = host.core.expire(host.now, AT_ONCE);
        let (sent, told) = host.drain();
        assert_eq!(told, []);
        let copies = sent
            .iter()
            .filter(|sent| sent.what == What::RequestRetransmission);
        let calls: Vec<_> = copies
            .map(|sent| header(&sent.text, "Call-ID").unwrap().to_owned())
            .collect();
        assert!(calls.len() <= AT_ONCE, "{calls:?}");
        turns.extend(calls);
        let next = host.core.next_deadline().unwrap();
        if is_done {
            assert!(next > host.now, "nothing is due any more");
            break;
        }
        assert!(next <= host.now, "the rest is due");
    }
    let expected: Vec<_> = (0..CALLS).map(|call| format!("call{call}")).collect();
    assert_eq!(turns, expected);
}

#[test]
fn a_thousand_calls_leave_nothing() {
    let mut host = Host::new(Config::default());
    for call in 0..1_000 {
        let invite = request("INVITE", call, "");
        let id = host.begin(invite.as_bytes(), &from_caller(Transport::Udp));
        host.core.plan(host.now, id, serial(&[0])).unwrap();
        let (sent, _) = host.drain();
        let out = sent.iter().find(|sent| sent.what == What::Request).unwrap();
        if call % 3 != 0 {
            let code = if call % 3 == 1 { 200 } else { 486 };
            let answer = response(code, &out.text, "x", "");
            assert_eq!(
                host.receive(answer.as_bytes(), &from_callee(0)),
                Receipt::Handled
            );
        }
        if call % 3 == 2 {
            let ack = request("ACK", call, "");
            host.receive(ack.as_bytes(), &from_caller(Transport::Udp));
        }
        host.go_to(call * 7);
    }
    let usage = host.core.usage();
    assert_eq!((usage.active, usage.absorbers), (334, 666));
    host.go_to(999 * 7 + 64_000);
    assert!(host.core.is_empty());
    assert_eq!(host.core.usage().bytes, 0);
}

#[test]
fn names_are_found_in_small_parts_while_transactions_end() {
    const PART: u32 = 7;
    let mut host = Host::new(small());
    let mut ids: Vec<_> = (0..50)
        .map(|call| begin(&mut host, &request("MESSAGE", call, ""), false).unwrap())
        .collect();
    let end = |host: &mut Host, id| {
        host.core.answer::<&str>(host.now, id, 200, "", &[]);
        host.drain();
    };
    ids.drain(..10).for_each(|id| end(&mut host, id));
    let mut all = Vec::new();
    let mut next = Some(NameSlot::FIRST);
    while let Some(from) = next {
        next = host.core.names(from, u32::MAX, &mut all);
    }
    assert_eq!(all.len(), 50);

    let mut found = Vec::new();
    let mut next = Some(NameSlot::FIRST);
    while let Some(from) = next {
        let before = found.len();
        next = host.core.names(from, PART, &mut found);
        assert!(found.len() - before <= PART as usize);
        ids.pop().into_iter().for_each(|id| end(&mut host, id));
    }
    assert!(all.iter().all(|name| found.contains(name)));
}
