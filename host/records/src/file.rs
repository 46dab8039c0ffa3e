//! The records file. Each line in it is complete.

use std::fs::{self, Metadata, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use portcullis_file_id::FileId;

/// Mode of the file, which contains the signalling of users.
const MODE: u32 = 0o600;

/// How long another process may hold the lock of the file.
const PATIENCE: Duration = Duration::from_secs(1);

/// Pause between two attempts to get the lock.
const RETRY: Duration = Duration::from_millis(5);

/// Most files that are put aside for one line.
const RENAMES: usize = 3;

/// Number of bytes to gather before they are written.
const GATHERED: usize = 64 << 10;

/// The records file. It is rotated when it is full, and created again after another program has moved or removed it. After an error it is
/// opened again for the next write, so that writing resumes as soon as there is space.
#[derive(Debug)]
pub struct File {
    path: PathBuf,
    /// Most bytes in the file.
    most: u64,
    open: Option<Open>,
    /// Complete lines to be written, each with its line end.
    gathered: Vec<u8>,
    lines: u64,
}

#[derive(Debug)]
struct Open {
    file: fs::File,
    id: FileId,
    /// Whether the file has a length; a pipe has none.
    is_regular: bool,
    /// Whether the file ends with an incomplete line that could not be removed.
    is_torn: bool,
}

/// Result of writing lines.
#[derive(Debug, Default)]
pub struct Flushed {
    /// Lines written.
    pub written: u64,
    /// Lines lost.
    pub lost: u64,
    /// Why lines were lost, if any were.
    pub error: Option<io::Error>,
}

impl File {
    /// Opens the file, and keeps its content.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn open(path: &Path, most: u64) -> io::Result<Self> {
        Ok(Self {
            path: path.to_owned(),
            most,
            open: Some(Open::new(path)?),
            gathered: Vec::new(),
            lines: 0,
        })
    }

    /// The path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Adds a line, which is at most as long as the file may be.
    pub fn gather(&mut self, line: &[u8]) {
        self.gathered.extend_from_slice(line);
        self.gathered.push(b'\n');
        self.lines += 1;
    }

    /// Whether enough bytes are gathered to be written.
    pub fn is_due(&self) -> bool {
        self.gathered.len() >= GATHERED
    }

    /// Writes the gathered lines. Lines that cannot be written are lost.
    pub fn flush(&mut self) -> Flushed {
        let mut flushed = Flushed::default();
        if self.lines == 0 {
            // A file that was removed occupies disk space until it is closed.
            self.open = self.open.take().filter(|open| open.is_at(&self.path));
            return flushed;
        }
        let gathered = std::mem::take(&mut self.gathered);
        let mut rest = &gathered[..];
        while !rest.is_empty() {
            let done = self.write(rest);
            let (bytes, error) = match done {
                Ok(bytes) => (bytes, None),
                Err((bytes, error)) => (bytes, Some(error)),
            };
            flushed.written += count_lines(&rest[..bytes]);
            rest = &rest[bytes..];
            if let Some(error) = error {
                flushed.error = Some(error);
                // After any error, the file is opened again for the next write.
                self.open = self.open.take().filter(|open| !open.is_regular);
                break;
            }
        }
        flushed.lost = self.lines - flushed.written;
        self.lines = 0;
        self.gathered = gathered;
        self.gathered.clear();
        self.gathered.shrink_to(2 * GATHERED);
        flushed
    }

    /// Writes as many lines as fit into one file, at least one, and returns their length in bytes.
    fn write(&mut self, lines: &[u8]) -> Result<usize, (usize, io::Error)> {
        let nothing = |error| (0, error);
        let mut open = match self.open.take().filter(|open| open.is_at(&self.path)) {
            Some(open) => open,
            None => Open::new(&self.path).map_err(nothing)?,
        };
        let mut size = open.size().map_err(nothing)?;
        let mut fit = whole_lines(lines, self.most.saturating_sub(size));
        // Another process may have filled the next file as well. Without success, the file grows: no line is lost.
        for _ in 0..RENAMES {
            if fit > 0 || size == 0 {
                break;
            }
            self.put_aside(&open).map_err(nothing)?;
            open = Open::new(&self.path).map_err(nothing)?;
            size = open.size().map_err(nothing)?;
            fit = whole_lines(lines, self.most.saturating_sub(size));
        }
        // A line that is longer than the file may be is never gathered.
        let fit = if fit == 0 { lines.len() } else { fit };
        let done = open.append(&lines[..fit], size);
        self.open = Some(open);
        done.map(|()| fit)
    }

    /// Renames the file, unless another process has done so: before and after an upgrade, both write to it.
    fn put_aside(&self, full: &Open) -> io::Result<()> {
        // Until `full` is closed: whoever renames the file at the path holds its lock.
        full.lock();
        if !full.is_at(&self.path) {
            return Ok(());
        }
        let mut aside = self.path.clone().into_os_string();
        aside.push(".1");
        fs::rename(&self.path, aside)
    }
}

