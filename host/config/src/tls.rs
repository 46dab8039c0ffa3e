//! `[tls.NAME]`, `[relay.tls]` and `[relay.tls-profiles.NAME]`: certificates, keys and authorities of SIP over TLS.

use std::net::IpAddr;
use std::path::PathBuf;

use portcullis_tls::{
    Authorities, ClientAuth, MinVersion, NamedRelayProfile, Profile, RelayProfile,
};

use super::listen::is_host;
use super::next_hop::{Host, NextHop};
use super::problem::Bad;
use super::section::{Section, Value};
use super::value::one_of;

/// Longest name of a section, in bytes: it becomes a label of metrics.
const LONGEST_NAME: usize = 64;

/// Reads every `[tls.NAME]`.
pub(super) fn read_profiles(section: Section<'_>) -> Vec<Profile> {
    let mut profiles: Vec<Profile> = Vec::new();
    for (name, section) in section.tables(accept_name) {
        if let Some(profile) = read_profile(name, section, &profiles) {
            profiles.push(profile);
        }
    }
    profiles.sort_by(|one, other| one.name.cmp(&other.name));
    profiles
}

/// Reads `[relay.tls]`.
pub(super) fn read_relay(mut section: Section<'_>) -> RelayProfile {
    let profile = read_relay_profile(&mut section, "relay.tls");
    section.finish();
    profile
}

/// Reads every `[relay.tls-profiles.NAME]`. `next_hops` are those of `[relay.next-hops]`.
pub(super) fn read_relay_profiles(
    section: Section<'_>,
    next_hops: &[(String, NextHop)],
) -> Vec<NamedRelayProfile> {
    let mut profiles: Vec<NamedRelayProfile> = Vec::new();
    for (name, mut section) in section.tables(accept_name) {
        let profile = read_relay_profile(&mut section, &format!("relay.tls-profiles.{name}"));
        let is_taken = |host: &str| {
            let owner = profiles
                .iter()
                .find(|other| other.hosts.iter().any(|one| one == host));
            owner.map_or(Ok(()), |owner| {
                let what = format!(
                    "{host} is a host of [relay.tls-profiles.{}], too",
                    owner.name
                );
                Err(Bad::new(what, "leave it in one of the sections"))
            })
        };
        let mut hosts = section.list("hosts", Vec::new(), |value| {
            let host = profile_host(value.text()?)?;
            is_taken(&host).map(|()| host)
        });
        let of_hops = section.list("next-hops", Vec::new(), |value| {
            let host = host_of_next_hop(value.text()?, next_hops)?;
            is_taken(&host).map(|()| host)
        });
        let is_empty = |key: &str| !section.has_any(&[key]) || section.is_empty_list(key);
        if is_empty("hosts") && is_empty("next-hops") {
            let what = "a profile that no connection has";
            let mend = "set `hosts` or `next-hops` in it";
            section.reject_whole(Bad::new(what, mend));
        }
        for host in of_hops {
            if !hosts.contains(&host) {
                hosts.push(host);
            }
        }
        section.finish();
        profiles.push(NamedRelayProfile {
            name,
            hosts,
            profile,
        });
    }
    profiles.sort_by(|one, other| one.name.cmp(&other.name));
    profiles
}

fn profile_host(text: &str) -> Result<String, Bad> {
    let bare = text.trim_start_matches('[').trim_end_matches(']');
    if let Ok(ip) = bare.parse::<IpAddr>() {
        return Ok(ip.to_canonical().to_string());
    }
    let plain = text.strip_prefix("*.").unwrap_or(text);
    if plain.contains(':') {
        let mend = "write the host without a port: the profile counts for all ports";
        return Err(Bad::new("not a host", mend));
    }
    pattern(text)
}

/// A host name, or a wildcard for one label, in lower case and without the final dot.
fn pattern(text: &str) -> Result<String, Bad> {
    let plain = text.strip_prefix("*.").unwrap_or(text);
    host_name(plain)?;
    let is_wildcard = plain.len() < text.len();
    if is_wildcard && !plain.strip_suffix('.').unwrap_or(plain).contains('.') {
        let mend =
            "list the hosts, or write a wildcard below a domain, for example \"*.example.com\"";
        return Err(Bad::new("a wildcard for a whole top-level domain", mend));
    }
    Ok(text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase())
}

