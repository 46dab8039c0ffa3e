//! The findings of `portcullis check` in the tables and the rules directory.

use std::convert::Infallible;
use std::sync::Arc;

use portcullis_address::{DatabaseError, Failure, RuleFolder, Watcher};
use portcullis_config::Config;
use portcullis_database::Connections;
use portcullis_dispatcher::DispatcherError;
use portcullis_rollout::address_task::{counts, is_of_the_table};
use portcullis_store::{Store, StoreError};

use crate::modes;

use super::check_tls::borrowed;
use super::database::{block_on, is_absent};
use super::findings::{Finding, Found};
use super::print::count;

/// What others can read on the network path to the database, or in its file.
pub(super) fn way(config: &Config) -> Vec<Finding> {
    let urls = &config.database.url;
    let found: Vec<_> = match urls.file() {
        None => {
            let insecure = urls.all().iter().filter_map(|url| {
                let what = url.insecurity()?;
                Some(format!("{url} {what}"))
            });
            insecure.collect()
        }
        Some(file) => modes::too_open(file, modes::PRIVATE).into_iter().collect(),
    };
    found.into_iter().map(Finding::Odd).collect()
}

/// The servers of a cluster: which one is used, and which do not serve. None for a single server, which the other checks use.
pub(super) fn servers(config: &Config) -> anyhow::Result<Vec<Finding>> {
    let urls = config.database.servers();
    if !urls.is_cluster() {
        return Ok(Vec::new());
    }
    let connections = Connections::new(urls);
    let mut findings = Vec::new();
    for (url, served) in block_on(connections.ask_each())? {
        findings.push(match served {
            Ok(what) => Finding::Good(format!("{url}: {what}")),
            Err(failure) => Finding::Odd(failure.to_string()),
        });
    }
    Ok(findings)
}

/// An unusable part of the database. As in Kamailio, a part that no policy uses is not an error. `ends_start`: a host does not start with it.
fn broken(error: &DatabaseError, is_asked: bool, ends_start: bool) -> Finding {
    if is_of_the_table(error) && !is_asked {
        return Finding::Odd(format!("{error}; no policy of the configuration uses it"));
    }
    match ends_start {
        true => Finding::Wrong(error.to_string()),
        false => Finding::Skipped(error.to_string()),
    }
}

/// Where pushed policies are stored.
pub(super) fn pushed(config: &Config) -> anyhow::Result<Vec<Finding>> {
    if is_absent(&config.database.database()) {
        return Ok(Vec::new());
    }
    let store = Store::new(config.database.servers());
    Ok(match block_on(unusable(&store))? {
        Ok(findings) => findings,
        Err(error @ (StoreError::NoTables { .. } | StoreError::Denied { .. })) => {
            let text = format!("pushed policies are kept until the host ends: {error}");
            vec![Finding::Good(text)]
        }
        // The checks of the tables have reported it.
        Err(error) if error.is_away() => Vec::new(),
        // A host starts, and keeps what is pushed until it ends.
        Err(error) => vec![Finding::Skipped(error.to_string())],
    })
}

/// Generations that are to be active or tried, and are missing or damaged.
async fn unusable(store: &Store) -> Result<Vec<Finding>, StoreError> {
    let mut findings = Vec::new();
    for seat in store.seats().await? {
        let candidate = seat.candidate.map(|(number, _)| number);
        for number in seat.active.into_iter().chain(candidate) {
            let name = &seat.name;
            let found = match store.generation(name, number).await {
                Ok(Some(generation)) => store.artifact(&generation.digest).await.map(drop),
                Ok(None) => {
                    findings.push(Finding::Skipped(format!(
                        "{name}: generation {number} is not in the database: activate another one, or push it again"
                    )));
                    continue;
                }
                Err(error) => Err(error),
            };
            match found {
                Err(error) if error.is_away() => return Err(error),
                Err(error) => findings.push(Finding::Skipped(format!(
                    "{name}: generation {number} cannot be activated: {error}"
                ))),
                Ok(()) => {}
            }
        }
    }
    Ok(findings)
}

