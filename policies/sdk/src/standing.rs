//! What the guard thinks of a source, and what a policy tells the guard.

/// What the guard does with the source of the request: see [`source_standing`](crate::guard::source_standing).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Standing {
    /// The guard does not observe it: the guard is off, or the source is in a network of `exempt`, in one of the tables, a next hop
    /// or a load balancer in `proxy-protocol`.
    Exempt,
    /// The guard observes it, and neither holds nor bans it.
    #[default]
    Observed,
    /// A source of datagrams with enough evidence: few of its requests are served, and this is one of them.
    Held,
    /// A source that has proved its address, with enough evidence. Its next messages are dropped before they are parsed.
    Banned,
}

/// What the sender of a request has done, for [`report`](crate::guard::report).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offence {
    /// It tried a user, a number or a password that is wrong: `refusals` and `users` in `[guard]`.
    Guess,
    /// It sent what only a scanner sends: `malformed` in `[guard]`.
    Scan,
}
