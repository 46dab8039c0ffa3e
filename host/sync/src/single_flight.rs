//! One load at a time; its result is shared by all waiting callers.

use std::sync::atomic::Ordering;

use crate::primitives::{AsyncMutex, AsyncMutexGuard, AtomicU64};

/// Runs one load at a time and passes its state from one load to the next. All callers that wait share the result of the next load.
pub struct SingleFlight<S, R> {
    /// Number of requests. A load serves all requests made before it began.
    asked: AtomicU64,
    flight: AsyncMutex<Flight<S, R>>,
}

/// Held while loading.
pub struct Flight<S, R> {
    /// What one load leaves for the next.
    pub state: S,
    /// The last request that the result serves.
    answers: u64,
    result: Option<R>,
}

impl<S, R: Clone> SingleFlight<S, R> {
    /// No load yet; the first one begins with this state.
    pub fn new(state: S) -> Self {
        Self {
            asked: AtomicU64::new(0),
            flight: AsyncMutex::new(Flight {
                state,
                answers: 0,
                result: None,
            }),
        }
    }

    /// Requests a load of what is there now; returns the number of the request.
    pub fn ask(&self) -> u64 {
        // What the caller wrote before is seen by a load that counts this request, whoever runs it: hence the release.
        self.asked.fetch_add(1, Ordering::Release) + 1
    }

    /// The result of a load that began after this request; runs `load` if there is none yet.
    pub async fn answer(&self, request: u64, load: impl AsyncFnOnce(&mut S) -> R) -> R {
        let mut flight = self.flight.lock().await;
        if flight.answers >= request
            && let Some(result) = &flight.result
        {
            return result.clone();
        }
        let answers = self.asked.load(Ordering::Acquire);
        let result = load(&mut flight.state).await;
        flight.answers = answers;
        flight.result = Some(result.clone());
        result
    }

    /// The next turn, for a load without a request. Drops the result of the last load, which would keep what was loaded in memory. Callers
    /// that wait for it already are ahead of this one, because the lock is fair; any other one runs a load of its own.
    pub async fn take(&self) -> AsyncMutexGuard<'_, Flight<S, R>> {
        let mut flight = self.flight.lock().await;
        flight.result = None;
        flight
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_load_answers_the_requests_before_it_and_no_later_ones() {
        let flights = SingleFlight::new(0);
        let load = async |loads: &mut u32| {
            *loads += 1;
            *loads
        };
        let (first, second) = (flights.ask(), flights.ask());
        assert_eq!(flights.answer(second, load).await, 1);
        assert_eq!(flights.answer(first, load).await, 1);
        let third = flights.ask();
        assert_eq!(flights.answer(third, load).await, 2);
        assert_eq!(flights.take().await.state, 2);
        assert_eq!(
            flights.answer(third, load).await,
            3,
            "the result is dropped"
        );
    }
}

#[cfg(all(test, loom))]
mod models {
    use loom::future::block_on;
    use loom::sync::Arc;
    use loom::sync::atomic::AtomicUsize;
    use loom::thread;

    use super::*;

    /// Two numbers that are loaded, each of which a thread of its own changes.
    struct Source {
        numbers: [AtomicUsize; 2],
        flights: SingleFlight<usize, [usize; 2]>,
    }

    impl Source {
        fn new() -> Arc<Self> {
            Arc::new(Self {
                numbers: Default::default(),
                flights: SingleFlight::new(0),
            })
        }

        fn answer(&self, request: u64) -> [usize; 2] {
            let load = async |loads: &mut usize| {
                *loads += 1;
                [0, 1].map(|nth| self.numbers[nth].load(Ordering::Relaxed))
            };
            block_on(self.flights.answer(request, load))
        }
    }

    #[test]
    fn an_answer_shows_what_was_written_before_the_request() {
        loom::model(|| {
            let source = Source::new();
            let change = |source: &Source, nth: usize| {
                source.numbers[nth].store(7, Ordering::Relaxed);
                let answer = source.answer(source.flights.ask());
                assert_eq!(answer[nth], 7, "the load was too early");
            };
            let other = {
                let source = Arc::clone(&source);
                thread::spawn(move || change(&source, 1))
            };
            change(&source, 0);
            other.join().expect("the other thread ends");
            assert!(block_on(source.flights.take()).state <= 2);
        });
    }

    #[test]
    fn callers_that_wait_share_one_load_unless_its_result_is_dropped() {
        for is_dropped in [false, true] {
            loom::model(move || {
                let source = Source::new();
                let requests = [source.flights.ask(), source.flights.ask()];
                let threads = requests.map(|request| {
                    let source = Arc::clone(&source);
                    thread::spawn(move || source.answer(request))
                });
                if is_dropped {
                    drop(block_on(source.flights.take()));
                }
                for thread in threads {
                    thread.join().expect("the caller ends");
                }
                let loads = block_on(source.flights.take()).state;
                assert!(loads == 1 || is_dropped && loads == 2, "{loads} loads");
            });
        }
    }
}
