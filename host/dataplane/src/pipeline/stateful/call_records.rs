//! Call records: a line for each attempt, and one for each transaction.

use std::sync::Arc;
use std::time::Duration;

use portcullis_records::calls::{Call, Happened};
use portcullis_sip::{Arrival, HeaderName, Message, NameAddr, StartLine};
use portcullis_transaction::{Attempt, End};

use super::relay::{Relay, cause_of};
use crate::pipeline::judge::Judgement;

/// What the call records of a request have in common.
#[cold]
pub(super) fn call_of(judgement: &Judgement, message: Message<'_>, arrival: &Arrival) -> Call {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (method, uri) = match message.start_line() {
        StartLine::Request { method, uri, .. } => (method, uri),
        StartLine::Response { .. } => (&b""[..], &b""[..]),
    };
    let party = |name| {
        let field = message.header(name);
        let party = field.and_then(|field| NameAddr::parse(field.value).ok());
        party.map(|party| text(party.uri)).unwrap_or_default()
    };
    let call_id = message.header(HeaderName::CallId);
    let tenant = judgement.tenant.as_ref();
    Call {
        id: judgement.id,
        tenant: tenant.map_or_else(|| "default".into(), |tenant| Arc::clone(&tenant.name)),
        source: arrival.source,
        transport: arrival.transport,
        method: text(method),
        uri: text(uri),
        from: party(HeaderName::From),
        to: party(HeaderName::To),
        call_id: call_id.map_or_else(String::new, |field| text(field.value)),
    }
}

/// The result of the target with this number.
pub(super) fn attempted(relay: &Relay, number: u8, attempt: &Attempt, call: &Call) -> Happened {
    Happened::Attempt {
        target: relay.place(number, || call.uri.clone()),
        status: attempt.code,
        cause: cause_of(attempt.cause).as_str(),
        ms: millis(attempt.took),
    }
}

/// The end of a transaction.
pub(super) fn ended(end: &End) -> Happened {
    Happened::Transaction {
        status: end.code,
        attempts: end.attempts,
        cancelled: end.cancelled,
        first_response_ms: end.first_response.map(millis),
        final_response_ms: end.final_response.map(millis),
        ms: millis(end.took),
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
