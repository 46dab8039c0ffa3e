//! Executes calls and writes their replies in the format of the protocol.

use portcullis_rpc::json::{self, BadRequest, Layout, Request};
use portcullis_rpc::{Call, Fault, Reply, TooLarge, binrpc};
use serde_json::Value as Id;

use crate::caller::{Caller, Door};
use crate::commands::Command;
use crate::control::Control;
use crate::parts::Parts;

/// A JSON-RPC reply.
pub(crate) struct JsonAnswer<B = Vec<u8>> {
    /// HTTP status: that of the fault, or 200.
    pub(crate) status: u16,
    pub(crate) body: B,
}

/// The body of a reply of any size.
pub(crate) enum JsonBody {
    Whole(Vec<u8>),
    /// The rows of a table, written in parts.
    Parts(Parts),
}

/// Answers a JSON-RPC request. `too_large` makes the reply if it would have more than `most` bytes.
pub(crate) async fn json_within(
    control: &Control,
    request: Result<Request, Box<BadRequest>>,
    layout: Layout,
    caller: &Caller,
    most: usize,
    too_large: fn(TooLarge) -> Fault,
) -> JsonAnswer {
    let (id, answered) = execute_json(control, request, caller).await;
    let written = match answered {
        Ok(reply) => write_json(control, id.clone(), reply, layout, most).await,
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

/// The same without a limit on the size of the reply.
pub(crate) async fn json_in_parts(
    control: &Control,
    request: Result<Request, Box<BadRequest>>,
    layout: Layout,
    caller: &Caller,
) -> JsonAnswer<JsonBody> {
    let (id, answered) = execute_json(control, request, caller).await;
    let written = match answered {
        Ok(reply @ Reply::Rows(_)) => {
            let parts = control.dumps.begin(id.clone(), reply, layout).await;
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
    control: &Control,
    request: Result<Request, Box<BadRequest>>,
    caller: &Caller,
) -> (Id, Result<Reply, Fault>) {
    match request {
        Ok(Request { call, id, .. }) => {
            let answered = match Command::from_call(&call) {
                Some(Ok(command)) => command.execute(control, caller).await,
                Some(Err(fault)) => Err(fault),
                None => Err(Fault::new(500, "Method Not Found")),
            };
            (id, answered)
        }
        Err(bad) => (bad.id, Err(bad.fault)),
    }
}

/// Answers a BINRPC request with a packet of at most `most` bytes.
pub(crate) async fn binrpc_within(
    control: &Control,
    cookie: u32,
    call: &Call,
    most: usize,
) -> Vec<u8> {
    let caller = Caller::operator(Door::Binrpc);
    let result = match Command::from_call(call) {
        Some(Ok(command)) => command.execute(control, &caller).await,
        Some(Err(fault)) => Err(fault),
        None => Err(Fault::new(
            500,
            format!("command {} not found", call.method),
        )),
    };
    let written = match result {
        Ok(reply) => write_binrpc(control, cookie, reply, most).await,
        Err(fault) => Err(Unwritten::Fault(fault)),
    };
    match written {
        Ok(packet) => packet,
        Err(Unwritten::Fault(fault)) => binrpc::fault(cookie, &fault),
        Err(Unwritten::TooLarge(error)) => binrpc::fault(cookie, &beyond_binrpc(error)),
    }
}

async fn write_json(
    control: &Control,
    id: Id,
    reply: Reply,
    layout: Layout,
    most: usize,
) -> Result<Vec<u8>, Unwritten> {
    write(control, reply, move |reply| {
        json::success(&id, reply, layout, most)
    })
    .await
}

async fn write_binrpc(
    control: &Control,
    cookie: u32,
    reply: Reply,
    most: usize,
) -> Result<Vec<u8>, Unwritten> {
    write(control, reply, move |reply| {
        binrpc::reply(cookie, reply, most)
    })
    .await
}

/// Writes a reply. The rows of a table are written on a thread that may block: there can be millions.
async fn write(
    control: &Control,
    reply: Reply,
    write: impl FnOnce(Reply) -> Result<Vec<u8>, TooLarge> + Send + 'static,
) -> Result<Vec<u8>, Unwritten> {
    if !matches!(reply, Reply::Rows(_)) {
        return write(reply).map_err(Unwritten::TooLarge);
    }
    // The semaphore is never closed: an error would only mean that the host ends.
    let _turn = control.dumps.at_work.acquire().await;
    let written = tokio::task::spawn_blocking(move || write(reply)).await;
    let failed = |error| Unwritten::Fault(Fault::new(500, "Dump failed.").because(error));
    written.map_err(failed)?.map_err(Unwritten::TooLarge)
}

/// Why there is no reply to send.
enum Unwritten {
    Fault(Fault),
    TooLarge(TooLarge),
}

fn beyond_binrpc(TooLarge { bytes, most }: TooLarge) -> Fault {
    let text = format!(
        "reply of {bytes} bytes, at most {most} over BINRPC: use JSON-RPC over HTTP (/RPC) or the FIFO (kamctl)"
    );
    Fault::new(500, text)
}
