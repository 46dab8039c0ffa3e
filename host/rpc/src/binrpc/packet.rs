//! Packets: header, requests, and framing of a stream.

use thiserror::Error;

use super::record::{Record, Records};
use crate::{Call, Fault, MOST_REQUEST, Param};

/// One packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet<'a> {
    /// Its kind.
    pub kind: Kind,
    /// The cookie that the reply carries back.
    pub cookie: u32,
    /// Its records.
    pub body: &'a [u8],
    /// Length of header and body.
    pub length: usize,
}

/// The kind of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A command and its parameters.
    Request,
    /// The result of a command.
    Reply,
    /// Code and reason of a failure.
    Fault,
}

/// A packet or request that is malformed. The start of the next packet is unknown.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("bad request: {what}")]
pub struct Malformed {
    /// The cookie of the packet; 0 if it cannot be read.
    pub cookie: u32,
    /// What is wrong, beginning with Kamailio's words (`binrpc_error`).
    pub what: String,
}

/// The receiving side of one stream connection.
#[derive(Debug, Default)]
pub struct Framer {
    buffer: Vec<u8>,
    start: usize,
}

impl<'a> Packet<'a> {
    /// The packet at the start of `bytes`; `None` if more bytes are needed.
    ///
    /// # Errors
    /// If `bytes` cannot be the start of a packet, or the packet has more than [`MOST_REQUEST`] bytes.
    pub fn parse(bytes: &'a [u8]) -> Result<Option<Self>, Malformed> {
        let corrupted = |what: String| Malformed {
            cookie: 0,
            what: format!("corrupted packet: {what}"),
        };
        match bytes.first() {
            None => return Ok(None),
            Some(&MAGIC_AND_VERSION) => {}
            Some(other) => {
                return Err(corrupted(format!(
                    "it begins with 0x{other:02x}, not with 0x{MAGIC_AND_VERSION:02x}"
                )));
            }
        }
        let Some(&flags) = bytes.get(1) else {
            return Ok(None);
        };
        let kind = Kind::of(flags >> 4)
            .ok_or_else(|| corrupted(format!("unknown type {}", flags >> 4)))?;
        let (length_width, cookie_width) = (width(flags >> 2), width(flags));
        let header = FIXED + length_width + cookie_width;
        let Some(numbers) = bytes.get(FIXED..header) else {
            return Ok(None);
        };
        let (length, cookie) = numbers.split_at(length_width);
        let (length, cookie) = (number(length), number(cookie));
        let length = header.saturating_add(length as usize);
        if length > MOST_REQUEST {
            return Err(Malformed {
                cookie,
                what: format!(
                    "buffer too small (overflow): {length} bytes, {MOST_REQUEST} at most"
                ),
            });
        }
        Ok(bytes.get(header..length).map(|body| Self {
            kind,
            cookie,
            body,
            length,
        }))
    }

    /// The command in a request.
    ///
    /// # Errors
    /// If the packet is no request, or a record of it is malformed.
    pub fn call(&self) -> Result<Call, Malformed> {
        let malformed = |what: String| Malformed {
            cookie: self.cookie,
            what,
        };
        if self.kind != Kind::Request {
            return Err(malformed("corrupted packet: a reply, not a request".into()));
        }
        let mut records = Records::new(self.body);
        let method = match records.next() {
            Some(Ok(Record::Text(method))) => text(method).map_err(malformed)?,
            Some(Ok(_)) => return Err(malformed("bad record: the method is not a string".into())),
            Some(Err(error)) => return Err(malformed(error.to_string())),
            None => return Err(malformed("end of packet encountered: no method".into())),
        };
        let params = params(records).map_err(malformed)?;
        Ok(Call { method, params })
    }
}

impl Kind {
    fn of(number: u8) -> Option<Self> {
        Some(match number {
            0 => Self::Request,
            1 => Self::Reply,
            3 => Self::Fault,
            _ => return None,
        })
    }

    pub(super) fn number(self) -> u8 {
        match self {
            Self::Request => 0,
            Self::Reply => 1,
            Self::Fault => 3,
        }
    }
}

impl Malformed {
    /// The fault to send before the connection is closed.
    pub fn fault(&self) -> Fault {
        Fault::new(400, self.to_string())
    }
}

impl Framer {
    /// The buffer, to append received bytes to; it must not be changed otherwise.
    pub fn space(&mut self) -> &mut Vec<u8> {
        if self.start > 0 {
            self.buffer.drain(..self.start);
            self.start = 0;
        }
        if self.buffer.is_empty() {
            self.buffer.shrink_to(IDLE_CAPACITY);
        }
        &mut self.buffer
    }

    /// The next packet; `None` if more bytes are needed.
    ///
    /// # Errors
    /// The stream cannot be framed any further: answer with [`Malformed::fault`] and close the connection.
    #[expect(clippy::should_implement_trait, reason = "more may come behind None")]
    pub fn next(&mut self) -> Result<Option<Packet<'_>>, Malformed> {
        let rest = self.buffer.get(self.start..).unwrap_or_default();
        let packet = Packet::parse(rest)?;
        if let Some(packet) = &packet {
            self.start += packet.length;
        }
        Ok(packet)
    }

    /// Bytes of an incomplete packet.
    pub fn pending(&self) -> usize {
        self.buffer.len() - self.start
    }
}

fn params(records: Records<'_>) -> Result<Vec<Param>, String> {
    let mut params = Vec::new();
    let mut depth = 0_usize;
    for record in records {
        let param = match record.map_err(|error| error.to_string())? {
            Record::Struct | Record::List => {
                depth += 1;
                Param::Other("structure")
            }
            Record::StructEnd | Record::ListEnd => {
                depth = depth
                    .checked_sub(1)
                    .ok_or("bad record: an end without a start")?;
                continue;
            }
            Record::Int(number) => Param::Int(number.into()),
            Record::Double(number) => Param::Double(number),
            Record::Text(bytes) => Param::Text(text(bytes)?),
            Record::Bytes(_) => Param::Other("bytes array"),
            Record::Name(_) if depth == 0 => {
                return Err("bad record: a name outside of a structure".into());
            }
            Record::Name(_) => continue,
        };
        // A structure is one parameter, with everything in it, structures included.
        if depth == 0 || (depth == 1 && matches!(param, Param::Other("structure"))) {
            params.push(param);
        }
    }
    match depth {
        0 => Ok(params),
        _ => Err("end of packet encountered: a structure without an end".into()),
    }
}

fn text(bytes: &[u8]) -> Result<String, String> {
    String::from_utf8(bytes.to_vec()).map_err(|_| "bad record: a string that is not UTF-8".into())
}

fn width(flags: u8) -> usize {
    usize::from(flags & 3) + 1
}

/// At most four bytes.
fn number(bytes: &[u8]) -> u32 {
    bytes
        .iter()
        .fold(0, |number, &byte| number << 8 | u32::from(byte))
}

/// 0xA, and version 1.
pub(super) const MAGIC_AND_VERSION: u8 = 0xa1;

/// The bytes in front of length and cookie.
const FIXED: usize = 2;

/// Buffer capacity, in bytes, that an idle connection keeps.
const IDLE_CAPACITY: usize = 4096;
