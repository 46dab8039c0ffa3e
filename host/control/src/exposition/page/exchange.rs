//! The metrics of the exchange with other hosts.

use std::fmt;
use std::time::Instant;

use portcullis_fleet::exchange::Status;

use super::Page;

impl Page<'_, '_> {
    /// What was exchanged, and whether the other hosts are heard.
    pub(in crate::exposition) fn exchange(&mut self, status: &Status) -> fmt::Result {
        let health = status.health();
        self.counter(
            "exchange_exchanges",
            "Exchanges with other hosts through Redis that succeeded",
            status.exchanges(),
        )?;
        self.counter(
            "exchange_failures",
            "Exchanges with other hosts through Redis that failed",
            status.failures(),
        )?;
        self.counter(
            "exchange_lost_items",
            "Shared items that were not stored or not read: no room, or values that no host writes",
            status.lost(),
        )?;
        self.gauge(
            "exchange_hosts",
            "Hosts that count together through Redis, this one included; 0 while the others are not heard",
            health.hosts.unwrap_or(0) as u64,
        )?;
        self.gauge(
            "exchange_items",
            "Shared items of this host and of the others that the exchange keeps",
            status.items(),
        )?;
        self.gauge(
            "exchange_waiting_items",
            "Shared items of this host that Redis does not have yet",
            status.waiting(),
        )?;
        self.seconds(
            "exchange_lag_seconds",
            "Time since the last exchange that succeeded",
            status.lag(Instant::now()).as_secs_f64(),
        )?;
        self.seconds(
            "exchange_round_trip_seconds",
            "Time from the sending of the last exchange to its answer",
            status.round_trip().as_secs_f64(),
        )
    }
}
