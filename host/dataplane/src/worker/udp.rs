//! UDP: datagrams are received and sent in batches.

use std::cell::RefCell;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use portcullis_metrics::{IcmpError, Lost};
use portcullis_request::Request;
use portcullis_sip::{Arrival, Destination, Framing, Transport, answer_binding, is_stun};
use portcullis_udp::{Errors, Polled};
use tokio::task::yield_now;
use tokio::time::sleep;
use tracing::{debug, warn};

use super::Worker;
use super::udp_sockets::BATCH;
use crate::pipeline::{Handled, Loss};
use crate::transport::Outgoing;

/// Maximum time for which a response waits for the rest of its batch. It is not reached while policies take microseconds; a slower policy
/// must not delay the responses of others.
const WAIT: Duration = Duration::from_micros(150);

/// Consecutive batches before other sockets and connections of the worker get their turn.
const TURN: usize = 4;

/// Batches of ICMP errors read in one turn. Anybody can send such errors.
const ERROR_TURN: usize = 2;

/// Capacity of the queue of deferred requests, per worker. When it is full, the first one is decided at once.
const MOST_POSTPONED: usize = 256;

/// Time slice for deferred requests before new input is polled: about one slow call.
pub(super) const SLICE: Duration = Duration::from_micros(50);

/// Pause after a failed receive, so that a persistent error does not use up the core.
const ERROR_PAUSE: Duration = Duration::from_millis(10);

/// The longest keep-alive: CRLF CRLF.
const KEEP_ALIVE: usize = 4;

/// How a turn at receiving ended.
enum Turn {
    /// The socket is empty.
    Drained,
    /// More datagrams or ICMP errors are waiting.
    Cut,
    /// The system returned an error.
    Failed(io::Error),
}

/// Serves the worker's UDP socket with this number during the lifetime of the worker.
pub(crate) async fn serve(worker: Rc<RefCell<Worker>>, number: usize) {
    let socket = worker.borrow().udp.socket(number);
    loop {
        let nobody_waits = worker.borrow().waiting.is_empty();
        if nobody_waits && let Err(error) = socket.ready().await {
            warn!(event = "udp_socket_failed", %error, "UDP socket cannot be polled");
            return;
        }
        let turn = worker.borrow_mut().turn(&socket, number);
        flush_all(&worker).await;
        match turn {
            Turn::Drained => {}
            Turn::Cut => yield_now().await,
            Turn::Failed(error) => {
                debug!(event = "udp_receive_failed", %error, "UDP receive failed");
                sleep(ERROR_PAUSE).await;
            }
        }
    }
}

/// Sends what waits on any socket of the worker. While a send buffer is full, nothing new is read: there is no use in receiving what cannot
/// be answered.
pub(crate) async fn flush_all(worker: &Rc<RefCell<Worker>>) {
    loop {
        let blocked = worker.borrow_mut().flush();
        let Some(number) = blocked else {
            return;
        };
        let socket = worker.borrow().udp.socket(number);
        // A report that is not read ends the wait at once, and is read then.
        let _has_more = worker.borrow_mut().read_errors(&socket);
        if let Err(error) = socket.writable().await {
            let lost = worker.borrow_mut().udp.clear(number);
            warn!(event = "udp_write_failed", %error, lost, "UDP socket not writable, waiting datagrams dropped");
        }
    }
}

impl Worker {
    /// Receives a few batches, decides on each datagram, and sends the results.
    fn turn(&mut self, socket: &Polled, number: usize) -> Turn {
        self.pipeline.refresh();
        let has_more_errors = self.read_errors(socket);
        for _ in 0..TURN {
            let count = match socket.recv(&mut self.receiver) {
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
                Err(error) => {
                    self.decide_waiting(SLICE);
                    return Turn::Failed(error);
                }
            };
            // Only policy calls take long enough to check the time.
            let mut judged_at = self.pipeline.judged_at();
            let mut waits_since = None;
            for nth in 0..count {
                self.datagram(number, nth);
                let now = self.pipeline.judged_at();
                if now == judged_at {
                    continue;
                }
                judged_at = now;
                let since = *waits_since.get_or_insert(now);
                if now.saturating_duration_since(since) > WAIT {
                    let _blocked = self.flush();
                    waits_since = None;
                }
            }
            let _blocked = self.flush();
            if !self.waiting.is_empty() {
                // Only the runtime knows whether more has arrived meanwhile; it gets its turn now.
                self.decide_waiting(SLICE);
                return Turn::Cut;
            }
            if count < BATCH {
                return match has_more_errors {
                    true => Turn::Cut,
                    false => Turn::Drained,
                };
            }
        }
        Turn::Cut
    }

    /// Reads a few batches of ICMP errors, and lets the targets of transactions fail that they concern. Returns whether more are waiting.
    fn read_errors(&mut self, socket: &Polled) -> bool {
        let Some(mut errors) = self.errors.take() else {
            return false;
        };
        let has_more = read_reports(socket, &mut errors, |errors, count| {
            for nth in 0..count {
                let report = errors.report(nth);
                if report.problem.is_failure() {
                    let is_ours = self.fail_undelivered(report.quoted, None);
                    self.counters().transactions.icmp_errors.inc(match is_ours {
                        true => IcmpError::Target,
                        false => IcmpError::Other,
                    });
                }
            }
            self.send_transactions();
        });
        self.errors = Some(errors);
        has_more
    }

    /// Decides on deferred requests, and sends the results: for about this time, or until none is left.
    pub(crate) fn decide_waiting(&mut self, time: Duration) {
        let begun = Instant::now();
        while self.decide_first() && begun.elapsed() < time {}
        let _blocked = self.flush();
    }

