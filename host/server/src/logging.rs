//! The log: text or JSON lines to standard error, written by a dedicated thread, so that a slow reader of the log never blocks a worker.
//!
//! Text from files, rows, peers and policies is data: it cannot write an escape sequence to a terminal, begin a line, or look like a field.

mod journal;

use std::borrow::Cow;
use std::fmt;
use std::io::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::SystemTime;

use tracing::field::Field;
use tracing_subscriber::field::MakeExt;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::fmt::format::{self, Writer};
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Registry};

use journal::{Entries, Journal, SOCKET};
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
    let is_json = config.format == LogFormat::Json;
    let (writer, mut guard) = match config.format {
        LogFormat::Journal => {
            let journal = Entries::connect(SOCKET).map_err(|error| {
                format!("[log] format: the journal cannot be reached ({SOCKET}): {error}")
            })?;
            background(journal, WAITING_LINES, false)
        }
        LogFormat::Human | LogFormat::Json => {
            background(io::BufWriter::new(io::stderr()), WAITING_LINES, is_json)
        }
    }
    .map_err(|error| error.to_string())?;
    let _first = LOST.set(Arc::clone(&writer.lost));
    let color =
        std::env::var_os("NO_COLOR").is_none() && io::IsTerminal::is_terminal(&io::stderr());
    let lines = tracing_subscriber::fmt::layer().with_ansi(color);
    let log: Box<dyn Layer<Registry> + Send + Sync> = match config.format {
        LogFormat::Human => lines
            .with_writer(writer)
            .with_target(false)
            .fmt_fields(format::debug_fn(write_field).delimited(" "))
            .boxed(),
        LogFormat::Json => lines.with_writer(writer).json().flatten_event(true).boxed(),
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

#[derive(Clone)]
struct Background {
    lines: SyncSender<Line>,
    lost: Arc<AtomicU64>,
    is_json: bool,
}

impl Write for Background {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let text = match std::str::from_utf8(line) {
            Ok(text) if self.is_json => clean_json(text).into_owned().into_bytes(),
            _ => line.to_vec(),
        };
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
}

fn background(
    sink: impl Write + Send + 'static,
    most: usize,
    is_json: bool,
) -> io::Result<(Background, LogGuard)> {
    let (lines, waiting) = sync_channel(most);
    let lost = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&lost);
    let thread = std::thread::Builder::new()
        .name("log".into())
        .spawn(move || write_lines(&waiting, sink, &counted, is_json))?;
    let guard = LogGuard {
        end: lines.clone(),
        thread: Some(thread),
        listener: None,
    };
    let background = Background {
        lines,
        lost,
        is_json,
    };
    Ok((background, guard))
}

/// Writes lines, and flushes when no more are waiting. If the sink is closed, lines are lost, with no other effect.
fn write_lines(waiting: &Receiver<Line>, mut sink: impl Write, lost: &AtomicU64, is_json: bool) {
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
            let _gone = writeln!(sink, "{}", line_about_loss(now - told, is_json));
            told = now;
        }
        let _gone = sink.flush();
    }
}

/// What the log says about lines that it has lost, in the form of the other lines.
fn line_about_loss(lines: u64, is_json: bool) -> String {
    let text = format!("{lines} log lines were lost: the log is read too slowly");
    if !is_json {
        return text;
    }
    let line = serde_json::json!({
        "timestamp": rfc3339(SystemTime::now()),
        "level": "WARN",
        "message": text,
        "lost": lines,
    });
    line.to_string()
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
        let (mut writer, guard) = background(sink.clone(), 100, false).unwrap();
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
        let (mut writer, guard) = background(sink.clone(), 100, false).unwrap();
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
        let (mut writer, guard) = background(sink.clone(), 1, true).unwrap();
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
        let (writer, guard) = background(sink.clone(), 100, is_json).unwrap();
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
