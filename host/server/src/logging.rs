//! The log: text or JSON lines to standard error, written by a dedicated thread, so that a slow reader of the log never blocks a worker.
//!
//! Text from files, rows, peers and policies is data: it cannot write an escape sequence to a terminal, begin a line, or look like a field.
//!
//! Where systemd's journal reads standard error, each line begins with its level as `<4>` (sd-daemon(3)), which the journal takes off and stores as the
//! priority, so that `journalctl -p warning` finds it.

mod journal;

use std::borrow::Cow;
use std::fmt;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::SystemTime;

use tracing::field::Field;
use tracing::{Level, Metadata};
use tracing_subscriber::field::MakeExt;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::fmt::format::{self, Writer};
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Registry};

use journal::{Entries, Journal, SOCKET, priority};
use portcullis_config::{EventLevel, LogConfig, LogFormat};
use portcullis_export::{Listener, LiveEvents};
use portcullis_text::{clean, clean_json, rfc3339};

/// Number of lines that may wait for the writer. Further lines are dropped and counted.
const WAITING_LINES: usize = 8_192;

static LOST: OnceLock<Arc<AtomicU64>> = OnceLock::new();

static LIVE: OnceLock<Arc<LiveEvents>> = OnceLock::new();

/// The last events of this process.
pub fn live_events() -> Arc<LiveEvents> {
    Arc::clone(LIVE.get_or_init(LiveEvents::new))
}

/// Lines dropped since the start because the reader of the log was too slow.
pub fn lost_lines() -> u64 {
    LOST.get().map_or(0, |lost| lost.load(Ordering::Relaxed))
}

/// Starts the log of this process, and passes events of at least this level to a listener. Waiting lines are written, and the listener ended, when
/// the guard is dropped.
///
/// # Errors
/// When the level is not a valid filter, the journal cannot be reached, or a log was started before.
pub fn start(
    config: &LogConfig,
    listener: Option<(Listener, EventLevel)>,
) -> Result<LogGuard, String> {
    let filter = EnvFilter::try_new(&config.level).map_err(|error| error.to_string())?;
    let lines = Lines {
        are_json: config.format == LogFormat::Json,
        have_levels: config.format != LogFormat::Journal && is_read_by_journal(),
    };
    let (writer, mut guard) = match config.format {
        LogFormat::Journal => {
            let journal = Entries::connect(SOCKET).map_err(|error| {
                format!("[log] format: the journal cannot be reached ({SOCKET}): {error}")
            })?;
            background(journal, WAITING_LINES, lines)
        }
        LogFormat::Human | LogFormat::Json => {
            background(io::BufWriter::new(io::stderr()), WAITING_LINES, lines)
        }
    }
    .map_err(|error| error.to_string())?;
    let _first = LOST.set(Arc::clone(&writer.lost));
    let color =
        std::env::var_os("NO_COLOR").is_none() && io::IsTerminal::is_terminal(&io::stderr());
    let layer = tracing_subscriber::fmt::layer().with_ansi(color);
    let log: Box<dyn Layer<Registry> + Send + Sync> = match config.format {
        LogFormat::Human => layer
            .with_writer(writer)
            .with_target(false)
            .fmt_fields(format::debug_fn(write_field).delimited(" "))
            .boxed(),
        LogFormat::Json => layer.with_writer(writer).json().flatten_event(true).boxed(),
        LogFormat::Journal => Journal(writer).boxed(),
    };
    let live = live_events().listener();
    let set = match listener {
        None => tracing_subscriber::registry()
            .with(log.with_filter(filter))
            .with(live.with_filter(LevelFilter::INFO))
            .try_init(),
        Some((listener, level)) => {
            guard.listener = Some(listener.clone());
            let level = match level {
                EventLevel::Error => LevelFilter::ERROR,
                EventLevel::Warn => LevelFilter::WARN,
                EventLevel::Info => LevelFilter::INFO,
            };
            tracing_subscriber::registry()
                .with(log.with_filter(filter))
                .with(listener.with_filter(level))
                .with(live.with_filter(LevelFilter::INFO))
                .try_init()
        }
    };
    set.map_err(|error| error.to_string())?;
    Ok(guard)
}

