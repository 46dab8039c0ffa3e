//! The parts that tenants hold of the table of transactions of one worker.

use portcullis_config::TransactionsConfig;
use portcullis_metrics::{Counter, TenantCounters};
use portcullis_transaction::Usage;

/// Keeps room in the table for tenants that need little of it.
///
/// A full table has no room for anybody, so a tenant that floods, or whose callees are silent, could stop the calls of all others. Beyond
/// a certain filling, a tenant is therefore held to an equal part: one for each tenant that has transactions, and one for the next tenant. What it
/// holds already it keeps.
#[derive(Debug)]
pub(super) struct Shares {
    /// Most transactions, and most of their bytes.
    most: Held,
    /// The filling, as a fraction.
    unshared: f64,
    /// Tenants that have transactions.
    holders: u32,
}

/// Transactions, and the bytes that they take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Held {
    pub(super) transactions: usize,
    pub(super) bytes: usize,
}

impl Shares {
    pub(super) fn new(limits: &TransactionsConfig, most: Held) -> Self {
        let all = f64::from(portcullis_policy::Share::ALL.hundredths());
        Self {
            most,
            unshared: f64::from(limits.unshared.hundredths()) / all,
            holders: 0,
        }
    }

    /// Whether a tenant may have a further transaction, beside others.
    pub(super) fn admits(&self, tenant: &TenantCounters, usage: Usage) -> bool {
        let all = Held {
            transactions: usage.active,
            bytes: usage.active_bytes,
        };
        if self.part(all) < self.unshared {
            return true;
        }
        let held = Held::of(tenant);
        let holders = self.holders + u32::from(held.transactions == 0);
        self.part(held) < 1.0 / f64::from(holders + 1)
    }

    /// Notes a new transaction, which takes so many bytes.
    pub(super) fn take(&mut self, tenant: &TenantCounters, bytes: usize) {
        let held = Held::of(tenant);
        self.holders += u32::from(held.transactions == 0);
        set(&tenant.transactions, held.transactions + 1);
        set(&tenant.transaction_bytes, held.bytes + bytes);
    }

    /// Notes the end of a transaction that took so many bytes.
    pub(super) fn give_back(&mut self, tenant: &TenantCounters, bytes: usize) {
        let held = Held::of(tenant);
        set(&tenant.transactions, held.transactions.saturating_sub(1));
        set(&tenant.transaction_bytes, held.bytes.saturating_sub(bytes));
        self.holders -= u32::from(held.transactions == 1);
    }

    /// The fraction of the table: of its places or of its bytes, whichever is larger.
    fn part(&self, held: Held) -> f64 {
        let of = |part: usize, all: usize| part as f64 / all.max(1) as f64;
        let places = of(held.transactions, self.most.transactions);
        places.max(of(held.bytes, self.most.bytes))
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
            }
        }

        /// As many transactions as a tenant gets, of this size. Returns how many that are.
        fn fill(&mut self, tenant: &TenantCounters, bytes: usize) -> usize {
            let admitted = (0..1_000).take_while(|_| self.begin(tenant, bytes));
            admitted.count()
        }

        fn begin(&mut self, tenant: &TenantCounters, bytes: usize) -> bool {
            let usage = Usage {
                active: self.all.transactions,
                absorbers: 0,
                bytes: self.all.bytes,
                active_bytes: self.all.bytes,
            };
            let is_full = self.all.transactions >= 120 || self.all.bytes >= 120_000;
            let is_admitted = !is_full && self.shares.admits(tenant, usage);
            if is_admitted {
                self.shares.take(tenant, bytes);
                self.all.transactions += 1;
                self.all.bytes += bytes;
            }
            is_admitted
        }

        fn end(&mut self, tenant: &TenantCounters, bytes: usize) {
            self.shares.give_back(tenant, bytes);
            self.all.transactions -= 1;
            self.all.bytes -= bytes;
        }
    }

    #[test]
    fn one_tenant_gets_half_of_the_table_and_the_next_ones_their_equal_part() {
        let mut table = Table::new();
        let [flood, second, third, fourth]: [TenantCounters; 4] = Default::default();
        assert_eq!(table.fill(&flood, 10), 60);
        assert_eq!(table.fill(&second, 10), 40, "a third");
        assert_eq!(table.fill(&third, 10), 20, "what is left");
        assert_eq!(table.fill(&fourth, 10), 0, "the table is full");

        // What ends goes to those with less.
        for _ in 0..30 {
            table.end(&flood, 10);
        }
        assert!(!table.begin(&second, 10) && !table.begin(&flood, 10));
        assert_eq!(table.fill(&third, 10), 10, "up to a quarter");
        assert_eq!(table.fill(&fourth, 10), 20);
        assert_eq!(flood.transactions.value(), 30);
        assert_eq!(table.shares.holders, 4);
    }

    #[test]
    fn large_requests_count_by_their_bytes() {
        let mut table = Table::new();
        let [flood, other]: [TenantCounters; 2] = Default::default();
        assert_eq!(table.fill(&flood, 6_000), 10);
        assert_eq!(table.fill(&other, 100), 40);
        assert_eq!(flood.transaction_bytes.value(), 60_000);
    }

    #[test]
    fn a_tenant_without_transactions_takes_no_part() {
        let mut table = Table::new();
        let tenants: [TenantCounters; 30] = Default::default();
        for tenant in &tenants {
            assert!(table.begin(tenant, 10));
            table.end(tenant, 10);
        }
        assert_eq!(table.shares.holders, 0);
        assert_eq!(table.fill(&tenants[0], 10), 60);
    }
}
