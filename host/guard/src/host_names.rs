//! The names of the hosts of a fleet, in pieces that fit where a ban fits.

use std::collections::{BTreeMap, BTreeSet};

use crate::shared_ban::{HostId, Item};

/// The first byte of a key with a piece of a name. No source begins with it: it is that of IPv6 multicast addresses.
const NAME: u8 = 0xff;

/// Bytes of a name in a key and in a value, and in both.
const IN_KEY: usize = 6;
const IN_VALUE: usize = 7;
const PIECE: usize = IN_KEY + IN_VALUE;

/// Pieces of a name: 65 bytes. A longer name is cut.
const PIECES: usize = 5;

/// Most hosts whose names are kept.
const MOST: usize = 1_024;

/// The names of other hosts.
#[derive(Debug, Default)]
pub(crate) struct HostNames {
    names: BTreeMap<HostId, [[u8; PIECE]; PIECES]>,
    /// Those of them that do not tell their name any more. Bans of them may still be in force, so a name is kept until another one needs its room.
    gone: BTreeSet<HostId>,
}

impl HostNames {
    /// Notes a piece of a name. False if this is none.
    pub(crate) fn note(&mut self, item: Item) -> bool {
        let [NAME, piece, key @ ..] = item.key else {
            return false;
        };
        let (host, text) = key.split_at(8);
        let host = HostId(host.iter().fold(0, |id, byte| id << 8 | u64::from(*byte)));
        let is_kept = self.names.contains_key(&host);
        // A value of 0 says that the item is gone.
        if item.value == 0 {
            if is_kept {
                self.gone.insert(host);
            }
            return true;
        }
        let piece = usize::from(piece);
        if piece >= PIECES || !(is_kept || self.make_room()) {
            return true;
        }
        self.gone.remove(&host);
        let place = &mut self.names.entry(host).or_default()[piece];
        place[..IN_KEY].copy_from_slice(text);
        place[IN_KEY..].copy_from_slice(&item.value.to_be_bytes()[..IN_VALUE]);
        true
    }

    /// The name of a host, if the host has sent it. Text of another host: escape it.
    pub(crate) fn name(&self, host: HostId) -> Option<String> {
        let bytes = self.names.get(&host)?.as_flattened();
        let bytes = bytes.split(|byte| *byte == 0).next()?;
        (!bytes.is_empty()).then(|| String::from_utf8_lossy(bytes).into_owned())
    }

    /// Forgets the name of a host that is gone, if there is no room for another one. False if there is none.
    fn make_room(&mut self) -> bool {
        if self.names.len() >= MOST
            && let Some(gone) = self.gone.pop_first()
        {
            self.names.remove(&gone);
        }
        self.names.len() < MOST
    }
}

/// The name of a host in items that count until this time.
pub(crate) fn pieces(host: HostId, name: &str, ends: u64) -> impl Iterator<Item = Item> {
    let chunks = name.as_bytes().chunks(PIECE).take(PIECES);
    (0_u8..).zip(chunks).map(move |(piece, chunk)| {
        let mut text = [0; PIECE];
        text[..chunk.len()].copy_from_slice(chunk);
        let mut key = [0; 16];
        key[..2].copy_from_slice(&[NAME, piece]);
        key[2..10].copy_from_slice(&host.0.to_be_bytes());
        key[10..].copy_from_slice(&text[..IN_KEY]);
        // A value is never 0.
        let mut value = [1; 8];
        value[..IN_VALUE].copy_from_slice(&text[IN_KEY..]);
        Item {
            key,
            value: u64::from_be_bytes(value),
            ends,
        }
    })
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_name_arrives_in_any_order_of_its_pieces() {
        let mut names = HostNames::default();
        for name in ["a", "edge-7.example.org", &"x".repeat(64)] {
            let host = HostId::new();
            assert_eq!(names.name(host), None);
            let pieces: Vec<_> = pieces(host, name, 9).collect();
            for piece in pieces.into_iter().rev() {
                assert!(piece.value > 0 && names.note(piece));
            }
            assert_eq!(names.name(host).as_deref(), Some(name));
        }
    }

    #[test]
    fn what_is_no_name_is_none_and_a_piece_too_many_is_nothing() {
        let mut names = HostNames::default();
        let item = Item {
            key: [0; 16],
            value: 7,
            ends: 9,
        };
        assert!(!names.note(item));
        let host = HostId::new();
        let piece = pieces(host, "edge-7", 9).next().unwrap();
        let mut key = piece.key;
        key[1] = 200;
        assert!(names.note(Item { key, ..piece }));
        assert!(names.note(Item { value: 0, ..piece }));
        assert_eq!(names.name(host), None);
    }

    #[test]
    fn names_of_few_hosts_are_kept() {
        let mut names = HostNames::default();
        for number in 0..100_000 {
            pieces(HostId(number), "edge", 9).for_each(|piece| {
                names.note(piece);
            });
        }
        assert_eq!(names.names.len(), MOST);
    }

    #[test]
    fn the_name_of_a_host_that_is_gone_makes_room_for_another_one() {
        let mut names = HostNames::default();
        let note = |names: &mut HostNames, host: u64, value: u64| {
            let piece = pieces(HostId(host), "edge", 9).next().unwrap();
            names.note(Item {
                value: piece.value * value,
                ..piece
            });
        };
        let last = MOST as u64;
        (0..last).for_each(|host| note(&mut names, host, 1));
        note(&mut names, last, 1);
        assert_eq!(names.name(HostId(last)), None, "all others are there");
        // Two are gone, and one of them comes back.
        [7, 8].iter().for_each(|host| note(&mut names, *host, 0));
        note(&mut names, 7, 1);
        assert_eq!(names.name(HostId(8)).as_deref(), Some("edge"));
        for host in [last, last + 1] {
            note(&mut names, host, 1);
        }
        let known = [7, 8, last, last + 1].map(|host| names.name(HostId(host)).is_some());
        assert_eq!(known, [true, false, true, false]);
        assert!(names.gone.is_empty());
    }
}
