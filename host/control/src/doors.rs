//! The control interfaces: all their sockets, bound at the start and served until the end.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use portcullis_config::{ControlConfig, Endpoint, Token};
use portcullis_text::one_line;
use socket2::Type;
use tokio::net::{TcpListener, UdpSocket, UnixListener};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::Control;
use super::audit::About;
use super::caller::Caller;
use super::datagram::{Datagrams, Protocol};
use super::fifo::Fifo;
use super::heritage::{Heritage, Lent, Tenure};
use super::listening::Listening;
use super::socket_file::{Owner, SocketFile, cant_make};
use super::stream::Listener;
use super::tls::{self, Tls};
use super::token_file;
use super::{announcer, http, http_server, sampler};

/// How long the end waits for the last actions to be stored.
const LAST_ACTIONS: Duration = Duration::from_secs(2);

/// How long the end waits until the other hosts on the database can know of it.
const LAST_WORD: Duration = Duration::from_secs(1);

/// The sockets of all control interfaces.
pub struct Doors {
    http: Option<TcpListener>,
    /// TLS of HTTP.
    tls: Option<Arc<Tls>>,
    streams: Vec<Listener>,
    datagrams: Vec<Datagrams>,
    fifo: Option<Fifo>,
    token: Option<Token>,
    listening: Listening,
    lent: Vec<Lent>,
    owner: Owner,
    /// The files that another process has lent. They get their permissions when this process serves.
    inherited_files: Vec<PathBuf>,
}

impl Doors {
    /// Opens all configured sockets, or takes those that another process of this host has lent. Requests are not answered yet.
    ///
    /// # Errors
    /// If a socket cannot be opened. The error names the address and how to correct it.
    pub async fn open(config: &ControlConfig, mut heritage: Heritage) -> anyhow::Result<Self> {
        let owner = Owner::find(&config.access)?;
        let mut doors = Self {
            http: None,
            tls: None,
            streams: Vec::new(),
            datagrams: Vec::new(),
            fifo: None,
            token: config.token.clone(),
            listening: Listening::default(),
            lent: Vec::new(),
            owner,
            inherited_files: Vec::new(),
        };
        if let Some(path) = config.made_token() {
            doors.token = Some(token_file::open_or_make(path)?);
        }
        if config.is_open() {
            tracing::warn!(
                event = "no_token",
                "HTTP has no token: every user of this machine is the operator; set `token` or `token-file` in [control]"
            );
        }
        if let (Some(files), Some(_)) = (&config.tls, config.listen) {
            doors.tls = Some(Arc::new(Tls::open(files)?));
            doors.listening.is_tls = true;
        }
        if let Some(addr) = config.listen {
            doors.open_http(addr, &mut heritage).await?;
        }
        for endpoint in &config.binrpc {
            let inherited = heritage.take(&name_of("binrpc", endpoint));
            let bound = doors
                .open_endpoint(endpoint, Protocol::Binrpc, owner, inherited)
                .await;
            let bound = bound.with_context(|| format!("cannot open {endpoint} for BINRPC"))?;
            doors.listening.binrpc.push(bound);
        }
        for endpoint in &config.datagram {
            let inherited = heritage.take(&name_of("datagram", endpoint));
            let bound = doors
                .open_endpoint(endpoint, Protocol::Json, owner, inherited)
                .await;
            let bound = bound.with_context(|| format!("cannot open {endpoint} for JSON-RPC"))?;
            doors.listening.datagram.push(bound);
        }
        if let Some(path) = &config.fifo {
            let folder = &config.fifo_reply_dir;
            if !folder.is_dir() {
                bail!(no_reply_folder(folder));
            }
            let name = name_of("fifo", path.display());
            let is_inherited = heritage.has(&name);
            let tenure = Tenure::of(is_inherited);
            let file = match is_inherited {
                true => SocketFile::inherit(path, tenure.clone())?,
                false => SocketFile::fifo(path, owner, tenure.clone())?,
            };
            if is_inherited {
                doors.inherited_files.push(path.clone());
            }
            doors
                .lent
                .push(Lent::new(name, is_inherited, None, tenure)?);
            let fifo = Fifo::open(file, folder.clone());
            doors.fifo = Some(fifo.with_context(|| format!("cannot read {}", path.display()))?);
            doors.listening.fifo = Some(path.clone());
        }
        Ok(doors)
    }