/// A name that clients ask for. `others` have been read before.
fn server_name(text: &str, others: &[Profile]) -> Result<String, Bad> {
    if text.parse::<IpAddr>().is_ok() {
        let mend = "leave the address out, and set default = true for clients that name no host";
        return Err(Bad::new("clients ask for no address (RFC 6066)", mend));
    }
    let name = pattern(text)?;
    match others.iter().find(|other| other.names.contains(&name)) {
        None => Ok(name),
        Some(owner) => {
            let what = format!("{name} is a name of [tls.{}], too", owner.name);
            Err(Bad::new(what, "leave it in one of the sections"))
        }
    }
}

fn host_of_next_hop(name: &str, next_hops: &[(String, NextHop)]) -> Result<String, Bad> {
    match next_hops.iter().find(|(known, _)| known == name) {
        Some((_, hop)) => Ok(match &hop.host {
            Host::Addr(ip) => ip.to_canonical().to_string(),
            Host::Name(name) => name.clone(),
        }),
        None => Err(Bad::new(
            "no such next hop",
            "name a key of [relay.next-hops]",
        )),
    }
}

fn read_relay_profile(section: &mut Section<'_>, path: &str) -> RelayProfile {
    let default = RelayProfile::default();
    let (certificate, key) = default.pair.unzip();
    let certificate = section.value("certificate", certificate, file);
    let key = section.value("key", key, file);
    let pair = match (certificate, key) {
        (Some(certificate), Some(key)) => Some((certificate, key)),
        (None, None) => None,
        (Some(_), None) => {
            let mend = format!("set `key` in [{path}] to the file of its private key");
            section.reject("certificate", Bad::new("a certificate without a key", mend));
            None
        }
        (None, Some(_)) => {
            let mend = format!("set `certificate` in [{path}] to the file of its certificate");
            section.reject("key", Bad::new("a key without a certificate", mend));
            None
        }
    };
    let authorities = section.value("ca", default.authorities, |value| match value.text()? {
        "system" => Ok(Authorities::System),
        "" => Err(Bad::new(
            "no authorities",
            "write \"system\", or a file in PEM",
        )),
        path => Ok(Authorities::File(PathBuf::from(path))),
    });
    let crl = section.value("crl", default.crl, file);
    let verify = section.value("verify", default.verify, |v| v.boolean());
    if crl.is_some() && !verify {
        let what = "certificates are not verified, so no list is looked at";
        section.reject("crl", Bad::new(what, "set verify = true, or remove it"));
    }
    RelayProfile {
        pair,
        authorities,
        crl,
        name: section.value("name", default.name, |value| match value.text()? {
            "" => Ok(None),
            name => host_name(name).map(Some),
        }),
        verify,
        wildcards: section.value("wildcards", default.wildcards, |v| v.boolean()),
        min_version: section.value("min-version", default.min_version, min_version),
    }
}

