//! Several targets for a request: forking and failover.

mod again;
mod breadth;
mod failover;
mod forking;
mod operators;
mod unreachable;

use std::collections::HashSet;
use std::net::SocketAddr;
use std::thread;

use portcullis_testkit::host::{Builder, Host};
use portcullis_testkit::kamailio::Kamailio;
use portcullis_testkit::lease::Lease;
use portcullis_testkit::peer::{Peer, branch_of};
use portcullis_testkit::policy;

use crate::call::Call;
use crate::site::{Site, Summary};

/// The policies of these tests, by the name of their crate.
const FORK: &str = "fork";
pub(crate) const FAILOVER: &str = "failover";

/// Whom the callers of these tests call. The policy names the targets.
pub(crate) const BOB: &str = "sip:bob@example.com";

/// A proxy that sends each call to three callees.
struct Targets {
    site: Site,
    callees: [Peer; 3],
}

/// A scenario of the oracle. It returns what the caller and each callee have seen.
type Scenario = fn(&Targets) -> Vec<Summary>;

impl Targets {
    /// A host with this policy, and these many of its targets.
    fn host(name: &str, count: usize) -> (Host, Self) {
        Self::host_with(name, count, Builder::new())
    }

    fn host_with(name: &str, count: usize, builder: Builder) -> (Host, Self) {
        let callees = callees(builder.lease());
        let addrs = callees.each_ref().map(Peer::local);
        let host = with_targets(builder, name, &addrs[..count]).start();
        let site = Site::of(&host);
        (host, Self { site, callees })
    }

    /// Kamailio with the part of its configuration that does what the policy does.
    fn kamailio(lease: &Lease, name: &str) -> (Kamailio, Self) {
        let callees = callees(lease);
        let addrs = callees.each_ref().map(|peer| peer.local().to_string());
        let (kamailio, site) = Self::kamailio_site(lease, name, addrs);
        (kamailio, Self { site, callees })
    }

    /// Kamailio with these targets: addresses, which parameters of URIs may follow.
    fn kamailio_site(lease: &Lease, name: &str, targets: [String; 3]) -> (Kamailio, Site) {
        let [t0, t1, t2] = targets;
        let values = [("T0", t0), ("T1", t1), ("T2", t2)];
        Site::kamailio_with(lease, &values, &[name])
    }

    fn call(&self) -> Call {
        Call::to(&self.site, BOB)
    }

    fn summaries(&self, call: &Call) -> Vec<Summary> {
        let each = self.callees.iter();
        each.map(|callee| call.summary(callee)).collect()
    }
}

fn callees(lease: &Lease) -> [Peer; 3] {
    [0; 3].map(|_| Peer::udp(lease.ip(3)))
}

pub(crate) fn with_targets(builder: Builder, name: &str, targets: &[SocketAddr]) -> Builder {
    let names = names_of(targets);
    let settings = format!("next-hops = {names:?}");
    let builder = builder
        .policy(policy(name))
        .set("policy.settings", &settings);
    with_next_hops(builder, targets)
}

fn names_of(targets: &[SocketAddr]) -> Vec<String> {
    (0..targets.len()).map(|n| format!("target-{n}")).collect()
}

fn with_next_hops(builder: Builder, targets: &[SocketAddr]) -> Builder {
    names_of(targets)
        .iter()
        .zip(targets)
        .fold(builder, |builder, (name, target)| {
            builder.set("relay.next-hops", &format!("{name} = \"sip:{target}\""))
        })
}

fn compare(name: &str, scenarios: &[(&str, Scenario)]) {
    thread::scope(|scope| {
        for (scenario, run) in scenarios {
            scope.spawn(move || {
                let (host, ours) = Targets::host(name, 3);
                let (_kamailio, theirs) = Targets::kamailio(host.lease(), name);
                let theirs = scope.spawn(move || run(&theirs));
                let ours = run(&ours);
                let theirs = theirs.join().expect("the scenario works with Kamailio");
                assert_eq!(ours, theirs, "the host, and Kamailio: {scenario}");
            });
        }
    });
}

/// Number of branches of the INVITEs that a callee has seen.
fn branches_at(callee: &Peer) -> usize {
    let seen = callee.seen();
    let invites = seen.iter().map(|seen| &seen.message);
    let invites = invites.filter(|message| message.first_word() == "INVITE");
    let branches: HashSet<_> = invites.map(branch_of).collect();
    branches.len()
}

/// CANCELs and ACKs of each callee.
fn numbers(summaries: &[Summary]) -> Vec<(usize, usize)> {
    let each = summaries.iter();
    each.map(|summary| (summary.cancels, summary.acks))
        .collect()
}
