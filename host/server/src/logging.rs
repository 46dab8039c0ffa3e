//! The log: human or JSON lines to standard error, written by a thread of its own so that a slow reader of the log never
//! holds up a worker.

use std::io::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

use crate::config::{LogConfig, LogFormat};

/// How many lines may wait for the writer. Beyond it lines are dropped and counted.
const WAITING_LINES: usize = 8_192;

static LOST: OnceLock<Arc<AtomicU64>> = OnceLock::new();

/// Lines that were dropped since the start because whoever reads the log was too slow.
pub fn lost_lines() -> u64 {
    LOST.get().map_or(0, |lost| lost.load(Ordering::Relaxed))
}

/// Starts the log of this process. Lines that wait are written when the guard is dropped.
pub fn start(config: &LogConfig) -> Result<LogGuard, String> {
    let filter = EnvFilter::try_new(&config.level).map_err(|error| error.to_string())?;
    let (writer, guard) =
        background(io::stderr(), WAITING_LINES).map_err(|error| error.to_string())?;
    let _first = LOST.set(Arc::clone(&writer.lost));
    let color =
        std::env::var_os("NO_COLOR").is_none() && io::IsTerminal::is_terminal(&io::stderr());
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(writer)
        .with_ansi(color);
    let set = match config.format {
        LogFormat::Human => builder.with_target(false).try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
    set.map_err(|error| error.to_string())?;
    Ok(guard)
}

/// Checks a value of `[log] level`.
pub(crate) fn check_level(level: &str) -> Result<(), String> {
    // EnvFilter takes any single word for the name of a part; here it is a level that is misspelt.
    const LEVELS: [&str; 6] = ["error", "warn", "info", "debug", "trace", "off"];
    for part in level.split(',') {
        let word = part.rsplit('=').next().unwrap_or(part).trim();
        if !LEVELS.contains(&word.to_ascii_lowercase().as_str()) {
            return Err(format!("`{word}` is not a level"));
        }
    }
    EnvFilter::try_new(level)
        .map(drop)
        .map_err(|error| error.to_string())
}

/// Ends the log when dropped: what waits is written first.
#[derive(Debug)]
pub struct LogGuard {
    end: SyncSender<Line>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for LogGuard {
    fn drop(&mut self) {
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
}

impl Write for Background {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if let Err(TrySendError::Full(_)) = self.lines.try_send(Line::Text(line.to_vec())) {
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
) -> io::Result<(Background, LogGuard)> {
    let (lines, waiting) = sync_channel(most);
    let lost = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&lost);
    let thread = std::thread::Builder::new()
        .name("log".into())
        .spawn(move || write_lines(&waiting, io::BufWriter::new(sink), &counted))?;
    let guard = LogGuard {
        end: lines.clone(),
        thread: Some(thread),
    };
    Ok((Background { lines, lost }, guard))
}

/// Writes what comes, and tells the system about it when nothing more waits. A sink that is gone loses lines, nothing else.
fn write_lines(waiting: &Receiver<Line>, mut sink: impl Write, lost: &AtomicU64) {
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
            let lines = now - told;
            let _gone = writeln!(
                sink,
                "{lines} log lines were lost: the log is read too slowly"
            );
            told = now;
        }
        let _gone = sink.flush();
    }
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
        let (mut writer, guard) = background(sink.clone(), 100).unwrap();
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
        let (mut writer, guard) = background(sink.clone(), 100).unwrap();
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
    fn levels_are_checked() {
        for good in ["info", "WARN", "off", "info,portcullis_address=debug"] {
            assert_eq!(check_level(good), Ok(()), "{good}");
        }
        for bad in ["", "loud", "info,portcullis=loud", "info,,debug"] {
            assert!(check_level(bad).is_err(), "{bad}");
        }
    }
}
