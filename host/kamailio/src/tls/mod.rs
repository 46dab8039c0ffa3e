//! Kamailio's module `tls`: its parameters, and the profiles in tls.cfg, as `[tls.NAME]`, `[relay.tls]` and `[relay.tls-profiles.NAME]`.

mod file;

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use file::{Options, Peer, Profile, Side};

use super::draft::{Draft, Origin};
use super::finding::{Finding, Place, excerpt};
use super::permissions::beside;
use super::statement::Value;
use super::surroundings::Surroundings;

/// The parameters so far.
#[derive(Clone, Debug, Default)]
pub(super) struct Tls {
    /// tls.cfg
    config: Option<(String, Place)>,
    /// Those that profiles have, too: the values of options that neither a profile nor the default one has.
    options: Options,
}

impl Tls {
    /// Notes one parameter.
    pub(super) fn parameter(
        &mut self,
        name: &str,
        value: &Value,
        place: &Place,
        findings: &mut Vec<Finding>,
    ) {
        // Parameters have other names for the same.
        let option = match name {
            "config" => {
                self.config = Some((value.text().to_owned(), place.clone()));
                return;
            }
            "tls_method" => "method",
            "cipher_list"
            | "certificate"
            | "private_key"
            | "ca_list"
            | "ca_path"
            | "crl"
            | "verify_certificate"
            | "require_certificate"
            | "verify_client"
            | "verify_depth"
            | "server_name" => name,
            _ => {
                let what = format!("tls: {name} = {}", excerpt(value.text()));
                return findings.push(Finding::at(place, what, parameter_explained(name)));
            }
        };
        if let Some(mend) = option_explained(option, value.text(), Side::Server) {
            let what = format!("tls: {name} = {}", excerpt(value.text()));
            findings.push(Finding::at(place, what, mend));
        }
        let value = (value.text().to_owned(), place.clone());
        self.options.insert(option.to_owned(), value);
    }

    /// Writes the profiles. `file` is kamailio.cfg, beside which relative paths are.
    pub(super) fn write(
        self,
        file: &Path,
        surroundings: &dyn Surroundings,
        draft: &mut Draft,
        findings: &mut Vec<Finding>,
    ) {
        let mut profiles = Vec::new();
        if let Some((path, place)) = &self.config {
            let path = PathBuf::from(beside(file, path));
            match surroundings.read(&path) {
                Ok(text) => {
                    let (read, more) = file::read(&path, &text);
                    profiles = read;
                    findings.extend(more);
                }
                Err(error) => {
                    let what = format!("tls: config = {}", excerpt(&path.display().to_string()));
                    let mend = format!(
                        "cannot be read here ({error}): import on Kamailio's machine, or write its certificates into sections [tls.NAME], and those \
                         for next hops into [relay.tls] (docs/tls.md)"
                    );
                    findings.push(Finding::at(place, what, mend));
                }
            }
        }
        self.add_defaults(&mut profiles);
        let mut writer = Writer {
            file,
            defaults: Defaults::of(&profiles, self.options),
            names: Vec::new(),
            server_names: Vec::new(),
            draft,
            findings,
        };
        for profile in &profiles {
            writer.profile(profile);
        }
    }

    /// Kamailio has default profiles of the parameters, if tls.cfg has none.
    fn add_defaults(&self, profiles: &mut Vec<Profile>) {
        let is_default =
            |profile: &Profile, side| profile.side == side && profile.peer == Peer::Default;
        let Some((_, place)) = self.options.get("certificate") else {
            return;
        };
        for side in [Side::Server, Side::Client] {
            if profiles.iter().any(|profile| is_default(profile, side)) {
                continue;
            }
            profiles.push(Profile {
                side,
                peer: Peer::Default,
                place: place.clone(),
                options: Options::new(),
            });
        }
    }
}

/// The options of profiles that do not have them.
struct Defaults {
    server: Options,
    client: Options,
    parameters: Options,
}

impl Defaults {
    fn of(profiles: &[Profile], parameters: Options) -> Self {
        let of = |side| {
            let mut all = profiles.iter();
            let found = all.find(|one| one.side == side && one.peer == Peer::Default);
            found.map(|found| found.options.clone()).unwrap_or_default()
        };
        Self {
            server: of(Side::Server),
            client: of(Side::Client),
            parameters,
        }
    }

    fn option<'o>(&'o self, profile: &'o Profile, name: &str) -> Option<&'o (String, Place)> {
        let default = match profile.side {
            Side::Server => &self.server,
            Side::Client => &self.client,
        };
        let places = [&profile.options, default, &self.parameters];
        let value = |options: &'o Options| options.get(name).filter(|(value, _)| !value.is_empty());
        places.into_iter().find_map(value)
    }
}

