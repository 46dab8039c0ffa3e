//! What a stateful proxy asks of the rules: branches of several targets, hop-by-hop requests, responses with changes, loops.

#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used)] // A panic is how a test fails.

mod edge;

use edge::{CALLER, Edge, NEXT_HOP, branch, headers, request, response, start_line, udp};
use portcullis_sip::{
    Arrival, Branch, DEFAULT_BREADTH, DropReason, Feedback, Forward, Framing, HeaderChange,
    HeaderName, Index, Limit, Limits, Message, Overload, OverloadAlgorithm, OverloadControl,
    Received, ResponseChanges, Target, Transport, scan, shorten, write_ack, write_cancel,
    write_response,
};

fn edge() -> Edge {
    Edge::new(|_| {})
}

fn invite() -> String {
    request("INVITE", "sip:grace@example.com", &[])
}

/// Calls `read` with the scanned message.
fn with<R>(text: &str, read: impl FnOnce(Message<'_>) -> R) -> R {
    let mut index = Index::default();
    scan(
        text.as_bytes(),
        Framing::Datagram,
        &Limits::default(),
        &mut index,
    )
    .unwrap();
    read(Message::new(text.as_bytes(), &index))
}

/// What `write` writes.
fn written(write: impl FnOnce(&mut Vec<u8>)) -> String {
    let mut out = b"left over".to_vec();
    write(&mut out);
    String::from_utf8(out).unwrap()
}

/// The request as the target with this number sees it.
fn sent(edge: &Edge, text: &str, number: u8) -> String {
    let arrival = udp(CALLER);
    with(text, |message| {
        let transaction = edge.proxy.name_of(message, &arrival).unwrap().transaction;
        let branch = Branch {
            transaction,
            number,
        };
        written(|out| {
            let forward = Forward::new(Target::AsRouted, branch, DEFAULT_BREADTH);
            let sent = edge
                .proxy
                .forward(message, &arrival, &edge.routes, &forward, out);
            assert_eq!(sent.unwrap().to.addr, NEXT_HOP.parse().unwrap());
        })
    })
}

#[test]
fn a_response_names_the_branch_that_it_answers() {
    let edge = edge();
    let name = with(&invite(), |message| {
        edge.proxy.name_of(message, &udp(CALLER))
    });
    for number in [0, 1, 16, 255] {
        let text = response(180, &sent(&edge, &invite(), number));
        let read = with(&text, |message| edge.proxy.branch_of(message)).unwrap();
        assert_eq!(read.number, number);
        assert_eq!(Some(read.transaction), name.map(|name| name.transaction));
        // Without a transaction, it still finds its way by its Vias.
        let (received, _) = edge.receive(&text, &udp(NEXT_HOP));
        assert!(matches!(received, Received::Forward(to) if to.addr == CALLER.parse().unwrap()));
    }
}

#[test]
fn the_share_of_max_breadth_replaces_the_received_value_whatever_a_policy_changes() {
    let edge = edge();
    let written_as = |method: &str, lines: &[&str], changes: &[HeaderChange<'_>], breadth| {
        let text = request(method, "sip:grace@example.com", lines);
        with(&text, |message| {
            let (arrival, routes) = (udp(CALLER), &edge.routes);
            let name = edge.proxy.name_of(message, &arrival).unwrap();
            let branch = name.transaction.into();
            let to = Target::AsRouted;
            let sent = written(|out| {
                let forward = Forward {
                    changes,
                    ..Forward::new(to, branch, breadth)
                };
                edge.proxy
                    .forward(message, &arrival, routes, &forward, out)
                    .unwrap();
            });
            let values = headers(&sent, "Max-Breadth");
            values
                .iter()
                .map(|value| value.to_string())
                .collect::<Vec<_>>()
        })
    };
    let written_with = |lines: &[&str], changes: &[HeaderChange<'_>], breadth| {
        written_as("INVITE", lines, changes, breadth)
    };
    let added = HeaderChange::Add {
        name: "max-breadth",
        value: "50",
    };
    let removed = [HeaderChange::Remove("Max-Breadth")];
    let replaced = [HeaderChange::Remove("Max-Breadth"), added];
    assert_eq!(written_with(&[], &[added], 60), ["60"]);
    assert_eq!(written_with(&[], &[added], 7), ["7"]);
    assert_eq!(written_with(&[], &[], 60), ["60"]);
    assert_eq!(written_with(&[], &[], 7), ["7"]);
    assert_eq!(written_as("MESSAGE", &[], &[], 60), ["60"]);
    for method in ["ACK", "CANCEL"] {
        assert_eq!(written_as(method, &[], &[], 60), [""; 0]);
        assert_eq!(written_as(method, &["Max-Breadth: 9"], &[], 9), ["9"]);
    }
    for lines in [
        &["Max-Breadth: 9"][..],
        &["Max-Breadth: 9", "Max-Breadth: 8"],
    ] {
        for changes in [&[][..], &removed, &replaced, &[added]] {
            assert_eq!(written_with(lines, changes, 60), ["60"]);
            assert_eq!(written_with(lines, changes, 3), ["3"]);
        }
    }
}

/// A proxy that takes part in overload control on these sides.
fn edge_with(next_hops: Option<OverloadAlgorithm>, clients: Option<OverloadAlgorithm>) -> Edge {
    let mut edge = edge();
    edge.proxy = edge
        .proxy
        .with_overload_control(OverloadControl { next_hops, clients });
    edge
}

/// What is sent for a request if the next hop is asked for its load.
fn asking(edge: &Edge, text: &str) -> String {
    with(text, |message| {
        let arrival = udp(CALLER);
        let name = edge.proxy.name_of(message, &arrival).unwrap();
        let forward = Forward {
            asks_for_load: true,
            ..Forward::new(Target::AsRouted, name.transaction.into(), 60)
        };
        written(|out| {
            edge.proxy
                .forward(message, &arrival, &edge.routes, &forward, out)
                .unwrap();
        })
    })
}

/// RFC 7339 §5.1, §5.2: the client of an overloaded host finds values in the responses of next hops, whether they have a transaction or not, and those
/// that a next hop has written for it are removed (§5.4). The next hop does not see what the client has offered (§5.6).
#[test]
fn a_relayed_response_says_how_loaded_this_host_is() {
    let (loss, rate) = (OverloadAlgorithm::Loss, OverloadAlgorithm::Rate);
    let offers = ";oc;branch=z9hG4bKcaller-1;oc-algo=\"rate,loss\"";
    let offering = invite().replace(";branch=z9hG4bKcaller-1", offers);
    let spoilt = ";branch=z9hG4bKcaller-1;oc=99;oc-algo=\"loss\";oc-validity=60000;oc-seq=9.0";
    let by_loss = ";branch=z9hG4bKcaller-1;oc=20;oc-algo=\"loss\";oc-validity=1500;oc-seq=1.00000";
    let by_rate = ";branch=z9hG4bKcaller-1;oc=150;oc-algo=\"rate\";oc-validity=1500;oc-seq=1.00000";
    let nothing = ";branch=z9hG4bKcaller-1";
    let via = |params: &str| format!("SIP/2.0/UDP {CALLER}{params}");
    for (edge, text, expected) in [
        (edge(), &offering, None),
        (edge_with(Some(loss), None), &offering, Some(nothing)),
        (edge_with(None, Some(loss)), &offering, Some(by_loss)),
        (edge_with(Some(rate), Some(rate)), &offering, Some(by_rate)),
        (edge_with(Some(rate), Some(rate)), &invite(), Some(nothing)),
    ] {
        edge.proxy.ask_clients(20, 150, 100_000);
        let sent = asking(&edge, text);
        let callers = headers(&sent, "Via")[1];
        let untouched = if *text == offering { offers } else { nothing };
        assert_eq!(callers, via(expected.map_or(untouched, |_| nothing)));
        let spoiled = response(180, &sent).replacen(callers, &via(spoilt), 1);
        let expected = expected.unwrap_or(spoilt);
        let (received, by_vias) = edge.receive(&spoiled, &udp(NEXT_HOP));
        assert!(matches!(received, Received::Forward(to) if to.addr == CALLER.parse().unwrap()));
        let changes = ResponseChanges {
            feedback: edge.proxy.feedback(),
            ..ResponseChanges::default()
        };
        let in_transaction = with(&spoiled, |message| {
            written(|out| assert!(write_response(message, &changes, Transport::Udp, out)))
        });
        for text in [&by_vias, &in_transaction] {
            assert_eq!(headers(text, "Via"), [via(expected)], "{text}");
            // Everything else is as it was.
            let rest = spoiled.replacen(&our_line(&spoiled), "", 1);
            assert_eq!(*text, rest.replacen(spoilt, expected, 1));
        }
    }
}

/// The line of our Via.
fn our_line(response: &str) -> String {
    format!("Via: {}\r\n", headers(response, "Via")[0])
}

/// RFC 7339 §5.1: a client asks in its Via, and the values in the response are for nobody else.
#[test]
fn a_next_hop_is_asked_for_its_load_and_its_answer_is_read() {
    let by_rate = edge_with(Some(OverloadAlgorithm::Rate), None);
    let sent = asking(&by_rate, &invite());
    assert!(
        headers(&sent, "Via")[0].ends_with(";oc;oc-algo=\"rate,loss\""),
        "{sent}"
    );
    let edge = edge_with(Some(OverloadAlgorithm::Loss), None);
    let sent = asking(&edge, &invite());
    assert!(
        headers(&sent, "Via")[0].ends_with(";oc;oc-algo=\"loss\""),
        "{sent}"
    );
    let text = response(200, &sent);
    let said = |text: &str| with(text, Overload::of_response);
    assert_eq!(said(&text), None);
    let answered = text.replace(";oc;", ";oc=20;oc-validity=700;oc-seq=1.5;");
    let overload = said(&answered).unwrap();
    assert_eq!((overload.limit, overload.validity), (Limit::Loss(20), 700));
    assert!(with(&answered, |message| edge.proxy.branch_of(message)).is_ok());
    let (received, _) = edge.receive(&answered, &udp(NEXT_HOP));
    assert!(matches!(received, Received::Forward(to) if to.addr == CALLER.parse().unwrap()));
}

#[test]
fn a_quoted_request_of_ours_names_its_branch_however_little_is_quoted() {
    let edge = edge();
    let text = sent(&edge, &invite(), 3);
    let branch_of = |bytes: &[u8]| {
        let mut index = Index::default();
        let _may_be_cut = scan(bytes, Framing::Datagram, &Limits::default(), &mut index);
        edge.proxy.branch_of_request(Message::new(bytes, &index))
    };
    let name = with(&invite(), |message| {
        edge.proxy.name_of(message, &udp(CALLER))
    });
    let branch = Branch {
        transaction: name.unwrap().transaction,
        number: 3,
    };
    // The first header line is our Via.
    let via_end = text.match_indices("\r\n").nth(1).unwrap().0 + 2;
    for end in 0..=text.len() {
        let expected = (end >= via_end).then_some(branch);
        assert_eq!(
            branch_of(&text.as_bytes()[..end]),
            expected,
            "{end} of {via_end}"
        );
    }
    let forged = text.replacen("z9hG4bK", "z9hG4bK0", 1);
    assert_eq!(branch_of(forged.as_bytes()), None);
    assert_eq!(branch_of(invite().as_bytes()), None);
    assert_eq!(branch_of(response(180, &text).as_bytes()), None);
}

#[test]
fn a_response_with_a_branch_of_others_is_none_of_ours() {
    let edge = edge();
    let text = response(180, &sent(&edge, &invite(), 1));
    let forged = text.replacen("z9hG4bK", "z9hG4bK0", 1);
    let branch = with(&forged, |message| edge.proxy.branch_of(message));
    assert_eq!(branch, Err(DropReason::ForgedResponse));
    let foreign = text.replacen("198.51.100.1:5060", "198.51.100.2:5060", 1);
    let branch = with(&foreign, |message| edge.proxy.branch_of(message));
    assert_eq!(branch, Err(DropReason::ForeignResponse));
}

#[test]
fn a_cancel_with_another_sent_by_has_the_name_but_not_the_sender_of_its_invite() {
    let edge = edge();
    let name = |text: &str| with(text, |message| edge.proxy.name_of(message, &udp(CALLER)));
    let (invite, cancel) = (invite(), request("CANCEL", "sip:grace@example.com", &[]));
    assert_eq!(name(&invite), name(&cancel));
    let moved = name(&cancel.replacen(CALLER, "203.0.113.7:40000", 1)).unwrap();
    assert_eq!(moved.transaction, name(&invite).unwrap().transaction);
    assert_ne!(moved.sent_by, name(&invite).unwrap().sent_by);
}

#[test]
fn a_cancel_has_the_path_of_its_invite_and_nothing_else() {
    let lines = [
        "Route: <sip:192.0.2.80:5080;lr>",
        "Require: 100rel",
        "X-Secret: 1",
    ];
    let edge = Edge::new(|routes| {
        routes.domain("192.0.2.64/26").unwrap();
    });
    let invite = sent(
        &edge,
        &request("INVITE", "sip:grace@example.com", &lines),
        3,
    );
    let via = headers(&invite, "Via")[0];
    let cancel = with(&invite, |message| {
        written(|out| write_cancel(message, Some(b"SIP;cause=200"), out))
    });
    assert_eq!(
        cancel,
        format!(
            "CANCEL sip:grace@example.com SIP/2.0\r\nVia: {via}\r\nMax-Forwards: 70\r\n\
             Route: <sip:192.0.2.80:5080;lr>\r\nFrom: <sip:ada@example.net>;tag=ada1\r\n\
             To: <sip:grace@example.com>\r\nCall-ID: call-1\r\nCSeq: 7 CANCEL\r\nReason: SIP;cause=200\r\n\
             Content-Length: 0\r\n\r\n"
        )
    );
}

#[test]
fn an_ack_has_the_to_of_the_response() {
    let edge = edge();
    let invite = sent(&edge, &invite(), 0);
    let failure = response(486, &invite);
    let ack = with(&invite, |invite| {
        with(&failure, |failure| {
            written(|out| write_ack(invite, failure, out))
        })
    });
    assert_eq!(start_line(&ack), "ACK sip:grace@example.com SIP/2.0");
    assert_eq!(headers(&ack, "To"), headers(&failure, "To"));
    assert_eq!(headers(&ack, "Via"), [headers(&invite, "Via")[0]]);
    assert_eq!(headers(&ack, "CSeq"), ["7 ACK"]);
}

#[test]
fn a_shortened_request_serves_as_well_as_the_whole_one() {
    let edge = edge();
    let body = "Content-Type: application/sdp\r\nX-Long: 1\r\nContent-Length: 4\r\n\r\nv=0\n";
    let invite = invite().replace("Content-Length: 0\r\n\r\n", body);
    let short = with(&invite, |message| written(|out| shorten(message, out)));
    assert!(short.len() < invite.len() && !short.contains("X-Long"));
    let reject = |text: &str| edge.reject(text, &udp(CALLER), 487, "", &[]);
    assert_eq!(reject(&short), reject(&invite));

    let sent = sent(&edge, &invite, 2);
    let short = with(&sent, |message| written(|out| shorten(message, out)));
    let cancel = |text: &str| {
        with(text, |message| {
            written(|out| write_cancel(message, None, out))
        })
    };
    assert_eq!(cancel(&short), cancel(&sent));
}

#[test]
fn a_100_has_no_tag_and_the_timestamp_of_its_request() {
    let edge = edge();
    let invite = request("INVITE", "sip:grace@example.com", &["Timestamp: 54.1"]);
    let trying = with(&invite, |message| {
        written(|out| {
            let to = edge.proxy.trying(message, &udp(CALLER), out);
            assert_eq!(to.unwrap().addr, CALLER.parse().unwrap());
        })
    });
    assert_eq!(start_line(&trying), "SIP/2.0 100 Trying");
    assert_eq!(headers(&trying, "To"), ["<sip:grace@example.com>"]);
    assert_eq!(headers(&trying, "Timestamp"), ["54.1"]);
    let ack = invite.replace("INVITE", "ACK");
    let none = with(&ack, |message| {
        edge.proxy.trying(message, &udp(CALLER), &mut Vec::new())
    });
    assert_eq!(none, None);
}

#[test]
fn a_response_is_passed_on_without_our_via_and_with_its_changes() {
    let edge = edge();
    let sent = sent(&edge, &invite(), 1);
    let ours = format!("Via: {}\r\n", headers(&sent, "Via")[0]);
    let busy = response(503, &sent).replacen(
        "Content-Length",
        "Retry-After: 30\r\nX-Kept: 1\r\nRetry-After: 31\r\nContent-Length",
        1,
    );
    let pass = |text: &str, changes: &ResponseChanges<'_>| {
        with(text, |message| {
            written(|out| assert!(write_response(message, changes, Transport::Udp, out)))
        })
    };
    let plain = pass(&busy, &ResponseChanges::default());
    assert_eq!(plain, busy.replacen(&ours, "", 1));
    let changed = pass(
        &busy,
        &ResponseChanges {
            code: Some(500),
            without: Some(HeaderName::RetryAfter),
            added: b"X-Added: 2\r\n",
            flow_timer: Some(120),
            feedback: Feedback::Untouched,
        },
    );
    assert_eq!(start_line(&changed), "SIP/2.0 500 Server Internal Error");
    assert!(headers(&changed, "Retry-After").is_empty());
    assert_eq!(headers(&changed, "X-Kept"), ["1"]);
    assert_eq!(headers(&changed, "X-Added"), ["2"]);
    assert_eq!(headers(&changed, "Via"), headers(&plain, "Via"));
    assert_eq!(headers(&changed, "Flow-Timer"), [""; 0]);
}

