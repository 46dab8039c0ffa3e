//! Reports how a message was handled: one structured event at `debug` for each message that was refused, dropped or lost, one line for
//! each trace that matches it, and one for the capture server. The capture server also gets copies of all messages.
//!
//! While neither the log nor a trace nor a capture server needs it, this costs a check of the log level, of the number of traces and of the
//! server; nothing is formatted.

use std::fmt::Display;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use portcullis_capture::Way;
use portcullis_metrics::{Label, Lost};
use portcullis_sip::{Arrival, Destination, HeaderName, Message, StartLine, Transport};
use tracing::{Level, debug, enabled};

use super::fate::{Fate, Rejected};
use super::judge::Judgement;
use crate::notices::{self, Example, Trouble};
use crate::shared::Shared;
use crate::trace::{self, Entry, Fields, Outcome};

/// Bytes of a first line that are shown.
const FIRST_LINE: usize = 120;

/// Bytes of an unreadable message that are searched for a Call-ID.
const SEARCHED: usize = 8 << 10;

/// Reports what happens to the messages of one worker: to the log, to traces, and to the notices for operators.
#[derive(Clone)]
pub(crate) struct Reporter {
    shared: Arc<Shared>,
    number: usize,
}

/// A message that a transport could not carry.
pub(crate) struct Loss<'a> {
    pub(crate) lost: Lost,
    /// The message, or its beginning; empty if there is none.
    pub(crate) bytes: &'a [u8],
    pub(crate) transport: Transport,
    /// Its source or destination.
    pub(crate) peer: SocketAddr,
    pub(crate) detail: &'a dyn Display,
}

impl Reporter {
    /// The reporter of the worker with this number.
    pub(super) fn new(shared: Arc<Shared>, number: usize) -> Self {
        Self { shared, number }
    }

    /// Whether the log, a trace or the capture server needs the outcome of messages.
    #[inline]
    pub(super) fn is_watched(&self) -> bool {
        enabled!(Level::DEBUG)
            || self.shared.notices.traces.is_any()
            || self.shared.captures_verdicts()
    }

    /// Copies a received message for the capture server.
    #[inline]
    pub(super) fn received(&self, bytes: &[u8], arrival: &Arrival) {
        if let Some(capture) = &self.shared.capture {
            capture.message(&way_in(arrival), bytes);
        }
    }

    /// Copies a message that is sent, from this address if it is known, for the capture server.
    #[inline]
    pub(crate) fn sent(&self, bytes: &[u8], to: &Destination, from: Option<SocketAddr>) {
        if let Some(capture) = &self.shared.capture {
            capture.message(&self.way_out(to, from), bytes);
        }
    }

    /// The address of the host is that of a listener, if nothing else is known: a stream that the host has opened has a port of its own.
    #[cold]
    fn way_out(&self, to: &Destination, from: Option<SocketAddr>) -> Way {
        let listener = || {
            let fits = self.shared.listen.iter().find(|bound| {
                bound.transport == to.transport && bound.addr.is_ipv4() == to.addr.is_ipv4()
            });
            fits.map(|bound| bound.addr)
        };
        let from = from.or(to.from).or_else(listener);
        let unknown = || match to.addr {
            SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
            SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
        };
        Way {
            transport: to.transport,
            from: from.unwrap_or_else(unknown),
            to: to.addr,
        }
    }

    /// Reports the outcome of a message, to be called only if [`Reporter::is_watched`] is true.
    #[cold]
    pub(super) fn report(
        &self,
        message: Message<'_>,
        arrival: &Arrival,
        judgement: Option<&Judgement>,
        fate: Fate<'_>,
    ) {
        if enabled!(Level::DEBUG) {
            log(message, arrival, judgement, fate);
        }
        let traces = &self.shared.notices.traces;
        let asked = judgement.map_or(&[][..], |judgement| &judgement.asked);
        if traces.is_any() && traces.want(message, arrival, asked) {
            traces.show(message, arrival, &entry(message, arrival, judgement, fate));
        }
        if let Some(capture) = self.shared.capture.as_ref().filter(|c| c.has_verdicts())
            && (judgement.is_some() || matches!(fate, Fate::Rejected(_) | Fate::Dropped { .. }))
        {
            capture.log(&way_in(arrival), message.bytes(), || {
                entry(message, arrival, judgement, fate).line()
            });
        }
    }

    /// Counts a condition that the operator has to fix, without a message.
    pub(crate) fn note(&self, trouble: Trouble, count: u64, example: impl FnOnce() -> Example) {
        self.shared
            .notices
            .note(self.number, trouble, count, example);
    }

    /// Counts and reports a message that a transport could not carry.
    #[cold]
    pub(crate) fn lose(&self, loss: &Loss<'_>) {
        self.shared.counters[self.number].lost.inc(loss.lost);
        self.report_loss(loss, 1);
    }

    /// Reports such a message that has been counted, to be called only if [`Reporter::is_watched`] is true.
    #[cold]
    pub(super) fn show_loss(&self, loss: &Loss<'_>) {
        self.trace_loss(loss);
        log_loss(loss);
    }

