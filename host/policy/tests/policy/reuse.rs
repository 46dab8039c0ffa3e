//! Policies whose sandboxes keep their state from call to call.

use portcullis_policy::Verdict;

use crate::support::{Host, both_forms, guest, invite, reject, table, unauthorised};

#[test]
fn state_is_kept_only_with_reuse() {
    let mut host = Host::new();

    for policy in both_forms(&host, &guest("stateful")) {
        for _ in 0..3 {
            assert_eq!(host.ask(&policy, invite()), Ok(reject(301, "")));
        }
        let kept = policy.with_reuse(true);
        for code in 301..310 {
            assert_eq!(host.ask(&kept, invite()), Ok(reject(code, "")));
        }
    }
}

#[test]
fn a_kept_sandbox_sees_the_current_table() {
    let mut host = Host::new();
    let policy = host.load("page").with_reuse(true);
    assert_eq!(host.ask(&policy, invite()), Ok(unauthorised()));

    host.addresses = table(&[(200, "192.0.2.1", 32, 0, None)]);

    assert_eq!(host.ask(&policy, invite()), Ok(Verdict::Relay(None)));
}

#[test]
fn kept_sandboxes_belong_to_their_policy() {
    let mut host = Host::new();
    let one = host.load("stateful").with_reuse(true);
    let other = host.load("reject").with_reuse(true);

    assert_eq!(host.ask(&one, invite()), Ok(reject(301, "")));
    assert_eq!(host.ask(&other, invite()), Ok(unauthorised()));
    assert_eq!(host.ask(&one, invite()), Ok(reject(302, "")));
    assert_eq!(host.runtime.pool_use().live, 2);
}
