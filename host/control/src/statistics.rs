//! Kamailio's statistics (`src/core/counters.c`, `src/modules/sl`): groups of named numbers, for tools that read those of Kamailio.
//!
//! Only what this host counts is there: a name of Kamailio that is missing would always be 0.

use portcullis_dataplane::shared::Shared;
use portcullis_metrics::{Counter, Label, Lost, Method, Wire, WorkerCounters};
use portcullis_policy::VerdictKind;
use portcullis_sip::{DropReason, RelayErrorKind};

use crate::memory::Memory;

/// One number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Statistic {
    /// The part of the server that counts.
    pub(crate) group: &'static str,
    /// The name within the group.
    pub(crate) name: String,
    pub(crate) value: u64,
}

/// Responses that the host generated, as Kamailio divides them: some codes have a number of their own, the others one for their class.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Replies([u64; NAMES.len()]);

/// The names of [`Replies`], in Kamailio's order.
const NAMES: [&str; 19] = [
    "200", "202", "2xx", "300", "301", "302", "3xx", "400", "401", "403", "404", "407", "408",
    "483", "4xx", "500", "5xx", "6xx", "xxx",
];

/// The number of all statistics, in Kamailio's order: by group, then by name.
pub(crate) fn all(shared: &Shared) -> Vec<Statistic> {
    let workers = &shared.counters[..];
    let mut list = Vec::with_capacity(64);
    let mut group = |group, numbers: Vec<(&str, u64)>| {
        list.extend(numbers.into_iter().map(|(name, value)| Statistic {
            group,
            name: name.to_owned(),
            value,
        }));
    };
    group("core", core(workers));
    group("shmem", shared_memory(&Memory::of_process()));
    let replies = Replies::of(workers);
    let names = NAMES.map(|name| format!("{name}_replies"));
    let mut sl: Vec<_> = names.iter().map(String::as_str).zip(replies.0).collect();
    sl.extend([
        ("received_ACKs", sum(workers, |w| &w.absorbed_acks)),
        ("sent_replies", replies.0.iter().sum()),
    ]);
    // Kamailio sorts by name, in which "xxx_replies" is the last.
    sl.sort_unstable_by_key(|(name, _)| *name);
    group("sl", sl);
    group("tcp", tcp(shared));
    list
}

fn core(workers: &[WorkerCounters]) -> Vec<(&'static str, u64)> {
    let total = |count: &dyn Fn(&WorkerCounters) -> u64| workers.iter().map(count).sum::<u64>();
    let of_method = |method| {
        total(&|w| {
            let wires = Wire::ALL.iter();
            wires.map(|&wire| w.wire(wire).requests.value(method)).sum()
        })
    };
    let dropped_replies = DropReason::ALL
        .iter()
        .filter(|reason| is_about_response(**reason));
    let dropped_replies = dropped_replies.map(|&reason| total(&|w| w.dropped.value(reason)));
    let relay_errors = RelayErrorKind::ALL.iter();
    let relay_errors = relay_errors.map(|&kind| total(&|w| w.relay_errors.value(kind)));
    vec![
        ("drop_replies", dropped_replies.sum()),
        (
            "drop_requests",
            total(&|w| w.verdicts.value(VerdictKind::Drop)),
        ),
        ("err_requests", relay_errors.sum()),
        ("fwd_replies", sum(workers, |w| &w.relayed_responses)),
        ("fwd_requests", sum(workers, |w| &w.relayed_requests)),
        ("rcv_replies", total(&WorkerCounters::received_responses)),
        (
            "rcv_requests",
            Method::ALL.iter().map(|&method| of_method(method)).sum(),
        ),
        ("rcv_requests_ack", of_method(Method::Ack)),
        ("rcv_requests_bye", of_method(Method::Bye)),
        ("rcv_requests_cancel", of_method(Method::Cancel)),
        ("rcv_requests_info", of_method(Method::Info)),
        ("rcv_requests_invite", of_method(Method::Invite)),
        ("rcv_requests_message", of_method(Method::Message)),
        ("rcv_requests_notify", of_method(Method::Notify)),
        ("rcv_requests_options", of_method(Method::Options)),
        ("rcv_requests_prack", of_method(Method::Prack)),
        ("rcv_requests_publish", of_method(Method::Publish)),
        ("rcv_requests_refer", of_method(Method::Refer)),
        ("rcv_requests_register", of_method(Method::Register)),
        ("rcv_requests_subscribe", of_method(Method::Subscribe)),
        ("rcv_requests_update", of_method(Method::Update)),
        ("unsupported_methods", of_method(Method::Other)),
    ]
}

