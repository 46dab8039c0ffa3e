//! What a source gets that has not proved its address, and what proves it.

use std::net::UdpSocket;
use std::time::{Duration, Instant};

use portcullis_testkit::callee::ok_to;
use portcullis_testkit::guests::rejecting;
use portcullis_testkit::host::{Builder, Host};
use portcullis_testkit::messages::{Request, Transport};
use portcullis_testkit::policy;
use portcullis_testkit::sip::{Caller, Message};
use portcullis_testkit::wait;

use super::{CALLEE, CALLER, dropped};

/// What came in and went out for one source.
#[derive(Clone, Copy, Debug, Default)]
struct Count {
    packets: usize,
    bytes: usize,
}

impl Count {
    fn add(&mut self, bytes: usize) {
        self.packets += 1;
        self.bytes += bytes;
    }
}

/// A source that sends, and acknowledges nothing that comes back.
struct Silent {
    socket: UdpSocket,
    sent: Count,
    received: Count,
}

impl Silent {
    fn new(host: &Host, source: u8) -> Self {
        let socket = UdpSocket::bind((host.lease().ip(source), 0)).expect("a source can be bound");
        socket
            .set_nonblocking(true)
            .expect("it can be asked without waiting");
        Self {
            socket,
            sent: Count::default(),
            received: Count::default(),
        }
    }

    fn send(&mut self, host: &Host, bytes: &[u8]) {
        self.socket
            .send_to(bytes, host.sip())
            .expect("it can be sent");
        self.sent.add(bytes.len());
    }

    /// Counts what has come.
    fn drain(&mut self) {
        let mut buffer = [0; 65_536];
        while let Ok(count) = self.socket.recv(&mut buffer) {
            self.received.add(count);
        }
    }

    /// What docs/operations.md promises, whatever the source has sent since `begun`.
    fn assert_bounds(&self, what: &str, begun: Instant) {
        let seconds = begun.elapsed().as_secs() as usize + 1;
        let Self { sent, received, .. } = self;
        let most = sent.bytes + 4_096 + 512 * seconds;
        assert!(received.bytes <= most, "{what}: {sent:?}, {received:?}");
        assert!(
            received.packets <= 400 + 100 * seconds,
            "{what}: {received:?}"
        );
    }

    /// A row of the table in docs/operations.md.
    fn row(&self, what: &str) -> String {
        let Self { sent, received, .. } = self;
        format!(
            "| {what} | {} | {} | {} | {:.1} |\n",
            sent.packets,
            sent.bytes,
            received.bytes,
            received.bytes as f64 / sent.bytes as f64,
        )
    }
}

/// The kinds of messages that are answered in different ways.
const KINDS: [(&str, &str); 9] = [
    ("OPTIONS to the host: 200", "OPTIONS"),
    ("a request without To: 400", "no To"),
    ("a request whose Via cannot be read: 400", "bad Via"),
    ("a STUN Binding request", "STUN"),
    ("MESSAGE, relayed: 404 of the next hop", "MESSAGE"),
    ("INVITE, relayed: 100, 404 of the next hop", "INVITE"),
    (
        "INVITE, answered: 100, 180, 200, and 11 copies of the 200",
        "ring",
    ),
    (
        "CANCEL of an unknown request, relayed: 404 of the next hop",
        "CANCEL",
    ),
    ("no SIP", "garbage"),
];

/// The shortest message of a kind that there is: the shorter a request, the more its answer exceeds it.
fn shortest(host: &Host, kind: &str, id: &str) -> Vec<u8> {
    let user = match kind {
        "ring" => "ring",
        _ => "a",
    };
    let method = match kind {
        "no To" | "bad Via" => "MESSAGE",
        "ring" => "INVITE",
        method => method,
    };
    let uri = match kind {
        "OPTIONS" => format!("sip:{}", host.sip()),
        _ => format!("sip:{user}@b"),
    };
    match kind {
        "STUN" => {
            let mut binding = vec![0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42];
            binding.extend(id.bytes().cycle().take(12));
            return binding;
        }
        "garbage" => return format!("NONSENSE {id}\r\n\r\n").into_bytes(),
        _ => {}
    }
    let via = match kind {
        "bad Via" => "v:SIP/2.0/UDP".to_owned(),
        _ => format!("v:SIP/2.0/UDP h;branch=z9hG4bK{id};rport"),
    };
    let lines = [
        format!("{method} {uri} SIP/2.0"),
        via,
        "f:<sip:a@b>;tag=1".into(),
        format!("t:<sip:{user}@b>"),
        format!("i:{id}"),
        format!("CSeq:1 {method}"),
        "l:0".into(),
    ];
    let lines = lines
        .iter()
        .filter(|line| kind != "no To" || !line.starts_with("t:"));
    let text: String = lines.map(|line| format!("{line}\r\n")).collect();
    format!("{text}\r\n").into_bytes()
}

