//! Comparison with Kamailio: random tables, files and queries, for both servers.
//!
//! `PORTCULLIS_ORACLE_SEED` repeats a run, `PORTCULLIS_ORACLE_DECISIONS` makes it longer: the number of answers of each kind.

#![forbid(unsafe_code)]

mod addresses;
mod files;
mod names;
mod trusted;

use std::time::{SystemTime, UNIX_EPOCH};

/// The seed of this run, which is printed so that a failing run can be repeated.
fn seed() -> u64 {
    let seed = number("PORTCULLIS_ORACLE_SEED").unwrap_or_else(|| {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        now.expect("it is after 1970").as_nanos() as u64
    });
    println!("PORTCULLIS_ORACLE_SEED={seed}");
    seed
}

/// Returns the number of results to compare.
fn decisions(usually: usize) -> usize {
    number("PORTCULLIS_ORACLE_DECISIONS").map_or(usually, |decisions| decisions as usize)
}

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    let number = text.parse();
    Some(number.unwrap_or_else(|_| panic!("{variable}={text}: a whole number is needed")))
}
