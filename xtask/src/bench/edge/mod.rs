//! What the edge of a network costs: TLS and WebSocket, certificates that are renewed, and sets of many gateways.

pub(crate) mod certificates;
pub(crate) mod dispatcher;
mod gateways;
pub(crate) mod generator;
pub(crate) mod handshakes;
pub(crate) mod idle;
pub(crate) mod limits;
pub(crate) mod requests;
pub(crate) mod servers;
pub(crate) mod storms;
pub(crate) mod wire;

use std::fmt;

use serde::Serialize;

use self::certificates::Renewals;
use self::dispatcher::Dispatched;
use self::handshakes::Handshaken;
use self::idle::Idle;
use self::requests::Asked;
use self::storms::Storm;

/// The results.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Edge {
    /// Requests and calls over TCP, TLS and WebSocket.
    pub(crate) requests: Vec<Asked>,
    /// Handshakes, full and resumed.
    pub(crate) handshakes: Vec<Handshaken>,
    /// Memory of idle connections.
    pub(crate) idle: Vec<Idle>,
    /// Requests over UDP beside handshakes.
    pub(crate) storms: Vec<Storm>,
    /// Certificates that are renewed under load.
    pub(crate) renewals: Option<Renewals>,
    /// Sets of gateways.
    pub(crate) dispatcher: Vec<Dispatched>,
}

impl fmt::Display for Edge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        requests::table(&self.requests, f)?;
        handshakes::table(&self.handshakes, f)?;
        idle::table(&self.idle, f)?;
        for storm in &self.storms {
            writeln!(f, "\n{storm}")?;
        }
        if let Some(renewals) = &self.renewals {
            writeln!(f, "\n{renewals}")?;
        }
        dispatcher::table(&self.dispatcher, f)
    }
}

#[cfg(test)]
mod tests {
    use super::super::plan::{Server, Work};
    use super::requests::tests::asked;
    use super::wire::Wire;
    use super::*;

    #[test]
    fn only_what_was_measured_is_shown() {
        assert_eq!(Edge::default().to_string(), "");
        let edge = Edge {
            requests: vec![asked(
                Server::Portcullis,
                Wire::Wss,
                Work::Call,
                &[12.5, 14.5],
            )],
            ..Edge::default()
        };
        let text = edge.to_string();
        assert!(
            text.contains("call of 7 messages   WSS  Portcullis"),
            "{text}"
        );
        assert!(text.contains("12.50-14.50"), "{text}");
    }
}