/// No source is held or banned, whatever it does.
const NO_EVIDENCE: &str = "refusals = 0\nusers = 0\nchallenges = 0\nmalformed = 0\nrate = 0";

/// A host that observes nobody and knows nobody, before a next hop where nobody exists but `ring`, whose 200 comes twelve times.
fn start_for_strangers() -> Host {
    let builder = Builder::new();
    let hop = builder.lease().addr(CALLEE, 5080);
    let socket = UdpSocket::bind(hop).expect("the address of the next hop is free");
    // The thread ends with the process.
    std::thread::spawn(move || answer_all(&socket));
    builder
        .policy(policy("observe"))
        .set("relay", &format!("next-hop = \"sip:{hop}\""))
        .set("guard", &format!("exempt = []\n{NO_EVIDENCE}"))
        .start()
}

fn answer_all(socket: &UdpSocket) {
    let local = socket.local_addr().expect("a bound socket has an address");
    let mut buffer = vec![0; 65_536];
    while let Ok((count, peer)) = socket.recv_from(&mut buffer) {
        let mut text = String::from_utf8_lossy(&buffer[..count]).into_owned();
        for (compact, long) in [("v", "Via"), ("f", "From"), ("t", "To"), ("i", "Call-ID")] {
            text = text.replace(&format!("\r\n{compact}:"), &format!("\r\n{long}:"));
        }
        let request = Message::new(text.into_bytes());
        if request.first_word() == "ACK" {
            continue;
        }
        let ok = String::from_utf8(ok_to(&request, local)).expect("a response is text");
        let is_ringing = request
            .header("To")
            .is_some_and(|to| to.contains("sip:ring@"));
        let statuses: &[(&str, usize)] = match is_ringing {
            true => &[("180 Ringing", 1), ("200 OK", 12)],
            false => &[("404 Not Found", 1)],
        };
        for (status, copies) in statuses {
            let response = ok.replacen("200 OK", status, 1);
            for _ in 0..*copies {
                let _sent = socket.send_to(response.as_bytes(), peer);
            }
        }
    }
}

/// Prints the table in docs/operations.md:
/// `cargo nextest run -p portcullis-tests a_source_that_never_proves_its_address --no-capture`.
#[test]
fn a_source_that_never_proves_its_address_gets_little_more_than_it_sent() {
    const COUNT: usize = 200;
    let host = start_for_strangers();
    let begun = Instant::now();
    let mut sources: Vec<_> = KINDS
        .iter()
        .enumerate()
        .flat_map(|(number, (what, kind))| [1, COUNT].map(|count| (number, *what, *kind, count)))
        .map(|(number, what, kind, count)| {
            let source = 20 + 2 * number as u8 + u8::from(count > 1);
            (what, kind, count, Silent::new(&host, source))
        })
        .collect();
    let mut known = Caller::tcp(host.lease().ip(CALLER), host.sip());
    let options = known.request("OPTIONS", &format!("sip:{}", host.sip()));
    for nth in 0..COUNT {
        if nth % 10 == 0 {
            // The host keeps up.
            assert_eq!(known.ask(&options).code(), 200);
        }
        for (_, kind, count, silent) in &mut sources {
            if nth < *count {
                let message = shortest(
                    &host,
                    kind,
                    &format!("{kind}{count}x{nth}").replace(' ', ""),
                );
                silent.send(&host, &message);
            }
            silent.drain();
        }
    }
    // Timer H ends the transactions of the failed INVITEs after 32 seconds.
    wait::until("nothing more comes", || {
        sources.iter_mut().for_each(|(.., silent)| silent.drain());
        let over = host.metric("portcullis_unconfirmed_failures_total", &[]);
        (over as usize == COUNT + 1).then_some(())
    });
    let mut table = String::new();
    for (what, kind, count, silent) in &mut sources {
        silent.drain();
        silent.assert_bounds(what, begun);
        table += &silent.row(what);
        assert_eq!(silent.received.packets == 0, *kind == "garbage", "{what}");
        if *count == 1 {
            // 100, 180, and what nobody has asked for again: twice at once, and then once in 16 seconds.
            let repeats = 2 + begun.elapsed().as_secs() as usize / 16 + 1;
            assert!(
                silent.received.packets <= 3 + repeats,
                "{what}: {:?}",
                silent.received
            );
        }
    }
    println!("{table}");
    assert!(dropped(&host, "answer_limit") > 0.0);
}