/// Reads one `[tls.NAME]`. `others` have been read before.
fn read_profile(name: String, mut section: Section<'_>, others: &[Profile]) -> Option<Profile> {
    let certificate = section.value("certificate", None, file);
    let key = section.value("key", None, file);
    let names = section.list("names", Vec::new(), |value| {
        server_name(value.text()?, others)
    });
    let is_default = section.value("default", false, |v| v.boolean());
    let client_auth = section.value("client-auth", ClientAuth::None, client_auth);
    let client_ca = section.value("client-ca", None, file);
    let crl = section.value("crl", None, file);
    let min_version = section.value("min-version", MinVersion::default(), min_version);
    if is_default && others.iter().any(|other| other.is_default) {
        let mend = "leave default = true in one of the sections";
        section.reject("default", Bad::new("a second default certificate", mend));
    }
    match (client_auth, &client_ca, &crl) {
        (ClientAuth::Optional | ClientAuth::Required, None, _) => {
            let what = "no authorities to verify the certificates of clients";
            let mend = "set `client-ca` to a file of certificates in PEM";
            section.reject("client-auth", Bad::new(what, mend));
        }
        (ClientAuth::None, Some(_), _) => {
            let mend = "set client-auth = \"optional\" or \"required\", or remove it";
            section.reject(
                "client-ca",
                Bad::new("clients are not asked for a certificate", mend),
            );
        }
        (ClientAuth::None, None, Some(_)) => {
            let mend = "set client-auth = \"optional\" or \"required\", or remove it";
            section.reject(
                "crl",
                Bad::new("clients are not asked for a certificate", mend),
            );
        }
        (ClientAuth::Optional | ClientAuth::Required, Some(_), _)
        | (ClientAuth::None, None, None) => {}
    }
    let profile = match (certificate, key) {
        (Some(certificate), Some(key)) => Some(Profile {
            name,
            certificate,
            key,
            names,
            is_default,
            client_auth,
            client_ca,
            crl,
            min_version,
        }),
        (None, _) => {
            let mend = "set `certificate` to a file in PEM";
            section.reject_whole(Bad::new("no certificate", mend));
            None
        }
        (Some(_), None) => {
            let mend = "set `key` to the file of its private key";
            section.reject("certificate", Bad::new("a certificate without a key", mend));
            None
        }
    };
    section.finish();
    profile
}

fn accept_name(name: &str) -> Result<(), Bad> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    match !name.is_empty() && name.len() <= LONGEST_NAME && name.bytes().all(is_plain) {
        true => Ok(()),
        false => Err(Bad::new(
            "not a name",
            "use up to 64 letters, digits, dashes, underscores and dots",
        )),
    }
}

fn file(value: Value<'_>) -> Result<Option<PathBuf>, Bad> {
    Ok(match value.text()? {
        "" => None,
        path => Some(PathBuf::from(path)),
    })
}

fn host_name(text: &str) -> Result<String, Bad> {
    match is_host(text) && !text.starts_with('[') {
        true => Ok(text.to_ascii_lowercase()),
        false => Err(Bad::new(
            "not a host name",
            "write for example \"sip.example.com\", in `names` also \"*.example.com\"",
        )),
    }
}

fn client_auth(value: Value<'_>) -> Result<ClientAuth, Bad> {
    let word = one_of(value, &["none", "optional", "required"])?;
    Ok(match &*word {
        "optional" => ClientAuth::Optional,
        "required" => ClientAuth::Required,
        _ => ClientAuth::None,
    })
}

fn min_version(value: Value<'_>) -> Result<MinVersion, Bad> {
    let word = one_of(value, &["1.2", "1.3"])?;
    Ok(match &*word {
        "1.3" => MinVersion::Tls13,
        _ => MinVersion::Tls12,
    })
}

#[cfg(test)]
mod tests {
    use crate::Config;

    use super::*;

    const HOPS: &str = "[relay.next-hops]\ncarrier = \"sip:GW.carrier.example:5071;transport=tls\"\n\
        six = \"sips:[2001:db8::7]\"\n";

    /// A configuration with TLS and these lines.
    fn config(lines: &str) -> Result<Config, String> {
        let text = format!(
            "listen = [\"tls:127.0.0.1:5061\"]\n[tls.edge]\ncertificate = \"a.pem\"\nkey = \"a.key\"\n{HOPS}{lines}"
        );
        Config::parse(&text).map_err(|problems| {
            let problems = problems.iter().map(ToString::to_string);
            problems.collect::<Vec<_>>().join("\n")
        })
    }

