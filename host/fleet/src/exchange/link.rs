//! The connection to Redis: plain or over TLS, to the primary that sentinels name or to the node of a cluster that has the keys.

use std::path::Path;
use std::sync::Arc;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, RedisConnectionInfo};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::options::{Credentials, Options, Place, TlsFiles};
use super::trouble::Trouble;

/// Where the next connection leads.
#[derive(Debug, Default)]
pub(super) struct Link {
    /// Position in the servers of the options.
    next: usize,
    /// Where a node of a cluster has referred to.
    moved: Option<Place>,
}

/// A connection. It ends with this value.
pub(super) struct Open {
    pub(super) connection: MultiplexedConnection,
    pub(super) place: Place,
    driver: JoinHandle<()>,
}

impl Link {
    /// Connects: where a cluster has referred to, to the primary of the sentinels, or to the next server.
    pub(super) async fn open(&mut self, options: &Options) -> Result<Open, Trouble> {
        let place = self.first_place(options);
        self.moved = None;
        let Some(sentinel) = &options.sentinel else {
            let database = options.database;
            return connect(options, place, &options.credentials, database).await;
        };
        let mut open = connect(options, place, &sentinel.credentials, 0).await?;
        let mut command = redis::cmd("SENTINEL");
        command
            .arg("GET-MASTER-ADDR-BY-NAME")
            .arg(&sentinel.primary);
        let named = command
            .query_async::<Option<(String, u16)>>(&mut open.connection)
            .await;
        let primary = named.map_err(|error| Trouble::of(&open.place, &error))?;
        let (host, port) = primary.ok_or_else(|| Trouble::NoPrimary {
            place: open.place.clone(),
            primary: sentinel.primary.clone(),
        })?;
        let primary = Place { host, port };
        connect(options, primary, &options.credentials, options.database).await
    }

    /// The server that the next connection leads to first.
    pub(super) fn first_place(&self, options: &Options) -> Place {
        let servers = &options.servers;
        let listed = || servers[self.next % servers.len()].clone();
        self.moved.clone().unwrap_or_else(listed)
    }

    /// Chooses where the next connection leads, after one has failed.
    pub(super) fn turn(&mut self, trouble: &Trouble) {
        match trouble {
            Trouble::Moved { to, .. } => self.moved = Some(to.clone()),
            Trouble::Unreachable { .. }
            | Trouble::Silent { .. }
            | Trouble::Closed { .. }
            | Trouble::Tls { .. }
            | Trouble::File { .. }
            | Trouble::Password { .. }
            | Trouble::Permission { .. }
            | Trouble::ReadOnly { .. }
            | Trouble::OutOfMemory { .. }
            | Trouble::Migrating { .. }
            | Trouble::Foreign { .. }
            | Trouble::NoPrimary { .. }
            | Trouble::Server { .. } => self.next = self.next.wrapping_add(1),
        }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

async fn connect(
    options: &Options,
    place: Place,
    credentials: &Credentials,
    database: u32,
) -> Result<Open, Trouble> {
    let silent = || Trouble::Silent {
        place: place.clone(),
    };
    let patience = options.patience();
    let connecting = TcpStream::connect((place.host.as_str(), place.port));
    let stream = timeout(patience, connecting).await.map_err(|_| silent())?;
    let stream = stream.map_err(|source| Trouble::Unreachable {
        place: place.clone(),
        source,
    })?;
    // Commands are small and must not wait for each other.
    let _late = stream.set_nodelay(true);
    let mut info = RedisConnectionInfo::default()
        .set_db(database.into())
        .set_skip_set_lib_name();
    if let Some(user) = &credentials.user {
        info = info.set_username(user);
    }
    if let Some(file) = &credentials.password_file {
        info = info.set_password(password(file)?);
    }
    let settings = AsyncConnectionConfig::new().set_response_timeout(Some(patience));
    let said = |error| Trouble::of(&place, &error);
    let (connection, driver) = match &options.tls {
        None => {
            let opening = MultiplexedConnection::new_with_config(&info, stream, settings);
            let opened = timeout(patience, opening).await.map_err(|_| silent())?;
            let (connection, driver) = opened.map_err(said)?;
            (connection, tokio::spawn(driver))
        }
        Some(files) => {
            let bad = |cause: String| Trouble::Tls {
                place: place.clone(),
                cause,
            };
            let connector = TlsConnector::from(Arc::new(client(files, &bad)?));
            let name = ServerName::try_from(place.host.clone()).map_err(|e| bad(e.to_string()))?;
            let shaking = timeout(patience, connector.connect(name, stream)).await;
            let stream = shaking
                .map_err(|_| silent())?
                .map_err(|error| bad(error.to_string()))?;
            let opening = MultiplexedConnection::new_with_config(&info, stream, settings);
            let opened = timeout(patience, opening).await.map_err(|_| silent())?;
            let (connection, driver) = opened.map_err(said)?;
            (connection, tokio::spawn(driver))
        }
    };
    Ok(Open {
        connection,
        place,
        driver,
    })
}

/// The first line of the file.
fn password(file: &Path) -> Result<String, Trouble> {
    let bad = |cause: String| Trouble::File {
        file: file.to_owned(),
        cause,
    };
    let text = std::fs::read_to_string(file).map_err(|error| bad(error.to_string()))?;
    match text.lines().next().unwrap_or_default().trim() {
        "" => Err(bad("its first line, the password, is empty".to_owned())),
        password => Ok(password.to_owned()),
    }
}

fn client(files: &TlsFiles, bad: &impl Fn(String) -> Trouble) -> Result<ClientConfig, Trouble> {
    let mut roots = RootCertStore::empty();
    match &files.ca {
        Some(file) => {
            for certificate in certificates(file)? {
                roots
                    .add(certificate)
                    .map_err(|error| unusable(file, error.to_string()))?;
            }
        }
        None => {
            let found = rustls_native_certs::load_native_certs();
            let _counted = roots.add_parsable_certificates(found.certs);
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| bad(error.to_string()))?
        .with_root_certificates(roots);
    match &files.pair {
        None => Ok(builder.with_no_client_auth()),
        Some((certificate, key)) => {
            let chain = certificates(certificate)?;
            let own = PrivateKeyDer::from_pem_file(key)
                .map_err(|error| unusable(key, error.to_string()))?;
            builder
                .with_client_auth_cert(chain, own)
                .map_err(|error| unusable(key, error.to_string()))
        }
    }
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, Trouble> {
    let read = CertificateDer::pem_file_iter(file).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let read = read.map_err(|error| unusable(file, error.to_string()))?;
    match read.is_empty() {
        true => Err(unusable(file, "no certificate in PEM".to_owned())),
        false => Ok(read),
    }
}

fn unusable(file: &Path, cause: String) -> Trouble {
    Trouble::File {
        file: file.to_owned(),
        cause,
    }
}
