//! Sets of the dispatcher: a policy that was made of `ds_select_dst` and `ds_next_dst` sends requests where Kamailio sends them.

use portcullis_testkit::messages::Request;
use portcullis_testkit::sip::Caller;

use super::failures::{Call, Servers, request};

/// Slots come in the order of priority, and then in the reverse order of the rows: 5060 (disabled), 5064, 5068, 5066 (inactive), 5062.
/// No gateway of set 2 is up.
const SETS: &str = "1 sip:@IP@:5062 0 0 duid=a
1 sip:@IP@:5066 1 0
1 sip:@IP@:5068 0 0
1 sip:@IP@:5064 0 5
1 sip:@IP@:5060 4 9
2 sip:@IP@:5066 1 0
";

/// How the policy chooses: the beginning of the user of the request URI.
const WAYS: [&str; 8] = [
    "call-id", "from", "to", "uri", "turn", "user", "priority", "none",
];

/// What the gateways answer.
const ANSWERS: [&str; 7] = [
    "5062=200 5064=200 5068=200",
    "5062=200 5064=503 5068=200",
    "5062=503 5064=200 5068=200",
    "5062=503 5064=503 5068=200",
    "5062=200 5064=503 5068=503",
    "5062=486 5064=486 5068=486",
    "5062=503 5064=503 5068=503",
];

#[test]
fn peers_imported_sets_lead_where_kamailio_leads() {
    let servers = Servers::start_with_sets("gateways", SETS);
    let mut firsts = [0; WAYS.len()];
    let mut number = 0_usize;
    for answers in ANSWERS.iter().cycle().take(2 * ANSWERS.len()) {
        for (way, first) in WAYS.iter().zip(&mut firsts) {
            number += 1;
            let user = format!("{way}-{number}");
            let [ours, theirs] = servers
                .both_of(|caller| asking(caller, &servers, (user.as_str(), *answers), number));
            assert_eq!(
                ours, theirs,
                "{user}, {answers}, with Kamailio's on the right"
            );
            let expected = match (*way, *answers) {
                ("none", _) => (404, 0),
                (_, answers) if !answers.contains("200") => match answers.contains("486") {
                    true => (486, 1),
                    false => (480, 3),
                },
                (_, _) => (200, ours.tries.len()),
            };
            assert_eq!((ours.code, ours.tries.len()), expected, "{user}, {answers}");
            if let ("5062=200 5064=200 5068=200", Some((port, ..))) = (*answers, ours.tries.first())
            {
                *first |= 1 << (port - 5060);
            }
        }
    }
    // Each round has other requests: hashes and turns lead to several gateways, and the priority to one.
    assert_eq!(firsts[6], 1 << 4, "the highest priority");
    assert!(
        firsts[..6]
            .iter()
            .map(|ports: &u16| ports.count_ones())
            .sum::<u32>()
            > 6,
        "{firsts:?}"
    );
}

/// The same request for both servers: all that a choice depends on has this number.
fn asking(caller: &Caller, servers: &Servers, call: Call<'_>, number: usize) -> Request {
    let mut request = request(caller, servers.ip, call);
    request.call_id = format!("call-{number}@caller.example");
    request.from = format!("<sip:caller-{number}@h{number}.example>");
    request.to = format!("<sip:to-{number}@h{number}.example:50{:02}>", number % 100);
    // Without credentials, it is the turn of the next gateway.
    if number.is_multiple_of(3) {
        return request;
    }
    request.header(&format!(
        "Proxy-Authorization: Digest username=\"user-{number}\", realm=\"r\", nonce=\"n\", uri=\"sip:x\", response=\"{}\"",
        "0".repeat(32)
    ))
}