/// Reads the whole address table and reports every unusable or suspicious row. `is_asked`: a policy of the configuration uses the table.
pub(super) fn addresses(config: &Config, is_asked: bool) -> anyhow::Result<Vec<Finding>> {
    let database = config.database.database();
    let source = database.address_source();
    if is_absent(&database) {
        return Ok(vec![Finding::Odd(format!(
            "{source} does not exist yet: `serve` creates it"
        ))]);
    }
    let loaded = match block_on(database.load())? {
        Ok(loaded) => loaded,
        Err(error) => return Ok(vec![broken(&error, is_asked, config.database.required)]),
    };
    let mut findings = vec![Finding::Good(format!(
        "{source}: {}",
        counts(&loaded.table)
    ))];
    let mut watcher = Watcher::new(database);
    if let (Ok(_), Some(seen)) = (block_on(watcher.look())?, watcher.source()) {
        findings.push(Finding::Good(format!("changes detected by {seen}")));
    }
    let found = Found {
        noun: "row",
        skipped: loaded.skipped,
        errors: &loaded.errors,
        warned: loaded.warned,
        warnings: &loaded.warnings,
    };
    findings.extend(found.findings());
    Ok(findings)
}

/// Checks the stored tenants together with those of the file.
pub(super) fn tenants(config: &Config) -> anyhow::Result<Vec<Finding>> {
    if is_absent(&config.database.database()) {
        return Ok(Vec::new());
    }
    let store = Store::new(config.database.servers());
    // A database without the table has no tenants; an unreachable one has been reported.
    let Ok(rows) = block_on(store.tenants())? else {
        return Ok(Vec::new());
    };
    let settings = config.tls_settings();
    let mut all = config.tenants.clone();
    let mut findings = Vec::new();
    for row in rows {
        let (name, Some(text)) = (row.name, row.config) else {
            continue;
        };
        if all.iter().any(|tenant| tenant.name == name) {
            let text = format!("{name}: stored, and in the configuration file as well");
            findings.push(Finding::Skipped(text));
            continue;
        }
        match config.parse_tenant(&name, &text, &all) {
            Ok(tenant) => {
                findings.push(Finding::Good(format!("{name}, stored in the database")));
                if let Some(settings) = &settings {
                    findings.extend(borrowed(config, settings, &tenant));
                }
                all.push(Arc::new(tenant));
            }
            Err(problems) => {
                let problems = problems.iter();
                findings.extend(
                    problems.map(|problem| Finding::Skipped(format!("{name}, stored: {problem}"))),
                );
            }
        }
    }
    Ok(findings)
}

/// The same for the trusted peers, which a database need not have.
pub(super) fn trusted(config: &Config, is_asked: bool) -> anyhow::Result<Vec<Finding>> {
    let memory = config.permissions.pattern_memory;
    let database = config.database.database().with_pattern_memory(memory);
    let table = &database.schema().trusted.table;
    let loaded = match block_on(database.load_trusted())? {
        Ok(loaded) => loaded,
        Err(DatabaseError::Database(Failure::NoTable { .. })) => {
            let text = format!("no table `{table}`: no peers are trusted");
            return Ok(vec![Finding::Good(text)]);
        }
        // The check of the addresses has reported it.
        Err(DatabaseError::Database(Failure::NoFile { .. })) => return Ok(Vec::new()),
        Err(error) => {
            // With any other error, or beside a file of addresses, a host starts without trusted peers.
            let database = &config.database;
            let ends_start =
                database.required && database.address_file.is_none() && is_of_the_table(&error);
            return Ok(vec![broken(&error, is_asked, ends_start)]);
        }
    };
    let rows = count(loaded.table.len() as u64, "row");
    let resting = match loaded.ignored {
        0 => String::new(),
        n => format!(", {n} disabled (proto none)"),
    };
    let mut findings = vec![Finding::Good(format!("table `{table}`: {rows}{resting}"))];
    let found = Found {
        noun: "row",
        skipped: loaded.skipped,
        errors: &loaded.errors,
        warned: loaded.warned,
        warnings: &loaded.warnings,
    };
    findings.extend(found.findings());
    Ok(findings)
}

