//! One TCP connection: messages come in, messages go out, until either side ends.

use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use portcullis_metrics::Lost;
use portcullis_request::Request;
use portcullis_sip::{Destination, Frame, Framer, Framing, PONG, ScanError, Transport};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::mpsc;
use tokio::task::{spawn_local, yield_now};
use tokio::time::{Instant, timeout, timeout_at};
use tracing::debug;

use super::Worker;
use super::stream_peer::StreamPeer;
use crate::pipeline::Handled;
use crate::transport::Activity;
use crate::transport::{Joined, Outgoing, Queue};

/// A connection over which no whole message went for so long, either way, is closed. Keep-alives count as messages (RFC 5626
/// sends them every 2 minutes at most).
const IDLE: Duration = Duration::from_secs(300);

/// How long the halves of a ping may lie apart.
const PING: Duration = Duration::from_secs(1);

/// How long a peer may take no bytes at all.
const WRITE: Duration = Duration::from_secs(10);

/// Bytes that one read asks for, and that are gathered for one write.
const CHUNK: usize = 16 * 1024;

/// How long, and for how many bytes, we listen to a stream that is given up. Closing at once would make the system reset the
/// connection, and the peer could lose the answer that says why.
const LINGER: Duration = Duration::from_secs(1);
const LINGER_BYTES: usize = 256 * 1024;

/// Why a connection is read no further.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// The peer has closed it, or it broke.
    Closed,
    /// Nothing came or went for too long.
    Idle,
    /// Where the next message starts can't be told.
    Unframed,
    /// The peer takes nothing.
    Unwritable,
    /// Another connection needed its place.
    Evicted,
}

/// What a connection needs to go on.
enum Next {
    /// More to read.
    Bytes,
    /// Its turn, for this request.
    Turn(Box<Request>),
    /// Nothing helps: the stream can't be followed.
    Nothing,
}

/// Carries messages both ways until either side ends.
pub(super) async fn run(
    worker: Rc<RefCell<Worker>>,
    stream: TcpStream,
    tcp: StreamPeer,
    joined: Joined,
) {
    // Given back when everything that has the descriptor is gone.
    let Joined { queue, place, .. } = joined;
    let activity = place.activity();
    // Messages are written whole; waiting for more to fill a segment only delays them.
    let _best_effort = stream.set_nodelay(true);
    let (mut read, write) = stream.into_split();
    let has_written = Rc::new(Cell::new(false));
    let writer = Writer {
        worker: Rc::clone(&worker),
        tcp,
        write,
        queue,
        buffer: Vec::new(),
        has_written: Rc::clone(&has_written),
        _running: worker.borrow().writers(),
    };
    let mut writer = spawn_local(writer.run());
    let end = tokio::select! {
        end = read_all(&worker, &mut read, tcp, activity, &has_written) => end,
        _ = &mut writer => End::Unwritable,
        () = activity.evicted() => End::Evicted,
    };
    debug!(event = "tcp_connection_ended", peer = %tcp.peer, ?end, "TCP connection ended");
    // With the table's entry goes the queue's other end: the writer sends what is left, and ends.
    worker.borrow().connections().remove(tcp.id);
    worker.borrow().counters().connections.closed.inc();
    if end == End::Evicted {
        return writer.abort();
    }
    // What is left to do takes its time, unless the place is needed.
    let close = async {
        if end == End::Unframed {
            linger(&mut read).await;
        }
        if end != End::Unwritable {
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
    read: &mut OwnedReadHalf,
    tcp: StreamPeer,
    activity: &Activity,
    has_written: &Cell<bool>,
) -> End {
    let mut framer = Framer::new(&worker.borrow().pipeline.shared().config.sip.limits);
    let mut deadline = Instant::now() + IDLE;
    loop {
        let until = match framer.holds_line_end() {
            true => deadline.min(Instant::now() + PING),
            false => deadline,
        };
        let space = framer.space();
        space.reserve(CHUNK);
        match timeout_at(until, read.read_buf(space)).await {
            Ok(Ok(count)) if count > 0 => {}
            Ok(_) => return End::Closed,
            Err(_) if until < deadline => {
                framer.pass_line_end();
                continue;
            }
            Err(_) if framer.pending() == 0 && has_written.replace(false) => {
                deadline = Instant::now() + IDLE;
                continue;
            }
            Err(_) => return End::Idle,
        }
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
                Next::Turn(request) => decide_in_turn(worker, *request, activity).await,
            }
        }
        if framer.pending() < pending {
            deadline = Instant::now() + IDLE;
            // The writers of what came out of these have their turn before more comes in.
            yield_now().await;
        }
    }
}

