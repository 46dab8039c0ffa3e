//! Requests with expected decisions, and what a policy does with them without a host.
//!
//! - [`read_message`] and [`MessageFields`] make requests of files and of fields, and [`first_look`] says whether a host would call a policy
//!   for them at all.
//! - [`PeerSpec`] is the peer of a connection over TLS.
//! - [`TablesSpec`] makes tables and rules of the text of a file.
//! - [`Suite`] is a file of cases; [`Suite::run`] calls a policy for each and returns a [`Report`] with what differs and what no case has
//!   reached.
//! - [`Evaluation`] is one request with its surroundings; [`reason_for`] says which row gave an answer.
//!
//! The calls themselves are those of [`portcullis_records::replay::OfflinePolicy`].

#![forbid(unsafe_code)]
#![warn(clippy::wildcard_enum_match_arm)]

mod coverage;
mod evaluation;
mod expect;
mod failures;
mod file;
mod first_look;
mod junit;
mod message;
mod outcome;
mod peer;
mod reason;
mod suite;
mod tables;

pub use coverage::Coverage;
pub use evaluation::{Evaluated, Evaluation};
pub use expect::{Expect, Mismatch};
pub use failures::ResultError;
pub use file::FileError;
pub use first_look::{FirstLook, first_look};
pub use junit::junit;
pub use message::{MessageError, MessageFields, Values, read_message};
pub use outcome::Outcome;
pub use peer::PeerSpec;
pub use reason::{Sight, reason_for};
pub use suite::{CaseReport, Report, StepReport, Suite, SuiteRequest};
pub use tables::{RulesSpec, TablesError, TablesSpec, TrustedSpec};
