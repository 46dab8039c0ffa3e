//! What a policy sees of a request.

use std::borrow::Cow;
use std::net::SocketAddr;

/// A SIP request as the host functions of the interface `request` read it.
///
/// A request moves into the sandbox for the time of a call and comes back with the verdict, so an implementation owns its
/// bytes. Each value is asked for at most a few times in a call; texts that are not UTF-8 are given with U+FFFD in place of
/// the bad bytes.
pub trait RequestView: Send + 'static {
    /// The method as received.
    fn method(&self) -> Cow<'_, str>;
    /// The request URI as received.
    fn uri(&self) -> Cow<'_, str>;
    /// The URI of From without display name, brackets and header parameters.
    #[expect(
        clippy::wrong_self_convention,
        reason = "the header field is called From"
    )]
    fn from_uri(&self) -> Cow<'_, str>;
    /// The URI of To without display name, brackets and header parameters.
    fn to_uri(&self) -> Cow<'_, str>;
    /// The value of Call-ID.
    fn call_id(&self) -> Cow<'_, str>;
    /// The number of CSeq.
    fn cseq_number(&self) -> u32;
    /// Where the request came from. An IPv4 address is never shown as a v4-mapped IPv6 address.
    fn source(&self) -> SocketAddr;
    /// The host's socket that received the request.
    fn local(&self) -> SocketAddr;
    /// The transport as a Via header field names it: `UDP`, `TCP`.
    fn transport(&self) -> &'static str;
    /// The unfolded value of the first header field of this name. Names compare without case, compact forms as full ones.
    fn header(&self, name: &str) -> Option<Cow<'_, str>>;
    /// Hands the unfolded values of all header fields of this name to `each`, in the order of the message.
    fn headers(&self, name: &str, each: &mut dyn FnMut(Cow<'_, str>));
    /// The parts of the request URI that rules look at; none if it can't be read.
    fn plain_uri(&self) -> Option<PlainUri<'_>>;
    /// Hands every value of Contact to `each`, in the order of the message.
    fn contacts(&self, each: &mut dyn FnMut(Contact<'_>));
    /// The length of the body in bytes.
    fn body_length(&self) -> u32;
}

/// One value of Contact.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Contact<'c> {
    /// `*`
    Star,
    /// A URI.
    Uri(PlainUri<'c>),
    /// Something that can't be read.
    Unreadable,
}

/// A URI without scheme, password, parameters and headers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlainUri<'u> {
    /// What stands before `@`, empty if there is none.
    pub user: Cow<'u, str>,
    /// The host, an IPv6 address in its brackets.
    pub host: Cow<'u, str>,
    /// The port, if it is named.
    pub port: Option<u16>,
}