#[test]
fn a_client_with_outbound_is_told_its_flow_timer() {
    let text = |status: &str, method: &str, lines: &str| {
        format!(
            "SIP/2.0 {status}\r\nVia: SIP/2.0/UDP b;branch=z9hG4bK2\r\nVia: SIP/2.0/TCP a;branch=z9hG4bK1\r\n{lines}\
             From: <sip:a@b>;tag=1\r\nTo: <sip:a@b>;tag=2\r\nCall-ID: 1\r\nCSeq: 1 {method}\r\nContent-Length: 0\r\n\r\n"
        )
    };
    let timers = |text: &str, transport| {
        let changes = ResponseChanges {
            flow_timer: Some(120),
            ..ResponseChanges::default()
        };
        let passed = with(text, |message| {
            written(|out| assert!(write_response(message, &changes, transport, out)))
        });
        headers(&passed, "Flow-Timer").join(", ")
    };
    let accepted = text("200 OK", "REGISTER", "Require: outbound\r\n");
    assert_eq!(timers(&accepted, Transport::Tcp), "120");
    assert_eq!(timers(&accepted, Transport::Tls), "120");
    let among = text("200 OK", "REGISTER", "Require: path, Outbound\r\n");
    assert_eq!(timers(&among, Transport::Tcp), "120");
    // The registrar's own value stays.
    let own = text(
        "200 OK",
        "REGISTER",
        "Require: outbound\r\nflow-timer: 25\r\n",
    );
    assert_eq!(timers(&own, Transport::Tcp), "25");
    for transport in [Transport::Udp, Transport::Ws, Transport::Wss] {
        assert_eq!(timers(&accepted, transport), "", "{transport}");
    }
    for other in [
        text("200 OK", "REGISTER", ""),
        text("200 OK", "REGISTER", "Supported: outbound\r\n"),
        text("200 OK", "INVITE", "Require: outbound\r\n"),
        text("401 Unauthorized", "REGISTER", "Require: outbound\r\n"),
        // Another proxy is nearer to the client.
        text(
            "200 OK",
            "REGISTER",
            "Via: SIP/2.0/TCP c;branch=z9hG4bK0\r\nRequire: outbound\r\n",
        ),
    ] {
        assert_eq!(timers(&other, Transport::Tcp), "", "{other}");
    }
}