    /// Returns the token of the operator over HTTP; `None` if none is needed.
    pub fn token(&self) -> Option<&Token> {
        self.token.as_ref()
    }

    /// Returns the addresses of the sockets.
    pub fn listening(&self) -> &Listening {
        &self.listening
    }

    /// What another process of this host can take over.
    pub fn lent(&self) -> &[Lent] {
        &self.lent
    }

    /// Answers requests until `stopping` becomes true, then closes all sockets and removes their files. HTTP requests in progress are
    /// finished.
    pub async fn serve(self, control: Arc<Control>, mut stopping: watch::Receiver<bool>) {
        for path in &self.inherited_files {
            if let Err(error) = self.owner.take(path) {
                tracing::warn!(
                    event = "control_file_permissions",
                    error = %one_line(&error),
                    "a control socket file keeps the permissions that the previous process gave it"
                );
            }
        }
        let mut tasks = JoinSet::new();
        tasks.spawn(end_streams(Arc::clone(&control), stopping.clone()));
        tasks.spawn(sampler::watch(Arc::clone(&control)));
        let announcer = announcer::run(Arc::clone(&control), stopping.clone());
        let announcer = tokio::spawn(announcer);
        tasks.spawn(store_audit(Arc::clone(&control)));
        tasks.spawn(note_rollouts(Arc::clone(&control)));
        for stream in self.streams {
            tasks.spawn(stream.serve(Arc::clone(&control), stopping.clone()));
        }
        for datagrams in self.datagrams {
            tasks.spawn(datagrams.serve(Arc::clone(&control)));
        }
        if let Some(fifo) = self.fifo {
            tasks.spawn(fifo.serve(Arc::clone(&control)));
        }
        if let Some(listener) = self.http {
            let router = http::router(Arc::clone(&control));
            let connections = Arc::clone(&control.http);
            if let Some(tls) = &self.tls {
                tasks.spawn(Arc::clone(tls).watch());
            }
            http_server::serve(router, connections, listener, self.tls, stopping.clone()).await;
        }
        drop(stopping.wait_for(|stop| *stop).await);
        if let Some(stored) = control.audit.stored() {
            stored.settled(LAST_ACTIONS).await;
        }
        let end = announcer.abort_handle();
        if timeout(LAST_WORD, announcer).await.is_err() {
            end.abort();
        }
        tasks.shutdown().await;
    }

    async fn open_http(&mut self, addr: SocketAddr, heritage: &mut Heritage) -> anyhow::Result<()> {
        let inherited = heritage.take(&name_of("http", addr));
        let is_inherited = inherited.is_some();
        let bound = match inherited {
            Some(socket) => TcpListener::from_std(socket.into()),
            None => TcpListener::bind(addr).await,
        };
        let bound = bound.with_context(|| {
            format!(
                "cannot open the control port {addr}: is it taken? Change `listen` in [control]"
            )
        })?;
        let addr = bound.local_addr()?;
        self.listening.http = Some(addr);
        self.lend(name_of("http", addr), is_inherited, &bound)?;
        self.http = Some(bound);
        Ok(())
    }

    /// Notes a socket without a file for another process.
    fn lend(&mut self, name: String, is_inherited: bool, socket: &dyn AsFd) -> io::Result<Lent> {
        let lent = Lent::new(name, is_inherited, Some(socket), Tenure::of(is_inherited))?;
        self.lent.push(lent.clone());
        Ok(lent)
    }

