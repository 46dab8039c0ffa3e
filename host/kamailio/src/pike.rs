//! Parameters of Kamailio's module `pike`, a rate for each source, and the table of `htable` in which scripts keep whom they ban.

use super::draft::{Draft, Origin};
use super::finding::{Finding, Place};
use super::statement::Value;

/// The parameters so far. Two of them together are a rate.
#[derive(Clone, Debug, Default)]
pub(super) struct Pike {
    seconds: Option<i64>,
    density: Option<i64>,
    /// The last of them.
    place: Option<Place>,
    /// How long the script bans a source, in seconds.
    ban: Option<(i64, Place)>,
}

/// The longest `ban` of `[guard]`, in seconds.
const LONGEST_BAN: i64 = 86_400;

impl Pike {
    /// Notes one parameter.
    pub(super) fn parameter(
        &mut self,
        name: &str,
        value: &Value,
        place: &Place,
        findings: &mut Vec<Finding>,
    ) {
        let known = match name {
            "sampling_time_unit" => &mut self.seconds,
            "reqs_density_per_unit" => &mut self.density,
            "remove_latency" => {
                let mend = "the guard forgets a source when it needs the room; `ban` in [guard] is how long one is held or banned (in Kamailio, the \
                            script decides that)";
                return findings.push(Finding::at(place, "pike: remove_latency", mend));
            }
            "pike_log_level" => {
                let mend =
                    "a held or banned source is logged as source_held and source_banned, at warn";
                return findings.push(Finding::at(place, "pike: pike_log_level", mend));
            }
            _ => {
                let mend = "this import does not know the parameter";
                return findings.push(Finding::at(place, format!("pike: {name}"), mend));
            }
        };
        match value.number() {
            Some(number @ 1..) => {
                *known = Some(number);
                self.place = Some(place.clone());
            }
            Some(_) | None => {
                let mend = "not a number above 0: see `rate` in [guard]";
                findings.push(Finding::at(place, format!("pike: {name}"), mend));
            }
        }
    }

    /// Notes a table of `htable`, such as `ipban=>size=8;autoexpire=300;` in Kamailio's sample configuration.
    pub(super) fn table(&mut self, value: &Value, place: &Place) {
        let Some((name, options)) = value.text().split_once("=>") else {
            return;
        };
        let mut options = options
            .split(';')
            .filter_map(|option| option.split_once('='));
        let time = options.find(|(name, _)| name.trim() == "autoexpire");
        let time = time.and_then(|(_, seconds)| seconds.trim().parse::<i64>().ok());
        if let Some(seconds @ 1..=LONGEST_BAN) = time
            && name.to_ascii_lowercase().contains("ban")
        {
            self.ban = Some((seconds, place.clone()));
        }
    }

    /// Writes the rate; nothing without parameters. `pike` takes the other from its default.
    pub(super) fn write(self, draft: &mut Draft) {
        let Some(place) = self.place else {
            return;
        };
        let (seconds, density) = (self.seconds.unwrap_or(2), self.density.unwrap_or(30));
        let rate = density.saturating_add(seconds - 1) / seconds;
        let remark = format!(
            "pike: {density} requests in {seconds} s; what is above is dropped, of sources in no table"
        );
        draft.set_number("guard", "rate", rate, Origin::remark(&place, remark));
        draft.set_number("guard", "burst", density, Origin::line(&place));
        if let Some((seconds, place)) = self.ban {
            let origin = Origin::remark(&place, "how long the routing logic bans a source");
            draft.set("guard", "ban", format!("{seconds}s"), origin);
        }
    }
}
