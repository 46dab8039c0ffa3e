//! The books are exact: whatever a server does to requests, the report says how often it did it.

// Clippy knows that tests may unwrap, but not that the helpers of a test file are part of its tests.
#![allow(clippy::unwrap_used)]

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use portcullis_load::{End, Mode, Plan, Report, Sink, run};

/// A server made for a test: `answer` is called with the number of the datagram and the datagram, and gives what goes back.
struct Server {
    address: SocketAddr,
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<u64>>,
}

impl Server {
    fn start(mut answer: impl FnMut(u64, &str) -> Vec<String> + Send + 'static) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket
            .set_read_timeout(Some(Duration::from_millis(5)))
            .unwrap();
        let address = socket.local_addr().unwrap();
        let over = Arc::new(AtomicBool::new(false));
        let stop = Arc::clone(&over);
        let thread = thread::spawn(move || {
            let mut buffer = [0; 4096];
            let mut count = 0;
            while !stop.load(Ordering::Relaxed) {
                let Ok((length, from)) = socket.recv_from(&mut buffer) else {
                    continue;
                };
                let text = std::str::from_utf8(&buffer[..length]).unwrap();
                for datagram in answer(count, text) {
                    socket.send_to(datagram.as_bytes(), from).unwrap();
                }
                count += 1;
            }
            count
        });
        Self {
            address,
            over,
            thread: Some(thread),
        }
    }

    /// Stops it and gives the number of datagrams that it saw.
    fn stop(mut self) -> u64 {
        self.over.store(true, Ordering::Relaxed);
        self.thread.take().unwrap().join().unwrap()
    }
}

fn response(code: u16, request: &str) -> String {
    let line = |name: &str| request.lines().find(|line| line.starts_with(name)).unwrap();
    let (via, call_id) = (line("Via: "), line("Call-ID: "));
    format!("SIP/2.0 {code} Reason\r\n{via}\r\n{call_id}\r\nContent-Length: 0\r\n\r\n")
}

fn plan(target: SocketAddr, requests: u64) -> Plan {
    let mut plan = Plan::new(target, Mode::Reject, "127.1.0.1".parse().unwrap());
    plan.sources = 3;
    plan.outstanding = 4;
    plan.end = End::Requests(requests);
    // Longer than a test machine sleeps; the tests in which requests get lost choose a shorter one.
    plan.patience = Duration::from_secs(20);
    plan
}

fn balanced(report: Report) -> Report {
    assert_eq!(report.sent, report.answered + report.lost, "{report:?}");
    report
}

#[test]
fn a_faultless_server_gets_a_faultless_report() {
    let server = Server::start(|_, request| vec![response(401, request)]);
    let report = balanced(run(&plan(server.address, 1000)).unwrap());
    assert_eq!(report.fault(), None);
    assert_eq!(report.sent, 1000);
    assert_eq!(report.codes.get(&401), Some(&1000));
    assert_eq!(server.stop(), 1000);
}

#[test]
fn a_lost_datagram_is_sent_again_and_stalls_nothing() {
    let server = Server::start(|count, request| {
        let lost = count % 100 == 0;
        (!lost)
            .then(|| response(401, request))
            .into_iter()
            .collect()
    });
    let mut plan = plan(server.address, 500);
    plan.patience = Duration::from_millis(50);
    let report = balanced(run(&plan).unwrap());
    assert_eq!(report.answered, 500);
    assert!(report.resent >= 5, "{report:?}");
    assert_eq!(server.stop(), 500 + report.resent);
}

#[test]
fn a_second_answer_is_counted_as_such() {
    let server = Server::start(|count, request| {
        let times = if count % 10 == 0 { 2 } else { 1 };
        vec![response(401, request); times]
    });
    let report = balanced(run(&plan(server.address, 300)).unwrap());
    assert_eq!(report.answered, 300);
    // The very last second answer may come after the run has ended.
    assert!((29..=30).contains(&report.repeated), "{report:?}");
}

#[test]
fn wrong_codes_and_foreign_datagrams_are_counted() {
    let server = Server::start(|count, request| {
        if count % 4 == 0 {
            let foreign = response(401, request).replace("z9hG4bK-load-", "z9hG4bK-mine-");
            vec![foreign, response(503, request)]
        } else {
            vec![response(401, request)]
        }
    });
    let report = balanced(run(&plan(server.address, 400)).unwrap());
    assert_eq!(report.unexpected, 100);
    assert_eq!(report.foreign, 100);
    assert_eq!(report.codes[&503], 100);
    let fault = report.fault().unwrap();
    assert!(fault.contains("100 answered otherwise"), "{fault}");
}