    /// Counts datagrams that the system refused to send, and reports the last of them.
    #[cold]
    pub(crate) fn lose_refused(
        &self,
        count: u64,
        bytes: &[u8],
        peer: SocketAddr,
        error: &std::io::Error,
    ) {
        let loss = Loss {
            lost: Lost::SendError,
            bytes,
            transport: Transport::Udp,
            peer,
            detail: error,
        };
        let is_too_large = error.raw_os_error() == Some(nix::errno::Errno::EMSGSIZE as i32);
        if is_too_large {
            let example = || Example::new(call_id_in(bytes), Some(peer), error.to_string());
            self.note(Trouble::DatagramTooLarge, count, example);
            self.trace_loss(&loss);
            return log_loss(&loss);
        }
        self.report_loss(&loss, count);
    }

    /// Reports a request that was not delivered to its next hop. `is_down`: the next hop refused the connection.
    #[cold]
    pub(crate) fn lose_undelivered(
        &self,
        bytes: &[u8],
        to: &Destination,
        error: &dyn Display,
        is_down: bool,
    ) {
        let lost = match to.is_flow {
            true => Lost::FlowGone,
            false => Lost::NoConnection,
        };
        self.shared.counters[self.number].lost.inc(lost);
        let loss = Loss {
            lost,
            bytes,
            transport: to.transport,
            peer: to.addr,
            detail: error,
        };
        self.trace_loss(&loss);
        // That a client leaves is its own affair.
        let is_response = (bytes.get(..4)).is_some_and(|start| start.eq_ignore_ascii_case(b"SIP/"));
        if is_response || to.is_flow {
            return log_loss(&loss);
        }
        let call_id = call_id_in(bytes);
        if is_down {
            let error = error.to_string();
            let hops = &self.shared.notices.hops;
            hops.failed(to.addr, &error, call_id, Instant::now());
        }
        let example = || Example::new(call_id, Some(to.addr), error.to_string());
        self.note(Trouble::NextHopUnreachable, 1, example);
        debug!(
            event = "next_hop_unreachable",
            next_hop = %to.addr,
            transport = to.transport.parameter(),
            first_line = first_line(bytes),
            call_id = notices::cut(call_id),
            %error,
            "request not delivered to its next hop"
        );
    }

    fn report_loss(&self, loss: &Loss<'_>, count: u64) {
        if let Some(trouble) = Trouble::of_loss(loss.lost) {
            let example = || {
                let call_id = call_id_in(loss.bytes);
                Example::new(call_id, Some(loss.peer), loss.detail.to_string())
            };
            self.note(trouble, count, example);
        }
        self.trace_loss(loss);
        log_loss(loss);
    }

    /// Shows a loss to the traces that match the message.
    fn trace_loss(&self, loss: &Loss<'_>) {
        let traces = &self.shared.notices.traces;
        if !traces.is_any() {
            return;
        }
        let call_id = call_id_in(loss.bytes);
        let fields = Fields {
            transport: loss.transport.parameter(),
            first_line: first_line(loss.bytes),
            call_id: notices::cut(call_id),
            ..Fields::default()
        };
        let mut entry = Entry::new(fields, Outcome::Undelivered);
        entry.cause = Some(loss.lost.label());
        entry.detail = Some(loss.detail.to_string());
        entry.next = Some(loss.peer);
        traces.show_loss(call_id, &entry);
    }
}

/// The way of a received message.
fn way_in(arrival: &Arrival) -> Way {
    Way {
        transport: arrival.transport,
        from: arrival.source,
        to: arrival.local,
    }
}

/// One event for a message that was refused or dropped.
fn log(message: Message<'_>, arrival: &Arrival, judgement: Option<&Judgement>, fate: Fate<'_>) {
    let source = arrival.source;
    let transport = arrival.transport.parameter();
    let call_id = call_id_of(message);
    let tenant = judgement.and_then(|judgement| judgement.tenant.as_deref());
    let tenant = tenant.map(|tenant| &*tenant.name);
    let decided = judgement.and_then(|judgement| judgement.decided.as_ref());
    let policy = decided.map(|(seat, _)| &**seat);
    let generation = decided.map(|(_, generation)| *generation);
    let decision = judgement.and_then(|judgement| judgement.id);
    let decision = decision.map(tracing::field::display);
    match fate {
        Fate::Rejected(Rejected {
            code,
            reason,
            cause,
            detail,
        }) => debug!(
            event = "request_rejected",
            code,
            reason,
            cause,
            %source,
            transport,
            method = method_of(message),
            call_id,
            tenant,
            policy,
            generation,
            decision,
            detail = detail.map(tracing::field::display),
            "request rejected"
        ),
        Fate::Dropped { cause, detail } => debug!(
            event = "message_dropped",
            cause,
            %source,
            transport,
            first_line = first_line(message.bytes()),
            call_id,
            tenant,
            policy,
            generation,
            decision,
            detail = detail.map(tracing::field::display),
            "message dropped"
        ),
        Fate::Answered { .. } | Fate::Relayed(_) | Fate::Returned(_) | Fate::Absorbed => {}
    }
}

