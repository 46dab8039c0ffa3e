//! Policy SDK.
