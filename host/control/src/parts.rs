//! Replies of any size to clients of any speed: a reply is generated in parts, each when the client has read the one before.
//!
//! A dump of a million rows takes no more memory than a few parts. A reply whose client reads nothing for a while is given up.

use std::io;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use futures_util::Stream;
use futures_util::stream;
use portcullis_rpc::json::{self, Layout};
use portcullis_rpc::{Fault, Reply};
use serde_json::Value as Id;
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, mpsc};
use tokio::time::timeout;

/// Most replies in parts at the same time.
const UNDER_WAY: usize = 32;

/// How long a further reply waits for a place.
const WAIT: Duration = Duration::from_secs(60);

/// How long a client may read nothing.
const STALL: Duration = Duration::from_secs(10);

/// Parts that are generated at the same time. This takes CPU time that the workers need, too.
const AT_WORK: usize = 2;

/// The places of replies in parts.
#[derive(Debug)]
pub(super) struct Places {
    under_way: Arc<Semaphore>,
    pub(super) at_work: Arc<Semaphore>,
    /// How long a client may read nothing.
    stall: Duration,
}

/// A reply in parts.
#[derive(Debug)]
pub(super) struct Parts(mpsc::Receiver<Part>);

/// A part, or the end after the last one. A reply that was given up has no end.
#[derive(Debug)]
enum Part {
    Bytes(Vec<u8>),
    End,
}

impl Default for Places {
    fn default() -> Self {
        Self {
            under_way: Arc::new(Semaphore::new(UNDER_WAY)),
            at_work: Arc::new(Semaphore::new(AT_WORK)),
            stall: STALL,
        }
    }
}

impl Places {
    /// Starts to generate a reply, on a thread that may block.
    ///
    /// # Errors
    /// If too many clients read their replies too slowly.
    pub(super) async fn begin(&self, id: Id, reply: Reply, layout: Layout) -> Result<Parts, Fault> {
        let place = timeout(WAIT, Arc::clone(&self.under_way).acquire_owned()).await;
        let Ok(Ok(place)) = place else {
            return Err(Fault::new(503, "Too many replies in transfer.")
                .because("their clients read slowly: try again later"));
        };
        let (sender, receiver) = mpsc::channel(1);
        let (at_work, runtime) = (Arc::clone(&self.at_work), Handle::current());
        let stall = self.stall;
        tokio::task::spawn_blocking(move || {
            let _place = place;
            let turn = || runtime.block_on(Arc::clone(&at_work).acquire_owned());
            let mut working = Some(turn());
            let mut give = |part| {
                // A reply that waits for its client does not occupy a permit.
                drop(working.take());
                let taken = runtime.block_on(timeout(stall, sender.send(Part::Bytes(part))));
                working = Some(turn());
                match taken {
                    Ok(Ok(())) => ControlFlow::Continue(()),
                    _ => ControlFlow::Break(()),
                }
            };
            let whole = json::success_in_parts(&id, reply, layout, &mut give);
            if whole.is_continue() {
                let _taken = runtime.block_on(timeout(stall, sender.send(Part::End)));
            }
        });
        Ok(Parts(receiver))
    }
}

impl Parts {
    /// Returns the next part; `None` after the last.
    ///
    /// # Errors
    /// If the reply was given up before its end.
    pub(super) async fn next(&mut self) -> io::Result<Option<Vec<u8>>> {
        match self.0.recv().await {
            Some(Part::Bytes(bytes)) => Ok(Some(bytes)),
            Some(Part::End) => Ok(None),
            None => Err(io::ErrorKind::TimedOut.into()),
        }
    }

    /// Returns the parts as the body of a response.
    pub(super) fn into_stream(self) -> impl Stream<Item = io::Result<Vec<u8>>> {
        stream::try_unfold(self, |mut parts| async move {
            Ok(parts.next().await?.map(|part| (part, parts)))
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use portcullis_rpc::{Rows, RowsForm, Value};
    use serde_json::json;

    use super::*;

    /// A million rows that count how many of them were generated.
    fn rows(made: &Arc<AtomicUsize>) -> Reply {
        let made = Arc::clone(made);
        Rows::new(RowsForm::Each, move |write| {
            (0..1_000_000).try_for_each(|number| {
                made.fetch_add(1, Ordering::Relaxed);
                write([("number", Value::from(number))].into())
            })
        })
        .into()
    }

    #[tokio::test]
    async fn a_reply_without_a_reader_is_not_generated() {
        let places = Places::default();
        let made = Arc::new(AtomicUsize::new(0));
        let begin = || places.begin(json!(1), rows(&made), Layout::Compact);
        let mut all = Vec::new();
        for _ in 0..UNDER_WAY {
            all.push(begin().await.unwrap());
        }
        // Each reply has one part in the channel, and one that waits for the channel.
        for parts in &mut all {
            assert!(parts.next().await.unwrap().unwrap().len() < 66_000);
        }
        drop(all);
        // Replies end with their clients, and their places are used again.
        let mut parts = begin().await.unwrap();
        let before = made.load(Ordering::Relaxed);
        assert!(before < UNDER_WAY * 4 * 66_000 / "{\"number\":1},".len());
        let mut bytes = 0;
        while let Some(part) = parts.next().await.unwrap() {
            bytes += part.len();
        }
        assert!(bytes > 16_000_000, "{bytes}");
    }

    #[tokio::test]
    async fn a_client_that_does_not_read_loses_its_reply() {
        let places = Places {
            stall: Duration::ZERO,
            ..Places::default()
        };
        let made = Arc::new(AtomicUsize::new(0));
        let begun = places.begin(json!(1), rows(&made), Layout::Compact).await;
        let mut parts = begun.unwrap();
        // Its place is free after the reply is given up.
        let all = u32::try_from(UNDER_WAY).unwrap();
        drop(places.under_way.acquire_many(all).await.unwrap());
        assert!(parts.next().await.unwrap().is_some());
        let error = parts.next().await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }
}
