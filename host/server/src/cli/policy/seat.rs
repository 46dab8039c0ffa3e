//! The seat that a command is about.

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Seat {
    /// A tenant, or default, before or after for the operator's policies
    #[arg(default_value = "default")]
    pub(super) seat: String,
}
