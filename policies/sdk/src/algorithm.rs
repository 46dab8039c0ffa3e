//! How the host chooses among the destinations of a set.

/// How destinations are chosen (Kamailio: the second argument of `ds_select_dst`, whose number is in parentheses).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Algorithm {
    /// By the hash of Call-ID (0).
    CallId,
    /// By the hash of the From URI (1).
    FromUri,
    /// By the hash of the To URI (2).
    ToUri,
    /// By the hash of the request URI (3).
    RequestUri,
    /// One after the other (4).
    RoundRobin,
    /// By the hash of the user in Proxy-Authorization or Authorization; without one, one after the other (5).
    AuthUser,
    /// At random (6).
    Random,
    /// By the hash of this text (7).
    Key(String),
    /// In the order of priority (8).
    Priority,
    /// In proportion to the attribute `weight` (9).
    Weight,
    /// The one with the fewest calls, up to the attribute `maxload` (10).
    CallLoad,
    /// In proportion to the attribute `rweight` (11).
    RelativeWeight,
    /// All at once (12).
    Parallel,
    /// By priority, lowered by latency (13).
    Latency,
    /// As SRV records: the lowest priority first, in proportion to `weight` among equal ones (15).
    Srv,
}
