//! Values that were replaced, and that readers may still use.

use std::sync::atomic::Ordering;

use crate::primitives::{Arc, Mutex, fence};

/// Keeps replaced values until no reader has them any more, so that a reader never drops the last reference: freeing takes time.
///
/// A value must be out of reach of new readers before it is added here. Then its number of references only falls, and a value with a
/// single reference is one that no reader can get again.
#[derive(Debug)]
pub struct Retired<T>(Mutex<Vec<Arc<T>>>);

impl<T> Default for Retired<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T> Retired<T> {
    /// Keeps a value that new readers cannot get any more.
    pub fn add(&self, value: Arc<T>) {
        self.0.lock().push(value);
    }

    /// Takes out the values that no reader has any more. The caller drops them.
    #[must_use]
    pub fn take_unused(&self) -> Vec<Arc<T>> {
        take_unused(&mut self.0.lock(), |_| true)
    }
}

/// Takes out the values to which there is no other reference, and of which `is_last` says that there is none to their content.
pub(crate) fn take_unused<T>(
    values: &mut Vec<Arc<T>>,
    is_last: impl Fn(&T) -> bool,
) -> Vec<Arc<T>> {
    let is_unused = |value: &mut Arc<T>| {
        if Arc::strong_count(value) > 1 {
            return false;
        }
        // Pairs with the release of the other references: what their owners did before, such as counting a reference to the content, is
        // seen by `is_last`.
        fence(Ordering::Acquire);
        is_last(value)
    };
    values.extract_if(.., is_unused).collect()
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_taken_out_when_the_last_reader_is_done() {
        let retired = Retired::default();
        let value = Arc::new(7);
        retired.add(Arc::clone(&value));
        assert!(retired.take_unused().is_empty());
        drop(value);
        assert_eq!(retired.take_unused(), [Arc::new(7)]);
        assert!(retired.take_unused().is_empty());
    }
}

#[cfg(all(test, loom))]
mod models {
    use loom::sync::RwLock;
    use loom::thread;

    use super::*;

    /// Says on which thread it is dropped.
    struct Value {
        control: thread::ThreadId,
    }

    impl Drop for Value {
        fn drop(&mut self) {
            assert_eq!(
                thread::current().id(),
                self.control,
                "a reader frees a value"
            );
        }
    }

    impl Value {
        fn new() -> Arc<Self> {
            Arc::new(Self {
                control: thread::current().id(),
            })
        }
    }

    #[test]
    fn a_reader_never_frees_a_value() {
        loom::model(|| {
            // In place of an `ArcSwap`: readers take a reference, and a swap is one step.
            let current = std::sync::Arc::new(RwLock::new(Value::new()));
            let reader = {
                let current = std::sync::Arc::clone(&current);
                thread::spawn(move || {
                    let value = Arc::clone(&current.read().expect("no reader panics"));
                    thread::yield_now();
                    drop(value);
                    drop(current);
                })
            };
            let retired = Retired::default();
            let next = Value::new();
            let old = std::mem::replace(&mut *current.write().expect("no writer panics"), next);
            retired.add(old);
            drop(retired.take_unused());
            reader.join().expect("the reader ends");
            drop(retired.take_unused());
            assert!(retired.0.lock().is_empty(), "nothing is kept for ever");
        });
    }
}