/// Reads all allow and deny files and reports every unusable line.
pub(super) fn rules(config: &Config) -> Vec<Finding> {
    let memory = config.permissions.pattern_memory;
    let folder = RuleFolder::new(&config.permissions.folder).with_pattern_memory(memory);
    let Some(path) = folder.path() else {
        return Vec::new();
    };
    let loaded = match folder.load() {
        Ok(loaded) => loaded,
        Err(error) => return vec![Finding::Wrong(error.to_string())],
    };
    let path = path.display();
    let mut findings = Vec::new();
    if loaded.files == 0 {
        findings.push(Finding::Odd(format!(
            "no NAME.allow and no NAME.deny in {path}: everything is allowed"
        )));
    }
    for (name, allow, deny) in loaded.rules.names() {
        findings.push(Finding::Good(format!(
            "{path}/{name}: {allow} allow, {deny} deny"
        )));
    }
    let found = Found::<_, Infallible> {
        noun: "line",
        skipped: loaded.skipped,
        errors: &loaded.errors,
        warned: 0,
        warnings: &[],
    };
    findings.extend(found.findings());
    findings
}

/// Reads the sets of the dispatcher and reports every row that cannot be used. A host starts without the table, so a database that fails is a warning here;
/// it is an error of the tables that a host needs. Without a file that is configured, it does not start.
pub(super) fn dispatcher(config: &Config) -> anyhow::Result<Vec<Finding>> {
    let dispatcher = config.dispatcher.dispatcher(&config.database);
    let sets = match block_on(dispatcher.reload())? {
        Ok(sets) => sets,
        Err(error @ DispatcherError::Database(_)) => {
            let text = format!("the sets of the dispatcher cannot be loaded: {error}");
            return Ok(vec![Finding::Odd(text)]);
        }
        Err(error) => return Ok(vec![Finding::Wrong(error.to_string())]),
    };
    let mut findings = Vec::new();
    if !sets.is_empty() {
        let destinations = count(sets.members().count() as u64, "destination");
        let all = count(sets.len() as u64, "set");
        findings.push(Finding::Good(format!(
            "{}: {destinations} in {all}",
            dispatcher.source()
        )));
    }
    let found = Found {
        noun: "row",
        skipped: sets.skipped,
        errors: &sets.errors,
        warned: sets.warned,
        warnings: &sets.warnings,
    };
    findings.extend(found.findings());
    Ok(findings)
}

#[cfg(test)]
mod tests {
    use portcullis_address::{DatabaseUrl, NewRow, NewTrusted};

    use super::*;

    fn config(folder: &tempfile::TempDir) -> Config {
        let mut config = Config::default();
        config.database.url = DatabaseUrl::Sqlite(folder.path().join("table.db")).into();
        config
    }

    #[test]
    fn a_check_names_rows_that_cannot_be_used() {
        let folder = tempfile::tempdir().unwrap();
        let mut config = config(&folder);
        assert!(matches!(
            addresses(&config, true).unwrap()[..],
            [Finding::Odd(_)]
        ));
        for ip_addr in ["10.0.0.1", "example.com"] {
            let row = NewRow {
                group: 200,
                ip_addr: ip_addr.into(),
                mask: 32,
                port: 0,
                tag: None,
            };
            let database = config.database.database();
            block_on(database.add(&row)).unwrap().unwrap();
        }
        let findings = addresses(&config, true).unwrap();
        assert!(
            matches!(&findings[..], [Finding::Good(rows), Finding::Good(_), Finding::Odd(_)] if rows.contains("2 rows"))
        );
        config.database.url = DatabaseUrl::Sqlite(folder.path().to_owned()).into();
        assert!(matches!(
            addresses(&config, true).unwrap()[..],
            [Finding::Wrong(_)]
        ));
        // A host with this starts without the database.
        config.database.required = false;
        assert!(matches!(
            addresses(&config, true).unwrap()[..],
            [Finding::Skipped(_)]
        ));
    }

