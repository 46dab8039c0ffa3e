//! The primitives below this crate's types. In models they are those of loom.

#[cfg(not(all(test, loom)))]
pub(crate) use std::sync::Arc;
#[cfg(not(all(test, loom)))]
pub(crate) use std::sync::atomic::{AtomicBool, AtomicU64, fence};
#[cfg(not(all(test, loom)))]
pub(crate) use std::thread::{Thread, park};

#[cfg(not(loom))]
pub(crate) use parking_lot::{Mutex, MutexGuard};
#[cfg(not(loom))]
pub(crate) use tokio::sync::{Mutex as AsyncMutex, MutexGuard as AsyncMutexGuard};

#[cfg(all(test, loom))]
pub(crate) use self::modelled::{AsyncMutex, AsyncMutexGuard, Current, Mutex, one_total_order};
#[cfg(not(all(test, loom)))]
pub(crate) use self::swapped::{Cached, Current};
#[cfg(all(test, loom))]
pub(crate) use loom::sync::atomic::{AtomicBool, AtomicU64, fence};
#[cfg(all(test, loom))]
pub(crate) use loom::sync::{Arc, MutexGuard};
#[cfg(all(test, loom))]
pub(crate) use loom::thread::{Thread, park};

/// Between two accesses with `SeqCst`, whose order it does not change: all of these have one total order anyway.
#[cfg(not(all(test, loom)))]
#[inline]
pub(crate) fn one_total_order() {}

/// A value that is replaced as a whole, without a lock.
#[cfg(not(all(test, loom)))]
mod swapped {
    use std::sync::Arc;

    use arc_swap::{ArcSwapOption, Cache, Guard};

    pub(crate) struct Current<V>(Arc<ArcSwapOption<V>>);

    pub(crate) type Cached<V> = Cache<Arc<ArcSwapOption<V>>, Option<Arc<V>>>;

    impl<V> Current<V> {
        pub(crate) fn empty() -> Self {
            Self(Arc::new(ArcSwapOption::empty()))
        }

        pub(crate) fn value(&self) -> Option<Arc<V>> {
            self.0.load_full()
        }

        pub(crate) fn store(&self, value: Arc<V>) {
            self.0.store(Some(value));
        }

        #[inline]
        pub(crate) fn guard(&self) -> Guard<Option<Arc<V>>> {
            self.0.load()
        }

        pub(crate) fn cache(&self) -> Cached<V> {
            Cache::new(Arc::clone(&self.0))
        }
    }
}

/// The locks of loom with the methods of those that this crate uses otherwise.
#[cfg(all(test, loom))]
mod modelled {
    use std::sync::atomic::Ordering;

    use loom::sync::{Arc, MutexGuard, RwLock};

    /// loom takes accesses with `SeqCst` for acquires and releases, and knows the total order of fences only.
    pub(crate) fn one_total_order() {
        loom::sync::atomic::fence(Ordering::SeqCst);
    }

    #[derive(Debug, Default)]
    pub(crate) struct Mutex<T>(loom::sync::Mutex<T>);

    impl<T> Mutex<T> {
        pub(crate) fn new(value: T) -> Self {
            Self(loom::sync::Mutex::new(value))
        }

        pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
            self.0
                .lock()
                .expect("no model panics while it holds a lock")
        }
    }

    /// In place of an `ArcSwapOption`: readers take a reference, and a replacement is one step.
    pub(crate) struct Current<V>(RwLock<Option<Arc<V>>>);

    impl<V> Current<V> {
        pub(crate) fn empty() -> Self {
            Self(RwLock::new(None))
        }

        pub(crate) fn value(&self) -> Option<Arc<V>> {
            self.0.read().expect("no reader panics").clone()
        }

        pub(crate) fn store(&self, value: Arc<V>) {
            let mut current = self.0.write().expect("no writer panics");
            let old = current.replace(value);
            drop(current);
            drop(old);
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
