//! Connections whose writes are no changes for [`TableWatch`](crate::TableWatch).

use std::ops::{Deref, DerefMut};

use tokio::sync::OwnedMutexGuard;

use crate::link::Link;
use crate::observer::{Idle, is_at};

/// A connection whose writes [`TableWatch`](crate::TableWatch) does not report. [Release](Self::release) it when the work is done; if it is dropped
/// instead, the watches report a change.
pub struct Unseen {
    link: Link,
    /// Distinguishes the connection from those before; 0 for a server.
    number: u64,
    /// Where it returns to; `None` for a server.
    turn: Option<OwnedMutexGuard<Option<Idle>>>,
}

impl Unseen {
    pub(crate) fn new(
        link: Link,
        number: u64,
        turn: Option<OwnedMutexGuard<Option<Idle>>>,
    ) -> Self {
        Self { link, number, turn }
    }

    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    /// Returns the connection. An uncommitted transaction is rolled back.
    pub async fn release(self) {
        let Self { link, number, turn } = self;
        let path = link.shared.file();
        let is_current = path.is_some_and(|path| is_at(link.origin.file, path));
        match turn {
            Some(mut turn) if is_current && !link.is_open() => {
                let Link {
                    wire,
                    origin,
                    permit,
                    ..
                } = link;
                *turn = Some(Idle {
                    wire,
                    origin,
                    permit,
                    number,
                });
            }
            Some(_) | None => link.release().await,
        }
    }
}

impl Deref for Unseen {
    type Target = Link;

    fn deref(&self) -> &Link {
        &self.link
    }
}

impl DerefMut for Unseen {
    fn deref_mut(&mut self) -> &mut Link {
        &mut self.link
    }
}