    #[test]
    fn profiles_have_the_hosts_of_their_next_hops_and_none_of_the_keys_of_relay_tls() {
        let config = config(
            "[relay.tls]\ncertificate = \"own.pem\"\nkey = \"own.key\"\nwildcards = false\n\
             [relay.tls-profiles.b]\nhosts = [\"Sip.B.example.\", \"*.b.example\", \"192.0.2.7\"]\nnext-hops = [\"six\"]\nca = \"b.pem\"\ncrl = \"b.crl\"\n\
             [relay.tls-profiles.a]\nnext-hops = [\"carrier\"]\nname = \"carrier.example\"\nmin-version = \"1.3\"\n",
        )
        .unwrap();
        let settings = config.tls_settings().unwrap();
        assert!(settings.relay.pair.is_some() && !settings.relay.wildcards);
        let [a, b] = &settings.relay_profiles[..] else {
            panic!("{settings:?}");
        };
        assert_eq!((&*a.name, &*b.name), ("a", "b"));
        assert_eq!(a.hosts, ["gw.carrier.example"]);
        assert_eq!(
            b.hosts,
            ["sip.b.example", "*.b.example", "192.0.2.7", "2001:db8::7"]
        );
        assert_eq!(a.profile.name.as_deref(), Some("carrier.example"));
        assert_eq!(a.profile.min_version, MinVersion::Tls13);
        assert_eq!(b.profile.authorities, Authorities::File("b.pem".into()));
        assert_eq!(b.profile.crl, Some("b.crl".into()));
        assert_eq!(a.profile.crl, None);
        assert!(b.profile.pair.is_none() && b.profile.wildcards && b.profile.verify);
    }

    #[test]
    fn profiles_without_hosts_or_with_the_same_ones_are_refused() {
        for (lines, expected) in [
            ("", "a profile that no connection has"),
            (
                "hosts = []\nnext-hops = []\n",
                "a profile that no connection has",
            ),
            ("hosts = [\"gw.example:5061\"]\n", "without a port"),
            ("hosts = [\"a b\"]\n", "not a host name"),
            ("hosts = [\"*.internal\"]\n", "a whole top-level domain"),
            ("hosts = [\"*.internal.\"]\n", "a whole top-level domain"),
            (
                "next-hops = [\"nowhere\"]\n",
                "name a key of [relay.next-hops]",
            ),
            (
                "hosts = [\"a.example\"]\ncertificate = \"a.pem\"\n",
                "set `key` in [relay.tls-profiles.x]",
            ),
            (
                "hosts = [\"gw.carrier.example\"]\n[relay.tls-profiles.y]\nnext-hops = [\"carrier\"]\n",
                "is a host of [relay.tls-profiles.x], too",
            ),
            ("hosts = [\"a.example\"]\nname = \"[\"\n", "not a host name"),
            (
                "hosts = [\"a.example\"]\nverify = false\ncrl = \"a.crl\"\n",
                "set verify = true, or remove it",
            ),
            ("hosts = [\"a.example\"]\ncolour = 1\n", "unknown key"),
        ] {
            let error = config(&format!("[relay.tls-profiles.x]\n{lines}")).unwrap_err();
            assert!(error.contains(expected), "{lines}: {error}");
        }
    }

    #[test]
    fn names_that_no_client_can_ask_for_are_refused() {
        let with = |names: &str| {
            let pair = "certificate = \"a.pem\"\nkey = \"a.key\"\n";
            config(&format!(
                "[tls.a]\n{pair}names = [\"sip.example.com\", \"*.example.com\"]\n[tls.b]\n{pair}names = [\"{names}\"]\n"
            ))
        };
        let config = with("SIP.Example.net.").unwrap();
        assert_eq!(config.tls[1].names, ["sip.example.net"]);
        for (name, expected) in [
            ("*.internal", "a whole top-level domain"),
            ("*.internal.", "a whole top-level domain"),
            ("*", "not a host name"),
            ("192.0.2.7", "clients ask for no address"),
            ("2001:db8::7", "clients ask for no address"),
            (
                "Sip.example.com.",
                "sip.example.com is a name of [tls.a], too",
            ),
            ("*.EXAMPLE.com", "*.example.com is a name of [tls.a], too"),
        ] {
            let error = with(name).unwrap_err();
            assert!(error.contains(expected), "{name}: {error}");
            assert!(error.contains("tls.b.names"), "{name}: {error}");
        }
    }
}
