//! TLS of a probe: which certificate the peer shows, and whether the host would accept it.

use std::fs::File;
use std::io::{ErrorKind, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::{Context, bail};
use portcullis_config::{Config, Host};
use portcullis_text::rfc3339;
use portcullis_tls::{Authorities, Certificate, Client, RelayProfile, Settings, Tls, explained};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConnection, ProtocolVersion, StreamOwned};

use crate::cli::print::clean;

#[derive(Debug, clap::Args)]
#[command(next_help_heading = "TLS")]
pub(super) struct Args {
    /// File of the certificate authorities to trust, in PEM [default: those of the host's profile for this peer: [relay.tls] and its profiles]
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// File of the certificate to show, in PEM; needs --key [default: that of the host's profile]
    #[arg(long, value_name = "FILE", requires = "key")]
    certificate: Option<PathBuf>,
    /// File of the private key of --certificate, in PEM
    #[arg(long, value_name = "FILE", requires = "certificate")]
    key: Option<PathBuf>,
    /// Send the request whatever certificate the peer shows, which is printed all the same. Nobody knows then who answers
    #[arg(long)]
    insecure: bool,
}

/// What a handshake of the probe needs.
pub(super) struct Secure {
    /// Accepts every certificate, so that a wrong one can be shown.
    looks: Arc<Client>,
    /// What the host demands.
    demands: Arc<Client>,
    /// The name or address that led to the peer.
    hop: ServerName<'static>,
    /// Why any certificate is accepted; `None`: it is not.
    accepts_all: Option<&'static str>,
}

impl Args {
    pub(super) fn is_empty(&self) -> bool {
        let Self {
            ca,
            certificate,
            key,
            insecure,
        } = self;
        ca.is_none() && certificate.is_none() && key.is_none() && !insecure
    }
}

impl Secure {
    /// Reads the files.
    pub(super) fn new(args: &Args, config: &Config, host: &Host) -> anyhow::Result<Self> {
        let hop = match host {
            Host::Addr(ip) => ServerName::from(ip.to_canonical()),
            Host::Name(name) => ServerName::try_from(name.clone())
                .with_context(|| format!("{name} is not a name that a certificate can have"))?,
        };
        let settings = Settings {
            relay: config.relay.tls.clone(),
            relay_profiles: config.relay.tls_profiles.clone(),
            ..Settings::default()
        };
        let named = settings.relay_profile(&hop);
        let profile = named.map_or(&settings.relay, |named| &named.profile);
        let mut profile = profile.clone();
        let named = [
            ("--ca", &args.ca),
            ("--certificate", &args.certificate),
            ("--key", &args.key),
        ];
        for (flag, file) in named {
            if let Some(file) = file {
                File::open(file).with_context(|| format!("{flag} {}", file.display()))?;
            }
        }
        if let Some(file) = &args.ca {
            profile.authorities = Authorities::File(file.clone());
        }
        if let (Some(certificate), Some(key)) = (&args.certificate, &args.key) {
            profile.pair = Some((certificate.clone(), key.clone()));
        }
        let accepts_all = match (args.insecure, profile.verify) {
            (true, _) => Some("--insecure"),
            (false, false) => Some("verify = false in the host's profile"),
            (false, true) => None,
        };
        // With --insecure, it is still said whether the host would accept the certificate.
        profile.verify = true;
        let demands = opened(&profile, &hop)?;
        profile.verify = false;
        Ok(Self {
            looks: opened(&profile, &hop)?,
            demands,
            hop,
            accepts_all,
        })
    }