impl Open {
    fn new(path: &Path) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        options.create(true).append(true).mode(MODE);
        // Opening a pipe without a reader would block until there is one, and delay every record. With this flag, it fails.
        let flags = OFlag::O_NONBLOCK;
        let file = options.custom_flags(flags.bits()).open(path)?;
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            fcntl(&file, FcntlArg::F_SETFL(OFlag::O_APPEND))?;
        }
        Ok(Self {
            id: FileId::of(&metadata),
            is_regular: metadata.is_file(),
            is_torn: ends_torn(path, &metadata),
            file,
        })
    }

    /// Whether this is still the file at the path.
    fn is_at(&self, path: &Path) -> bool {
        self.id.is_at(path)
    }

    /// Waits for the lock of the file. Goes on without it if a program that knows nothing of these files holds it, or if the file system has no
    /// locks.
    fn lock(&self) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.file.try_lock() {
                Err(TryLockError::WouldBlock) if Instant::now() < deadline => sleep(RETRY),
                Ok(()) | Err(TryLockError::WouldBlock | TryLockError::Error(_)) => return,
            }
        }
    }

    /// Reads the size, because other programs may have truncated the file.
    fn size(&self) -> io::Result<u64> {
        match self.is_regular {
            true => Ok(self.file.metadata()?.len()),
            false => Ok(0),
        }
    }

    /// Appends complete lines to a file of this size. After an error, it returns the number of bytes of complete lines, and removes the
    /// part of a line that was written.
    fn append(&mut self, lines: &[u8], size: u64) -> Result<(), (usize, io::Error)> {
        if self.is_torn {
            self.file.write_all(b"\n").map_err(|error| (0, error))?;
            self.is_torn = false;
            return self.append(lines, size + 1);
        }
        let mut done = 0;
        while done < lines.len() {
            match self.file.write(&lines[done..]) {
                Ok(0) => {
                    return Err(self.take_out(lines, done, size, io::ErrorKind::WriteZero.into()));
                }
                Ok(bytes) => done += bytes,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.take_out(lines, done, size, error)),
            }
        }
        Ok(())
    }

    fn take_out(
        &mut self,
        lines: &[u8],
        done: usize,
        size: u64,
        error: io::Error,
    ) -> (usize, io::Error) {
        let whole = lines[..done]
            .iter()
            .rposition(|&byte| byte == b'\n')
            .map_or(0, |at| at + 1);
        if whole < done {
            // Not removed if another program has written to the file or truncated it meanwhile.
            let is_as_left = self.size().is_ok_and(|now| now == size + done as u64);
            let is_whole =
                self.is_regular && is_as_left && self.file.set_len(size + whole as u64).is_ok();
            self.is_torn = !is_whole;
        }
        (whole, error)
    }
}

/// Whether the last line of the file is incomplete.
fn ends_torn(path: &Path, metadata: &Metadata) -> bool {
    use std::os::unix::fs::FileExt as _;

    if !metadata.is_file() || metadata.len() == 0 {
        return false;
    }
    let mut last = [b'\n'];
    let read = fs::File::open(path).and_then(|file| file.read_at(&mut last, metadata.len() - 1));
    read.is_ok() && last != *b"\n"
}

/// Returns the length of as many complete lines as fit into `room` bytes.
fn whole_lines(lines: &[u8], room: u64) -> usize {
    let room = usize::try_from(room).unwrap_or(usize::MAX).min(lines.len());
    let last = lines[..room].iter().rposition(|&byte| byte == b'\n');
    last.map_or(0, |at| at + 1)
}