fn is_about_response(reason: DropReason) -> bool {
    match reason {
        DropReason::BadResponse
        | DropReason::ForeignResponse
        | DropReason::ForgedResponse
        | DropReason::TurnedResponse
        | DropReason::LateResponse
        | DropReason::ResponseToUs
        | DropReason::NoWayBack => true,
        DropReason::KeepAlive
        | DropReason::NotSip
        | DropReason::SourcePortZero
        | DropReason::UnreadableVia
        | DropReason::BadAck => false,
    }
}

fn shared_memory(memory: &Memory) -> Vec<(&'static str, u64)> {
    vec![
        ("free_size", memory.free()),
        ("max_used_size", memory.most),
        ("real_used_size", memory.used),
        ("total_size", memory.total),
        ("used_size", memory.used),
    ]
}

fn tcp(shared: &Shared) -> Vec<(&'static str, u64)> {
    let workers = &shared.counters[..];
    let accepted = sum(workers, |w| &w.connections.accepted);
    let opened = sum(workers, |w| &w.connections.opened);
    let lost = |reason| workers.iter().map(|w| w.lost.value(reason)).sum();
    vec![
        (
            "connect_failed",
            sum(workers, |w| &w.connections.connect_errors),
        ),
        ("connect_success", opened),
        (
            "current_opened_connections",
            shared.connections.len() as u64,
        ),
        (
            "current_write_queue_size",
            shared.connections.waiting_bytes() as u64,
        ),
        ("established", accepted + opened),
        ("local_reject", lost(Lost::TooManyConnections)),
        ("passive_open", accepted),
        ("sendq_full", lost(Lost::QueueFull)),
    ]
}

fn sum(workers: &[WorkerCounters], pick: impl Fn(&WorkerCounters) -> &Counter) -> u64 {
    workers.iter().map(|worker| pick(worker).value()).sum()
}

impl Replies {
    /// Adds up those of all workers.
    pub(crate) fn of(workers: &[WorkerCounters]) -> Self {
        let mut replies = Self::default();
        for (code, n) in workers.iter().flat_map(|worker| worker.replies.iter()) {
            replies.0[place(code)] += n;
        }
        replies
    }

    /// The names and numbers, in Kamailio's order.
    pub(crate) fn named(&self) -> impl Iterator<Item = (&'static str, u64)> {
        NAMES.into_iter().zip(self.0)
    }
}

/// The index in [`NAMES`] of a code.
fn place(code: u16) -> usize {
    let own = code.to_string();
    let class = match code {
        200..=699 => format!("{}xx", code / 100),
        _ => "xxx".to_owned(),
    };
    let at = |name: &str| NAMES.iter().position(|other| *other == name);
    at(&own).or_else(|| at(&class)).unwrap_or(NAMES.len() - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_are_divided_as_in_kamailio() {
        // The codes and numbers of a run of Kamailio 5.6.3.
        let worker = WorkerCounters::default();
        for code in [
            100, 180, 200, 202, 299, 300, 303, 401, 401, 404, 486, 486, 500, 503, 603,
        ] {
            worker.replies.inc(code);
        }
        let replies = Replies::of(&[worker, WorkerCounters::default()]);
        let counted: Vec<_> = replies.named().filter(|(_, n)| *n > 0).collect();
        assert_eq!(
            counted,
            [
                ("200", 1),
                ("202", 1),
                ("2xx", 1),
                ("300", 1),
                ("3xx", 1),
                ("401", 2),
                ("404", 1),
                ("4xx", 2),
                ("500", 1),
                ("5xx", 1),
                ("6xx", 1),
                ("xxx", 2)
            ]
        );
    }
}
