//! Parameters about pings (Kamailio: `ds_ping_…`, `ds_probing_mode`). Together they say what Kamailio does: its defaults differ from ours.

use crate::draft::{Draft, Origin};
use crate::finding::{Finding, Place, excerpt};
use crate::statement::Value;

/// What the file says about pings.
#[derive(Debug, Default)]
pub(crate) struct Pings {
    /// Where the module is loaded.
    module: Option<Place>,
    /// `ds_ping_interval`, in seconds.
    interval: Option<(i64, Place)>,
    /// `ds_probing_mode`.
    mode: Option<(i64, Place)>,
    /// `ds_ping_reply_codes`, as ours, and its place.
    codes: Option<(Vec<String>, Place)>,
}

impl Pings {
    /// Notes that a module is loaded.
    pub(crate) fn module(&mut self, name: &str, place: &Place) {
        if name == "dispatcher" {
            self.module = Some(place.clone());
        }
    }

    /// Takes a parameter, if it is about pings. Returns whether it is.
    pub(super) fn parameter(
        &mut self,
        name: &str,
        value: &Value,
        place: &Place,
        draft: &mut Draft,
        findings: &mut Vec<Finding>,
    ) -> bool {
        match (name, value.number()) {
            ("ds_ping_interval", Some(seconds)) => self.interval = Some((seconds, place.clone())),
            ("ds_probing_mode", Some(mode @ 0..=3)) => self.mode = Some((mode, place.clone())),
            ("ds_ping_reply_codes", _) => {
                let (codes, unknown) = codes_of(value.text());
                for part in unknown {
                    let what = format!("dispatcher: ds_ping_reply_codes: {}", excerpt(&part));
                    let mend = "`ping-codes` in [dispatcher] has final status codes, such as \"404\", and classes, such as \"3xx\"";
                    findings.push(Finding::at(place, what, mend));
                }
                self.codes = Some((codes, place.clone()));
            }
            ("ds_ping_method", _) => {
                draft.set(
                    "dispatcher",
                    "ping-method",
                    value.text(),
                    Origin::line(place),
                );
            }
            ("ds_ping_from", _) => {
                draft.set("dispatcher", "ping-from", value.text(), Origin::line(place));
            }
            ("ds_ping_latency_stats" | "ds_latency_estimator_alpha", _) => {
                let what = format!("dispatcher: {name} = {}", excerpt(value.text()));
                let mend = "latencies are always measured, with Kamailio's default weights";
                findings.push(Finding::at(place, what, mend));
            }
            ("ds_ping_flags", _) => {
                let what = format!("dispatcher: {name} = {}", excerpt(value.text()));
                findings.push(Finding::at(place, what, "no counterpart"));
            }
            _ => return false,
        }
        true
    }

    /// Writes the keys.
    pub(crate) fn write(self, draft: &mut Draft) {
        let Self {
            module,
            interval,
            mode,
            codes,
        } = self;
        let set = |draft: &mut Draft, key, value: &str, origin| {
            draft.set("dispatcher", key, value, origin);
        };
        let Some((seconds, place)) = interval.filter(|(seconds, _)| *seconds > 0) else {
            if let Some(place) = module {
                let origin =
                    Origin::remark(&place, "without ds_ping_interval, Kamailio pings nothing");
                set(draft, "ping", "0s", origin);
            }
            return;
        };
        set(draft, "ping", &format!("{seconds}s"), Origin::line(&place));
        let default = || Origin::remark(&place, "Kamailio's default");
        let (mode, origin) = match mode {
            Some((mode, place)) => (mode, Origin::line(&place)),
            None => (0, default()),
        };
        let which = match mode {
            1 => "all",
            2 => "inactive",
            3 => "flagged-always",
            _ => "flagged",
        };
        set(draft, "probe", which, origin);
        draft.push("dispatcher", "ping-codes", "2xx", default());
        if let Some((codes, place)) = codes {
            for code in codes.iter().filter(|code| *code != "2xx") {
                draft.push(
                    "dispatcher",
                    "ping-codes",
                    code.as_str(),
                    Origin::line(&place),
                );
            }
        }
        for key in ["down-after", "up-after"] {
            if !draft.has("dispatcher", key) {
                draft.set_number("dispatcher", key, 1, default());
            }
        }
    }
}

/// The codes and classes of `class=2;code=403`, and the parts that are neither.
fn codes_of(text: &str) -> (Vec<String>, Vec<String>) {
    let (mut codes, mut unknown) = (Vec::new(), Vec::new());
    let parts = text.split(';').map(str::trim);
    for part in parts.filter(|part| !part.is_empty()) {
        let (name, value) = part.split_once('=').unwrap_or((part, ""));
        let number = value.trim().parse::<u16>().ok();
        match (name.trim(), number) {
            ("class", Some(class @ 2..=6)) => codes.push(format!("{class}xx")),
            ("code", Some(code @ 200..=699)) => codes.push(code.to_string()),
            _ => unknown.push(part.to_owned()),
        }
    }
    (codes, unknown)
}
