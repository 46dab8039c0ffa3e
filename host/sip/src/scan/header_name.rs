//! Header names: the full and the compact forms, looked up by table.

/// Defines [`HeaderName`] and the table behind it from one list.
macro_rules! header_names {
    ($($variant:ident $full:literal $($compact:literal)?,)*) => {
        /// A header field name. Compact and full forms are the same name (RFC 3261 §7.3.3), case
        /// is ignored; a name outside this list is [`HeaderName::Other`] and passes unread.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum HeaderName {
            $(
                #[doc = concat!("`", $full, "`")]
                $variant,
            )*
            /// Any other name.
            Other,
        }

        /// Every known name, indexed by its discriminant.
        const KNOWN: &[Known] = &[
            $(Known {
                name: HeaderName::$variant,
                full: $full,
                compact: { let compact: &[u8] = &[$($compact)?]; compact },
            },)*
        ];
    };
}

header_names! {
    Via "Via" b'v',
    From "From" b'f',
    To "To" b't',
    CallId "Call-ID" b'i',
    CSeq "CSeq",
    MaxForwards "Max-Forwards",
    Route "Route",
    RecordRoute "Record-Route",
    Contact "Contact" b'm',
    ContentLength "Content-Length" b'l',
    ContentType "Content-Type" b'c',
    ProxyRequire "Proxy-Require",
    Require "Require",
    Accept "Accept",
    AcceptContact "Accept-Contact" b'a',
    AcceptEncoding "Accept-Encoding",
    AcceptLanguage "Accept-Language",
    AlertInfo "Alert-Info",
    Allow "Allow",
    AllowEvents "Allow-Events" b'u',
    AuthenticationInfo "Authentication-Info",
    Authorization "Authorization",
    CallInfo "Call-Info",
    ContentDisposition "Content-Disposition",
    ContentEncoding "Content-Encoding" b'e',
    ContentLanguage "Content-Language",
    Date "Date",
    Diversion "Diversion",
    ErrorInfo "Error-Info",
    Event "Event" b'o',
    Expires "Expires",
    HistoryInfo "History-Info",
    Identity "Identity" b'y',
    IdentityInfo "Identity-Info" b'n',
    InReplyTo "In-Reply-To",
    MaxBreadth "Max-Breadth",
    MimeVersion "MIME-Version",
    MinExpires "Min-Expires",
    MinSe "Min-SE",
    Organization "Organization",
    PAssertedIdentity "P-Asserted-Identity",
    PPreferredIdentity "P-Preferred-Identity",
    Path "Path",
    Priority "Priority",
    Privacy "Privacy",
    ProxyAuthenticate "Proxy-Authenticate",
    ProxyAuthorization "Proxy-Authorization",
    RAck "RAck",
    RSeq "RSeq",
    Reason "Reason",
    ReferTo "Refer-To" b'r',
    ReferredBy "Referred-By" b'b',
    RejectContact "Reject-Contact" b'j',
    RemotePartyId "Remote-Party-ID",
    Replaces "Replaces",
    ReplyTo "Reply-To",
    RequestDisposition "Request-Disposition" b'd',
    RetryAfter "Retry-After",
    Server "Server",
    ServiceRoute "Service-Route",
    SessionExpires "Session-Expires" b'x',
    SessionId "Session-ID",
    Subject "Subject" b's',
    SubscriptionState "Subscription-State",
    Supported "Supported" b'k',
    Timestamp "Timestamp",
    Unsupported "Unsupported",
    UserAgent "User-Agent",
    Warning "Warning",
    WwwAuthenticate "WWW-Authenticate",
}

impl HeaderName {
    /// Looks up a name as received, without the space that may precede the colon.
    #[inline]
    pub fn of(raw: &[u8]) -> Self {
        let (Some(&first), Some(&last)) = (raw.first(), raw.last()) else {
            return Self::Other;
        };
        if raw.len() == 1 {
            return COMPACT[usize::from(first)];
        }

        let middle = raw.get(raw.len() / 2).copied().unwrap_or(first);
        let at = SLOTS[slot(first, middle, last, raw.len())];
        let Some(known) = KNOWN.get(usize::from(at)) else {
            return Self::Other;
        };
        // Nearly every sender writes the RFC's own capitals.
        let full = known.full.as_bytes();
        if raw == full || raw.eq_ignore_ascii_case(full) {
            return known.name;
        }
        Self::Other
    }

    /// The full name in the RFC's spelling; empty for [`HeaderName::Other`].
    pub const fn as_str(self) -> &'static str {
        if matches!(self, Self::Other) {
            return "";
        }
        KNOWN[self as usize].full
    }

    /// The one-letter form, where one is registered.
    pub fn compact(self) -> Option<char> {
        let known = KNOWN.get(self as usize)?;
        known.compact.first().map(|&byte| char::from(byte))
    }

    /// Whether a message may have this header only once and a proxy reads it, so that two of them
    /// would leave open which one counts (RFC 4475 §3.3.8).
    pub const fn is_single(self) -> bool {
        matches!(
            self,
            Self::From
                | Self::To
                | Self::CallId
                | Self::CSeq
                | Self::MaxForwards
                | Self::ContentLength
        )
    }

    /// Whether routing, dialogs, the body or the identity of the host depend on this header field, so that policies may not write it.
    pub const fn is_reserved(self) -> bool {
        matches!(
            self,
            Self::CallId
                | Self::ContentEncoding
                | Self::ContentLength
                | Self::ContentType
                | Self::CSeq
                | Self::From
                | Self::MaxForwards
                | Self::RecordRoute
                | Self::Route
                | Self::Server
                | Self::To
                | Self::Via
        )
    }

    /// Whether policies may add and remove this header field in requests. Beside the [reserved](Self::is_reserved) ones, dialogs depend on
    /// Contact.
    pub fn may_be_edited(self) -> bool {
        !self.is_reserved() && self != Self::Contact
    }

    /// How many discriminants there are, `Other` included.
    pub(crate) const COUNT: usize = KNOWN.len() + 1;
}

