//! A stream that a request came over, as the seals of Via and Record-Route report it.

use crate::arrival::{Arrival, ConnectionId, Transport};
use crate::edit::{read_hex, write_hex};

/// The transport and the number of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stream {
    pub(super) transport: Transport,
    pub(super) connection: ConnectionId,
}

impl Stream {
    /// The stream of a message; `None` for a datagram.
    pub(super) fn of(arrival: &Arrival) -> Option<Self> {
        let connection = arrival.connection?;
        Some(Self {
            transport: arrival.transport,
            connection,
        })
    }

    /// The transport of a message that came over this stream, or over none.
    pub(super) fn transport(stream: Option<Self>) -> Transport {
        stream.map_or(Transport::Udp, |stream| stream.transport)
    }

    /// The number of the connection, and nothing for a datagram. Before the number, the transport if it is not TCP.
    pub(super) fn write(stream: Option<Self>, out: &mut Vec<u8>) {
        let Some(stream) = stream else {
            return;
        };
        if stream.transport != Transport::Tcp {
            out.extend([MARK, b'0' + stream.transport.number()]);
        }
        write_hex(stream.connection.0, out);
    }

    /// Reads what [`Stream::write`] writes; `None` for anything else.
    pub(super) fn read(text: &[u8]) -> Option<Option<Self>> {
        let (transport, digits) = match text {
            [] => return Some(None),
            [MARK, number, digits @ ..] => {
                let number = number.checked_sub(b'0')?;
                let transport = Transport::of_number(number);
                (transport.filter(|it| it.is_reliable())?, digits)
            }
            digits => (Transport::Tcp, digits),
        };
        Some(Some(Self {
            transport,
            connection: ConnectionId(read_hex(digits)?),
        }))
    }
}

/// No hexadecimal digit.
const MARK: u8 = b't';

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_are_read_as_they_were_written() {
        let stream = |transport| {
            Some(Stream {
                transport,
                connection: ConnectionId(0xfeed),
            })
        };
        for written in [None, stream(Transport::Tcp), stream(Transport::Tls)] {
            let mut text = Vec::new();
            Stream::write(written, &mut text);
            assert_eq!(Stream::read(&text), Some(written));
        }
        for other in ["t", "t2", "t0000000000000feed", "t9000000000000feed", "tx1"] {
            assert_eq!(Stream::read(other.as_bytes()), None, "{other}");
        }
    }
}
