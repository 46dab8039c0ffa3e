//! One stream connection: receives and sends messages until either side ends. The transport gives its two halves to [`run`].

use std::cell::RefCell;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use portcullis_metrics::Lost;
use portcullis_sip::{Destination, Frame, Framer, PONG, ScanError, Transport};
use portcullis_websocket::{write_close, write_message};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio::task::{spawn_local, yield_now};
use tokio::time::{Instant, timeout, timeout_at};
use tracing::debug;

use super::Worker;
use super::both_halves::BothHalves;
use super::inbound::{End, Next, decide_in_turn, hand_over_in_time};
use super::reading::{CHUNK, read_into};
use super::stream_peer::StreamPeer;
use super::websocket;
use crate::linger::discard_input;
use crate::pipeline::wire_of;
use crate::transport::Activity;
use crate::transport::{Joined, Outgoing, Queue};

/// Maximum time between the two halves of a ping.
const PING: Duration = Duration::from_secs(1);

/// Maximum time for which a peer may accept no bytes at all.
const WRITE: Duration = Duration::from_secs(10);

/// Bytes for which an idle connection keeps its buffer.
const KEPT: usize = 4 * 1024;

/// Carries messages in both directions until either side ends. `read` and `write` are the halves of the connection: of a TCP socket, or of
/// what another transport makes of one. What is written need not leave before it is flushed.
pub(super) async fn run<R, W>(
    worker: Rc<RefCell<Worker>>,
    (mut read, write): (R, W),
    tcp: StreamPeer,
    joined: Joined,
) where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin + 'static,
{
    // Released when every owner of the descriptor is dropped.
    let Joined { queue, place, .. } = joined;
    let activity = place.activity();
    let both = Rc::new(BothHalves::default());
    let writer = Writer {
        worker: Rc::clone(&worker),
        tcp,
        write,
        queue,
        buffer: Vec::new(),
        both: Rc::clone(&both),
        _running: worker.borrow().writers(),
    };
    let mut writer = spawn_local(writer.run());
    let reading = async {
        match tcp.transport.is_websocket() {
            true => websocket::read_all(&worker, &mut read, tcp, activity, &both).await,
            false => read_all(&worker, &mut read, tcp, activity, &both).await,
        }
    };
    let end = tokio::select! {
        end = reading => end,
        written = &mut writer => written.unwrap_or(End::Unwritable),
        () = activity.evicted() => End::Evicted,
    };
    debug!(event = "tcp_connection_ended", peer = %tcp.peer, transport = tcp.transport.parameter(), ?end, "connection ended");
    // Removing the entry drops the sending end of the queue: the writer sends what is left, and ends.
    worker.borrow().connections().remove(tcp.id);
    worker.borrow().counters().connections.closed.inc();
    if end == End::Evicted {
        return writer.abort();
    }
    // Sending what is left takes its time, unless the place is needed.
    let close = async {
        // A peer that has got the close of the host may still be sending.
        if end == End::Unframed || (end == End::Left && tcp.transport.is_websocket()) {
            discard_input(&mut read).await;
        }
        if !matches!(end, End::Unwritable | End::Left) {
            let _all_sent = (&mut writer).await;
        }
    };
    let is_evicted = tokio::select! {
        () = close => false,
        () = activity.evicted() => true,
    };
    if is_evicted {
        writer.abort();
    }
}

async fn read_all(
    worker: &Rc<RefCell<Worker>>,
    read: &mut (impl AsyncRead + Unpin),
    tcp: StreamPeer,
    activity: &Activity,
    both: &BothHalves,
) -> End {
    let mut framer = Framer::new(&worker.borrow().pipeline.shared().config.sip.limits);
    let mut deadline = Instant::now() + activity.idle();
    loop {
        let until = match framer.holds_line_end() {
            true => deadline.min(Instant::now() + PING),
            false => deadline,
        };
        activity.set_input(framer.pending() > 0);
        let received = read_into(worker, read, framer.space());
        match timeout_at(until, received).await {
            Ok(Ok(count)) if count > 0 => {}
            Ok(_) => return End::Closed,
            Err(_) if until < deadline => {
                framer.pass_line_end();
                continue;
            }
            Err(_) if framer.pending() == 0 && both.take_written() => {
                deadline = Instant::now() + activity.idle();
                continue;
            }
            Err(_) => return End::Idle,
        }
        activity.set_input(true);
        let pending = framer.pending();
        loop {
            if worker.borrow().is_ending {
                // The writer ends the connection when everything is sent.
                return std::future::pending().await;
            }
            let next = Worker::take_frames(worker, &mut framer, tcp, activity);
            super::udp::flush_all(worker).await;
            match next {
                Next::Bytes => break,
                Next::Nothing => return End::Unframed,
                Next::Turn(request) => decide_in_turn(worker, request, activity).await,
                Next::Room(owner, item) => hand_over_in_time(worker, owner, item).await,
            }
        }
        if framer.pending() < pending {
            deadline = Instant::now() + activity.idle();
            // The writers of the results run before more is read.
            yield_now().await;
        }
    }
}

