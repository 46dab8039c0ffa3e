//! baresip as a phone, over UDP and over TLS: it registers with outbound at Kamailio through the host, calls and is called.

#![forbid(unsafe_code)]

use portcullis_testkit::baresip::Baresip;
use portcullis_testkit::certificates::{authority, certificate};
use portcullis_testkit::host::Builder;
use portcullis_testkit::kamailio::{Kamailio, registrar_with_outbound};
use portcullis_testkit::policy;
use portcullis_testkit::wait;

const CORE: u8 = 3;
const ADA: u8 = 10;
const GRACE: u8 = 11;

#[test]
fn peers_baresip_with_outbound_is_reached_along_its_flow_over_udp_and_tls() {
    let folder = tempfile::tempdir().expect("a temporary directory can be made");
    let builder = Builder::new().policy(policy("observe"));
    let lease = builder.lease();
    let (sip, tls) = (lease.addr(1, 5060), lease.addr(1, 5061));
    let (core, ada, grace) = (lease.addr(CORE, 5080), lease.ip(ADA), lease.ip(GRACE));
    authority(folder.path(), "ca");
    let names = format!("DNS:edge.example,IP:{}", tls.ip());
    certificate(folder.path(), "edge", &names);
    let file = |name: &str| folder.path().join(name);
    let values = [("ADDR", core.to_string())];
    let _kamailio = Kamailio::start(&registrar_with_outbound(), &values, &[]);
    let host = builder
        .listen(&format!("tls:{tls}"))
        .set("tls.edge", &format!("certificate = {:?}", file("edge.pem")))
        .set("tls.edge", &format!("key = {:?}", file("edge.key")))
        .set("nat", &format!("clients = [\"udp:{sip}\", \"tls:{tls}\"]"))
        .set("nat", "ping = \"1s\"")
        .set("relay", &format!("next-hop = \"sip:{core}\""))
        .start();

    // Both addresses are used by nobody else: what reaches them comes along a flow.
    let account = format!(
        "<sip:ada@example.com>;sipnat=outbound;outbound=\"sip:{sip}\";regint=60;auth_pass=none"
    );
    let mut ada = Baresip::start(ada, &account, &[]);
    let account = format!(
        "<sip:grace@example.com;transport=tls>;sipnat=outbound;outbound=\"sip:{tls};transport=tls\";regint=60;auth_pass=none"
    );
    let trusts = format!("sip_cafile {}", file("ca.pem").display());
    let mut grace = Baresip::start(grace, &account, &[trusts]);
    for phone in [&mut ada, &mut grace] {
        phone.wait_until_registered();
        // RFC 5626 §6: the registrar has accepted outbound.
        let log = phone.log();
        assert!(log.contains("Require: outbound"), "{log}");
    }
    assert!(grace.log().contains("Flow-Timer: 120"), "{}", grace.log());
    assert!(!ada.log().contains("Flow-Timer"), "{}", ada.log());

    // Each calls the other one, and the called one ends the call.
    for (caller, callee, uri) in [
        (0, 1, "sip:grace@example.com"),
        (1, 0, "sip:ada@example.com"),
    ] {
        let phones = [&mut ada, &mut grace];
        phones[caller].tell("dial", uri);
        phones[caller].wait_for("CALL_ESTABLISHED");
        phones[callee].tell("hangup", "");
        for phone in phones {
            phone.wait_for("CALL_CLOSED");
        }
    }

    // The phone over UDP is pinged, and answers.
    wait::until("baresip answers pings", || {
        let answered = host.metric("portcullis_flow_pings_total", &["result=\"answered\""]);
        (answered >= 2.0).then_some(())
    });
    let pinged = host.metric("portcullis_pinged_flows", &[]);
    assert_eq!(pinged, 1.0, "{}", ada.log());

    // The phone over TLS loses power.
    grace.kill();
    wait::until("its connection is gone", || {
        (host.metric("portcullis_connections_open", &[]) == 0.0).then_some(())
    });
    ada.tell("dial", "sip:grace@example.com");
    let reason = ada.wait_for("CALL_CLOSED");
    assert!(reason.starts_with("430 "), "{reason}\n{}", ada.log());
    let mut complaints = host.complaints();
    complaints.retain(|line| !line.contains("tls_certificate_expires"));
    assert_eq!(complaints, [""; 0]);
}
