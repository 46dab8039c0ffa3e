//! Several dispatchers that exchange their calls, with injected time.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::algorithm::Algorithm;
use crate::set::Question;

const LIST: &str = "1 sip:192.0.2.1 0 0 maxload=10\n1 sip:192.0.2.2 0 0 maxload=10\n";

const FIRST: &str = "sip:192.0.2.1";
const SECOND: &str = "sip:192.0.2.2";

/// The time at which tests begin, in milliseconds since 1970.
const BEGIN: u64 = 1_800_000_000_000;

/// Hosts, and what the exchange has of each.
struct Hosts {
    hosts: Vec<Dispatcher>,
    stored: Vec<BTreeMap<[u8; 16], Item>>,
    now: u64,
}

impl Hosts {
    /// With these keys.
    fn new(keys: &[u8]) -> Self {
        let hosts = keys.iter().map(|key| {
            let host = Dispatcher::of_list(LIST).unwrap();
            host.share_loads(&[*key; 16]);
            host.set_hosts(Some(keys.len()));
            host
        });
        Self {
            hosts: hosts.collect(),
            stored: keys.iter().map(|_| BTreeMap::new()).collect(),
            now: BEGIN,
        }
    }

    fn begin(&self, host: usize, uri: &str, call_id: &[u8]) {
        let host = &self.hosts[host];
        host.begin_call(&crate::next_hop_name(1, uri), host.calls().key(call_id));
    }

    fn store(&mut self, host: usize, most: usize) {
        let items = self.hosts[host].take_loads(most, self.now);
        assert!(items.len() <= most);
        self.stored[host].extend(items.into_iter().map(|item| (item.key, item)));
    }

    /// The sums over the other hosts, as the exchange passes them on: also those that are over.
    fn hear(&self, host: usize) {
        let mut sums = BTreeMap::<[u8; 16], Item>::new();
        for (other, items) in self.stored.iter().enumerate() {
            for item in items.values().filter(|_| other != host) {
                let sum = sums.entry(item.key).or_insert(Item { value: 0, ..*item });
                if item.ends > self.now {
                    sum.value += item.value;
                }
            }
        }
        let sums: Vec<_> = sums.into_values().collect();
        self.hosts[host].merge_loads(&sums);
    }

    fn exchange(&mut self) {
        (0..self.hosts.len()).for_each(|host| self.store(host, 100));
        (0..self.hosts.len()).for_each(|host| self.hear(host));
    }

    /// The calls to both gateways, as a host sees them.
    fn calls(&self, host: usize) -> [u32; 2] {
        let sets = self.hosts[host].current();
        [FIRST, SECOND].map(|uri| sets.member(&crate::next_hop_name(1, uri)).unwrap().calls())
    }

    /// The gateways that a host chooses for a call, the first one first.
    fn chosen(&self, host: usize) -> Vec<String> {
        let sets = self.hosts[host].current();
        let set = sets.get(1).unwrap();
        let question = Question {
            algorithm: Algorithm::CallLoad,
            hash: None,
            most: 16,
            failed: None,
        };
        let chosen = set.choose(question, |_| true);
        let chosen = chosen.slots().map(|slot| &set.members()[slot].uri);
        chosen.map(ToString::to_string).collect()
    }
}

#[test]
fn the_load_of_a_gateway_is_the_sum_over_the_hosts() {
    let mut hosts = Hosts::new(&[1, 1, 1]);
    for call in 0..4_u8 {
        hosts.begin(0, FIRST, &[b'a', call]);
        hosts.begin(1, FIRST, &[b'b', call]);
    }
    (0..6_u8).for_each(|call| hosts.begin(2, SECOND, &[b'c', call]));
    assert_eq!(
        hosts.chosen(0),
        [SECOND, FIRST],
        "it knows its own calls only"
    );
    hosts.exchange();
    for host in 0..3 {
        assert_eq!(hosts.calls(host), [8, 6]);
        assert_eq!(hosts.chosen(host), [SECOND, FIRST]);
    }
    let [own, others] = [hosts.hosts[2].calls().counted(), 8];
    assert_eq!(
        (own, hosts.hosts[2].calls_of_others()),
        (6, Some((others, 0)))
    );
    // `maxload` is that of all together.
    (0..4_u8).for_each(|call| hosts.begin(2, SECOND, &[b'd', call]));
    hosts.exchange();
    assert_eq!(hosts.calls(0), [8, 10]);
    assert_eq!(hosts.chosen(0), [FIRST]);
    // A call ends where it was counted.
    hosts.hosts[2].end_call(&[b'd', 0]);
    hosts.exchange();
    assert_eq!(hosts.calls(0), [8, 9]);
    assert_eq!(hosts.chosen(0), [FIRST, SECOND]);
}

