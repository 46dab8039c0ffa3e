//! Reads the state of tenants before their requests are decided on.
//!
//! A decision follows some ten pointers from the tenant to the machine code of its policy, and reads some 160 cache lines. With hundreds of
//! tenants most of them are in no near cache, and the processor waits for one after the other. The requests of a batch are known before the
//! first of them is decided on, so their tenants' state is read in steps, each for all requests: the reads of a step overlap.

use std::hint::black_box;

use portcullis_policy::{Evaluator, SandboxPlace};

use crate::tenants::{Tenant, Tenants};

/// Most messages of a batch.
const MOST: usize = 32;

/// Reads what the decisions on these messages will need.
pub(super) fn look_ahead<'m>(
    evaluator: &Evaluator,
    tenants: &Tenants,
    worker: usize,
    messages: impl Iterator<Item = &'m [u8]>,
) {
    let mut found: [Option<&Tenant>; MOST] = [None; MOST];
    for (place, message) in found.iter_mut().zip(messages) {
        *place = request_uri(message).and_then(|uri| tenants.guess(uri));
    }
    let found = || found.iter().flatten();
    let mut sum = 0;
    for tenant in found() {
        sum ^= usize::from(tenant.budget.is_slow(worker));
        sum ^= tenant.counters[worker].requests.value() as usize;
        sum ^= tenant.known.len();
    }
    for tenant in found() {
        sum ^= tenant.seat.read();
    }
    let mut places = [SandboxPlace::default(); MOST];
    let mut count = 0;
    for tenant in found() {
        if let Some(lineup) = &*tenant.seat.slot.guard()
            && let Some(place) = evaluator.place_of(&lineup.active.policy)
        {
            sum ^= lineup.active.stats.time_of(worker) as usize;
            places[count] = place;
            count += 1;
        }
    }
    black_box(sum);
    evaluator.look_ahead(&places[..count]);
}

/// Bytes of a method and of a request URI within which their ends are looked for.
const LONGEST_METHOD: usize = 16;
const LONGEST_URI: usize = 256;

/// The request URI of a message that looks like a request.
fn request_uri(message: &[u8]) -> Option<&[u8]> {
    let is_space = |byte: &u8| *byte == b' ';
    let begin = message.iter().take(LONGEST_METHOD).position(is_space)? + 1;
    let rest = message.get(begin..)?;
    let end = rest.iter().take(LONGEST_URI).position(is_space)?;
    rest.get(..end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_uri_stands_between_the_first_spaces() {
        let uri = |message: &str| request_uri(message.as_bytes()).map(<[u8]>::to_vec);
        assert_eq!(
            uri("INVITE sip:x@example.com SIP/2.0\r\nVia: a b"),
            Some(b"sip:x@example.com".to_vec())
        );
        assert_eq!(uri("INVITE  SIP/2.0"), Some(Vec::new()));
        let long = format!("INVITE sip:{} SIP/2.0", "x".repeat(LONGEST_URI));
        for message in [
            "",
            "INVITE",
            "INVITE sip:x",
            "NO-METHOD-IS-SO-LONG sip:x SIP/2.0",
            &long,
        ] {
            assert_eq!(uri(message), None, "{message}");
        }
    }
}
