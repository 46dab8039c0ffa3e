//! `dispatcher.…`: the commands of Kamailio's module with its messages and codes (`src/modules/dispatcher/dispatcher.c`), `dispatcher.show`, and the rows of the table.

mod change;
mod hash;
mod list;
mod ping_active;
mod row;
mod rows;
mod show;
mod state;

use portcullis_rpc::Param;

pub(crate) use change::{Add, Reload, Remove};
pub(crate) use hash::Hash;
pub use hash::HashReply;
pub(crate) use list::ListSets;
pub use list::{
    Destination, DestinationAttrs, DestinationLatency, DestinationRuntime, SetList, SetRecord,
    SetTargets, TargetRecord,
};
pub(crate) use ping_active::PingActive;
pub use ping_active::PingActiveReply;
pub(crate) use row::{AddRow, DeleteRow, ReplaceRow, ShowRow};
pub use rows::{GatewayAdded, StoredGateway};
pub(crate) use rows::{ListRows, RemoveRows};
pub(crate) use show::Show;
pub use show::{DispatcherShown, ShownDestination, ShownSet};
pub(crate) use state::{SetDuidState, SetState};

/// A parameter as Kamailio reads one of format `S`: a number is a text, too.
fn text_of(param: &Param) -> Option<String> {
    match param {
        Param::Text(text) => Some(text.clone()),
        Param::Int(number) => Some(number.to_string()),
        Param::Double(_) | Param::Other(_) => None,
    }
}

/// A parameter as Kamailio reads one of format `d`.
fn number_of(param: &Param) -> Option<i64> {
    match param {
        Param::Int(number) => Some(*number),
        Param::Text(text) => text.parse().ok(),
        Param::Double(_) | Param::Other(_) => None,
    }
}
