//! Tests with captures that are built packet by packet.

use etherparse::PacketBuilder;

use super::*;
use crate::invariants;

const EDGE: [u8; 4] = [192, 0, 2, 9];
const CALLER: [u8; 4] = [192, 0, 2, 1];

fn message(method: &str) -> String {
    format!(
        "{method} sip:bob@example.com SIP/2.0\r\nVia: SIP/2.0/TCP 192.0.2.1;branch=z9hG4bK1\r\nFrom: <sip:a@b>;tag=1\r\n\
         To: <sip:bob@example.com>\r\nCall-ID: {method}\r\nCSeq: 1 {method}\r\nContent-Length: 0\r\n\r\n"
    )
}

fn udp(payload: &str) -> Vec<u8> {
    let builder = PacketBuilder::ethernet2([1; 6], [2; 6])
        .ipv4(CALLER, EDGE, 64)
        .udp(5070, 5060);
    let mut packet = Vec::new();
    builder.write(&mut packet, payload.as_bytes()).unwrap();
    packet
}

fn tcp(number: u32, syn: bool, payload: &str) -> Vec<u8> {
    let mut builder = PacketBuilder::ethernet2([1; 6], [2; 6])
        .ipv4(CALLER, EDGE, 64)
        .tcp(40_000, 5060, number, 1000);
    if syn {
        builder = builder.syn();
    }
    let mut packet = Vec::new();
    builder.write(&mut packet, payload.as_bytes()).unwrap();
    packet
}

/// Returns a pcap file with these packets, one per second.
fn pcap(link: u32, packets: &[Vec<u8>]) -> Vec<u8> {
    let mut file = Vec::new();
    let words = |file: &mut Vec<u8>, words: &[u32]| {
        words
            .iter()
            .for_each(|word| file.extend(word.to_le_bytes()));
    };
    words(&mut file, &[0xa1b2_c3d4, 0x0004_0002, 0, 0, 65_535, link]);
    for (packet, second) in packets.iter().zip(1_795_642_215..) {
        let length = packet.len() as u32;
        words(&mut file, &[second, 250_000, length, length]);
        file.extend_from_slice(packet);
    }
    file
}

fn read_bytes(bytes: &[u8]) -> anyhow::Result<Capture> {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), bytes).unwrap();
    invariants::capture(bytes);
    read(file.path())
}

fn methods(capture: &Capture) -> Vec<String> {
    let requests = capture.requests.iter();
    requests
        .map(|found| found.request.method().into_owned())
        .collect()
}

#[test]
fn datagrams_have_their_time_and_addresses() {
    let response = "SIP/2.0 200 OK\r\nVia: SIP/2.0/UDP a\r\nContent-Length: 0\r\n\r\n";
    let packets = [
        udp(&message("INVITE")),
        udp(response),
        udp("\r\n\r\n"),
        udp(&message("BYE")),
    ];
    let capture = read_bytes(&pcap(1, &packets)).unwrap();
    assert_eq!(methods(&capture), ["INVITE", "BYE"]);
    assert_eq!(
        (capture.packets, capture.others, capture.breaks_off),
        (4, 2, false)
    );
    let first = &capture.requests[0];
    assert_eq!(first.packet, 1);
    assert_eq!(
        first.at,
        UNIX_EPOCH + Duration::from_millis(1_795_642_215_250)
    );
    assert_eq!(first.request.source().to_string(), "192.0.2.1:5070");
    assert_eq!(first.request.local().to_string(), "192.0.2.9:5060");
    assert_eq!(capture.requests[1].packet, 4);
}

#[test]
fn the_loopback_and_bare_packets_are_read() {
    let bare = udp(&message("INVITE"))[14..].to_vec();
    let loopback = [&[2, 0, 0, 0], &bare[..]].concat();
    let cooked = [&[8, 0][..], &[0; 18], &bare].concat();
    for (link, packet) in [(101, &bare), (0, &loopback), (276, &cooked)] {
        let capture = read_bytes(&pcap(link, std::slice::from_ref(packet))).unwrap();
        assert_eq!(methods(&capture), ["INVITE"], "{link}");
    }
}

