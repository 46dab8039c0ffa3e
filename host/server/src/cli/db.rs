//! `portcullis db …`: database schema.

use std::io::Write;
use std::process::ExitCode;

use portcullis_address::{Database, MigrationAction};

use portcullis_config::Config;

use super::database::block_on;
use super::print::{clean, stdout};

#[derive(Debug, clap::Subcommand)]
pub(super) enum DbCommand {
    /// Create Kamailio's tables `version`, `address`, `trusted` and `dispatcher`, and those of Portcullis (policies, tenants, audit, hosts, roll-outs), where they are missing
    ///
    /// Kamailio's tables have the names configured in [database]. Existing tables are not changed. No other command ever creates a table,
    /// except for a missing SQLite file.
    Migrate {
        /// Print the statements without executing them
        #[arg(long)]
        dry_run: bool,
    },
}

impl DbCommand {
    pub(super) fn run(&self, config: &Config) -> anyhow::Result<ExitCode> {
        let out = &mut stdout();
        let database = config.database.database();
        match self {
            Self::Migrate { dry_run: true } => plan(&database, out),
            Self::Migrate { dry_run: false } => migrate(&database, out),
        }
    }
}

/// Prints statements for a database client.
fn plan(database: &Database, out: &mut impl Write) -> anyhow::Result<ExitCode> {
    for step in block_on(database.migration())?? {
        let table = step.table;
        match step.action {
            MigrationAction::Create(statements) => {
                for statement in statements {
                    writeln!(out, "{statement};")?;
                }
            }
            MigrationAction::Keep => {
                writeln!(out, "-- table `{table}` exists and is not changed")?;
            }
            MigrationAction::Complain(why) => {
                writeln!(
                    out,
                    "-- table `{table}` exists and is not changed; {}",
                    clean(&why)
                )?;
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn migrate(database: &Database, out: &mut impl Write) -> anyhow::Result<ExitCode> {
    let mut code = ExitCode::SUCCESS;
    for step in block_on(database.migrate())?? {
        let table = step.table;
        match step.action {
            MigrationAction::Create(_) => writeln!(out, "created table `{table}`")?,
            MigrationAction::Keep => {
                writeln!(out, "table `{table}` exists and was not changed")?;
            }
            MigrationAction::Complain(why) => {
                let why = clean(&why);
                writeln!(out, "table `{table}` exists and was not changed; {why}")?;
                code = ExitCode::FAILURE;
            }
        }
    }
    Ok(code)
}

#[cfg(test)]
mod tests {
    use portcullis_address::DatabaseUrl;

    use super::*;

    #[test]
    fn a_plan_is_a_script_and_makes_no_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("table.db");
        let database = Database::new(DatabaseUrl::Sqlite(path.clone()));
        let mut out = Vec::new();
        plan(&database, &mut out).unwrap();
        let script = String::from_utf8(out).unwrap();
        assert_eq!(script.matches("CREATE TABLE").count(), 11, "{script}");
        assert!(script.ends_with(";\n"), "{script}");
        assert!(!path.exists());

        let mut out = Vec::new();
        migrate(&database, &mut out).unwrap();
        let said = String::from_utf8(out).unwrap();
        assert_eq!(
            said,
            "created table `version`\ncreated table `address`\ncreated table `trusted`\ncreated table `dispatcher`\ncreated table `portcullis_artifact`\n\
             created table `portcullis_generation`\ncreated table `portcullis_seat`\n\
             created table `portcullis_tenant`\ncreated table `portcullis_audit`\n\
             created table `portcullis_host`\ncreated table `portcullis_rollout`\n"
        );
        let mut out = Vec::new();
        migrate(&database, &mut out).unwrap();
        let said = String::from_utf8(out).unwrap();
        assert_eq!(said.matches("was not changed\n").count(), 11, "{said}");
        block_on(database.load()).unwrap().unwrap();
    }
}
