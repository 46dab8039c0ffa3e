//! Reads SIP from packet captures: pcap and pcapng, over Ethernet, Linux cooked capture, loopback and raw IP, in UDP and TCP.

mod stream;

use std::collections::HashMap;
use std::fmt::Display;
use std::fs::File;
use std::io::Read;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, anyhow, bail};
use etherparse::defrag::IpDefragPool;
use etherparse::{NetSlice, SlicedPacket, TcpSlice, TransportSlice, UdpSlice, ip_number};
use pcap_parser::{Block, Linktype, PcapBlockOwned, PcapError, create_reader};
use portcullis_sip::{Arrival, Framing, Transport};

use portcullis_request::Request;

use stream::{Packet, Stream};

pub use stream::Lost;

/// Size of the buffer, which holds the largest packet and its headers.
const BUFFER: usize = 1 << 20;

/// Number of fragments of other datagrams after which a waiting fragment may be dropped. It is dropped after twice as many.
const MOST_FRAGMENTS: u64 = 512;

/// One direction of a TCP connection: source and destination.
type Way = (SocketAddr, SocketAddr);

/// A request in a capture.
#[derive(Clone, Debug)]
pub struct Captured {
    /// Number of the packet that completes the request, from 1, as in Wireshark.
    pub packet: u64,
    /// Time of that packet.
    pub at: SystemTime,
    /// The request, as if the host had received it.
    pub request: Request,
}

/// The content of a capture.
#[derive(Debug, Default)]
pub struct Capture {
    /// The requests, in order.
    pub requests: Vec<Captured>,
    /// Number of packets.
    pub packets: u64,
    /// Whether the file ends within a packet.
    pub breaks_off: bool,
    /// Datagrams and messages that are not valid requests, including responses and keep-alives.
    pub others: u64,
    /// Packets that were captured in part only (`snaplen`). SIP in them is lost.
    pub cut: u64,
    /// What could not be parsed of TCP connections with SIP: source, destination and statistics, in the order of the first loss.
    pub lost: Vec<(SocketAddr, SocketAddr, Lost)>,
    /// TCP connections without SIP.
    pub foreign: u64,
}

impl Capture {
    /// Whether all SIP in the capture could be parsed.
    pub fn is_whole(&self) -> bool {
        !self.breaks_off && self.cut == 0 && self.lost.is_empty() && self.foreign == 0
    }
}

/// Reads a capture.
///
/// # Errors
/// If the file is not a capture, or is damaged. A file that ends within a packet, because it is still being written, is read up to there.
pub fn read(path: &Path) -> anyhow::Result<Capture> {
    let shown = path.display();
    let file = File::open(path).with_context(|| format!("cannot read {shown}"))?;
    read_from(file, &shown)
}

/// The same from anything that can be read; `shown` names it in errors.
pub(crate) fn read_from(file: impl Read + Send, shown: &dyn Display) -> anyhow::Result<Capture> {
    let broken = |error: &dyn std::fmt::Debug| {
        anyhow!("{shown} is not a packet capture, or is damaged: {error:?}")
    };
    let mut reader = create_reader(BUFFER, file).map_err(|error| broken(&error))?;
    let mut reading = Reading::default();
    let mut interfaces: Vec<Interface> = Vec::new();
    loop {
        match reader.next() {
            Ok((length, block)) => {
                reading.block(block, &mut interfaces)?;
                reader.consume(length);
            }
            Err(PcapError::Eof) => break,
            Err(PcapError::Incomplete(_)) => {
                if reader.reader_exhausted() {
                    reading.capture.breaks_off = true;
                    break;
                }
                reader.refill().map_err(|error| broken(&error))?;
            }
            Err(PcapError::UnexpectedEof) => {
                reading.capture.breaks_off = true;
                break;
            }
            Err(error) => bail!(broken(&error)),
        }
    }
    Ok(reading.finish())
}

/// Link type of an interface, and resolution of its timestamps.
#[derive(Clone, Copy, Debug)]
struct Interface {
    link: Linktype,
    per_second: u64,
    offset: i64,
}

#[derive(Default)]
struct Reading {
    capture: Capture,
    /// Datagrams that are not whole yet, with the number of the fragment that came last.
    fragments: IpDefragPool<u64, ()>,
    fragment: u64,
    streams: HashMap<Way, Stream>,
}