#[test]
fn tcp_segments_are_reassembled_in_any_order() {
    let stream = message("INVITE") + &message("MESSAGE") + &message("BYE");
    let (a, b, c) = (100, 350, 500);
    let at = |n: usize| 8 + n as u32;
    let packets = [
        tcp(7, true, ""),
        tcp(at(b), false, &stream[b..c]),
        tcp(at(0), false, &stream[..a]),
        tcp(at(0), false, &stream[..a]),
        tcp(at(a - 20), false, &stream[a - 20..b]),
        tcp(at(c), false, &stream[c..]),
    ];
    let capture = read_bytes(&pcap(1, &packets)).unwrap();
    assert_eq!(methods(&capture), ["INVITE", "MESSAGE", "BYE"]);
    assert_eq!(capture.requests[2].packet, 6);
    // A capture that begins in the middle of a connection.
    let capture = read_bytes(&pcap(1, &packets[5..])).unwrap();
    assert!(capture.requests.len() <= 1);
}

#[test]
fn sequence_numbers_wrap_around() {
    let stream = message("INVITE");
    let begun = u32::MAX - 50;
    let packets = [
        tcp(begun.wrapping_sub(1), true, ""),
        tcp(begun.wrapping_add(100), false, &stream[100..]),
        tcp(begun, false, &stream[..100]),
    ];
    let capture = read_bytes(&pcap(1, &packets)).unwrap();
    assert_eq!(methods(&capture), ["INVITE"]);
}

/// A fragment of a UDP packet: these bytes of its payload, under this number.
fn fragment(whole: &[u8], id: u16, bytes: std::ops::Range<usize>) -> Vec<u8> {
    let (ethernet, ip, payload) = (&whole[..14], &whole[14..34], &whole[34..]);
    let mut header = ip.to_vec();
    let more = u16::from(bytes.end < payload.len()) << 13;
    header[2..4].copy_from_slice(&(20 + bytes.len() as u16).to_be_bytes());
    header[4..6].copy_from_slice(&id.to_be_bytes());
    header[6..8].copy_from_slice(&(more | (bytes.start / 8) as u16).to_be_bytes());
    [ethernet, &header, &payload[bytes]].concat()
}

#[test]
fn ip_fragments_are_reassembled() {
    let whole = udp(&message("INVITE"));
    let end = whole.len() - 34;
    let packets = [fragment(&whole, 1, 80..end), fragment(&whole, 1, 0..80)];
    let capture = read_bytes(&pcap(1, &packets)).unwrap();
    assert_eq!(methods(&capture), ["INVITE"]);
}

#[test]
fn fragments_wait_for_a_bounded_number_of_others() {
    let whole = udp(&message("INVITE"));
    let end = whole.len() - 34;
    let between = |others: u16| {
        // Each is the end of a datagram of 64 KiB.
        let last = udp(&"x".repeat(65_000));
        let others = (2..others + 2).map(|id| fragment(&last, id, 64_960..65_008));
        let mut packets = vec![fragment(&whole, 1, 0..80)];
        packets.extend(others);
        packets.push(fragment(&whole, 1, 80..end));
        methods(&read_bytes(&pcap(1, &packets)).unwrap())
    };
    assert_eq!(between(500), ["INVITE"]);
    assert!(between(1_100).is_empty());
}

#[test]
fn a_packet_above_the_buffer_is_damage() {
    let file = pcap(1, &[vec![0; 3 * BUFFER], udp(&message("BYE"))]);
    let error = read_bytes(&file).unwrap_err().to_string();
    assert!(error.contains("is damaged"), "{error}");
}

#[test]
fn a_truncated_capture_is_read_to_its_end_and_other_files_are_refused() {
    let file = pcap(1, &[udp(&message("INVITE")), udp(&message("BYE"))]);
    let capture = read_bytes(&file[..file.len() - 10]).unwrap();
    assert_eq!(methods(&capture), ["INVITE"]);
    assert!(capture.breaks_off);
    for bad in [
        &b"INVITE sip:bob@example.com SIP/2.0\r\n"[..],
        b"",
        b"\0asm",
    ] {
        let error = read_bytes(bad).unwrap_err().to_string();
        assert!(error.contains("is not a packet capture"), "{error}");
    }
}