/// Any mix of messages and of copies, short and long ones, from many sources.
#[test]
fn no_mix_of_messages_brings_more_than_has_been_sent() {
    const SOURCES: u8 = 30;
    const MESSAGES: usize = 60;
    let host = start_for_strangers();
    let begun = Instant::now();
    let mut sources: Vec<_> = (0..SOURCES)
        .map(|number| Silent::new(&host, 20 + number))
        .collect();
    // The same sequence in each run.
    let mut state = 7_u64;
    let mut random = |below: usize| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (state >> 33) as usize % below
    };
    for (number, silent) in sources.iter_mut().enumerate() {
        let mut last = Vec::new();
        for nth in 0..MESSAGES {
            let is_copy = !last.is_empty() && random(4) == 0;
            if !is_copy {
                let kind = KINDS[random(KINDS.len())].1;
                last = shortest(&host, kind, &format!("m{number}x{nth}"));
                if kind != "STUN" && random(3) == 0 {
                    let line = format!("X: {}\r\n\r\n", "x".repeat(random(3_000)));
                    last.truncate(last.len() - 2);
                    last.extend(line.bytes());
                }
            }
            silent.send(&host, &last);
            silent.drain();
            silent.assert_bounds("a mix", begun);
        }
    }
    // The host has handled all of it, and what a callee repeats has come.
    let mut other = Caller::tcp(host.lease().ip(CALLER), host.sip());
    let us = format!("sip:{}", host.sip());
    let options = other.request("OPTIONS", &us);
    assert_eq!(other.ask(&options).code(), 200);
    let is_quiet = |silent: &mut Silent| {
        let before = silent.received.packets;
        silent.drain();
        silent.received.packets == before
    };
    wait::until("no source gets anything any more for a moment", || {
        sources.iter_mut().all(is_quiet).then_some(())
    });
    for silent in &sources {
        silent.assert_bounds("a mix", begun);
        assert!(silent.received.packets > 0);
    }
}

/// A host that knows nobody but its next hop, and the next hop. The next hop is at the hand of whoever has called it with a forged address.
fn start_before_an_accomplice(mode: &str) -> (Host, Caller) {
    let builder = Builder::new();
    let hop = builder.lease().addr(CALLEE, 5080);
    let host = builder
        .policy(policy("observe"))
        .set(
            "relay",
            &format!("next-hop = \"sip:{hop}\"\nmode = \"{mode}\""),
        )
        .set("guard", &format!("exempt = []\n{NO_EVIDENCE}"))
        .start();
    let hop = Caller::udp_from(hop, host.sip());
    (host, hop)
}

/// A request of the callee within the dialog of this INVITE, as the callee has seen that.
fn of_callee(invite: &Message, callee: &Caller, number: usize) -> Vec<u8> {
    let header = |name| invite.header(name).expect("an INVITE has it");
    let routes = invite.headers("Record-Route");
    let routes: String = routes
        .iter()
        .map(|route| format!("Route: {route}\r\n"))
        .collect();
    format!(
        "INFO sip:caller@10.0.0.1 SIP/2.0\r\nVia: SIP/2.0/UDP {};rport;branch=z9hG4bKinfo{number}\r\n\
         Max-Forwards: 70\r\n{routes}From: {};tag=callee\r\nTo: {}\r\nCall-ID: {}\r\n\
         CSeq: {} INFO\r\nContent-Length: 0\r\n\r\n",
        callee.local(),
        header("To"),
        header("From"),
        header("Call-ID"),
        number + 1,
    )
    .into_bytes()
}

