//! Reports in the form that continuous integration reads (JUnit's XML).

use std::fmt::Write as _;

use crate::suite::Report;

/// The report as a test suite of this name. Each case is a test.
pub fn junit(report: &Report, suite: &str) -> String {
    let mut text = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuite name=\"{}\" tests=\"{}\" failures=\"{}\">\n",
        escaped(suite),
        report.cases.len(),
        report.failed()
    );
    for case in &report.cases {
        let name = escaped(&case.name);
        let _infallible = write!(
            text,
            "  <testcase name=\"{name}\" classname=\"{}\"",
            escaped(suite)
        );
        if case.is_ok() {
            text += "/>\n";
            continue;
        }
        let mut said = String::new();
        for step in &case.steps {
            for mismatch in &step.mismatches {
                let _infallible = writeln!(
                    said,
                    "{}: {}: expected {:?}, got {:?}",
                    step.call, mismatch.key, mismatch.expected, mismatch.got
                );
            }
        }
        let first = said.lines().next().unwrap_or_default();
        let _infallible = writeln!(
            text,
            ">\n    <failure message=\"{}\">{}</failure>\n  </testcase>",
            escaped(first),
            escaped(&said)
        );
    }
    text += "</testsuite>\n";
    text
}

/// XML has no control characters other than tab and line ends.
fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => safe += "&amp;",
            '<' => safe += "&lt;",
            '>' => safe += "&gt;",
            '"' => safe += "&quot;",
            c if c.is_control() && !matches!(c, '\t' | '\n' | '\r') => safe.push('\u{fffd}'),
            c => safe.push(c),
        }
    }
    safe
}
