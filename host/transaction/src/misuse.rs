//! Inputs in any order, as no correct caller and no honest peer makes them: nothing panics, and nothing is left.

use proptest::collection::vec;
use proptest::prelude::*;

use crate::invariants;

proptest! {
    #![proptest_config(ProptestConfig { cases: 40_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn inputs_in_any_order_leave_nothing(bytes in vec(any::<u8>(), 0..400)) {
        invariants::inputs(&bytes);
    }
}