fn count_lines(bytes: &[u8]) -> u64 {
    bytes.iter().filter(|&&byte| byte == b'\n').count() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_incomplete_line_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x");
        // What a full disk leaves: the first line and a part of the second.
        let lines = b"{\"n\":1}\n{\"n\":2}\n";
        for (before, done, expected) in [
            ("", 11, "{\"n\":1}\n"),
            ("{}\n", 3, "{}\n"),
            ("{}\n", 8, "{}\n{\"n\":1}\n"),
            ("", 0, ""),
        ] {
            fs::write(&path, before).unwrap();
            let mut open = Open::new(&path).unwrap();
            open.file.write_all(&lines[..done]).unwrap();
            let full = io::ErrorKind::StorageFull.into();
            let (bytes, _) = open.take_out(lines, done, before.len() as u64, full);
            assert_eq!(fs::read_to_string(&path).unwrap(), expected);
            assert_eq!(bytes, expected.len() - before.len());
            assert!(!open.is_torn);
        }
    }

    #[test]
    fn an_incomplete_line_of_another_program_is_terminated() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x");
        // Left by another program, or by a crash.
        fs::write(&path, "{\"n\":").unwrap();
        let mut file = File::open(&path, 1000).unwrap();
        file.gather(b"{}");
        assert_eq!(file.flush().written, 1);
        assert_eq!(fs::read_to_string(&path).unwrap(), "{\"n\":\n{}\n");
    }

    #[test]
    fn the_file_never_exceeds_its_limit() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x");
        let mut file = File::open(&path, 100).unwrap();
        for length in [30, 30, 30, 99, 1, 98, 50, 49, 2] {
            (0..3).for_each(|_| file.gather(&vec![b'x'; length]));
            assert_eq!(file.flush().written, 3);
            for name in ["x", "x.1"] {
                let text = fs::read_to_string(folder.path().join(name)).unwrap_or_default();
                assert!(text.len() <= 100 && !text.contains("\n\n"), "{text}");
                assert!(text.is_empty() || text.ends_with('\n'));
            }
        }
    }

    /// The writers are in two processes during an upgrade. Each has a file handle of its own, and so a lock of its own.
    #[test]
    fn two_writers_put_a_full_file_aside_once() {
        for _ in 0..200 {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("x");
            fs::write(&path, "full full full full\n").unwrap();
            let barrier = std::sync::Barrier::new(2);
            std::thread::scope(|scope| {
                for line in [b"line 1", b"line 2"] {
                    let mut file = File::open(&path, 20).unwrap();
                    let barrier = &barrier;
                    scope.spawn(move || {
                        file.gather(line);
                        barrier.wait();
                        assert_eq!(file.flush().written, 1);
                    });
                }
            });
            let read = |name| fs::read_to_string(folder.path().join(name)).unwrap();
            assert_eq!(read("x.1"), "full full full full\n");
            let mut lines: Vec<_> = read("x").lines().map(str::to_owned).collect();
            lines.sort();
            assert_eq!(lines, ["line 1", "line 2"]);
        }
    }

    #[test]
    fn a_file_that_another_writer_has_put_aside_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x");
        fs::write(&path, "old\n").unwrap();
        let file = File::open(&path, 4).unwrap();
        let [late, early] = [Open::new(&path).unwrap(), Open::new(&path).unwrap()];
        file.put_aside(&early).unwrap();
        fs::write(&path, "new\n").unwrap();
        std::thread::scope(|scope| {
            let waits = scope.spawn(|| file.put_aside(&late));
            drop(early);
            waits.join().unwrap().unwrap();
        });
        assert_eq!(fs::read_to_string(&path).unwrap(), "new\n");
        let aside = fs::read_to_string(folder.path().join("x.1")).unwrap();
        assert_eq!(aside, "old\n");
    }

    #[test]
    fn a_pipe_without_a_reader_loses_records_and_does_not_block() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("records.jsonl");
        let mut file = File::open(&path, 1000).unwrap();
        fs::remove_file(&path).unwrap();
        let made = std::process::Command::new("mkfifo").arg(&path).status();
        assert!(made.unwrap().success());
        file.gather(b"{}");
        let flushed = file.flush();
        assert_eq!((flushed.written, flushed.lost), (0, 1));
        assert!(flushed.error.is_some());
        fs::remove_file(&path).unwrap();
        file.gather(b"{}");
        assert_eq!(file.flush().written, 1);
        assert_eq!(fs::read_to_string(&path).unwrap(), "{}\n");
    }
}
