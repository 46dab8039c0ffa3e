//! One WebSocket connection (RFC 6455, RFC 7118): the handshake, SIP messages, and pings.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use portcullis_sip::PONG;
use portcullis_websocket::{Answer, Close, Decoder, Event, Opcode, write_close, write_frame};
use tokio::io::AsyncRead;
use tokio::task::yield_now;
use tokio::time::{Instant, timeout_at};
use tracing::debug;

use super::Worker;
use super::both_halves::BothHalves;
use super::inbound::{End, Next, decide_in_turn, hand_over_in_time};
use super::reading::read_into;
use super::stream_peer::StreamPeer;
use crate::transport::{Activity, Outgoing};

/// Time limit of the handshake.
const HANDSHAKE: Duration = Duration::from_secs(5);

/// Reads a connection until it is not read any more.
pub(super) async fn read_all(
    worker: &Rc<RefCell<Worker>>,
    read: &mut (impl AsyncRead + Unpin),
    tcp: StreamPeer,
    activity: &Activity,
    both: &BothHalves,
) -> End {
    let config = worker.borrow().pipeline.shared().config.websocket.clone();
    let mut decoder = Decoder::new(config.max_message);
    if let Err(end) = shake_hands(worker, read, tcp, &mut decoder).await {
        return end;
    }
    both.set_farewell(Some(Close::GoingAway));
    let mut is_pinged = false;
    let mut deadline = Instant::now() + activity.idle_with_pings();
    let mut ping = next_ping(config.ping);
    loop {
        match take_messages(worker, &mut decoder, tcp, activity).await {
            Some(end) => {
                // A close frame is on its way.
                both.set_farewell(None);
                return end;
            }
            // The writers of the results run before more is read.
            None => yield_now().await,
        }
        let is_within_message = decoder.is_within_message();
        activity.set_input(is_within_message);
        if !is_within_message {
            // A client that answers pings stays, unless it never ends a message.
            deadline = Instant::now() + activity.idle_with_pings();
        }
        let until = ping.map_or(deadline, |ping| ping.min(deadline));
        let received = read_into(worker, read, decoder.space());
        match timeout_at(until, received).await {
            Ok(Ok(count)) if count > 0 => {
                is_pinged = false;
                ping = next_ping(config.ping);
            }
            Ok(_) => return End::Closed,
            Err(_) if ping.is_some_and(|ping| ping < deadline) && !is_pinged => {
                let mut frame = Vec::new();
                write_frame(Opcode::Ping, b"", &mut frame);
                worker.borrow().send_control(tcp, frame);
                is_pinged = true;
                ping = next_ping(config.ping);
            }
            Err(_) if !is_pinged && !is_within_message && both.take_written() => {
                deadline = Instant::now() + activity.idle_with_pings();
            }
            // Neither a pong nor anything else has come.
            Err(_) => {
                // The host does not go away.
                both.set_farewell(None);
                return End::Idle;
            }
        }
    }
}

fn next_ping(pause: Duration) -> Option<Instant> {
    (!pause.is_zero()).then(|| Instant::now() + pause)
}

/// Reads and answers the request that opens the connection. What follows it is left in the decoder.
async fn shake_hands(
    worker: &Rc<RefCell<Worker>>,
    read: &mut (impl AsyncRead + Unpin),
    tcp: StreamPeer,
    decoder: &mut Decoder,
) -> Result<(), End> {
    let until = Instant::now() + HANDSHAKE;
    let rules = worker
        .borrow()
        .pipeline
        .shared()
        .config
        .websocket
        .rules
        .clone();
    let mut received = Vec::new();
    loop {
        match timeout_at(until, read_into(worker, read, &mut received)).await {
            Ok(Ok(count)) if count > 0 => {}
            Ok(_) => return Err(End::Closed),
            Err(_) => return Err(End::Idle),
        }
        match rules.answer(&received) {
            Answer::NeedMore => {}
            Answer::Open { response, length } => {
                let rest = received.get(length..).unwrap_or_default();
                decoder.space().extend_from_slice(rest);
                worker.borrow().send_control(tcp, response);
                return Ok(());
            }
            Answer::Refused { response, refusal } => {
                debug!(
                    event = "websocket_refused",
                    source = %tcp.peer,
                    cause = refusal.label(),
                    code = refusal.code(),
                    error = %refusal,
                    "WebSocket connection refused"
                );
                let worker = worker.borrow();
                worker.counters().websockets_refused.inc();
                worker.send_control(tcp, response);
                return Err(End::Unframed);
            }
        }
    }
}

