//! What holds for any packet: for tests and fuzz targets.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use crate::counts::Refusal;
use crate::envelope;
use crate::keys::Keys;
use crate::roster::{Roster, Then};

/// Where the tags of a packet are.
const TAGS: std::ops::Range<usize> = 5..13;

/// Receives a packet, and what it would be if the other host had sealed it.
///
/// # Panics
/// If the packet is accepted without a seal.
pub fn received(packet: &[u8]) {
    let [own, other] = [1, 2].map(|number| SocketAddr::from(([10, 0, 0, number], 5070)));
    let keys = Arc::new(Keys::new(b"a key for a test", &[]));
    let key = keys.current();
    let mut roster = Roster::new(own, &[other], Arc::clone(&keys), 1);
    let now = Instant::now();
    assert_eq!(
        roster.received(packet, now),
        Then::Refuse(Refusal::Unsealed)
    );
    let _content = envelope::read(packet);
    let mut sealed = packet.to_vec();
    if let Some(tags) = sealed.get_mut(TAGS) {
        let (sender, receiver) = tags.split_at_mut(4);
        sender.copy_from_slice(&key.tag(other).get().to_be_bytes());
        receiver.copy_from_slice(&key.tag(own).get().to_be_bytes());
    }
    sealed.extend(key.seal(&sealed));
    // Nothing can be for a process that has not been heard of.
    assert!(!matches!(roster.received(&sealed, now), Then::Deliver(_)));
}
