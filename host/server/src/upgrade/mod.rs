//! The upgrade of a running host (SIGUSR2): its process starts the binary file again, and hands its sockets to the new process.
//!
//! | the old process ([`Upgrade`]) | the new process ([`Predecessor`]) |
//! |---|---|
//! | starts the file, with one end of a channel as standard input | `Hello` |
//! | `Terms`: what both must have in common | loads everything, then `Ask` |
//! | `Sip`, `Control` and `Link`, each with a descriptor | |
//! | `Elder`, `Link` and `Names` of each process before it; `Names` of its transactions; `Flows` that it pings; `Lent` | binds what is new; `Taken`; `Ready` |
//! | its workers stop receiving; `Names` since then, `Destinations`, `Calls`; `Go` | its workers receive; `Serving` |
//! | tells the service manager; `Done` | tells the service manager that it is ready |
//! | serves its transactions and connections until they end | passes on what belongs to them |
//!
//! The end of the channel to an elder is passed on, too: a process that has been replaced goes on as long as any process after it serves.
//!
//! Until `Serving`, the old process can go on as if nothing had happened: it does so if the new one ends, refuses or takes too long.

mod elders;
mod note;
mod predecessor;
mod successor;

pub(crate) use predecessor::{Inheritance, Predecessor};
pub(crate) use successor::{End, Upgrade, Upgraded};

/// The environment variable of a process whose standard input is the channel to its predecessor.
const VARIABLE: &str = "PORTCULLIS_UPGRADE";

/// The version of the notes.
const PROTOCOL: u32 = 4;
