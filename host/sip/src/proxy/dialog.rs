//! The seal of an accepted dialog: this host writes it into its Record-Route value, and Route brings it back.
//!
//! A request within a dialog (RFC 3261 §12.2) brings back the Record-Route values of the request that began the dialog. Ours has a
//! parameter `seal=MINUTE-OWNER-HOP-SOCKET-ADDRESS-STREAM-MAC`: when the dialog was accepted, its owner, the next hop of its
//! first request, and the source of that. The MAC is a keyed hash of these values, the Call-ID and the caller's tag, which later
//! requests have as tag of From in one direction and as tag of To in the other. So every host with the key knows the decision
//! without state, whatever policy is active meanwhile, and the seal is not valid for another dialog.
//!
//! The address is that of the caller as the callee also sees it in Via; owner and next hop are hashes of their names.

use std::net::{IpAddr, SocketAddr};

use super::Proxy;
use super::branch::Origin;
use super::flow::Flow;
use super::minute::Minute;
use super::own_route::{OWN_ROUTES, uri_of_route};
use super::stream::Stream;
use crate::edit::{read_hex, read_short_hex, write_decimal, write_hex, write_short_hex};
use crate::key::Key;
use crate::list::values;
use crate::name_addr::NameAddr;
use crate::scan::{HeaderName, Message, StartLine};
use crate::uri::Uri;

/// A dialog that this host admitted, and the direction of a request within it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dialog {
    owner: Option<u64>,
    /// The address of the caller.
    caller: IpAddr,
    pub(super) toward: End,
}

/// The end of a dialog that a request goes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// The caller, at the source of the first request.
    Caller(Flow),
    /// The callee, through the next hop with this mark, if the first request went to a next hop of the configuration.
    Callee(Option<u64>),
}

/// The result of verifying the Route values of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DialogSeal {
    /// No seal: the request is not within a dialog that this host sealed.
    None,
    /// A valid seal of this dialog.
    Valid(Dialog),
    /// A seal of another host or of another dialog.
    Forged,
    /// A seal that has expired.
    Expired,
}

impl Dialog {
    /// The owner of the dialog: the mark of the [`Routes`](crate::Routes) that its first request was relayed by.
    pub fn owner(&self) -> Option<u64> {
        self.owner
    }

    /// Whether a request within the dialog goes to its caller: to the source of the request that began the dialog, which may have been forged.
    pub fn calls_back(&self) -> bool {
        matches!(self.toward, End::Caller(_))
    }

    /// Whether a request within the dialog is the caller's, and comes from the address of the request that began the dialog. The callee knows the
    /// seal as well, so this proves only that the sender is one of both.
    pub fn is_from_caller(&self, source: IpAddr) -> bool {
        matches!(self.toward, End::Callee(_)) && self.caller == source
    }
}

impl Proxy {
    /// Verifies the seal of the dialog to which a request belongs.
    ///
    /// A request within a dialog has a tag in To. REGISTER and PUBLISH are never within a dialog.
    pub fn dialog(&self, message: Message<'_>) -> DialogSeal {
        let StartLine::Request { method, uri, .. } = message.start_line() else {
            return DialogSeal::None;
        };
        if matches!(method, b"REGISTER" | b"PUBLISH") || message.header(HeaderName::Route).is_none()
        {
            return DialogSeal::None;
        }
        let tags = [HeaderName::From, HeaderName::To].map(|name| tag(message, name));
        if tags[1].is_empty() {
            return DialogSeal::None;
        }
        let mut found = DialogSeal::None;
        // A strict router moves our value into the request URI (§16.4).
        let strict = seal_of(self, uri, true);
        let routes = message
            .headers(HeaderName::Route)
            .flat_map(|field| values(field.value))
            .take(OWN_ROUTES)
            .map_while(|value| seal_of(self, uri_of_route(value.bytes).ok()?, false));
        for text in strict.into_iter().chain(routes).flatten() {
            found = self.read_seal(text, message, tags);
            if matches!(found, DialogSeal::Valid(_)) {
                break;
            }
        }
        found
    }

    fn read_seal(&self, text: &[u8], message: Message<'_>, tags: [&[u8]; 2]) -> DialogSeal {
        let Some(sealed) = Sealed::read(text) else {
            return DialogSeal::Forged;
        };
        let call_id = call_id(message);
        let is_of = |tag: &[u8]| {
            let mut keys = self.keys.all();
            !tag.is_empty() && keys.any(|key| key.dialog(call_id, tag, sealed.text) == sealed.mac)
        };
        let toward = if is_of(tags[0]) {
            End::Callee(sealed.hop)
        } else if is_of(tags[1]) {
            End::Caller(sealed.caller)
        } else {
            return DialogSeal::Forged;
        };
        if self.age(sealed.minute) >= self.dialog_minutes {
            return DialogSeal::Expired;
        }
        DialogSeal::Valid(Dialog {
            owner: sealed.owner,
            caller: sealed.caller.addr.ip(),
            toward,
        })
    }
}

