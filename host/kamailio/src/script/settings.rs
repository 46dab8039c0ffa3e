//! What the rest of a configuration says about its routes.

/// A name or an address of the host, and its port: `alias` and `listen`.
type Own = (String, Option<u16>);

/// What the rest of the configuration says about the routes.
#[derive(Clone, Debug, Default)]
pub(crate) struct Settings {
    /// The names and addresses of the host.
    pub(crate) own: Vec<Own>,
    /// `fr_timer` of `tm`: milliseconds until the first response of a target; `None` if it is not set.
    pub(crate) first: Option<u32>,
}
