//! What a part of the host implements in order to take part in the exchange.

/// Something that hosts count or know together.
///
/// All functions are called on the control side, one after the other for one part, several times a second. They must not wait.
pub trait Shared: Send + Sync + 'static {
    /// The name of the part in keys and logs: "counters", "bans", "loads".
    fn name(&self) -> &'static str;

    /// What has changed on this host since the last call, at most `most` items. The exchange keeps what it has taken until it is stored: an item that
    /// was lost on the way, or by Redis, is sent again without another call. What does not fit into `most` is for the next call.
    fn take_changes(&self, most: usize) -> Vec<Change>;

    /// How far the clock of Redis is ahead of that of this host, in milliseconds: before each [`Shared::merge`]. A part that compares times of several hosts
    /// adds it to those of this one.
    fn set_clock(&self, _ahead: i64) {}

    /// What the other hosts of the fleet have in total: the sum over them, for each key whose sum has changed since the last call. `ends` is the latest end
    /// among them. A sum of 0 means that no other host has the item any more.
    fn merge(&self, others: &[Change]);

    /// The exchange has begun or ended: the number of hosts that take part, with this one, or `None` if the other hosts are not heard. After `None`, the
    /// sums of the last [`Shared::merge`] stay as they were; each item still ends at its time.
    fn set_peers(&self, peers: Option<usize>);
}

/// One item on one host, or the sum of several hosts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Change {
    /// What is counted: a hash of its name, or 16 bytes that say it themselves, such as an IPv6 address.
    pub key: [u8; 16],
    /// The total. A later one of the same host replaces an earlier one, so a repetition counts nothing twice.
    pub value: u64,
    /// Unix time by the clock of this host, in milliseconds, after which the item does not count. The exchange translates it to the clock of Redis and
    /// back, so that hosts whose clocks differ agree.
    pub ends: u64,
}
