//! RFC 4475 §3.1.2: messages that break the grammar. Where the fault is in something that a proxy has no business to read,
//! the message goes on unchanged (RFC 3261 §16.3(1)).

use portcullis_sip::DropReason;

use super::{Case, Expected, SDP, SDP_LENGTH, message};

/// §3.1.2.1 to §3.1.2.19.
pub(crate) fn cases() -> Vec<Case> {
    let case = |section, name, bytes, expected| Case {
        section,
        name,
        bytes,
        expected,
    };
    use Expected::{Answer, Drop, Forward};
    vec![
        case("3.1.2.1", "badinv01", badinv01(), Answer(400, "Bad Via")),
        case(
            "3.1.2.2",
            "clerr",
            clerr(),
            Answer(400, "Body Shorter Than Content-Length"),
        ),
        case("3.1.2.3", "ncl", ncl(), Answer(400, "Bad Content-Length")),
        case("3.1.2.4", "scalar02", scalar02(), Answer(400, "Bad CSeq")),
        case(
            "3.1.2.5",
            "scalarlg",
            scalarlg(),
            Drop(DropReason::BadResponse),
        ),
        case("3.1.2.6", "quotbal", quotbal(), Answer(400, "Bad To")),
        case(
            "3.1.2.7",
            "ltgtruri",
            ltgtruri(),
            Answer(400, "Bad Request-URI"),
        ),
        case(
            "3.1.2.8",
            "lwsruri",
            lwsruri(),
            Answer(400, "Bad Request Line"),
        ),
        case(
            "3.1.2.9",
            "lwsstart",
            lwsstart(),
            Answer(400, "Bad Request Line"),
        ),
        case("3.1.2.10", "trws", trws(), Answer(400, "Bad Request Line")),
        case(
            "3.1.2.11",
            "escruri",
            escruri(),
            Answer(400, "Headers in Request-URI"),
        ),
        case("3.1.2.12", "baddate", baddate(), Forward),
        case("3.1.2.13", "regbadct", regbadct(), Forward),
        case("3.1.2.14", "badaspec", badaspec(), Forward),
        case("3.1.2.15", "baddn", baddn(), Forward),
        case(
            "3.1.2.16",
            "badvers",
            badvers(),
            Answer(505, "Version Not Supported"),
        ),
        case(
            "3.1.2.17",
            "mismatch01",
            mismatch01(),
            Answer(400, "CSeq Method Does Not Match"),
        ),
        case(
            "3.1.2.18",
            "mismatch02",
            mismatch02(),
            Answer(400, "CSeq Method Does Not Match"),
        ),
        case(
            "3.1.2.19",
            "bigcode",
            bigcode(),
            Drop(DropReason::BadResponse),
        ),
    ]
}

/// Semicolons and commas in Via and Contact that part nothing.
fn badinv01() -> Vec<u8> {
    message(
        &[
            "INVITE sip:grace@example.com SIP/2.0",
            "To: sip:grace@example.com",
            "From: sip:caller@example.net;tag=a0465f",
            "Max-Forwards: 7",
            "Call-ID: badinv01@torture.example",
            "CSeq: 8 INVITE",
            "Via: SIP/2.0/UDP 192.0.2.15;;,;,,",
            "Contact: \"Joe\" <sip:joe@example.org>;;;;",
            SDP_LENGTH,
            "Content-Type: application/sdp",
        ],
        SDP,
    )
}

/// More body promised than there is.
fn clerr() -> Vec<u8> {
    message(
        &[
            "INVITE sip:grace@example.com SIP/2.0",
            "Max-Forwards: 80",
            "To: sip:grace@example.com",
            "From: sip:caller@example.net;tag=902924",
            "Contact: <sip:caller@hungry.example.net>",
            "Call-ID: clerr@torture.example",
            "CSeq: 8 INVITE",
            "Via: SIP/2.0/UDP host5.example.com;branch=z9hG4bKclerr-254d",
            "Content-Type: application/sdp",
            "Content-Length: 9999",
        ],
        SDP,
    )
}