struct Writer<'w> {
    file: &'w Path,
    defaults: Defaults,
    /// Names of sections so far.
    names: Vec<String>,
    /// The names that clients ask for, of the sections so far.
    server_names: Vec<String>,
    draft: &'w mut Draft,
    findings: &'w mut Vec<Finding>,
}

impl Writer<'_> {
    fn profile(&mut self, profile: &Profile) {
        for (name, (value, place)) in &profile.options {
            if let Some(mend) = option_explained(name, value, profile.side) {
                let what = format!("tls.cfg: {name} = {}", excerpt(value));
                self.findings.push(Finding::at(place, what, mend));
            }
        }
        match profile.side {
            Side::Server => self.server(profile),
            Side::Client => self.client(profile),
        }
    }

    fn server(&mut self, profile: &Profile) {
        let Some((certificate, key)) = self.pair(profile) else {
            let what = format!("tls.cfg: [server:{}]", shown(&profile.peer));
            let mend = "no certificate, or no key: it is left out";
            return self.findings.push(Finding::at(&profile.place, what, mend));
        };
        let option = |name: &str| self.defaults.option(profile, name).cloned();
        let server_name = profile.options.get("server_name").cloned();
        let method = option("method");
        let [ca, crl] = ["ca_list", "crl"].map(option);
        let demanded = self.client_auth(profile);
        if let (Some((_, place)), None) = (&demanded, &ca) {
            let what = format!("tls.cfg: [server:{}]", shown(&profile.peer));
            let mend = "no ca_list says who issues the certificates of clients, which it demands: it is left out";
            return self.findings.push(Finding::at(place, what, mend));
        }
        let names = server_name.as_ref();
        let names = names.map_or_else(Vec::new, |(name, _)| names_of(profile, name));
        // The host refuses a name in two sections.
        let is_taken = |name: &String| self.server_names.contains(&compared(name));
        let (taken, names): (Vec<_>, Vec<_>) = names.into_iter().partition(is_taken);
        if let (Some(name), Some((_, place))) = (taken.first(), &server_name) {
            let what = format!("tls.cfg: server_name = {}", excerpt(name));
            let is_left_out = names.is_empty() && profile.peer != Peer::Default;
            let mend = match is_left_out {
                true => {
                    "a profile before it has the name, and profiles are chosen by name, not by socket: this profile is left out"
                }
                false => {
                    "a profile before it has the name, and profiles are chosen by name, not by socket: the name is left out here"
                }
            };
            self.findings.push(Finding::at(place, what, mend));
            if is_left_out {
                return;
            }
        }
        self.server_names
            .extend(names.iter().map(|name| compared(name)));
        let name = self.name_of(profile, server_name.as_ref().map(|(name, _)| &**name));
        let section = format!("tls.{name}");
        self.file_of(&section, "certificate", &certificate);
        self.file_of(&section, "key", &key);
        if let Some((_, place)) = &server_name {
            for name in names {
                let origin = Origin::line(place);
                self.draft.push(section.clone(), "names", name, origin);
            }
        }
        match &profile.peer {
            Peer::Default => {
                let origin = Origin::line(&profile.place);
                self.draft.switch_on(section.clone(), "default", origin);
            }
            Peer::Any => {}
            Peer::Socket { host, port } => {
                let what = format!("tls.cfg: [server:{host}:{port}]");
                let mend = match server_name {
                    Some(_) => {
                        "a profile is chosen by the name that a client asks for (SNI), on every socket"
                    }
                    None => {
                        "a profile is chosen by the name that a client asks for (SNI), and not by the socket: the names of its certificate count; set \
                         `names` for others"
                    }
                };
                self.findings.push(Finding::at(&profile.place, what, mend));
            }
        }
        if let Some((word, place)) = demanded {
            let origin = Origin::line(&place);
            self.draft.set(section.clone(), "client-auth", word, origin);
            for (key, file) in [("client-ca", ca), ("crl", crl)] {
                if let Some(file) = file {
                    self.file_of(&section, key, &file);
                }
            }
        } else if let Some((file, place)) = profile.options.get("ca_list") {
            let what = format!("tls.cfg: ca_list = {}", excerpt(file));
            let mend = "not needed: the profile verifies no certificates of clients";
            self.findings.push(Finding::at(place, what, mend));
        }
        self.method(&section, method.as_ref());
    }

    fn client(&mut self, profile: &Profile) {
        let server_name = profile.options.get("server_name").cloned();
        let host = match (&profile.peer, &server_name) {
            (Peer::Default, _) => None,
            (Peer::Socket { host, .. }, _) => Some(host.clone()),
            (Peer::Any, Some((name, _))) => Some(name.clone()),
            (Peer::Any, None) => {
                let what = "tls.cfg: [client:any] without server_name";
                let mend = "the routing logic chooses it by server_id: write a section [relay.tls-profiles.NAME] with the `hosts` that it is for";
                return self.findings.push(Finding::at(&profile.place, what, mend));
            }
        };
        let section = match &host {
            None => "relay.tls".to_owned(),
            Some(_) => {
                let name = server_name.as_ref().map(|(name, _)| &**name);
                format!("relay.tls-profiles.{}", self.name_of(profile, name))
            }
        };
        let option = |name: &str| self.defaults.option(profile, name).cloned();
        let [method, ca, crl, verify] =
            ["method", "ca_list", "crl", "verify_certificate"].map(option);
        if let Some(host) = host {
            let origin = Origin::line(&profile.place);
            self.draft.push(section.clone(), "hosts", host, origin);
            if let Peer::Socket { host, port } = &profile.peer {
                let what = format!("tls.cfg: [client:{host}:{port}]");
                let mend = "the profile counts for all ports of the host; if the next hop has a name, write it into `hosts` in place of the address";
                self.findings.push(Finding::at(&profile.place, what, mend));
            }
        }
        if let Some((certificate, key)) = self.pair(profile) {
            self.file_of(&section, "certificate", &certificate);
            self.file_of(&section, "key", &key);
        }
        if let Some(file) = &ca {
            self.file_of(&section, "ca", file);
        }
        if let (Some((name, place)), Peer::Socket { .. }) = (&server_name, &profile.peer) {
            let origin = Origin::line(place);
            self.draft.set(section.clone(), "name", name, origin);
        }
        let is_verified = verify.as_ref().is_some_and(|(value, _)| is_on(value));
        let place = verify.map_or_else(|| profile.place.clone(), |(_, place)| place);
        let what = format!("tls.cfg: [client:{}]", shown(&profile.peer));
        if is_verified {
            let mend = "the name in the certificate is verified, too, which Kamailio never does: `name` demands another one than that of the next hop";
            self.findings.push(Finding::at(&place, what, mend));
            if let Some(file) = &crl {
                self.file_of(&section, "crl", file);
            }
        } else {
            let origin = Origin::remark(&place, "as in Kamailio: any certificate is accepted");
            self.draft.switch_off(section.clone(), "verify", origin);
            let mend = "it verifies no certificates, so anybody can receive the calls: remove `verify = false` when `ca` has the authorities";
            self.findings.push(Finding::at(&place, what, mend));
            if let Some((file, place)) = &crl {
                let what = format!("tls.cfg: crl = {}", excerpt(file));
                let mend = "not needed: the profile verifies no certificates";
                self.findings.push(Finding::at(place, what, mend));
            }
        }
        self.method(&section, method.as_ref());
    }

    /// The certificate and the key; `None` without both.
    fn pair(&self, profile: &Profile) -> Option<((String, Place), (String, Place))> {
        let option = |name: &str| self.defaults.option(profile, name).cloned();
        Some((option("certificate")?, option("private_key")?))
    }

    /// What clients have to show, and the line that says so; `None`: nothing.
    fn client_auth(&self, profile: &Profile) -> Option<(&'static str, Place)> {
        let option = |name: &str| self.defaults.option(profile, name);
        let on = |name: &str| option(name).filter(|(value, _)| is_on(value));
        let client = option("verify_client");
        let client = |word: &str| client.filter(|(value, _)| value.eq_ignore_ascii_case(word));
        let required = on("require_certificate").or_else(|| client("on"));
        let optional = || on("verify_certificate").or_else(|| client("optional"));
        match required {
            Some((_, place)) => Some(("required", place.clone())),
            None => optional().map(|(_, place)| ("optional", place.clone())),
        }
    }

    /// Writes a path. Kamailio looks for a relative one beside kamailio.cfg.
    fn file_of(&mut self, section: &str, key: &'static str, (path, place): &(String, Place)) {
        let origin = Origin::line(place);
        let path = beside(self.file, path);
        self.draft.set(section.to_owned(), key, path, origin);
    }

    /// Writes the oldest version.
    fn method(&mut self, section: &str, method: Option<&(String, Place)>) {
        let Some((method, place)) = method else {
            return;
        };
        if method.to_ascii_lowercase().starts_with("tlsv1.3") {
            let origin = Origin::line(place);
            self.draft
                .set(section.to_owned(), "min-version", "1.3", origin);
        }
    }

    /// A name for a section that no other has.
    fn name_of(&mut self, profile: &Profile, server_name: Option<&str>) -> String {
        let base = match (&profile.peer, server_name) {
            (Peer::Default, _) => "default".to_owned(),
            (_, Some(name)) => name.to_owned(),
            (Peer::Socket { host, port }, None) => format!("{host}-{port}"),
            (Peer::Any, None) => "any".to_owned(),
        };
        let plain = |c: char| match c.is_ascii_alphanumeric() {
            true => c.to_ascii_lowercase(),
            false => '-',
        };
        let base: String = base.chars().map(plain).take(LONGEST_NAME).collect();
        let mut name = base.clone();
        let mut number = 1;
        while self.names.contains(&name) {
            number += 1;
            name = format!("{base}-{number}");
        }
        self.names.push(name.clone());
        name
    }
}

