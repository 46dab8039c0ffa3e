//! The state of a script in its policy: what it has changed, and what its failure routes need.

use std::collections::{BTreeMap, BTreeSet};

use super::context::{Part, Variable, flag_of};
use super::kinds::{changes_target, is_question, is_target};
use super::routes::{Reached, for_each_call, for_each_variable, is_understood};
use super::syntax::{Expression, Route};

/// The flags that these routes read, as Rust expressions, without those that something else may change: `others` are routes that no policy has.
pub(super) fn flags(
    routes: &[&Route],
    others: &[&Route],
    reached: &Reached<'_>,
) -> BTreeSet<String> {
    let (mut flags, mut after_failure) = (BTreeSet::new(), BTreeSet::new());
    // A flag that is not a number here may be any of them.
    let (mut any, mut any_of_branch) = (false, false);
    // A failure route sees those of the branch whose response it handles.
    let mut is_one_of_many = false;
    for route in routes {
        let is_after_failure = reached.is_after_failure(route);
        for_each_call(
            &route.body,
            &mut |call| match (&*call.name, flag_of(call)) {
                ("isflagset" | "isbflagset", Some(flag)) => {
                    if is_after_failure {
                        after_failure.insert(flag.clone());
                    }
                    flags.insert(flag);
                }
                ("setflag" | "resetflag", None) => any = true,
                ("setbflag" | "resetbflag", None) => any_of_branch = true,
                ("append_branch", _) => is_one_of_many = true,
                _ => {}
            },
        );
    }
    let mut changed = BTreeSet::new();
    for route in others {
        for_each_call(
            &route.body,
            &mut |call| match (&*call.name, flag_of(call)) {
                (name, Some(flag)) if !is_question(name) => {
                    changed.insert(flag);
                }
                ("setflag" | "resetflag", None) => any = true,
                ("setbflag" | "resetbflag", None) => any_of_branch = true,
                _ => {}
            },
        );
    }
    let is_all_known = others.iter().all(|route| is_understood(&route.body));
    flags.retain(|flag| {
        let is_of_branch = flag.starts_with("BRANCH");
        let is_lost = match is_of_branch {
            true => any_of_branch || is_one_of_many && after_failure.contains(flag),
            false => any,
        };
        let is_known = is_all_known || !after_failure.contains(flag);
        !is_lost && is_known && !changed.contains(flag)
    });
    flags
}

/// What the policy of these routes, which read these flags, has to keep.
pub(super) fn parts(
    routes: &[&Route],
    reached: &Reached<'_>,
    flags: &BTreeSet<String>,
) -> BTreeSet<Part> {
    let mut parts = BTreeSet::new();
    if !flags.is_empty() {
        parts.insert(Part::Flags);
    }
    let has_failure_route = routes.iter().any(|route| route.kind == "failure_route");
    if has_failure_route {
        parts.insert(Part::FailureRoute);
    }
    for route in routes {
        for_each_variable(&route.body, &mut |variable| {
            parts.extend(is_target(variable).then_some(Part::Target));
        });
        for_each_call(&route.body, &mut |call| {
            let is_known = call
                .arguments
                .iter()
                .all(|value| Expression::literal(value).is_some());
            let part = match &*call.name {
                name if changes_target(name) => Part::Target,
                "append_branch" => Part::Branches,
                "t_set_fr" if has_failure_route && is_known => Part::Times,
                "append_hf" if reached.is_after_failure(route) => Part::Headers,
                "ds_select_dst" if is_known => Part::Set,
                _ => return,
            };
            parts.insert(part);
        });
    }
    // Kamailio sends the request to the branches, too, which are targets of another kind.
    if parts.contains(&Part::Branches) {
        parts.remove(&Part::Set);
    }
    parts
}

