//! How connections are found, which of them makes room, and how they end.

use portcullis_sip::Transport;

use super::*;

fn peer(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

fn remote(addr: SocketAddr) -> Remote {
    Remote {
        transport: Transport::Tcp,
        addr,
        name: None,
    }
}

fn message(id: Option<ConnectionId>, text: &'static str) -> Outgoing {
    Outgoing {
        to: Destination {
            transport: Transport::Tcp,
            addr: peer(1),
            from: None,
            connection: id,
            name: None,
            is_flow: false,
        },
        bytes: Bytes::from_static(text.as_bytes()),
        may_try_again: true,
        is_control: false,
    }
}

fn send(connections: &Connections, id: Option<ConnectionId>, text: &'static str) {
    let sent = connections.send(message(id, text));
    assert!(matches!(sent, Sent::Queued), "{sent:?}");
}

fn taken(queue: &Queue) -> Option<Bytes> {
    queue.next_now().map(|message| message.bytes)
}

const BOUNDS: ConnectionLimits = ConnectionLimits {
    total: 8,
    per_address: 4,
};

fn connections() -> Arc<Connections> {
    Arc::new(Connections::new(BOUNDS))
}

fn add(connections: &Arc<Connections>, peer: SocketAddr) -> Result<Joined, Full> {
    connections.add(remote(peer), Opener::Host)
}

fn from(last: u8, port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, last], port))
}

fn is_live(connections: &Connections, joined: &Joined) -> bool {
    connections.table.lock().by_id.contains_key(&joined.id)
}

/// A request of its peer is relayed, and has its response.
fn let_in(joined: &Joined) {
    joined.place.activity().let_in(b"REGISTER ");
    joined.place.activity().received(b"SIP/2.0 200 ");
}

#[test]
fn a_load_balancer_has_as_many_connections_as_its_clients() {
    let connections = connections();
    let begin = || connections.add(remote(peer(1)), Opener::LoadBalancer);
    let mut all: Vec<_> = (0..BOUNDS.total).map(|_| begin().unwrap()).collect();
    assert!(all.iter().all(|joined| !joined.has_evicted));
    // In all, they count.
    assert!(begin().unwrap().has_evicted);
    // Its own connections, such as checks of health, are bounded as those of anybody.
    all.truncate(BOUNDS.per_address);
    let own = connections.add(remote(peer(1)), Opener::Peer).unwrap();
    assert!(own.has_evicted);
}

#[test]
fn a_message_finds_its_connection_or_another_to_the_same_peer() {
    let connections = connections();
    let first = add(&connections, peer(1)).unwrap();
    let second = add(&connections, peer(1)).unwrap();
    send(&connections, Some(first.id), "a");
    assert_eq!(taken(&first.queue).unwrap(), "a");
    send(&connections, None, "b");
    assert_eq!(taken(&second.queue).unwrap(), "b");
    connections.remove(first.id);
    send(&connections, Some(first.id), "c");
    assert_eq!(taken(&second.queue).unwrap(), "c");
    connections.remove(second.id);
    let unsent = connections.send(message(None, "d"));
    assert!(
        matches!(&unsent, Sent::Unsent(message) if message.bytes == "d"),
        "{unsent:?}"
    );
    assert!(connections.is_empty());
}

#[test]
fn a_connection_that_a_peer_opened_carries_only_what_names_it() {
    let connections = connections();
    let accepted = connections.add(remote(peer(1)), Opener::Peer).unwrap();
    let unsent = connections.send(message(None, "a request for a next hop with this address"));
    assert!(matches!(unsent, Sent::Unsent(_)), "{unsent:?}");
    assert!(taken(&accepted.queue).is_none());
    send(&connections, Some(accepted.id), "a response");
    assert_eq!(taken(&accepted.queue).unwrap(), "a response");
    // Nor does it take the place of one that this host opened.
    let opened = connections.add(remote(peer(1)), Opener::Host).unwrap();
    let newer = connections.add(remote(peer(1)), Opener::Peer).unwrap();
    connections.remove(newer.id);
    send(&connections, None, "a request");
    assert_eq!(taken(&opened.queue).unwrap(), "a request");
}