/// A message as a trace shows it.
fn entry<'a>(
    message: Message<'_>,
    arrival: &Arrival,
    judgement: Option<&'a Judgement>,
    fate: Fate<'_>,
) -> Entry<'a> {
    let line = first_line(message.bytes());
    let fields = Fields::of(message, arrival, line, call_id_of(message));
    let mut entry = Entry::new(fields, outcome_of(fate));
    match fate {
        Fate::Answered { code, reason } => {
            entry.code = Some(code);
            entry.reason = Some(reason.to_owned());
        }
        Fate::Relayed(to) | Fate::Returned(to) => {
            entry.next = Some(to.addr);
            entry.code = trace::code_of(message);
        }
        Fate::Absorbed => {}
        Fate::Rejected(Rejected {
            code,
            reason,
            cause,
            detail,
        }) => {
            entry.code = Some(code);
            entry.reason = Some(reason.to_owned());
            entry.cause = Some(cause);
            entry.detail = detail.map(ToString::to_string);
        }
        Fate::Dropped { cause, detail } => {
            entry.cause = Some(cause);
            entry.detail = detail.map(ToString::to_string);
        }
    }
    if let Some(judgement) = judgement {
        entry.tenant = judgement.tenant.as_deref().map(|tenant| &*tenant.name);
        entry.asked = &judgement.asked;
        entry.decision = judgement.id.map(|id| id.to_string());
        entry.cause = entry.cause.or_else(|| Some(judgement.cause.label()));
    }
    entry
}

fn outcome_of(fate: Fate<'_>) -> Outcome {
    match fate {
        Fate::Answered { .. } => Outcome::Answered,
        Fate::Relayed(_) => Outcome::Relayed,
        Fate::Returned(_) => Outcome::Returned,
        Fate::Absorbed => Outcome::Absorbed,
        Fate::Rejected(_) => Outcome::Rejected,
        Fate::Dropped { .. } => Outcome::Dropped,
    }
}

fn log_loss(loss: &Loss<'_>) {
    debug!(
        event = "message_dropped",
        cause = loss.lost.label(),
        peer = %loss.peer,
        transport = loss.transport.parameter(),
        first_line = first_line(loss.bytes),
        call_id = notices::cut(call_id_in(loss.bytes)),
        detail = %loss.detail,
        "message dropped"
    );
}

/// The method of a request; empty for a response.
fn method_of(message: Message<'_>) -> String {
    match message.start_line() {
        StartLine::Request { method, .. } => shown(method, FIRST_LINE),
        StartLine::Response { .. } => String::new(),
    }
}

/// The Call-ID as far as it can be parsed.
fn call_id_of(message: Message<'_>) -> String {
    match message.header(HeaderName::CallId) {
        Some(field) => notices::cut(field.value),
        None => notices::cut(call_id_in(message.bytes())),
    }
}

/// Searches for a Call-ID in bytes that need not be a valid message.
fn call_id_in(bytes: &[u8]) -> &[u8] {
    let searched = bytes.get(..SEARCHED).unwrap_or(bytes);
    let mut lines = searched.split(|byte| *byte == b'\n').skip(1);
    let found = lines.find_map(|line| {
        let colon = line.iter().position(|byte| *byte == b':')?;
        let name = line[..colon].trim_ascii();
        let is_it = name.eq_ignore_ascii_case(b"Call-ID") || name.eq_ignore_ascii_case(b"i");
        is_it.then(|| line[colon + 1..].trim_ascii())
    });
    found.unwrap_or_default()
}

fn first_line(bytes: &[u8]) -> String {
    let start = bytes.iter().position(|byte| !byte.is_ascii_whitespace());
    let bytes = bytes.get(start.unwrap_or_default()..).unwrap_or_default();
    let end = bytes.iter().position(|byte| matches!(byte, b'\r' | b'\n'));
    shown(&bytes[..end.unwrap_or(bytes.len())], FIRST_LINE)
}

/// Received bytes as text for the log.
fn shown(bytes: &[u8], most: usize) -> String {
    let cut = bytes.get(..most).unwrap_or(bytes);
    portcullis_text::clean(&String::from_utf8_lossy(cut)).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_id_is_found_in_what_is_no_message() {
        for (bytes, call_id) in [
            (&b"INVITE x\r\nCALL-ID : a@b \r\n\r\n"[..], "a@b"),
            (b"INVITE x\ni:c\nVia: y\n", "c"),
            (b"\r\nINVITE x\r\nVia: i:j\r\n", ""),
            (b"junk", ""),
            (b"", ""),
        ] {
            assert_eq!(call_id_in(bytes), call_id.as_bytes());
        }
    }

    #[test]
    fn the_first_line_is_shown_harmless_and_short() {
        assert_eq!(
            first_line(b"\r\n\r\nINVITE \x1b[31m\r\nVia: x"),
            "INVITE \\u{1b}[31m"
        );
        assert_eq!(first_line(b"\xff\xfe"), "\u{fffd}\u{fffd}");
        assert_eq!(first_line(&[b'x'; 9000]).len(), FIRST_LINE);
        assert_eq!(first_line(b""), "");
    }
}
