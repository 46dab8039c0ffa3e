//! Whether this machine has the addresses of `listen`, which ones the names of interfaces stand for, and who may connect from pages.

use std::io;
use std::net::{IpAddr, UdpSocket};

use portcullis_config::{Config, Listen, Socket};

use super::findings::Finding;

/// A finding for each item. Ports may be in use by the running host, but the addresses must exist.
pub(super) fn check(config: &Config) -> Vec<Finding> {
    let mut findings: Vec<_> = config.listen.iter().map(finding).collect();
    let has_websocket = config.listen.iter().any(|one| one.transport.is_websocket());
    if has_websocket && config.websocket.rules.origins.is_empty() {
        let text = "any page that a browser of your users shows may connect over WebSocket; name yours in `origins` of [websocket]";
        findings.push(Finding::Odd(text.to_owned()));
    }
    let is_wrong = |finding: &Finding| matches!(finding, Finding::Wrong(_));
    if findings.iter().any(is_wrong) {
        return findings;
    }
    match Socket::all(&config.listen) {
        Err(error) => findings.push(Finding::Wrong(error.to_string())),
        Ok(sockets) => {
            let unmatched = config.unmatched(&sockets).into_iter();
            findings.extend(unmatched.map(|(key, listen)| {
                Finding::Odd(format!(
                    "{key} has {listen}, where the host does not listen: the key has no effect there"
                ))
            }));
        }
    }
    findings
}

fn finding(listen: &Listen) -> Finding {
    let sockets = match Socket::of(listen) {
        Ok(sockets) => sockets,
        Err(error) => return Finding::Wrong(error.to_string()),
    };
    for socket in &sockets {
        if let Err(error) = bind(socket) {
            return Finding::Wrong(format!(
                "{socket}: {error}: give this machine the address, or correct `listen`; if another host has the address now and it moves here later, allow this with \
                 `sysctl net.ipv4.ip_nonlocal_bind=1` (net.ipv6.ip_nonlocal_bind for IPv6)"
            ));
        }
    }
    let is_named = |ip: IpAddr| listen.addr().is_some_and(|addr| addr.ip() == ip);
    let others: Vec<_> = sockets
        .iter()
        .map(|socket| socket.addr.ip())
        .filter(|ip| !is_named(*ip))
        .map(|ip| ip.to_string())
        .collect();
    Finding::Good(match others.is_empty() {
        true => listen.to_string(),
        false => format!("{listen}: {}", others.join(", ")),
    })
}

/// With any port.
fn bind(socket: &Socket) -> io::Result<UdpSocket> {
    let mut addr = socket.addr;
    addr.set_port(0);
    UdpSocket::bind(addr)
}
