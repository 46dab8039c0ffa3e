//! Which hosts live, and which of their packets are good.

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::counts::Refusal;
use crate::envelope::{self, Carried, Content, Head, Hello};
use crate::keys::Keys;
use crate::table::{Peer, Place, Table};
use crate::window::Window;

/// How often each host is greeted.
pub(crate) const INTERVAL: Duration = Duration::from_millis(200);

/// A host that has been silent for this long does not live.
pub(crate) const SILENCE: Duration = Duration::from_secs(1);

/// Challenges that a host may still return: those of the last [`SILENCE`] and of the way back.
const CHALLENGES: usize = 8;

/// The shortest time between two packets to a process that is not known yet: its packets are answered at once.
const AT_ONCE: Duration = Duration::from_millis(20);

/// What this host says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Own {
    /// Whether it takes new requests.
    pub(crate) serves: bool,
    /// The names of its sockets.
    pub(crate) sockets: Vec<u64>,
}

/// All other hosts.
pub(crate) struct Roster {
    addr: SocketAddr,
    session: u64,
    keys: Arc<Keys>,
    own_tags: Box<[NonZeroU32]>,
    others: Vec<Other>,
    challenges: u64,
}

/// Another host.
struct Other {
    addr: SocketAddr,
    tags: Box<[NonZeroU32]>,
    /// The session of its process, when it has returned a challenge.
    session: Option<u64>,
    /// When it last returned a challenge.
    heard: Option<Instant>,
    /// The last challenges that it was sent.
    sent: [Option<u64>; CHALLENGES],
    sent_at: Option<Instant>,
    /// Its last challenge.
    challenge: u64,
    serves: bool,
    sockets: Box<[u64]>,
    window: Window,
}

/// What is to be done about a packet.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Then<'a> {
    /// Nothing.
    Nothing,
    /// The host with this number is to be greeted at once.
    Greet(usize),
    /// A worker gets this message.
    Deliver(Carried<'a>),
    /// It is dropped.
    Refuse(Refusal),
}

impl Roster {
    pub(crate) fn new(
        addr: SocketAddr,
        others: &[SocketAddr],
        keys: Arc<Keys>,
        session: u64,
    ) -> Self {
        let other = |&addr: &SocketAddr| Other {
            addr,
            tags: keys.tags(addr),
            session: None,
            heard: None,
            sent: [None; CHALLENGES],
            sent_at: None,
            challenge: 0,
            serves: false,
            sockets: Box::default(),
            window: Window::default(),
        };
        Self {
            addr,
            session,
            own_tags: keys.tags(addr),
            others: others.iter().map(other).collect(),
            challenges: 0,
            keys,
        }
    }

    /// The hosts that are to be greeted now.
    pub(crate) fn due(&self, now: Instant) -> Vec<usize> {
        let is_due = |other: &Other| {
            let age = other.sent_at.map(|at| now.saturating_duration_since(at));
            age.is_none_or(|age| age >= INTERVAL)
        };
        let others = self.others.iter().enumerate();
        let due = others.filter(|(_, other)| is_due(other));
        due.map(|(number, _)| number).collect()
    }

    /// Writes a packet that says to a host that this one lives. Returns where to send it.
    pub(crate) fn greet(
        &mut self,
        number: usize,
        now: Instant,
        own: &Own,
        out: &mut Vec<u8>,
    ) -> Option<SocketAddr> {
        let key = self.keys.current();
        let other = self.others.get_mut(number)?;
        self.challenges += 1;
        let challenge = key.challenge(self.session, self.challenges);
        other.sent.rotate_right(1);
        other.sent[0] = Some(challenge);
        other.sent_at = Some(now);
        let hello = Hello {
            challenge,
            returned: other.challenge,
            serves: own.serves,
            sockets: own.sockets.clone(),
        };
        let head = Head {
            sender: self.own_tags[0].get(),
            receiver: other.tags[0].get(),
            session: self.session,
            receiver_session: other.session.unwrap_or(0),
        };
        hello.write(&head, key, out);
        Some(other.addr)
    }

