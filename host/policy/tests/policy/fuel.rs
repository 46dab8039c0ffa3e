//! Fuel metering.

use std::sync::Arc;

use portcullis_policy::{Evaluator, Policy};

use crate::counters::adding;
use crate::support::{component, embedded, invite};

#[test]
fn equal_calls_use_equal_fuel() {
    let limits = portcullis_policy::Limits::default();
    let runtime = portcullis_policy::Runtime::metered(limits).unwrap();
    let module = embedded(&adding());
    let mut evaluator = Evaluator::new();
    let (scope, addresses) = (Arc::default(), Arc::default());
    let fuel = [&module, &component(&module)].map(|bytes| {
        let policy: Policy = runtime.load("x", bytes).unwrap();
        let mut used = (0..3).map(|_| {
            let (_, answer) = evaluator.decide(&policy, &scope, &addresses, invite());
            answer.unwrap();
            evaluator.fuel().unwrap()
        });
        let first = used.next().unwrap();
        assert!(used.all(|used| used == first));
        first
    });
    assert!(fuel[0] > 5 && fuel[0] < 100, "{fuel:?}");
}