/// A body of less than nothing.
fn ncl() -> Vec<u8> {
    message(
        &[
            "INVITE sip:grace@example.com SIP/2.0",
            "Max-Forwards: 254",
            "To: sip:grace@example.com",
            "From: sip:caller@example.net;tag=d2a02c",
            "Call-ID: ncl@torture.example",
            "CSeq: 0 INVITE",
            "Via: SIP/2.0/UDP 192.0.2.53;branch=z9hG4bKncl-ab2f",
            "Contact: <sip:caller@example53.example.net>",
            "Content-Type: application/sdp",
            "Content-Length: -999",
        ],
        SDP,
    )
}

/// Numbers beyond their range: CSeq, Max-Forwards, Expires, a Contact's expires.
fn scalar02() -> Vec<u8> {
    message(
        &[
            "REGISTER sip:example.com SIP/2.0",
            "Via: SIP/2.0/TCP host129.example.com;branch=z9hG4bKscalar02-a8b3",
            "To: <sip:ada@example.com>",
            "From: <sip:ada@example.com>;tag=1903af",
            "CSeq: 4294967296 REGISTER",
            "Call-ID: scalar02@torture.example",
            "Max-Forwards: 300",
            "Expires: 10000000000000000000000000000000000000000",
            "Contact: <sip:ada@host129.example.com>",
            "  ;expires=281474976710656",
            "Content-Length: 0",
        ],
        b"",
    )
}

/// As scalar02, in a response, which nobody can be told of.
fn scalarlg() -> Vec<u8> {
    message(
        &[
            "SIP/2.0 503 Service Unavailable",
            "{VIA}",
            "Via: SIP/2.0/TCP host129.example.com;branch=z9hG4bKscalarlg-8a7a;received=192.0.2.129",
            "To: <sip:ada@example.com>;tag=692e42",
            "From: <sip:other@example.net>;tag=692e42",
            "CSeq: 18446744073709551617 OPTIONS",
            "Call-ID: scalarlg@torture.example",
            "Retry-After: 1000000000000000000000007",
            "Warning: 1812 elsewhere \"Beyond three digits\"",
            "Content-Length: 0",
        ],
        b"",
    )
}

/// A quoted display name without end.
fn quotbal() -> Vec<u8> {
    message(
        &[
            "INVITE sip:grace@example.com SIP/2.0",
            "To: \"Prof. Grace <sip:grace@example.com>",
            "From: sip:caller@example.net;tag=fd9ad5",
            "Max-Forwards: 10",
            "Call-ID: quotbal@torture.example",
            "Contact: <sip:caller@host59.example.net>",
            "CSeq: 8 INVITE",
            "Via: SIP/2.0/UDP 192.0.2.59:5050;branch=z9hG4bKquotbal-2aa5",
            "Content-Type: application/sdp",
            SDP_LENGTH,
        ],
        SDP,
    )
}

/// Angle brackets around the request URI.
fn ltgtruri() -> Vec<u8> {
    message(
        &[
            "INVITE <sip:grace@example.com> SIP/2.0",
            "To: sip:grace@example.com",
            "From: sip:caller@example.net;tag=de0176",
            "Max-Forwards: 23",
            "Call-ID: ltgtruri@torture.example",
            "CSeq: 1 INVITE",
            "Via: SIP/2.0/UDP 192.0.2.5;branch=z9hG4bKltgtruri-2ade",
            "Contact: <sip:caller@host5.example.net>",
            "Content-Type: application/sdp",
            SDP_LENGTH,
        ],
        SDP,
    )
}

