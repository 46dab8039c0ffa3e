//! The UDP sockets of a worker, and the datagrams that wait to be sent from them. Nothing is sent over UDP but by [`UdpSockets`], which asks
//! `Pipeline::may_send_datagram` first: an address that has not proved itself gets little more than has come from it.

use std::io;
use std::mem;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsFd;
use std::rc::Rc;

use nix::errno::Errno;
use portcullis_metrics::Lost;
use portcullis_sip::{Destination, Transport};
use portcullis_udp::{Polled, Sender};
use tracing::warn;

use crate::notices::{Example, Trouble};
use crate::pipeline::{Loss, Pipeline};

/// Datagrams per system call. More than 8 gains little, more than 32 nothing.
pub(super) const BATCH: usize = 32;

/// Datagrams that may wait for a socket whose send buffer is full.
const MOST_WAITING: usize = 1_024;

/// The UDP sockets of a worker. A number names one of them.
#[derive(Debug)]
pub(crate) struct UdpSockets {
    sockets: Vec<Udp>,
    /// The first bytes of datagrams that the kernel refused, until they are taken; `None` if nobody takes them.
    refused: Option<Vec<Vec<u8>>>,
}

/// A socket with its queue of datagrams to send.
#[derive(Debug)]
struct Udp {
    socket: Rc<Polled>,
    local: SocketAddr,
    sender: Sender,
    /// Drop count reported by the system so far; see [`portcullis_udp::overflows`].
    overflows: u32,
    /// Whether this process receives from the socket, and counts what is lost.
    receives: bool,
}

impl UdpSockets {
    /// Takes ownership of bound sockets. To be called on the worker's runtime. With `reports_errors`, errors that the network reports can be
    /// read, and datagrams that the kernel refuses can be taken.
    pub(super) fn new(
        sockets: Vec<(UdpSocket, SocketAddr)>,
        reports_errors: bool,
    ) -> io::Result<Self> {
        let sockets = sockets.into_iter();
        let sockets = sockets.map(|(socket, local)| Udp::new(socket, local, reports_errors));
        Ok(Self {
            sockets: sockets.collect::<io::Result<_>>()?,
            refused: reports_errors.then(Vec::new),
        })
    }

    pub(super) fn count(&self) -> usize {
        self.sockets.len()
    }

    pub(super) fn socket(&self, number: usize) -> Rc<Polled> {
        Rc::clone(&self.sockets[number].socket)
    }

    pub(super) fn local(&self, number: usize) -> SocketAddr {
        self.sockets[number].local
    }

    /// The buffer for a draft: a datagram that may be sent from this socket or any other.
    pub(super) fn buffer(&mut self, number: usize) -> &mut Vec<u8> {
        self.sockets[number].sender.buffer()
    }

    /// What was written into the buffer.
    pub(super) fn draft(&self, number: usize) -> &[u8] {
        self.sockets[number].sender.draft()
    }

    /// Queues the draft in the buffer of this socket, on the socket of its destination.
    pub(super) fn send_draft(&mut self, number: usize, to: &Destination, pipeline: &Pipeline) {
        let draft = self.draft(number);
        if !pipeline.may_send_datagram(draft, to.addr) {
            return;
        }
        let Some(from) = self.towards(draft, to, pipeline) else {
            return;
        };
        if !self.has_room(from) {
            return pipeline.reporter().lose(&queue_full(draft, to));
        }
        let local = self.local(from);
        pipeline.reporter().sent(draft, to, Some(local));
        let sent_bytes = &pipeline.counters().udp.sent_bytes;
        sent_bytes.add(draft.len() as u64);
        match self.sockets.get_disjoint_mut([from, number]) {
            Ok([there, here]) => there.sender.push(here.sender.draft(), to.addr),
            // They are the same.
            Err(_) => self.sockets[number].sender.commit(to.addr),
        }
    }

    /// Queues the draft in the buffer of this socket, which is no SIP message: traces and capture servers do not get it. It is lost if too much waits.
    pub(super) fn commit(&mut self, number: usize, to: SocketAddr, pipeline: &Pipeline) {
        if self.has_room(number) && pipeline.may_send_datagram(self.draft(number), to) {
            let sent_bytes = &pipeline.counters().udp.sent_bytes;
            sent_bytes.add(self.draft(number).len() as u64);
            self.sockets[number].sender.commit(to);
        }
    }

    /// Queues a datagram, and passes whole batches to the kernel. No draft may be in a buffer. Returns false if no socket can send it.
    pub(super) fn send(&mut self, bytes: &[u8], to: &Destination, pipeline: &Pipeline) -> bool {
        if !pipeline.may_send_datagram(bytes, to.addr) {
            return true;
        }
        let Some(from) = self.towards(bytes, to, pipeline) else {
            return false;
        };
        if !self.has_room(from) {
            pipeline.reporter().lose(&queue_full(bytes, to));
            return true;
        }
        let local = self.local(from);
        pipeline.reporter().sent(bytes, to, Some(local));
        let sent_bytes = &pipeline.counters().udp.sent_bytes;
        sent_bytes.add(bytes.len() as u64);
        let sender = &mut self.sockets[from].sender;
        sender.push(bytes, to.addr);
        // One turn of timers may send more than may wait. While the send buffer is full, this tries once per batch.
        if sender.waiting().is_multiple_of(BATCH) {
            let _blocked = self.pass_on(pipeline);
        }
        true
    }

