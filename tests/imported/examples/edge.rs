//! The routing logic of edge.cfg, translated by `portcullis import --policy`.
//!
//! Each route is a function. `Err(verdict)` ends the script with this verdict, as `exit` does behind a reply; `Ok` returns to the
//! caller, as `return` does. Requests within a dialog do not come here: the host relays them itself.

#![forbid(unsafe_code)]

use portcullis_sdk::prelude::*;

policy!(decide);

/// The result of a route.
type Route = Result<bool, Verdict>;

fn decide() -> Verdict {
    let result: Route = request_route();
    // A script that ends without a reply or a relay is silent.
    result.err().unwrap_or_else(drop_request)
}

/// edge.cfg:27: `request_route`
fn request_route() -> Route {
    route_reqinit()?;
    if ["REGISTER", "PUBLISH"]
        .iter()
        .any(|name| request::method().eq_ignore_ascii_case(name))
    {
        return Err(reject(503, "No registrar"));
    }
    if request::method().eq_ignore_ascii_case("options")
        && uri::user(&request::uri()).unwrap_or_default() == ""
    {
        return Err(reject(480, "Alive"));
    }
    if request::has_to_tag() {
        return Err(reject(481, "No dialog"));
    }
    if route_known()? {
        log::error!(
            "{} from {}:{} to {}",
            request::method(),
            request::source_address(),
            i64::from(request::source_port()),
            uri::user(&request::uri()).unwrap_or_default()
        );
        route_relay()?;
    }
    if !request::method().eq_ignore_ascii_case("INVITE") {
        return Err(drop_request());
    }
    return Err(reject(
        403,
        format!("Not from {}", request::source_address()),
    ));
}

/// edge.cfg:52: `route[REQINIT]`
fn route_reqinit() -> Route {
    if matches(
        &request::header("User-Agent").unwrap_or_default(),
        &Node::Choice(&[Node::Text("friendly"), Node::Text("sipvicious")]),
    ) || request::header("X-Scanner").unwrap_or_default() == "yes"
    {
        return Err(drop_request());
    }
    if request::header("X-Blocked").is_some() && !allow_source_address(200) {
        return Err(reject(486, "Blocked").header("Retry-After", "7"));
    }
    return Ok(true);
}

/// edge.cfg:71: `route[KNOWN]`
fn route_known() -> Route {
    if allow_source_address_group().is_some()
        && !is_in(&request::source_address(), 0x7fffff00, 0xffffff00)
    {
        return Ok(true);
    }
    return Ok(false);
}

/// edge.cfg:78: `route[RELAY]`
fn route_relay() -> Route {
    return Err(relay());
}

/// A part of a regular expression. Most policies use some of them.
#[allow(dead_code)]
enum Node {
    One(char),
    Any,
    Set(bool, &'static [(char, char)]),
    Start,
    End,
    Sequence(&'static [Node]),
    Choice(&'static [Node]),
    Repeat(&'static Node, usize, usize),
    Text(&'static str),
}

/// Whether a part of the text matches. Case does not matter, as in Kamailio.
fn matches(text: &str, pattern: &Node) -> bool {
    let text: Vec<char> = text.to_ascii_lowercase().chars().collect();
    (0..=text.len()).any(|at| fits(&text, at, pattern, &mut |_| true))
}

fn fits(text: &[char], at: usize, node: &Node, then: &mut dyn FnMut(usize) -> bool) -> bool {
    match node {
        Node::One(_) | Node::Any | Node::Set(..) => is_at(text, at, node) && then(at + 1),
        Node::Text(part) => {
            let end = at + part.chars().count();
            let found = text.get(at..end);
            found.is_some_and(|found| found.iter().copied().eq(part.chars())) && then(end)
        }
        Node::Start => at == 0 && then(at),
        Node::End => at == text.len() && then(at),
        Node::Choice(nodes) => nodes.iter().any(|node| fits(text, at, node, then)),
        Node::Sequence(nodes) => match *nodes {
            [] => then(at),
            [first, rest @ ..] => fits(text, at, first, &mut |next| {
                fits(text, next, &Node::Sequence(rest), then)
            }),
        },
        Node::Repeat(Node::One(_) | Node::Any | Node::Set(..), least, most) => {
            let Node::Repeat(single, ..) = node else {
                return false;
            };
            let longest = (0..*most)
                .take_while(|count| is_at(text, at + count, single))
                .count();
            (*least..=longest).rev().any(|count| then(at + count))
        }
        Node::Repeat(inner, least, most) => {
            let is_longer = *most > 0
                && fits(text, at, inner, &mut |next| {
                    let rest = Node::Repeat(inner, least.saturating_sub(1), most - 1);
                    match next > at {
                        true => fits(text, next, &rest, then),
                        // The repetitions that are still required can be empty, too.
                        false => *least > 0 && then(at),
                    }
                });
            is_longer || (*least == 0 && then(at))
        }
    }
}

fn is_at(text: &[char], at: usize, node: &Node) -> bool {
    let Some(letter) = text.get(at) else {
        return false;
    };
    let upper = letter.to_ascii_uppercase();
    match node {
        Node::One(one) => one == letter,
        Node::Set(is_negated, ranges) => {
            let is_in = |(from, to): &(char, char)| {
                (from..=to).contains(&letter) || (from..=to).contains(&&upper)
            };
            ranges.iter().any(is_in) != *is_negated
        }
        _ => true,
    }
}

/// Whether an IPv4 address is in a subnet.
fn is_in(address: &str, network: u32, mask: u32) -> bool {
    let address = address.parse::<std::net::Ipv4Addr>();
    address.is_ok_and(|address| address.to_bits() & mask == network)
}
