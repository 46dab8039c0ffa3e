//! The rows of the audit.

/// An action of an operator or a tenant.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Action {
    /// The name of the host.
    pub host: String,
    /// The process, as 32 hexadecimal digits that no other process has.
    pub process: String,
    /// The number of the action in the process, from 1.
    pub number: u64,
    /// The time, in milliseconds since 1970.
    pub at: u64,
    /// The author.
    pub author: String,
    /// The tenant whose token was used.
    pub tenant: Option<String>,
    /// The name of the operator's token.
    pub token: Option<String>,
    /// The control interface.
    pub door: String,
    /// The command.
    pub command: String,
    /// The seat that the command concerned.
    pub seat: Option<String>,
    /// What else the command concerned.
    pub subject: Option<String>,
    /// Why the command failed.
    pub error: Option<String>,
}

/// An action as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredAction {
    /// The id of the row, which grows with each action of any host.
    pub id: u64,
    /// The action.
    pub action: Action,
}

/// Selects actions. `None` selects all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ActionFilter {
    /// The host.
    pub host: Option<String>,
    /// The tenant whose token was used.
    pub tenant: Option<String>,
    /// The seat.
    pub seat: Option<String>,
    /// The command.
    pub command: Option<String>,
    /// The author.
    pub author: Option<String>,
    /// Rows with a smaller id.
    pub before: Option<u64>,
    /// Rows with a greater id.
    pub after: Option<u64>,
}

/// Which actions are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ActionBounds {
    /// Most rows.
    pub rows: u64,
    /// Most rows of one tenant, and of one named token.
    pub rows_of_one: u64,
    /// The earliest time, in milliseconds since 1970.
    pub since: u64,
}

impl ActionFilter {
    /// Whether no action can match: no text of a database contains NUL.
    pub fn matches_nothing(&self) -> bool {
        let texts = [
            &self.host,
            &self.tenant,
            &self.seat,
            &self.command,
            &self.author,
        ];
        let mut texts = texts.into_iter().flatten();
        texts.any(|text| text.contains('\0'))
    }
}
