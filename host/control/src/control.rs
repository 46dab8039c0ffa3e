//! What the doors work on, and how a call of theirs becomes an answer.

use std::sync::Arc;
use std::time::Duration;

use portcullis_config::Token;
use portcullis_dataplane::shared::Shared;
use portcullis_rollout::Registry;
use portcullis_rpc::json::{self, BadRequest, Layout, Request};
use portcullis_rpc::{Call, Fault, Reply, TooLarge, binrpc};
use serde_json::Value as Id;

use crate::caller::{Caller, Door};
use crate::commands::Command;
use crate::connections::Connections;
use crate::descriptors;
use crate::doors::Listening;
use crate::exposition::Exposition;
use crate::pages::Pages;
use crate::parts::{Parts, Places};
use crate::room::PolicyRoom;

/// How long the workers may take to see what was published. A call of a policy takes as long as `deadline` at most.
const PATIENCE: Duration = Duration::from_secs(15);

/// What the doors work on.
pub struct Control {
    pub(crate) shared: Arc<Shared>,
    pub(crate) registry: Arc<Registry>,
    pub(crate) exposition: Exposition,
    pub(crate) pages: Pages,
    pub(crate) listening: Listening,
    /// What makes a client of HTTP the operator; none if nobody needs one.
    pub(crate) token: Option<Token>,
    /// Of BINRPC.
    pub(crate) connections: Arc<Connections>,
    /// Of HTTP.
    pub(crate) http: Arc<Connections>,
    dumps: Places,
    /// For policies on their way in and out.
    pub(crate) room: PolicyRoom,
}

/// An answer of JSON-RPC.
pub(crate) struct JsonAnswer<B = Vec<u8>> {
    /// The fault's HTTP status, or 200.
    pub(crate) status: u16,
    pub(crate) body: B,
}

/// The body of an answer of any size.
pub(crate) enum JsonBody {
    Whole(Vec<u8>),
    /// The rows of a table.
    Parts(Parts),
}

impl Control {
    /// The control of this host, where it can be reached and by whose token, with as many connections as `parts` leaves it.
    /// `lost_log_lines` says how many lines the log has dropped.
    pub fn new(
        shared: Arc<Shared>,
        registry: Arc<Registry>,
        listening: Listening,
        token: Option<Token>,
        parts: &descriptors::Parts,
        lost_log_lines: fn() -> u64,
    ) -> Self {
        let exposition =
            Exposition::new(Arc::clone(&shared), Arc::clone(&registry), lost_log_lines);
        Self {
            shared,
            registry,
            exposition,
            pages: Pages::default(),
            listening,
            token,
            connections: Arc::new(Connections::new(parts.binrpc)),
            http: Arc::new(Connections::new(parts.http)),
            dumps: Places::default(),
            room: PolicyRoom::default(),
        }
    }

    /// Answers a request of JSON-RPC. `too_large` says what to do with an answer of more than `most` bytes.
    pub(crate) async fn answer_json(
        &self,
        request: Result<Request, Box<BadRequest>>,
        layout: Layout,
        caller: &Caller,
        most: usize,
        too_large: fn(TooLarge) -> Fault,
    ) -> JsonAnswer {
        let (id, answered) = self.execute_json(request, caller).await;
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

    /// The same where an answer may have any size.
    pub(crate) async fn answer_json_in_parts(
        &self,
        request: Result<Request, Box<BadRequest>>,
        layout: Layout,
        caller: &Caller,
    ) -> JsonAnswer<JsonBody> {
        let (id, answered) = self.execute_json(request, caller).await;
        let written = match answered {
            Ok(reply @ Reply::Rows(_)) => {
                let parts = self.dumps.begin(id.clone(), reply, layout).await;
                parts.map(JsonBody::Parts)
            }
            Ok(reply) => json::success(&id, reply, layout, usize::MAX)
                .map(JsonBody::Whole)
                .map_err(|error| Fault::new(500, "Internal error creating rpc").because(error)),
            Err(fault) => Err(fault),
        };
        match written {
            Ok(body) => JsonAnswer { status: 200, body },
            Err(fault) => JsonAnswer {
                status: fault.http_status(),
                body: JsonBody::Whole(json::failure(&id, &fault, layout)),
            },
        }
    }

    async fn execute_json(
        &self,
        request: Result<Request, Box<BadRequest>>,
        caller: &Caller,
    ) -> (Id, Result<Reply, Fault>) {
        match request {
            Ok(Request { call, id, .. }) => {
                let answered = match Command::from_call(&call) {
                    Some(Ok(command)) => command.execute(self, caller).await,
                    Some(Err(fault)) => Err(fault),
                    None => Err(Fault::new(500, "Method Not Found")),
                };
                (id, answered)
            }
            Err(bad) => (bad.id, Err(bad.fault)),
        }
    }

    /// Answers a request of BINRPC with a packet of at most `most` bytes.
    pub(crate) async fn answer_binrpc(&self, cookie: u32, call: &Call, most: usize) -> Vec<u8> {
        let caller = Caller::operator(Door::Binrpc);
        let result = match Command::from_call(call) {
            Some(Ok(command)) => command.execute(self, &caller).await,
            Some(Err(fault)) => Err(fault),
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
        let _turn = self.dumps.at_work.acquire().await;
        let written = tokio::task::spawn_blocking(move || write(reply)).await;
        let failed = |error| Unwritten::Fault(Fault::new(500, "Dump failed.").because(error));
        written.map_err(failed)?.map_err(Unwritten::TooLarge)
    }

    /// What is missing, a line each; nothing if the host is ready. The sockets are bound before the control port answers.
    pub(crate) fn missing(&self) -> Vec<String> {
        let mut missing = Vec::new();
        let addresses = &self.shared.addresses;
        if addresses.current().generation == 0 {
            missing.push(match addresses.status().last_error {
                Some(error) => format!("address table: not loaded: {error}"),
                None => "address table: not loaded yet".into(),
            });
        }
        // What a tenant lacks is between it and the operator: the others' calls go through.
        let policy = self.registry.default_files();
        if policy.file().is_some() && policy.slot().current().is_none() {
            missing.push(match policy.failed() {
                Some(failed) => format!("policy: {}", failed.error),
                None => "policy: not loaded yet".into(),
            });
        }
        if let Some(progress) = self.registry.progress() {
            missing.push(progress.to_string());
        }
        missing
    }

    pub(crate) async fn is_live(&self) -> bool {
        self.shared.live_on_all_workers(PATIENCE).await
    }

    /// What is to be said where pushed policies are kept in memory only.
    pub(crate) fn unstored(&self) -> Option<String> {
        match self.registry.storing() {
            Ok(()) | Err(None) => None,
            Err(Some(error)) => Some(format!("kept until the host ends: {error}")),
        }
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
