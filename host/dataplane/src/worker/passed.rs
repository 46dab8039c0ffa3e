//! What another process passes on to a worker that has left its sockets to it.

use std::cell::RefCell;
use std::io::ErrorKind;
use std::rc::Rc;

use tokio::net::UnixDatagram;
use tokio::task::yield_now;
use tracing::warn;

use super::Worker;
use super::udp::{SLICE, flush_all};
use crate::link::{self, Passed};

/// Messages taken before others get their turn.
const TURN: usize = 64;

/// Handles what comes over the link, until the worker ends.
pub(super) async fn receive(worker: Rc<RefCell<Worker>>, link: UnixDatagram) {
    let mut buffer = link::buffer();
    loop {
        let mut received = link.readable().await;
        worker.borrow_mut().pipeline.refresh();
        for _ in 0..TURN {
            let length = match received.and_then(|()| link.try_recv(&mut buffer)) {
                // The new process has ended.
                Ok(0) => return,
                Ok(length) => length,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => {
                    warn!(event = "link_failed", %error, "messages of the new process cannot be received");
                    return;
                }
            };
            received = Ok(());
            let passed = Passed::read(buffer.get(..length).unwrap_or_default());
            take(&mut worker.borrow_mut(), passed);
        }
        while !worker.borrow().waiting.is_empty() {
            worker.borrow_mut().decide_waiting(SLICE);
            yield_now().await;
        }
        flush_all(&worker).await;
    }
}

fn take(worker: &mut Worker, passed: Option<Passed<'_>>) {
    match passed {
        Some(Passed::Message {
            bytes,
            arrival,
            framing,
        }) => {
            if !arrival.transport.is_reliable() {
                worker
                    .pipeline
                    .received_datagram(arrival.source, bytes.len());
            }
            worker.taken_over(bytes.to_vec(), &arrival, framing);
        }
        Some(Passed::Undelivered(branch)) => {
            worker.pipeline.fail_branch(branch);
            worker.send_transactions();
        }
        // Of another version.
        None => {}
    }
}
