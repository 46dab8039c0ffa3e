//! Bodies of requests, read once there is room for them.

use axum::body::{Body, Bytes, HttpBody as _};
use portcullis_rpc::Fault;
use tokio::sync::OwnedSemaphorePermit;

use crate::caller::Caller;
use crate::http_server::whole;
use crate::room::{PolicyRoom, Purpose};

/// Reads a body of at most `most` bytes. Returns the room that it takes of all bodies together, too, to be dropped with the bytes.
///
/// # Errors
/// 413 if the body has more bytes, 408 if it does not arrive in time, 503 if other bodies take all of the room for too long.
pub(crate) async fn read_body(
    room: &PolicyRoom,
    caller: &Caller,
    purpose: Purpose,
    body: Body,
    most: usize,
) -> Result<(Bytes, OwnedSemaphorePermit), Fault> {
    let announced = body.size_hint().exact();
    let size = announced.map_or(most, |size| usize::try_from(size).unwrap_or(usize::MAX));
    if size > most {
        let text = format!("the body has {size} bytes; at most {most} are accepted");
        return Err(Fault::new(413, text));
    }
    let room = room.acquire(caller, purpose, size).await?;
    match whole(body, most).await {
        Ok(bytes) => Ok((bytes, room)),
        Err((status, text)) => Err(Fault::new(status.as_u16().into(), text.trim_end())),
    }
}
