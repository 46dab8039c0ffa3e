//! The two halves of a TLS connection after its handshake. Both belong to tasks of one worker, so they share the session without a lock.

use std::cell::RefCell;
use std::io::{self, Read, Write};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use rustls::Connection;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use super::socket_options::set_options;
use crate::handshakes::Established;

/// The halves of a connection.
///
/// # Errors
/// When the worker's runtime does not take the socket.
pub(super) fn halves(established: Established) -> io::Result<(TlsRead, TlsWrite)> {
    let socket = TcpStream::from_std(established.socket)?;
    set_options(&socket);
    let shared = Rc::new(RefCell::new(TlsStream {
        socket,
        session: established.keys,
        is_shut: false,
    }));
    Ok((TlsRead(Rc::clone(&shared)), TlsWrite(shared)))
}

/// The receiving half.
pub(super) struct TlsRead(Rc<RefCell<TlsStream>>);

/// The sending half. What is written is encrypted at once, and leaves when the socket takes it, at the latest with a flush.
pub(super) struct TlsWrite(Rc<RefCell<TlsStream>>);

struct TlsStream {
    socket: TcpStream,
    session: Connection,
    /// The last word has been said.
    is_shut: bool,
}

/// Bytes of a socket that is not waited for.
struct Now<'s>(&'s TcpStream);

impl TlsStream {
    /// Sends what is encrypted, without waiting. Ready when nothing is left, or with the error of the socket.
    fn send_now(&mut self) -> Poll<io::Result<()>> {
        while self.session.wants_write() {
            match self.session.write_tls(&mut Now(&self.socket)) {
                Ok(0) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Poll::Pending,
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
        Poll::Ready(Ok(()))
    }

    /// The same, and wakes the task up when the socket takes more.
    fn poll_send(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            if let Poll::Ready(sent) = self.send_now() {
                return Poll::Ready(sent);
            }
            ready!(self.socket.poll_write_ready(context))?;
        }
    }
}

impl AsyncRead for TlsRead {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let stream = &mut *self.0.borrow_mut();
        loop {
            let read = stream.session.reader().read(buffer.initialize_unfilled());
            match read {
                Ok(count) => {
                    buffer.advance(count);
                    return Poll::Ready(Ok(()));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
            match stream.session.read_tls(&mut Now(&stream.socket)) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    ready!(stream.socket.poll_read_ready(context))?;
                    continue;
                }
                Err(error) => return Poll::Ready(Err(error)),
            }
            let processed = stream.session.process_new_packets();
            // An alert, or the answer to a change of keys. What the socket does not take now leaves with the next message.
            if let Poll::Ready(Err(error)) = stream.send_now() {
                return Poll::Ready(Err(error));
            }
            processed.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        }
    }
}

impl AsyncWrite for TlsWrite {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let stream = &mut *self.0.borrow_mut();
        // Nothing is encrypted while the socket is full: a peer that reads nothing costs no more memory.
        ready!(stream.poll_send(context))?;
        let count = stream.session.writer().write(bytes)?;
        if let Poll::Ready(Err(error)) = stream.send_now() {
            return Poll::Ready(Err(error));
        }
        Poll::Ready(Ok(count))
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.borrow_mut().poll_send(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let stream = &mut *self.0.borrow_mut();
        if !stream.is_shut {
            stream.is_shut = true;
            stream.session.send_close_notify();
        }
        ready!(stream.poll_send(context))?;
        Pin::new(&mut stream.socket).poll_shutdown(context)
    }
}

impl Read for Now<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.try_read(buffer)
    }
}

impl Write for Now<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.try_write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
