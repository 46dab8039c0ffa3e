//! tls.cfg: sections of servers and clients, each with its options.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use crate::finding::{Finding, Place, excerpt};

/// A section of tls.cfg.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Profile {
    pub(super) side: Side,
    pub(super) peer: Peer,
    /// The header.
    pub(super) place: Place,
    pub(super) options: Options,
}

/// Who opens the connections of a profile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    /// The peers.
    Server,
    /// Kamailio.
    Client,
}

/// Which connections a profile is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Peer {
    /// All without a profile of their own, and the source of options that another profile has not.
    Default,
    /// Those that name its `server_name` or `server_id`.
    Any,
    /// Those of this socket: the own one of a server, that of the peer of a client.
    Socket {
        /// An address without brackets.
        host: String,
        /// A port, as it is written.
        port: String,
    },
}

/// Options with their values and lines.
pub(super) type Options = BTreeMap<String, (String, Place)>;

/// Reads tls.cfg. A line that is neither a section nor an option is a finding.
pub(super) fn read(file: &Path, text: &str) -> (Vec<Profile>, Vec<Finding>) {
    let file: Arc<Path> = file.into();
    let mut profiles: Vec<Profile> = Vec::new();
    let mut findings = Vec::new();
    // Options after a header that means nothing here belong to no profile.
    let mut is_known = true;
    for (number, line) in text.lines().enumerate() {
        let place = Place {
            file: Arc::clone(&file),
            line: number + 1,
        };
        let line = without_comment(line).trim();
        if line.is_empty() {
            continue;
        }
        if let Some(header) = line.strip_prefix('[') {
            let header = header.trim_end().trim_end_matches(']');
            match profile_of(header) {
                Some((side, peer)) => {
                    is_known = true;
                    profiles.push(Profile {
                        side,
                        peer,
                        place,
                        options: Options::new(),
                    });
                }
                None => {
                    is_known = false;
                    let what = format!("tls.cfg: [{}]", excerpt(header));
                    let mend = "not a section of servers or clients: what is in it is left out";
                    findings.push(Finding::at(&place, what, mend));
                }
            }
            continue;
        }
        if !is_known {
            continue;
        }
        let option = line.split_once('=');
        match (option, profiles.last_mut()) {
            (Some((name, value)), Some(profile)) => {
                let name = name.trim().to_ascii_lowercase();
                profile.options.insert(name, (unquoted(value), place));
            }
            _ => {
                let what = format!("tls.cfg: {}", excerpt(line));
                let mend = "neither a section nor an option of one: it is left out";
                findings.push(Finding::at(&place, what, mend));
            }
        }
    }
    (profiles, findings)
}

/// `server:default`, `client:any`, `server:192.0.2.1:5061`.
fn profile_of(header: &str) -> Option<(Side, Peer)> {
    let (side, peer) = header.trim().split_once(':')?;
    let side = match side.trim().to_ascii_lowercase().as_str() {
        "server" => Side::Server,
        "client" => Side::Client,
        _ => return None,
    };
    let peer = peer.trim();
    let peer = match peer.to_ascii_lowercase().as_str() {
        "default" => Peer::Default,
        "any" => Peer::Any,
        _ => {
            let (host, port) = peer.rsplit_once(':')?;
            let host = host.trim_start_matches('[').trim_end_matches(']');
            let is_plain = !host.is_empty() && !port.is_empty();
            is_plain.then(|| Peer::Socket {
                host: host.to_owned(),
                port: port.to_owned(),
            })?
        }
    };
    Some((side, peer))
}

/// The line up to a `#` that is not in quotes.
fn without_comment(line: &str) -> &str {
    let mut is_quoted = false;
    for (at, c) in line.char_indices() {
        match c {
            '"' => is_quoted = !is_quoted,
            '#' if !is_quoted => return &line[..at],
            _ => {}
        }
    }
    line
}

fn unquoted(value: &str) -> String {
    let value = value.trim();
    let inner = value
        .strip_prefix('"')
        .and_then(|rest| rest.strip_suffix('"'));
    inner.unwrap_or(value).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sections_and_options_are_read_with_their_lines() {
        let text = "# tls\n[server:default]\n method = TLSv1.2+ # newer\nPrivate_Key=\"a #b.key\"\n\n[client:[2001:db8::1]:5061]\n\
                    server_name = x\n[peer:any]\nlost = 1\n[server:any]\nnonsense\n";
        let (profiles, findings) = read(Path::new("/t.cfg"), text);
        let [default, client, any] = &profiles[..] else {
            panic!("{profiles:#?}");
        };
        let value = |profile: &Profile, name: &str| profile.options[name].0.clone();
        assert_eq!(
            (default.side, &default.peer),
            (Side::Server, &Peer::Default)
        );
        assert_eq!(value(default, "method"), "TLSv1.2+");
        assert_eq!(value(default, "private_key"), "a #b.key");
        assert_eq!(default.options["private_key"].1.line, 4);
        let socket = Peer::Socket {
            host: "2001:db8::1".into(),
            port: "5061".into(),
        };
        assert_eq!((client.side, &client.peer), (Side::Client, &socket));
        assert_eq!((&any.peer, any.options.len()), (&Peer::Any, 0));
        let lines: Vec<_> = findings
            .iter()
            .map(|finding| finding.place.as_ref().unwrap().line)
            .collect();
        assert_eq!(lines, [8, 11], "{findings:#?}");
    }
}
