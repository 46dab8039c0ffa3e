//! JSON-RPC through a FIFO, for `kamctl`. Replies go to pipes that clients name.

use std::collections::HashMap;
use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use nix::errno::Errno;
use nix::libc::{O_NOFOLLOW, O_NONBLOCK};
use portcullis_rpc::fifo::{FifoReader, reply_pipe};
use portcullis_rpc::json::{self, Layout};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::pipe::{self, Receiver, Sender};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tracing::{debug, warn};

use super::answers::{self, JsonBody};
use super::control::Control;
use super::socket_file::SocketFile;
use crate::caller::{Caller, Door};

/// How long to wait for the rest of a request while writers have the FIFO open. Without writers, the request is known to be incomplete.
const REST: Duration = Duration::from_secs(2);

/// Number and interval of attempts to open a client's pipe, which may be opened for reading a little late (`JSONRPC_REPLY_RETRIES`).
const TRIES: usize = 5;
const BETWEEN: Duration = Duration::from_millis(80);

/// How long a client may read nothing of its reply.
const STALL: Duration = Duration::from_secs(5);

/// Requests that are executed at the same time.
const AT_ONCE: usize = 64;

/// Pause if the FIFO cannot be read or reopened.
const PAUSE: Duration = Duration::from_secs(1);

const CHUNK: usize = 4096;

/// The FIFO and its requests.
pub(super) struct Fifo {
    receiver: Receiver,
    file: SocketFile,
    replies: Replies,
}

/// The replies in progress.
struct Replies {
    folder: PathBuf,
    turns: Arc<Semaphore>,
    /// By the name of the pipe: replies to the same pipe are written one after another.
    last: HashMap<String, JoinHandle<()>>,
}

impl Fifo {
    /// Opens the FIFO. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// If it cannot be read.
    pub(super) fn open(file: SocketFile, folder: PathBuf) -> io::Result<Self> {
        Ok(Self {
            receiver: pipe::OpenOptions::new().open_receiver(file.path())?,
            file,
            replies: Replies {
                folder,
                turns: Arc::new(Semaphore::new(AT_ONCE)),
                last: HashMap::new(),
            },
        })
    }

    /// Answers requests forever.
    pub(super) async fn serve(mut self, control: Arc<Control>) {
        let mut reader = FifoReader::default();
        let mut buffer = vec![0; CHUNK];
        loop {
            let read = self.receiver.read(&mut buffer);
            let read = match reader.is_within() {
                false => Ok(read.await),
                true => timeout(REST, read).await,
            };
            match read {
                Ok(Ok(0)) => {
                    // The last writer is gone, so the rest of its request will not come.
                    drop_rest(&mut reader, "its writer has gone");
                    self.reopen().await;
                }
                Ok(Ok(length)) => {
                    let mut requests = Vec::new();
                    let read = buffer.get(..length).unwrap_or_default();
                    reader.push(read, |request| requests.push(request));
                    for request in requests {
                        match request {
                            Ok(request) => self.replies.answer(&control, request).await,
                            Err(error) => {
                                warn!(event = "fifo_request_too_long", %error, "FIFO request too long, not answered");
                            }
                        }
                    }
                }
                Ok(Err(error)) => {
                    warn!(event = "fifo_failed", %error, path = %self.file.path().display(), "FIFO cannot be read");
                    sleep(PAUSE).await;
                    self.reopen().await;
                }
                Err(_) => drop_rest(&mut reader, "the rest did not come"),
            }
        }
    }

    /// Opens a new receiver, which waits for the next writer; the old one would report end of file over and over. The new one is opened
    /// before the old one is closed, so that nothing written meanwhile is lost.
    async fn reopen(&mut self) {
        match pipe::OpenOptions::new().open_receiver(self.file.path()) {
            Ok(receiver) => self.receiver = receiver,
            Err(error) => {
                debug!(event = "fifo_failed", %error, path = %self.file.path().display(), "FIFO cannot be opened again");
                sleep(PAUSE).await;
            }
        }
    }
}

impl Replies {
    /// Starts the reply to a request.
    async fn answer(&mut self, control: &Arc<Control>, request: Vec<u8>) {
        let request = json::Request::read(&request);
        let name = match &request {
            Ok(request) => request.reply_name.as_ref(),
            Err(bad) => bad.reply_name.as_ref(),
        };
        let Some(name) = name.cloned() else {
            let cause = match &request {
                Ok(_) => "the member \"reply_name\" must name a pipe",
                Err(bad) => bad.fault.data.as_deref().unwrap_or(&bad.fault.message),
            };
            warn!(event = "fifo_request_refused", %cause, "FIFO request refused: it names no pipe for its reply");
            return;
        };
        let path = match reply_pipe(&self.folder, &name) {
            Ok(path) => path,
            Err(error) => {
                warn!(event = "fifo_request_refused", %error, "FIFO request refused: its reply would go elsewhere");
                return;
            }
        };
        let Ok(turn) = Arc::clone(&self.turns).acquire_owned().await else {
            return;
        };
        self.last.retain(|_, reply| !reply.is_finished());
        let before = self.last.remove(&name);
        let control = Arc::clone(control);
        let reply = tokio::spawn(async move {
            let _turn = turn;
            if let Some(before) = before {
                let _ended = before.await;
            }
            let caller = Caller::operator(Door::Fifo);
            // Pipes carry replies of any size.
            let answer = answers::json_in_parts(&control, request, Layout::Tabs, &caller);
            if let Err(error) = deliver(&path, answer.await.body).await {
                debug!(event = "fifo_reply_failed", %error, path = %path.display(), "FIFO reply not read");
            }
        });
        self.last.insert(name, reply);
    }
}

fn drop_rest(reader: &mut FifoReader, cause: &str) {
    if reader.is_within() {
        warn!(
            event = "fifo_request_incomplete",
            cause, "incomplete FIFO request discarded"
        );
        reader.reset();
    }
}

async fn deliver(path: &Path, reply: JsonBody) -> io::Result<()> {
    let mut pipe = open(path).await?;
    let mut parts = match reply {
        JsonBody::Whole(reply) => return write(&mut pipe, &reply).await,
        JsonBody::Parts(parts) => parts,
    };
    while let Some(part) = parts.next().await? {
        write(&mut pipe, &part).await?;
    }
    Ok(())
}

async fn write(pipe: &mut Sender, bytes: &[u8]) -> io::Result<()> {
    let mut rest = bytes;
    while !rest.is_empty() {
        let written = timeout(STALL, pipe.write(rest)).await??;
        rest = rest.get(written..).unwrap_or_default();
    }
    Ok(())
}

/// Opens a client's pipe without blocking, and checks that it is a pipe.
async fn open(path: &Path) -> io::Result<Sender> {
    let mut options = fs::OpenOptions::new();
    options.write(true).custom_flags(O_NONBLOCK | O_NOFOLLOW);
    let mut tries = 1;
    let file = loop {
        match options.open(path) {
            // The pipe has no reader yet.
            Err(error) if error.raw_os_error() == Some(Errno::ENXIO as i32) && tries < TRIES => {
                tries += 1;
                sleep(BETWEEN).await;
            }
            opened => break opened?,
        }
    };
    let found = file.metadata()?;
    if !found.file_type().is_fifo() {
        return Err(io::Error::new(ErrorKind::InvalidInput, "not a pipe"));
    }
    if found.nlink() > 1 {
        return Err(io::Error::new(
            ErrorKind::InvalidInput,
            "it has more than one name",
        ));
    }
    Sender::from_file(file)
}