#[test]
fn a_response_whose_only_via_is_ours_is_not_passed_on() {
    let text = "SIP/2.0 200 OK\r\nVia: SIP/2.0/UDP a;branch=z9hG4bK1\r\nFrom: <sip:a@b>\r\nTo: <sip:a@b>\r\n\
                Call-ID: 1\r\nCSeq: 1 INVITE\r\nContent-Length: 0\r\n\r\n";
    let mut out = Vec::new();
    let is_passed = with(text, |message| {
        write_response(
            message,
            &ResponseChanges::default(),
            Transport::Udp,
            &mut out,
        )
    });
    assert!(!is_passed && out.is_empty());
}

#[test]
fn the_same_request_again_is_a_loop_and_another_uri_is_a_spiral() {
    let edge = edge();
    let first = invite();
    let is_loop_from =
        |text: &str, from: &str| with(text, |message| edge.proxy.is_loop(message, &udp(from)));
    let is_loop = |text: &str| is_loop_from(text, CALLER);
    assert!(!is_loop(&first));
    // Further Vias of others, and one hop less, are no difference.
    let again = sent(&edge, &first, 1)
        .replacen(
            "Via:",
            "Via: SIP/2.0/UDP 192.0.2.80:5080;branch=z9hG4bKother\r\nVia:",
            1,
        )
        .replace("Max-Forwards: 69", "Max-Forwards: 68");
    assert!(is_loop(&again));
    // Policies route by the source: an application server sends the request back for its second part of the way.
    assert!(!is_loop_from(&again, NEXT_HOP));
    let tcp = Arrival {
        transport: Transport::Tcp,
        ..udp(CALLER)
    };
    assert!(!with(&again, |message| edge.proxy.is_loop(message, &tcp)));
    let lines: Vec<_> = headers(&again, "Via");
    assert!(branch(lines[1]).len() > 32);
    for (from, to) in [
        ("sip:grace@example.com SIP", "sip:hopper@example.com SIP"),
        ("CSeq: 7", "CSeq: 8"),
        ("call-1", "call-2"),
        ("Call-ID", "Route: <sip:192.0.2.80;lr>\r\nCall-ID"),
        ("Call-ID", "Proxy-Authorization: Digest x\r\nCall-ID"),
    ] {
        assert!(!is_loop(&again.replacen(from, to, 1)), "{to}");
    }
}