/// The sending side of a connection.
struct Writer<W> {
    worker: Rc<RefCell<Worker>>,
    tcp: StreamPeer,
    write: W,
    queue: Queue,
    buffer: Vec<u8>,
    both: Rc<BothHalves>,
    /// The worker waits for this to be dropped before it ends.
    _running: Option<mpsc::Sender<()>>,
}

/// A message, and how many bytes it has on the connection.
struct Encoded {
    message: Outgoing,
    length: usize,
}

impl<W: AsyncWrite + Unpin> Writer<W> {
    /// Sends what is queued until the queue ends or the peer accepts no more.
    async fn run(mut self) -> End {
        let mut batch = Vec::<Encoded>::new();
        while let Some(message) = self.queue.next().await {
            self.gather(message, &mut batch);
            let (written, result) = self.write().await;
            self.count(&mut batch, written);
            if let Err(error) = result {
                debug!(event = "tcp_write_failed", peer = %self.tcp.peer, transport = self.tcp.transport.parameter(), %error, "write failed");
                self.give_up(batch, &error).await;
                return End::Unwritable;
            }
            self.both.note_written();
            self.buffer.clear();
            self.buffer.shrink_to(KEPT);
        }
        // A transport may have a last word; a peer that does not take it misses nothing.
        let farewell = async {
            if let Some(close) = self.both.take_farewell() {
                self.buffer.clear();
                write_close(close, &mut self.buffer);
                self.write.write_all(&self.buffer).await?;
            }
            self.write.shutdown().await
        };
        let _best_effort = timeout(WRITE, farewell).await;
        End::Left
    }

    /// Copies a message, and others already waiting, into the buffer: many small ones are sent in one write.
    fn gather(&mut self, first: Outgoing, batch: &mut Vec<Encoded>) {
        let mut next = Some(first);
        while let Some(message) = next {
            let before = self.buffer.len();
            match self.tcp.transport.is_websocket() && !message.is_control {
                true => write_message(&message.bytes, &mut self.buffer),
                false => self.buffer.extend_from_slice(&message.bytes),
            }
            batch.push(Encoded {
                message,
                length: self.buffer.len() - before,
            });
            next = match self.buffer.len() {
                ..CHUNK => self.queue.next_now(),
                _ => None,
            };
        }
    }

    /// Writes and flushes the buffer: returns how many bytes were written, and why not all of them.
    async fn write(&mut self) -> (usize, io::Result<()>) {
        let mut written = 0;
        while written < self.buffer.len() {
            let rest = &self.buffer[written..];
            match timeout(WRITE, self.write.write(rest)).await {
                Ok(Ok(0)) => return (written, Err(io::ErrorKind::WriteZero.into())),
                Ok(Ok(count)) => written += count,
                Ok(Err(error)) => return (written, Err(error)),
                Err(_) => return (written, Err(io::ErrorKind::TimedOut.into())),
            }
        }
        match timeout(WRITE, self.write.flush()).await {
            Ok(flushed) => (written, flushed),
            Err(_) => (written, Err(io::ErrorKind::TimedOut.into())),
        }
    }

    /// Counts the messages that were sent, and returns those that were not.
    fn count(&self, batch: &mut Vec<Encoded>, mut written: usize) {
        let worker = self.worker.borrow();
        let counters = worker.counters().wire(wire_of(self.tcp.transport));
        let whole = batch.iter().take_while(|encoded| {
            let is_out = encoded.length <= written;
            written = written.saturating_sub(encoded.length);
            is_out
        });
        let whole = whole.count();
        for Encoded { message, .. } in batch.drain(..whole) {
            if !message.is_control {
                counters.sent.inc();
                counters.sent_bytes.add(message.bytes.len() as u64);
            }
        }
    }