    /// Makes the handshake, prints what the peer is, and refuses a peer that the host would refuse.
    pub(super) fn connect(
        &self,
        mut socket: TcpStream,
        peer: SocketAddr,
        limit: Duration,
        out: &mut impl Write,
    ) -> anyhow::Result<StreamOwned<ClientConnection, TcpStream>> {
        let name = self.demands.name_of(self.hop.clone());
        let mut session = ClientConnection::new(self.looks.config(), name.clone())?;
        socket.set_read_timeout(Some(limit))?;
        socket.set_write_timeout(Some(limit))?;
        while session.is_handshaking() {
            let step = session.complete_io(&mut socket);
            if let Err(error) = &step
                && matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)
            {
                bail!("the TLS handshake with {peer} took longer than {limit:?}");
            }
            step.with_context(|| format!("the TLS handshake with {peer} failed"))?;
        }
        let shown = session.peer_certificates().unwrap_or_default();
        let verdict = self.demands.check(shown, &name);
        let of_name = clean(&name.to_str()).into_owned();
        tell(out, &session, peer, shown)?;
        match (verdict, self.accepts_all) {
            (Ok(()), _) => writeln!(out, "    verified     for {of_name}\n")?,
            (Err(error), Some(why)) => {
                let error = explained(&error);
                writeln!(
                    out,
                    "    NOT VERIFIED for {of_name}, and accepted all the same ({why}): {}\n",
                    clean(&error)
                )?;
            }
            (Err(error), None) => {
                out.flush()?;
                let error = explained(&error);
                bail!(
                    "{peer} is refused as {of_name}: {error}. --ca FILE names other authorities, \
                     --insecure accepts any certificate"
                )
            }
        }
        out.flush()?;
        Ok(StreamOwned::new(session, socket))
    }
}

fn opened(profile: &RelayProfile, hop: &ServerName<'_>) -> anyhow::Result<Arc<Client>> {
    let tls = Tls::open(&Settings {
        relay: profile.clone(),
        ..Settings::default()
    })?;
    Ok(tls.client(hop))
}

fn tell(
    out: &mut impl Write,
    session: &ClientConnection,
    peer: SocketAddr,
    shown: &[CertificateDer<'_>],
) -> anyhow::Result<()> {
    let version = match session.protocol_version() {
        Some(ProtocolVersion::TLSv1_2) => "TLS 1.2",
        Some(ProtocolVersion::TLSv1_3) => "TLS 1.3",
        _ => "TLS",
    };
    let suite = session.negotiated_cipher_suite();
    let suite = suite.map_or_else(String::new, |suite| format!(", {:?}", suite.suite()));
    let protocol = match session.alpn_protocol() {
        Some(protocol) => format!(", ALPN {}", clean(&String::from_utf8_lossy(protocol))),
        None => String::new(),
    };
    writeln!(out, "{version} with {peer}{suite}{protocol}:")?;
    let Some(own) = shown.first() else {
        return Ok(());
    };
    let certificate = match Certificate::read(own) {
        Ok(certificate) => certificate,
        Err(what) => {
            writeln!(
                out,
                "    a certificate that cannot be read: {}",
                clean(&what)
            )?;
            return Ok(());
        }
    };
    let names = certificate.names.shown();
    let names = match names.is_empty() {
        true => "none that SIP compares (a common name never counts)".to_owned(),
        false => names.join(", "),
    };
    writeln!(out, "    subject      {}", clean(&certificate.subject))?;
    writeln!(out, "    issuer       {}", clean(&certificate.issuer))?;
    writeln!(out, "    names        {}", clean(&names))?;
    writeln!(
        out,
        "    valid        from {} until {}{}",
        rfc3339(certificate.not_before),
        rfc3339(certificate.not_after),
        left(certificate.not_after)
    )?;
    writeln!(
        out,
        "    SHA-256      {}",
        hex::encode(certificate.fingerprint)
    )?;
    Ok(())
}

/// The whole days until this time.
fn left(until: SystemTime) -> String {
    const DAY: u64 = 24 * 60 * 60;
    match until.duration_since(SystemTime::now()) {
        Ok(left) => format!(", {} days left", left.as_secs() / DAY),
        Err(_) => ", which is over".to_owned(),
    }
}