#[test]
fn a_connection_over_tls_carries_only_what_is_for_its_name() {
    let connections = connections();
    let secure = |name| Remote {
        transport: Transport::Tls,
        name,
        ..remote(peer(1))
    };
    let of_name = connections.add(secure(Some(7)), Opener::Host).unwrap();
    let to = |transport, name| {
        let mut message = message(None, "a");
        message.to.transport = transport;
        message.to.name = name;
        message
    };
    for (transport, name) in [
        (Transport::Tls, Some(8)),
        (Transport::Tls, None),
        (Transport::Tcp, None),
        (Transport::Tcp, Some(7)),
    ] {
        let sent = connections.send(to(transport, name));
        assert!(matches!(sent, Sent::Unsent(_)), "{transport} {name:?}");
    }
    let sent = connections.send(to(Transport::Tls, Some(7)));
    assert!(matches!(sent, Sent::Queued), "{sent:?}");
    assert_eq!(taken(&of_name.queue).unwrap(), "a");
    // Over TCP, the name does not matter.
    let plain = connections.add(remote(peer(1)), Opener::Host).unwrap();
    let sent = connections.send(to(Transport::Tcp, Some(7)));
    assert!(matches!(sent, Sent::Queued), "{sent:?}");
    assert_eq!(taken(&plain.queue).unwrap(), "a");
}

#[tokio::test]
async fn connections_over_tls_are_listed_in_their_order_and_end_by_their_number() {
    let connections = connections();
    let secure = |port| Remote {
        transport: Transport::Tls,
        ..remote(peer(port))
    };
    let first = connections.add(secure(1), Opener::Peer).unwrap();
    let _plain = connections.add(remote(peer(2)), Opener::Peer).unwrap();
    let second = connections.add(secure(3), Opener::Host).unwrap();
    let session = Arc::new(Session {
        version: "TLSv1.3".into(),
        ..Session::default()
    });
    let secured = Secured {
        local: peer(5061),
        session: Arc::clone(&session),
    };
    connections.secure(second.id, secured);
    assert_eq!(connections.session(second.id), Some(session));
    assert_eq!(connections.session(first.id), None);
    assert_eq!(connections.secure_len(), 2);
    let listed = connections.secure_connections();
    let [one, two] = &listed[..] else {
        panic!("{listed:?}");
    };
    assert_eq!((one.id, two.id), (first.id, second.id));
    assert_eq!(
        (one.is_opened_by_host, two.is_opened_by_host),
        (false, true)
    );
    assert!(one.secured.is_none());
    let local = two.secured.as_ref().map(|secured| secured.local);
    assert_eq!(local, Some(peer(5061)));
    assert!(one.number() <= u32::MAX >> 1);

    assert!(connections.end_secure(one.number()));
    first.place.activity().evicted().await;
    assert!(!connections.end_secure(one.number()), "it has ended");
    assert_eq!(connections.secure_connections().len(), 1);
}

#[test]
fn an_older_connection_does_not_take_the_place_of_a_newer_one_with_it() {
    let connections = connections();
    let old = add(&connections, peer(1)).unwrap();
    let new = add(&connections, peer(1)).unwrap();
    connections.remove(old.id);
    send(&connections, None, "a");
    assert_eq!(taken(&new.queue).unwrap(), "a");
}

#[test]
fn a_connection_that_takes_nothing_any_more_is_absent() {
    let connections = connections();
    let joined = add(&connections, peer(1)).unwrap();
    joined.queue.close();
    let sent = connections.send(message(Some(joined.id), "a"));
    assert!(matches!(sent, Sent::Unsent(_)), "{sent:?}");
}

