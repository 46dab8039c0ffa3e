//! The routing logic of numbers.cfg, translated by `portcullis import --policy`.
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

/// numbers.cfg:27: `request_route`
fn request_route() -> Route {
    if matches(
        uri::user(&request::uri()).unwrap_or_default(),
        &Node::Sequence(&[
            Node::Start,
            Node::Choice(&[Node::Text("112"), Node::Text("911")]),
            Node::End,
        ]),
    ) {
        return Err(reject(601, "Emergency"));
    }
    if matches(
        uri::user(&request::uri()).unwrap_or_default(),
        &Node::Sequence(&[
            Node::Start,
            Node::Repeat(&Node::One('+'), 0, 1),
            Node::Set(false, &[('1', '9')]),
            Node::Repeat(&Node::Set(false, &[('0', '9')]), 6, 14),
            Node::End,
        ]),
    ) {
        return Err(reject(602, "International"));
    }
    if uri::user(&request::uri())
        .unwrap_or_default()
        .starts_with("00")
    {
        return Err(reject(603, "Prefix"));
    } else if uri::user(&request::uri())
        .unwrap_or_default()
        .to_ascii_lowercase()
        .contains("bob")
        && !matches(
            uri::user(&request::from_uri()).unwrap_or_default(),
            &Node::Sequence(&[
                Node::Start,
                Node::Choice(&[Node::Text("alice"), Node::Text("carol")]),
                Node::End,
            ]),
        )
    {
        return Err(reject(604, "Bob"));
    } else if matches(
        uri::user(&request::uri()).unwrap_or_default(),
        &Node::Set(
            true,
            &[('a', 'z'), ('0', '9'), ('_', '_'), ('.', '.'), ('-', '-')],
        ),
    ) {
        return Err(reject(605, "Odd letters"));
    } else if matches(
        uri::user(&request::uri()).unwrap_or_default(),
        &Node::Sequence(&[
            Node::Start,
            Node::Repeat(
                &Node::Choice(&[Node::One('a'), Node::One('b')]),
                0,
                usize::MAX,
            ),
            Node::One('c'),
            Node::Repeat(&Node::Any, 0, 1),
            Node::Repeat(&Node::One('d'), 1, usize::MAX),
            Node::End,
        ]),
    ) {
        return Err(reject(606, "Groups"));
    } else if uri::user(&request::uri()).unwrap_or_default() == "Dave"
        || uri::user(&request::uri()).unwrap_or_default() == "erin"
    {
        return Err(reject(607, "Exact"));
    } else if uri::host(&request::uri()) != uri::host(&request::from_uri())
        && i64::from(request::source_port()) >= 1
        && request::method() == "MESSAGE"
    {
        return Err(reject(608, "Domains"));
    } else if request::transport() == "TCP" || request::transport().to_ascii_lowercase() != "udp" {
        return Err(reject(609, "Transport"));
    } else if matches(
        uri::user(&request::uri()).unwrap_or_default(),
        &Node::Sequence(&[Node::Set(false, &[('0', '9')]), Node::End]),
    ) {
        return Err(reject(610, "Digit"));
    }
    Ok(true)
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
