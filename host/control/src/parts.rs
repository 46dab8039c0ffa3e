//! Replies of any size to clients of any speed: made in parts, and the next part not before there is somebody to take it.
//!
//! A dump of a million rows takes no more memory than a few of its parts. A client that takes nothing of it for a while loses it.

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

/// Replies that are under way in parts at the same time.
const UNDER_WAY: usize = 32;

/// How long another one waits for a place among them.
const WAIT: Duration = Duration::from_secs(60);

/// How long a client may take nothing.
const STALL: Duration = Duration::from_secs(10);

/// Parts that are made at the same time: on the cores that calls need, too.
const AT_WORK: usize = 2;

/// The places of replies in parts.
#[derive(Debug)]
pub(super) struct Places {
    under_way: Arc<Semaphore>,
    pub(super) at_work: Arc<Semaphore>,
    /// How long a client may take nothing.
    stall: Duration,
}

/// A reply that comes in parts.
#[derive(Debug)]
pub(super) struct Parts(mpsc::Receiver<Part>);

/// A part, or the end behind the last one: a reply that is cut off has none.
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
    /// Begins to make a reply, on a thread where that may take its time.
    ///
    /// # Errors
    /// When too many clients take theirs too slowly.
    pub(super) async fn begin(&self, id: Id, reply: Reply, layout: Layout) -> Result<Parts, Fault> {
        let place = timeout(WAIT, Arc::clone(&self.under_way).acquire_owned()).await;
        let Ok(Ok(place)) = place else {
            return Err(Fault::new(503, "Too many replies are under way.")
                .because("their clients take them slowly: try again"));
        };
        let (sender, receiver) = mpsc::channel(1);
        let (at_work, runtime) = (Arc::clone(&self.at_work), Handle::current());
        let stall = self.stall;
        tokio::task::spawn_blocking(move || {
            let _place = place;
            let turn = || runtime.block_on(Arc::clone(&at_work).acquire_owned());
            let mut working = Some(turn());
            let mut give = |part| {
                // Whoever waits for a client is not at work.
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
    /// The next part; none behind the last.
    ///
    /// # Errors
    /// When the reply was given up before its end.
    pub(super) async fn next(&mut self) -> io::Result<Option<Vec<u8>>> {
        match self.0.recv().await {
            Some(Part::Bytes(bytes)) => Ok(Some(bytes)),
            Some(Part::End) => Ok(None),
            None => Err(io::ErrorKind::TimedOut.into()),
        }
    }

    /// The parts as the body of an answer.
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

    /// A million rows that count how many of them were made.
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
    async fn a_reply_that_nobody_takes_is_not_made() {
        let places = Places::default();
        let made = Arc::new(AtomicUsize::new(0));
        let begin = || places.begin(json!(1), rows(&made), Layout::Compact);
        let mut all = Vec::new();
        for _ in 0..UNDER_WAY {
            all.push(begin().await.unwrap());
        }
        // Each has a part that waits in the channel, and one that waits for that.
        for parts in &mut all {
            assert!(parts.next().await.unwrap().unwrap().len() < 66_000);
        }
        drop(all);
        // They end with their clients, and others have their places.
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
    async fn a_client_that_takes_nothing_loses_its_reply() {
        let places = Places {
            stall: Duration::ZERO,
            ..Places::default()
        };
        let made = Arc::new(AtomicUsize::new(0));
        let begun = places.begin(json!(1), rows(&made), Layout::Compact).await;
        let mut parts = begun.unwrap();
        // Its place is free when it is given up.
        let all = u32::try_from(UNDER_WAY).unwrap();
        drop(places.under_way.acquire_many(all).await.unwrap());
        assert!(parts.next().await.unwrap().is_some());
        let error = parts.next().await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }
}