/// Decides on a request that lets others go first: those of other connections that wait for longer, and whatever came in over any
/// socket meanwhile.
async fn decide_in_turn(worker: &Rc<RefCell<Worker>>, request: Request, activity: &Activity) {
    let slow = Rc::clone(&worker.borrow().slow);
    let _turn = slow.acquire().await;
    yield_now().await;
    worker.borrow_mut().decide_stream(request, activity);
    super::udp::flush_all(worker).await;
}

async fn linger(read: &mut OwnedReadHalf) {
    let deadline = Instant::now() + LINGER;
    let mut ignored = Vec::with_capacity(CHUNK);
    let mut total = 0;
    while let Ok(Ok(count @ 1..)) = timeout_at(deadline, read.read_buf(&mut ignored)).await {
        ignored.clear();
        total += count;
        if total > LINGER_BYTES {
            return;
        }
    }
}

/// The sending side of a connection.
struct Writer {
    worker: Rc<RefCell<Worker>>,
    tcp: StreamPeer,
    write: OwnedWriteHalf,
    queue: Queue,
    buffer: Vec<u8>,
    has_written: Rc<Cell<bool>>,
    /// The worker waits for this to be gone before it ends.
    _running: Option<mpsc::Sender<()>>,
}

impl Writer {
    /// Sends what is queued until the queue ends or the peer takes no more.
    async fn run(mut self) {
        let mut batch = Vec::new();
        while let Some(message) = self.queue.next().await {
            self.gather(message, &mut batch);
            let (written, result) = self.write().await;
            self.count(&mut batch, written);
            if let Err(error) = result {
                debug!(event = "tcp_write_failed", peer = %self.tcp.peer, %error, "TCP write failed");
                return self.give_up(batch, &error).await;
            }
            self.has_written.set(true);
        }
    }

    /// Puts a message, and others that wait already, into the buffer: many small ones leave in one piece.
    fn gather(&mut self, first: Outgoing, batch: &mut Vec<Outgoing>) {
        self.buffer.clear();
        self.buffer.shrink_to(4 * CHUNK);
        let mut next = Some(first);
        while let Some(message) = next {
            self.buffer.extend_from_slice(&message.bytes);
            batch.push(message);
            next = match self.buffer.len() {
                ..CHUNK => self.queue.next_now(),
                _ => None,
            };
        }
    }

    /// Writes the buffer: how many bytes went out, and why not all of them.
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
        (written, Ok(()))
    }

    /// Counts the messages that are out, and leaves those that are not.
    fn count(&self, batch: &mut Vec<Outgoing>, mut written: usize) {
        let worker = self.worker.borrow();
        let counters = &worker.counters().tcp;
        let whole = batch.iter().take_while(|message| {
            let is_out = message.bytes.len() <= written;
            written = written.saturating_sub(message.bytes.len());
            is_out
        });
        let whole = whole.count();
        for message in batch.drain(..whole) {
            counters.sent.inc();
            counters.sent_bytes.add(message.bytes.len() as u64);
        }
    }

    /// What a broken connection did not take goes over another one, once; what a peer that does not read did not take, nowhere.
    async fn give_up(mut self, unsent: Vec<Outgoing>, error: &io::Error) {
        self.queue.close();
        let waiting = std::iter::from_fn(|| self.queue.next_now());
        let messages = unsent.into_iter().chain(waiting);
        let tries_again = error.kind() != io::ErrorKind::TimedOut;
        Worker::send_elsewhere(&self.worker, self.tcp, messages, error, tries_again);
        super::udp::flush_all(&self.worker).await;
    }
}

