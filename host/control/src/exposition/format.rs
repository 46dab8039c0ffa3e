//! The two text formats of metrics, and which one a request asks for.

use std::borrow::Cow;

use axum::http::{HeaderMap, header};

/// A text format of metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    /// The text format of Prometheus, version 0.0.4, which everything that reads metrics can parse.
    Prometheus,
    /// OpenMetrics 1.0.
    OpenMetrics,
}

impl Format {
    /// Returns the format that the `Accept` header fields of a request prefer. Prometheus' format is the default: it is chosen unless
    /// OpenMetrics is named with a higher quality, or with the same quality where the other one is only covered by a wildcard.
    pub(crate) fn accepted(headers: &HeaderMap) -> Self {
        let mut prometheus = Preference::default();
        let mut open = Preference::default();
        for value in headers.get_all(header::ACCEPT) {
            for range in value.to_str().unwrap_or_default().split(',') {
                let Some(range) = Range::of(range) else {
                    continue;
                };
                prometheus.consider(&range, "text", "plain", &["0.0.4"]);
                open.consider(
                    &range,
                    "application",
                    "openmetrics-text",
                    &["1.0.0", "0.0.1"],
                );
            }
        }
        match open.thousandths > 0 && open.rank() > prometheus.rank() {
            true => Self::OpenMetrics,
            false => Self::Prometheus,
        }
    }

    /// The media type of a page.
    pub(crate) const fn content_type(self) -> &'static str {
        match self {
            Self::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }

    /// Converts a page from OpenMetrics to this format.
    pub(super) fn convert(self, page: String) -> String {
        match self {
            Self::Prometheus => prometheus(&page),
            Self::OpenMetrics => page,
        }
    }
}

/// A media range of an `Accept` header field.
struct Range<'a> {
    kind: &'a str,
    subtype: &'a str,
    version: Option<&'a str>,
    thousandths: u16,
}

impl<'a> Range<'a> {
    fn of(text: &'a str) -> Option<Self> {
        let mut parts = text.split(';').map(str::trim);
        let (kind, subtype) = parts.next()?.split_once('/')?;
        let mut range = Self {
            kind,
            subtype,
            version: None,
            thousandths: 1000,
        };
        for (name, value) in parts.filter_map(|part| part.split_once('=')) {
            let value = value.trim().trim_matches('"');
            match name.trim().to_ascii_lowercase().as_str() {
                "q" => range.thousandths = thousandths(value),
                "version" => range.version = Some(value),
                // The others, such as the character set, do not select a format.
                _ => (),
            }
        }
        Some(range)
    }
}

/// A quality value: 0 to 1 with three digits at most (RFC 9110 §12.4.2); 0 if it is invalid.
fn thousandths(value: &str) -> u16 {
    let quality: f32 = value.parse().unwrap_or_default();
    // In range, because it is clamped. A value that is not a number becomes 0.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    let thousandths = (quality.clamp(0.0, 1.0) * 1000.0).round() as u16;
    thousandths
}

/// How much a request prefers a format: by the most specific range that covers it (RFC 9110 §12.5.1).
#[derive(Default)]
struct Preference {
    specificity: u8,
    thousandths: u16,
}

impl Preference {
    fn consider(&mut self, range: &Range<'_>, kind: &str, subtype: &str, versions: &[&str]) {
        let is = |given: &str, name: &str| given == "*" || given.eq_ignore_ascii_case(name);
        let has_version = range.version.is_none_or(|given| versions.contains(&given));
        if !is(range.kind, kind) || !is(range.subtype, subtype) || !has_version {
            return;
        }
        let specificity = 1
            + u8::from(range.kind != "*")
            + u8::from(range.subtype != "*")
            + u8::from(range.version.is_some());
        let better = (specificity, range.thousandths);
        if better > (self.specificity, self.thousandths) {
            (self.specificity, self.thousandths) = better;
        }
    }

    /// What two formats are compared by. A version makes no difference here: both formats have one.
    fn rank(&self) -> (u16, bool) {
        (self.thousandths, self.specificity > 2)
    }
}

/// Converts a page to the format of Prometheus. There, the name of a counter includes its suffix, an info metric is a gauge, and nothing
/// marks the end.
fn prometheus(page: &str) -> String {
    let mut text = String::with_capacity(page.len() + 4096);
    let mut help = None;
    for line in page.lines() {
        if let Some(described) = line.strip_prefix("# HELP ") {
            help = described.split_once(' ');
            continue;
        }
        let Some(typed) = line.strip_prefix("# TYPE ") else {
            if !line.starts_with("# ") {
                text.push_str(line);
                text.push('\n');
            }
            continue;
        };
        let Some((name, kind)) = typed.split_once(' ') else {
            continue;
        };
        let (name, kind): (Cow<'_, str>, _) = match kind {
            "counter" => (format!("{name}_total").into(), kind),
            "info" => (format!("{name}_info").into(), "gauge"),
            kind => (name.into(), kind),
        };
        if let Some((_, help)) = help.take() {
            text.extend(["# HELP ", &name, " ", help, "\n"]);
        }
        text.extend(["# TYPE ", &name, " ", kind, "\n"]);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accepted(value: &str) -> Format {
        let mut headers = HeaderMap::new();
        headers.insert(header::ACCEPT, value.parse().unwrap());
        Format::accepted(&headers)
    }

    #[test]
    fn the_accept_header_chooses_the_format() {
        let (text, open) = (Format::Prometheus, Format::OpenMetrics);
        assert_eq!(Format::accepted(&HeaderMap::new()), text);
        for (value, format) in [
            ("", text),
            ("*/*", text),
            ("text/html, */*;q=0.8", text),
            ("application/json", text),
            ("text/plain", text),
            ("text/plain;version=0.0.4", text),
            ("Text/Plain; Version=\"0.0.4\"; charset=utf-8", text),
            ("application/openmetrics-text", open),
            ("application/openmetrics-text; version=1.0.0", open),
            ("application/openmetrics-text;version=2.0.0", text),
            ("application/openmetrics-text;q=0, */*", text),
            ("application/openmetrics-text, */*", open),
            (
                "text/plain;version=0.0.4;q=0.5,application/openmetrics-text;q=0.4",
                text,
            ),
            ("application/openmetrics-text, text/plain", text),
            // Prometheus 2.42 and 3.
            (
                "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
                open,
            ),
            (
                "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2",
                open,
            ),
        ] {
            assert_eq!(accepted(value), format, "{value}");
        }
    }

    #[test]
    fn the_format_of_prometheus_names_counters_with_their_suffix() {
        let open = "# HELP a_b Things.\n# TYPE a_b counter\na_b_total{x=\"# TYPE\"} 1\n\
            # HELP build Build.\n# TYPE build info\nbuild_info{version=\"1\"} 1\n\
            # HELP t_seconds Time.\n# TYPE t_seconds histogram\n# UNIT t_seconds seconds\nt_seconds_sum 1.0\n# EOF\n";
        let text = "# HELP a_b_total Things.\n# TYPE a_b_total counter\na_b_total{x=\"# TYPE\"} 1\n\
            # HELP build_info Build.\n# TYPE build_info gauge\nbuild_info{version=\"1\"} 1\n\
            # HELP t_seconds Time.\n# TYPE t_seconds histogram\nt_seconds_sum 1.0\n";
        assert_eq!(Format::Prometheus.convert(open.into()), text);
        assert_eq!(Format::OpenMetrics.convert(open.into()), open);
    }
}