    /// Decides on a received packet.
    pub(crate) fn received<'p>(&mut self, packet: &'p [u8], now: Instant) -> Then<'p> {
        let Some((key, sealed)) = self.keys.open(packet) else {
            return Then::Refuse(Refusal::Unsealed);
        };
        let Some((head, content)) = envelope::read(sealed) else {
            return Then::Refuse(Refusal::Unsealed);
        };
        let is_for_us = self.own_tags[key].get() == head.receiver;
        let mut others = self.others.iter_mut();
        let sender = others.position(|other| other.tags[key].get() == head.sender);
        let Some(number) = sender.filter(|_| is_for_us) else {
            return Then::Refuse(Refusal::Stranger);
        };
        let other = &mut self.others[number];
        match content {
            Content::Hello(hello) => {
                let is_known = other.is_alive(now) && other.session == Some(head.session);
                other.hear(&head, hello, now);
                let age = other.sent_at.map(|at| now.saturating_duration_since(at));
                match !is_known && age.is_none_or(|age| age >= AT_ONCE) {
                    true => Then::Greet(number),
                    false => Then::Nothing,
                }
            }
            Content::Message(count, carried) => {
                let is_of_session =
                    head.receiver_session == self.session && Some(head.session) == other.session;
                if !is_of_session {
                    return Then::Refuse(Refusal::Session);
                }
                if !other.window.accepts(count) {
                    return Then::Refuse(Refusal::Replayed);
                }
                Then::Deliver(carried)
            }
        }
    }

    /// The hosts that live, with this host if it takes new requests.
    pub(crate) fn table(&self, now: Instant, own: &Own) -> Table {
        let alive = self.others.iter().filter(|other| other.is_alive(now));
        let peers = alive.filter_map(|other| {
            Some(Peer {
                addr: other.addr,
                tags: other.tags.clone(),
                session: other.session?,
                sockets: other.sockets.clone(),
                serves: other.serves,
                place: Place::of(other.addr),
            })
        });
        Table {
            own: own.serves.then(|| Place::of(self.addr)),
            peers: peers.collect(),
        }
    }
}

impl Other {
    fn is_alive(&self, now: Instant) -> bool {
        let silent = self.heard.map(|at| now.saturating_duration_since(at));
        silent.is_some_and(|silent| silent < SILENCE)
    }

