//! Upgrades of a running host (SIGUSR2): calls that ring, steady traffic, and new processes that cannot take over.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixDatagram;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use portcullis_testkit::callee::Callee;
use portcullis_testkit::host::{Builder, Host, signal};
use portcullis_testkit::messages::Transport::{Tcp, Udp};
use portcullis_testkit::peer::{Peer, branch_of};
use portcullis_testkit::wait;

use crate::call::Call;
use crate::site::{Site, builder, wait_until_idle};

fn start() -> (Host, Site) {
    let host = patient(Builder::new().workers(4)).start();
    let site = Site::of(&host);
    (host, site)
}

/// The old process of such a host lives as long as its transactions and connections.
fn patient(new: Builder) -> Builder {
    builder(new).set("transactions", "drain = \"120s\"")
}

fn passed(host: &Host) -> f64 {
    host.metric("portcullis_unmatched_messages_total", &["kind=\"passed\""])
}

/// A call through the host as it is now.
fn complete_call(site: &Site) {
    let (call, callee) = Call::start(site);
    let ok = call.is_answered_by(&callee, &call.arrives_at(&callee));
    call.is_completed_with(&callee, &ok);
}

#[test]
fn a_call_that_rings_completes_after_an_upgrade() {
    let (mut host, site) = start();
    let (call, callee) = Call::start(site);
    let seen = call.rings_at(&callee);
    host.upgrade();
    let ok = call.is_answered_by(&callee, &seen);
    assert_eq!(passed(&host), 1.0);
    call.is_completed_with(&callee, &ok);
    complete_call(&site);
    wait_until_idle(&host);
}

/// The transaction sends the ACK to the failure itself, and absorbs that of the caller.
#[test]
fn a_call_that_rings_can_be_cancelled_after_an_upgrade() {
    let (mut host, site) = start();
    let (call, callee) = Call::start(site);
    let seen = call.rings_at(&callee);
    host.upgrade();
    call.cancels();
    let cancel = call.is_cancelled_at(&callee, &seen, 487);
    assert_eq!(branch_of(&cancel.message), branch_of(&seen.message));
    call.fails_with(487);
    // The CANCEL, its 200, the 487, and the ACK.
    wait::until("the old process has all of them", || {
        (passed(&host) == 4.0).then_some(())
    });
    assert_eq!(call.settled_summary(&callee).acks, 1);
    wait_until_idle(&host);
}

#[test]
fn a_copy_of_a_request_is_absorbed_after_an_upgrade() {
    let (mut host, site) = start();
    let (call, callee) = Call::start(site);
    let seen = call.rings_at(&callee);
    host.upgrade();
    call.repeat();
    // The 180 once more.
    call.caller.nth_response(1, "INVITE", 180);
    assert_eq!(callee.times_of("INVITE").len(), 1);
    call.is_answered_by(&callee, &seen);
}

#[test]
fn timers_of_the_old_process_go_on() {
    let (mut host, site) = start();
    let (caller, callee, _message) = site.start("MESSAGE");
    callee.first_request("MESSAGE");
    host.upgrade();
    let before = callee.times_of("MESSAGE").len();
    let copy = callee.nth_request(before, "MESSAGE");
    callee.answer(&copy, 200);
    caller.first_response("MESSAGE", 200);
}

/// The process in between has no transaction of its own.
#[test]
fn a_transaction_goes_on_after_two_upgrades() {
    let (mut host, site) = start();
    let (caller, callee, _message) = site.start("MESSAGE");
    callee.first_request("MESSAGE");
    host.upgrade();
    host.upgrade();
    answer_later(&caller, &callee);
}

/// The first process is the parent of the second one only. The third one reaches the first without the second.
#[test]
fn a_transaction_goes_on_when_the_process_in_between_crashes() {
    let (mut host, site) = start();
    let (caller, callee, _message) = site.start("MESSAGE");
    callee.first_request("MESSAGE");
    host.upgrade();
    let between = host.pid();
    let (_caller, ringing, _invite) = site.start("INVITE");
    ringing.first_request("INVITE");
    host.upgrade();
    signal(between, "KILL");
    host.wait_for_log("WARN the process that had taken over ended after");
    answer_later(&caller, &callee);
    assert_eq!(passed(&host), 1.0, "the first process has the response");
    assert!(host.is_alive());
    host.signal("KILL");
    assert_eq!(host.wait_until_ended().code(), Some(1));
    host.wait_for_log("ERROR the process that had taken over ended");
}