/// Segments of one connection, without its beginning and with some packets missing.
fn segments(parts: &[&str], missing: &[usize]) -> Vec<u8> {
    let mut packets = Vec::new();
    let mut number = 1_001;
    for (at, part) in parts.iter().enumerate() {
        if !missing.contains(&at) {
            packets.push(tcp(number, false, part));
        }
        number += part.len() as u32;
    }
    pcap(1, &packets)
}

#[test]
fn parsing_begins_at_the_next_start_line() {
    let (invite, bye) = (message("INVITE"), message("BYE"));
    for begun in [&invite[150..], "a=rtpmap:0 PCMU/8000\r\n"] {
        let capture = read_bytes(&segments(&[begun, &invite, &bye], &[])).unwrap();
        assert_eq!(methods(&capture), ["INVITE", "BYE"]);
        let [(source, _, lost)] = &capture.lost[..] else {
            panic!("one direction is reported: {:?}", capture.lost);
        };
        assert_eq!(source.to_string(), "192.0.2.1:40000");
        let expected = Lost {
            messages: 2,
            begins_inside: true,
            skipped_bytes: begun.len() as u64,
            first_packet: 1,
            ..Lost::default()
        };
        assert_eq!(*lost, expected);
    }
}

#[test]
fn messages_after_a_gap_are_found() {
    let (invite, info, bye) = (message("INVITE"), message("INFO"), message("BYE"));
    // A whole message is missing.
    let capture = read_bytes(&segments(&[&invite, &info, &bye], &[1])).unwrap();
    assert_eq!(methods(&capture), ["INVITE", "BYE"]);
    let expected = Lost {
        messages: 2,
        gaps: 1,
        missing_bytes: info.len() as u64,
        first_packet: 2,
        ..Lost::default()
    };
    assert_eq!(capture.lost[0].2, expected);
    // Either half of a message is missing.
    let halves = [&invite, &info[..100], &info[100..], &bye, &invite];
    for (missing, skipped) in [(1, info.len() - 100), (2, 100)] {
        let capture = read_bytes(&segments(&halves, &[missing])).unwrap();
        assert_eq!(methods(&capture), ["INVITE", "BYE", "INVITE"]);
        let lost = capture.lost[0].2;
        assert_eq!((lost.gaps, lost.skipped_bytes), (1, skipped as u64));
        let packets: Vec<_> = capture.requests.iter().map(|found| found.packet).collect();
        assert_eq!(packets, [1, 3, 4]);
    }
}

#[test]
fn a_gap_does_not_delay_a_long_connection() {
    let invite = message("INVITE");
    let parts = vec![invite.as_str(); 2_000];
    let missing: Vec<_> = (100..2_000).step_by(100).collect();
    let capture = read_bytes(&segments(&parts, &missing)).unwrap();
    assert_eq!(capture.requests.len(), 2_000 - missing.len());
    let lost = capture.lost[0].2;
    assert_eq!((lost.gaps, lost.skipped_bytes), (missing.len() as u64, 0));
    assert!(capture.requests.is_sorted_by_key(|found| found.packet));
}

#[test]
fn connections_without_sip_are_counted_separately() {
    let foreign = segments(&["GET / HTTP/1.1\r\nHost: a\r\n\r\n"], &[]);
    let capture = read_bytes(&foreign).unwrap();
    assert_eq!((capture.foreign, capture.lost.len()), (1, 0));
    // Between two messages.
    let (invite, bye) = (message("INVITE"), message("BYE"));
    let capture = read_bytes(&segments(&[&invite, "no SIP\r\n\r\n", &bye], &[])).unwrap();
    assert_eq!(methods(&capture), ["INVITE", "BYE"]);
    assert_eq!(capture.lost[0].2.unreadable, 1);
}

#[test]
fn truncated_packets_are_counted() {
    let mut file = pcap(1, &[udp(&message("INVITE"))]);
    let length = (file.len() - 40) as u32;
    // As with a `snaplen` that is 30 bytes too small.
    file.truncate(file.len() - 30);
    file[32..36].copy_from_slice(&(length - 30).to_le_bytes());
    let capture = read_bytes(&file).unwrap();
    assert_eq!((capture.cut, capture.requests.len()), (1, 0));
}

proptest::proptest! {
    #[test]
    fn no_capture_causes_a_panic(bytes: Vec<u8>, link in 0..300_u32) {
        let _whatever = read_bytes(&pcap(link, &[bytes]));
    }
}
