//! SIP in packet captures: pcap and pcapng, over Ethernet, Linux's cooked form, loopback and bare IP, in UDP and TCP.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, anyhow, bail};
use etherparse::defrag::IpDefragPool;
use etherparse::{NetSlice, SlicedPacket, TcpSlice, TransportSlice, UdpSlice, ip_number};
use pcap_parser::{Block, Linktype, PcapBlockOwned, PcapError, create_reader};
use portcullis_sip::{Arrival, Frame, Framer, Framing, Limits, Transport};

use crate::pipeline::PolicyRequest;

/// Room for the largest packet and what is around it.
const BUFFER: usize = 1 << 20;

/// Bytes of one TCP connection that may wait for those before them.
const MOST_AHEAD: usize = 1 << 20;

/// A request in a capture.
#[derive(Clone, Debug)]
pub struct Captured {
    /// The number of the packet that it was complete with, from 1, as Wireshark counts.
    pub packet: u64,
    /// When that came.
    pub at: SystemTime,
    /// The request, as if it had come to the host.
    pub request: PolicyRequest,
}

/// What is in a capture.
#[derive(Debug, Default)]
pub struct Capture {
    /// The requests, in order.
    pub requests: Vec<Captured>,
    /// Packets.
    pub packets: u64,
    /// Whether the file ends within a packet.
    pub breaks_off: bool,
    /// Datagrams and messages that are no request that can be read. Responses and keep-alives are among them.
    pub others: u64,
}

/// Reads a capture.
///
/// # Errors
/// When the file is none, or is damaged. One that ends within a packet, because it is still being written, is read so far.
pub fn read(path: &Path) -> anyhow::Result<Capture> {
    let shown = path.display();
    let file = File::open(path).with_context(|| format!("can't read {shown}"))?;
    let broken = |error: &dyn std::fmt::Debug| {
        anyhow!("{shown} is no packet capture, or is damaged: {error:?}")
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
    Ok(reading.capture)
}

/// How packets of an interface are wrapped, and how its clock counts.
#[derive(Clone, Copy, Debug)]
struct Interface {
    link: Linktype,
    per_second: u64,
    offset: i64,
}

#[derive(Default)]
struct Reading {
    capture: Capture,
    fragments: IpDefragPool<(), ()>,
    streams: HashMap<(SocketAddr, SocketAddr), Stream>,
}

/// One direction of a TCP connection.
struct Stream {
    /// The number of the next byte.
    next: Option<u32>,
    /// What came before its turn.
    ahead: BTreeMap<u32, Vec<u8>>,
    framer: Framer,
    is_lost: bool,
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
                self.packet(interface.link, packet.data, at);
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
                self.packet(interface.link, data, at);
            }
            PcapBlockOwned::NG(Block::SimplePacket(packet)) => {
                if let Some(interface) = interfaces.first() {
                    self.packet(interface.link, packet.data, UNIX_EPOCH);
                }
            }
            PcapBlockOwned::NG(_) => {}
        }
        Ok(())
    }

    fn packet(&mut self, link: Linktype, data: &[u8], at: SystemTime) {
        self.capture.packets += 1;
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
            _ => {
                let whole = self.fragments.process_sliced_packet(&sliced, (), ());
                let Ok(Some(whole)) = whole else {
                    return;
                };
                if whole.ip_number == ip_number::UDP
                    && let Ok(udp) = UdpSlice::from_slice(&whole.payload)
                {
                    self.udp(&udp, from, to, at);
                }
            }
        }
    }

    fn udp(&mut self, udp: &UdpSlice<'_>, from: IpAddr, to: IpAddr, at: SystemTime) {
        let source = SocketAddr::new(from, udp.source_port());
        let local = SocketAddr::new(to, udp.destination_port());
        let bytes = udp.payload().to_vec();
        self.message(
            bytes,
            Framing::Datagram,
            arrival(source, local, Transport::Udp),
            at,
        );
    }

    fn tcp(&mut self, tcp: &TcpSlice<'_>, from: IpAddr, to: IpAddr, at: SystemTime) {
        let source = SocketAddr::new(from, tcp.source_port());
        let local = SocketAddr::new(to, tcp.destination_port());
        let arrival = arrival(source, local, Transport::Tcp);
        let stream = self
            .streams
            .entry((source, local))
            .or_insert_with(Stream::new);
        if tcp.syn() {
            *stream = Stream::new();
            stream.next = Some(tcp.sequence_number().wrapping_add(1));
        }
        stream.push(tcp.sequence_number(), tcp.payload());
        let mut messages = Vec::new();
        while !stream.is_lost {
            match stream.framer.next() {
                Ok(Frame::Message(range)) => messages.push(stream.framer.bytes(range).to_vec()),
                Ok(Frame::Ping) => {}
                Ok(Frame::NeedMore) => break,
                Err(_) => stream.is_lost = true,
            }
        }
        for bytes in messages {
            self.message(bytes, Framing::Stream, arrival, at);
        }
    }

    fn message(&mut self, bytes: Vec<u8>, framing: Framing, arrival: Arrival, at: SystemTime) {
        let request = PolicyRequest::read(bytes, framing, arrival);
        match request.filter(PolicyRequest::is_request) {
            Some(request) => self.capture.requests.push(Captured {
                packet: self.capture.packets,
                at,
                request,
            }),
            None => self.capture.others += 1,
        }
    }
}

impl Stream {
    fn new() -> Self {
        Self {
            next: None,
            ahead: BTreeMap::new(),
            framer: Framer::new(&Limits::default()),
            is_lost: false,
        }
    }

    /// Takes a segment; what came twice is taken once, and what came early waits.
    fn push(&mut self, number: u32, bytes: &[u8]) {
        if bytes.is_empty() || self.is_lost {
            return;
        }
        let next = *self.next.get_or_insert(number);
        // How far the segment is ahead of its turn; half of the numbers are behind.
        let ahead = number.wrapping_sub(next) as i32;
        if ahead > 0 {
            let waiting: usize = self.ahead.values().map(Vec::len).sum();
            // What is missing was not captured: where the next message begins can't be told.
            self.is_lost = waiting + bytes.len() > MOST_AHEAD;
            self.ahead.insert(number, bytes.to_vec());
            return;
        }
        let known = ahead.unsigned_abs() as usize;
        let Some(fresh) = bytes.get(known..).filter(|fresh| !fresh.is_empty()) else {
            return;
        };
        self.framer.push(fresh);
        let next = next.wrapping_add(fresh.len() as u32);
        self.next = Some(next);
        let is_due = |number: &u32| (number.wrapping_sub(next) as i32) <= 0;
        let due = self.ahead.keys().copied().find(is_due);
        if let Some(number) = due
            && let Some(bytes) = self.ahead.remove(&number)
        {
            self.push(number, &bytes);
        }
    }
}

/// The cooked form of newer captures.
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
