//! The callers: one socket for each source, and their shared books.

use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};

use anyhow::{Context, Result};
use portcullis_udp::{Receiver, Sender};

use crate::books::Books;
use crate::connection::{Connection, Route};
use crate::plan::Plan;
use crate::socket;
use crate::template::Template;
use crate::tls::{self, Sessions};

/// Datagrams read or written with one system call.
pub(crate) const BATCH: usize = 32;

/// All callers of a run.
pub(crate) struct Crowd {
    /// What is known of the requests.
    pub(crate) books: Books,
    callers: Vec<Caller>,
    receiver: Receiver,
    sender: Sender,
    target: SocketAddr,
}

/// One source. It owns every slot whose number modulo the number of callers is its own number.
struct Caller {
    wire: Wire,
    address: SocketAddr,
    template: Template,
    free: VecDeque<usize>,
}

/// How a source reaches the server.
enum Wire {
    Datagrams(UdpSocket),
    Connection(Box<Connection>),
}

impl Crowd {
    /// Binds consecutive sources from this one on, and connects them if the transport has connections.
    pub(crate) fn bind(plan: &Plan, first: IpAddr) -> Result<Self> {
        let count = plan.sources;
        let route = Route {
            target: plan.target,
            transport: plan.transport,
            tls: match plan.transport.has_tls() {
                true => Some(tls::client(plan.tls, Sessions::New)?),
                false => None,
            },
        };
        let mut callers = Vec::with_capacity(count);
        for (nth, source) in plan.sources_from(first).into_iter().enumerate() {
            let wire = match plan.transport.has_connections() {
                false => {
                    let socket = socket::bind(SocketAddr::new(source, 0));
                    Wire::Datagrams(socket.with_context(|| format!("source {source}"))?)
                }
                true => Wire::Connection(Box::new(Connection::establish(&route, source)?)),
            };
            let address = wire.address()?;
            callers.push(Caller {
                template: Template::new(plan, address),
                address,
                wire,
                free: (0..plan.outstanding).map(|n| n * count + nth).collect(),
            });
        }
        Ok(Self {
            books: Books::new(plan),
            callers,
            receiver: Receiver::new(BATCH),
            sender: Sender::new(BATCH),
            target: plan.target,
        })
    }

    /// Number of callers.
    pub(crate) fn len(&self) -> usize {
        self.callers.len()
    }

    /// Sends a new request of this caller for each of its free slots, at most `limit`. Returns their number.
    pub(crate) fn call(&mut self, caller: usize, limit: u64, now_ns: u64) -> io::Result<u64> {
        let caller = &mut self.callers[caller];
        let mut sent = 0;
        while sent < limit {
            let Some(slot) = caller.free.pop_front() else {
                break;
            };
            let id = self.books.begin(slot, now_ns);
            let request = caller.template.with_id(id);
            match &mut caller.wire {
                Wire::Datagrams(_) => self.sender.push(request, self.target),
                Wire::Connection(connection) => connection.outbox().push(request),
            }
            sent += 1;
        }
        caller.wire.flush(&mut self.sender)?;
        Ok(sent)
    }

    /// Receives responses on this caller's socket and returns their number.
    pub(crate) fn collect(&mut self, caller: usize, now_ns: u64) -> io::Result<usize> {
        let Self {
            books,
            callers,
            receiver,
            sender,
            target,
        } = self;
        let Caller {
            wire,
            address,
            template,
            free,
        } = &mut callers[caller];
        let count = match wire {
            Wire::Datagrams(socket) => {
                let count = socket::receive(receiver, socket)?;
                for nth in 0..count {
                    let bytes = receiver.datagram(nth).0;
                    let send = |message: &[u8]| sender.push(message, *target);
                    free.extend(books.enter(bytes, template, *address, now_ns, send));
                }
                count
            }
            Wire::Connection(connection) => {
                connection.turn()?;
                let count = connection.take(|bytes, outbox| {
                    let send = |message: &[u8]| outbox.push(message);
                    free.extend(books.enter(bytes, template, *address, now_ns, send));
                })?;
                if connection.is_over() {
                    let what = format!("the server has closed the connection of {address}");
                    return Err(io::Error::new(io::ErrorKind::ConnectionAborted, what));
                }
                count
            }
        };
        wire.flush(sender)?;
        Ok(count)
    }

    /// Sends requests again that are due. Over a connection, none ever is.
    pub(crate) fn call_again(&mut self, now_ns: u64) -> io::Result<()> {
        let count = self.callers.len();
        for (slot, id) in self.books.overdue(now_ns) {
            let caller = &mut self.callers[slot % count];
            let request = match self.books.bye(slot) {
                None => caller.template.with_id(id),
                Some(bye) => bye,
            };
            self.sender.push(request, self.target);
            caller.wire.flush(&mut self.sender)?;
        }
        Ok(())
    }

    /// Gives up requests that have had no response for longer than `patience_ns`.
    pub(crate) fn give_up(&mut self, now_ns: u64, patience_ns: u64) {
        let count = self.callers.len();
        for slot in self.books.give_up(now_ns, patience_ns) {
            self.callers[slot % count].free.push_back(slot);
        }
    }
}

impl Wire {
    fn address(&self) -> io::Result<SocketAddr> {
        match self {
            Self::Datagrams(socket) => socket.local_addr(),
            Self::Connection(connection) => connection.address(),
        }
    }

    /// Sends what is waiting.
    fn flush(&mut self, sender: &mut Sender) -> io::Result<()> {
        match self {
            Self::Datagrams(socket) => socket::send(sender, socket),
            Self::Connection(connection) => connection.flush(),
        }
    }
}