/// Whether the journal reads standard error: systemd names the socket that it has connected there, as `DEVICE:INODE` in `JOURNAL_STREAM`.
fn is_read_by_journal() -> bool {
    let descriptor = io::stderr().as_fd().try_clone_to_owned();
    let file = descriptor.map(File::from);
    let Ok(found) = file.and_then(|file| file.metadata()) else {
        return false;
    };
    std::env::var("JOURNAL_STREAM").is_ok_and(|named| is_stream(&named, found.dev(), found.ino()))
}

fn is_stream(named: &str, device: u64, inode: u64) -> bool {
    named.split_once(':').is_some_and(|(of_device, of_inode)| {
        of_device.parse::<u64>() == Ok(device) && of_inode.parse::<u64>() == Ok(inode)
    })
}

/// Writes a field of a text line: the message as it is, others as `name=value`.
fn write_field(out: &mut Writer<'_>, field: &Field, value: &dyn fmt::Debug) -> fmt::Result {
    let text = format!("{value:?}");
    match (field.name(), out.has_ansi_escapes()) {
        ("message", _) => out.write_str(&clean(&text)),
        (name, false) => write!(out, "{name}={}", as_value(&text)),
        (name, true) => write!(
            out,
            "\x1b[3m{name}\x1b[0m\x1b[2m=\x1b[0m{}",
            as_value(&text)
        ),
    }
}

/// A value as one word or in quotes, so that its content cannot be taken for another field.
fn as_value(text: &str) -> Cow<'_, str> {
    let is_word = !text.contains([' ', '"', '=']);
    match is_word || is_quoted(text) {
        true => clean(text),
        false => Cow::Owned(clean(&format!("{text:?}")).into_owned()),
    }
}

/// Whether this is one quoted string with escaped quotes inside.
fn is_quoted(text: &str) -> bool {
    let inner = text
        .strip_prefix('"')
        .and_then(|text| text.strip_suffix('"'));
    let Some(inner) = inner else {
        return false;
    };
    let mut is_escaped = false;
    for c in inner.chars() {
        match c {
            _ if is_escaped => is_escaped = false,
            '\\' => is_escaped = true,
            '"' => return false,
            _ => {}
        }
    }
    !is_escaped
}

/// Ends the log when dropped, after writing what waits.
#[derive(Debug)]
pub struct LogGuard {
    end: SyncSender<Line>,
    thread: Option<JoinHandle<()>>,
    listener: Option<Listener>,
}

impl Drop for LogGuard {
    fn drop(&mut self) {
        if let Some(listener) = self.listener.take() {
            listener.end();
        }
        let _gone = self.end.send(Line::End);
        if let Some(thread) = self.thread.take() {
            let _panicked = thread.join();
        }
    }
}

enum Line {
    Text(Vec<u8>),
    End,
}

/// What the lines of the log are.
#[derive(Clone, Copy, Debug, Default)]
struct Lines {
    are_json: bool,
    /// Whether each begins with its priority in the journal.
    have_levels: bool,
}

impl Lines {
    /// What a line of this level begins with.
    fn head(self, level: Level) -> String {
        match self.have_levels {
            true => format!("<{}>", priority(level)),
            false => String::new(),
        }
    }
}

#[derive(Clone)]
struct Background {
    lines: SyncSender<Line>,
    lost: Arc<AtomicU64>,
    form: Lines,
    /// What the next line begins with.
    head: String,
}

impl Write for Background {
    /// Takes a whole line: the log writes each with one call.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let mut text = self.head.clone().into_bytes();
        match std::str::from_utf8(line) {
            Ok(line) if self.form.are_json => text.extend_from_slice(clean_json(line).as_bytes()),
            _ => text.extend_from_slice(line),
        }
        if let Err(TrySendError::Full(_)) = self.lines.try_send(Line::Text(text)) {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Background {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }

    fn make_writer_for(&'a self, event: &Metadata<'_>) -> Self {
        Self {
            head: self.form.head(*event.level()),
            ..self.clone()
        }
    }
}

fn background(
    sink: impl Write + Send + 'static,
    most: usize,
    form: Lines,
) -> io::Result<(Background, LogGuard)> {
    let (lines, waiting) = sync_channel(most);
    let lost = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&lost);
    let thread = std::thread::Builder::new()
        .name("log".into())
        .spawn(move || write_lines(&waiting, sink, &counted, form))?;
    let guard = LogGuard {
        end: lines.clone(),
        thread: Some(thread),
        listener: None,
    };
    let background = Background {
        lines,
        lost,
        form,
        head: String::new(),
    };
    Ok((background, guard))
}