/// The names that clients ask for, of a profile with this `server_name`.
fn names_of(profile: &Profile, server_name: &str) -> Vec<String> {
    let mode = profile.options.get("server_name_mode");
    let below = format!("*.{server_name}");
    match mode.map_or("0", |(mode, _)| mode.as_str()) {
        "1" => vec![server_name.to_owned(), below],
        "2" => vec![below],
        _ => vec![server_name.to_owned()],
    }
}

/// A name as the host compares it with others.
fn compared(name: &str) -> String {
    name.trim_end_matches('.').to_ascii_lowercase()
}

/// Letters of a name, so that a number fits behind them.
const LONGEST_NAME: usize = 48;

fn shown(peer: &Peer) -> String {
    match peer {
        Peer::Default => "default".into(),
        Peer::Any => "any".into(),
        Peer::Socket { host, port } => match host.parse::<IpAddr>() {
            Ok(IpAddr::V6(ip)) => format!("[{ip}]:{port}"),
            Ok(IpAddr::V4(_)) | Err(_) => format!("{}:{}", excerpt(host), excerpt(port)),
        },
    }
}

fn is_on(value: &str) -> bool {
    let value = value.to_ascii_lowercase();
    matches!(value.as_str(), "1" | "yes" | "true" | "on" | "enabled")
}

