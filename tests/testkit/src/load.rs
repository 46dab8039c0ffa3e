//! Background traffic of a test: callers that send requests, wait for responses, and count them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;

use crate::host::Host;
use crate::sip::Caller;
use crate::wait;

/// Running callers.
#[derive(Debug)]
pub struct Load {
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicU64>,
    callers: Vec<JoinHandle<Report>>,
}

/// Result of the callers.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Requests sent. Each was answered, or the test has panicked.
    pub sent: u64,
    /// Answers by status code.
    pub answers: BTreeMap<u16, u64>,
    /// Start lines of answers, one of each.
    pub start_lines: BTreeMap<String, u64>,
    /// Answers that came a second time.
    pub duplicates: u64,
}

impl Load {
    /// Starts `callers` callers over UDP and as many over TCP on 127.a.b.`source`, each asking without a pause.
    pub fn start(host: &Host, source: u8, callers: usize) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let answered = Arc::new(AtomicU64::new(0));
        let callers = (0..callers)
            .flat_map(|_| [host.udp(source), host.tcp(source)])
            .map(|caller| {
                let (stop, answered) = (stop.clone(), answered.clone());
                std::thread::spawn(move || ask_until(caller, &stop, &answered))
            })
            .collect();
        Self {
            stop,
            answered,
            callers,
        }
    }

    /// Returns when this many further requests have been answered.
    pub fn wait_for(&self, requests: u64) {
        let goal = self.answered.load(Ordering::Relaxed) + requests;
        wait::until("the load goes on", || {
            (self.answered.load(Ordering::Relaxed) >= goal).then_some(())
        });
    }

    /// Stops the callers, and returns the sum of their results.
    ///
    /// # Panics
    /// If a request had no response.
    pub fn stop(self) -> Report {
        self.stop.store(true, Ordering::Relaxed);
        let mut sum = Report::default();
        for caller in self.callers {
            let report = caller.join().expect("every request is answered");
            sum.sent += report.sent;
            sum.duplicates += report.duplicates;
            for (code, count) in report.answers {
                *sum.answers.entry(code).or_default() += count;
            }
            for (line, count) in report.start_lines {
                *sum.start_lines.entry(line).or_default() += count;
            }
        }
        sum
    }
}

fn ask_until(mut caller: Caller, stop: &AtomicBool, answered: &AtomicU64) -> Report {
    let mut report = Report::default();
    let mut last = String::new();
    while !stop.load(Ordering::Relaxed) {
        let request = caller.request("MESSAGE", "sip:bob@example.com");
        caller.send(&request.bytes());
        report.sent += 1;
        let answer = loop {
            let answer = caller.receive();
            let call_id = answer.header("Call-ID").unwrap_or_default();
            if call_id == request.call_id {
                break answer;
            }
            assert_eq!(call_id, last, "an answer to nothing that was asked");
            report.duplicates += 1;
        };
        last = request.call_id;
        *report.answers.entry(answer.code()).or_default() += 1;
        *report
            .start_lines
            .entry(answer.start_line().to_owned())
            .or_default() += 1;
        answered.fetch_add(1, Ordering::Relaxed);
    }
    if !caller.hears_nothing() {
        report.duplicates += 1;
    }
    report
}