#[test]
fn a_slow_reader_loses_messages_and_no_memory() {
    let connections = connections();
    let joined = add(&connections, peer(1)).unwrap();
    let most = QUEUE_BYTES / (MESSAGE_BYTES + 1);
    for _ in 0..most {
        send(&connections, Some(joined.id), "x");
    }
    let sent = connections.send(message(Some(joined.id), "x"));
    assert!(matches!(sent, Sent::Lost(_)), "{sent:?}");
    assert!(taken(&joined.queue).is_some());
    send(&connections, Some(joined.id), "x");
    drop(joined);
    assert_eq!(connections.waiting.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn an_address_with_its_share_makes_room_for_itself() {
    let connections = connections();
    let other = add(&connections, from(2, 1)).unwrap();
    let held: Vec<_> = (0..4)
        .map(|port| add(&connections, from(1, port)).unwrap())
        .collect();
    let newcomer = add(&connections, from(1, 9)).unwrap();
    assert!(newcomer.has_evicted);
    held[0].place.activity().evicted().await;
    assert!(!is_live(&connections, &held[0]) && is_live(&connections, &held[1]));
    assert!(is_live(&connections, &other));
    // What is closing has its place until it is closed, and there may be only so many of them.
    let mut told = vec![newcomer];
    while let Ok(joined) = add(&connections, from(1, 10)) {
        told.push(joined);
    }
    assert_eq!(told.len(), BOUNDS.per_address);
    assert_eq!(add(&connections, from(1, 10)).unwrap_err(), Full::Address);
    drop(held);
    assert!(add(&connections, from(1, 10)).is_ok());
}

#[test]
fn the_longest_idle_stranger_goes_first_then_the_longest_idle_of_the_others() {
    let connections = connections();
    let mut all: Vec<_> = (0..8)
        .map(|n| add(&connections, from(n, 1)).unwrap())
        .collect();
    // 2 and 5 are strangers, and 2 is of use; 0 is the longest idle of the others.
    for known in [0, 1, 3, 4, 6, 7] {
        let_in(&all[known]);
    }
    all[2].place.activity().received(b"OPTIONS ");
    all[2].place.activity().kept_alive();
    all[5].place.activity().kept_alive();
    let mut order = Vec::new();
    let mut numbers: Vec<u8> = (0..8).collect();
    for n in 100..103 {
        let newcomer = add(&connections, from(n, 1)).unwrap();
        assert!(newcomer.has_evicted);
        let gone = all
            .iter()
            .position(|joined| !is_live(&connections, joined))
            .unwrap();
        order.push(numbers[gone]);
        numbers.remove(gone);
        drop(all.remove(gone));
        let_in(&newcomer);
        all.push(newcomer);
        numbers.push(n);
    }
    assert_eq!(order, [5, 2, 0]);
    // Keep-alives are a use of those that are let in.
    let at = |number| numbers.iter().position(|other| *other == number).unwrap();
    let second = at(1);
    all[second].place.activity().kept_alive();
    let _newcomer = add(&connections, from(103, 1)).unwrap();
    assert!(is_live(&connections, &all[second]));
    assert!(!is_live(&connections, &all[at(3)]));
}

#[test]
fn a_connection_with_a_request_under_way_keeps_its_place() {
    let connections = connections();
    let all: Vec<_> = (0..8)
        .map(|n| add(&connections, from(n, 1)).unwrap())
        .collect();
    for joined in &all {
        joined.place.activity().let_in(b"INVITE ");
    }
    assert_eq!(add(&connections, from(9, 1)).unwrap_err(), Full::Total);
    assert!(!connections.make_room());
    all[3].place.activity().sent(b"SIP/2.0 486 ");
    assert!(add(&connections, from(9, 1)).unwrap().has_evicted);
    assert!(!is_live(&connections, &all[3]));
    assert_eq!(connections.len(), 7);
}

#[test]
fn strangers_that_are_busy_with_nothing_do_not_drive_others_out() {
    let connections = Arc::new(Connections::new(ConnectionLimits {
        total: 300,
        per_address: 300,
    }));
    let known = add(&connections, from(1, 1)).unwrap();
    let_in(&known);
    let mut strangers: Vec<_> = (0..299)
        .map(|port| add(&connections, from(2, port)).unwrap())
        .collect();
    for round in 0..100 {
        for stranger in &strangers {
            stranger.place.activity().received(b"OPTIONS ");
        }
        strangers.push(add(&connections, from(3, round)).unwrap());
        strangers.retain(|stranger| is_live(&connections, stranger));
        assert!(is_live(&connections, &known));
        assert_eq!(strangers.len(), 299);
    }
}

#[test]
fn places_are_free_when_connections_are_closed() {
    let connections = connections();
    for port in 0..1000 {
        let joined = add(&connections, from(1, port)).unwrap();
        assert!(!joined.has_evicted);
        connections.remove(joined.id);
    }
    let table = connections.table.lock();
    assert_eq!((table.held, table.origins.len()), (0, 0));
    assert!(table.by_id.is_empty() && table.opened.is_empty());
    assert!(table.closing.is_empty());
}

#[tokio::test]
async fn who_takes_long_to_close_makes_room_first() {
    let connections = connections();
    let closing: Vec<_> = (0..4)
        .map(|port| add(&connections, from(1, port)).unwrap())
        .collect();
    closing
        .iter()
        .for_each(|joined| connections.remove(joined.id));
    let others: Vec<_> = (0..4)
        .map(|n| add(&connections, from(2 + n, 1)).unwrap())
        .collect();
    // For the same address, and for others.
    let _same = add(&connections, from(1, 9)).unwrap();
    let _other = add(&connections, from(9, 1)).unwrap();
    for joined in &closing[..2] {
        joined.place.activity().evicted().await;
    }
    assert!(others.iter().all(|joined| is_live(&connections, joined)));
}

#[test]
fn after_the_end_what_waits_is_still_there_and_nothing_is_added() {
    let connections = connections();
    let joined = add(&connections, peer(1)).unwrap();
    send(&connections, Some(joined.id), "last");
    connections.close();
    assert_eq!(add(&connections, peer(2)).unwrap_err(), Full::Ending);
    assert_eq!(taken(&joined.queue).unwrap(), "last");
    assert!(taken(&joined.queue).is_none());
}

#[test]
fn the_table_closes_when_no_worker_decides_any_more() {
    let connections = connections();
    connections.decides();
    connections.decides();
    let joined = add(&connections, peer(1)).unwrap();
    connections.decided();
    send(
        &connections,
        Some(joined.id),
        "an answer of the other worker",
    );
    assert!(!*connections.closed.borrow());
    connections.decided();
    assert!(*connections.closed.borrow());
    let sent = connections.send(message(Some(joined.id), "too late"));
    assert!(matches!(sent, Sent::Unsent(_)), "{sent:?}");
    assert_eq!(
        taken(&joined.queue).unwrap(),
        "an answer of the other worker"
    );
    assert!(taken(&joined.queue).is_none());
}

#[test]
fn a_connection_is_closed_when_it_is_neither_busy_nor_used() {
    let connections = connections();
    let mut unused = Unused::default();
    let [busy, used, idle] = [1, 2, 3].map(|port| add(&connections, peer(port)).unwrap());
    busy.place.activity().let_in(b"INVITE ");
    connections.close_unused(&mut unused);
    let live = |of: [&Joined; 3]| of.map(|joined| is_live(&connections, joined));
    assert_eq!(live([&busy, &used, &idle]), [true; 3], "the first look");
    used.place.activity().received(b"ACK ");
    send(&connections, Some(idle.id), "SIP/2.0 200 ");
    connections.close_unused(&mut unused);
    assert_eq!(live([&busy, &used, &idle]), [true; 3], "used since");
    connections.close_unused(&mut unused);
    assert_eq!(live([&busy, &used, &idle]), [true, false, false]);
    let waiting = taken(&idle.queue);
    assert_eq!(waiting.as_deref(), Some(&b"SIP/2.0 200 "[..]));

    busy.place.activity().sent(b"SIP/2.0 200 ");
    connections.close_unused(&mut unused);
    assert!(is_live(&connections, &busy), "its ACK may be on the way");
    busy.place.activity().set_input(true);
    connections.close_unused(&mut unused);
    connections.close_unused(&mut unused);
    assert!(is_live(&connections, &busy), "a part of a message is there");
    busy.place.activity().set_input(false);
    connections.close_unused(&mut unused);
    connections.close_unused(&mut unused);
    assert!(connections.is_empty());
}

#[test]
fn not_all_unused_connections_are_closed_at_once() {
    const MANY: usize = CLOSED_AT_ONCE + LOOKED_AT;
    let connections = Arc::new(Connections::new(ConnectionLimits {
        total: MANY,
        per_address: MANY,
    }));
    let port = |number: usize| u16::try_from(number + 1).unwrap();
    let _joined: Vec<_> = (0..MANY)
        .map(|number| add(&connections, peer(port(number))).unwrap())
        .collect();
    let mut unused = Unused::default();
    let left = [0; 3].map(|_| {
        connections.close_unused(&mut unused);
        connections.len()
    });
    assert_eq!(left, [MANY, LOOKED_AT, 0]);
}
