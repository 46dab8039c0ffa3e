//! The file of an entry: a format marker, an authentication code over name and content, and the content.

use std::fs::File;
use std::io::{self, Read, Write};

use crate::error::EntryError;
use crate::key::{Key, TAG};
use crate::name::Name;

/// The prefix of every entry's file.
const FORMAT: [u8; 8] = *b"PCENTRY1";

/// Length of the part before the content.
const HEAD: usize = FORMAT.len() + TAG;

/// Size of the file for this content, in bytes.
pub(crate) fn size(content: &[u8]) -> u64 {
    (HEAD + content.len()) as u64
}

pub(crate) fn write(
    file: &mut impl Write,
    key: &Key,
    name: &Name,
    content: &[u8],
) -> io::Result<()> {
    file.write_all(&FORMAT)?;
    file.write_all(&key.tag(name, content))?;
    file.write_all(content)
}

/// The content, if the whole file is an output of [`write`] under this key and name.
pub(crate) fn read(file: &mut File, key: &Key, name: &Name) -> Result<Vec<u8>, EntryError> {
    let mut head = [0; HEAD];
    match file.read_exact(&mut head) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
            return Err(EntryError::Foreign);
        }
        read => read?,
    }
    let size = usize::try_from(file.metadata()?.len()).unwrap_or(0);
    let mut content = Vec::with_capacity(size.saturating_sub(HEAD));
    // If the file grows meanwhile, the additional bytes are not read.
    let left = size.saturating_sub(HEAD) as u64;
    file.take(left).read_to_end(&mut content)?;
    let (format, tag) = head.split_at(FORMAT.len());
    match format == FORMAT && key.has_tagged(name, &content, tag) {
        true => Ok(content),
        false => Err(EntryError::Foreign),
    }
}