#[test]
fn a_transaction_goes_on_while_the_new_process_drains() {
    let mut host = patient(Builder::new().workers(4))
        .set("transactions", "drain-notice = \"0s\"")
        .start();
    let site = Site::of(&host);
    let (caller, callee, _message) = site.start("MESSAGE");
    callee.first_request("MESSAGE");
    host.upgrade();
    host.signal("TERM");
    host.wait_for_log("event=\"refusing\"");
    answer_later(&caller, &callee);
}

/// Answers when the host has sent two more copies of the request: then a process with nothing left would have ended.
fn answer_later(caller: &Peer, callee: &Peer) {
    let before = callee.times_of("MESSAGE").len();
    let copy = callee.nth_request(before + 1, "MESSAGE");
    callee.answer(&copy, 200);
    caller.first_response("MESSAGE", 200);
}

#[test]
fn a_connection_of_the_old_process_goes_on() {
    let (mut host, site) = start();
    for (up, down) in [(Tcp, Udp), (Tcp, Tcp), (Udp, Tcp)] {
        let site = site.over(up, down);
        let (caller, callee, invite) = site.start("INVITE");
        let seen = callee.first_request("INVITE");
        callee.answer(&seen, 180);
        caller.first_response("INVITE", 180);
        host.upgrade();
        callee.answer(&seen, 200);
        let ok = caller.first_response("INVITE", 200);
        site.ack(&caller, &invite, &ok);
        callee.first_request("ACK");
        site.hang_up(&caller, &callee, &invite, &ok);
    }
}

/// The peer of an unused connection connects to the new process early. A connection with a call in progress stays open.
#[test]
fn a_connection_is_closed_as_soon_as_nothing_is_in_progress() {
    let (mut host, site) = start();
    let site = site.over(Tcp, Tcp);
    let (idle, answering, _message) = site.start("MESSAGE");
    answering.answer(&answering.first_request("MESSAGE"), 200);
    idle.first_response("MESSAGE", 200);
    let (caller, callee, invite) = site.start("INVITE");
    let seen = callee.first_request("INVITE");
    callee.answer(&seen, 180);
    caller.first_response("INVITE", 180);
    host.upgrade();
    let is_closed = |peer: &Peer| {
        wait::until("the host closes the connection", || {
            (peer.connections() == 0).then_some(())
        });
    };
    is_closed(&idle);
    is_closed(&answering);
    let accepted = || host.metric("portcullis_connections_total", &["accepted"]);
    assert_eq!(accepted(), 0.0);
    let again = idle.request("MESSAGE", &answering.uri());
    site.send(&idle, &again);
    answering.answer(&answering.nth_request(1, "MESSAGE"), 200);
    idle.nth_response(1, "MESSAGE", 200);
    assert_eq!(accepted(), 1.0, "the new process serves it");

    // The old process serves new requests on its connections.
    assert_eq!((caller.connections(), callee.connections()), (1, 1));
    site.settle(&caller, &callee);
    assert_eq!(accepted(), 1.0);
    callee.answer(&seen, 200);
    let ok = caller.first_response("INVITE", 200);
    site.ack(&caller, &invite, &ok);
    callee.first_request("ACK");
    is_closed(&caller);
    is_closed(&callee);
    site.hang_up(&caller, &callee, &invite, &ok);
    assert_eq!(accepted(), 2.0);
    assert_eq!(host.complaints(), Vec::<String>::new());
}

#[test]
fn the_old_process_ends_when_nothing_is_left() {
    let mut host = builder(Builder::new().workers(2))
        .set("control", "binrpc = [\"unix:control.sock\"]")
        .set("control", "fifo = \"control.fifo\"")
        .set("control", "fifo-reply-dir = \".\"")
        .set("transactions", "drain = \"3s\"")
        .start();
    let site = Site::of(&host);
    complete_call(&site);
    host.upgrade();
    assert!(host.wait_until_ended().success());
    host.wait_for_log("event=\"predecessor_ended\"");
    for file in ["control.sock", "control.fifo"] {
        assert!(host.folder().join(file).exists(), "{file} is in use");
    }
    complete_call(&site);
    host.upgrade();
    complete_call(&site);
    assert_eq!(host.get("/readyz").unwrap().0, 200);
    assert_eq!(host.complaints(), Vec::<String>::new());
}