impl Reading {
    fn block(
        &mut self,
        block: PcapBlockOwned<'_>,
        interfaces: &mut Vec<Interface>,
    ) -> anyhow::Result<()> {
        match block {
            PcapBlockOwned::LegacyHeader(header) => interfaces.push(Interface {
                link: header.network,
                per_second: if header.is_nanosecond_precision() {
                    1_000_000_000
                } else {
                    1_000_000
                },
                offset: 0,
            }),
            PcapBlockOwned::Legacy(packet) => {
                let Some(&interface) = interfaces.first() else {
                    return Ok(());
                };
                let fraction = u64::from(packet.ts_usec);
                let at = time(packet.ts_sec.into(), fraction, interface.per_second);
                self.packet(interface.link, packet.data, packet.origlen, at);
            }
            PcapBlockOwned::NG(Block::SectionHeader(_)) => interfaces.clear(),
            PcapBlockOwned::NG(Block::InterfaceDescription(found)) => interfaces.push(Interface {
                link: found.linktype,
                per_second: found.ts_resolution().unwrap_or(1_000_000).max(1),
                offset: found.ts_offset(),
            }),
            PcapBlockOwned::NG(Block::EnhancedPacket(packet)) => {
                let interface = interfaces.get(packet.if_id as usize);
                let interface = *interface
                    .context("a packet of an interface that the capture does not describe")?;
                let ticks = u64::from(packet.ts_high) << 32 | u64::from(packet.ts_low);
                let seconds =
                    (ticks / interface.per_second).saturating_add_signed(interface.offset);
                let at = time(seconds, ticks % interface.per_second, interface.per_second);
                let data = packet
                    .data
                    .get(..packet.caplen as usize)
                    .unwrap_or(packet.data);
                self.packet(interface.link, data, packet.origlen, at);
            }
            PcapBlockOwned::NG(Block::SimplePacket(packet)) => {
                if let Some(interface) = interfaces.first() {
                    self.packet(interface.link, packet.data, packet.origlen, UNIX_EPOCH);
                }
            }
            PcapBlockOwned::NG(_) => {}
        }
        Ok(())
    }

    /// `length` is the length of the packet on the wire.
    fn packet(&mut self, link: Linktype, data: &[u8], length: u32, at: SystemTime) {
        self.capture.packets += 1;
        // The length fields of the headers are those of the whole packet.
        self.capture.cut += u64::from(data.len() < length as usize);
        let sliced = match link {
            Linktype::ETHERNET => SlicedPacket::from_ethernet(data).ok(),
            Linktype::LINUX_SLL => SlicedPacket::from_linux_sll(data).ok(),
            Linktype(LINUX_SLL2) => from_ip(data, 20),
            Linktype::NULL | Linktype::LOOP => from_ip(data, 4),
            Linktype::RAW | Linktype::IPV4 | Linktype::IPV6 | Linktype(12 | 14) => from_ip(data, 0),
            _ => None,
        };
        let Some(sliced) = sliced else {
            return;
        };
        let Some((from, to)) = addresses(&sliced) else {
            return;
        };
        match &sliced.transport {
            Some(TransportSlice::Udp(udp)) => self.udp(udp, from, to, at),
            Some(TransportSlice::Tcp(tcp)) => self.tcp(tcp, from, to, at),
            _ if sliced.is_ip_payload_fragmented() => self.fragment(&sliced, from, to, at),
            _ => {}
        }
    }

    /// Takes a fragment of a datagram. A fragment of a few bytes can claim to be the end of 64 KiB, and memory for all of them is
    /// needed at once; so a datagram is forgotten that is not whole after so many fragments of others.
    fn fragment(&mut self, sliced: &SlicedPacket<'_>, from: IpAddr, to: IpAddr, at: SystemTime) {
        self.fragment += 1;
        let number = self.fragment;
        if number.is_multiple_of(MOST_FRAGMENTS) {
            self.fragments
                .retain(|last| last + MOST_FRAGMENTS >= number);
        }
        let whole = self.fragments.process_sliced_packet(sliced, number, ());
        let Ok(Some(whole)) = whole else {
            return;
        };
        if whole.ip_number == ip_number::UDP
            && let Ok(udp) = UdpSlice::from_slice(&whole.payload)
        {
            self.udp(&udp, from, to, at);
        }
    }

