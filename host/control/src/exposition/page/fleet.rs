//! Metrics of the fleet: what this host has seen of the table of hosts.

use std::fmt;

use portcullis_dataplane::shared::Shared;
use portcullis_fleet::directory::Standing;
use portcullis_rollout::Registry;
use prometheus_client::metrics::MetricType;

use super::Page;
use crate::fleet::{Fleet, lag_of};

impl Page<'_, '_> {
    pub(super) fn fleet(
        &mut self,
        fleet: &Fleet,
        shared: &Shared,
        tenants: &Registry,
    ) -> fmt::Result {
        let lag = lag_of(shared, tenants);
        self.seconds(
            "fleet_lag_seconds",
            "By how much the view of the database is older than the interval of looks at it",
            milliseconds(lag.longest_ms()),
        )?;
        if !fleet.is_announced() {
            return Ok(());
        }
        let seen = fleet.seen();
        let (announced, failed) = (seen.announced, seen.failed);
        let has_twin = seen.twin().is_some();
        let ahead = milliseconds(seen.clock_ahead_ms.unsigned_abs());
        let is_behind = seen.clock_ahead_ms < 0;
        let hosts = seen.hosts.clone();
        let differing = seen.differing.len() as u64;
        drop(seen);
        self.counter(
            "fleet_announcements",
            "Announcements of this host in the table of hosts",
            announced,
        )?;
        self.counter(
            "fleet_announcements_failed",
            "Announcements of this host that could not be written",
            failed,
        )?;
        self.gauge(
            "fleet_name_twice",
            "1 while another process announces itself under the name of this host",
            u64::from(has_twin),
        )?;
        self.seconds(
            "fleet_clock_ahead_seconds",
            "Clock of this host minus the clock of the database",
            if is_behind { -ahead } else { ahead },
        )?;
        let Some(hosts) = hosts else {
            return Ok(());
        };
        let of = |standing: Standing| hosts.get(&standing).copied().unwrap_or(0);
        self.gauges(
            "fleet_hosts",
            "Hosts on the database, by stage; gone: silent, without having said that it ends",
            "stage",
            Standing::ALL.map(|standing| (standing.as_str(), of(standing))),
        )?;
        self.gauge(
            "fleet_differing_seats",
            "Seats whose pushed generations differ among serving hosts",
            differing,
        )
    }

    pub(super) fn seconds(&mut self, name: &str, help: &str, seconds: f64) -> fmt::Result {
        let mut metric = self
            .encoder
            .encode_descriptor(name, help, None, MetricType::Gauge)?;
        metric.encode_gauge(&seconds)
    }
}

/// Milliseconds in seconds.
fn milliseconds(number: u64) -> f64 {
    std::time::Duration::from_millis(number).as_secs_f64()
}