/// Otherwise nobody would read the sockets until the old process has nothing left.
#[test]
fn the_old_process_ends_with_the_new_one() {
    let (mut host, site) = start();
    let (_caller, callee, _invite) = site.start("INVITE");
    callee.answer(&callee.first_request("INVITE"), 180);
    host.upgrade();
    host.signal("KILL");
    assert_eq!(host.wait_until_ended().code(), Some(1));
    host.wait_for_log("event=\"successor_ended\" end=\"signal 9\"");

    let (mut host, site) = start();
    let (_caller, callee, _invite) = site.start("INVITE");
    callee.answer(&callee.first_request("INVITE"), 180);
    host.upgrade();
    host.signal("INT");
    assert!(host.wait_until_ended().success());
    host.wait_for_log("event=\"successor_ended\" end=\"exit code 0\"");
}

/// The status line of the answer to a request over a new connection.
fn health(control: SocketAddr) -> String {
    let mut stream = TcpStream::connect(control).expect("the control port accepts");
    let request = format!("GET /healthz HTTP/1.1\r\nHost: {control}\r\nConnection: close\r\n\r\n");
    stream
        .write_all(request.as_bytes())
        .expect("the control port reads");
    let mut answer = String::new();
    stream
        .read_to_string(&mut answer)
        .expect("the control port answers");
    answer.lines().next().unwrap_or_default().to_owned()
}

/// Callers that ask again and again, without a retransmission: nothing may be lost.
#[test]
fn steady_traffic_does_not_notice_upgrades() {
    const CALLERS: u8 = 6;
    let mut host = patient(Builder::new().workers(2)).start();
    let callee = Callee::start(host.lease().addr(3, 5090));
    let uri = format!("sip:bob@{}", callee.addr());
    let (stop, answered) = (AtomicBool::new(false), AtomicU64::new(0));
    thread::scope(|scope| {
        let mut callers = Vec::new();
        for number in 0..CALLERS {
            let caller = match number {
                0 => host.tcp(10),
                _ => host.udp(10 + number),
            };
            let (uri, stop, answered) = (&uri, &stop, &answered);
            callers.push(scope.spawn(move || {
                let mut caller = caller;
                while !stop.load(Ordering::Relaxed) {
                    let request = caller.request("MESSAGE", uri);
                    caller.send(&request.bytes());
                    let answer = caller.receive();
                    assert_eq!(answer.code(), 200);
                    assert_eq!(answer.header("Call-ID"), Some(&*request.call_id));
                    answered.fetch_add(1, Ordering::Relaxed);
                }
            }));
        }
        let more = |count: u64| {
            let goal = answered.load(Ordering::Relaxed) + count;
            wait::until("the callers go on", || {
                (answered.load(Ordering::Relaxed) >= goal).then_some(())
            });
        };
        let control = host.lease().addr(1, 8060);
        let checker = scope.spawn({
            let stop = &stop;
            move || {
                while !stop.load(Ordering::Relaxed) {
                    assert_eq!(health(control), "HTTP/1.1 200 OK");
                }
            }
        });
        more(200);
        for _ in 0..3 {
            host.upgrade();
            more(200);
        }
        stop.store(true, Ordering::Relaxed);
        for caller in callers {
            caller.join().expect("every request is answered");
        }
        checker.join().expect("the control port answers");
    });
    let mut asked = 0;
    while !callee.saw_nothing_more() {
        asked += 1;
    }
    assert_eq!(asked, answered.into_inner(), "requests at the callee");
    assert_eq!(host.complaints(), Vec::<String>::new());
    assert_eq!(host.metric("portcullis_dropped_total", &[]), 0.0);
}

#[test]
fn a_process_that_cannot_take_over_leaves_the_host_as_it_was() {
    let mut host = patient(Builder::new().workers(2)).own_binary().start();
    let site = Site::of(&host);
    let config = std::fs::read_to_string(host.folder().join("portcullis.toml")).unwrap();
    let (caller, callee, _invite) = site.start("INVITE");
    let seen = callee.first_request("INVITE");
    callee.answer(&seen, 180);
    caller.first_response("INVITE", 180);
    let mut failures = 0;
    let mut fails = |host: &Host, reason: &str| {
        host.signal("USR2");
        failures += 1;
        let failed = wait::until("the upgrade fails", || {
            let log = host.log();
            let lines = log
                .lines()
                .filter(|l| l.contains("event=\"upgrade_failed\""));
            lines.map(str::to_owned).nth(failures - 1)
        });
        assert!(failed.contains(reason), "{failed}");
        complete_call(&site);
    };

    host.write("portcullis.toml", "workers = many");
    fails(&host, "the new process ended (exit status: 1)");
    host.write(
        "portcullis.toml",
        config.replace("workers = 2", "workers = 3"),
    );
    fails(&host, "`workers` is 3, and was 2");
    let elsewhere = config.replace("listen = [", "listen = [\"udp:192.0.2.1:5060\", ");
    host.write("portcullis.toml", elsewhere);
    fails(&host, "cannot listen on udp:192.0.2.1:5060");
    host.write("portcullis.toml", &config);
    let binary = host.folder().join("portcullis");
    let real = std::fs::read_link(&binary).unwrap();
    std::fs::remove_file(&binary).unwrap();
    host.write("portcullis", "not a program");
    fails(&host, "cannot start");
    std::fs::remove_file(&binary).unwrap();
    std::os::unix::fs::symlink("/bin/true", &binary).unwrap();
    fails(&host, "the new process ended");

    std::fs::remove_file(&binary).unwrap();
    std::os::unix::fs::symlink(real, &binary).unwrap();
    callee.answer(&seen, 200);
    caller.first_response("INVITE", 200);
    assert!(host.is_alive());
}

