//! The address table.
