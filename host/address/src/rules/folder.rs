//! The folder in which the files are, and what reading it brings.

use std::fmt;
use std::io::{ErrorKind, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use thiserror::Error;

use super::line::Fault;
use super::{DEFAULT_RULES, Rule, RuleSet, Rules};

/// The ends of the files' names (Kamailio: `allow_suffix`, `deny_suffix`).
pub(super) const ALLOW: &str = ".allow";
pub(super) const DENY: &str = ".deny";

/// The largest file that is read, in bytes.
const LARGEST_FILE: u64 = 16 << 20;

/// Lines that a load keeps by name; the rest is only counted.
const MOST_NAMED: usize = 100;

/// A folder with allow and deny files; none where none is configured.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RuleFolder(Option<PathBuf>);

/// What reading a folder brought.
#[derive(Debug, Default)]
pub struct LoadedRules {
    /// The rules that can be used.
    pub rules: Rules,
    /// Files that were read.
    pub files: u64,
    /// Lines that were left out.
    pub skipped: u64,
    /// The first of these, with what is wrong.
    pub errors: Vec<RuleError>,
}

/// A line that can't be used, and is left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleError {
    /// The file.
    pub file: String,
    /// The line, from 1; 0 for the file itself.
    pub line: usize,
    /// The part at fault, as printable text of bounded length.
    pub value: String,
    /// What is wrong with it.
    pub fault: String,
    /// What to do about it.
    pub mend: String,
}

/// Why a folder can't be read. The rules stay as they are then.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error(
    "can't read the rules in {path}: {cause}; check `folder` in [permissions], and that we may read it"
)]
pub struct RulesError {
    /// The folder or file.
    pub path: String,
    /// What the system says.
    pub cause: String,
}

/// What tells one state of a folder from another without reading its files.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Stamp(Vec<(PathBuf, FileStamp)>);

/// Device, inode, size, and the times of data and inode.
type FileStamp = (u64, u64, u64, (i64, i64), (i64, i64));

impl RuleFolder {
    /// The folder at this path; an empty path is no folder, and has no rules.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self(Some(path.into()).filter(|path| !path.as_os_str().is_empty()))
    }

    /// Its path; none where none is configured.
    pub fn path(&self) -> Option<&Path> {
        self.0.as_deref()
    }

    /// Reads all pairs of files.
    ///
    /// # Errors
    /// When the folder or a file in it can't be read. A line that can't be used is no error: it is left out and named.
    pub fn load(&self) -> Result<LoadedRules, RulesError> {
        let mut loaded = LoadedRules::default();
        for path in self.files()? {
            let name = path.file_name().unwrap_or_default();
            let Some(name) = name.to_str() else {
                loaded.skip(unreadable_name(&path));
                continue;
            };
            let ending = if name.ends_with(ALLOW) { ALLOW } else { DENY };
            let basename = name.strip_suffix(ending).unwrap_or(name);
            let bytes = read(&path)?;
            loaded.add(basename, ending, &path.display().to_string(), &bytes);
            loaded.files += 1;
        }
        Ok(loaded)
    }

    /// What tells whether a file has changed, come or gone.
    pub(crate) fn stamp(&self) -> Result<Stamp, RulesError> {
        let mut stamp = Stamp::default();
        for path in self.files()? {
            let found = std::fs::metadata(&path).map_err(|error| failed(&path, &error))?;
            let data = (found.mtime(), found.mtime_nsec());
            let inode = (found.ctime(), found.ctime_nsec());
            let file = (found.dev(), found.ino(), found.size(), data, inode);
            stamp.0.push((path, file));
        }
        Ok(stamp)
    }

    /// The files in the folder, in the order of their names.
    fn files(&self) -> Result<Vec<PathBuf>, RulesError> {
        let Some(folder) = &self.0 else {
            return Ok(Vec::new());
        };
        let mut files = Vec::new();
        for entry in std::fs::read_dir(folder).map_err(|error| failed(folder, &error))? {
            let path = entry.map_err(|error| failed(folder, &error))?.path();
            let name = path.file_name().unwrap_or_default().as_encoded_bytes();
            let is_ours =
                |ending: &str| name.len() > ending.len() && name.ends_with(ending.as_bytes());
            // A file without a name before the dot is somebody's hidden file.
            if (is_ours(ALLOW) || is_ours(DENY)) && !path.is_dir() {
                files.push(path);
            }
        }
        files.sort_unstable();
        Ok(files)
    }
}

impl LoadedRules {
    /// Whether the pair is there that functions take where they name none.
    pub fn has_default(&self) -> bool {
        self.rules.sets.contains_key(DEFAULT_RULES)
    }

    /// Adds the lines of a file.
    pub(super) fn add(&mut self, basename: &str, ending: &str, file: &str, bytes: &[u8]) {
        let mut rules = Vec::new();
        for (number, line) in (1..).zip(bytes.split(|&byte| byte == b'\n')) {
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            match Rule::parse(line) {
                Ok(rule) => rules.extend(rule),
                Err(Fault { value, fault, mend }) => self.skip(RuleError {
                    file: file.to_owned(),
                    line: number,
                    value,
                    fault,
                    mend,
                }),
            }
        }
        let set = self
            .rules
            .sets
            .entry(basename.into())
            .or_insert_with(RuleSet::default);
        match ending {
            ALLOW => set.allow = rules,
            _ => set.deny = rules,
        }
    }

    fn skip(&mut self, error: RuleError) {
        self.skipped += 1;
        if self.errors.len() < MOST_NAMED {
            self.errors.push(error);
        }
    }
}

impl fmt::Display for RuleError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            file,
            line,
            value,
            fault,
            mend,
        } = self;
        match line {
            0 => write!(f, "{file}: {value} {fault}; {mend}"),
            line => write!(f, "{file} line {line}: {value} {fault}; {mend}"),
        }
    }
}

impl std::error::Error for RuleError {}

fn read(path: &Path) -> Result<Vec<u8>, RulesError> {
    let failed = |error: std::io::Error| failed(path, &error);
    let file = std::fs::File::open(path).map_err(failed)?;
    let mut bytes = Vec::new();
    file.take(LARGEST_FILE + 1)
        .read_to_end(&mut bytes)
        .map_err(failed)?;
    if bytes.len() as u64 > LARGEST_FILE {
        let cause = format!("the file is larger than {LARGEST_FILE} bytes");
        return Err(failed(std::io::Error::new(ErrorKind::FileTooLarge, cause)));
    }
    Ok(bytes)
}

fn failed(path: &Path, error: &std::io::Error) -> RulesError {
    RulesError {
        path: path.display().to_string(),
        cause: error.to_string(),
    }
}

fn unreadable_name(path: &Path) -> RuleError {
    RuleError {
        file: path.display().to_string(),
        line: 0,
        value: "its name".to_owned(),
        fault: "is no text".to_owned(),
        mend: "rename it in UTF-8, or policies can't name it".to_owned(),
    }
}
