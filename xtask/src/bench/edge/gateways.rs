//! Gateways that answer every request with 200 until they fail, all at the same time.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// How they fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// Nobody listens any more: the system says so (ICMP).
    Closed,
    /// They never answer again.
    Silent,
}

/// Gateways that can fail. Their sockets are closed at the end of this value.
#[derive(Debug)]
pub(super) struct Gateways {
    failure: Failure,
    has_failed: Arc<AtomicBool>,
    threads: Vec<JoinHandle<UdpSocket>>,
    /// Those that are silent.
    silent: Vec<UdpSocket>,
}

/// How long a thread waits for a request before it looks whether it has to fail.
const LOOK: Duration = Duration::from_millis(20);

/// Header fields that a 200 repeats (RFC 3261 §8.2.6.2).
const COPIED: [&str; 6] = ["via:", "record-route:", "from:", "to:", "call-id:", "cseq:"];

impl Gateways {
    /// Starts a gateway at each of these addresses. Each gets a few requests per second, so a thread of its own is no load.
    ///
    /// # Errors
    /// If an address is taken.
    pub(super) fn start(
        addresses: impl Iterator<Item = SocketAddr>,
        failure: Failure,
    ) -> io::Result<Self> {
        let has_failed = Arc::new(AtomicBool::new(false));
        let threads = addresses.map(|address| {
            let socket = UdpSocket::bind(address)?;
            socket.set_read_timeout(Some(LOOK))?;
            let has_failed = Arc::clone(&has_failed);
            Ok(std::thread::spawn(move || serve(socket, &has_failed)))
        });
        let threads = threads.collect::<io::Result<_>>()?;
        Ok(Self {
            failure,
            has_failed,
            threads,
            silent: Vec::new(),
        })
    }

    /// Lets all of them fail.
    pub(super) fn fail(&mut self) {
        self.has_failed.store(true, Ordering::Relaxed);
        let ended = self
            .threads
            .drain(..)
            .filter_map(|thread| thread.join().ok());
        let sockets: Vec<_> = ended.collect();
        match self.failure {
            Failure::Closed => drop(sockets),
            Failure::Silent => self.silent = sockets,
        }
    }
}

impl Drop for Gateways {
    fn drop(&mut self) {
        self.fail();
    }
}

/// Answers requests until the gateways fail.
fn serve(socket: UdpSocket, has_failed: &AtomicBool) -> UdpSocket {
    let mut buffer = [0; 65_536];
    while !has_failed.load(Ordering::Relaxed) {
        // The time is over, or the system reports an answer that was not delivered.
        let Ok((count, from)) = socket.recv_from(&mut buffer) else {
            continue;
        };
        let request = String::from_utf8_lossy(&buffer[..count]);
        if !request.starts_with("ACK ") {
            let _lost = socket.send_to(ok_to(&request).as_bytes(), from);
        }
    }
    socket
}

/// The 200 to a request.
fn ok_to(request: &str) -> String {
    let mut text = "SIP/2.0 200 OK\r\n".to_owned();
    for line in request.lines().take_while(|line| !line.is_empty()) {
        let lower = line.to_ascii_lowercase();
        if !COPIED.iter().any(|name| lower.starts_with(name)) {
            continue;
        }
        text.push_str(line);
        if lower.starts_with("to:") && !lower.contains(";tag=") {
            text.push_str(";tag=gateway");
        }
        text.push_str("\r\n");
    }
    text + "Contact: <sip:gateway@127.0.0.1>\r\nContent-Length: 0\r\n\r\n"
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;
    use std::net::Ipv4Addr;

    use super::*;

    #[test]
    fn they_answer_until_they_fail() {
        for failure in [Failure::Closed, Failure::Silent] {
            let free = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
            let address = free.local_addr().unwrap();
            drop(free);
            let mut gateways = Gateways::start([address].into_iter(), failure).unwrap();
            let caller = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
            caller.connect(address).unwrap();
            caller
                .set_read_timeout(Some(Duration::from_secs(30)))
                .unwrap();
            let ask =
                || caller.send(b"OPTIONS sip:a SIP/2.0\r\nVia: x\r\nTo: <sip:a>\r\nX: y\r\n\r\n");
            ask().unwrap();
            let mut buffer = [0; 1_000];
            let count = caller.recv(&mut buffer).unwrap();
            let answer = String::from_utf8_lossy(&buffer[..count]);
            assert!(
                answer
                    .starts_with("SIP/2.0 200 OK\r\nVia: x\r\nTo: <sip:a>;tag=gateway\r\nContact"),
                "{answer}"
            );
            gateways.fail();
            caller
                .set_read_timeout(Some(Duration::from_millis(100)))
                .unwrap();
            ask().unwrap();
            let error = caller.recv(&mut buffer).unwrap_err().kind();
            assert_eq!(
                error == ErrorKind::ConnectionRefused,
                failure == Failure::Closed,
                "{error:?}"
            );
        }
    }
}
