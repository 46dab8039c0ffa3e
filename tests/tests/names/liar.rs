//! A name server that does what a zone cannot: errors, silence, loops.

use std::net::{SocketAddr, UdpSocket};

/// What the server does with a query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lie {
    /// It does not answer.
    Silence,
    /// SERVFAIL.
    Failure,
    /// A CNAME record that leads back to its own name.
    Loop,
    /// The name does not exist.
    NoName,
    /// An A record with TTL 0; other types have no records.
    Address([u8; 4]),
    /// The header ends where the question should begin.
    Garbage,
    /// The answer is too long for a datagram, and nobody listens on TCP.
    Cut,
    /// The answer to another question: this name has this address.
    AnswerTo(&'static str, [u8; 4]),
}

/// Starts a server on this address that answers each query as `lie` says of its name, in lower case with a final dot. It ends with the process.
pub(crate) fn start(addr: SocketAddr, lie: impl Fn(&str) -> Lie + Send + 'static) {
    let socket = UdpSocket::bind(addr).expect("the address of the name server is free");
    std::thread::spawn(move || {
        let mut buffer = [0; 4_096];
        while let Ok((n, from)) = socket.recv_from(&mut buffer) {
            if let Some(answer) = answer(&buffer[..n], &lie) {
                let _sent = socket.send_to(&answer, from);
            }
        }
    });
}

fn answer(query: &[u8], lie: &dyn Fn(&str) -> Lie) -> Option<Vec<u8>> {
    let (name, end) = name_of(query)?;
    let question = query.get(12..end + 4)?;
    let kind = u16::from_be_bytes([question[question.len() - 4], question[question.len() - 3]]);
    // The question's name begins at byte 12.
    let own_name = [0xc0, 12];
    let address = |ip: [u8; 4]| (kind == 1).then(|| (1_u16, ip.to_vec()));
    let told = lie(&name);
    let (code, record) = match told {
        Lie::Silence => return None,
        Lie::Garbage => return Some(query[..6].to_vec()),
        Lie::Failure => (2, None),
        Lie::NoName => (3, None),
        Lie::Loop => (0, Some((5, own_name.to_vec()))),
        Lie::Address(ip) | Lie::AnswerTo(_, ip) => (0, address(ip)),
        Lie::Cut => (0, None),
    };
    let mut out = query[..2].to_vec();
    // A response with recursion, and this code; for `Cut`, with the bit that says that there is more.
    let flags = if told == Lie::Cut { 0x87 } else { 0x85 };
    out.extend([flags, 0x80 | code]);
    out.extend([0, 1, 0, u8::from(record.is_some()), 0, 0, 0, 0]);
    match told {
        Lie::AnswerTo(other, _) => {
            out.extend(labels(other));
            out.extend(&question[question.len() - 4..]);
        }
        Lie::Silence
        | Lie::Failure
        | Lie::Loop
        | Lie::NoName
        | Lie::Address(_)
        | Lie::Garbage
        | Lie::Cut => out.extend(question),
    }
    if let Some((kind, data)) = record {
        out.extend(own_name);
        out.extend(kind.to_be_bytes());
        // Class IN, TTL 0.
        out.extend([0, 1, 0, 0, 0, 0]);
        out.extend((data.len() as u16).to_be_bytes());
        out.extend(data);
    }
    Some(out)
}

/// A name with a final dot, as it is in a message.
fn labels(name: &str) -> Vec<u8> {
    let labels = name.split('.').map(|label| {
        let mut out = vec![label.len() as u8];
        out.extend(label.as_bytes());
        out
    });
    labels.flatten().collect()
}

/// The name of the question, and where it ends.
fn name_of(query: &[u8]) -> Option<(String, usize)> {
    let (mut name, mut at) = (String::new(), 12);
    loop {
        let length = usize::from(*query.get(at)?);
        if length == 0 {
            return Some((name.to_ascii_lowercase(), at + 1));
        }
        let label = query.get(at + 1..at + 1 + length)?;
        name.push_str(&String::from_utf8_lossy(label));
        name.push('.');
        at += 1 + length;
    }
}
