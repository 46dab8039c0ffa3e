//! Logs every request and relays it.