#[test]
fn the_calls_of_a_host_that_vanishes_count_for_ten_seconds_at_most() {
    let mut hosts = Hosts::new(&[1, 1]);
    hosts.begin(0, FIRST, b"a");
    hosts.begin(1, FIRST, b"b");
    hosts.exchange();
    for _ in 0..20 {
        hosts.now += 1_000;
        hosts.exchange();
        assert_eq!([hosts.calls(0), hosts.calls(1)], [[2, 0]; 2]);
    }
    let mut seconds = 0;
    while hosts.calls(0) == [2, 0] {
        seconds += 1;
        hosts.now += 1_000;
        hosts.store(0, 100);
        hosts.hear(0);
    }
    assert_eq!(hosts.calls(0), [1, 0]);
    assert!((7..=10).contains(&seconds), "{seconds}");
}

#[test]
fn hosts_that_do_not_hear_each_other_share_the_limit_and_count_nothing_twice_afterwards() {
    let mut hosts = Hosts::new(&[1, 1]);
    (0..2_u8).for_each(|call| hosts.begin(0, FIRST, &[b'a', call]));
    (0..5_u8).for_each(|call| hosts.begin(1, FIRST, &[b'b', call]));
    hosts.exchange();
    assert_eq!([hosts.calls(0), hosts.calls(1)], [[7, 0]; 2]);
    hosts.hosts.iter().for_each(|host| host.set_hosts(None));
    assert_eq!([hosts.calls(0), hosts.calls(1)], [[2, 0], [5, 0]]);
    assert_eq!(hosts.chosen(0), [SECOND, FIRST]);
    assert_eq!(hosts.chosen(1), [SECOND], "half of 10 are 5");
    hosts.begin(0, FIRST, b"c");
    hosts.hosts.iter().for_each(|host| host.set_hosts(Some(2)));
    hosts.exchange();
    assert_eq!([hosts.calls(0), hosts.calls(1)], [[8, 0]; 2]);
    assert_eq!(hosts.chosen(1), [SECOND, FIRST]);
}

#[test]
fn a_call_that_ends_on_another_host_ends_where_it_was_counted() {
    let mut hosts = Hosts::new(&[1, 1, 2]);
    hosts.begin(0, FIRST, b"a");
    assert!(!hosts.hosts[1].has_calls());
    hosts.exchange();
    assert!(hosts.hosts[1].has_calls());
    // The third host has another key: what it says has no effect.
    hosts.hosts[2].end_call(b"a");
    hosts.exchange();
    assert_eq!(hosts.calls(0), [1, 0]);
    hosts.hosts[1].end_call(b"a");
    hosts.exchange();
    hosts.exchange();
    for host in 0..3 {
        assert_eq!(hosts.calls(host), [0, 0]);
    }
    assert!(!hosts.hosts[1].has_calls());
}

#[tokio::test]
async fn a_gateway_that_is_removed_takes_its_calls_along_when_they_end() {
    let mut hosts = Hosts::new(&[1, 1]);
    hosts.begin(0, FIRST, b"a");
    hosts.exchange();
    hosts.hosts[0].remove_until_reload(1, FIRST).await;
    hosts.exchange();
    assert_eq!(hosts.calls(1), [1, 0]);
    hosts.hosts[0].end_call(b"a");
    hosts.hosts[0].remove_until_reload(1, "sip:nowhere").await;
    hosts.exchange();
    assert_eq!(hosts.calls(1), [0, 0]);
}

#[test]
fn the_calls_of_a_host_that_leaves_count_until_they_end_or_the_others_are_not_heard() {
    let mut hosts = Hosts::new(&[1, 1, 1]);
    (0..3_u8).for_each(|call| hosts.begin(0, FIRST, &[b'a', call]));
    hosts.exchange();
    hosts.hosts[1].set_hosts(Some(2));
    hosts.now += 1_000;
    hosts.exchange();
    assert_eq!(hosts.calls(1), [3, 0]);
    hosts.hosts[0].set_hosts(None);
    assert_eq!(hosts.chosen(0), [SECOND], "a third of 10 are 3");
    hosts.hosts[0].set_hosts(Some(3));
    assert_eq!(hosts.chosen(0), [SECOND, FIRST]);
}

