//! Properties of every input, as assertions that property tests and fuzz targets share.
//!
//! Each function panics when its property does not hold.

use crate::binrpc::{self, Framer, Malformed, Packet, Record, Records};
use crate::fifo::{FifoReader, Overlong};
use crate::json::{self, Layout, Request};
use crate::{MOST_REQUEST, Param, Reply, Value};

/// Feeds a stream of BINRPC whole, byte by byte and in chunks of this length: packets and error are the same. What can be read
/// as a request is written again and read the same.
pub fn binrpc(stream: &[u8], chunk: usize) {
    let whole = packets(stream, stream.len().max(1));
    assert_eq!(whole, packets(stream, 1));
    assert_eq!(whole, packets(stream, chunk.max(1)));
    for (cookie, packet) in &whole.packets {
        assert!(packet.len() <= MOST_REQUEST);
        let Ok(Some(packet)) = Packet::parse(packet) else {
            panic!("a packet that was cut out of a stream is whole");
        };
        assert_eq!((packet.cookie, packet.length), (*cookie, packet.length));
        request(&packet);
        // Reading ends, whatever the body holds.
        let records = Records::new(packet.body).count();
        assert!(records <= packet.body.len());
    }
}

/// Feeds what came through a FIFO whole, byte by byte and in chunks of this length: requests are the same, begin and end with
/// braces, and reading them as JSON does not panic.
pub fn fifo(stream: &[u8], chunk: usize) {
    let whole = requests(stream, stream.len().max(1));
    assert_eq!(whole, requests(stream, 1));
    assert_eq!(whole, requests(stream, chunk.max(1)));
    for request in whole.0.iter().flatten() {
        assert!(request.starts_with(b"{") && request.ends_with(b"}"));
        assert!(request.len() <= MOST_REQUEST);
        // It ends at the first place where it can end.
        assert_eq!(
            requests(&request[..request.len() - 1], request.len()),
            (Vec::new(), true)
        );
        let _read = Request::read(request);
    }
}

/// Reads a body as JSON-RPC. The answer, with a result or the fault, is JSON with the request's `id`, in both layouts.
pub fn json_rpc(body: &[u8]) {
    let read = Request::read(body);
    for layout in [Layout::Compact, Layout::Tabs] {
        let (id, answer) = match &read {
            Ok(request) => {
                let reply = Reply::from(Value::from("done"));
                let answer = json::success(&request.id, reply, layout, usize::MAX);
                (&request.id, answer.expect("it has no limit"))
            }
            Err(bad) => (&bad.id, json::failure(&bad.id, &bad.fault, layout)),
        };
        let answer: serde_json::Value =
            serde_json::from_slice(&answer).expect("the answer is JSON");
        assert_eq!(answer["jsonrpc"], "2.0");
        assert_eq!(&answer["id"], id);
        assert_eq!(answer.get("result").is_some(), read.is_ok());
    }
}

#[derive(Debug, PartialEq)]
struct Packets {
    packets: Vec<(u32, Vec<u8>)>,
    /// How the stream ends: with so many bytes left, or broken.
    end: Result<usize, Malformed>,
}

fn packets(stream: &[u8], chunk: usize) -> Packets {
    let mut framer = Framer::default();
    let mut packets = Vec::new();
    let mut at = 0;
    for bytes in stream.chunks(chunk) {
        framer.space().extend_from_slice(bytes);
        loop {
            match framer.next() {
                Ok(Some(packet)) => {
                    let whole = &stream[at..at + packet.length];
                    assert!(whole.ends_with(packet.body));
                    at += packet.length;
                    packets.push((packet.cookie, whole.to_vec()));
                }
                Ok(None) => break,
                Err(malformed) => {
                    return Packets {
                        packets,
                        end: Err(malformed),
                    };
                }
            }
        }
    }
    assert_eq!(at + framer.pending(), stream.len());
    Packets {
        packets,
        end: Ok(framer.pending()),
    }
}

fn request(packet: &Packet<'_>) {
    let call = match packet.call() {
        Ok(call) => call,
        Err(malformed) => {
            assert_eq!(malformed.cookie, packet.cookie);
            let fault = binrpc::fault(packet.cookie, &malformed.fault());
            let fault = Packet::parse(&fault)
                .ok()
                .flatten()
                .expect("a fault is whole");
            let mut records = Records::new(fault.body);
            assert_eq!(records.next(), Some(Ok(Record::Int(400))));
            return;
        }
    };
    if !call.params.iter().all(is_exact) {
        return;
    }
    let again = binrpc::request(packet.cookie, &call);
    // Longer lengths than needed may have been used, never shorter ones.
    assert!(again.len() <= packet.length);
    let again = Packet::parse(&again)
        .ok()
        .flatten()
        .expect("a request is whole");
    let mut carried = call;
    carried
        .params
        .retain(|param| !matches!(param, Param::Other(_)));
    assert_eq!(again.call(), Ok(carried));
}

/// Whether writing the value gives the bytes that were read. Large numbers of thousandths have no exact double.
fn is_exact(param: &Param) -> bool {
    match param {
        Param::Double(number) => number.abs() < 2_f64.powi(50) / 1000.0,
        Param::Int(_) | Param::Text(_) | Param::Other(_) => true,
    }
}

fn requests(stream: &[u8], chunk: usize) -> (Vec<Result<Vec<u8>, Overlong>>, bool) {
    let mut reader = FifoReader::default();
    let mut requests = Vec::new();
    for bytes in stream.chunks(chunk) {
        reader.push(bytes, |request| requests.push(request));
    }
    (requests, reader.is_within())
}
