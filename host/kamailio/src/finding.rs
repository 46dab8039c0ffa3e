//! Findings in a kamailio.cfg, with their places.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

/// A line of a configuration file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The file, as named or included.
    pub file: Arc<Path>,
    /// The line, from 1.
    pub line: usize,
}

/// Something that was not translated, or not literally.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The place; `None` for a finding that concerns no single line.
    pub place: Option<Place>,
    /// The original text.
    pub what: String,
    /// Its meaning here, and what to do.
    pub mend: String,
}

impl Place {
    /// The place as shown next to a value: without the directory.
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

    /// A finding about the whole configuration.
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

/// Sorts by line within each file, files in the order of their first finding, findings without a place last.
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

/// Text of a configuration file for a message: on one line, and of limited length.
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
