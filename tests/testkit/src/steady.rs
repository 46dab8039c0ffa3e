//! Steady traffic between addresses of any network: requests at a rate, sent again as by a user agent until they are answered, and a callee.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use socket2::SockRef;

use crate::callee::ok_to;
use crate::messages::Message;

/// The time until a request is sent again for the first time (RFC 3261 §17.1.2.2), which doubles.
pub const T1: Duration = Duration::from_millis(500);

/// The longest time between two copies.
const T2: Duration = Duration::from_secs(4);

/// The time after which a request without an answer is lost.
const TIMER_F: Duration = Duration::from_secs(32);

/// Sockets of the caller: each is a flow of its own for the host.
const SOCKETS: usize = 8;

/// Room for the answers to some seconds of requests, if the system grants it.
const BUFFER: usize = 8 << 20;

/// Pause when there is nothing to do.
const REST: Duration = Duration::from_micros(300);

/// Running traffic.
#[derive(Debug)]
pub struct Steady {
    counts: Arc<Counts>,
    stop: Arc<AtomicBool>,
    end: Arc<AtomicBool>,
    caller: JoinHandle<()>,
    callee: JoinHandle<()>,
}

/// What has become of the requests so far.
#[derive(Debug, Default)]
struct Counts {
    sent: AtomicU64,
    answered: AtomicU64,
    again: AtomicU64,
    lost: AtomicU64,
    refused: AtomicU64,
}

/// The same at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sums {
    /// Requests.
    pub sent: u64,
    /// Those that were answered 200.
    pub answered: u64,
    /// Those whose first transmission had no answer within [`T1`]: it, or the answer, was lost or late.
    pub again: u64,
    /// Those that had no answer at all, within 32 s.
    pub lost: u64,
    /// Those that were answered otherwise.
    pub refused: u64,
}

impl Steady {
    /// Starts to send MESSAGEs to the host, this many each second, for a callee at the same address.
    ///
    /// # Panics
    /// If this machine has no such address.
    pub fn start(host: SocketAddr, ip: IpAddr, rate: u64) -> Self {
        let bind = || {
            let socket = UdpSocket::bind((ip, 0)).expect("the address is there");
            let _best_effort = SockRef::from(&socket).set_recv_buffer_size(BUFFER);
            socket
        };
        let callee = bind();
        let uri = callee.local_addr().expect("a bound socket has an address");
        let counts = Arc::new(Counts::default());
        let [stop, end] = [0, 1].map(|_| Arc::new(AtomicBool::new(false)));
        let sockets: Vec<UdpSocket> = (0..SOCKETS).map(|_| bind()).collect();
        for socket in &sockets {
            let set = socket.set_nonblocking(true);
            set.expect("a socket can be made non-blocking");
        }
        let caller = Caller {
            sockets,
            host,
            callee: uri,
            rate,
            pending: HashMap::new(),
            due: BinaryHeap::new(),
            counts: Arc::clone(&counts),
        };
        let (stopping, ending) = (Arc::clone(&stop), Arc::clone(&end));
        Self {
            counts,
            stop,
            end,
            caller: std::thread::spawn(move || caller.run(&stopping)),
            callee: std::thread::spawn(move || answer(&callee, &ending)),
        }
    }

    /// What has become of the requests so far.
    pub fn sums(&self) -> Sums {
        self.counts.sums()
    }

    /// Sends no more requests, and returns when each is answered or lost.
    ///
    /// # Panics
    /// If a thread has failed.
    pub fn stop(self) -> Sums {
        self.stop.store(true, Ordering::Relaxed);
        self.caller.join().expect("the caller goes on");
        self.end.store(true, Ordering::Relaxed);
        self.callee.join().expect("the callee goes on");
        self.counts.sums()
    }
}

impl Counts {
    fn sums(&self) -> Sums {
        let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Sums {
            sent: of(&self.sent),
            answered: of(&self.answered),
            again: of(&self.again),
            lost: of(&self.lost),
            refused: of(&self.refused),
        }
    }
}

/// A request without an answer.
struct Pending {
    begun: Instant,
    /// Time until the next copy.
    interval: Duration,
}

struct Caller {
    sockets: Vec<UdpSocket>,
    host: SocketAddr,
    callee: SocketAddr,
    rate: u64,
    pending: HashMap<u64, Pending>,
    /// When a request is sent again.
    due: BinaryHeap<Reverse<(Instant, u64)>>,
    counts: Arc<Counts>,
}

impl Caller {
    fn run(mut self, stop: &AtomicBool) {
        let begun = Instant::now();
        let mut sent = 0;
        let mut buffer = vec![0; 65_536];
        loop {
            let is_stopped = stop.load(Ordering::Relaxed);
            if is_stopped && self.pending.is_empty() {
                return;
            }
            let now = Instant::now();
            let allowed = match is_stopped {
                true => sent,
                false => {
                    let elapsed = now.saturating_duration_since(begun);
                    (elapsed.as_secs_f64() * self.rate as f64) as u64
                }
            };
            // What a busy machine has kept back is not sent at once.
            sent = sent.max(allowed.saturating_sub(self.rate / 10));
            let mut is_idle = true;
            while sent < allowed {
                self.begin(sent, now);
                sent += 1;
                is_idle = false;
            }
            is_idle &= !self.receive(&mut buffer);
            self.send_again(now);
            if is_idle {
                std::thread::sleep(REST);
            }
        }
    }

