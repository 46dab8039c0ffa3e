//! Errors as one line.

use std::fmt::Write;

/// An error with its causes. The text of a cause is left out if the error contains it already.
pub fn one_line(error: &anyhow::Error) -> String {
    let mut line = error.to_string();
    for cause in error.chain().skip(1).map(ToString::to_string) {
        if !line.contains(&cause) {
            let _infallible = write!(line, ": {cause}");
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use anyhow::{Context, anyhow};

    use super::*;

    #[test]
    fn causes_are_not_repeated() {
        let error = Err::<(), _>(anyhow!("file not found"))
            .context("cannot read a.toml: file not found")
            .context("no start");
        assert_eq!(
            one_line(&error.unwrap_err()),
            "no start: cannot read a.toml: file not found"
        );
        assert_eq!(one_line(&anyhow!("alone")), "alone");
    }
}
