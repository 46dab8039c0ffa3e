//! What a process passes on to the one that had its sockets before: messages that belong to transactions of that one.

use std::collections::HashSet;
use std::hash::{BuildHasherDefault, Hasher};
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixDatagram;
use std::str;
use std::sync::Arc;

use portcullis_sip::{Arrival, Branch, Framing, Message, Transaction, Transport};
use socket2::{Domain, Socket, Type};

/// Send buffer that holds the messages of calls in set-up while the other process is busy; the system may grant less
/// (`net.core.wmem_max`). It is the only bound: a socket of the datagram type would hold ten messages (`net.unix.max_dgram_qlen`).
const BUFFER: usize = 4 << 20;

/// The longest message, with its header: one of a stream may be longer than a datagram, and is not passed on then.
const MOST: usize = 128 << 10;

/// One end of the connection between a worker and the worker with the same number of another process.
///
/// It carries whole messages, as a datagram socket does, and says so when the other end is closed.
#[derive(Debug)]
pub struct Link(UnixDatagram);

/// The transactions of a process that had the sockets before, as a worker of its successor knows them.
#[derive(Debug)]
pub struct Predecessor {
    link: Link,
    names: Arc<Names>,
}

/// The names of transactions, by their numbers.
#[derive(Debug, Default)]
pub struct Names(HashSet<u64, BuildHasherDefault<Keyed>>);

/// What is passed on.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Passed<'a> {
    /// A received message.
    Message {
        bytes: &'a [u8],
        arrival: Arrival,
        framing: Framing,
    },
    /// The branch of a request of that process that could not be delivered.
    Undelivered(Branch),
}

/// What became of a message that may belong to a transaction of another process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Passing {
    /// It was passed on.
    Done,
    /// The link is full, or the message too long.
    Full,
    /// The other process has ended.
    Ended,
}

/// A hasher for values that are keyed hashes already.
#[derive(Debug, Default)]
pub struct Keyed(u64);

impl Link {
    /// Both ends of a new connection.
    ///
    /// # Errors
    /// When no descriptor is left.
    pub fn pair() -> io::Result<(Self, Self)> {
        let (one, other) = Socket::pair(Domain::UNIX, Type::SEQPACKET, None)?;
        for end in [&one, &other] {
            end.set_nonblocking(true)?;
            let _best_effort = end.set_send_buffer_size(BUFFER);
        }
        Ok((OwnedFd::from(one).into(), OwnedFd::from(other).into()))
    }

    /// A further handle of this end.
    ///
    /// # Errors
    /// When no descriptor is left.
    pub fn duplicate(&self) -> io::Result<Self> {
        self.0.try_clone().map(Self)
    }

    pub(crate) fn into_socket(self) -> UnixDatagram {
        self.0
    }

    fn send(&self, passed: &Passed<'_>) -> Passing {
        let mut packet = Vec::new();
        passed.write(&mut packet);
        if packet.len() > MOST {
            return Passing::Full;
        }
        match self.0.send(&packet) {
            Ok(_) => Passing::Done,
            Err(error) if is_full(&error) => Passing::Full,
            Err(_) => Passing::Ended,
        }
    }
}

impl From<OwnedFd> for Link {
    fn from(descriptor: OwnedFd) -> Self {
        Self(descriptor.into())
    }
}

impl AsFd for Link {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Predecessor {
    /// A process with these transactions.
    pub fn new(link: Link, names: Arc<Names>) -> Self {
        Self { link, names }
    }

    /// Whether that process had a transaction of this name when it gave its sockets away.
    pub(crate) fn has(&self, transaction: Transaction) -> bool {
        self.names.0.contains(&transaction.number())
    }

    /// Passes a message on.
    pub(crate) fn pass(&self, message: Message<'_>, arrival: &Arrival) -> Passing {
        self.link.send(&Passed::Message {
            bytes: message.bytes(),
            // That process has none of the connections of this one.
            arrival: Arrival {
                connection: None,
                ..*arrival
            },
            framing: Framing::of(arrival.transport),
        })
    }

