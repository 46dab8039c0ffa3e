//! Copies of messages for a capture server such as Homer, in HEP version 3 over UDP: every message that the host receives and sends, and
//! its decisions as lines of a log.
//!
//! A worker writes the packet into a queue of bounded size and never waits; a thread sends. What has no room is lost and counted.

#![forbid(unsafe_code)]
#![warn(clippy::wildcard_enum_match_arm)]

mod error;
mod hep;
mod names;
mod sender;
mod stats;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::SystemTime;

use portcullis_config::CaptureConfig;
use portcullis_policy::{Share, ShareKey};

pub use error::CaptureError;
pub use hep::{Agent, Kind, Way, packet};
pub use stats::CaptureStats;

use names::Names;
use sender::Sender;

/// Selects messages and passes copies of them to the thread that sends.
#[derive(Debug)]
pub struct Capture {
    agent: Agent,
    share: Share,
    share_key: ShareKey,
    skipped: Vec<String>,
    verdicts: bool,
    sender: Sender,
    stats: Arc<CaptureStats>,
}

impl Capture {
    /// Starts the thread. Returns `None` if no server is configured. Hosts with the same key select the same calls.
    ///
    /// # Errors
    /// If no socket can be opened or no thread be started.
    pub fn start(
        config: &CaptureConfig,
        share_key: ShareKey,
    ) -> Result<Option<Self>, CaptureError> {
        let Some(server) = config.hep else {
            return Ok(None);
        };
        let stats = Arc::new(CaptureStats::default());
        Ok(Some(Self {
            agent: Agent {
                id: config.agent,
                node: config.node.clone(),
                password: config.password.clone(),
            },
            share: config.share,
            share_key,
            skipped: config.skip_methods.clone(),
            verdicts: config.verdicts,
            sender: Sender::start(server, config.queue, Arc::clone(&stats))?,
            stats,
        }))
    }

    /// Whether decisions are captured.
    #[inline]
    pub fn has_verdicts(&self) -> bool {
        self.verdicts
    }

    /// Captures a message that was received or is sent.
    #[cold]
    pub fn message(&self, way: &Way, bytes: &[u8]) {
        // A keep-alive, or its answer.
        if bytes.trim_ascii().is_empty() {
            return;
        }
        let names = Names::of(bytes);
        if self.selects(&names) {
            self.send(Kind::Sip, way, names.call_id, bytes);
        }
    }

    /// Captures what happened to a message. The text is written only if the message is selected.
    #[cold]
    pub fn log<T: AsRef<[u8]>>(&self, way: &Way, message: &[u8], text: impl FnOnce() -> T) {
        let names = Names::of(message);
        if self.selects(&names) {
            self.send(
                Kind::Log,
                way,
                names.call_id,
                text().as_ref().trim_ascii_end(),
            );
        }
    }

    fn selects(&self, names: &Names<'_>) -> bool {
        let is_skipped = |method: &String| method.as_bytes() == names.method;
        !self.skipped.iter().any(is_skipped)
            && (self.share == Share::ALL || self.share.holds(names.call_id, &self.share_key))
    }

    fn send(&self, kind: Kind, way: &Way, call_id: &[u8], payload: &[u8]) {
        let now = SystemTime::now();
        match packet(&self.agent, kind, way, now, call_id, payload) {
            Some(packet) => self.sender.send(packet),
            None => {
                self.stats.too_long.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// The statistics.
    pub fn stats(&self) -> &CaptureStats {
        &self.stats
    }
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;
    use std::time::Duration;

    use portcullis_sip::Transport;

    use super::*;

    fn message(method: &str, call_id: &str) -> Vec<u8> {
        format!("{method} sip:a@b SIP/2.0\r\nCall-ID: {call_id}\r\nCSeq: 1 {method}\r\n\r\n").into()
    }

    #[test]
    fn selected_messages_reach_the_server() {
        let server = UdpSocket::bind("127.0.0.1:0").unwrap();
        server
            .set_read_timeout(Some(Duration::from_secs(30)))
            .unwrap();
        let config = CaptureConfig {
            hep: Some(server.local_addr().unwrap()),
            skip_methods: vec!["OPTIONS".into()],
            ..CaptureConfig::default()
        };
        let capture = Capture::start(&config, ShareKey::random())
            .unwrap()
            .unwrap();
        let way = Way {
            transport: Transport::Udp,
            from: "192.0.2.1:5060".parse().unwrap(),
            to: "192.0.2.2:5060".parse().unwrap(),
        };
        capture.message(&way, b"\r\n\r\n");
        capture.message(&way, &message("OPTIONS", "a"));
        capture.message(&way, &vec![b'x'; 70_000]);
        capture.message(&way, &message("INVITE", "b"));
        capture.log(&way, &message("OPTIONS", "a"), || -> String {
            unreachable!("it is not selected")
        });
        capture.log(&way, &message("INVITE", "b"), || "relayed");
        let mut buffer = [0; 65_536];
        let mut received = || {
            let length = server.recv(&mut buffer).unwrap();
            String::from_utf8_lossy(&buffer[..length]).into_owned()
        };
        assert!(received().contains("INVITE sip:a@b"));
        assert!(received().ends_with("relayed"));
        let stats = capture.stats();
        assert_eq!(stats.lost(), [("queue", 0), ("size", 1), ("error", 0)]);
    }

    #[test]
    fn a_share_selects_whole_calls() {
        let server = UdpSocket::bind("127.0.0.1:0").unwrap();
        let config = CaptureConfig {
            hep: Some(server.local_addr().unwrap()),
            share: Share::parse("50%").unwrap(),
            ..CaptureConfig::default()
        };
        let capture = Capture::start(&config, ShareKey::random())
            .unwrap()
            .unwrap();
        let selected = (0..400).filter(|number| {
            let call_id = number.to_string();
            let [invite, bye] = ["INVITE", "BYE"].map(|method| message(method, &call_id));
            let of = |bytes| capture.selects(&Names::of(bytes));
            assert_eq!(of(&invite), of(&bye));
            of(&invite)
        });
        let count = selected.count();
        assert!((100..300).contains(&count), "{count}");
    }
}