/// The type that has routes as its methods, up to them. `first` is `fr_timer` in milliseconds, and `functions` are the routes.
pub(super) fn script(
    parts: &BTreeSet<Part>,
    variables: &BTreeMap<String, Variable>,
    first: Option<u32>,
    functions: &[String],
) -> String {
    let has = |part| parts.contains(&part);
    let times = Times {
        is_set: has(Part::Times),
        first: first.filter(|_| has(Part::FailureRoute)),
    };
    let mut text =
        "\n/// What the script has changed so far.\n#[derive(Default)]\nstruct Script {\n"
            .to_owned();
    text.push_str("    request_uri: Option<String>,\n    destination: Option<String>,\n");
    for (part, fields) in [
        (Part::Branches, BRANCHES),
        (Part::FailureRoute, FAILURE_ROUTE),
        (Part::Times, TIMES),
        (Part::Headers, HEADERS),
        (Part::Set, SELECTED_FIELD),
        (Part::Flags, FLAGS),
    ] {
        text.push_str(if has(part) { fields } else { "" });
    }
    let has_next = functions
        .iter()
        .any(|function| function.contains("self.next_destination()"));
    text.push_str(if has_next { SET_FIELD } else { "" });
    for (name, variable) in variables {
        let field = &variable.field;
        let ty = if variable.is_number { "i64" } else { "String" };
        text.push_str(&format!("    /// `{name}`\n    {field}: {ty},\n"));
    }
    text.push_str("}\n\nimpl Script {\n");
    let in_memo = variables.values().filter(|one| one.is_in_memo);
    let in_memo: Vec<_> = in_memo.map(|one| &*one.field).collect();
    let memo = Memo {
        times,
        has_set: has_next,
        has_flags: has(Part::Flags),
        variables: &in_memo,
    };
    if has(Part::FailureRoute) {
        text.push_str(&after_failure(has(Part::Branches), memo));
    }
    let reads_uri = |function: &String| function.contains("self.uri()");
    if functions.iter().any(reads_uri) || has(Part::Branches) {
        text.push_str(URI);
    }
    text.push_str(&relay(parts));
    if has(Part::FailureRoute) || has(Part::Branches) {
        text.push_str(&target(times, has(Part::Headers)));
    }
    if has(Part::FailureRoute) {
        text.push_str(&kept(memo));
    }
    if has(Part::FailureRoute) || has(Part::Branches) {
        text.push_str(&has_target(parts));
    }
    text.push_str(if has(Part::Branches) {
        APPEND_BRANCH
    } else {
        ""
    });
    text.push_str(if has(Part::Headers) { ADD_HEADER } else { "" });
    if has(Part::Set) {
        let (note, next) = match has_next {
            true => ("        self.set = Some((set, algorithm));\n", NEXT),
            false => ("", ""),
        };
        text.push_str(&SELECT.replace("NOTE", note));
        text.push_str(next);
    }
    for (call, method) in [
        ("self.has_flag(", HAS_FLAG),
        ("self.set_flag(", SET_FLAG),
        ("self.reset_flag(", RESET_FLAG),
    ] {
        let is_called = functions.iter().any(|function| function.contains(call));
        text.push_str(if is_called { method } else { "" });
    }
    text
}

/// What a failure route gets beside `$ru` and `$du`.
#[derive(Clone, Copy)]
struct Memo<'m> {
    times: Times,
    /// The set and the algorithm of `ds_select_dst`.
    has_set: bool,
    has_flags: bool,
    /// Fields of texts.
    variables: &'m [&'m str],
}

/// The times of targets.
#[derive(Clone, Copy)]
struct Times {
    /// Whether the script sets them: `t_set_fr`.
    is_set: bool,
    /// `fr_timer` in milliseconds.
    first: Option<u32>,
}

const BRANCHES: &str = "    /// Places and request URIs of `append_branch`.
    branches: Vec<(String, String)>,
    /// `$ru` and `$du` that are a target already: they have failed, or `append_branch()` has taken them.
    taken: Option<(Option<String>, Option<String>)>,
";

const FAILURE_ROUTE: &str = "    /// The function for the failure route that `t_on_failure` names.
    failure_route: String,
    /// In a failure route: `$ru` and `$du` of the request route, with which each failure route begins.
    begin: Option<(Option<String>, Option<String>)>,
";

const TIMES: &str = "    /// `t_set_fr`: milliseconds until the first response.
    first: Option<u64>,
    /// `t_set_fr`: milliseconds until the final response.
    ring: Option<u64>,
";