/// What a callee sends within the dialog goes to the address of its caller, which may be that of a third party. Retransmissions count, too.
#[test]
fn a_callee_cannot_flood_a_caller_that_never_proved_its_address() {
    const COUNT: usize = 100;
    for (mode, kept_back) in [("stateful", 2 * COUNT), ("stateless", COUNT * 3 / 4)] {
        let (host, mut hop) = start_before_an_accomplice(mode);
        let begun = Instant::now();
        let mut silent = Silent::new(&host, CALLER);
        let local = silent.socket.local_addr().expect("it is bound");
        let invite = Request::new("INVITE", "sip:b@c", Transport::Udp, local);
        silent.send(&host, &invite.bytes());
        let seen = hop.receive();
        hop.send(&ok_to(&seen, hop.local()));
        for number in 0..COUNT {
            hop.send(&of_callee(&seen, &hop, number));
        }
        wait::until("most are kept back", || {
            silent.drain();
            (dropped(&host, "answer_limit") >= kept_back as f64).then_some(())
        });
        silent.drain();
        silent.assert_bounds(mode, begun);
        assert!(silent.received.packets > 1, "{:?}", silent.received);
    }
}

#[test]
fn a_caller_that_is_there_gets_the_requests_of_its_callee() {
    for mode in ["stateful", "stateless"] {
        let (host, mut hop) = start_before_an_accomplice(mode);
        let mut caller = host.udp(CALLER);
        let invite = caller.request("INVITE", "sip:b@c");
        caller.send(&invite.bytes());
        let seen = hop.receive();
        hop.send(&ok_to(&seen, hop.local()));
        let answer = caller.receive();
        caller.send(&invite.within(&answer, "ACK", 1).bytes());
        assert_eq!(hop.receive().first_word(), "ACK");
        for number in 0..30 {
            hop.send(&of_callee(&seen, &hop, number));
            let info = caller.receive();
            assert_eq!(info.header("CSeq"), Some(&*format!("{} INFO", number + 1)));
            caller.send(&ok_to(&info, caller.local()));
            assert_eq!(hop.receive().code(), 200);
        }
        assert_eq!(dropped(&host, "answer_limit"), 0.0);
    }
}

/// A source that has proved itself gets each answer, and as many as it asks for.
#[test]
fn an_ack_to_a_refusal_and_a_connection_prove_an_address() {
    let host = Builder::new()
        .set("guard", "exempt = []\nrefusals = 0\nusers = 0")
        .set("sip", "unproved-bytes = \"128B\"")
        .start();
    host.replace_policy(&rejecting(486, "Busy Here"));
    host.run("policy reload");
    let us = format!("sip:{}", host.sip());
    const COUNT: usize = 40;
    let gets_all = |caller: &mut Caller| {
        for _ in 0..COUNT {
            let options = caller.request("OPTIONS", &us);
            assert_eq!(caller.ask(&options).code(), 200);
        }
    };
    // The 200 to an OPTIONS is about 100 bytes longer, and little comes back each second.
    let gets_some = |caller: &mut Caller| {
        for _ in 0..COUNT {
            caller.send(&caller.request("OPTIONS", &us).bytes());
        }
        assert_eq!(caller.receive().code(), 200);
        let more = std::iter::from_fn(|| caller.receive_within(Duration::from_millis(300)));
        assert!(more.count() < COUNT - 1);
    };
    gets_some(&mut host.udp(20));
    let mut acknowledges = host.udp(21);
    let invite = acknowledges.request("INVITE", "sip:b@c");
    let answer = acknowledges.ask(&invite);
    assert_eq!(answer.code(), 486);
    acknowledges.send(&invite.ack_for(&answer).bytes());
    gets_all(&mut acknowledges);
    // A tag that was sent to another address proves nothing.
    let (mut forger, mut spy) = (host.udp(22), host.udp(23));
    let invite = forger.request("INVITE", "sip:b@c");
    let seen = spy.ask(&invite);
    forger.send(&invite.ack_for(&seen).bytes());
    gets_some(&mut forger);
    let mut stream = host.tcp(24);
    let options = stream.request("OPTIONS", &us);
    assert_eq!(stream.ask(&options).code(), 200);
    gets_all(&mut host.udp(24));
}