    /// What a broken connection did not accept is sent over another one, once; what a peer did not read is dropped.
    async fn give_up(self, unsent: Vec<Encoded>, error: &io::Error) {
        self.queue.close();
        let waiting = std::iter::from_fn(|| self.queue.next_now());
        let unsent = unsent.into_iter().map(|encoded| encoded.message);
        let messages = unsent.chain(waiting).filter(|message| !message.is_control);
        let tries_again = error.kind() != io::ErrorKind::TimedOut;
        Worker::send_elsewhere(&self.worker, self.tcp, messages, error, tries_again);
        super::udp::flush_all(&self.worker).await;
    }
}

impl Worker {
    /// Handles every complete message, up to one for which the connection has to wait.
    fn take_frames(
        worker: &Rc<RefCell<Self>>,
        framer: &mut Framer,
        tcp: StreamPeer,
        activity: &Activity,
    ) -> Next {
        let mut this = worker.borrow_mut();
        this.pipeline.refresh();
        let mut has_pinged = false;
        loop {
            match framer.next() {
                Ok(Frame::Message(range)) => {
                    if let Some(next) = this.message(framer.bytes(range), tcp, activity) {
                        return next;
                    }
                }
                // Pings received in one piece get one pong: a peer waits for the first pong before it sends a second ping.
                Ok(Frame::Ping) if has_pinged => this.wire(tcp.transport).keepalives.inc(),
                Ok(Frame::Ping) => {
                    activity.kept_alive();
                    this.ping(tcp);
                    has_pinged = true;
                }
                Ok(Frame::Oversized { head, error }) => {
                    let head = framer.bytes(head);
                    activity.received(head);
                    this.unframed(head, &error, tcp);
                }
                Ok(Frame::NeedMore) => return Next::Bytes,
                Err(error) => {
                    debug!(
                        event = "stream_unframed",
                        source = %tcp.peer,
                        transport = tcp.transport.parameter(),
                        %error,
                        "connection closed: the next SIP message cannot be located"
                    );
                    this.counters().lost.inc(Lost::Unframed);
                    let readable = framer.bytes(error.readable.clone());
                    this.unframed(readable, &error.error, tcp);
                    return Next::Nothing;
                }
            }
        }
    }

    fn send_elsewhere(
        worker: &RefCell<Self>,
        tcp: StreamPeer,
        messages: impl Iterator<Item = Outgoing>,
        error: &io::Error,
        tries_again: bool,
    ) {
        let mut this = worker.borrow_mut();
        this.wire(tcp.transport).send_errors.inc();
        this.connections().remove(tcp.id);
        for message in messages {
            if message.may_try_again && tries_again && !message.to.is_flow {
                this.send_stream(Outgoing {
                    may_try_again: false,
                    ..message
                });
            } else {
                this.undeliverable(&message, error, false);
            }
        }
    }

    fn ping(&self, tcp: StreamPeer) {
        self.wire(tcp.transport).keepalives.inc();
        let pong = Outgoing {
            bytes: Bytes::from_static(PONG),
            may_try_again: false,
            ..Outgoing::of(tcp.back())
        };
        self.send_stream(pong);
    }

    /// Answers a message that was not framed, as far as it can be parsed.
    fn unframed(&mut self, readable: &[u8], error: &ScanError, tcp: StreamPeer) {
        self.wire(tcp.transport).received.inc();
        let out = &mut self.stream_out;
        let destination = self.pipeline.unframed(readable, error, &tcp.arrival(), out);
        self.send_stream_out(destination);
    }

    /// Sends what the pipeline wrote into the stream buffer, from the socket or connection of its destination.
    pub(super) fn send_stream_out(&mut self, destination: Option<Destination>) {
        let Some(to) = destination else {
            return;
        };
        match to.transport {
            Transport::Tcp | Transport::Tls | Transport::Ws | Transport::Wss => {
                let bytes = Bytes::copy_from_slice(&self.stream_out);
                self.send_stateless(Outgoing {
                    bytes,
                    ..Outgoing::of(to)
                });
            }
            Transport::Udp => {
                let draft = std::mem::take(&mut self.stream_out);
                let _is_sent = self.udp.send(&draft, &to, &self.pipeline);
                self.stream_out = draft;
            }
        }
    }
}
