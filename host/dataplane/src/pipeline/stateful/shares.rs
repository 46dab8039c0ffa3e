//! The parts that tenants hold of the table of transactions of one worker.

use portcullis_config::TransactionsConfig;
use portcullis_metrics::{Counter, TenantCounters};
use portcullis_transaction::Usage;

use crate::pipeline::responder::NoRoom;

/// Keeps room in the table for tenants that need little of it.
///
/// A full table has no room for anybody, so a tenant that floods, or whose callees are silent, could stop the calls of all others. Beyond
/// a certain filling, a tenant therefore gets no more than is free: one that floods comes to hold half of the table, and each of `n` such tenants
/// comes to hold one part of `n + 1`. Tenants that hold little take nothing from the parts of others. What a tenant holds already it keeps.
#[derive(Debug)]
pub(super) struct Shares {
    /// Most transactions, and most of their bytes.
    most: Held,
    /// The filling, as a fraction.
    unshared: f64,
    /// What all tenants hold together, in the measure of [`Held::bytes`].
    held_bytes: usize,
}

/// Transactions, and the bytes that they take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Held {
    pub(super) transactions: usize,
    /// For a tenant, an estimate from the sizes of requests: only its relation to the estimates of other tenants counts.
    pub(super) bytes: usize,
}

impl Shares {
    pub(super) fn new(limits: &TransactionsConfig, most: Held) -> Self {
        let all = f64::from(portcullis_policy::Share::ALL.hundredths());
        Self {
            most,
            unshared: f64::from(limits.unshared.hundredths()) / all,
            held_bytes: 0,
        }
    }

    /// Whether a tenant may have a further transaction, beside others.
    pub(super) fn admits(&self, tenant: &TenantCounters, usage: Usage) -> Result<(), NoRoom> {
        let filled = fraction(usage.active_bytes, self.most.bytes);
        let all = filled.max(fraction(usage.active, self.most.transactions));
        if all < self.unshared {
            return Ok(());
        }
        let free = 1.0 - all;
        if free <= 0.0 {
            return Err(NoRoom::Table);
        }
        let held = Held::of(tenant);
        let bytes = fraction(held.bytes, self.held_bytes) * filled;
        let part = bytes.max(fraction(held.transactions, self.most.transactions));
        if part >= free {
            return Err(NoRoom::Part);
        }
        Ok(())
    }

    /// Notes a new transaction, which takes so many bytes.
    pub(super) fn take(&mut self, tenant: &TenantCounters, bytes: usize) {
        set(&tenant.transactions, Held::of(tenant).transactions + 1);
        self.change(tenant, 0, bytes);
    }

    /// Notes that a transaction takes `now` bytes in place of `before`.
    pub(super) fn change(&mut self, tenant: &TenantCounters, before: usize, now: usize) {
        let bytes = Held::of(tenant).bytes;
        set(
            &tenant.transaction_bytes,
            (bytes + now).saturating_sub(before),
        );
        self.held_bytes = (self.held_bytes + now).saturating_sub(before);
    }

    /// Notes the end of a transaction that took so many bytes.
    pub(super) fn give_back(&mut self, tenant: &TenantCounters, bytes: usize) {
        let transactions = Held::of(tenant).transactions;
        set(&tenant.transactions, transactions.saturating_sub(1));
        self.change(tenant, bytes, 0);
    }
}

impl Held {
    fn of(tenant: &TenantCounters) -> Self {
        let value = |counter: &Counter| usize::try_from(counter.value()).unwrap_or(usize::MAX);
        Self {
            transactions: value(&tenant.transactions),
            bytes: value(&tenant.transaction_bytes),
        }
    }
}

fn fraction(part: usize, all: usize) -> f64 {
    part as f64 / all.max(1) as f64
}

