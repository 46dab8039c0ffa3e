//! Two states of a table of 100,000 rows that cannot be confused with a mixture of both: every row has another group and another tag in the
//! other state, and each state has another number of hosts and networks.

use std::net::IpAddr;

use crate::mariadb::MariaDb;
use crate::oracle::case::{Answer, Found, Question};

/// One of the two states.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// The first.
    A,
    /// The second.
    B,
}

/// How many rows of each kind a state has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counts {
    /// Rows about single addresses, those of the callers among them.
    pub hosts: u64,
    /// Rows about networks.
    pub subnets: u64,
    /// Rows about names.
    pub domains: u64,
}

/// The subject of a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Item {
    /// The caller with this number, as the source of the request.
    Source(u32),
    /// A single address.
    Host(u32),
    /// An address in a network.
    Subnet(u32),
    /// A name.
    Name(u32),
}

/// Rows that are in both states, so that questions about them have an answer in each.
pub const HOSTS: u32 = 59_000;
/// The same, for networks.
pub const SUBNETS: u32 = 39_000;
/// The same, for names.
pub const NAMES: u32 = 10;
/// Groups that rows are in.
const GROUPS: u32 = 5;

/// Creates the tables of both states next to `address`, with rows for these callers, and gives `address` the first state.
pub fn create(database: &MariaDb, callers: &[IpAddr]) {
    for state in [State::A, State::B] {
        let table = state.table();
        let Counts {
            hosts,
            subnets,
            domains,
        } = state.counts(callers.len());
        let hosts = hosts - callers.len() as u64;
        let (group, tag) = (state.group_sql("seq"), state.tag_sql("seq"));
        let insert = format!("INSERT INTO {table} (grp, ip_addr, mask, port, tag)");
        let mut sql = format!(
            "CREATE TABLE {table} LIKE address; \
             {insert} SELECT {group}, CONCAT('10.', seq DIV 65536, '.', seq DIV 256 MOD 256, '.', seq MOD 256), 32, 0, {tag} \
             FROM seq_0_to_{}; \
             {insert} SELECT {group}, CONCAT('11.', seq DIV 256, '.', seq MOD 256, '.0'), 24, 0, {tag} FROM seq_0_to_{}; \
             {insert} SELECT {group}, CONCAT('gw-', seq, '.example.com'), 32, 0, {tag} FROM seq_0_to_{};",
            hosts - 1,
            subnets - 1,
            domains - 1
        );
        for (n, ip) in (0..).zip(callers) {
            sql.push_str(&format!(
                "{insert} VALUES ({}, '{ip}', 32, 0, '{}');",
                state.group(n),
                state.tag(n)
            ));
        }
        database.sql("kamailio", &sql);
    }
    database.sql(
        "kamailio",
        "DROP TABLE address; RENAME TABLE state_a TO address;",
    );
}

impl State {
    /// The other state.
    #[must_use]
    pub fn other(self) -> Self {
        match self {
            Self::A => Self::B,
            Self::B => Self::A,
        }
    }

    /// Switches the table to this state atomically. The table must be in the other state.
    pub fn publish(self, database: &MariaDb) {
        let (next, last) = (self.table(), self.other().table());
        let rename = format!("RENAME TABLE address TO {last}, {next} TO address;");
        database.sql("kamailio", &rename);
    }

    /// Number of rows with this many callers.
    pub fn counts(self, callers: usize) -> Counts {
        let (hosts, subnets) = match self {
            Self::A => (60_000, 39_990 - callers as u64),
            Self::B => (59_500, 40_490 - callers as u64),
        };
        Counts {
            hosts: hosts + callers as u64,
            subnets,
            domains: NAMES.into(),
        }
    }

    /// The answer of the table in this state to [`Item::question`].
    pub fn answer(self, item: Item) -> Answer {
        let n = item.number();
        Some(Found {
            value: self.group(n),
            tag: Some(self.tag(n)),
        })
    }

    fn table(self) -> &'static str {
        match self {
            Self::A => "state_a",
            Self::B => "state_b",
        }
    }

    fn shift(self) -> u32 {
        match self {
            Self::A => 0,
            Self::B => 2,
        }
    }

    fn group(self, n: u32) -> u32 {
        1 + (n + self.shift()) % GROUPS
    }

    fn group_sql(self, n: &str) -> String {
        format!("1 + ({n} + {}) MOD {GROUPS}", self.shift())
    }

    fn tag(self, n: u32) -> String {
        format!("{self:?}{n}")
    }

    fn tag_sql(self, n: &str) -> String {
        format!("CONCAT('{self:?}', {n})")
    }
}

impl Item {
    /// The question for its group.
    pub fn question(self) -> Question {
        let text = match self {
            Self::Source(_) => return Question::SourceGroup,
            Self::Host(n) => format!("10.{}.{}.{}", n >> 16, n >> 8 & 255, n & 255),
            Self::Subnet(n) => format!("11.{}.{}.{}", n >> 8, n & 255, n % 256),
            Self::Name(n) => format!("gw-{n}.example.com"),
        };
        Question::AddressGroup { text, port: 5060 }
    }

    fn number(self) -> u32 {
        match self {
            Self::Source(n) | Self::Host(n) | Self::Subnet(n) | Self::Name(n) => n,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_states_have_nothing_in_common() {
        for n in (0..HOSTS).chain([u32::from(u16::MAX), 1 << 20]) {
            let [a, b] = [State::A, State::B].map(|state| state.answer(Item::Host(n)));
            let (a, b) = (a.expect("it is there"), b.expect("it is there"));
            assert!(a.value != b.value && a.tag != b.tag, "{n}");
        }
        let [a, b] = [State::A, State::B].map(|state| state.counts(4));
        assert!(a.hosts != b.hosts && a.subnets != b.subnets);
        for counts in [a, b] {
            assert_eq!(counts.hosts + counts.subnets + counts.domains, 100_000);
            assert!(counts.hosts >= HOSTS.into() && counts.subnets >= SUBNETS.into());
        }
    }
}