    #[test]
    fn a_check_looks_at_the_trusted_peers_by_their_names() {
        let folder = tempfile::tempdir().unwrap();
        let mut config = config(&folder);
        assert!(
            trusted(&config, true).unwrap().is_empty(),
            "there is no file"
        );
        config.database.schema.trusted.source = "peer".parse().unwrap();
        let database = config.database.database();
        block_on(database.create_tables()).unwrap().unwrap();
        let peer = NewTrusted {
            source: "10.0.0.1".into(),
            proto: "any".into(),
            from: None,
            ruri: None,
            tag: None,
            priority: 0,
        };
        block_on(database.add_trusted(&peer)).unwrap().unwrap();
        assert!(
            matches!(&trusted(&config, true).unwrap()[..], [Finding::Good(rows)] if rows == "table `trusted`: 1 row")
        );
        config.database.schema.trusted.table = "nobody".parse().unwrap();
        assert!(
            matches!(&trusted(&config, true).unwrap()[..], [Finding::Good(text)] if text.contains("no peers are trusted"))
        );
        config.database.schema.trusted = Default::default();
        assert!(
            matches!(&trusted(&config, true).unwrap()[..], [Finding::Wrong(text)] if text.contains("src_ip"))
        );
        assert!(
            matches!(&trusted(&config, false).unwrap()[..], [Finding::Odd(text)] if text.contains("no policy"))
        );
        // A host with a file of addresses starts without trusted peers.
        config.database.address_file = Some(folder.path().join("addresses"));
        assert!(matches!(
            trusted(&config, true).unwrap()[..],
            [Finding::Skipped(_)]
        ));
        // Without a database, it is the addresses that end the start.
        config.database.address_file = None;
        config.database.url = DatabaseUrl::Sqlite(folder.path().to_owned()).into();
        assert!(matches!(
            trusted(&config, true).unwrap()[..],
            [Finding::Skipped(_)]
        ));
    }

    #[test]
    fn a_check_names_certificates_that_stored_tenants_borrow() {
        let folder = tempfile::tempdir().unwrap();
        let mut config = Config::parse(
            "listen = [\"tls:127.0.0.1:5061\"]\n[tls.edge]\ncertificate = \"a.pem\"\nkey = \"a.key\"\n\
             [relay.tls-profiles.carrier]\nhosts = [\"gw.carrier.example\"]\ncertificate = \"b.pem\"\nkey = \"b.key\"\n",
        )
        .unwrap();
        config.database.url = DatabaseUrl::Sqlite(folder.path().join("table.db")).into();
        let database = config.database.database();
        block_on(database.create_tables()).unwrap().unwrap();
        let store = Store::new(config.database.servers());
        let section = "uri-domains = [\"acme.example\"]\ndomains = [\"gw.carrier.example\"]\n";
        let put = store.put_tenant("acme", Some(section), "ann");
        block_on(put).unwrap().unwrap();
        assert!(
            matches!(&tenants(&config).unwrap()[..], [Finding::Good(_), Finding::Odd(text)]
                if text.contains("[relay.tls-profiles.carrier]"))
        );
    }

    #[test]
    fn a_check_names_rows_of_the_dispatcher_that_cannot_be_used() {
        let folder = tempfile::tempdir().unwrap();
        let without = dispatcher(&config(&folder)).unwrap();
        assert!(without.is_empty(), "there is no database");
        let file = folder.path().join("gateways");
        std::fs::write(&file, "1 sip:192.0.2.1\n1 nowhere\n").unwrap();
        let with_file = Config::parse(&format!("[dispatcher]\nfile = {file:?}\n")).unwrap();
        let findings = dispatcher(&with_file).unwrap();
        assert!(
            matches!(&findings[..], [Finding::Good(sets), Finding::Skipped(_)] if sets.ends_with(": 1 destination in 1 set"))
        );
        std::fs::remove_file(&file).unwrap();
        let findings = dispatcher(&with_file).unwrap();
        assert!(
            matches!(&findings[..], [Finding::Wrong(text)] if text.contains("`file` in [dispatcher]"))
        );
    }

    #[test]
    fn a_check_names_lines_that_cannot_be_used() {
        let folder = tempfile::tempdir().unwrap();
        let mut config = config(&folder);
        assert!(rules(&config).is_empty());
        config.permissions.folder = folder.path().to_owned();
        assert!(matches!(rules(&config)[..], [Finding::Odd(_)]));
        let text = "ALL : ALL\n\"(\" : ALL\n";
        std::fs::write(folder.path().join("calls.allow"), text).unwrap();
        let findings = rules(&config);
        assert!(
            matches!(&findings[..], [Finding::Good(set), Finding::Skipped(line)]
                if set.ends_with("calls: 1 allow, 0 deny") && line.contains("calls.allow line 2"))
        );
        config.permissions.folder = folder.path().join("nowhere");
        assert!(matches!(rules(&config)[..], [Finding::Wrong(_)]));
    }
}
