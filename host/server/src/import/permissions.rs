//! Parameters of Kamailio's `permissions` module, each as a key of ours or with the reason why there is none.

use std::path::Path;

use super::draft::{Draft, Origin};
use super::finding::{Finding, Place, excerpt};
use super::statement::Value;

/// Puts one parameter where it belongs.
pub(super) fn parameter(
    file: &Path,
    name: &str,
    value: &Value,
    place: &Place,
    draft: &mut Draft,
    findings: &mut Vec<Finding>,
) {
    if let Some(key) = column_or_table(name) {
        let value = value.text().to_owned();
        return draft.set("database", key, value, Origin::line(place));
    }
    let mut note = |mend: &str| {
        // Never the database URL: it has a password in it.
        let what = format!("permissions: {name} = {}", excerpt(value.text()));
        findings.push(Finding::at(place, what, mend));
    };
    match name {
        "db_url" => match value.text() {
            "" => draft.remove("database", "url"),
            url => draft.set("database", "url", url, Origin::line(place)),
        },
        "address_file" => {
            let path = beside(file, value.text());
            draft.set("database", "address-file", path, Origin::line(place));
        }
        "subnet_match_mode" if value.number() == Some(1) => note(SUBNET_MATCH_MODE),
        "subnet_match_mode" => {}
        _ => note(explanation(name).unwrap_or(UNKNOWN)),
    }
}

/// The key of `[database]` that names a table or column.
fn column_or_table(name: &str) -> Option<&'static str> {
    Some(match name {
        "address_table" => "address-table",
        "grp_col" => "grp-col",
        "ip_addr_col" => "ip-addr-col",
        "mask_col" => "mask-col",
        "port_col" => "port-col",
        "tag_col" => "tag-col",
        "trusted_table" => "trusted-table",
        "source_col" => "source-col",
        "proto_col" => "proto-col",
        "from_col" => "from-col",
        "ruri_col" => "ruri-col",
        "priority_col" => "priority-col",
        _ => return None,
    })
}

/// Why a parameter has no key here.
fn explanation(name: &str) -> Option<&'static str> {
    Some(match name {
        "max_subnets" => "not needed: there is no limit, and no subnet is dropped",
        "reload_delta" => "not needed: reloads may overlap, each is answered when it is done",
        "trusted_cleanup_interval" => {
            "not needed: an old table is freed as soon as nobody reads it"
        }
        "db_mode" | "peer_tag_mode" => "a parameter of the trusted table, which is not read yet",
        "default_allow_file" | "default_deny_file" | "allow_suffix" | "deny_suffix" => {
            "allow and deny files are not read yet: write their rules in the policy"
        }
        "load_backends" => "not needed: only the address table is there to be loaded",
        "peer_tag_avp" => {
            "no variable is set: after a successful question, last_tag() in the policy gives the tag"
        }
        "check_all_branches" => {
            "not needed: a policy decides on the request as it came, before there are branches"
        }
        _ => return None,
    })
}

/// A path as Kamailio takes it, relative to the folder of its configuration; absolute, because we may be started elsewhere.
fn beside(file: &Path, path: &str) -> String {
    let folder = match file.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let path = match path {
        "" => folder.to_owned(),
        path => folder.join(path),
    };
    let absolute = std::path::absolute(&path).unwrap_or(path);
    absolute.display().to_string()
}

const SUBNET_MATCH_MODE: &str = "there is no longest-prefix match: of the subnets that hold a source, the one with the lowest group and \
     then the lowest id gives group and tag; whether a source is in a group is the same either way";

const UNKNOWN: &str = "a parameter that this import does not know: see docs/from-kamailio.md";