/// What to know about an option of tls.cfg; `None` if it is taken over as it is.
fn option_explained(name: &str, value: &str, side: Side) -> Option<&'static str> {
    Some(match name {
        "method" | "tls_method" => match value.to_ascii_lowercase().as_str() {
            "tlsv1.2+" | "tlsv1.3+" | "tlsv1.3" => return None,
            "tlsv1.2" => "TLS 1.3 is spoken, too",
            _ => {
                "TLS below 1.2 is not supported (RFC 8996): a peer that has nothing newer is refused"
            }
        },
        "certificate" | "private_key" | "ca_list" | "crl" | "verify_certificate" => return None,
        "require_certificate" | "verify_client" | "server_name_mode" => match side {
            Side::Server => return None,
            Side::Client => "an option of servers: it has no effect here",
        },
        "server_name" => return None,
        "ca_path" => {
            "a folder of authorities is not read: join them in one file, and name it as `client-ca`, or as `ca` for next hops"
        }
        "cipher_list" => {
            "cipher suites are the library's: those of TLS 1.3, and of TLS 1.2 with forward secrecy"
        }
        "verify_depth" => {
            "at most six authorities stand between a certificate and one that is trusted"
        }
        "server_id" => {
            "the routing logic chooses a profile by it, which has no counterpart: profiles are chosen by the host name or address"
        }
        _ => "this import does not know the option",
    })
}

/// What to know about a parameter that profiles have not.
fn parameter_explained(name: &str) -> &'static str {
    match name {
        "session_cache" | "session_id" => "sessions are resumed by tickets, without a cache",
        "renegotiation" => "there is no renegotiation",
        "send_timeout" | "handshake_timeout" => {
            "`handshake` in [streams] limits the time of a handshake"
        }
        "connection_timeout" => {
            "a connection without a message for 5 minutes is closed, one of a registered client after 66 minutes"
        }
        "tls_disable_compression" => "there is no compression",
        "tls_force_run" | "init_mode" | "rand_engine" | "engine" | "engine_config"
        | "engine_algorithms" | "provider" | "provider_quirks" | "tls_threads_mode" => {
            "a setting of OpenSSL, which is not used"
        }
        "ssl_release_buffers"
        | "ssl_free_list_max_len"
        | "ssl_freelist_max_len"
        | "ssl_max_send_fragment"
        | "ssl_read_ahead" => "a setting of OpenSSL, which is not used",
        "send_close_notify" => "the end of a connection is always said",
        "con_ct_wq_max" | "ct_wq_max" | "ct_wq_blk_size" => {
            "at most 1 MiB waits for one connection, and 256 MiB for all"
        }
        "low_mem_threshold1" | "low_mem_threshold2" => {
            "`handshakes` in [streams] and `tcp-max-connections` in [sip] bound the memory"
        }
        "tls_log" | "tls_debug" => "`level` in [log]",
        "keylog_mode" | "keylog_file" | "keylog_peer" => "keys are not logged",
        "xavp_cfg" => {
            "the routing logic chooses a profile by it, which has no counterpart: profiles are chosen by the host name or address"
        }
        "event_callback" => "no event of a connection calls a policy",
        "verify_purpose" => "the purpose of certificates is always verified",
        _ => "this import does not know the parameter",
    }
}
