//! How long registrations last (RFC 3261 §10.2.1.1, §10.3).

use crate::list::values;
use crate::name_addr::NameAddr;
use crate::scan::{HeaderName, Message};

/// Seconds that a REGISTER asks for without saying how many (RFC 3261 §10.2).
const DEFAULT: u32 = 3_600;

/// Whether a REGISTER registers a contact, and does not only ask for those that are registered or remove some.
pub fn registers(request: Message<'_>) -> bool {
    longest(request, DEFAULT) > 0
}

/// The seconds until the last of the contacts expires that a response to REGISTER names; 0 if it names none.
pub fn registered_for(response: Message<'_>) -> u32 {
    // Each contact says it (§10.3 step 8): one that does not, nor Expires, says nothing.
    longest(response, 0)
}

fn longest(message: Message<'_>, default: u32) -> u32 {
    let expires = message.header(HeaderName::Expires);
    let expires = expires.and_then(|field| seconds(field.value));
    let expires = expires.unwrap_or(default);
    let contacts = message
        .headers(HeaderName::Contact)
        .flat_map(|field| values(field.value));
    let each = contacts.map(|value| {
        let own = NameAddr::parse(value.bytes)
            .ok()
            .and_then(|contact| contact.params.named("expires"));
        own.and_then(|own| seconds(own.value?)).unwrap_or(expires)
    });
    each.max().unwrap_or(0)
}

fn seconds(text: &[u8]) -> Option<u32> {
    std::str::from_utf8(text).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scan::{Framing, Index, Limits, scan};

    fn with<R>(first: &str, lines: &str, then: impl FnOnce(Message<'_>) -> R) -> R {
        let text = format!("{first}\r\nCall-ID: a\r\n{lines}\r\n");
        let mut index = Index::default();
        let _lacks_fields = scan(
            text.as_bytes(),
            Framing::Datagram,
            &Limits::NONE,
            &mut index,
        );
        then(Message::new(text.as_bytes(), &index))
    }

    #[test]
    fn a_request_registers_unless_it_asks_or_removes() {
        let registers = |lines: &str| with("REGISTER sip:a SIP/2.0", lines, registers);
        assert!(registers("Contact: <sip:ada@10.0.0.9>\r\n"));
        assert!(registers("m: sip:ada@10.0.0.9;expires=60\r\n"));
        assert!(registers("Contact: <sip:ada@10.0.0.9>\r\nExpires: 60\r\n"));
        assert!(registers(
            "Contact: <sip:old@10.0.0.9>;expires=0, <sip:ada@10.0.0.9>;expires=60\r\n"
        ));
        assert!(!registers(""), "a query");
        assert!(!registers("Contact: *\r\nExpires: 0\r\n"));
        assert!(!registers("Contact: <sip:ada@10.0.0.9>\r\nExpires: 0\r\n"));
        assert!(!registers(
            "Contact: <sip:ada@10.0.0.9;expires=9>;expires=0\r\n"
        ));
    }

    #[test]
    fn a_response_says_when_the_last_contact_expires() {
        let registered_for = |lines: &str| with("SIP/2.0 200 OK", lines, registered_for);
        assert_eq!(
            registered_for("Contact: <sip:ada@10.0.0.9>;expires=60\r\n"),
            60
        );
        let two = "Contact: <sip:ada@10.0.0.9>;expires=60, <sip:b@10.0.0.8>;expires=\t300\r\n";
        assert_eq!(registered_for(two), 300);
        assert_eq!(
            registered_for("m: <sip:ada@10.0.0.9>\r\nExpires: 120\r\n"),
            120
        );
        // No contact is left, or nothing says how long.
        assert_eq!(registered_for("Expires: 120\r\n"), 0);
        assert_eq!(registered_for("Contact: <sip:ada@10.0.0.9>\r\n"), 0);
        assert_eq!(
            registered_for("Contact: <sip:ada@10.0.0.9>;expires=soon\r\n"),
            0
        );
        assert_eq!(registered_for("Contact: \"ada\r\n"), 0);
    }
}
