//! `/metrics`: the sums of all workers' counters, and the state of tables and policies, in the format that the request asks for.

mod format;
mod page;
mod process;

use std::fmt;
use std::sync::Arc;

use portcullis_dataplane::shared::Shared;
use portcullis_export::Exports;
use portcullis_fleet::exchange;
use portcullis_rollout::Registry as Tenants;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, text};
use prometheus_client::registry::Registry;

use crate::audit::Audit;
use crate::fleet::Fleet;
use page::Page;
use process::Process;

pub(crate) use format::Format;

/// All metrics of a running host.
pub(crate) struct Exposition {
    host: Registry,
    /// Metrics whose names are the same for every program.
    process: Registry,
}

impl Exposition {
    /// Creates the metrics of this host.
    pub(crate) fn new(
        shared: Arc<Shared>,
        tenants: Arc<Tenants>,
        audit: Arc<Audit>,
        fleet: Arc<Fleet>,
        lost_log_lines: fn() -> u64,
        exports: Exports,
    ) -> Self {
        let mut process = Registry::default();
        let started = shared.started;
        process.register_collector(Box::new(Process { started }));
        let mut host = Registry::with_prefix("portcullis");
        host.register_collector(Box::new(Host {
            shared,
            tenants,
            audit,
            fleet,
            lost_log_lines,
            exports,
        }));
        Self { host, process }
    }

    /// Adds the metrics of the exchange with other hosts.
    pub(crate) fn add_exchange(&mut self, exchange: Arc<exchange::Status>) {
        self.host.register_collector(Box::new(Exchange(exchange)));
    }

    /// Returns the text of one scrape.
    pub(crate) fn text(&self, format: Format) -> Result<String, fmt::Error> {
        let mut page = String::with_capacity(16 << 10);
        text::encode_registry(&mut page, &self.host)?;
        text::encode_registry(&mut page, &self.process)?;
        text::encode_eof(&mut page)?;
        Ok(format.convert(page))
    }
}

struct Host {
    shared: Arc<Shared>,
    tenants: Arc<Tenants>,
    audit: Arc<Audit>,
    fleet: Arc<Fleet>,
    lost_log_lines: fn() -> u64,
    exports: Exports,
}

impl fmt::Debug for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Host")
    }
}

impl Collector for Host {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        Page::new(encoder, &self.shared.counters).write(
            &self.shared,
            &self.tenants,
            &self.audit,
            &self.fleet,
            &self.exports,
            (self.lost_log_lines)(),
        )
    }
}

#[derive(Debug)]
struct Exchange(Arc<exchange::Status>);

impl Collector for Exchange {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        Page::new(encoder, &[]).exchange(&self.0)
    }
}
