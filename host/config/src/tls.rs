//! `[tls.NAME]` and `[relay.tls]`: certificates, keys and authorities of SIP over TLS.

use std::path::PathBuf;

use portcullis_tls::{Authorities, ClientAuth, MinVersion, Profile, RelayProfile};

use super::listen::is_host;
use super::problem::Bad;
use super::section::{Section, Value};
use super::value::one_of;

/// Longest name of a section, in bytes: it becomes a label of metrics.
const LONGEST_NAME: usize = 64;

/// Reads every `[tls.NAME]`.
pub(super) fn read_profiles(section: Section<'_>) -> Vec<Profile> {
    let mut has_default = false;
    let tables = section.tables(accept_name);
    let profiles = tables.into_iter().filter_map(|(name, section)| {
        let profile = read_profile(name, section, has_default)?;
        has_default |= profile.is_default;
        Some(profile)
    });
    let mut profiles: Vec<_> = profiles.collect();
    profiles.sort_by(|one, other| one.name.cmp(&other.name));
    profiles
}

/// Reads `[relay.tls]`.
pub(super) fn read_relay(mut section: Section<'_>, default: RelayProfile) -> RelayProfile {
    let (certificate, key) = default.pair.unzip();
    let certificate = section.value("certificate", certificate, file);
    let key = section.value("key", key, file);
    let pair = match (certificate, key) {
        (Some(certificate), Some(key)) => Some((certificate, key)),
        (None, None) => None,
        (Some(_), None) => {
            let mend = "set `key` in [relay.tls] to the file of its private key";
            section.reject("certificate", Bad::new("a certificate without a key", mend));
            None
        }
        (None, Some(_)) => {
            let mend = "set `certificate` in [relay.tls] to the file of its certificate";
            section.reject("key", Bad::new("a key without a certificate", mend));
            None
        }
    };
    let profile = RelayProfile {
        pair,
        authorities: section.value("ca", default.authorities, |value| match value.text()? {
            "system" => Ok(Authorities::System),
            "" => Err(Bad::new(
                "no authorities",
                "write \"system\", or a file in PEM",
            )),
            path => Ok(Authorities::File(PathBuf::from(path))),
        }),
        name: section.value("name", default.name, |value| match value.text()? {
            "" => Ok(None),
            name => host_name(name).map(Some),
        }),
        verify: section.value("verify", default.verify, |v| v.boolean()),
        wildcards: section.value("wildcards", default.wildcards, |v| v.boolean()),
        min_version: section.value("min-version", default.min_version, min_version),
    };
    section.finish();
    profile
}

fn read_profile(name: String, mut section: Section<'_>, has_default: bool) -> Option<Profile> {
    let certificate = section.value("certificate", None, file);
    let key = section.value("key", None, file);
    let names = section.list("names", Vec::new(), |value| {
        let text = value.text()?;
        host_name(text.strip_prefix("*.").unwrap_or(text))?;
        Ok(text.to_ascii_lowercase())
    });
    let is_default = section.value("default", false, |v| v.boolean());
    let client_auth = section.value("client-auth", ClientAuth::None, client_auth);
    let client_ca = section.value("client-ca", None, file);
    let crl = section.value("crl", None, file);
    let min_version = section.value("min-version", MinVersion::default(), min_version);
    if is_default && has_default {
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
        _ => {}
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