    async fn open_endpoint(
        &mut self,
        endpoint: &Endpoint,
        protocol: Protocol,
        owner: Owner,
        inherited: Option<OwnedFd>,
    ) -> anyhow::Result<Endpoint> {
        let taken = "is it taken? Change [control]";
        let interface = match protocol {
            Protocol::Binrpc => "binrpc",
            Protocol::Json => "datagram",
        };
        let is_inherited = inherited.is_some();
        if let Endpoint::UnixStream(path) | Endpoint::UnixDatagram(path) = endpoint
            && is_inherited
        {
            self.inherited_files.push(path.clone());
        }
        let unix = |path: &Path, kind, inherited| {
            let tenure = Tenure::of(is_inherited);
            let (socket, file) = match inherited {
                Some(socket) => (socket, SocketFile::inherit(path, tenure.clone())?),
                None => SocketFile::bind(path, kind, owner, tenure.clone())?,
            };
            let name = name_of(interface, endpoint);
            let lent = Lent::new(name, is_inherited, Some(&socket), tenure)?;
            anyhow::Ok((socket, file, lent))
        };
        Ok(match endpoint {
            Endpoint::UnixStream(path) => {
                let (socket, file, lent) = unix(path, Type::STREAM, inherited)?;
                let listener = UnixListener::from_std(socket.into())?;
                self.streams.push(Listener::Unix(listener, file));
                self.lent.push(lent);
                endpoint.clone()
            }
            Endpoint::UnixDatagram(path) => {
                let (socket, file, lent) = unix(path, Type::DGRAM, inherited)?;
                self.lent.push(lent.clone());
                let datagrams = Datagrams::unix(protocol, socket.into(), file, owner, lent)?;
                self.datagrams.push(datagrams);
                endpoint.clone()
            }
            Endpoint::Tcp(addr) => {
                let listener = match inherited {
                    Some(socket) => TcpListener::from_std(socket.into()),
                    None => TcpListener::bind(addr).await,
                };
                let listener = listener.context(taken)?;
                let bound = listener.local_addr()?;
                let name = name_of(interface, Endpoint::Tcp(bound));
                self.lend(name, is_inherited, &listener)?;
                self.streams.push(Listener::Tcp(listener, bound));
                Endpoint::Tcp(bound)
            }
            Endpoint::Udp(addr) => {
                let socket = match inherited {
                    Some(socket) => UdpSocket::from_std(socket.into()),
                    None => UdpSocket::bind(addr).await,
                };
                let socket = socket.context(taken)?;
                let bound = socket.local_addr()?;
                let name = name_of(interface, Endpoint::Udp(bound));
                let lent = self.lend(name, is_inherited, &socket)?;
                self.datagrams.push(Datagrams::udp(protocol, socket, lent));
                Endpoint::Udp(bound)
            }
        })
    }
}

/// Stores the actions of callers in the database, if there is one.
async fn store_audit(control: Arc<Control>) {
    if let Some(stored) = control.audit.stored() {
        stored.run().await;
    }
}

/// Notes in the audit what this host does with roll-outs.
async fn note_rollouts(control: Arc<Control>) {
    let mut moves = control.registry.rollout_moves();
    let host = Caller::host("rollout");
    loop {
        let moved = match moves.recv().await {
            Ok(moved) => moved,
            // The log has them.
            Err(RecvError::Lagged(_)) => continue,
            Err(RecvError::Closed) => return,
        };
        let about = About {
            seat: Some(moved.seat),
            subject: Some(format!("generation {}: {}", moved.generation, moved.what)),
        };
        control.audit.note(&host, "rollout.move", about, None);
    }
}

/// Ends responses that have no end of their own when the control interfaces stop.
async fn end_streams(control: Arc<Control>, mut stopping: watch::Receiver<bool>) {
    drop(stopping.wait_for(|stop| *stop).await);
    control.ending.send_replace(true);
}

/// The name of a socket, or of a FIFO, between two processes of a host.
fn name_of(interface: &str, address: impl fmt::Display) -> String {
    format!("{interface} {address}")
}

/// Returns everything that would prevent the sockets from being opened, except that they are in use.
pub fn check(config: &ControlConfig) -> Vec<String> {
    let mut problems = Vec::new();
    problems.extend(Owner::find(&config.access).err().map(|e| e.to_string()));
    problems.extend(config.made_token().and_then(token_file::problem));
    let tls = config.tls.as_ref().filter(|_| config.listen.is_some());
    problems.extend(tls.and_then(tls::problem));
    let folder = &config.fifo_reply_dir;
    if config.fifo.is_some() && !folder.is_dir() {
        problems.push(no_reply_folder(folder));
    }
    let endpoints = config.binrpc.iter().chain(&config.datagram);
    let sockets = endpoints.filter_map(|endpoint| match endpoint {
        Endpoint::UnixStream(path) | Endpoint::UnixDatagram(path) => Some(path),
        Endpoint::Tcp(_) | Endpoint::Udp(_) => None,
    });
    for path in sockets.chain(&config.fifo) {
        let folder = path
            .parent()
            .filter(|folder| !folder.as_os_str().is_empty());
        if folder.is_some_and(|folder| !folder.is_dir()) {
            problems.push(cant_make(path));
        }
    }
    problems
}

fn no_reply_folder(folder: &Path) -> String {
    format!(
        "the directory {} for the replies of the FIFO does not exist: create it, or change `fifo-reply-dir` in [control]",
        folder.display()
    )
}