/// Writes lines, and flushes when no more are waiting. If the sink is closed, lines are lost, with no other effect.
fn write_lines(waiting: &Receiver<Line>, mut sink: impl Write, lost: &AtomicU64, form: Lines) {
    let mut told = 0;
    let mut ended = false;
    while !ended {
        match waiting.recv() {
            Ok(Line::Text(line)) => {
                let _gone = sink.write_all(&line);
            }
            Ok(Line::End) | Err(_) => ended = true,
        }
        while let Ok(next) = waiting.try_recv() {
            match next {
                Line::Text(line) => {
                    let _gone = sink.write_all(&line);
                }
                Line::End => ended = true,
            }
        }
        let now = lost.load(Ordering::Relaxed);
        if now > told {
            // In one write: the journal takes each as an entry.
            let line = line_about_loss(now - told, form);
            let _gone = sink.write_all(line.as_bytes());
            told = now;
        }
        let _gone = sink.flush();
    }
}

/// What the log says about lines that it has lost, in the form of the other lines.
fn line_about_loss(lines: u64, form: Lines) -> String {
    let head = form.head(Level::WARN);
    let text = format!("{lines} log lines were lost: the log is read too slowly");
    if !form.are_json {
        return format!("{head}{text}\n");
    }
    let line = serde_json::json!({
        "timestamp": rfc3339(SystemTime::now()),
        "level": "WARN",
        "message": text,
        "lost": lines,
    });
    format!("{head}{line}\n")
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[derive(Clone, Default)]
    struct Sink(Arc<Mutex<Vec<u8>>>);

    impl Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn lines_arrive_whole_and_in_order() {
        let sink = Sink::default();
        let (mut writer, guard) = background(sink.clone(), 100, Lines::default()).unwrap();
        for n in 0..100 {
            writer.write_all(format!("line {n}\n").as_bytes()).unwrap();
        }
        drop(guard);
        let expected: String = (0..100).map(|n| format!("line {n}\n")).collect();
        assert_eq!(
            String::from_utf8(sink.0.lock().unwrap().clone()).unwrap(),
            expected
        );
    }

    #[test]
    fn a_sink_that_blocks_loses_lines_and_says_how_many() {
        let sink = Sink::default();
        let hold = sink.0.lock().unwrap();
        let (mut writer, guard) = background(sink.clone(), 100, Lines::default()).unwrap();
        // 100 lines wait and one may be on its way already: the others find the queue full.
        let long = vec![b'x'; 9_000];
        for _ in 0..200 {
            writer.write_all(&long).unwrap();
        }
        let lost = writer.lost.load(Ordering::Relaxed);
        assert!((99..=100).contains(&lost), "{lost}");
        drop(hold);
        drop(guard);
        let text = String::from_utf8(sink.0.lock().unwrap().clone()).unwrap();
        let kept = text.matches('x').count() / long.len();
        assert_eq!(kept as u64 + lost, 200);
        assert!(text.ends_with(&format!(
            "{lost} log lines were lost: the log is read too slowly\n"
        )));
    }

    #[test]
    fn lost_lines_do_not_break_a_log_in_json() {
        let sink = Sink::default();
        let hold = sink.0.lock().unwrap();
        let form = Lines {
            are_json: true,
            have_levels: false,
        };
        let (mut writer, guard) = background(sink.clone(), 1, form).unwrap();
        for _ in 0..10 {
            writer.write_all(b"{\"level\":\"INFO\"}\n").unwrap();
        }
        let lost = writer.lost.load(Ordering::Relaxed);
        assert!(lost > 0);
        drop(hold);
        drop(guard);
        let text = String::from_utf8(sink.0.lock().unwrap().clone()).unwrap();
        let lines: Vec<serde_json::Value> = text
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        let last = lines.last().unwrap();
        assert_eq!(
            (&last["level"], &last["lost"]),
            (&"WARN".into(), &lost.into())
        );
        assert_eq!(lines.len() as u64 + lost, 11);
    }

    const HOSTILE: &str = "x\u{1b}[2J\r\nERROR forged\u{9b}\u{202e}\u{7f}\" tenant=\"other\"";

    /// What is written of an event with hostile text as message, as a string and as a displayed field.
    fn written(is_json: bool) -> String {
        let sink = Sink::default();
        let form = Lines {
            are_json: is_json,
            have_levels: false,
        };
        let (writer, guard) = background(sink.clone(), 100, form).unwrap();
        let builder = tracing_subscriber::fmt().with_writer(writer);
        let event = || {
            tracing::info!(text = HOSTILE, shown = %HOSTILE, error = %io::Error::other(HOSTILE), "{HOSTILE}");
        };
        if is_json {
            let log = builder.json().flatten_event(true).finish();
            tracing::subscriber::with_default(log, event);
        } else {
            let fields = format::debug_fn(write_field).delimited(" ");
            let log = builder.with_ansi(false).fmt_fields(fields).finish();
            tracing::subscriber::with_default(log, event);
        }
        drop(guard);
        let bytes = sink.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn foreign_text_stays_in_its_place() {
        let human = written(false);
        let line = human.strip_suffix('\n').unwrap();
        assert!(!line.chars().any(portcullis_text::is_active), "{human}");
        // Once in the message, which is text; behind the fields' names it is within quotes.
        let (_, fields) = line.split_once(" text=").unwrap();
        assert!(!fields.contains(" tenant=\"other"), "{fields}");
        assert_eq!(fields.matches("tenant=\\\"other").count(), 3, "{fields}");

        let json = written(true);
        let line = json.strip_suffix('\n').unwrap();
        assert!(!line.chars().any(portcullis_text::is_active), "{json}");
        let read: serde_json::Value = serde_json::from_str(line).unwrap();
        assert_eq!(read["text"], HOSTILE);
        assert_eq!(read["message"], HOSTILE);
    }

    #[test]
    fn for_the_journal_each_line_begins_with_its_priority() {
        for are_json in [false, true] {
            let sink = Sink::default();
            let form = Lines {
                are_json,
                have_levels: true,
            };
            let (writer, guard) = background(sink.clone(), 100, form).unwrap();
            let builder = tracing_subscriber::fmt()
                .with_writer(writer)
                .with_max_level(Level::TRACE);
            let events = || {
                tracing::error!("one");
                tracing::warn!("two");
                tracing::info!("three");
                tracing::debug!("four");
                tracing::trace!("five");
            };
            if are_json {
                tracing::subscriber::with_default(builder.json().finish(), events);
            } else {
                tracing::subscriber::with_default(builder.with_ansi(false).finish(), events);
            }
            drop(guard);
            let bytes = sink.0.lock().unwrap().clone();
            let text = String::from_utf8(bytes).unwrap();
            let heads: Vec<_> = text.lines().map(|line| &line[..3]).collect();
            assert_eq!(heads, ["<3>", "<4>", "<6>", "<7>", "<7>"], "{text}");
        }
    }

    #[test]
    fn the_journal_is_recognised_by_device_and_inode() {
        assert!(is_stream("8:417", 8, 417));
        for other in ["8:418", "9:417", "8", "", "8:", "8:417:1", "a:b"] {
            assert!(!is_stream(other, 8, 417), "{other}");
        }
    }

    #[test]
    fn values_are_quoted_where_they_would_not_be_one() {
        for (text, shown) in [
            ("word", "word"),
            ("10.0.0.1:5060", "10.0.0.1:5060"),
            ("\"a b\"", "\"a b\""),
            ("a b", "\"a b\""),
            ("a=b", "\"a=b\""),
            ("\"a\" b=\"c\"", r#""\"a\" b=\"c\"""#),
            ("\"a\\\"", r#""\"a\\\"""#),
        ] {
            assert_eq!(as_value(text), shown);
        }
    }
}
