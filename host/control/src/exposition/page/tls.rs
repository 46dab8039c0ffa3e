//! Metrics of TLS.

use std::fmt;
use std::time::UNIX_EPOCH;

use portcullis_dataplane::shared::Shared;
use portcullis_metrics::{HandshakeResult, Label};
use prometheus_client::encoding::NoLabelSet;
use prometheus_client::metrics::MetricType;

use super::Page;

impl Page<'_, '_> {
    pub(super) fn tls(&mut self, shared: &Shared) -> fmt::Result {
        let workers = self.workers;
        let mut family = self.encoder.encode_descriptor(
            "tls_handshakes",
            "TLS handshakes",
            None,
            MetricType::Counter,
        )?;
        for (direction, is_accepted) in [("accepted", true), ("opened", false)] {
            for result in HandshakeResult::ALL {
                let count = |worker: &portcullis_metrics::WorkerCounters| {
                    let handshakes = &worker.handshakes;
                    match is_accepted {
                        true => handshakes.accepted.value(*result),
                        false => handshakes.opened.value(*result),
                    }
                };
                let n: u64 = workers.iter().map(count).sum();
                let labels = [("direction", direction), ("result", result.label())];
                family
                    .encode_family(&labels)?
                    .encode_counter::<NoLabelSet, _, u64>(&n, None)?;
            }
        }
        let mut family = self.encoder.encode_descriptor(
            "tls_certificate_not_after_timestamp_seconds",
            "When a certificate in use expires, since the Unix epoch",
            None,
            MetricType::Gauge,
        )?;
        let listed = shared.handshakes.iter().flat_map(|all| all.tls().list());
        for listed in listed {
            let until = listed.certificate.not_after.duration_since(UNIX_EPOCH);
            let seconds = until.map_or(0, |until| until.as_secs());
            family
                .encode_family(&[("section", listed.section.as_str())])?
                .encode_gauge(&seconds)?;
        }
        Ok(())
    }
}
