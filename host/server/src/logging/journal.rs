//! The log in the native protocol of systemd's journal: each field of an event is a field of the entry, so that `journalctl CALL_ID=…` finds
//! it.
//!
//! An entry is one datagram of lines `NAME=value`. A value with a line break is preceded by its length instead, so that no text from outside
//! can begin a field.

use std::fmt;
use std::io::{self, Write};
use std::os::unix::net::UnixDatagram;
use std::path::Path;

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::Context;

/// The socket of the journal.
pub(super) const SOCKET: &str = "/run/systemd/journal/socket";

/// What each entry begins with.
const PRIORITY: &str = "PRIORITY=";

/// Longest name of a field.
const LONGEST_NAME: usize = 64;

/// Formats events as entries, and passes each to a writer.
pub(super) struct Journal<W>(pub(super) W);

/// Sends each write as an entry.
pub(super) struct Entries(UnixDatagram);

impl Entries {
    pub(super) fn connect(path: impl AsRef<Path>) -> io::Result<Self> {
        let socket = UnixDatagram::unbound()?;
        socket.connect(path)?;
        Ok(Self(socket))
    }
}

impl Write for Entries {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.starts_with(PRIORITY.as_bytes()) {
            self.0.send(bytes)?;
            return Ok(bytes.len());
        }
        // What the log says about itself.
        let mut entry = begin(Level::WARN);
        add(&mut entry, "message", String::from_utf8_lossy(bytes).trim());
        self.0.send(&entry)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<S, W> Layer<S> for Journal<W>
where
    S: Subscriber,
    W: for<'w> MakeWriter<'w> + 'static,
{
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let metadata = event.metadata();
        let mut entry = Entry(begin(*metadata.level()));
        add(&mut entry.0, "target", metadata.target());
        event.record(&mut entry);
        let _lost = self.0.make_writer().write_all(&entry.0);
    }
}

/// The priority of a level (syslog(3)).
pub(super) fn priority(level: Level) -> u8 {
    match level {
        Level::ERROR => 3,
        Level::WARN => 4,
        Level::INFO => 6,
        Level::DEBUG | Level::TRACE => 7,
    }
}

fn begin(level: Level) -> Vec<u8> {
    let priority = priority(level);
    format!("{PRIORITY}{priority}\nSYSLOG_IDENTIFIER=portcullis\n").into_bytes()
}

struct Entry(Vec<u8>);

impl Visit for Entry {
    fn record_str(&mut self, field: &Field, value: &str) {
        add(&mut self.0, field.name(), value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        add(&mut self.0, field.name(), &format!("{value:?}"));
    }
}

/// Adds a field. Its name is in upper case, and has letters, digits and underscores only.
fn add(entry: &mut Vec<u8>, name: &str, value: &str) {
    let name: String = name
        .trim_start_matches('_')
        .chars()
        .take(LONGEST_NAME)
        .map(|c| match c.is_ascii_alphanumeric() {
            true => c.to_ascii_uppercase(),
            false => '_',
        })
        .collect();
    entry.extend_from_slice(name.as_bytes());
    if value.contains('\n') {
        entry.push(b'\n');
        entry.extend_from_slice(&(value.len() as u64).to_le_bytes());
    } else {
        entry.push(b'=');
    }
    entry.extend_from_slice(value.as_bytes());
    entry.push(b'\n');
}

#[cfg(test)]
mod tests {
    use tracing_subscriber::layer::SubscriberExt;

    use super::*;

    #[test]
    fn each_field_is_a_field_of_the_entry() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let journal = UnixDatagram::bind(&path).unwrap();
        let writer = move || Entries::connect(&path).unwrap();
        let log = tracing_subscriber::registry().with(Journal(writer));
        tracing::subscriber::with_default(log, || {
            tracing::warn!(
                event = "next_hop_down",
                call_id = "a@b\nPRIORITY=0",
                count = 3,
                next_hop = %"192.0.2.1:5060",
                "next hop down"
            );
        });
        let mut buffer = [0; 4096];
        let length = journal.recv(&mut buffer).unwrap();
        let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines[0], "PRIORITY=4");
        for line in [
            "SYSLOG_IDENTIFIER=portcullis",
            "MESSAGE=next hop down",
            "EVENT=next_hop_down",
            "COUNT=3",
            "NEXT_HOP=192.0.2.1:5060",
        ] {
            assert!(lines.contains(&line), "{line} in {text}");
        }
        // The length says where the value ends.
        assert!(
            text.contains("CALL_ID\n\u{e}\0\0\0\0\0\0\0a@b\nPRIORITY=0\n"),
            "{text:?}"
        );
    }

    #[test]
    fn what_the_log_says_about_itself_is_an_entry() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let journal = UnixDatagram::bind(&path).unwrap();
        let mut entries = Entries::connect(&path).unwrap();
        entries.write_all(b"3 log lines were lost\n").unwrap();
        let mut buffer = [0; 4096];
        let length = journal.recv(&mut buffer).unwrap();
        let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
        assert!(
            text.ends_with("\nMESSAGE=3 log lines were lost\n"),
            "{text}"
        );
    }
}
