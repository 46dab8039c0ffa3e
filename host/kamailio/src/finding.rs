//! What was found in a kamailio.cfg, and where.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

/// A line of a configuration file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The file, as it was named or included.
    pub file: Arc<Path>,
    /// The line, from 1.
    pub line: usize,
}

/// Something that was not taken over, or not as it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Where; none for what concerns no single line.
    pub place: Option<Place>,
    /// What stands there.
    pub what: String,
    /// What it means here, and what to do.
    pub mend: String,
}

impl Place {
    /// The place as it stands beside a value: without the folder.
    pub(super) fn short(&self) -> String {
        let name = self.file.file_name().unwrap_or(self.file.as_os_str());
        format!("{}:{}", name.display(), self.line)
    }
}

impl Finding {
    pub(super) fn at(place: &Place, what: impl Into<String>, mend: impl Into<String>) -> Self {
        Self {
            place: Some(place.clone()),
            what: what.into(),
            mend: mend.into(),
        }
    }

    /// A finding about the whole.
    pub(super) fn whole(what: impl Into<String>, mend: impl Into<String>) -> Self {
        Self {
            place: None,
            what: what.into(),
            mend: mend.into(),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file.display(), self.line)
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(place) = &self.place {
            write!(f, "{place}: ")?;
        }
        f.write_str(&self.what)?;
        match self.mend.as_str() {
            "" => Ok(()),
            mend => write!(f, ": {mend}"),
        }
    }
}

/// Sorts by line within each file, files in the order of their first finding, what has no place at the end.
pub(super) fn sort(findings: &mut [Finding]) {
    let mut files: Vec<Arc<Path>> = Vec::new();
    for place in findings.iter().filter_map(|finding| finding.place.as_ref()) {
        if !files.contains(&place.file) {
            files.push(place.file.clone());
        }
    }
    findings.sort_by_key(|finding| match &finding.place {
        Some(place) => {
            let file = files.iter().position(|file| *file == place.file);
            (file.unwrap_or(files.len()), place.line)
        }
        None => (usize::MAX, 0),
    });
}

/// Text of a configuration file as it may appear in a message: on one line, and not too long.
pub(super) fn excerpt(text: &str) -> String {
    const LONGEST: usize = 80;
    let line: String = text
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    match line.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}