const HEADERS: &str = "    /// Header fields for the targets of a failure route.
    headers: Vec<(&'static str, String)>,
";

const SET_FIELD: &str = "    /// The set and the algorithm of the last `ds_select_dst`.
    set: Option<(u32, u8)>,
";

const SELECTED_FIELD: &str =
    "    /// To the destination that `ds_select_dst` or `ds_next_dst` has chosen.
    selected: Option<Verdict>,
";

const FLAGS: &str = "    /// `setflag` and `setbflag`: a bit for each flag.
    flags: u64,
";

const HAS_FLAG: &str = "    /// `isflagset`, `isbflagset`
    fn has_flag(&self, flag: u32) -> bool {
        self.flags & (1 << flag) != 0
    }

";

const SET_FLAG: &str = "    /// `setflag`, `setbflag`
    fn set_flag(&mut self, flag: u32) {
        self.flags |= 1 << flag;
    }

";

const RESET_FLAG: &str = "    /// `resetflag`, `resetbflag`
    fn reset_flag(&mut self, flag: u32) {
        self.flags &= !(1 << flag);
    }

";

const URI: &str = "    /// `$ru`
    fn uri(&self) -> String {
        self.request_uri.clone().unwrap_or_else(request::uri)
    }

";

/// The constructor for failure routes.
fn after_failure(has_branches: bool, memo: Memo<'_>) -> String {
    let Memo {
        times,
        has_set,
        has_flags,
        variables,
    } = memo;
    let mut text =
        "    /// The function for a failure route, and the state in which the route begins.
    fn after_failure() -> (String, Self) {
        let memo = String::from_utf8(outcome::memo()).unwrap_or_default();
        let parts: Vec<_> = memo.split('\\n').collect();
        let part = |at: usize| {
            let part = parts.get(at).filter(|part| !part.is_empty());
            part.map(|part| (*part).to_owned())
        };
        let (request_uri, destination) = (part(1), part(2));
        let script = Self {
            begin: Some((request_uri.clone(), destination.clone())),
"
        .to_owned();
    if has_branches {
        text.push_str("            taken: Some((request_uri.clone(), destination.clone())),\n");
    }
    text.push_str("            request_uri,\n            destination,\n");
    if times.is_set {
        text.push_str(
            "            first: part(3).and_then(|time| time.parse().ok()),\n            ring: part(4).and_then(|time| time.parse().ok()),\n",
        );
    }
    let mut at = if times.is_set { 5 } else { 3 };
    if has_set {
        let (set, algorithm) = (at, at + 1);
        at += 2;
        text.push_str(&format!(
            "            set: part({set})
                .and_then(|set| set.parse().ok())
                .zip(part({algorithm}).and_then(|algorithm| algorithm.parse().ok())),
"
        ));
    }
    if has_flags {
        text.push_str(&format!(
            "            flags: part({at}).and_then(|flags| flags.parse().ok()).unwrap_or_default(),\n"
        ));
        at += 1;
    }
    for (at, field) in (at..).zip(variables) {
        text.push_str(&format!(
            "            {field}: part({at}).unwrap_or_default(),\n"
        ));
    }
    text.push_str(
        "            ..Self::default()\n        };\n        (part(0).unwrap_or_default(), script)\n    }\n\n",
    );
    text
}

/// `t_relay()`
fn relay(parts: &BTreeSet<Part>) -> String {
    let has = |part| parts.contains(&part);
    let (more, also) = match has(Part::Headers) {
        true => (
            " || !self.headers.is_empty()",
            ", or with append_hf in a failure route,",
        ),
        false => ("", ""),
    };
    let selected = |kept: &str| match has(Part::Set) {
        true => SELECTED
            .replace("KEPT", kept)
            .replace("MORE", more)
            .replace("ALSO", also),
        false => String::new(),
    };
    if !has(Part::FailureRoute) && !has(Part::Branches) {
        let selected = selected("verdict.clone()");
        return RELAY.replacen("Verdict {\n", &format!("Verdict {{\n{selected}"), 1);
    }
    let kept = |verdict: &str| match has(Part::FailureRoute) {
        true => format!("self.kept({verdict})"),
        false => verdict.to_owned(),
    };
    let mut text =
        "    /// `t_relay()`: to `$du` or, without it, to where the request URI leads.\n    fn relay(&self) -> Verdict {\n".to_owned();
    if has(Part::FailureRoute) {
        text.push_str(NO_TARGET);
    }
    text.push_str(&selected(&kept("verdict.clone()")));
    if has(Part::Branches) {
        text.push_str(&format!(
            "        if !self.branches.is_empty() {{
            let mut targets = Vec::new();
            if self.is_changed() {{
                let place = self.destination.clone().unwrap_or_else(|| self.uri());
                targets.push(self.target(&place));
            }}
            for (place, request_uri) in &self.branches {{
                targets.push(self.target(place).request_uri(request_uri));
            }}
            return {};
        }}
",
            kept("fork(targets)")
        ));
    }
    let by = match has(Part::Branches) {
        true => kept("fork([self.target(place)])"),
        false => "self.relay_by(place)".to_owned(),
    };
    text.push_str(&format!(
        "        match (&self.destination, &self.request_uri) {{
            (Some(place), _) | (None, Some(place)) => {by},
            (None, None) => {},
        }}
    }}

