//! The primitives below this crate's types. In models they are those of loom.

#[cfg(not(all(test, loom)))]
pub(crate) use std::sync::Arc;
#[cfg(not(all(test, loom)))]
pub(crate) use std::sync::atomic::{AtomicU64, fence};

#[cfg(not(loom))]
pub(crate) use parking_lot::Mutex;
#[cfg(not(loom))]
pub(crate) use tokio::sync::{Mutex as AsyncMutex, MutexGuard as AsyncMutexGuard};

#[cfg(all(test, loom))]
pub(crate) use self::modelled::{AsyncMutex, AsyncMutexGuard, Mutex};
#[cfg(all(test, loom))]
pub(crate) use loom::sync::Arc;
#[cfg(all(test, loom))]
pub(crate) use loom::sync::atomic::{AtomicU64, fence};

/// The locks of loom with the methods of those that this crate uses otherwise.
#[cfg(all(test, loom))]
mod modelled {
    use loom::sync::MutexGuard;

    #[derive(Debug, Default)]
    pub(crate) struct Mutex<T>(loom::sync::Mutex<T>);

    impl<T> Mutex<T> {
        pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
            self.0
                .lock()
                .expect("no model panics while it holds a lock")
        }
    }

    pub(crate) type AsyncMutexGuard<'m, T> = MutexGuard<'m, T>;

    /// A lock for futures that have a thread each, as in models: it blocks the thread.
    pub(crate) struct AsyncMutex<T>(loom::sync::Mutex<T>);

    impl<T> AsyncMutex<T> {
        pub(crate) fn new(value: T) -> Self {
            Self(loom::sync::Mutex::new(value))
        }

        pub(crate) async fn lock(&self) -> AsyncMutexGuard<'_, T> {
            self.0
                .lock()
                .expect("no model panics while it holds a lock")
        }
    }
}
