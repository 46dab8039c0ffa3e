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
            let longest = (0..*most).take_while(|count| is_at(text, at + count, single)).count();
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