",
        kept("relay()")
    ));
    if !has(Part::Branches) {
        text.push_str(&format!(
            "    /// To this URI, with the request URI of the script.
    fn relay_by(&self, place: &str) -> Verdict {{
{NO_TARGET}        {}
    }}

",
            kept("fork([self.target(place)])")
        ));
    }
    text
}

const NO_TARGET: &str = "        if !self.has_target() {
            // What has failed is not tried again: the sender gets the best response.
            return drop_request();
        }
";

/// With a destination of a set. The host sends it the request that was received, with the header fields of all targets.
const SELECTED: &str = "        if let Some(verdict) = &self.selected {
            if self.request_uri.is_some() || self.destination.is_some()MORE {
                log::error!(\"ds_select_dst with another $ru or $duALSO is not translated\");
                return reject(500, \"Policy incomplete\");
            }
            return KEPT;
        }
";

const RELAY: &str = "    /// `t_relay()`: to `$du` or, without it, to where the request URI leads.
    fn relay(&self) -> Verdict {
        match (&self.destination, &self.request_uri) {
            (Some(destination), _) => self.relay_by(destination),
            (None, Some(uri)) => self.relay_by(uri),
            (None, None) => relay(),
        }
    }

    /// To this URI, with the request URI of the script.
    fn relay_by(&self, place: &str) -> Verdict {
        let verdict = relay_to_uri(place);
        match &self.request_uri {
            Some(uri) => verdict.request_uri(uri),
            None => verdict,
        }
    }

";

/// The target of a relay.
fn target(times: Times, has_headers: bool) -> String {
    let mut text = TARGET.to_owned();
    if has_headers {
        text.push_str(TARGET_HEADERS);
    }
    match times {
        Times {
            is_set: true,
            first: Some(_),
        } => {
            text.push_str(TARGET_FIRST_OR_TIMER);
            text.push_str(TARGET_RING);
        }
        Times {
            is_set: true,
            first: None,
        } => {
            text.push_str(TARGET_FIRST);
            text.push_str(TARGET_RING);
        }
        Times {
            is_set: false,
            first: Some(_),
        } => text.push_str(TARGET_TIMER),
        Times {
            is_set: false,
            first: None,
        } => {}
    }
    text.push_str("        target\n    }\n\n");
    text
}

const TARGET: &str = "    /// A target at this URI, with the request URI of the script.
    fn target(&self, place: &str) -> Target {
        let mut target = Target::uri(place);
        if let Some(uri) = &self.request_uri {
            target = target.request_uri(uri);
        }
";

const TARGET_HEADERS: &str = "        for (name, value) in &self.headers {
            target = target.header(*name, value);
        }
";

const TARGET_FIRST_OR_TIMER: &str = "        let first = self.first.unwrap_or(FR_TIMER);
        target = target.within(Duration::from_millis(first));
";

const TARGET_FIRST: &str = "        if let Some(first) = self.first {
            target = target.within(Duration::from_millis(first));
        }
";

const TARGET_RING: &str = "        if let Some(ring) = self.ring {
            target = target.ring_for(Duration::from_millis(ring));
        }
";

const TARGET_TIMER: &str = "        target = target.within(Duration::from_millis(FR_TIMER));
";