struct Known {
    name: HeaderName,
    full: &'static str,
    compact: &'static [u8],
}

const NO_SLOT: u8 = u8::MAX;
const SLOT_COUNT: usize = 256;

/// Compact forms by their byte, in both cases.
static COMPACT: [HeaderName; 256] = compact_table();

/// Positions in [`KNOWN`] by [`slot`]; no two full names share a slot, which the compiler checks.
static SLOTS: [u8; SLOT_COUNT] = slot_table();

/// First, middle and last letter and the length distinguish all known names; the multiplication
/// spreads them over the table.
const fn slot(first: u8, middle: u8, last: u8, length: usize) -> usize {
    let key = u32::from_be_bytes([first | 0x20, middle | 0x20, last | 0x20, length as u8]);
    (key.wrapping_mul(SLOT_MULTIPLIER) >> 24) as usize
}

/// Found by trial: a number for which [`slot_table`] compiles. A new name may need another.
const SLOT_MULTIPLIER: u32 = 0xa09e_d225;

const fn slot_table() -> [u8; SLOT_COUNT] {
    let mut table = [NO_SLOT; SLOT_COUNT];
    let mut at = 0;
    while at < KNOWN.len() {
        let full = KNOWN[at].full.as_bytes();
        let slot = slot(
            full[0],
            full[full.len() / 2],
            full[full.len() - 1],
            full.len(),
        );
        assert!(table[slot] == NO_SLOT, "two header names share a slot");
        table[slot] = at as u8;
        at += 1;
    }
    table
}

const fn compact_table() -> [HeaderName; 256] {
    let mut table = [HeaderName::Other; 256];
    let mut at = 0;
    while at < KNOWN.len() {
        if let [compact] = KNOWN[at].compact {
            table[*compact as usize] = KNOWN[at].name;
            table[compact.to_ascii_uppercase() as usize] = KNOWN[at].name;
        }
        at += 1;
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_found_in_every_case_and_in_its_compact_form() {
        for (at, known) in KNOWN.iter().enumerate() {
            assert_eq!(known.name as usize, at);
            assert_eq!(HeaderName::of(known.full.as_bytes()), known.name);
            assert_eq!(
                HeaderName::of(known.full.to_ascii_uppercase().as_bytes()),
                known.name
            );
            assert_eq!(
                HeaderName::of(known.full.to_ascii_lowercase().as_bytes()),
                known.name
            );
            assert_eq!(known.name.as_str(), known.full);
            if let Some(compact) = known.name.compact() {
                let upper = compact.to_ascii_uppercase();
                assert_eq!(HeaderName::of(compact.to_string().as_bytes()), known.name);
                assert_eq!(HeaderName::of(upper.to_string().as_bytes()), known.name);
            }
        }
    }

    #[test]
    fn what_routing_dialogs_and_the_body_depend_on_is_reserved() {
        let all = KNOWN.iter().map(|known| known.name);
        let (reserved, free): (Vec<_>, Vec<_>) = all.partition(|name| name.is_reserved());
        let reserved: Vec<_> = reserved.iter().map(|name| name.as_str()).collect();
        let expected = "Via From To Call-ID CSeq Max-Forwards Route Record-Route Content-Length Content-Type Content-Encoding Server";
        assert_eq!(reserved.join(" "), expected);
        let kept: Vec<_> = free.iter().filter(|name| !name.may_be_edited()).collect();
        assert_eq!(kept, [&HeaderName::Contact]);
        assert!(!HeaderName::of(b"M").is_reserved() && !HeaderName::of(b"M").may_be_edited());
        assert!(HeaderName::Other.may_be_edited() && HeaderName::of(b"L").is_reserved());
    }

    #[test]
    fn near_misses_are_other() {
        for raw in [
            "",
            "Vi",
            "Viaa",
            "Call_ID",
            "Call\rID",
            "z",
            "X-Via",
            "Content-Lengti",
        ] {
            assert_eq!(HeaderName::of(raw.as_bytes()), HeaderName::Other, "{raw:?}");
        }
        assert_eq!(HeaderName::Other.as_str(), "");
        assert_eq!(HeaderName::Other.compact(), None);
    }

    #[test]
    fn compact_forms_are_those_that_iana_lists() {
        let mut letters: Vec<char> = KNOWN.iter().filter_map(|k| k.name.compact()).collect();
        letters.sort_unstable();
        assert_eq!(letters.iter().collect::<String>(), "abcdefijklmnorstuvxy");
    }
}
