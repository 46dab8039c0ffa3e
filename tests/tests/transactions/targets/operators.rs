//! Targets that the operator's policy names for requests of tenants.

use std::net::SocketAddr;
use std::time::{SystemTime, UNIX_EPOCH};

use portcullis_testkit::host::{Builder, Host};
use portcullis_testkit::peer::Peer;
use portcullis_testkit::policy;

use super::{FAILOVER, callees, names_of, with_next_hops};
use crate::site::Site;

/// The operator's policy decides on a request of a tenant, which has no next hops itself.
fn before_a_tenant(builder: Builder, name: &str, settings: &str, targets: &[SocketAddr]) -> Host {
    let file = policy(name);
    with_next_hops(builder, targets)
        .set("policy.before", &format!("file = {file:?}"))
        .set("policy.before.settings", settings)
        .set("tenants.acme", "uri-domains = [\"acme.example\"]")
        .start()
}

#[test]
fn a_policy_of_the_operator_names_targets_for_a_request_of_a_tenant() {
    let builder = Builder::new();
    let callees = callees(builder.lease());
    let [busy, answering, _] = &callees;
    let targets = [busy.local(), answering.local()];
    let settings = format!("next-hops = {:?}", names_of(&targets));
    let host = before_a_tenant(builder, FAILOVER, &settings, &targets);
    let site = Site::of(&host);
    let caller = site.caller();
    let invite = caller.request("INVITE", "sip:bob@acme.example");
    site.send(&caller, &invite);
    busy.answer(&busy.first_request("INVITE"), 503);
    busy.first_request("ACK");
    answering.answer(&answering.first_request("INVITE"), 200);
    let ok = caller.first_response("INVITE", 200);
    site.ack(&caller, &invite, &ok);
    answering.first_request("ACK");
    site.hang_up(&caller, answering, &invite, &ok);
}

/// Opening hours of one minute each day, half a day from now.
fn hours_far_from_now() -> String {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    let minute = since.expect("after 1970").as_secs() / 60 + 12 * 60;
    let time = |minute: u64| format!("{:02}:{:02}", minute / 60, minute % 60);
    let open = minute % (24 * 60);
    let hours = format!("[\"{}-{}\"]", time(open), time(open + 1));
    let days = [
        "monday",
        "tuesday",
        "wednesday",
        "thursday",
        "friday",
        "saturday",
        "sunday",
    ];
    let days = days.map(|day| format!("{day} = {hours}"));
    format!("{{ {} }}", days.join(", "))
}

#[test]
fn a_policy_of_the_operator_names_the_next_hop_of_a_request_of_a_tenant() {
    let builder = Builder::new();
    let voicemail = Peer::udp(builder.lease().ip(3));
    let settings = format!(
        "closed-next-hop = \"target-0\"\nhours = {}",
        hours_far_from_now()
    );
    let host = before_a_tenant(builder, "business-hours", &settings, &[voicemail.local()]);
    let site = Site::of(&host);
    let caller = site.caller();
    let invite = caller.request("INVITE", "sip:bob@acme.example");
    site.send(&caller, &invite);
    voicemail.answer(&voicemail.first_request("INVITE"), 200);
    let ok = caller.first_response("INVITE", 200);
    site.ack(&caller, &invite, &ok);
    voicemail.first_request("ACK");
    site.hang_up(&caller, &voicemail, &invite, &ok);
}
