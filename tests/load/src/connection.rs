//! A connection to the server: TCP, with TLS, WebSocket or both on top. It never blocks, except while it is opened.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection};
use socket2::{Domain, SockRef, Socket, Type};

use crate::inbox::{Framing, Inbox, Piece};
use crate::tls::SERVER_NAME;
use crate::transport::Transport;
use crate::websocket::{self, Opcode};

/// Limit of the time until a connection is established.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// Bytes read with one system call.
const READ: usize = 16 << 10;

/// Where a connection goes, and how.
#[derive(Clone, Debug)]
pub(crate) struct Route {
    pub(crate) target: SocketAddr,
    pub(crate) transport: Transport,
    /// Needed for a transport with TLS.
    pub(crate) tls: Option<Arc<ClientConfig>>,
}

/// An open connection.
#[derive(Debug)]
pub(crate) struct Connection {
    socket: TcpStream,
    tls: Option<Box<ClientConnection>>,
    upgrade: Upgrade,
    inbox: Inbox,
    outbox: Outbox,
    /// The server sends nothing more.
    is_over: bool,
}

/// What is to be sent, before it is encrypted.
#[derive(Debug)]
pub(crate) struct Outbox {
    bytes: Vec<u8>,
    framing: Framing,
}

/// The handshake of WebSocket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Upgrade {
    None,
    Asked,
    Done,
}

impl Connection {
    /// Connects from this source, and begins the handshakes.
    ///
    /// # Errors
    /// If nobody accepts the connection.
    pub(crate) fn open(route: &Route, source: IpAddr) -> Result<Self> {
        let Route {
            target, transport, ..
        } = *route;
        let socket = connect(target, source)
            .with_context(|| format!("cannot connect from {source} to {target}"))?;
        let tls = match transport.has_tls() {
            true => Some(Box::new(route.tls()?)),
            false => None,
        };
        let mut outbox = Outbox {
            bytes: Vec::new(),
            framing: Framing::Length,
        };
        let mut upgrade = Upgrade::None;
        if transport.is_websocket() {
            outbox.framing = Framing::Frames;
            outbox.bytes = websocket::upgrade(target).into_bytes();
            upgrade = Upgrade::Asked;
        }
        Ok(Self {
            socket,
            tls,
            upgrade,
            inbox: Inbox::default(),
            outbox,
            is_over: false,
        })
    }

    /// Connects, and returns when all handshakes are done.
    ///
    /// # Errors
    /// If that fails, or takes longer than [`PATIENCE`].
    pub(crate) fn establish(route: &Route, source: IpAddr) -> Result<Self> {
        let mut connection = Self::open(route, source)?;
        let transport = route.transport;
        connection
            .wait(PATIENCE, Self::is_ready)
            .with_context(|| format!("a connection from {source} over {transport}"))?;
        Ok(connection)
    }

    /// Whether messages can be sent.
    pub(crate) fn is_ready(&self) -> bool {
        let is_encrypted = self.tls.as_ref().is_none_or(|tls| !tls.is_handshaking());
        is_encrypted && self.upgrade != Upgrade::Asked
    }

    /// Whether the server sends nothing more.
    pub(crate) fn is_over(&self) -> bool {
        self.is_over
    }

    /// Whether something was received that has not been taken.
    pub(crate) fn has_received(&self) -> bool {
        !self.inbox.rest().is_empty()
    }

    /// The session of TLS, if there is one.
    pub(crate) fn tls(&self) -> Option<&ClientConnection> {
        self.tls.as_deref()
    }