#[test]
fn a_call_that_ends_elsewhere_while_nobody_is_heard_ends_when_they_are() {
    let mut hosts = Hosts::new(&[1, 1]);
    hosts.begin(0, FIRST, b"a");
    hosts.exchange();
    hosts.hosts.iter().for_each(|host| host.set_hosts(None));
    hosts.now += 60_000;
    hosts.hear(1);
    assert!(hosts.hosts[1].has_calls(), "the other may have some");
    hosts.hosts[1].end_call(b"a");
    // It is not told while nobody hears of it, and it is over before.
    hosts.store(1, 100);
    hosts.now += 60_000;
    hosts.hosts[1].set_hosts(Some(2));
    hosts.store(1, 100);
    // The host that counts the call comes back later.
    hosts.now += 15_000;
    hosts.hosts[0].set_hosts(Some(2));
    hosts.exchange();
    hosts.exchange();
    assert_eq!([hosts.calls(0), hosts.calls(1)], [[0, 0]; 2]);
    assert!(!hosts.hosts[1].has_calls());
}

#[test]
fn calls_that_another_process_goes_on_with_are_told_once() {
    // An old process, its successor, and another host.
    let mut hosts = Hosts::new(&[1, 1, 1]);
    (0..4_u8).for_each(|call| hosts.begin(0, FIRST, &[b'a', call]));
    hosts.exchange();
    let [old, new] = [&hosts.hosts[0], &hosts.hosts[1]];
    let calls = old.calls().all();
    new.calls()
        .adopt(old.calls().secret(), &calls, &new.current());
    old.hand_over_calls(&calls);
    // A request of the old process is answered.
    hosts.begin(0, FIRST, b"b");
    hosts.exchange();
    for host in 0..3 {
        assert_eq!(hosts.calls(host), [5, 0]);
    }
    // Its BYE comes to the new one.
    hosts.hosts[1].end_call(b"b");
    hosts.exchange();
    hosts.exchange();
    assert_eq!(hosts.calls(2), [4, 0]);
}

#[test]
fn what_does_not_fit_is_told_next_time() {
    let mut hosts = Hosts::new(&[1, 1]);
    hosts.begin(0, FIRST, b"a");
    hosts.begin(0, SECOND, b"b");
    for most in [0, 1, 1] {
        hosts.store(0, most);
    }
    hosts.hear(1);
    assert_eq!(hosts.calls(1), [1, 1]);
}

/// What happens in a test.
#[derive(Clone, Copy, Debug)]
enum Step {
    Begin(usize, bool, u8),
    /// A call ends, perhaps on another host than the one that counts it.
    End(usize, u8),
    Store(usize, usize),
    /// Twice, or not at all.
    Hear(usize, usize),
    Later(u16),
}

fn step() -> impl Strategy<Value = Step> {
    let host = || 0_usize..3;
    prop_oneof![
        4 => (host(), any::<bool>(), 0_u8..12).prop_map(|(host, uri, call)| Step::Begin(host, uri, call)),
        3 => (host(), 0_u8..12).prop_map(|(host, call)| Step::End(host, call)),
        3 => (host(), 0_usize..4).prop_map(|(host, most)| Step::Store(host, most)),
        3 => (host(), 0_usize..3).prop_map(|(host, times)| Step::Hear(host, times)),
        1 => (0_u16..12_000).prop_map(Step::Later),
    ]
}

proptest! {
    /// Whatever was lost, late or repeated: when every host has told and heard everything, the load of each gateway is the sum of what the hosts count.
    #[test]
    fn hosts_agree(steps in prop::collection::vec(step(), 0..80)) {
        let mut hosts = Hosts::new(&[1, 1, 1]);
        for step in steps {
            match step {
                Step::Begin(host, is_first, call) => {
                    let uri = if is_first { FIRST } else { SECOND };
                    hosts.begin(host, uri, &[host as u8, call]);
                }
                Step::End(host, call) => {
                    // The call of any host.
                    hosts.hosts[host].end_call(&[call % 3, call]);
                }
                Step::Store(host, most) => hosts.store(host, most),
                Step::Hear(host, times) => (0..times).for_each(|_| hosts.hear(host)),
                Step::Later(time) => hosts.now += u64::from(time),
            }
        }
        // Ends that are told may end calls, which is told then.
        for _ in 0..3 {
            hosts.now += 4_000;
            hosts.exchange();
        }
        let mut sums = [0; 2];
        for host in &hosts.hosts {
            let sets = host.current();
            for (sum, uri) in sums.iter_mut().zip([FIRST, SECOND]) {
                *sum += sets.member(&crate::next_hop_name(1, uri)).unwrap().own_calls();
            }
        }
        let counted: u64 = hosts.hosts.iter().map(|host| host.calls().counted()).sum();
        prop_assert_eq!(u64::from(sums[0] + sums[1]), counted);
        for host in 0..3 {
            prop_assert_eq!(hosts.calls(host), sums);
        }
    }
}