/// White space within the request URI.
fn lwsruri() -> Vec<u8> {
    message(
        &[
            "INVITE sip:grace@example.com; lr SIP/2.0",
            "To: sip:grace@example.com;tag=cbe8f1",
            "From: sip:caller@example.net;tag=92d6ea",
            "Max-Forwards: 5",
            "Call-ID: lwsruri@torture.example",
            "CSeq: 2130706432 INVITE",
            "Via: SIP/2.0/UDP 192.0.2.1:5060;branch=z9hG4bKlwsruri-c885",
            "Contact: <sip:caller@host1.example.net>",
            "Content-Type: application/sdp",
            SDP_LENGTH,
        ],
        SDP,
    )
}

/// Two spaces where one belongs in the request line.
fn lwsstart() -> Vec<u8> {
    message(
        &[
            "INVITE  sip:grace@example.com  SIP/2.0",
            "Max-Forwards: 8",
            "To: sip:grace@example.com",
            "From: sip:caller@example.net;tag=ad9103",
            "Call-ID: lwsstart@torture.example",
            "CSeq: 1893884 INVITE",
            "Via: SIP/2.0/UDP host1.example.com;branch=z9hG4bKlwsstart-b762",
            "Contact: <sip:caller@host1.example.net>",
            "Content-Type: application/sdp",
            SDP_LENGTH,
        ],
        SDP,
    )
}

/// Spaces behind the request line.
fn trws() -> Vec<u8> {
    message(
        &[
            "OPTIONS sip:grace@example.com SIP/2.0  ",
            "Via: SIP/2.0/TCP host1.example.com;branch=z9hG4bKtrws-d1dc",
            "To: <sip:grace@example.com>",
            "From: <sip:ada@example.com>;tag=48ff6f",
            "Call-ID: trws@torture.example",
            "Accept: application/sdp",
            "CSeq: 238923 OPTIONS",
            "Max-Forwards: 70",
            "Content-Length: 0",
        ],
        b"",
    )
}

/// A header within the request URI that would become one of the request.
fn escruri() -> Vec<u8> {
    message(
        &[
            "INVITE sip:grace@example.com?Route=%3Csip:elsewhere.example.com%3E SIP/2.0",
            "To: sip:grace@example.com",
            "From: sip:caller@example.net;tag=dc7af6",
            "Max-Forwards: 7",
            "Contact: <sip:caller@host39923.example.net>",
            "Call-ID: escruri@torture.example",
            "CSeq: 149209342 INVITE",
            "Via: SIP/2.0/UDP host3.example.com;branch=z9hG4bKescruri-ab2f",
            "Content-Type: application/sdp",
            SDP_LENGTH,
        ],
        SDP,
    )
}

/// A date in a time zone that SIP doesn't have. A proxy reads no dates.
fn baddate() -> Vec<u8> {
    message(
        &[
            "INVITE sip:grace@example.com SIP/2.0",
            "To: sip:grace@example.com",
            "From: sip:caller@example.net;tag=94cb45",
            "Max-Forwards: 70",
            "Call-ID: baddate@torture.example",
            "CSeq: 1392934 INVITE",
            "Via: SIP/2.0/UDP host.example.com;branch=z9hG4bKbaddate-ab2f",
            "Date: Tue, 29 Feb 2028 25:61:00 CEST",
            "Contact: <sip:caller@host5.example.net>",
            "Content-Type: application/sdp",
            SDP_LENGTH,
        ],
        SDP,
    )
}

/// A Contact URI with a question mark that is not in brackets. A proxy reads no Contact.
fn regbadct() -> Vec<u8> {
    message(
        &[
            "REGISTER sip:example.com SIP/2.0",
            "To: sip:ada@example.com",
            "From: sip:ada@example.com;tag=d358da",
            "Max-Forwards: 70",
            "Call-ID: regbadct@torture.example",
            "CSeq: 1 REGISTER",
            "Via: SIP/2.0/UDP 192.0.2.133:5060;branch=z9hG4bKregbadct-ab2f",
            "Contact: sip:ada@example.com?Route=%3Csip:sip.example.com%3E",
            "l: 0",
        ],
        b"",
    )
}

