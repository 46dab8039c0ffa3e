//! The keys of `[fleet]` about hosts that share an address.

use std::net::SocketAddr;

use super::problem::Bad;
use super::section::{Section, Value};
use super::shape::Shape;

/// The most hosts that can share an address.
const MOST: usize = 64;

/// How hosts that share an address pass messages to each other.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PeersConfig {
    /// The internal address of this host; `None`: nothing is passed.
    pub listen: Option<SocketAddr>,
    /// The internal addresses of all hosts.
    pub hosts: Vec<SocketAddr>,
    /// What is passed.
    pub pass: Pass,
}

/// What hosts pass to each other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Pass {
    /// Answers go to the host with their transaction, and each request goes to the host that its branch selects.
    #[default]
    All,
    /// Answers only: the network brings all requests of a sender to the same host.
    Answers,
}

impl PeersConfig {
    /// Reads the keys of `[fleet]` that begin with `peers`.
    pub(super) fn read(section: &mut Section<'_>, default: Self) -> Self {
        let listen = section.value("peers-listen", default.listen, listen);
        let mut before = Vec::new();
        let hosts = section.list("peers", default.hosts, |value| {
            let host = host(value, listen.is_some(), &before)?;
            before.push(host);
            Ok(host)
        });
        Self {
            listen,
            hosts,
            pass: section.value("peers-pass", default.pass, pass),
        }
    }
}

fn listen(value: Value<'_>) -> Result<Option<SocketAddr>, Bad> {
    match value.text()? {
        "" => Ok(None),
        text => addr(text).map(Some),
    }
}

fn host(value: Value<'_>, has_listen: bool, before: &[SocketAddr]) -> Result<SocketAddr, Bad> {
    let host = addr(value.text()?)?;
    if !has_listen {
        return Err(Bad::new(
            "hosts without an own address",
            "set `peers-listen` to the internal address of this host, or remove `peers`",
        ));
    }
    if before.contains(&host) {
        return Err(Bad::new("named twice", "write each host once"));
    }
    if before.len() >= MOST {
        return Err(Bad::new(
            format!("more than {MOST} hosts"),
            "let fewer hosts share an address",
        ));
    }
    Ok(host)
}

/// Reads an address that other hosts can send to.
fn addr(text: &str) -> Result<SocketAddr, Bad> {
    const MEND: &str = "write the address and the port of one host, for example \"10.0.0.1:5070\" or \"[fd00::1]:5070\"";
    let addr: SocketAddr = text
        .parse()
        .map_err(|_| Bad::new("not an address with a port", MEND))?;
    let ip = addr.ip().to_canonical();
    if ip.is_unspecified() || ip.is_multicast() {
        return Err(Bad::new("not the address of one host", MEND));
    }
    if addr.port() == 0 {
        return Err(Bad::new("no port", MEND));
    }
    Ok(SocketAddr::new(ip, addr.port()))
}

fn pass(value: Value<'_>) -> Result<Pass, Bad> {
    const WORDS: &[&str] = &["all", "answers"];
    const MEND: &str = "write \"all\" or \"answers\"";
    let shape = || Shape::OneOf(WORDS);
    let text = value
        .text()
        .map_err(|bad| Bad::new(bad.what, MEND).shaped(shape()))?;
    match text {
        "all" => Ok(Pass::All),
        "answers" => Ok(Pass::Answers),
        _ => Err(Bad::new("neither of both words", MEND).shaped(shape())),
    }
}

#[cfg(test)]
mod tests {
    use crate::Config;

    use super::*;

    fn told(keys: &str) -> Vec<String> {
        let problems = Config::parse(&format!("[fleet]\n{keys}\n")).unwrap_err();
        problems.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn hosts_that_share_an_address_are_read() {
        let text = "[fleet]\npeers-listen = \"10.0.0.1:5070\"\npeers = [\"10.0.0.1:5070\", \"[fd00::2]:5071\"]\npeers-pass = \"answers\"\n";
        let peers = Config::parse(text).unwrap().fleet.peers;
        assert_eq!(peers.listen, Some("10.0.0.1:5070".parse().unwrap()));
        let hosts = ["10.0.0.1:5070", "[fd00::2]:5071"].map(|text| text.parse().unwrap());
        assert_eq!(peers.hosts, hosts);
        assert_eq!(peers.pass, Pass::Answers);
        let none = Config::parse("[fleet]\npeers-listen = \"\"\n").unwrap();
        assert_eq!(none.fleet.peers, PeersConfig::default());
    }

    #[test]
    fn an_address_that_nobody_can_send_to_is_refused() {
        for (address, why) in [
            ("10.0.0.1", "not an address with a port"),
            ("0.0.0.0:5070", "not the address of one host"),
            ("[ff02::1]:5070", "not the address of one host"),
            ("10.0.0.1:0", "no port"),
        ] {
            let said = told(&format!("peers-listen = \"{address}\""));
            assert!(said[0].contains(why), "{said:?}");
        }
        let listen = "peers-listen = \"10.0.0.1:5070\"";
        let said = told(&format!(
            "{listen}\npeers = [\"10.0.0.2:5070\", \"10.0.0.2:5070\"]"
        ));
        assert!(said[0].contains("named twice"), "{said:?}");
        let said = told("peers = [\"10.0.0.2:5070\"]");
        assert!(said[0].contains("set `peers-listen`"), "{said:?}");
        let said = told(&format!("{listen}\npeers-pass = \"requests\""));
        assert!(said[0].contains("write \"all\" or \"answers\""), "{said:?}");
    }
}
