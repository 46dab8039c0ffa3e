//! What is in use, and how it is replaced.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::ServerName;
use rustls::server::{ProducesTickets, ServerConfig};

use crate::certificate::Certificate;
use crate::client::{Client, Clients};
use crate::error::TlsError;
use crate::profile::{Authorities, Profile, RelayProfile, Settings};
use crate::server::{Dates, Inside, Server, Servers};

/// The certificates, keys and authorities of a host. A handshake uses what is there when it begins; a connection is not affected by later
/// changes.
#[derive(Debug)]
pub struct Tls {
    settings: Settings,
    provider: Arc<CryptoProvider>,
    /// The keys of session tickets. They outlive each reload, so that sessions are resumed after it.
    ticketer: Arc<dyn ProducesTickets>,
    servers: ArcSwap<Servers>,
    clients: ArcSwap<Clients>,
    /// Held while a reload reads files, which may take long: nothing else waits for it.
    turn: Mutex<()>,
    /// By section: why its files were refused at the last reload.
    faults: Mutex<Vec<(String, String)>>,
}

/// The result of reloading one section.
#[derive(Debug)]
pub struct Reloaded {
    /// The section of the configuration.
    pub section: String,
    /// Whether its certificate is another one than before, or why the previous files stay in use.
    pub result: Result<bool, TlsError>,
}

/// One certificate in use.
#[derive(Clone, Debug)]
pub struct Listed {
    /// The section of the configuration.
    pub section: String,
    /// Its profile; `None` for connections that the host opens.
    pub profile: Option<Profile>,
    /// The names for which clients get the certificate.
    pub server_names: Vec<String>,
    /// What the certificate says.
    pub certificate: Certificate,
    /// Why its files were refused at the last reload.
    pub fault: Option<String>,
}

/// The section of connections that the host opens.
const RELAY: &str = "relay.tls";

/// The section of such connections to some hosts.
fn named_section(name: &str) -> String {
    format!("relay.tls-profiles.{name}")
}

impl Tls {
    /// Reads all files. A certificate that has expired is used: the host has no other one.
    ///
    /// # Errors
    /// What prevents the use of the first file that is wrong.
    pub fn open(settings: &Settings) -> Result<Self, TlsError> {
        let provider = Arc::new(ring::default_provider());
        let ticketer: Arc<dyn ProducesTickets> = match ring::Ticketer::new() {
            Ok(ticketer) => ticketer,
            // Without random numbers, handshakes fail, too.
            Err(error) => {
                return Err(TlsError::Refused {
                    certificate: PathBuf::new(),
                    key: PathBuf::new(),
                    error,
                });
            }
        };
        let read = |profile| Server::read(profile, Dates::Ignored, &provider, &ticketer);
        let servers = settings.profiles.iter().map(read);
        let servers = servers
            .map(|server| server.map(Arc::new))
            .collect::<Result<_, _>>()?;
        let read = |section: &str, profile: &RelayProfile| {
            Client::read(section, profile, Dates::Ignored, &provider).map(Arc::new)
        };
        let default = read(RELAY, &settings.relay)?;
        let named = settings
            .relay_profiles
            .iter()
            .map(|one| read(&named_section(&one.name), &one.profile));
        let named = named.collect::<Result<_, _>>()?;
        let clients = Clients {
            default,
            named,
            hosts: settings.hosts(),
        };
        Ok(Self {
            settings: settings.clone(),
            servers: ArcSwap::from_pointee(Servers::new(servers)),
            clients: ArcSwap::from_pointee(clients),
            provider,
            ticketer,
            turn: Mutex::default(),
            faults: Mutex::default(),
        })
    }

