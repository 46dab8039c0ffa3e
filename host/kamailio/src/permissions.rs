//! Parameters of Kamailio's `permissions` module, each as a key of our configuration, or with the reason why there is none.

use std::path::Path;

use super::draft::{Draft, Origin};
use super::finding::{Finding, Place, excerpt};
use super::statement::Value;

/// Translates one parameter.
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
        // Never show the database URL: it contains a password.
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
        "default_allow_file" | "default_deny_file" => {
            folder(file, name, value, place, draft, &mut note);
        }
        "load_backends" => {
            if let Some(mend) = backends(value) {
                note(&mend);
            }
        }
        "peer_tag_mode" if value.number() == Some(1) => note(PEER_TAG_MODE),
        "subnet_match_mode" if value.number() == Some(1) => note(SUBNET_MATCH_MODE),
        "allow_suffix" if value.text() == ".allow" => {}
        "deny_suffix" if value.text() == ".deny" => {}
        "peer_tag_mode" | "subnet_match_mode" => {}
        "db_mode" if value.number() != Some(1) => note(WITHOUT_CACHE),
        _ => note(explanation(name).unwrap_or(UNKNOWN)),
    }
}

/// Configures the allow and deny files if the routing logic uses them.
pub(super) fn use_files(file: &Path, place: &Place, draft: &mut Draft) {
    if !draft.has("permissions", "folder") {
        let folder = beside(file, "");
        let remark = "the directory of kamailio.cfg, where Kamailio looks for allow and deny files";
        draft.set(
            "permissions",
            "folder",
            folder,
            Origin::remark(place, remark),
        );
    }
}

/// The key of `[database]` for a table or column name.
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

/// `default_allow_file` and `default_deny_file` give the paths of the files; here they are `permissions.allow` and `permissions.deny` in
/// one directory.
fn folder(
    file: &Path,
    name: &str,
    value: &Value,
    place: &Place,
    draft: &mut Draft,
    note: &mut dyn FnMut(&str),
) {
    let path = beside(file, value.text());
    let path = Path::new(&path);
    let ours = match name {
        "default_allow_file" => "permissions.allow",
        _ => "permissions.deny",
    };
    if path.file_name().is_none_or(|name| name != ours) {
        note(&format!(
            "the default pair is permissions.allow and permissions.deny here: rename the file to {ours}"
        ));
    }
    let folder = path.parent().unwrap_or_else(|| Path::new("."));
    let folder = folder.display().to_string();
    draft.set("permissions", "folder", folder, Origin::line(place));
}

fn backends(value: &Value) -> Option<String> {
    const BACKENDS: [(i64, &str); 4] = [
        (1, "the address table"),
        (2, "the trusted table"),
        (4, "the allow files"),
        (8, "the deny files"),
    ];
    let Some(bits) = value.number() else {
        return Some("not a number: Kamailio would not start".into());
    };
    let off: Vec<_> = BACKENDS
        .iter()
        .filter(|(bit, _)| bits & bit == 0)
        .map(|(_, name)| *name)
        .collect();
    (!off.is_empty()).then(|| {
        format!(
            "Kamailio does not load {}; here each part is loaded if it is there, and matters only to a policy that asks for it",
            off.join(", ")
        )
    })
}

/// Why a parameter has no key here.
fn explanation(name: &str) -> Option<&'static str> {
    Some(match name {
        "max_subnets" => "not needed: there is no limit, and no subnet is dropped",
        "reload_delta" => "not needed: reloads may overlap, each is answered when it is done",
        "trusted_cleanup_interval" => {
            "not needed: an old table is freed as soon as it is no longer in use"
        }
        "db_mode" => {
            "not needed: the trusted table is always in memory, and a change is seen within about a second"
        }
        "peer_tag_avp" => {
            "no variable is set: after a successful question, last_tag() in the policy gives the tag, after allow_trusted() tags() does"
        }
        "check_all_branches" => {
            "not needed: a policy decides on the request as it came, before there are branches"
        }
        "allow_suffix" => "the ending is always .allow here: rename the files",
        "deny_suffix" => "the ending is always .deny here: rename the files",
        _ => return None,
    })
}

/// A path as Kamailio resolves it, relative to the directory of its configuration; absolute, because the host may be started elsewhere.
pub(super) fn beside(file: &Path, path: &str) -> String {
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

const WITHOUT_CACHE: &str = "the trusted table is always in memory here, as with 1: the row with the highest priority is tried first, not the lowest; turn the priorities round if the policy asks for tags";

const PEER_TAG_MODE: &str = "in the policy, count_trusted() counts all rows that match, and tags() gives their tags; allow_trusted() is the first match";

const SUBNET_MATCH_MODE: &str = "there is no longest-prefix match: of the subnets that hold a source, the one with the lowest group and \
     then the lowest id gives group and tag; whether a source is in a group is the same either way";

const UNKNOWN: &str = "a parameter that this import does not know: see docs/from-kamailio.md";