/// The memo for the failure route.
fn kept(memo: Memo<'_>) -> String {
    let Memo {
        times,
        has_set,
        has_flags,
        variables,
    } = memo;
    let mut text = "    /// With the memo that `after_failure` reads.
    fn kept(&self, verdict: Verdict) -> Verdict {
        if self.failure_route.is_empty() {
            return verdict.memo(\"\");
        }
        let now = (self.request_uri.clone(), self.destination.clone());
        let (request_uri, destination) = self.begin.as_ref().unwrap_or(&now);
        let text = |part: &Option<String>| part.clone().unwrap_or_default();
"
    .to_owned();
    if has_set {
        text.push_str(
            "        let of_set = |part: fn((u32, u8)) -> u32| {\n            self.set.map(|set| part(set).to_string()).unwrap_or_default()\n        };\n",
        );
    }
    if times.is_set {
        text.push_str(
            "        let number = |time: Option<u64>| time.map(|time| time.to_string()).unwrap_or_default();\n",
        );
    }
    text.push_str(
        "        let memo = [\n            self.failure_route.clone(),\n            text(request_uri),\n            text(destination),\n",
    );
    if times.is_set {
        text.push_str("            number(self.first),\n            number(self.ring),\n");
    }
    if has_set {
        text.push_str(
            "            of_set(|(set, _)| set),\n            of_set(|(_, algorithm)| algorithm.into()),\n",
        );
    }
    if has_flags {
        text.push_str("            self.flags.to_string(),\n");
    }
    for field in variables {
        text.push_str(&format!("            self.{field}.clone(),\n"));
    }
    // A variable may have any letter; a URI has no line break.
    let (are_lines, or_not, what) = match variables {
        [] => ("", "", "$ru and $du are too long to be kept"),
        [..] => (
            "        let are_lines = memo.iter().all(|part| !part.contains('\\n'));\n",
            " || !are_lines",
            "$ru, $du and the $avp are too long to be kept, or have line breaks",
        ),
    };
    text.push_str(&format!(
        "        ];
{are_lines}        let memo = memo.join(\"\\n\");
        if memo.len() > 256{or_not} {{
            log::error!(\"no failure route for this request: {what}\");
            return verdict.memo(\"\");
        }}
        verdict.memo(memo)
    }}

"
    ));
    text
}

/// Whether there is something for `t_relay()` to try.
fn has_target(parts: &BTreeSet<Part>) -> String {
    let has = |part| parts.contains(&part);
    let (changed, taken) = match (has(Part::Branches), has(Part::FailureRoute)) {
        (true, _) => ("is_changed", "taken"),
        (false, _) => ("has_target", "begin"),
    };
    let mut text = String::new();
    if has(Part::Branches) && has(Part::FailureRoute) {
        text.push_str(
            "    /// Whether `t_relay()` has a target: in a failure route, one that has not failed.
    fn has_target(&self) -> bool {
        !self.branches.is_empty() || self.is_changed()
    }

",
        );
    }
    let about = match has(Part::Branches) {
        true => "    /// Whether `$ru` and `$du` are a target that has not been taken yet.\n",
        false => {
            "    /// Whether `t_relay()` has a target: in a failure route, one that has not failed.\n"
        }
    };
    text.push_str(about);
    let selected = match has(Part::Set) {
        true => "        if self.selected.is_some() {\n            return true;\n        }\n",
        false => "",
    };
    text.push_str(&format!(
        "    fn {changed}(&self) -> bool {{
{selected}        let Some((request_uri, destination)) = &self.{taken} else {{
            return true;
        }};
        self.request_uri != *request_uri
            || (self.destination.is_some() && self.destination != *destination)
    }}

"
    ));
    text
}

const APPEND_BRANCH: &str = "    /// `append_branch`: a target with this request URI, or `$ru` without one, at `$du` if there is one.
    fn append_branch(&mut self, request_uri: Option<&str>) {
        if request_uri.is_none() {
            self.taken = Some((self.request_uri.clone(), self.destination.clone()));
        }
        let request_uri = request_uri.map_or_else(|| self.uri(), str::to_owned);
        let place = self.destination.clone().unwrap_or_else(|| request_uri.clone());
        self.branches.push((place, request_uri));
    }

";

const SELECT: &str = "    /// `ds_select_dst`: one destination of a set. The host tries no other one unless the script asks for it.
    fn select(&mut self, set: u32, algorithm: u8) -> bool {
        let how = match algorithm {
            0 => Algorithm::CallId,
            1 => Algorithm::FromUri,
            2 => Algorithm::ToUri,
            3 => Algorithm::RequestUri,
            5 => Algorithm::AuthUser,
            6 => Algorithm::Random,
            8 => Algorithm::Priority,
            9 => Algorithm::Weight,
            10 => Algorithm::CallLoad,
            11 => Algorithm::RelativeWeight,
            13 => Algorithm::Latency,
            _ => Algorithm::RoundRobin,
        };
        self.destination = None;
NOTE        self.selected = relay_to_set(set, how, 1);
        self.selected.is_some()
    }

";

const NEXT: &str = "    /// `ds_next_dst`: a destination of the set that has not been tried.
    fn next_destination(&mut self) -> bool {
        self.set.is_some_and(|(set, algorithm)| self.select(set, algorithm))
    }

";

const ADD_HEADER: &str =
    "    /// `append_hf`: for all targets or, in a failure route, for those that it names.
    fn add_header(&mut self, name: &'static str, value: String) {
        match self.begin {
            Some(_) => self.headers.push((name, value)),
            None => {
                edits::add_header(name, &value);
            }
        }
    }

";
