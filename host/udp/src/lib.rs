//! Batched datagrams.
