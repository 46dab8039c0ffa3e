//! Reads from a stream connection by way of a buffer of the worker: a connection that waits for a message has no buffer of its own.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Poll, ready};

use tokio::io::{AsyncRead, ReadBuf};

use super::Worker;

/// Bytes requested by one read.
pub(super) const CHUNK: usize = 16 * 1024;

/// Waits for bytes, and appends them to `into`. Returns their number; 0 at the end of the stream. Nothing is lost if this is dropped.
///
/// # Errors
/// Those of the connection.
pub(super) async fn read_into(
    worker: &RefCell<Worker>,
    read: &mut (impl AsyncRead + Unpin),
    into: &mut Vec<u8>,
) -> io::Result<usize> {
    poll_fn(|context| {
        let mut worker = worker.borrow_mut();
        // All of it is initialised, so TLS need not clear it before each read.
        let mut buffer = ReadBuf::new(&mut worker.read_buffer);
        ready!(Pin::new(&mut *read).poll_read(context, &mut buffer))?;
        let received = buffer.filled();
        into.extend_from_slice(received);
        Poll::Ready(Ok(received.len()))
    })
    .await
}
