//! The hosts that use one database: each announces itself in its own row of the table `portcullis_host`.
//!
//! - [`Directory`] has the statements; every time is by the clock of the database, so that clocks of hosts that differ do no harm;
//! - [`HostRow`] is the row of a host, and [`HostState`] what the host says of itself in it;
//! - a [`Wish`] is what an operator asks of a host.
//!
//! Every host writes its own row only, except for wishes.

mod error;
mod row;
mod state;
mod statements;
mod view;

pub use error::DirectoryError;
pub use row::{ALIVE, Announcement, Answer, HostRow, NAME_CHARACTERS, Wish, WishKind};
pub use state::{
    HostState, Lag, Load, MOST_SEATS, PeersState, Refused, SeatState, Stage, TableState, Twin,
};
pub use statements::{Directory, KEPT};
pub use view::{Standing, differing};
