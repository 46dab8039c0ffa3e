//! The directory of the allow and deny files, and the result of reading it.

use std::fmt;
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};

use thiserror::Error;

use super::blocks::Lines;
use super::line::{Fault, Rule};
use super::set::{ALLOW, DEFAULT_RULES, DENY, RuleSet, Rules};
use crate::pattern::bank::BankBuilder;
use crate::pattern::{DEFAULT_PATTERN_MEMORY, PatternBudget, TOO_LARGE};
use crate::settle::FileState;

/// Largest file, in bytes.
const LARGEST_FILE: u64 = 16 << 20;

/// Most unusable lines that a load reports; others are only counted.
const MOST_NAMED: usize = 100;

/// The directory of the allow and deny files, if one is configured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleFolder {
    path: Option<PathBuf>,
    pattern_memory: usize,
}

/// A load in progress.
pub(super) struct Loading {
    loaded: LoadedRules,
    budget: PatternBudget,
    /// The rules of each file. They are combined only when all patterns are known, because how they are matched depends on the memory that
    /// is left.
    files: Vec<(String, bool, Vec<Rule>)>,
}

/// The patterns of all files together exceed their memory limit.
#[derive(Debug)]
pub(super) struct TooMany;

/// Result of a load.
#[derive(Debug, Default)]
pub struct LoadedRules {
    /// The valid rules.
    pub rules: Rules,
    /// Number of files.
    pub files: u64,
    /// Number of invalid lines, which were skipped.
    pub skipped: u64,
    /// The first of these lines, with their faults.
    pub errors: Vec<RuleError>,
    /// Files with lines, none of which is valid: `NAME.allow` or `NAME.deny`.
    pub(crate) broken: Vec<String>,
}

/// A line that is invalid, and is skipped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleError {
    /// The file.
    pub file: String,
    /// Line number, from 1; 0 for the file itself.
    pub line: usize,
    /// The invalid part, as printable text of bounded length.
    pub value: String,
    /// What is wrong.
    pub fault: String,
    /// How to correct it.
    pub mend: String,
}

/// Why the directory cannot be read. The current rules stay.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error(
    "cannot read the rules in {path}: {cause}; check `folder` in [permissions], and that the host may read it"
)]
pub struct RulesError {
    /// The directory or file.
    pub path: String,
    /// The error of the system.
    pub cause: String,
}

/// The rules files of a directory, sorted by name, with their fingerprints.
pub(crate) type Stamp = Vec<(PathBuf, FileState)>;

impl RuleFolder {
    /// Creates the directory with this path. An empty path means no directory and no rules.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: Some(path.into()).filter(|path| !path.as_os_str().is_empty()),
            ..Self::default()
        }
    }

    /// Sets the memory limit of the patterns of all files, in bytes.
    pub fn with_pattern_memory(self, bytes: usize) -> Self {
        Self {
            pattern_memory: bytes,
            ..self
        }
    }

    /// Returns the path; `None` if none is configured.
    pub fn path(&self) -> Option<&Path> {
        self.path.as_deref()
    }

    /// Reads all pairs of files.
    ///
    /// # Errors
    /// If the directory or a file in it cannot be read, or the patterns of all files exceed their memory limit: skipping lines could allow
    /// what they deny. An invalid line is not an error: it is skipped and reported.
    pub fn load(&self) -> Result<LoadedRules, RulesError> {
        let mut loading = Loading::new(PatternBudget::new(self.pattern_memory));
        for path in self.files()? {
            let name = path.file_name().unwrap_or_default();
            let Some(name) = name.to_str() else {
                loading.loaded.skip(unreadable_name(&path));
                continue;
            };
            let ending = if name.ends_with(ALLOW) { ALLOW } else { DENY };
            let basename = name.strip_suffix(ending).unwrap_or(name);
            let bytes = read(&path)?;
            loading
                .add(basename, ending, &path.display().to_string(), &bytes)
                .map_err(|TooMany| self.too_many(&path))?;
            loading.loaded.files += 1;
        }
        Ok(loading.finish())
    }

    /// Returns fingerprints of the files, to detect changes.
    pub(crate) fn stamp(&self) -> Result<Stamp, RulesError> {
        let mut stamp = Stamp::default();
        for path in self.files()? {
            let state = FileState::of(&path);
            if state == FileState::Absent {
                // A dangling link, or a file that has just been removed.
                let gone = std::io::Error::from(ErrorKind::NotFound);
                return Err(failed(&path, &gone));
            }
            stamp.push((path, state));
        }
        Ok(stamp)
    }

    fn too_many(&self, path: &Path) -> RulesError {
        RulesError {
            path: path.display().to_string(),
            cause: format!(
                "with this file the patterns of all rules take more than {} bytes of memory; raise `pattern-memory` in [permissions], \
                 or use fewer repetitions in the patterns",
                self.pattern_memory
            ),
        }
    }

    /// Returns the rules files in the directory, sorted by name.
    fn files(&self) -> Result<Vec<PathBuf>, RulesError> {
        let Some(folder) = &self.path else {
            return Ok(Vec::new());
        };
        let mut files = Vec::new();
        for entry in std::fs::read_dir(folder).map_err(|error| failed(folder, &error))? {
            let path = entry.map_err(|error| failed(folder, &error))?.path();
            let name = path.file_name().unwrap_or_default().as_encoded_bytes();
            let is_ours =
                |ending: &str| name.len() > ending.len() && name.ends_with(ending.as_bytes());
            // A name that consists of the suffix only is that of a hidden file.
            if (is_ours(ALLOW) || is_ours(DENY)) && !path.is_dir() {
                files.push(path);
            }
        }
        files.sort_unstable();
        Ok(files)
    }
}