    /// What a handshake with a client needs that asks for this name (SNI) and offers these protocols (ALPN) where this is spoken; `None` if no
    /// profile fits.
    pub fn server<'p>(
        &self,
        inside: Inside,
        name: Option<&str>,
        protocols: impl Iterator<Item = &'p [u8]>,
    ) -> Option<Arc<ServerConfig>> {
        let servers = self.servers.load();
        servers
            .of(name)
            .map(|server| server.config(inside, protocols))
    }

    /// What a handshake with a next hop needs to which this host name or address led.
    pub fn client(&self, hop: &ServerName<'_>) -> Arc<Client> {
        Arc::clone(self.clients.load().of(hop))
    }

    /// All profiles of connections that the host opens, `[relay.tls]` first.
    pub fn clients(&self) -> Vec<Arc<Client>> {
        self.clients.load().all().cloned().collect()
    }

    /// Reads all files again, after a reload that is in progress. A section with a fault keeps what it has; all others get what their files contain
    /// now.
    pub fn reload(&self) -> Vec<Reloaded> {
        let _turn = self.turn.lock();
        let mut results = Vec::new();
        let before = self.servers.load_full();
        let mut all = Vec::new();
        for (server, profile) in before.all.iter().zip(&self.settings.profiles) {
            let read = Server::read(profile, Dates::Checked, &self.provider, &self.ticketer);
            let result = match read {
                Ok(new) => {
                    let is_other = new.certificate != server.certificate;
                    all.push(Arc::new(new));
                    Ok(is_other)
                }
                Err(error) => {
                    all.push(Arc::clone(server));
                    Err(error)
                }
            };
            results.push(Reloaded {
                section: format!("tls.{}", profile.name),
                result,
            });
        }
        self.servers.store(Arc::new(Servers::new(all)));
        let before = self.clients.load_full();
        let profiles = &self.settings.relay_profiles;
        let (default, reloaded) = self.read_again(&before.default, &self.settings.relay);
        results.push(reloaded);
        let mut named = Vec::new();
        for (client, one) in before.named.iter().zip(profiles) {
            let (client, reloaded) = self.read_again(client, &one.profile);
            named.push(client);
            results.push(reloaded);
        }
        self.clients.store(Arc::new(Clients {
            default,
            named,
            hosts: self.settings.hosts(),
        }));
        let refused = results.iter().filter_map(|one| {
            let error = one.result.as_ref().err()?;
            Some((one.section.clone(), error.to_string()))
        });
        *self.faults.lock() = refused.collect();
        results
    }

    /// Reads the files of a profile again. The previous one remains if one of them cannot be used.
    fn read_again(&self, before: &Arc<Client>, profile: &RelayProfile) -> (Arc<Client>, Reloaded) {
        let section = before.section.clone();
        let read = Client::read(&section, profile, Dates::Checked, &self.provider);
        let (client, result) = match read {
            Ok(new) => {
                let is_other = new.certificate != before.certificate;
                (Arc::new(new), Ok(is_other))
            }
            Err(error) => (Arc::clone(before), Err(error)),
        };
        (client, Reloaded { section, result })
    }

    /// The sections whose files were refused at the last reload, and why. They have what they had before.
    pub fn faults(&self) -> Vec<(String, String)> {
        self.faults.lock().clone()
    }

    /// The sections with a revocation list that should have been replaced before this time, and when. What has been revoked since then is accepted.
    pub fn outdated_lists(&self, now: SystemTime) -> Vec<(String, SystemTime)> {
        let servers = self.servers.load();
        let servers = servers.all.iter();
        let servers = servers.map(|server| {
            let section = format!("tls.{}", server.profile.name);
            (section, server.lists_until)
        });
        let clients = self.clients.load();
        let clients = clients
            .all()
            .map(|client| (client.section.clone(), client.lists_until));
        let all = servers.chain(clients);
        all.filter_map(|(section, until)| Some((section, until.filter(|until| *until < now)?)))
            .collect()
    }

    /// The certificates in use.
    pub fn list(&self) -> Vec<Listed> {
        let faults = self.faults();
        let fault = |section: &str| {
            let found = faults.iter().find(|(one, _)| one == section);
            found.map(|(_, fault)| fault.clone())
        };
        let servers = self.servers.load();
        let servers = servers.all.iter().map(|server| {
            let section = format!("tls.{}", server.profile.name);
            Listed {
                fault: fault(&section),
                section,
                profile: Some(server.profile.clone()),
                server_names: server.names().to_vec(),
                certificate: server.certificate.clone(),
            }
        });
        let clients = self.clients.load();
        let clients = clients.all().filter_map(|client| {
            Some(Listed {
                section: client.section.clone(),
                profile: None,
                server_names: Vec::new(),
                certificate: client.certificate.clone()?,
                fault: fault(&client.section),
            })
        });
        servers.chain(clients).collect()
    }

    /// The first moment at which a certificate in use expires; `None` without any certificate.
    pub fn first_expiry(&self) -> Option<SystemTime> {
        let all = self.list().into_iter();
        all.map(|listed| listed.certificate.not_after).min()
    }

    /// All files that a reload reads.
    pub fn files(&self) -> Vec<PathBuf> {
        let profiles = self.settings.profiles.iter().flat_map(|profile| {
            [&profile.certificate, &profile.key]
                .into_iter()
                .chain(&profile.client_ca)
                .chain(&profile.crl)
        });
        let named = self.settings.relay_profiles.iter().map(|one| &one.profile);
        let relay = std::iter::once(&self.settings.relay).chain(named);
        let relay = relay.flat_map(|profile| {
            let pair = profile.pair.iter().flat_map(|(one, other)| [one, other]);
            let authorities = match &profile.authorities {
                Authorities::System => None,
                Authorities::File(file) => Some(file),
            };
            pair.chain(authorities).chain(&profile.crl)
        });
        let mut all: Vec<_> = profiles.chain(relay).cloned().collect();
        all.sort();
        all.dedup();
        all
    }

    /// Whether there is a profile for peers that connect.
    pub fn has_servers(&self) -> bool {
        !self.settings.profiles.is_empty()
    }
}