/// Spaces around a URI in brackets. The tag of this To is all that a proxy reads, and that is plain.
fn badaspec() -> Vec<u8> {
    message(
        &[
            "OPTIONS sip:grace@example.org SIP/2.0",
            "Via: SIP/2.0/UDP host4.example.com:5060;branch=z9hG4bKbadaspec-f75c",
            "Max-Forwards: 70",
            "From: \"Lovelace, Ada\" <sip:a.lovelace@example.com>;tag=c3f712",
            "To: \"Hopper, Grace\" < sip:g.hopper@example.org >",
            "Call-ID: badaspec@torture.example",
            "Accept: application/sdp",
            "CSeq: 3923239 OPTIONS",
            "l: 0",
        ],
        b"",
    )
}

/// Display names with a comma and without quotes.
fn baddn() -> Vec<u8> {
    message(
        &[
            "OPTIONS sip:g.hopper@example.org SIP/2.0",
            "Via: SIP/2.0/UDP c.example.com:5060;branch=z9hG4bKbaddn-ab2f",
            "Max-Forwards: 70",
            "From: Lovelace, Ada <sip:a.lovelace@example.com>;tag=2dac1b",
            "To: Hopper, Grace <sip:g.hopper@example.org>",
            "Call-ID: baddn@torture.example",
            "Accept: application/sdp",
            "CSeq: 3923239 OPTIONS",
            "l: 0",
        ],
        b"",
    )
}

/// A version of SIP that is not there yet.
fn badvers() -> Vec<u8> {
    message(
        &[
            "OPTIONS sip:g.hopper@example.org SIP/7.0",
            "Via: SIP/7.0/UDP c.example.com;branch=z9hG4bKbadvers-ab2f",
            "Max-Forwards: 70",
            "From: A. Lovelace <sip:a.lovelace@example.com>;tag=93b984",
            "To: G. Hopper <sip:g.hopper@example.org>",
            "Call-ID: badvers@torture.example",
            "CSeq: 1 OPTIONS",
            "l: 0",
        ],
        b"",
    )
}

/// Two methods in one request.
fn mismatch01() -> Vec<u8> {
    message(
        &[
            "OPTIONS sip:grace@example.com SIP/2.0",
            "To: sip:grace@example.com",
            "From: sip:caller@example.net;tag=ab2be3",
            "Max-Forwards: 6",
            "Call-ID: mismatch01@torture.example",
            "CSeq: 8 INVITE",
            "Via: SIP/2.0/UDP host.example.com;branch=z9hG4bKmismatch01-ab2f",
            "l: 0",
        ],
        b"",
    )
}

/// Two methods, one of which nobody knows.
fn mismatch02() -> Vec<u8> {
    message(
        &[
            "NEWMETHOD sip:grace@example.com SIP/2.0",
            "To: sip:grace@example.com",
            "From: sip:caller@example.net;tag=11d371",
            "Max-Forwards: 6",
            "Call-ID: mismatch02@torture.example",
            "CSeq: 8 INVITE",
            "Contact: <sip:caller@host.example.net>",
            "Via: SIP/2.0/UDP host.example.net;branch=z9hG4bKmismatch02-ab2f",
            "Content-Type: application/sdp",
            SDP_LENGTH,
        ],
        SDP,
    )
}

/// A status code beyond the classes, and beyond 32 bits.
fn bigcode() -> Vec<u8> {
    message(
        &[
            "SIP/2.0 8589934792 Two To The Thirty-Third And 200",
            "{VIA}",
            "Via: SIP/2.0/UDP 192.0.2.105;branch=z9hG4bKbigcode-3d52",
            "Call-ID: bigcode@torture.example",
            "CSeq: 353494 INVITE",
            "From: <sip:ada@example.com>;tag=c19697",
            "To: <sip:grace@example.edu>;tag=fda247",
            "Content-Length: 0",
            "Contact: <sip:grace@host105.example.com>",
        ],
        b"",
    )
}