impl RulesError {
    /// Error for a directory in place of a rules file.
    pub(crate) fn is_folder(path: &Path) -> Self {
        failed(path, &std::io::Error::from(ErrorKind::IsADirectory))
    }

    /// Error for a file with lines, none of which is valid.
    pub(crate) fn is_broken(path: &Path) -> Self {
        Self {
            path: path.display().to_string(),
            cause: "none of its lines is valid, so its previous rules stay; `portcullis rules check` lists the lines"
                .to_owned(),
        }
    }
}

impl LoadedRules {
    /// Creates rules from the texts of files: the name of each set, its allow file and its deny file. Invalid lines are skipped and
    /// reported. For tests, and where there is no directory.
    pub fn of<'t>(files: impl IntoIterator<Item = (&'t str, &'t str, &'t str)>) -> Self {
        let mut loading = Loading::new(PatternBudget::new(usize::MAX));
        for (name, allow, deny) in files {
            for (ending, text) in [(ALLOW, allow), (DENY, deny)] {
                let file = format!("{name}{ending}");
                let _boundless = loading.add(name, ending, &file, text.as_bytes());
            }
        }
        loading.finish()
    }

    /// Whether the default pair exists.
    pub fn has_default(&self) -> bool {
        self.rules.sets.contains_key(DEFAULT_RULES)
    }

    fn skip(&mut self, error: RuleError) {
        self.skipped += 1;
        if self.errors.len() < MOST_NAMED {
            self.errors.push(error);
        }
    }
}

impl Loading {
    pub(super) fn new(budget: PatternBudget) -> Self {
        Self {
            loaded: LoadedRules::default(),
            budget,
            files: Vec::new(),
        }
    }

    /// Adds the lines of a file.
    pub(super) fn add(
        &mut self,
        basename: &str,
        ending: &str,
        file: &str,
        bytes: &[u8],
    ) -> Result<(), TooMany> {
        let mut rules = Vec::new();
        let skipped = self.loaded.skipped;
        for (number, line) in (1..).zip(bytes.split(|&byte| byte == b'\n')) {
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            match Rule::parse(line) {
                Ok(Some(rule)) if !self.budget.take(rule.bytes()) => return Err(TooMany),
                Ok(rule) => rules.extend(rule),
                Err(Fault { value, fault, mend }) => {
                    if fault == TOO_LARGE {
                        self.budget.note_too_large();
                    }
                    self.loaded.skip(RuleError {
                        file: file.to_owned(),
                        line: number,
                        value,
                        fault,
                        mend,
                    });
                }
            }
            if self.budget.is_spent() {
                return Err(TooMany);
            }
        }
        if rules.is_empty() && self.loaded.skipped > skipped {
            self.loaded.broken.push(format!("{basename}{ending}"));
        }
        self.files
            .push((basename.to_owned(), ending == ALLOW, rules));
        Ok(())
    }

    /// The result of the load.
    pub(super) fn finish(self) -> LoadedRules {
        let mut loaded = self.loaded;
        let mut banks = BankBuilder::new(self.budget);
        for (basename, is_allow, rules) in self.files {
            let lines = Lines::new(rules, &mut banks);
            let set = loaded
                .rules
                .sets
                .entry(basename.into())
                .or_insert_with(RuleSet::default);
            match is_allow {
                true => set.allow = lines,
                false => set.deny = lines,
            }
        }
        loaded
    }
}

impl Default for RuleFolder {
    fn default() -> Self {
        Self {
            path: None,
            pattern_memory: DEFAULT_PATTERN_MEMORY,
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
    let file = crate::regular::open(path).map_err(failed)?;
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
        fault: "is not valid UTF-8".to_owned(),
        mend: "rename it, because policies cannot refer to it".to_owned(),
    }
}