/// Otherwise the new process would be left behind.
#[test]
fn a_host_that_is_to_end_at_once_ends_its_upgrade() {
    let mut host = patient(Builder::new()).own_binary().start();
    let binary = host.folder().join("portcullis");
    std::fs::remove_file(&binary).unwrap();
    // It says nothing, and does not notice that it should end.
    host.write("portcullis", "#!/bin/sh\necho $$ > new\nexec sleep 60\n");
    let executable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(&binary, executable).unwrap();
    host.signal("USR2");
    let new = wait::until("the new process runs", || {
        let pid = std::fs::read_to_string(host.folder().join("new")).ok()?;
        pid.trim().parse::<u32>().ok()
    });
    host.signal("INT");
    assert!(host.wait_until_ended().success());
    let is_there = std::fs::exists(format!("/proc/{new}")).expect("there are processes");
    assert!(!is_there, "process {new} is left");
}

#[test]
fn a_host_that_starts_refuses_to_upgrade() {
    let builder = Builder::new();
    let silent = TcpListener::bind(builder.lease().addr(3, 3306)).unwrap();
    let url = format!("mysql://user:password@{}/db", silent.local_addr().unwrap());
    let host = builder.database(&url).launch();
    silent.set_nonblocking(true).unwrap();
    let _waits = wait::until("the host asks its database", || silent.accept().ok());
    host.signal("USR2");
    host.wait_for_log("event=\"upgrade_refused\" reason=\"the host is starting\"");
}

/// The old process had no watchdog, because `WATCHDOG_PID` named another one.
#[test]
fn the_service_manager_follows_the_new_process() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let path = folder.path().join("notify");
    let manager = UnixDatagram::bind(&path).expect("a socket can be bound");
    let patience = Some(wait::PATIENCE);
    manager.set_read_timeout(patience).expect("it has a limit");
    let told = || {
        let mut buffer = [0; 64];
        let length = manager.recv(&mut buffer).expect("the host reports");
        String::from_utf8_lossy(&buffer[..length]).into_owned()
    };
    let mut host = builder(Builder::new())
        .env("NOTIFY_SOCKET", &path.display().to_string())
        .env("WATCHDOG_USEC", "2000000")
        .env("WATCHDOG_PID", "1")
        .start();
    assert_eq!(told(), "READY=1");
    host.upgrade();
    assert_eq!(told(), format!("MAINPID={}", host.pid()));
    assert_eq!([told(), told()], ["READY=1", "WATCHDOG=1"]);
    assert!(host.wait_until_ended().success());
    manager.set_nonblocking(true).expect("it has a mode");
    let mut buffer = [0; 64];
    while let Ok(length) = manager.recv(&mut buffer) {
        assert_eq!(
            &buffer[..length],
            b"WATCHDOG=1",
            "the old process says nothing"
        );
    }
    manager.set_nonblocking(false).expect("it has a mode");
    host.signal("TERM");
    wait::until("the new process says that it ends", || {
        (told() == "STOPPING=1").then_some(())
    });
}

/// Otherwise the service manager would take the end of the old process for that of the host.
#[test]
fn a_host_whose_service_manager_does_not_learn_of_the_upgrade_ends_with_an_error() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let path = folder.path().join("notify");
    let manager = UnixDatagram::bind(&path).expect("a socket can be bound");
    let mut host = builder(Builder::new())
        .env("NOTIFY_SOCKET", &path.display().to_string())
        .start();
    let other = UnixDatagram::unbound().expect("a socket can be made");
    other.set_nonblocking(true).expect("it has a mode");
    while other.send_to(b"X=1", &path).is_ok() {}
    host.upgrade();
    host.wait_for_log("event=\"notify_failed\"");
    assert_eq!(host.wait_until_ended().code(), Some(1));
    host.wait_for_log("the service manager did not learn that process");
    drop(manager);
}