impl Worker {
    /// Handles every whole message, up to one that lets others go first.
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
                    if let Some(request) = this.message(framer.bytes(range), tcp, activity) {
                        return Next::Turn(request);
                    }
                }
                // Those that come in one piece have one answer: a peer waits for the first before it sends a second.
                Ok(Frame::Ping) if has_pinged => this.counters().tcp.keepalives.inc(),
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
                        %error,
                        "TCP connection closed: the next SIP message cannot be located"
                    );
                    this.counters().lost.inc(Lost::Unframed);
                    let readable = framer.bytes(error.readable.clone());
                    this.unframed(readable, &error.error, tcp);
                    return Next::Nothing;
                }
            }
        }
    }

    /// Decides on one framed message, unless it is a request that lets others go first.
    fn message(
        &mut self,
        bytes: &[u8],
        tcp: StreamPeer,
        activity: &Activity,
    ) -> Option<Box<Request>> {
        activity.received(bytes);
        let counters = &self.counters().tcp;
        counters.received.inc();
        counters.received_bytes.add(bytes.len() as u64);
        let mut buffer = std::mem::take(&mut self.stream_in);
        buffer.clear();
        buffer.extend_from_slice(bytes);
        let out = &mut self.stream_out;
        let (buffer, handled) = self
            .pipeline
            .handle(buffer, Framing::Stream, &tcp.arrival(), out);
        self.stream_in = buffer;
        match handled {
            Handled::Done(destination) => self.send_handled(destination, activity),
            Handled::Waits(request) => return Some(request),
        }
        None
    }

    /// Decides on a request that waited.
    fn decide_stream(&mut self, request: Request, activity: &Activity) {
        let destination = self.pipeline.decide(request, &mut self.stream_out);
        self.send_handled(destination, activity);
    }

    /// Sends what came of a message of a connection. A request that is relayed makes the connection one that is known.
    fn send_handled(&mut self, destination: Option<Destination>, activity: &Activity) {
        if destination.is_some() {
            activity.relayed(&self.stream_out);
        }
        self.send_stream_out(destination);
    }

    fn send_elsewhere(
        worker: &RefCell<Self>,
        tcp: StreamPeer,
        messages: impl Iterator<Item = Outgoing>,
        error: &io::Error,
        tries_again: bool,
    ) {
        let mut this = worker.borrow_mut();
        this.counters().tcp.send_errors.inc();
        this.connections().remove(tcp.id);
        for message in messages {
            if message.may_try_again && tries_again {
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
        self.counters().tcp.keepalives.inc();
        self.send_stream(Outgoing {
            to: tcp.back(),
            bytes: Bytes::from_static(PONG),
            may_try_again: false,
        });
    }

    /// Answers a message that was not framed, as far as it can be read.
    fn unframed(&mut self, readable: &[u8], error: &ScanError, tcp: StreamPeer) {
        let counters = self.counters();
        counters.tcp.received.inc();
        let out = &mut self.stream_out;
        let destination = self.pipeline.unframed(readable, error, &tcp.arrival(), out);
        self.send_stream_out(destination);
    }

    /// Sends what the pipeline wrote into the buffer for streams, from wherever it is to go.
    pub(super) fn send_stream_out(&mut self, destination: Option<Destination>) {
        let Some(to) = destination else {
            return;
        };
        match to.transport {
            Transport::Tcp => self.send_stream(Outgoing {
                to,
                bytes: Bytes::copy_from_slice(&self.stream_out),
                may_try_again: true,
            }),
            Transport::Udp => {
                let draft = std::mem::take(&mut self.stream_out);
                if let Some(from) = self.udp_towards(&draft, &to) {
                    self.push_datagram(from, &draft, &to);
                }
                self.stream_out = draft;
            }
        }
    }
}
