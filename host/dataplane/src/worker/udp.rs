//! UDP: datagrams are received and sent in batches.

use std::cell::RefCell;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use nix::errno::Errno;
use portcullis_metrics::{IcmpError, Lost};
use portcullis_request::Request;
use portcullis_sip::{Arrival, Destination, Framing, Transport};
use portcullis_udp::{Errors, Polled};
use tokio::task::yield_now;
use tokio::time::sleep;
use tracing::{debug, warn};

use super::Worker;
use super::udp_socket::{BATCH, Udp};
use crate::notices::{Example, Trouble};
use crate::pipeline::{Handled, Loss};
use crate::transport::Outgoing;

/// Maximum time for which a response waits for the rest of its batch. It is not reached while policies take microseconds; a slower policy
/// must not delay the responses of others.
const WAIT: Duration = Duration::from_micros(150);

/// Consecutive batches before other sockets and connections of the worker get their turn.
const TURN: usize = 4;

/// Batches of ICMP errors read in one turn. Anybody can send such errors.
const ERROR_TURN: usize = 2;

/// Datagrams that may wait for a socket whose send buffer is full.
const MOST_WAITING: usize = 1_024;

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
    let socket = Rc::clone(&worker.borrow().udp[number].socket);
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
        let socket = Rc::clone(&worker.borrow().udp[number].socket);
        // A report that is not read ends the wait at once, and is read then.
        let _has_more = worker.borrow_mut().read_errors(&socket);
        if let Err(error) = socket.writable().await {
            let lost = worker.borrow_mut().udp[number].sender.clear();
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
                    let is_ours = self.fail_undelivered(report.quoted);
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
                let out = self.udp[number].sender.buffer();
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
            local: self.udp[number].local,
            transport: Transport::Udp,
            connection: None,
        };
        let bytes = self.receiver.take(nth);
        let out = self.udp[number].sender.buffer();
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
        let draft = self.udp[number].sender.draft();
        match to.transport {
            Transport::Udp => {}
            Transport::Tcp => {
                let bytes = Bytes::copy_from_slice(draft);
                self.send_stream(Outgoing {
                    to,
                    bytes,
                    may_try_again: true,
                });
                return;
            }
        }
        let Some(from) = self.udp_towards(draft, &to) else {
            return;
        };
        if !self.has_room(from) {
            return self.pipeline.reporter().lose(&queue_full(draft, &to));
        }
        self.counters().udp.sent_bytes.add(draft.len() as u64);
        match self.udp.get_disjoint_mut([from, number]) {
            Ok([there, here]) => there.sender.push(here.sender.draft(), to.addr),
            // They are the same.
            Err(_) => self.udp[number].sender.commit(to.addr),
        }
    }

    /// Queues a datagram on UDP socket `from`, and passes whole batches to the kernel. No draft may be in a buffer of a socket.
    pub(super) fn push_datagram(&mut self, from: usize, bytes: &[u8], to: &Destination) {
        if !self.has_room(from) {
            return self.pipeline.reporter().lose(&queue_full(bytes, to));
        }
        self.counters().udp.sent_bytes.add(bytes.len() as u64);
        self.udp[from].sender.push(bytes, to.addr);
        // One turn of timers may send more than may wait. While the send buffer is full, this tries once per batch.
        if self.udp[from].sender.waiting().is_multiple_of(BATCH) {
            let _blocked = self.pass_on();
        }
    }

    /// The socket to send from: the one that the destination names, otherwise one of the same address family. Counts the loss if there is
    /// none.
    pub(super) fn udp_towards(&self, bytes: &[u8], to: &Destination) -> Option<usize> {
        let place = |is_it: &dyn Fn(&Udp) -> bool| self.udp.iter().position(is_it);
        let named = to
            .from
            .and_then(|from| place(&|udp: &Udp| udp.local == from));
        let found = named.or_else(|| place(&|udp: &Udp| udp.local.is_ipv4() == to.addr.is_ipv4()));
        if found.is_none() {
            self.pipeline.reporter().lose(&Loss {
                lost: Lost::SendError,
                bytes,
                transport: Transport::Udp,
                peer: to.addr,
                detail: &"no UDP socket of the address family: add one to `listen`",
            });
        }
        found
    }

    /// Whether the queue of that socket has space for one more datagram.
    fn has_room(&self, number: usize) -> bool {
        self.udp[number].sender.waiting() < MOST_WAITING
    }

    /// Passes what waits to the kernel, and lets the targets of transactions fail whose requests the kernel refuses. Returns the number of a
    /// socket whose send buffer is full, if there is one.
    fn flush(&mut self) -> Option<usize> {
        loop {
            let blocked = self.pass_on();
            if self.refused.is_empty() {
                return blocked;
            }
            // The requests to the next targets may be refused, too. Each transaction has a limited number of targets.
            for bytes in std::mem::take(&mut self.refused) {
                self.fail_undelivered(&bytes);
            }
            self.send_transactions();
        }
    }

    /// The same, but what is refused is only noted, for the next [`Worker::flush`].
    fn pass_on(&mut self) -> Option<usize> {
        let is_stateful = self.pipeline.is_stateful();
        let counters = &self.pipeline.counters().udp;
        let mut blocked = None;
        for (number, udp) in self.udp.iter_mut().enumerate() {
            let before = udp.sender.waiting();
            if before == 0 {
                continue;
            }
            let sender = &mut udp.sender;
            let flushed = udp.socket.flush(sender);
            let gone = before - sender.waiting();
            let failed = sender.failures();
            counters
                .sent
                .add((gone as u64).saturating_sub(failed.count));
            counters.send_errors.add(failed.count);
            if let Some(last) = failed.last() {
                self.pipeline.reporter().lose_refused(
                    failed.count,
                    &last.bytes,
                    last.to,
                    &last.error,
                );
            }
            if is_stateful {
                let lasting = failed
                    .kept
                    .into_iter()
                    .filter(|kept| !is_congestion(&kept.error));
                self.refused.extend(lasting.map(|kept| kept.bytes));
            }
            if flushed.is_err() && sender.waiting() > 0 {
                blocked = Some(number);
            }
        }
        blocked
    }

    /// Counts the datagrams that the kernel has dropped since the last look because the worker was too slow.
    pub(crate) fn count_overflows(&mut self) {
        for udp in self.udp.iter_mut().filter(|udp| udp.receives) {
            let Ok(overflows) = portcullis_udp::overflows(&*udp.socket) else {
                continue;
            };
            let more = overflows.wrapping_sub(udp.overflows);
            udp.overflows = overflows;
            let lost = &self.pipeline.counters().lost;
            lost.add(Lost::ReceiveBufferFull, more.into());
            if more > 0 {
                let local = udp.local;
                let example =
                    || Example::new(b"", Some(local), "the socket's buffer was full".into());
                self.pipeline
                    .reporter()
                    .note(Trouble::ReceiveBufferFull, more.into(), example);
            }
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

/// Notes the loss of a datagram for a socket whose queue is full.
fn queue_full<'a>(bytes: &'a [u8], to: &Destination) -> Loss<'a> {
    Loss {
        lost: Lost::QueueFull,
        bytes,
        transport: Transport::Udp,
        peer: to.addr,
        detail: &"the system takes datagrams too slowly",
    }
}

/// Whether the system only lacks memory at the moment: a retransmission may be sent.
fn is_congestion(error: &io::Error) -> bool {
    let code = error.raw_os_error().map(Errno::from_raw);
    matches!(code, Some(Errno::ENOBUFS | Errno::ENOMEM))
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