    /// The socket to send from: the one that the destination names, otherwise one of the same address family. Counts the loss if there is
    /// none.
    fn towards(&self, bytes: &[u8], to: &Destination, pipeline: &Pipeline) -> Option<usize> {
        let place = |is_it: &dyn Fn(&Udp) -> bool| self.sockets.iter().position(is_it);
        let named = to
            .from
            .and_then(|from| place(&|udp: &Udp| udp.local == from));
        let found = named.or_else(|| place(&|udp: &Udp| udp.local.is_ipv4() == to.addr.is_ipv4()));
        if found.is_none() {
            pipeline.reporter().lose(&Loss {
                lost: Lost::SendError,
                bytes,
                transport: Transport::Udp,
                peer: to.addr,
                detail: &"no UDP socket of the address family: add one to `listen`",
            });
        }
        found
    }

    /// Whether the queue of that socket has space for one more datagram.
    fn has_room(&self, number: usize) -> bool {
        self.sockets[number].sender.waiting() < MOST_WAITING
    }

    /// Passes what waits to the kernel. Returns the number of a socket whose send buffer is full, if there is one.
    pub(super) fn pass_on(&mut self, pipeline: &Pipeline) -> Option<usize> {
        let counters = &pipeline.counters().udp;
        let mut blocked = None;
        for (number, udp) in self.sockets.iter_mut().enumerate() {
            let before = udp.sender.waiting();
            if before == 0 {
                continue;
            }
            let sender = &mut udp.sender;
            let flushed = udp.socket.flush(sender);
            let gone = before - sender.waiting();
            let failed = sender.failures();
            counters
                .sent
                .add((gone as u64).saturating_sub(failed.count));
            counters.send_errors.add(failed.count);
            if let Some(last) = failed.last() {
                pipeline
                    .reporter()
                    .lose_refused(failed.count, &last.bytes, last.to, &last.error);
            }
            if let Some(refused) = &mut self.refused {
                let lasting = failed
                    .kept
                    .into_iter()
                    .filter(|kept| !is_congestion(&kept.error));
                refused.extend(lasting.map(|kept| kept.bytes));
            }
            if flushed.is_err() && sender.waiting() > 0 {
                blocked = Some(number);
            }
        }
        blocked
    }

    /// The first bytes of datagrams that the kernel has refused since the last call.
    pub(super) fn take_refused(&mut self) -> Vec<Vec<u8>> {
        let refused = self.refused.as_mut();
        refused.map(mem::take).unwrap_or_default()
    }

    /// Drops what waits for this socket. Returns how many datagrams that were.
    pub(super) fn clear(&mut self, number: usize) -> usize {
        self.sockets[number].sender.clear()
    }

    /// Counts the datagrams that the kernel has dropped since the last look because the worker was too slow.
    pub(super) fn count_overflows(&mut self, pipeline: &Pipeline) {
        for udp in self.sockets.iter_mut().filter(|udp| udp.receives) {
            let Ok(overflows) = portcullis_udp::overflows(&*udp.socket) else {
                continue;
            };
            let more = overflows.wrapping_sub(udp.overflows);
            udp.overflows = overflows;
            let lost = &pipeline.counters().lost;
            lost.add(Lost::ReceiveBufferFull, more.into());
            if more > 0 {
                let local = udp.local;
                let example =
                    || Example::new(b"", Some(local), "the socket's buffer was full".into());
                pipeline
                    .reporter()
                    .note(Trouble::ReceiveBufferFull, more.into(), example);
            }
        }
    }

    /// Further descriptors of the sockets, for another process.
    pub(super) fn lend(&self) -> io::Result<Vec<(UdpSocket, SocketAddr)>> {
        let lent = self.sockets.iter().map(|udp| {
            let socket = udp.socket.as_fd().try_clone_to_owned()?;
            Ok((socket.into(), udp.local))
        });
        lent.collect()
    }

    /// Only sends from now on: another process receives from the sockets.
    pub(super) fn leave(&mut self) -> io::Result<()> {
        for udp in &mut self.sockets {
            udp.socket = Rc::new(udp.socket.for_sending()?);
            udp.receives = false;
        }
        Ok(())
    }
}

impl Udp {
    fn new(socket: UdpSocket, local: SocketAddr, reports_errors: bool) -> io::Result<Self> {
        if reports_errors && let Err(error) = portcullis_udp::report_errors(&socket) {
            warn!(event = "icmp_not_reported", %local, %error, "no reports of ICMP errors from the system: only timers notice a target that is gone");
        }
        // Another process may have had the socket before.
        let overflows = portcullis_udp::overflows(&socket).unwrap_or(0);
        Ok(Self {
            socket: Rc::new(Polled::new(socket)?),
            local,
            sender: Sender::new(BATCH),
            overflows,
            receives: true,
        })
    }
}

/// Notes the loss of a datagram for a socket whose queue is full.
fn queue_full<'a>(bytes: &'a [u8], to: &Destination) -> Loss<'a> {
    Loss {
        lost: Lost::QueueFull,
        bytes,
        transport: Transport::Udp,
        peer: to.addr,
        detail: &"the system takes datagrams too slowly",
    }
}

/// Whether the system only lacks memory at the moment: a retransmission may be sent.
fn is_congestion(error: &io::Error) -> bool {
    let code = error.raw_os_error().map(Errno::from_raw);
    matches!(code, Some(Errno::ENOBUFS | Errno::ENOMEM))
}
