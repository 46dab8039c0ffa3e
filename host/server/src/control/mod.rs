//! Control: metrics, health and commands, for operators on this machine and their tools. Nothing here runs on a worker.
//!
//! Every door (`http`, `stream`, `datagram`, `fifo`) brings a [`Call`] in its protocol's form and carries the [`Reply`] or
//! [`Fault`] back; what the calls do is in `commands`.

mod api;
mod commands;
mod connections;
mod datagram;
mod doors;
mod fifo;
mod http;
mod readiness;
mod socket_file;
mod stream;

use std::sync::Arc;

use portcullis_rpc::json::{self, BadRequest, Layout, Request};
use portcullis_rpc::{Call, Fault, Reply, TooLarge, binrpc};
use serde_json::Value as Id;
use tokio::sync::Semaphore;

use crate::metrics::Exposition;
use crate::shared::Shared;
use crate::tenants::Registry;
use connections::Connections;
pub(crate) use doors::check;
pub use doors::{Doors, Listening};

/// Dumps that are written at the same time; each can be large.
const DUMPS: usize = 2;

/// What the doors work on.
pub struct Control {
    shared: Arc<Shared>,
    registry: Arc<Registry>,
    exposition: Exposition,
    listening: Listening,
    connections: Arc<Connections>,
    dumps: Semaphore,
}

/// An answer of JSON-RPC.
struct JsonAnswer {
    /// The fault's HTTP status, or 200.
    status: u16,
    body: Vec<u8>,
}

impl Control {
    /// The control of this host, and where it can be reached.
    pub fn new(shared: Arc<Shared>, registry: Arc<Registry>, listening: Listening) -> Self {
        let exposition = Exposition::new(Arc::clone(&shared), Arc::clone(&registry));
        Self {
            shared,
            registry,
            exposition,
            listening,
            connections: Arc::default(),
            dumps: Semaphore::new(DUMPS),
        }
    }

    /// Answers a request of JSON-RPC. `too_large` says what to do with an answer of more than `most` bytes.
    async fn answer_json(
        &self,
        request: Result<Request, Box<BadRequest>>,
        layout: Layout,
        most: usize,
        too_large: fn(TooLarge) -> Fault,
    ) -> JsonAnswer {
        let (id, answered) = match request {
            Ok(Request { call, id, .. }) => {
                let result = match self.execute(&call).await {
                    Some(result) => result,
                    None => Err(Fault::new(500, "Method Not Found")),
                };
                (id, result)
            }
            Err(bad) => (bad.id, Err(bad.fault)),
        };
        let written = match answered {
            Ok(reply) => self.write_json(id.clone(), reply, layout, most).await,
            Err(fault) => Err(Unwritten::Fault(fault)),
        };
        let fault = match written {
            Ok(body) => return JsonAnswer { status: 200, body },
            Err(Unwritten::Fault(fault)) => fault,
            Err(Unwritten::TooLarge(error)) => too_large(error),
        };
        JsonAnswer {
            status: fault.http_status(),
            body: json::failure(&id, &fault, layout),
        }
    }

    /// Answers a request of BINRPC with a packet of at most `most` bytes.
    async fn answer_binrpc(&self, cookie: u32, call: &Call, most: usize) -> Vec<u8> {
        let result = match self.execute(call).await {
            Some(result) => result,
            None => Err(Fault::new(
                500,
                format!("command {} not found", call.method),
            )),
        };
        let written = match result {
            Ok(reply) => self.write_binrpc(cookie, reply, most).await,
            Err(fault) => Err(Unwritten::Fault(fault)),
        };
        match written {
            Ok(packet) => packet,
            Err(Unwritten::Fault(fault)) => binrpc::fault(cookie, &fault),
            Err(Unwritten::TooLarge(error)) => binrpc::fault(cookie, &beyond_binrpc(error)),
        }
    }

    async fn write_json(
        &self,
        id: Id,
        reply: Reply,
        layout: Layout,
        most: usize,
    ) -> Result<Vec<u8>, Unwritten> {
        let write = move |reply| json::success(&id, reply, layout, most);
        self.write(reply, write).await
    }

    async fn write_binrpc(
        &self,
        cookie: u32,
        reply: Reply,
        most: usize,
    ) -> Result<Vec<u8>, Unwritten> {
        let write = move |reply| binrpc::reply(cookie, reply, most);
        self.write(reply, write).await
    }

    /// Writes a reply; the rows of a table on a thread where that may take its time: there can be millions.
    async fn write(
        &self,
        reply: Reply,
        write: impl FnOnce(Reply) -> Result<Vec<u8>, TooLarge> + Send + 'static,
    ) -> Result<Vec<u8>, Unwritten> {
        if !matches!(reply, Reply::Rows(_)) {
            return write(reply).map_err(Unwritten::TooLarge);
        }
        // Never closed: an error would only mean that the host ends.
        let _turn = self.dumps.acquire().await;
        let written = tokio::task::spawn_blocking(move || write(reply)).await;
        let failed = |error| Unwritten::Fault(Fault::new(500, "Dump failed.").because(error));
        written.map_err(failed)?.map_err(Unwritten::TooLarge)
    }
}

/// Why there is no reply to send.
enum Unwritten {
    Fault(Fault),
    TooLarge(TooLarge),
}

fn beyond_binrpc(TooLarge { bytes, most }: TooLarge) -> Fault {
    let text = format!(
        "reply of {bytes} bytes, {most} at most over BINRPC: ask by JSON-RPC over HTTP (/RPC) or the FIFO (kamctl)"
    );
    Fault::new(500, text)
}

#[cfg(test)]
mod tests;
