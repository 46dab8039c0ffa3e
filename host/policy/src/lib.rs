//! Policy host.
