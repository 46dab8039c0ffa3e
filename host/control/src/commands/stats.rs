//! `stats.…`: Kamailio's statistics by name (`src/modules/kex/core_stats.c`).

use indexmap::IndexMap;
use portcullis_config::TokenRole;
use portcullis_rpc::{Call, Fault, Param};

use super::{FromCall, Procedure};
use crate::Control;
use crate::caller::Caller;
use crate::statistics::{self, Statistic};

/// `stats.get_statistics`: lines of text.
#[derive(Debug)]
pub(crate) struct Lines(Selection);

/// `stats.fetch`: a structure of texts.
#[derive(Debug)]
pub(crate) struct Fetch(Selection);

/// `stats.fetchn`: a structure of numbers.
#[derive(Debug)]
pub(crate) struct FetchNumbers(Selection);

/// The statistics that a call asks for: `all`, `GROUP:`, or names.
#[derive(Debug)]
struct Selection(Vec<String>);

impl Selection {
    fn of(call: &Call) -> Result<Self, Fault> {
        let names = call.params.iter().map(|param| match param {
            Param::Text(name) => Ok(name.clone()),
            Param::Int(_) | Param::Double(_) | Param::Other(_) => Err(()),
        });
        match names.collect::<Result<Vec<_>, _>>() {
            Ok(names) if !names.is_empty() => Ok(Self(names)),
            Ok(_) | Err(()) => Err(Fault::new(400, "Please provide which stats to retrieve")),
        }
    }

    /// The statistics, in the order of the names in the call. An unknown name selects none.
    fn select(&self, control: &Control) -> Vec<Statistic> {
        let all = statistics::all(&control.shared);
        let selected = self.0.iter().flat_map(|wanted| {
            let group = wanted.strip_suffix(':');
            all.iter().filter(move |statistic| {
                wanted == "all"
                    || group.map_or(statistic.name == *wanted, |group| group == statistic.group)
            })
        });
        selected.cloned().collect()
    }

    fn structure<T>(&self, control: &Control, value: impl Fn(u64) -> T) -> IndexMap<String, T> {
        let selected = self.select(control).into_iter();
        let members = selected.map(|statistic| {
            let Statistic { group, name, .. } = &statistic;
            (format!("{group}.{name}"), value(statistic.value))
        });
        members.collect()
    }
}

impl FromCall for Lines {
    fn from_call(call: &Call) -> Result<Self, Fault> {
        Selection::of(call).map(Self)
    }
}

impl Procedure for Lines {
    type Reply = Vec<String>;

    const NEEDS: TokenRole = TokenRole::Read;

    async fn execute(self, control: &Control, _: &Caller) -> Result<Vec<String>, Fault> {
        let selected = self.0.select(control).into_iter();
        let lines =
            selected.map(|Statistic { group, name, value }| format!("{group}:{name} = {value}"));
        Ok(lines.collect())
    }
}

impl FromCall for Fetch {
    fn from_call(call: &Call) -> Result<Self, Fault> {
        Selection::of(call).map(Self)
    }
}

impl Procedure for Fetch {
    type Reply = IndexMap<String, String>;

    const NEEDS: TokenRole = TokenRole::Read;

    async fn execute(self, control: &Control, _: &Caller) -> Result<Self::Reply, Fault> {
        Ok(self.0.structure(control, |value| value.to_string()))
    }
}

impl FromCall for FetchNumbers {
    fn from_call(call: &Call) -> Result<Self, Fault> {
        Selection::of(call).map(Self)
    }
}

impl Procedure for FetchNumbers {
    type Reply = IndexMap<String, u64>;

    const NEEDS: TokenRole = TokenRole::Read;

    async fn execute(self, control: &Control, _: &Caller) -> Result<Self::Reply, Fault> {
        Ok(self.0.structure(control, |value| value))
    }
}
