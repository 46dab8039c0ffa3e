//! The state shared by all workers and the control side. All of it is immutable, replaced as a whole, or a counter.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use portcullis_address::AddressBook;
use portcullis_capture::Capture;
use portcullis_config::Config;
use portcullis_dispatcher::Dispatcher;
use portcullis_guard::{Guard, Unproved};
use portcullis_metrics::WorkerCounters;
use portcullis_peers::Peers;
use portcullis_policy::ShareKey;
use portcullis_records::Recorder;
use portcullis_sip::{Proxy, Routes};
use portcullis_sync::GracePeriod;

use crate::client_load::ClientLoad;
use crate::drain::Drain;
use crate::failed_addresses::FailedAddresses;
use crate::flow_pings::FlowPings;
use crate::handover::Handovers;
use crate::handshakes::Handshakes;
use crate::next_hop_load::NextHopLoad;
use crate::notices::Notices;
use crate::orders::Orders;
use crate::pings::Pings;
use crate::tenants::{Shadow, Tenants};
use crate::trace::Traces;
use crate::transport::{Bound, Connections};

/// The state of one running host. `serve` builds it once; every worker and the control side hold it in an `Arc`.
pub struct Shared {
    /// The configuration, validated.
    pub config: Config,
    /// The bound sockets, with the ports chosen by the system where the configuration says 0.
    pub listen: Vec<Bound>,
    /// The current address table.
    pub addresses: Arc<AddressBook>,
    /// The current sets of the dispatcher.
    pub dispatcher: Arc<Dispatcher>,
    /// The current tenants.
    pub tenants: Arc<ArcSwap<Tenants>>,
    /// Number of sandboxes that each worker may keep.
    pub sandboxes: usize,
    /// Handle of the thread that evaluates candidates on decided requests.
    pub shadow: Shadow,
    /// Selects the dialogs that a canary decides on.
    pub share_key: ShareKey,
    /// The recorder of decisions; `None` without `[records]`.
    pub records: Option<Recorder>,
    /// Copies messages for a capture server; `None` without one.
    pub capture: Option<Capture>,
    /// The proxy rules.
    pub proxy: Arc<Proxy>,
    /// Next hops and domains with their resolved addresses; a task replaces them when names are resolved again.
    pub routes: Arc<ArcSwap<Routes>>,
    /// Addresses of next hops that have failed lately.
    pub failed_addresses: FailedAddresses,
    /// What next hops say about their load.
    pub next_hop_load: NextHopLoad,
    /// What clients send, and what is refused, while this host asks them for less.
    pub client_load: ClientLoad,
    /// The TCP connections of all workers.
    pub connections: Arc<Connections>,
    /// TLS handshakes; `None` without TLS.
    pub handshakes: Option<Handshakes>,
    /// Messages that workers hand over to each other.
    pub handovers: Handovers,
    /// The hosts that share the addresses of this one; `None` if nothing is passed to any.
    pub peers: Option<Arc<Peers>>,
    /// What the control side asks of workers.
    pub orders: Orders,
    /// What workers notice of pings to destinations of the dispatcher.
    pub pings: Pings,
    /// What workers notice of clients whose flows are kept open with pings; `None` without such pings.
    pub flow_pings: Option<FlowPings>,
    /// One per worker; worker `n` is the only writer of element `n`.
    pub counters: Vec<WorkerCounters>,
    /// Notices for operators about messages that were refused, dropped or not delivered.
    pub notices: Notices,
    /// What strangers do; `None` if nobody is observed.
    pub guard: Option<Guard>,
    /// What may be sent over UDP to addresses that have not proved themselves.
    pub unproved: Unproved,
    /// What the host still accepts.
    pub drain: Drain,
    /// When the host started.
    pub started: SystemTime,
}

impl Shared {
    /// Whether a capture server gets the outcome of messages.
    #[inline]
    pub(crate) fn captures_verdicts(&self) -> bool {
        self.capture.as_ref().is_some_and(Capture::has_verdicts)
    }

    /// The zone of a socket of the host: see [`Bound::zone`].
    pub(crate) fn zone_of(&self, local: SocketAddr) -> u32 {
        let bound = self.listen.iter().find(|bound| bound.addr == local);
        bound.map_or(0, |bound| bound.zone)
    }

    /// Whether this address is in the address table (whatever its group and port), in the table of trusted peers, or that of a next hop of the
    /// operator, destinations of the dispatcher included. Such a source is never held or banned.
    pub fn is_known(&self, ip: IpAddr) -> bool {
        let snapshot = self.addresses.current();
        !snapshot.table.lookup(ip).is_empty()
            || snapshot.trusted.table.has_source(ip)
            || self.routes.load().has_address(ip)
    }

    /// The same for next hops of tenants. Takes time in proportion to their number.
    pub fn is_known_to_tenants(&self, ip: IpAddr) -> bool {
        let tenants = self.tenants.load();
        let mut routes = tenants
            .named
            .iter()
            .filter_map(|tenant| tenant.routes.as_ref());
        routes.any(|routes| routes.load().has_address(ip))
    }

    /// Where this address is known, so that the guard never holds or bans it; `None` for a stranger. Takes time in proportion to the number of tenants.
    pub fn known_in(&self, ip: IpAddr) -> Option<&'static str> {
        let snapshot = self.addresses.current();
        let config = &self.config;
        let places = [
            (config.guard.is_exempt(ip), "`exempt` of [guard]"),
            (config.is_load_balancer(ip), "the load balancers"),
            (!snapshot.table.lookup(ip).is_empty(), "the address table"),
            (
                snapshot.trusted.table.has_source(ip),
                "the table of trusted peers",
            ),
            (self.routes.load().has_address(ip), "the next hops"),
            (self.is_known_to_tenants(ip), "the next hops of a tenant"),
        ];
        let mut places = places.into_iter();
        places.find_map(|(is_in, place)| is_in.then_some(place))
    }

    /// Whether the operator's rows of the address table say that this is the address of a client.
    pub(crate) fn is_in_client_group(&self, ip: IpAddr) -> bool {
        let groups = &self.config.nat.client_groups;
        if groups.is_empty() {
            return false;
        }
        let addresses = self.addresses.current();
        let mut entries = addresses.table.lookup(ip).iter();
        entries.any(|entry| groups.contains(&entry.group))
    }

    /// The host name with this mark among all next hops and domains, those of tenants included. This is no work for each message.
    pub(crate) fn name_of_mark(&self, mark: u64) -> Option<String> {
        let own = self.routes.load();
        if let Some(name) = own.name_of_mark(mark) {
            return Some(name.to_owned());
        }
        let tenants = self.tenants.load();
        let mut routes = tenants
            .named
            .iter()
            .filter_map(|tenant| tenant.routes.as_ref());
        routes.find_map(|routes| routes.load().name_of_mark(mark).map(str::to_owned))
    }

    /// Waits until every worker has finished any decision that began before this call, so that everything published earlier is in effect on
    /// all workers. Returns false on timeout.
    pub async fn live_on_all_workers(&self, patience: Duration) -> bool {
        let workers = self.counters.iter();
        let mut period = GracePeriod::begin(workers.map(|worker| &worker.decisions));
        let is_over = async {
            while !period.is_over() {
                tokio::time::sleep(Duration::from_micros(200)).await;
            }
        };
        tokio::time::timeout(patience, is_over).await.is_ok()
    }
}

impl AsRef<Traces> for Shared {
    fn as_ref(&self) -> &Traces {
        &self.notices.traces
    }
}