    /// The own address.
    pub(crate) fn address(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// Has the kernel forget the connection at once when it is dropped, in place of a minute in TIME_WAIT, which would take a port.
    pub(crate) fn leave_no_trace(&self) -> io::Result<()> {
        SockRef::from(&self.socket).set_linger(Some(Duration::ZERO))
    }

    /// What the connection waits for.
    pub(crate) fn interest(&self) -> PollFlags {
        let has_more = match &self.tls {
            Some(tls) => tls.wants_write(),
            None => !self.outbox.bytes.is_empty(),
        };
        match has_more {
            true => PollFlags::IN | PollFlags::OUT,
            false => PollFlags::IN,
        }
    }

    /// Where messages are put; [`Self::turn`] sends them.
    pub(crate) fn outbox(&mut self) -> &mut Outbox {
        &mut self.outbox
    }

    /// Sends what it can, and receives what is there.
    ///
    /// # Errors
    /// If the connection breaks, or the server violates TLS or WebSocket.
    pub(crate) fn turn(&mut self) -> io::Result<()> {
        self.flush()?;
        self.receive()?;
        if self.upgrade == Upgrade::Asked
            && let Some(length) = websocket::answer(self.inbox.rest())?
        {
            self.inbox.skip(length);
            self.inbox.compact();
            self.upgrade = Upgrade::Done;
        }
        // What TLS has to say to what it has received.
        self.flush()
    }

    /// Sends what it can.
    ///
    /// # Errors
    /// If the connection breaks.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        let Some(tls) = &mut self.tls else {
            return self.outbox.send(&mut self.socket);
        };
        if !self.outbox.bytes.is_empty() {
            tls.writer().write_all(&self.outbox.bytes)?;
            self.outbox.bytes.clear();
        }
        while tls.wants_write() {
            match tls.write_tls(&mut self.socket) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn receive(&mut self) -> io::Result<()> {
        let mut buffer = [0; READ];
        while !self.is_over {
            let read = match &mut self.tls {
                Some(tls) => tls.read_tls(&mut self.socket),
                None => self.socket.read(&mut buffer),
            };
            let count = match read {
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            };
            self.is_over = count == 0;
            match &mut self.tls {
                Some(tls) => decrypt(tls, &mut self.inbox, &mut buffer)?,
                None => self.inbox.push(&buffer[..count]),
            }
            // A short read has emptied the socket.
            if self.tls.is_none() && count < READ {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Gives each message that was received to `each`, with the outbox for what is sent in return. Returns their number.
    ///
    /// # Errors
    /// If the server violates the framing.
    pub(crate) fn take(&mut self, mut each: impl FnMut(&[u8], &mut Outbox)) -> io::Result<usize> {
        let mut count = 0;
        while let Some(piece) = self.inbox.next(self.outbox.framing)? {
            match piece {
                Piece::Message(range) => {
                    each(self.inbox.slice(range), &mut self.outbox);
                    count += 1;
                }
                Piece::Ping(range) => {
                    let payload = self.inbox.slice(range);
                    websocket::write(Opcode::Pong, payload, &mut self.outbox.bytes);
                }
                Piece::Close => self.is_over = true,
            }
        }
        self.inbox.compact();
        Ok(count)
    }

    /// Says that nothing more comes. The server closes the connection in return.
    ///
    /// # Errors
    /// If the connection breaks.
    pub(crate) fn close(&mut self) -> io::Result<()> {
        if self.upgrade == Upgrade::Done {
            let normal = 1000_u16.to_be_bytes();
            websocket::write(Opcode::Close, &normal, &mut self.outbox.bytes);
        }
        self.flush()?;
        match &mut self.tls {
            Some(tls) => {
                tls.send_close_notify();
                self.flush()
            }
            None => self.socket.shutdown(Shutdown::Write),
        }
    }

    /// Takes turns until `done` returns true.
    ///
    /// # Errors
    /// If the connection breaks or ends before, or it takes longer than this.
    pub(crate) fn wait(&mut self, limit: Duration, done: impl Fn(&Self) -> bool) -> Result<()> {
        let give_up = Instant::now() + limit;
        loop {
            self.turn()?;
            if done(self) {
                return Ok(());
            }
            if self.is_over {
                bail!("the server has closed the connection");
            }
            let left = give_up.saturating_duration_since(Instant::now());
            ensure!(!left.is_zero(), "the server takes longer than {limit:?}");
            let mut wait = [PollFd::new(&self.socket, self.interest())];
            poll(&mut wait, Some(&timespec(left)))?;
        }
    }
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Outbox {
    /// Adds a message.
    pub(crate) fn push(&mut self, message: &[u8]) {
        match self.framing {
            Framing::Length => self.bytes.extend_from_slice(message),
            Framing::Frames => websocket::write(Opcode::Text, message, &mut self.bytes),
        }
    }

    fn send(&mut self, socket: &mut TcpStream) -> io::Result<()> {
        while !self.bytes.is_empty() {
            match socket.write(&self.bytes) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => drop(self.bytes.drain(..count)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

impl Route {
    fn tls(&self) -> Result<ClientConnection> {
        let config = self.tls.as_ref().context("no configuration of TLS")?;
        let name = ServerName::try_from(SERVER_NAME)?;
        let mut tls = ClientConnection::new(Arc::clone(config), name)?;
        // The load bounds it.
        tls.set_buffer_limit(None);
        Ok(tls)
    }
}

/// A time as `poll` has it.
pub(crate) fn timespec(time: Duration) -> Timespec {
    Timespec {
        tv_sec: time.as_secs() as i64,
        tv_nsec: i64::from(time.subsec_nanos()),
    }
}

fn connect(target: SocketAddr, source: IpAddr) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(target), Type::STREAM, None)?;
    socket.bind(&SocketAddr::new(source, 0).into())?;
    socket.connect_timeout(&target.into(), PATIENCE)?;
    socket.set_tcp_nodelay(true)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

/// Decrypts what has been received.
fn decrypt(tls: &mut ClientConnection, inbox: &mut Inbox, buffer: &mut [u8]) -> io::Result<()> {
    let state = tls.process_new_packets().map_err(io::Error::other)?;
    let mut left = state.plaintext_bytes_to_read();
    while left > 0 {
        let count = tls.reader().read(buffer)?;
        inbox.push(&buffer[..count]);
        left -= count;
    }
    Ok(())
}