/// The values sealed for the request that begins a dialog.
pub(super) struct Beginning {
    pub(super) origin: Origin,
    /// Its source.
    pub(super) caller: SocketAddr,
    /// Its owner.
    pub(super) owner: Option<u64>,
    /// The mark of its next hop.
    pub(super) hop: Option<u64>,
}

impl Beginning {
    /// Writes the parameter; nothing without a tag in From, which identifies the dialog.
    pub(super) fn write(&self, key: &Key, message: Message<'_>, out: &mut Vec<u8>) {
        let tag = tag(message, HeaderName::From);
        if tag.is_empty() {
            return;
        }
        out.extend_from_slice(PARAMETER);
        let start = out.len();
        write_short_hex(self.origin.minute.0, out);
        for mark in [self.owner, self.hop] {
            out.push(b'-');
            if let Some(mark) = mark {
                write_hex(mark, out);
            }
        }
        out.push(b'-');
        write_decimal(self.origin.socket, out);
        out.push(b'-');
        write_address(self.caller, out);
        out.push(b'-');
        Stream::write(self.origin.stream, out);
        let written = out.get(start..).unwrap_or_default();
        let mac = key.dialog(call_id(message), tag, written);
        out.push(b'-');
        write_hex((mac >> 64) as u64, out);
        write_hex(mac as u64, out);
    }
}

const PARAMETER: &[u8] = b";seal=";

/// The seal in this URI, or its absence; `None` if the URI does not name this host, so that the following values are not ours.
fn seal_of<'a>(proxy: &Proxy, uri: &'a [u8], must_be_loose: bool) -> Option<Option<&'a [u8]>> {
    let uri = Uri::parse(uri).ok()?;
    if !proxy.identity.is_our_uri(&uri) || (must_be_loose && !uri.is_loose_router()) {
        return None;
    }
    Some(uri.params.named("seal").and_then(|seal| seal.value))
}

/// The parts of a seal whose MAC has not been verified yet.
struct Sealed<'a> {
    /// The input of the MAC.
    text: &'a [u8],
    minute: Minute,
    owner: Option<u64>,
    hop: Option<u64>,
    caller: Flow,
    mac: u128,
}

impl<'a> Sealed<'a> {
    fn read(value: &'a [u8]) -> Option<Self> {
        const MAC_DIGITS: usize = 32;
        let (text, mac) = value.split_at_checked(value.len().checked_sub(MAC_DIGITS + 1)?)?;
        let (high, low) = mac.strip_prefix(b"-")?.split_at(MAC_DIGITS / 2);
        let mac = u128::from(read_hex(high)?) << 64 | u128::from(read_hex(low)?);
        let mut parts = text.split(|&byte| byte == b'-');
        let minute = Minute(read_short_hex(parts.next()?)?);
        let owner = optional(parts.next()?)?;
        let hop = optional(parts.next()?)?;
        let caller = Flow {
            socket: crate::cseq::number(parts.next()?, u32::MAX)?,
            addr: read_address(parts.next()?)?,
            stream: Stream::read(parts.next()?)?,
        };
        parts.next().is_none().then_some(Self {
            text,
            minute,
            owner,
            hop,
            caller,
            mac,
        })
    }
}

/// A number, or nothing instead.
fn optional(digits: &[u8]) -> Option<Option<u64>> {
    match digits {
        b"" => Some(None),
        digits => read_hex(digits).map(Some),
    }
}

/// The address in 8 or 32 digits, the port in 4 of 8.
fn write_address(addr: SocketAddr, out: &mut Vec<u8>) {
    match addr.ip() {
        IpAddr::V4(ip) => write_short_hex(ip.to_bits(), out),
        IpAddr::V6(ip) => {
            let bits = ip.to_bits();
            write_hex((bits >> 64) as u64, out);
            write_hex(bits as u64, out);
        }
    }
    write_short_hex(addr.port().into(), out);
}

fn read_address(digits: &[u8]) -> Option<SocketAddr> {
    let (ip, port) = digits.split_at_checked(digits.len().checked_sub(8)?)?;
    let port = u16::try_from(read_short_hex(port)?).ok()?;
    let ip = match ip.len() {
        8 => IpAddr::V4(read_short_hex(ip)?.into()),
        _ => {
            let (high, low) = ip.split_at_checked(16)?;
            IpAddr::V6((u128::from(read_hex(high)?) << 64 | u128::from(read_hex(low)?)).into())
        }
    };
    Some(SocketAddr::new(ip, port))
}

fn call_id(message: Message<'_>) -> &[u8] {
    let field = message.header(HeaderName::CallId);
    field.map(|field| field.value).unwrap_or_default()
}

fn tag(message: Message<'_>, name: HeaderName) -> &[u8] {
    let field = message.header(name);
    let address = field.and_then(|field| NameAddr::parse(field.value).ok());
    address
        .and_then(|address| address.tag())
        .unwrap_or_default()
}

/// Whether the request is within a dialog (RFC 3261 §12.2).
pub fn to_has_tag(message: Message<'_>) -> bool {
    let to = message
        .header(HeaderName::To)
        .and_then(|to| NameAddr::parse(to.value).ok());
    to.is_some_and(|to| to.tag().is_some())
}
