//! Properties of every input, as assertions that tests and fuzz targets share.
//!
//! Each function panics when its property does not hold.

use crate::exchange::{Format, RowWriter};
use crate::pattern::{Effort, Pattern, Syntax};

/// Compiles a pattern and searches the text for it.
pub fn pattern(pattern: &str, text: &str, is_basic: bool) {
    let syntax = match is_basic {
        true => Syntax::Basic,
        false => Syntax::Extended,
    };
    let compiled = match Pattern::new(pattern, syntax) {
        Ok(compiled) => compiled,
        Err(error) => return assert!(!error.fault.is_empty() && !error.mend.is_empty()),
    };
    assert_eq!(compiled.as_str(), pattern);
    let found = compiled.is_match(text);
    assert_eq!(
        found,
        compiled.is_match(text),
        "a search does not depend on earlier ones"
    );
    // With a limit of the effort, the result is the same, or none.
    if let Ok(bounded) = compiled.is_found(text, &mut Effort::new(&|| false)) {
        assert_eq!(bounded, found);
    }
}

/// Reads a file of rows. Rows that can be used are written as CSV and read back the same.
pub fn rows(file: &[u8], format: u8) {
    let formats = [Format::Csv, Format::JsonLines, Format::AddressFile];
    let format = formats[usize::from(format) % formats.len()];
    let read = format.read(file, "file");
    assert!(read.rows.len() + read.errors.len() <= file.len() + 1);
    for error in &read.errors {
        assert!(!error.to_string().is_empty());
    }
    let mut written = Vec::new();
    let mut writer = RowWriter::new(Format::Csv, &mut written).expect("a buffer can be written");
    for row in &read.rows {
        writer.write(row).expect("CSV can express every row");
    }
    writer.finish().expect("a buffer can be written");
    let again = Format::Csv.read(&written, "again");
    assert!(again.errors.is_empty(), "{:?}", again.errors);
    assert_eq!(again.rows, read.rows);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn patterns(text in "[a-c]{0,12}", pattern in "[a-c.*+?()|\\[\\]{}^$\\\\,0-9:=-]{0,16}", is_basic: bool) {
            super::pattern(&pattern, &text, is_basic);
        }

        #[test]
        fn files(lines in prop::collection::vec("[0-9a-c.:,\"/ \\\\N{}\\[\\]gripmasktodu_]{0,40}", 0..8), format in 0_u8..3) {
            rows(lines.join("\n").as_bytes(), format);
            let named = format!("grp,ip_addr,mask,port,tag\n{}", lines.join("\n"));
            rows(named.as_bytes(), 0);
        }
    }
}