fn set(level: &Counter, value: usize) {
    level.set(value as u64);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A table of 120 places and 120,000 bytes, shared from a half on.
    struct Table {
        shares: Shares,
        all: Held,
        /// What the table stores for each byte that counts for a tenant.
        factor: usize,
    }

    impl Table {
        fn new() -> Self {
            let most = Held {
                transactions: 120,
                bytes: 120_000,
            };
            Self {
                shares: Shares::new(&TransactionsConfig::default(), most),
                all: Held {
                    transactions: 0,
                    bytes: 0,
                },
                factor: 1,
            }
        }

        /// As many transactions as a tenant gets, of this size. Returns how many that are.
        fn fill(&mut self, tenant: &TenantCounters, bytes: usize) -> usize {
            let admitted = (0..1_000).take_while(|_| self.begin(tenant, bytes).is_ok());
            admitted.count()
        }

        fn begin(&mut self, tenant: &TenantCounters, bytes: usize) -> Result<(), NoRoom> {
            let usage = Usage {
                active: self.all.transactions,
                absorbers: 0,
                bytes: self.all.bytes,
                active_bytes: self.all.bytes,
            };
            self.shares.admits(tenant, usage)?;
            self.shares.take(tenant, bytes);
            self.all.transactions += 1;
            self.all.bytes += bytes * self.factor;
            Ok(())
        }

        fn end(&mut self, tenant: &TenantCounters, bytes: usize) {
            self.shares.give_back(tenant, bytes);
            self.all.transactions -= 1;
            self.all.bytes -= bytes * self.factor;
        }
    }

    #[test]
    fn one_tenant_gets_half_of_the_table_and_the_next_ones_half_of_the_rest() {
        let mut table = Table::new();
        let [flood, second, third, fourth]: [TenantCounters; 4] = Default::default();
        assert_eq!(table.fill(&flood, 10), 60);
        assert_eq!(table.fill(&second, 10), 30);
        assert_eq!(table.fill(&third, 10), 15);
        assert_eq!(table.fill(&fourth, 10), 8);
        assert_eq!(table.begin(&flood, 10), Err(NoRoom::Part));

        // What ends goes to those with less.
        for _ in 0..30 {
            table.end(&flood, 10);
        }
        assert_eq!(flood.transactions.value(), 30);
        assert_eq!(table.fill(&second, 10), 4, "34 of 120, and 33 are free");
        assert_eq!(table.fill(&flood, 10), 2);
        assert_eq!(table.fill(&third, 10), 8);
    }

    #[test]
    fn tenants_that_flood_come_to_equal_parts() {
        let mut table = Table::new();
        let tenants: [TenantCounters; 3] = Default::default();
        for _ in 0..200 {
            for tenant in &tenants {
                table.fill(tenant, 10);
                table.end(tenant, 10);
            }
        }
        let held = tenants.iter().map(|tenant| tenant.transactions.value());
        assert!(
            held.clone().all(|held| held.abs_diff(30) <= 2),
            "{:?}",
            held.collect::<Vec<_>>()
        );
    }

    #[test]
    fn small_tenants_take_nothing_from_the_part_of_another() {
        let mut table = Table::new();
        let flood = TenantCounters::default();
        let small: [TenantCounters; 20] = Default::default();
        let other = TenantCounters::default();
        assert_eq!(table.fill(&flood, 10), 60);
        for tenant in &small {
            assert_eq!(table.begin(tenant, 10), Ok(()));
        }
        assert_eq!(table.fill(&other, 10), 20, "half of what is free");
    }

    #[test]
    fn a_full_table_has_no_room_for_anybody() {
        let mut table = Table::new();
        let tenants: Vec<_> = (0..120).map(|_| TenantCounters::default()).collect();
        for tenant in &tenants {
            assert_eq!(table.begin(tenant, 10), Ok(()));
        }
        assert_eq!(
            table.begin(&TenantCounters::default(), 10),
            Err(NoRoom::Table)
        );
    }

    #[test]
    fn large_requests_count_by_their_bytes() {
        let mut table = Table::new();
        let [flood, other]: [TenantCounters; 2] = Default::default();
        assert_eq!(table.fill(&flood, 6_000), 10);
        assert_eq!(table.fill(&other, 100), 55);
        assert_eq!(flood.transaction_bytes.value(), 60_000);
    }

    /// Header fields of the host, responses, and the sizes of buffers are not in what counts for a tenant.
    #[test]
    fn a_table_that_stores_more_than_counts_for_tenants_keeps_room_all_the_same() {
        let mut table = Table {
            factor: 3,
            ..Table::new()
        };
        let [flood, other]: [TenantCounters; 2] = Default::default();
        assert_eq!(table.fill(&flood, 2_000), 10);
        assert_eq!(table.all.bytes, 60_000);
        assert_eq!(table.fill(&other, 1_000), 10);
        assert_eq!(table.begin(&flood, 2_000), Err(NoRoom::Part));
    }

    #[test]
    fn what_a_transaction_takes_may_change() {
        let mut table = Table::new();
        let tenant = TenantCounters::default();
        assert_eq!(table.begin(&tenant, 10), Ok(()));
        table.shares.change(&tenant, 10, 500);
        assert_eq!(tenant.transaction_bytes.value(), 500);
        table.shares.give_back(&tenant, 500);
        assert_eq!((Held::of(&tenant).bytes, table.shares.held_bytes), (0, 0));
    }
}