    /// Decides on the request that has been deferred for longest; false if there is none.
    fn decide_first(&mut self) -> bool {
        match self.waiting.pop_front() {
            Some((Some(number), request)) => {
                let out = self.udp.buffer(number);
                if let Some(to) = self.pipeline.decide(*request, out) {
                    self.send_draft(number, to);
                }
                self.send_transactions();
            }
            Some((None, request)) => {
                let destination = self.pipeline.decide(*request, &mut self.stream_out);
                self.send_stream_out(destination);
                self.send_transactions();
            }
            None => {}
        }
        if self.waiting.is_empty() {
            self.pipeline.none_waits();
        }
        !self.waiting.is_empty()
    }

    fn datagram(&mut self, number: usize, nth: usize) {
        let (bytes, source, truncated) = self.receiver.datagram(nth);
        let counters = self.counters();
        counters.udp.received.inc();
        counters.udp.received_bytes.add(bytes.len() as u64);
        if bytes.len() <= KEEP_ALIVE && bytes.iter().all(|byte| matches!(byte, b'\r' | b'\n' | 0)) {
            return counters.udp.keepalives.inc();
        }
        let source = SocketAddr::new(source.ip().to_canonical(), source.port());
        self.pipeline.received_datagram(source, bytes.len());
        if is_stun(bytes) {
            counters.udp.keepalives.inc();
            let out = self.udp.buffer(number);
            if answer_binding(bytes, source, out)
                && source.port() != 0
                && self.pipeline.admits_stun(source.ip())
            {
                self.udp.commit(number, source, &self.pipeline);
            }
            return;
        }
        if truncated {
            return self.pipeline.reporter().lose(&Loss {
                lost: Lost::Truncated,
                bytes,
                transport: Transport::Udp,
                peer: source,
                detail: &"the datagram is longer than what is read of one",
            });
        }
        let arrival = Arrival {
            source,
            local: self.udp.local(number),
            transport: Transport::Udp,
            connection: None,
        };
        let bytes = self.receiver.take(nth);
        let out = self.udp.buffer(number);
        let (bytes, handled) = self
            .pipeline
            .handle(bytes, Framing::Datagram, &arrival, out);
        if let Handled::HandOver(owner) = handled {
            self.hand_over_message(owner, &bytes, arrival);
        }
        self.receiver.restore(nth, bytes);
        match handled {
            Handled::Done(Some(to)) => self.send_draft(number, to),
            Handled::Done(None) | Handled::Relayed | Handled::HandOver(_) => {}
            Handled::Waits(request) => self.postpone(Some(number), request),
        }
        self.send_transactions();
    }

    /// Defers a request. `number` is that of the UDP socket that received it.
    pub(super) fn postpone(&mut self, number: Option<usize>, request: Box<Request>) {
        if self.waiting.len() >= MOST_POSTPONED {
            self.decide_first();
        }
        self.waiting.push_back((number, request));
    }

    /// Sends what the pipeline wrote into the buffer of UDP socket `number`, from the socket or connection of its destination.
    fn send_draft(&mut self, number: usize, to: Destination) {
        match to.transport {
            Transport::Udp => self.udp.send_draft(number, &to, &self.pipeline),
            Transport::Tcp | Transport::Tls | Transport::Ws | Transport::Wss => {
                let bytes = Bytes::copy_from_slice(self.udp.draft(number));
                self.send_stateless(Outgoing {
                    bytes,
                    ..Outgoing::of(to)
                });
            }
        }
    }

    /// Passes what waits to the kernel, and lets the targets of transactions fail whose requests the kernel refuses. Returns the number of a
    /// socket whose send buffer is full, if there is one.
    fn flush(&mut self) -> Option<usize> {
        loop {
            let blocked = self.udp.pass_on(&self.pipeline);
            let refused = self.udp.take_refused();
            if refused.is_empty() {
                return blocked;
            }
            // The requests to the next targets may be refused, too. Each transaction has a limited number of targets.
            for bytes in refused {
                self.fail_undelivered(&bytes, None);
            }
            self.send_transactions();
        }
    }
}

/// Reads batches of ICMP errors, at most [`ERROR_TURN`] of them. `handle` gets each batch with its size. Returns whether more are waiting.
fn read_reports(
    socket: &Polled,
    errors: &mut Errors,
    mut handle: impl FnMut(&Errors, usize),
) -> bool {
    for _ in 0..ERROR_TURN {
        let count = socket.recv_errors(errors).unwrap_or(0);
        handle(errors, count);
        if count < errors.batch() {
            return false;
        }
    }
    true
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::net::UdpSocket;

    use portcullis_udp::{Bind, bind, report_errors};

    use super::*;

    #[tokio::test]
    async fn a_turn_reads_a_limited_number_of_icmp_errors() {
        let any = "127.0.0.1:0".parse().unwrap();
        let socket = bind(any, Bind::default()).unwrap();
        report_errors(&socket).unwrap();
        let sending = socket.try_clone().unwrap();
        let socket = Polled::new(socket).unwrap();
        let mut errors = Errors::new();
        let most = ERROR_TURN * errors.batch();
        let closed = UdpSocket::bind(any).unwrap().local_addr().unwrap();
        // A send may fail with the error of an earlier one: then nothing is sent.
        let is_sent = |_: &usize| sending.send_to(b"INVITE sip:a@b SIP/2.0", closed).is_ok();
        let sent = (0..4 * most).filter(is_sent).take(most + 1).count();
        assert_eq!(sent, most + 1);
        socket.ready().await.unwrap();
        for (read, is_more) in [(most, true), (1, false), (0, false)] {
            let mut count = 0;
            let has_more = read_reports(&socket, &mut errors, |_, batch| count += batch);
            assert_eq!((count, has_more), (read, is_more));
        }
    }
}
