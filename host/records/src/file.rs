//! The file of records: lines that are in it whole or not at all.

use std::fs::{self, Metadata, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::fcntl::{FcntlArg, OFlag, fcntl};

/// What records are made with: they hold what people have said to each other's phones.
const MODE: u32 = 0o600;

/// Bytes that are gathered before they are written.
const GATHERED: usize = 64 << 10;

/// A file that is put aside when it is full, and begun anew when someone else has put it aside or removed it. After an error it is opened
/// again, so that it goes on by itself when there is room.
#[derive(Debug)]
pub(super) struct File {
    path: PathBuf,
    /// The most bytes in it.
    most: u64,
    open: Option<Open>,
    /// Whole lines that are not in it yet, each with its end.
    gathered: Vec<u8>,
    lines: u64,
}

#[derive(Debug)]
struct Open {
    file: fs::File,
    device: u64,
    inode: u64,
    /// Whether it has a length; a pipe has none.
    is_regular: bool,
    /// Whether its last line is a part of one, which could not be taken out again.
    is_torn: bool,
}

/// What became of lines.
#[derive(Debug, Default)]
pub(super) struct Flushed {
    pub(super) written: u64,
    pub(super) lost: u64,
    /// Why they are lost, where some are.
    pub(super) error: Option<io::Error>,
}

impl File {
    /// Opens the file; what is in it stays.
    pub(super) fn open(path: &Path, most: u64) -> io::Result<Self> {
        Ok(Self {
            path: path.to_owned(),
            most,
            open: Some(Open::new(path)?),
            gathered: Vec::new(),
            lines: 0,
        })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Takes a line, which is no longer than the file may be.
    pub(super) fn gather(&mut self, line: &[u8]) {
        self.gathered.extend_from_slice(line);
        self.gathered.push(b'\n');
        self.lines += 1;
    }

    /// Whether enough is there to be written.
    pub(super) fn is_due(&self) -> bool {
        self.gathered.len() >= GATHERED
    }

    /// Writes what is gathered. What can't be written is lost.
    pub(super) fn flush(&mut self) -> Flushed {
        let mut flushed = Flushed::default();
        if self.lines == 0 {
            // A file that somebody has removed keeps its room on the disk until it is closed.
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
                // Whatever is wrong with it, the next time begins with a look at what is there.
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

    /// Writes as many lines as one file takes, at least one, and says how many bytes those are.
    fn write(&mut self, lines: &[u8]) -> Result<usize, (usize, io::Error)> {
        let nothing = |error| (0, error);
        let mut open = match self.open.take().filter(|open| open.is_at(&self.path)) {
            Some(open) => open,
            None => Open::new(&self.path).map_err(nothing)?,
        };
        let mut size = open.size().map_err(nothing)?;
        let mut fit = whole_lines(lines, self.most.saturating_sub(size));
        if fit == 0 && size > 0 {
            self.put_aside().map_err(nothing)?;
            open = Open::new(&self.path).map_err(nothing)?;
            size = open.size().map_err(nothing)?;
            fit = whole_lines(lines, self.most.saturating_sub(size));
        }
        // A line that is longer than the file may be does not get here.
        let fit = if fit == 0 { lines.len() } else { fit };
        let done = open.append(&lines[..fit], size);
        self.open = Some(open);
        done.map(|()| fit)
    }

    fn put_aside(&self) -> io::Result<()> {
        let mut aside = self.path.clone().into_os_string();
        aside.push(".1");
        fs::rename(&self.path, aside)
    }
}

impl Open {
    fn new(path: &Path) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        options.create(true).append(true).mode(MODE);
        // Opening a pipe that nobody reads waits for a reader, and every record would wait with it. This way it is an error.
        let flags = OFlag::O_NONBLOCK;
        let file = options.custom_flags(flags.bits()).open(path)?;
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            fcntl(&file, FcntlArg::F_SETFL(OFlag::O_APPEND))?;
        }
        Ok(Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            is_regular: metadata.is_file(),
            is_torn: ends_torn(path, &metadata),
            file,
        })
    }

    /// Whether this is still what is to be found there.
    fn is_at(&self, path: &Path) -> bool {
        fs::metadata(path)
            .is_ok_and(|found| (found.dev(), found.ino()) == (self.device, self.inode))
    }

    /// Others may have cut it short.
    fn size(&self) -> io::Result<u64> {
        match self.is_regular {
            true => Ok(self.file.metadata()?.len()),
            false => Ok(0),
        }
    }

    /// Appends whole lines to a file of this size. After an error it tells how many bytes of whole lines are there: a part of a line is
    /// taken out again.
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
            // Not if somebody else has written or cut it short meanwhile.
            let is_as_left = self.size().is_ok_and(|now| now == size + done as u64);
            let is_whole =
                self.is_regular && is_as_left && self.file.set_len(size + whole as u64).is_ok();
            self.is_torn = !is_whole;
        }
        (whole, error)
    }
}

/// Whether the last line of what is there has no end.
fn ends_torn(path: &Path, metadata: &Metadata) -> bool {
    use std::os::unix::fs::FileExt as _;

    if !metadata.is_file() || metadata.len() == 0 {
        return false;
    }
    let mut last = [b'\n'];
    let read = fs::File::open(path).and_then(|file| file.read_at(&mut last, metadata.len() - 1));
    read.is_ok() && last != *b"\n"
}

/// The bytes of as many whole lines as fit into so much room.
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
    fn a_part_of_a_line_is_taken_out_again() {
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
    fn a_part_that_cannot_be_taken_out_gets_a_line_of_its_own() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x");
        // Somebody else, or a crash, has left it.
        fs::write(&path, "{\"n\":").unwrap();
        let mut file = File::open(&path, 1000).unwrap();
        file.gather(b"{}");
        assert_eq!(file.flush().written, 1);
        assert_eq!(fs::read_to_string(&path).unwrap(), "{\"n\":\n{}\n");
    }

    #[test]
    fn it_is_never_longer_than_it_may_be() {
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

    #[test]
    fn a_pipe_that_nobody_reads_costs_records_and_no_time() {
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