    /// Passes on that a request of that process could not be delivered.
    pub(crate) fn pass_undelivered(&self, branch: Branch) -> Passing {
        self.link.send(&Passed::Undelivered(branch))
    }
}

impl Names {
    /// Their numbers.
    pub fn numbers(&self) -> impl Iterator<Item = u64> {
        self.0.iter().copied()
    }
}

impl Extend<u64> for Names {
    fn extend<I: IntoIterator<Item = u64>>(&mut self, names: I) {
        self.0.extend(names);
    }
}

impl<'a> Passed<'a> {
    /// Begins with a line of words.
    fn write(&self, packet: &mut Vec<u8>) {
        match self {
            Self::Message {
                bytes,
                arrival,
                framing,
            } => {
                let framing = match framing {
                    Framing::Datagram => "datagram",
                    Framing::Stream => "stream",
                };
                let Arrival {
                    source,
                    local,
                    transport,
                    ..
                } = arrival;
                let transport = transport.parameter();
                packet.extend(format!("{framing} {transport} {source} {local}\n").into_bytes());
                packet.extend_from_slice(bytes);
            }
            Self::Undelivered(Branch {
                transaction,
                number,
            }) => {
                let transaction = transaction.number();
                packet.extend(format!("undelivered {transaction} {number}\n").into_bytes());
            }
        }
    }

    /// `None` for anything that this does not write.
    pub(crate) fn read(packet: &'a [u8]) -> Option<Self> {
        let end = packet.iter().position(|byte| *byte == b'\n')?;
        let (line, bytes) = (str::from_utf8(&packet[..end]).ok()?, &packet[end + 1..]);
        let mut words = line.split(' ');
        let framing = match words.next()? {
            "datagram" => Framing::Datagram,
            "stream" => Framing::Stream,
            "undelivered" => {
                return Some(Self::Undelivered(Branch {
                    transaction: Transaction::of_number(words.next()?.parse().ok()?),
                    number: words.next()?.parse().ok()?,
                }));
            }
            _ => return None,
        };
        let transport = words.next()?.parse::<Transport>().ok()?;
        let mut addr = || words.next()?.parse::<SocketAddr>().ok();
        let arrival = Arrival {
            source: addr()?,
            local: addr()?,
            transport,
            connection: None,
        };
        Some(Self::Message {
            bytes,
            arrival,
            framing,
        })
    }
}

impl Hasher for Keyed {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u64(&mut self, number: u64) {
        // The low byte says which worker has the transaction, and is alike for all of them.
        self.0 = number.rotate_right(8);
    }
}

/// Room for a message that is received from a link.
pub(crate) fn buffer() -> Vec<u8> {
    vec![0; MOST]
}

fn is_full(error: &io::Error) -> bool {
    let too_long = nix::errno::Errno::EMSGSIZE as i32;
    error.kind() == io::ErrorKind::WouldBlock || error.raw_os_error() == Some(too_long)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arrival(source: &str, transport: Transport) -> Arrival {
        Arrival {
            source: source.parse().unwrap(),
            local: "[2001:db8::1]:5060".parse().unwrap(),
            transport,
            connection: None,
        }
    }

    #[test]
    fn what_is_passed_on_arrives_unchanged() {
        for passed in [
            Passed::Message {
                bytes: b"SIP/2.0 200 OK\r\n\r\n\n",
                arrival: arrival("192.0.2.7:5062", Transport::Udp),
                framing: Framing::Datagram,
            },
            Passed::Message {
                bytes: b"",
                arrival: arrival("[2001:db8::2]:5060", Transport::Tls),
                framing: Framing::Stream,
            },
            Passed::Undelivered(branch(u64::MAX)),
        ] {
            let mut packet = Vec::new();
            passed.write(&mut packet);
            assert_eq!(Passed::read(&packet), Some(passed));
        }
        for other in [
            &b""[..],
            b"\n",
            b"datagram\n",
            b"datagram udp 1 2\n",
            b"no line",
        ] {
            assert_eq!(Passed::read(other), None);
        }
    }

    #[test]
    fn a_full_link_and_one_without_a_reader_are_told_apart() {
        let (here, there) = Link::pair().unwrap();
        let mut names = Names::default();
        names.extend([256, 512]);
        let predecessor = Predecessor::new(here, Arc::new(names));
        let has = [1, 256, 512].map(|number| predecessor.has(branch(number).transaction));
        assert_eq!(has, [false, true, true]);
        let mut passed = 0;
        while predecessor.pass_undelivered(branch(512)) == Passing::Done {
            passed += 1;
        }
        assert!(passed > 100, "{passed}");
        assert_eq!(predecessor.pass_undelivered(branch(256)), Passing::Full);
        drop(there);
        assert_eq!(predecessor.pass_undelivered(branch(256)), Passing::Ended);
    }

    fn branch(number: u64) -> Branch {
        Branch {
            transaction: Transaction::of_number(number),
            number: 3,
        }
    }
}