    fn udp(&mut self, udp: &UdpSlice<'_>, from: IpAddr, to: IpAddr, at: SystemTime) {
        let source = SocketAddr::new(from, udp.source_port());
        let local = SocketAddr::new(to, udp.destination_port());
        let bytes = udp.payload().to_vec();
        let arrival = arrival(source, local, Transport::Udp);
        let packet = Packet {
            number: self.capture.packets,
            at,
        };
        self.message(bytes, Framing::Datagram, arrival, packet);
    }

    fn tcp(&mut self, tcp: &TcpSlice<'_>, from: IpAddr, to: IpAddr, at: SystemTime) {
        let source = SocketAddr::new(from, tcp.source_port());
        let local = SocketAddr::new(to, tcp.destination_port());
        let arrival = arrival(source, local, Transport::Tcp);
        let packet = Packet {
            number: self.capture.packets,
            at,
        };
        let way = (source, local);
        if tcp.syn() {
            self.end(way);
            let first = tcp.sequence_number().wrapping_add(1);
            self.streams.insert(way, Stream::new(Some(first)));
        }
        let stream = self.streams.entry(way);
        let stream = stream.or_insert_with(|| Stream::new(None));
        let mut found = Vec::new();
        stream.push(tcp.sequence_number(), tcp.payload(), packet, &mut found);
        for (packet, bytes) in found {
            self.message(bytes, Framing::Stream, arrival, packet);
        }
    }

    /// Ends one direction of a connection: segments that wait are used, and missing ones are reported.
    fn end(&mut self, way: Way) {
        let Some(mut stream) = self.streams.remove(&way) else {
            return;
        };
        let (source, local) = way;
        let mut found = Vec::new();
        stream.finish(&mut found);
        for (packet, bytes) in found {
            let arrival = arrival(source, local, Transport::Tcp);
            self.message(bytes, Framing::Stream, arrival, packet);
        }
        match stream.lost {
            lost if lost.is_nothing() => {}
            Lost { messages: 0, .. } => self.capture.foreign += 1,
            lost => self.capture.lost.push((source, local, lost)),
        }
    }

    /// Ends the capture.
    fn finish(mut self) -> Capture {
        let ways: Vec<_> = self.streams.keys().copied().collect();
        ways.into_iter().for_each(|way| self.end(way));
        let mut capture = self.capture;
        // Messages that waited for missing bytes are found late.
        capture.requests.sort_by_key(|found| found.packet);
        capture
            .lost
            .sort_by_key(|(source, local, lost)| (lost.first_packet, *source, *local));
        capture
    }

    fn message(&mut self, bytes: Vec<u8>, framing: Framing, arrival: Arrival, packet: Packet) {
        let request = Request::read(bytes, framing, arrival);
        match request.filter(Request::is_request) {
            Some(request) => self.capture.requests.push(Captured {
                packet: packet.number,
                at: packet.at,
                request,
            }),
            None => self.capture.others += 1,
        }
    }
}

/// The link type of newer cooked captures.
const LINUX_SLL2: i32 = 276;

fn from_ip(data: &[u8], header: usize) -> Option<SlicedPacket<'_>> {
    SlicedPacket::from_ip(data.get(header..)?).ok()
}

fn addresses(packet: &SlicedPacket<'_>) -> Option<(IpAddr, IpAddr)> {
    match packet.net.as_ref()? {
        NetSlice::Ipv4(ip) => {
            let header = ip.header();
            Some((
                header.source_addr().into(),
                header.destination_addr().into(),
            ))
        }
        NetSlice::Ipv6(ip) => {
            let header = ip.header();
            Some((
                header.source_addr().into(),
                header.destination_addr().into(),
            ))
        }
        NetSlice::Arp(_) => None,
    }
}

fn arrival(source: SocketAddr, local: SocketAddr, transport: Transport) -> Arrival {
    Arrival {
        source,
        local,
        transport,
        connection: None,
    }
}

fn time(seconds: u64, fraction: u64, per_second: u64) -> SystemTime {
    let nanoseconds = u128::from(fraction) * 1_000_000_000 / u128::from(per_second);
    let fraction = Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(0));
    let since = Duration::from_secs(seconds).saturating_add(fraction);
    UNIX_EPOCH.checked_add(since).unwrap_or(UNIX_EPOCH)
}

#[cfg(test)]
mod tests;