#[test]
fn at_a_fixed_rate_nothing_is_sent_twice_and_what_is_lost_is_lost() {
    let server = Server::start(|count, request| {
        let lost = count % 50 == 0;
        (!lost)
            .then(|| response(401, request))
            .into_iter()
            .collect()
    });
    let mut plan = plan(server.address, 200);
    plan.rate = Some(2000);
    plan.patience = Duration::from_secs(1);
    let report = balanced(run(&plan).unwrap());
    assert_eq!(
        (report.sent, report.lost, report.resent),
        (200, 4, 0),
        "{report:?}"
    );
    assert_eq!(server.stop(), 200);
}

#[test]
fn crowds_beside_the_first_send_as_much_and_are_not_in_its_books() {
    let server = Server::start(|_, request| {
        let is_first = request.contains("sip:alice@127.1.0.");
        vec![response(if is_first { 401 } else { 503 }, request)]
    });
    let mut plan = plan(server.address, 400);
    plan.rate = Some(2000);
    plan.beside = ["127.1.7.1", "127.1.8.1"]
        .map(|ip| ip.parse().unwrap())
        .into();
    let report = balanced(run(&plan).unwrap());
    assert_eq!(report.fault(), None);
    assert_eq!(report.sent, 400);
    assert_eq!(report.beside.len(), 2);
    for beside in &report.beside {
        assert!((360..=440).contains(&beside.sent), "{report:?}");
    }
    let sent: u64 = report.beside.iter().map(|beside| beside.sent).sum();
    assert_eq!(server.stop(), 400 + sent);
}

#[test]
fn an_echo_is_told_from_anything_else() {
    let server = Server::start(|count, request| {
        let altered = count % 10 == 0;
        let back = if altered {
            request.replace("alice", "alicf")
        } else {
            request.to_owned()
        };
        vec![back]
    });
    let mut plan = plan(server.address, 100);
    plan.mode = Mode::Echo;
    plan.rate = Some(5000);
    plan.patience = Duration::from_secs(1);
    let report = balanced(run(&plan).unwrap());
    assert_eq!(
        (report.answered, report.foreign, report.lost),
        (90, 10, 10),
        "{report:?}"
    );
}

/// A server that passes everything on to one callee and its answers back, as far as one caller is concerned.
fn relay_through(callee: SocketAddr) -> Server {
    let towards = UdpSocket::bind("127.0.0.1:0").unwrap();
    Server::start(move |_, request| {
        towards.send_to(request.as_bytes(), callee).unwrap();
        let mut buffer = [0; 4096];
        let length = towards.recv(&mut buffer).unwrap();
        vec![String::from_utf8(buffer[..length].to_vec()).unwrap()]
    })
}

#[test]
fn a_relayed_request_is_answered_by_the_callee() {
    // The port is free again when this one has been dropped; nobody else uses the address.
    let callee = UdpSocket::bind("127.77.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let server = relay_through(callee);
    let mut plan = plan(server.address, 100);
    plan.mode = Mode::Relay;
    plan.sink = Some(callee);
    let report = balanced(run(&plan).unwrap());
    assert_eq!(report.fault(), None);
    assert_eq!(report.relayed, Some(100));
}

#[test]
fn a_callee_of_its_own_counts_what_it_sees() {
    let mut sink = Sink::bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let mut plan = plan(sink.address().unwrap(), 50);
    plan.mode = Mode::Options;
    let load = thread::spawn(move || run(&plan).unwrap());
    while !load.is_finished() {
        sink.turn().unwrap();
    }
    assert_eq!(load.join().unwrap().fault(), None);
    assert_eq!(sink.requests(), 50);
}

#[test]
fn the_watched_process_is_measured() {
    let server = Server::start(|_, request| vec![response(401, request)]);
    let mut plan = plan(server.address, 2000);
    plan.watch = vec![std::process::id()];
    let report = run(&plan).unwrap();
    let usage = report.window.server.unwrap();
    assert!(usage.cpu_us > 0.0 && usage.memory_bytes > 0, "{usage:?}");
    assert_eq!(report.answered, 2000);
}