/// Handles everything that has arrived as a whole. Returns why the connection is not to be read any more, if so.
async fn take_messages(
    worker: &Rc<RefCell<Worker>>,
    decoder: &mut Decoder,
    tcp: StreamPeer,
    activity: &Activity,
) -> Option<End> {
    loop {
        if worker.borrow().is_ending {
            // The writer ends the connection when everything is sent.
            return std::future::pending().await;
        }
        let next = Worker::take_events(worker, decoder, tcp, activity);
        super::udp::flush_all(worker).await;
        match next {
            Ok(Next::Bytes) => return None,
            Ok(Next::Nothing) => return Some(End::Unframed),
            Ok(Next::Turn(request)) => decide_in_turn(worker, request, activity).await,
            Ok(Next::Room(owner, item)) => hand_over_in_time(worker, owner, item).await,
            Err(end) => return Some(end),
        }
    }
}

impl Worker {
    /// Handles every event, up to a message for which the connection has to wait.
    fn take_events(
        worker: &Rc<RefCell<Self>>,
        decoder: &mut Decoder,
        tcp: StreamPeer,
        activity: &Activity,
    ) -> Result<Next, End> {
        let mut this = worker.borrow_mut();
        this.pipeline.refresh();
        loop {
            match decoder.next_event() {
                Ok(Event::NeedMore) => return Ok(Next::Bytes),
                Ok(Event::Message(message)) if is_keep_alive(message) => {
                    activity.kept_alive();
                    this.keep_alive(message, tcp);
                }
                Ok(Event::Message(message)) => {
                    if let Some(next) = this.message(message, tcp, activity) {
                        return Ok(next);
                    }
                }
                Ok(Event::Ping(payload)) => {
                    activity.kept_alive();
                    this.wire(tcp.transport).keepalives.inc();
                    let mut frame = Vec::new();
                    write_frame(Opcode::Pong, payload, &mut frame);
                    this.send_control(tcp, frame);
                }
                Ok(Event::Pong) => {
                    activity.kept_alive();
                    this.wire(tcp.transport).keepalives.inc();
                }
                Ok(Event::Close) => {
                    this.close(tcp, Close::Normal);
                    return Err(End::Closed);
                }
                Err(close) => {
                    debug!(
                        event = "websocket_closed",
                        source = %tcp.peer,
                        code = close.code(),
                        "WebSocket connection closed: its frames are against the rules"
                    );
                    this.counters().lost.inc(portcullis_metrics::Lost::Unframed);
                    this.close(tcp, close);
                    return Ok(Next::Nothing);
                }
            }
        }
    }

    /// Answers the keep-alive of RFC 5626 §3.5.1, which some clients send over WebSocket, too.
    fn keep_alive(&self, message: &[u8], tcp: StreamPeer) {
        self.wire(tcp.transport).keepalives.inc();
        if message == b"\r\n\r\n" {
            let mut frame = Vec::new();
            write_frame(Opcode::Text, PONG, &mut frame);
            self.send_control(tcp, frame);
        }
    }

    fn close(&self, tcp: StreamPeer, close: Close) {
        let mut frame = Vec::new();
        write_close(close, &mut frame);
        self.send_control(tcp, frame);
    }

    /// Sends bytes of the connection itself. A peer that reads too slowly misses them.
    fn send_control(&self, tcp: StreamPeer, bytes: Vec<u8>) {
        let _slow_or_gone = self.connections().send(Outgoing {
            bytes: Bytes::from(bytes),
            is_control: true,
            may_try_again: false,
            ..Outgoing::of(tcp.back())
        });
    }
}

/// Whether a message has nothing but ends of lines.
fn is_keep_alive(message: &[u8]) -> bool {
    message.iter().all(|byte| matches!(byte, b'\r' | b'\n'))
}
