//! What a host does with a request before it calls a policy.

use portcullis_request::Request;
use portcullis_sip::{DropReason, Local, Proxy, ProxyConfig, Received};

/// What becomes of a request before a policy is called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FirstLook {
    /// The policy is called.
    Judged,
    /// The host answers with this status line.
    Answered(String),
    /// The host drops it.
    Dropped(DropReason),
    /// The request ends at the host: an ACK to its own response.
    Absorbed,
}

/// Whether a host calls a policy for the request: malformed requests, and OPTIONS to the host itself, are answered without one. `aliases` are
/// the names of the host.
pub fn first_look(request: &Request, aliases: &[String]) -> FirstLook {
    let arrival = &request.arrival;
    let proxy = Proxy::new(ProxyConfig {
        locals: vec![Local {
            transport: arrival.transport,
            addr: arrival.local,
            advertised: None,
        }],
        aliases: aliases.to_vec(),
        key: [0; 16],
        earlier_keys: Vec::new(),
        dialog_minutes: 24 * 60,
        record_route: true,
        server_header: None,
        force_rport: Vec::new(),
        clients: portcullis_sip::Clients::default(),
    });
    let mut reply = Vec::new();
    match proxy.receive(request.message(), Ok(()), arrival, &mut reply) {
        Received::Judge | Received::Forward(_) => FirstLook::Judged,
        Received::Drop(reason) => FirstLook::Dropped(reason),
        Received::Absorbed => FirstLook::Absorbed,
        Received::Reply(_) => {
            let text = String::from_utf8_lossy(&reply);
            let line = text.lines().next().unwrap_or_default();
            let line = line.strip_prefix("SIP/2.0 ").unwrap_or(line);
            FirstLook::Answered(line.to_owned())
        }
    }
}

/// For people: `no policy is called: the host answers 400 Bad Via`. Empty if a policy is called.
impl std::fmt::Display for FirstLook {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Judged => Ok(()),
            Self::Answered(line) => write!(f, "no policy is called: the host answers {line}"),
            Self::Dropped(reason) => write!(f, "no policy is called: the host drops it ({reason})"),
            Self::Absorbed => f.write_str("no policy is called: it ends at the host"),
        }
    }
}