    fn begin(&mut self, number: u64, now: Instant) {
        self.send(number);
        self.counts.sent.fetch_add(1, Ordering::Relaxed);
        self.due.push(Reverse((now + T1, number)));
        let pending = Pending {
            begun: now,
            interval: T1,
        };
        self.pending.insert(number, pending);
    }

    fn send_again(&mut self, now: Instant) {
        while let Some(Reverse((at, number))) = self.due.peek().copied()
            && at <= now
        {
            self.due.pop();
            let Some(pending) = self.pending.get_mut(&number) else {
                continue;
            };
            if now.saturating_duration_since(pending.begun) >= TIMER_F {
                self.pending.remove(&number);
                self.counts.lost.fetch_add(1, Ordering::Relaxed);
                continue;
            }
            if pending.interval == T1 {
                self.counts.again.fetch_add(1, Ordering::Relaxed);
            }
            pending.interval = (pending.interval * 2).min(T2);
            self.due.push(Reverse((now + pending.interval, number)));
            self.send(number);
        }
    }

    /// What cannot be sent is as good as lost on the way.
    fn send(&self, number: u64) {
        let (socket, host, callee) = (self.socket(number), self.host, self.callee);
        let Ok(local) = socket.local_addr() else {
            return;
        };
        let request = format!(
            "MESSAGE sip:bob@{callee} SIP/2.0\r\n\
             Via: SIP/2.0/UDP {local};branch=z9hG4bK-steady-{number};rport\r\n\
             Max-Forwards: 70\r\n\
             From: <sip:ada@{local}>;tag=steady{number}\r\n\
             To: <sip:bob@{callee}>\r\n\
             Call-ID: {number}@steady\r\n\
             CSeq: 1 MESSAGE\r\n\
             Content-Length: 0\r\n\r\n"
        );
        let _lost = socket.send_to(request.as_bytes(), host);
    }

    fn socket(&self, number: u64) -> &UdpSocket {
        &self.sockets[number as usize % SOCKETS]
    }

    /// Takes all answers that have come. Returns whether there were any.
    fn receive(&mut self, buffer: &mut [u8]) -> bool {
        let mut is_any = false;
        for nth in 0..SOCKETS {
            // An error is that of an earlier datagram, or says that none waits.
            while let Ok(length) = self.sockets[nth].recv(buffer) {
                is_any = true;
                self.answered(&buffer[..length]);
            }
        }
        is_any
    }

    fn answered(&mut self, answer: &[u8]) {
        let Some((code, number)) = read(answer) else {
            return;
        };
        if code < 200 || self.pending.remove(&number).is_none() {
            return;
        }
        let count = match code {
            200 => &self.counts.answered,
            _ => &self.counts.refused,
        };
        count.fetch_add(1, Ordering::Relaxed);
    }
}

/// The code of an answer, and the number of its request.
fn read(answer: &[u8]) -> Option<(u16, u64)> {
    let text = std::str::from_utf8(answer).ok()?;
    let code = text.strip_prefix("SIP/2.0 ")?.get(..3)?.parse().ok()?;
    let (_, rest) = text.split_once("\r\nCall-ID: ")?;
    let number = rest.split_once("@steady")?.0.parse().ok()?;
    Some((code, number))
}

/// Answers each request until the end.
fn answer(socket: &UdpSocket, end: &AtomicBool) {
    let local = socket.local_addr().expect("a bound socket has an address");
    let wait = socket.set_read_timeout(Some(Duration::from_millis(100)));
    wait.expect("a timeout can be set");
    let mut buffer = vec![0; 65_536];
    while !end.load(Ordering::Relaxed) {
        // Otherwise none has come in time, or an earlier answer had no receiver.
        if let Ok((length, from)) = socket.recv_from(&mut buffer) {
            let request = Message::new(buffer[..length].to_vec());
            if request.code() == 0 {
                let _lost = socket.send_to(&ok_to(&request, local), from);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_names_its_request() {
        let answer = b"SIP/2.0 503 Busy\r\nCall-ID: 17@steady\r\n\r\n";
        assert_eq!(read(answer), Some((503, 17)));
        assert_eq!(read(b"MESSAGE sip:a SIP/2.0\r\n\r\n"), None);
    }

    /// The first copy of each request is lost.
    #[test]
    fn requests_are_sent_again_until_they_are_answered() {
        let ip = IpAddr::from([127, 0, 0, 1]);
        let proxy = UdpSocket::bind((ip, 0)).expect("a free port");
        let host = proxy.local_addr().expect("an address");
        std::thread::spawn(move || {
            let mut copies: HashMap<Vec<u8>, u32> = HashMap::new();
            let mut buffer = vec![0; 65_536];
            while let Ok((length, from)) = proxy.recv_from(&mut buffer) {
                let request = Message::new(buffer[..length].to_vec());
                let copy = copies.entry(request.bytes.clone()).or_default();
                *copy += 1;
                if *copy == 2 {
                    let _sent = proxy.send_to(&ok_to(&request, host), from);
                }
            }
        });
        let steady = Steady::start(host, ip, 200);
        crate::wait::until("some are answered", || {
            (steady.sums().answered >= 20).then_some(())
        });
        let sums = steady.stop();
        assert_eq!((sums.lost, sums.refused), (0, 0));
        assert_eq!((sums.answered, sums.again), (sums.sent, sums.sent));
    }
}
