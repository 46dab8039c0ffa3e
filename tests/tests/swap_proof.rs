//! Hundreds of swaps under load, over UDP and TCP, valid and broken files mixed: no request is lost, answered twice or evaluated by an
//! incomplete policy, no worker returns to an older generation, and no resources leak.
//!
//! `PORTCULLIS_SWAPS` makes it longer.

#![forbid(unsafe_code)]

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use portcullis_testkit::guests::rejecting;
use portcullis_testkit::host::{Builder, Host};
use portcullis_testkit::load::Load;
use portcullis_testkit::sip::Caller;

/// Default number of valid files that are pushed; as many broken ones are pushed between them.
const SWAPS: u64 = 120;

/// Callers on each transport.
const CALLERS: u8 = 3;

/// How much more memory the process may have at the end than after the first half. By then it has used all slots of the pool that it will
/// use, and they stay mapped. A leak of each swap would exceed this in the second half.
const GROWTH_MIB: u64 = 48;
const MORE_MAPS: usize = 32;

/// A request to the control port is pending, and another thread that loads tables has started. There are as many of these as concurrent
/// loads.
const MORE_FILES: usize = 12;

#[test]
fn hundreds_of_swaps_lose_no_request_and_leak_nothing() {
    let swaps = swaps();
    let host = Builder::new()
        .workers(2)
        // Wall time, and the machines of tests are shared.
        .set("policy", "deadline = \"10s\"")
        .set("policy", "compile-time = \"60s\"")
        .set("tenants.acme", "uri-domains = [\"acme.example\"]")
        .set("log", "level = \"error\"")
        .start();
    push(&host, 1);
    let stop = AtomicBool::new(false);
    let asked = AtomicU64::new(0);
    let begun = Instant::now();
    let (mut early, mut late) = (None, None);
    // In addition to callers that check each response, this one adds load for the operator's policy.
    let load = Load::start(&host, 40, 8);
    std::thread::scope(|threads| {
        let _stop = StopOnDrop(&stop);
        for number in 0..CALLERS {
            for mut caller in [host.udp(10 + number), host.tcp(20 + number)] {
                let (stop, asked) = (&stop, &asked);
                threads.spawn(move || watch(&mut caller, stop, asked));
            }
        }
        for generation in 2..=swaps {
            let (status, told) = host.push("acme", "arrival=activate", &broken(generation));
            assert_eq!(status, 422, "{told}");
            push(&host, generation);
            if generation == swaps.div_ceil(2) {
                early = Some((host.memory_mib(), host.maps_and_files()));
            }
        }
        late = Some((host.memory_mib(), host.maps_and_files()));
    });
    let seconds = begun.elapsed().as_secs_f64();
    let report = load.stop();
    let (asked, made) = (asked.into_inner(), report.sent);
    println!(
        "{swaps} swaps in {seconds:.1} s under {:.0} requests a second; MiB, (maps, files): {early:?}, then {late:?}",
        (asked + made) as f64 / seconds
    );
    assert_eq!(report.answers.values().sum::<u64>(), report.sent);
    assert_eq!(report.duplicates, 0);
    assert_eq!(host.metric("portcullis_policy_failures_total", &[]), 0.0);
    let status = host.run("policy status acme");
    assert!(
        status.contains(&format!("generation:   {swaps}\n")),
        "{status}"
    );
    nothing_is_left_behind(early, late);
}

/// Memory in MiB, maps and open files, after the first half and at the end.
type Taken = Option<(u64, (usize, usize))>;

fn nothing_is_left_behind(early: Taken, late: Taken) {
    let (Some((memory, (maps, files))), Some((memory_now, (maps_now, files_now)))) = (early, late)
    else {
        panic!("there were no swaps");
    };
    assert!(
        memory_now <= memory + GROWTH_MIB,
        "memory: {memory}, then {memory_now} MiB"
    );
    assert!(
        maps_now <= maps + MORE_MAPS,
        "mappings: {maps}, then {maps_now}"
    );
    assert!(
        files_now <= files + MORE_FILES,
        "open files: {files}, then {files_now}"
    );
}

/// Sends requests. Every response must be that of a complete generation, and generations must not go backwards, because a flow stays with
/// its worker.
fn watch(caller: &mut Caller, stop: &AtomicBool, asked: &AtomicU64) {
    let mut last = 0;
    while !stop.load(Ordering::Relaxed) {
        let request = caller.request("MESSAGE", "sip:bob@acme.example");
        let answer = caller.ask(&request);
        let line = answer.start_line();
        let generation = line.strip_prefix("SIP/2.0 480 generation ");
        let generation = generation.and_then(|number| number.parse::<u64>().ok());
        let generation = generation.unwrap_or_else(|| panic!("{line}"));
        assert!(generation >= last, "{generation} after {last}");
        last = generation;
        asked.fetch_add(1, Ordering::Relaxed);
    }
    assert!(caller.hears_nothing(), "no answer comes twice");
}

/// Pushes a generation, whose number is that of the file: no number is skipped or used twice.
fn push(host: &Host, generation: u64) {
    let policy = rejecting(480, &format!("generation {generation}"));
    let (status, told) = host.push("acme", "arrival=activate", &policy);
    assert_eq!(status, 201, "{told}");
    assert_eq!(told["generation"], generation, "{told}");
    assert_eq!(told["live_on_all_workers"], true, "{told}");
}

/// Returns a file that is broken in one of many ways: truncated, or with other bytes in it.
fn broken(number: u64) -> Vec<u8> {
    let mut policy = rejecting(480, &format!("generation {number}"));
    let length = policy.len() as u64;
    match number % 2 {
        0 => policy.truncate((number * 7 % length) as usize),
        _ => policy[8 + (number * 13 % 16) as usize] ^= 0xff,
    }
    policy
}

fn swaps() -> u64 {
    let Ok(text) = std::env::var("PORTCULLIS_SWAPS") else {
        return SWAPS;
    };
    text.parse()
        .unwrap_or_else(|_| panic!("PORTCULLIS_SWAPS={text}: a whole number is needed"))
}

struct StopOnDrop<'t>(&'t AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
