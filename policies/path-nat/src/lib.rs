//! Phones behind NAT are reached by the flow that they opened: their registrations get Path with its token, and requests that begin dialogs get
//! Record-Route with it. Contact and body stay as they are. The policy decides nothing else: it passes, so that it can be called before the policy that
//! decides.
//!
//! A phone is behind NAT if it speaks WebSocket, or if its Contact or, over UDP, its topmost Via names another address or port than the request
//! came from (Kamailio: `nat_uac_test`). Of a source in the address table, such as a trunk, nothing is assumed.
//!
//! | setting | meaning | default |
//! |---|---|---|
//! | `test` | `nat`, or `always` for every sender | `nat` |
//! | `address-table` | whether sources in the address table are treated like others | false |

#![forbid(unsafe_code)]

use std::net::IpAddr;

use portcullis_sdk::prelude::*;

policy!(decide, settings: validate);

fn validate() -> Result<(), String> {
    match settings::text("test").as_deref() {
        None | Some("nat" | "always") => Ok(()),
        Some(other) => Err(format!(
            "test = {other:?}: write \"nat\", or \"always\" for every sender"
        )),
    }
}

fn decide() -> Verdict {
    // The host does it anyway.
    if flows::is_client() {
        return pass();
    }
    let with_table = settings::boolean("address-table").unwrap_or_default();
    if !with_table && allow_source_address_group().is_some() {
        return pass();
    }
    let is_always = settings::text("test").is_some_and(|test| test == "always");
    if is_always || is_behind_nat() {
        flows::keep();
    }
    pass()
}

fn is_behind_nat() -> bool {
    let transport = request::transport();
    if transport.starts_with("WS") {
        return true;
    }
    let Ok(source) = request::source_address().parse::<IpAddr>() else {
        return false;
    };
    // A client has a port of its own for each connection.
    let port = (transport == "UDP").then(request::source_port);
    let differs = |host: &str, own_port: Option<u16>| {
        let is_other_port = port.is_some_and(|port| own_port.unwrap_or(5060) != port);
        address(host).is_some_and(|ip| ip != source || is_other_port)
    };
    let contact = request::header("Contact").unwrap_or_default();
    let contact = uri_of(&contact);
    if differs(uri::host(contact), uri::port(contact)) {
        return true;
    }
    // The first value of the topmost Via: `SIP/2.0/UDP HOST:PORT;branch=…`
    let via = request::header("Via").unwrap_or_default();
    let sent_by = via.split([',', ';']).next().unwrap_or_default();
    let sent_by = sent_by.split_whitespace().last().unwrap_or_default();
    let sent_by = ["sip:", sent_by].concat();
    port.is_some() && differs(uri::host(&sent_by), uri::port(&sent_by))
}

/// A host that is an address, an IPv6 address with or without brackets.
fn address(host: &str) -> Option<IpAddr> {
    let bare = host.strip_prefix('[').unwrap_or(host);
    bare.strip_suffix(']').unwrap_or(bare).parse().ok()
}

/// The URI of the first value of Contact.
fn uri_of(value: &str) -> &str {
    match value.split_once('<') {
        Some((_, rest)) => rest.split('>').next().unwrap_or_default(),
        None => value.split([',', ';']).next().unwrap_or_default().trim(),
    }
}

#[cfg(test)]
mod tests {
    use portcullis_sdk::testing::{Host, Request};

    use super::*;

    /// Whether the flow of the sender is kept. The policy never decides.
    fn keeps(host: &Host, request: Request) -> bool {
        let outcome = host.request(request).decide(decide);
        assert_eq!(outcome.verdict, pass());
        assert!(outcome.edits.is_empty(), "Contact stays as it is");
        outcome.keeps_flow
    }

    /// A REGISTER from 192.0.2.1:5060.
    fn register(contact: &str) -> Request {
        Request::register("sip:example.com").header("Contact", contact)
    }

    #[test]
    fn phones_whose_contact_is_another_address_are_behind_nat() {
        let host = Host::new();
        for (contact, is_behind) in [
            ("<sip:ada@10.0.0.9:5060>", true),
            ("\"Ada, A.\" <sip:ada@10.0.0.9>;expires=60", true),
            ("sip:ada@10.0.0.9;expires=60", true),
            ("<sip:ada@[fd00::9]>", true),
            ("<sip:ada@192.0.2.1:5060>", false),
            ("<sip:ada@192.0.2.1>", false),
            ("<sip:ada@192.0.2.1:5080>", true),
            ("<sip:ada@phone.example.com>", false),
            ("*", false),
        ] {
            assert_eq!(keeps(&host, register(contact)), is_behind, "{contact}");
        }
    }

    #[test]
    fn a_via_that_names_another_address_means_nat_over_udp_only() {
        let host = Host::new();
        let invite = |transport: &str, source: &str| {
            let request = Request::invite("sip:bob@example.com").transport(transport);
            request.from_source(source)
        };
        assert!(!keeps(&host, invite("UDP", "192.0.2.1:5060")));
        assert!(keeps(&host, invite("UDP", "192.0.2.1:40000")));
        assert!(keeps(&host, invite("UDP", "192.0.2.2:5060")));
        assert!(!keeps(&host, invite("TCP", "192.0.2.2:40000")));
    }

    #[test]
    fn browsers_are_always_behind_nat() {
        let host = Host::new();
        for transport in ["WS", "WSS"] {
            let contact = register("<sip:ada@df7jal.invalid;transport=ws>");
            assert!(keeps(&host, contact.transport(transport)), "{transport}");
        }
    }

    #[test]
    fn trunks_and_clients_by_configuration_are_left_alone() {
        let natted = || register("<sip:ada@10.0.0.9>");
        let host = Host::new().address(7, "192.0.2.1", 0);
        assert!(!keeps(&host, natted()));
        assert!(keeps(&host.setting("address-table", true), natted()));
        assert!(!keeps(&Host::new(), natted().of_client()));
    }

    #[test]
    fn a_setting_has_every_sender_kept() {
        let host = Host::new().setting("test", "always");
        assert!(keeps(&host, register("<sip:ada@192.0.2.1>")));
        assert_eq!(host.validate(validate), Ok(()));
        let wrong = Host::new().setting("test", "sometimes").validate(validate);
        assert!(wrong.unwrap_err().contains("write \"nat\""));
    }
}