    /// Notes what a host says of itself, and whether it lives: only its process can return a challenge of the last seconds.
    fn hear(&mut self, head: &Head, hello: Hello, now: Instant) {
        let returned = Some(hello.returned);
        let place = self.sent.iter().position(|sent| *sent == returned);
        // A packet that comes late, or that somebody sends again, must not replace the challenge that the process expects back.
        let is_known = self.is_alive(now) && self.session == Some(head.session);
        if place.is_none() && is_known {
            return;
        }
        self.challenge = hello.challenge;
        let Some(place) = place else {
            return;
        };
        // What was sent before that one is of no use any more, and a packet that returns it is an old one.
        self.sent
            .iter_mut()
            .skip(place + 1)
            .for_each(|it| *it = None);
        if self.session != Some(head.session) {
            self.session = Some(head.session);
            self.window = Window::default();
        }
        self.heard = Some(now);
        self.serves = hello.serves;
        if *self.sockets != *hello.sockets {
            self.sockets = hello.sockets.into();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::socket::Socket;

    fn addr(number: u8) -> SocketAddr {
        ([10, 0, 0, number], 5070).into()
    }

    const SHARED: Socket = Socket { number: 0, name: 7 };

    fn own() -> Own {
        Own {
            serves: true,
            sockets: vec![SHARED.name],
        }
    }

    fn roster(own: u8, session: u64, keys: &[[u8; 16]]) -> Roster {
        let others = [1, 2].map(addr).into_iter();
        let others: Vec<_> = others.filter(|other| *other != addr(own)).collect();
        let keys = Keys::new(&keys[0], &keys[1..]);
        Roster::new(addr(own), &others, Arc::new(keys), session)
    }

    fn greeting(roster: &mut Roster, now: Instant) -> Vec<u8> {
        let mut packet = Vec::new();
        roster.greet(0, now, &own(), &mut packet).unwrap();
        packet
    }

    /// Each greets the other until both know that the other one lives.
    fn meet(one: &mut Roster, other: &mut Roster, now: Instant) {
        for _ in 0..2 {
            let packet = greeting(one, now);
            other.received(&packet, now);
            let packet = greeting(other, now);
            one.received(&packet, now);
        }
        assert_eq!(one.table(now, &own()).count(), 1);
        assert_eq!(other.table(now, &own()).count(), 1);
    }

    fn message(from: &Roster, to: &Roster, count: u64, now: Instant) -> Vec<u8> {
        let table = from.table(now, &own());
        let peer = &table.peers[0];
        assert_eq!(peer.addr, to.addr);
        let carried = Carried {
            transaction: 7,
            source: "192.0.2.10:5060".parse().unwrap(),
            socket: SHARED.number,
            bytes: b"SIP/2.0 200 OK\r\n\r\n",
        };
        let head = Head {
            sender: from.own_tags[0].get(),
            receiver: peer.tags[0].get(),
            session: from.session,
            receiver_session: peer.session,
        };
        let mut packet = Vec::new();
        assert!(carried.write(&head, count, from.keys.current(), &mut packet));
        packet
    }

    fn refused(then: &Then<'_>) -> Option<Refusal> {
        match then {
            Then::Refuse(why) => Some(*why),
            Then::Nothing | Then::Greet(_) | Then::Deliver(_) => None,
        }
    }

    #[test]
    fn a_host_lives_while_it_returns_challenges() {
        let now = Instant::now();
        let (mut one, mut two) = (roster(1, 11, &[[7; 16]]), roster(2, 22, &[[7; 16]]));
        assert_eq!(one.due(now), [0]);
        let first = greeting(&mut one, now);
        assert_eq!(one.due(now), [0; 0]);
        assert_eq!(two.received(&first, now), Then::Greet(0));
        assert_eq!(
            two.table(now, &own()).count(),
            0,
            "the packet may be an old one"
        );
        let answer = greeting(&mut two, now);
        one.received(&answer, now);
        assert_eq!(one.table(now, &own()).count(), 1);
        let second = greeting(&mut one, now + AT_ONCE);
        two.received(&second, now + AT_ONCE);
        assert_eq!(two.table(now + AT_ONCE, &own()).count(), 1);
        assert_eq!(two.table(now + AT_ONCE + SILENCE, &own()).count(), 0);
        assert_eq!(one.due(now + AT_ONCE + INTERVAL), [0]);
    }

    #[test]
    fn an_old_greeting_proves_nothing() {
        let start = Instant::now();
        let (mut one, mut two) = (roster(1, 11, &[[7; 16]]), roster(2, 22, &[[7; 16]]));
        meet(&mut one, &mut two, start);
        let old = greeting(&mut one, start);
        two.received(&old, start);
        // The first host is gone. The second one goes on to greet it.
        let mut now = start;
        for _ in 0..CHALLENGES {
            now += INTERVAL;
            greeting(&mut two, now);
        }
        assert_eq!(two.table(now, &own()).count(), 0);
        two.received(&old, now);
        assert_eq!(two.table(now, &own()).count(), 0);
    }

    #[test]
    fn a_message_is_delivered_once_and_to_the_process_that_it_is_for() {
        let now = Instant::now();
        let keys = &[[7; 16]];
        let (mut one, mut two) = (roster(1, 11, keys), roster(2, 22, keys));
        meet(&mut one, &mut two, now);
        let packet = message(&one, &two, 5, now);
        assert!(matches!(two.received(&packet, now), Then::Deliver(it) if it.transaction == 7));
        assert_eq!(
            refused(&two.received(&packet, now)),
            Some(Refusal::Replayed)
        );
        // A new process of the receiver, and one of the sender.
        let mut restarted = roster(2, 23, keys);
        assert_eq!(
            refused(&restarted.received(&packet, now)),
            Some(Refusal::Session)
        );
        let late = message(&one, &two, 6, now);
        let mut successor = roster(1, 12, keys);
        meet(&mut successor, &mut two, now);
        assert_eq!(refused(&two.received(&late, now)), Some(Refusal::Session));
        let first = message(&successor, &two, 1, now);
        assert!(matches!(two.received(&first, now), Then::Deliver(_)));
    }

    #[test]
    fn a_process_that_replaces_another_one_is_known_after_one_exchange() {
        let start = Instant::now();
        let (mut one, mut two) = (roster(1, 11, &[[7; 16]]), roster(2, 22, &[[7; 16]]));
        meet(&mut one, &mut two, start);
        let now = start + AT_ONCE;
        let mut successor = roster(1, 12, &[[7; 16]]);
        let first = greeting(&mut successor, now);
        assert_eq!(two.received(&first, now), Then::Greet(0));
        let asked = greeting(&mut two, now);
        let later = now + AT_ONCE;
        assert_eq!(successor.received(&asked, later), Then::Greet(0));
        let answer = greeting(&mut successor, later);
        two.received(&answer, later);
        assert_eq!(two.table(later, &own()).peers[0].session, 12);
        assert_eq!(successor.table(later, &own()).count(), 1);
    }

    #[test]
    fn foreign_and_forged_packets_are_told_apart() {
        let now = Instant::now();
        let mut two = roster(2, 22, &[[7; 16]]);
        for forged in [&b""[..], b"SIP/2.0 200 OK\r\n\r\n", &[0; 2_000]] {
            assert_eq!(refused(&two.received(forged, now)), Some(Refusal::Unsealed));
        }
        let other_key = greeting(&mut roster(1, 11, &[[8; 16]]), now);
        assert_eq!(
            refused(&two.received(&other_key, now)),
            Some(Refusal::Unsealed)
        );
        // The right key, and a host that is not configured here.
        let keys = Arc::new(Keys::new(&[7; 16], &[]));
        let mut third = Roster::new(addr(3), &[addr(2)], keys, 33);
        let packet = greeting(&mut third, now);
        assert_eq!(
            refused(&two.received(&packet, now)),
            Some(Refusal::Stranger)
        );
        // One that is for another host.
        let mut one = roster(1, 11, &[[7; 16]]);
        let for_two = greeting(&mut one, now);
        assert_eq!(
            refused(&one.received(&for_two, now)),
            Some(Refusal::Stranger)
        );
    }

    #[test]
    fn a_repeated_packet_does_not_hide_a_host() {
        let mut now = Instant::now();
        let (mut one, mut two) = (roster(1, 11, &[[7; 16]]), roster(2, 22, &[[7; 16]]));
        meet(&mut one, &mut two, now);
        let old = greeting(&mut one, now);
        for _ in 0..20 {
            now += INTERVAL;
            let packet = greeting(&mut one, now);
            two.received(&packet, now);
            two.received(&old, now);
            let packet = greeting(&mut two, now);
            one.received(&packet, now);
            for roster in [&one, &two] {
                assert_eq!(roster.table(now, &own()).count(), 1);
            }
        }
    }

    #[test]
    fn hosts_meet_while_their_key_is_replaced() {
        let now = Instant::now();
        let (old, new) = ([7; 16], [9; 16]);
        let (mut one, mut two) = (roster(1, 11, &[old, new]), roster(2, 22, &[new, old]));
        meet(&mut one, &mut two, now);
        let packet = message(&one, &two, 1, now);
        assert!(matches!(two.received(&packet, now), Then::Deliver(_)));
        // The tag that one host writes into a Via is known to the other.
        let table = two.table(now, &own());
        assert!(table.with_tag(one.own_tags[0], SHARED).is_some());
    }
}
