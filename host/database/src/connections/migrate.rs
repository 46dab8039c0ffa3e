//! Creates missing tables of Kamailio and our own.

use std::time::Duration;

use super::Connections;
use super::retry::Try;
use crate::link::{ADDRESS_VERSION, DISPATCHER_VERSION, Link, TRUSTED_VERSION, Value};
use crate::{Dialect, Failure, Name, Schema};

/// Time limit for each statement.
const LIMIT: Duration = Duration::from_secs(10);

/// Our own tables, unknown to Kamailio.
static OURS: [Name; 7] = [
    Name::known("portcullis_artifact"),
    Name::known("portcullis_generation"),
    Name::known("portcullis_seat"),
    Name::known("portcullis_tenant"),
    Name::known("portcullis_audit"),
    Name::known("portcullis_host"),
    Name::known("portcullis_rollout"),
];

/// The step of a migration for one table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MigrationStep {
    /// The table.
    pub table: String,
    /// The action.
    pub action: MigrationAction,
}

/// The action for a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MigrationAction {
    /// It is missing, and created with these statements.
    Create(Vec<String>),
    /// It exists, and is not changed.
    Keep,
    /// It exists and is not changed, but this is wrong with it.
    Complain(String),
}

/// One of the tables.
struct Kind<'s> {
    /// Kamailio's name.
    known: &'static str,
    name: &'s Name,
    /// The version to be recorded.
    version: i64,
    /// The configured names of its columns, if they differ from Kamailio's.
    columns: Vec<(&'static str, &'s Name)>,
}

impl Connections {
    /// The steps of a migration. Changes nothing, and creates no file.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn migration(&self, schema: &Schema) -> Result<Vec<MigrationStep>, Failure> {
        if self.is_absent() {
            return Ok(all(schema, self.dialect()));
        }
        let mut link = self.take(LIMIT).await?;
        let steps = plan(&mut link, schema).await?;
        link.release().await;
        Ok(steps)
    }

    /// Creates Kamailio's tables `version`, `address`, `trusted` and `dispatcher`, under the names of the schema, and our own tables for
    /// policies, tenants, the audit, hosts and roll-outs, where they are missing. Existing tables and their rows in `version` are never changed. Returns the
    /// steps.
    ///
    /// # Errors
    /// When the database cannot be reached or denies it.
    pub async fn migrate(&self, schema: &Schema) -> Result<Vec<MigrationStep>, Failure> {
        // Each statement does nothing if an earlier try has done it.
        self.retried(async |_: Try| self.migrate_once(schema).await)
            .await
    }

    async fn migrate_once(&self, schema: &Schema) -> Result<Vec<MigrationStep>, Failure> {
        self.make_file()?;
        let steps = self.migration(schema).await?;
        let mut link = self.take(LIMIT).await?;
        // In one transaction where possible, so that a host that dies meanwhile leaves no partial schema, and concurrent migrations do not
        // conflict.
        let is_whole = link.dialect().undoes_scripts();
        if is_whole {
            link.begin_write(None).await?;
        }
        for statement in statements(&steps) {
            link.run(statement).await?;
        }
        link.commit().await?;
        link.release().await;
        Ok(steps)
    }
}

async fn plan(link: &mut Link, schema: &Schema) -> Result<Vec<MigrationStep>, Failure> {
    let mut steps = Vec::new();
    for kind in kinds(schema) {
        let sql = link.dialect().is_there();
        let name = [Value::from(kind.name.as_str())];
        let count = link.row(sql, &name, |row| row.integer(0)).await?;
        let action = match count.flatten() {
            None | Some(0) => MigrationAction::Create(kind.statements(schema, link.dialect())),
            Some(_) => judge(link, schema, &kind).await?,
        };
        let table = kind.name.to_string();
        steps.push(MigrationStep { table, action });
    }
    Ok(steps)
}

/// The step for an existing table.
async fn judge(
    link: &mut Link,
    schema: &Schema,
    kind: &Kind<'_>,
) -> Result<MigrationAction, Failure> {
    if kind.name == &schema.version_table {
        return Ok(MigrationAction::Keep);
    }
    match link.check_version(schema, kind.name, kind.version).await {
        Ok(()) => Ok(MigrationAction::Keep),
        Err(
            failure
            @ (Failure::Version { .. } | Failure::NoTable { .. } | Failure::NoColumn { .. }),
        ) => Ok(MigrationAction::Complain(failure.to_string())),
        Err(failure) => Err(failure),
    }
}

/// The steps for a database without tables.
fn all(schema: &Schema, dialect: &dyn Dialect) -> Vec<MigrationStep> {
    let steps = kinds(schema).into_iter().map(|kind| MigrationStep {
        table: kind.name.to_string(),
        action: MigrationAction::Create(kind.statements(schema, dialect)),
    });
    steps.collect()
}

impl Kind<'_> {
    /// The row of the version is written first, if the table of versions exists: if creating the table then fails, the next migration
    /// creates it, while a table without its version would not be touched.
    fn statements(&self, schema: &Schema, dialect: &dyn Dialect) -> Vec<String> {
        let quote = dialect.quote();
        let all = dialect.scripts().iter().flat_map(|file| file.split(";\n"));
        let bare = all.map(|statement| {
            let lines = statement.lines().filter(|line| !line.starts_with("--"));
            lines.collect::<Vec<_>>().join("\n").trim().to_owned()
        });
        let (mut versions, mut tables) = (Vec::new(), Vec::new());
        for statement in bare {
            if statement.starts_with("INSERT") && statement.contains(&format!("('{}',", self.known))
            {
                let row = statement.replace(&format!("'{}'", self.known), &self.name.literal());
                versions.push(renamed(&row, quote, &[("version", &schema.version_table)]));
            } else if statement.starts_with("CREATE")
                && statement.contains(&format!(" {quote}{}{quote} (", self.known))
            {
                let mut names = self.columns.clone();
                names.push((self.known, self.name));
                tables.push(renamed(&statement, quote, &names));
            }
        }
        match self.name == &schema.version_table {
            true => [tables, versions].concat(),
            false => [versions, tables].concat(),
        }
    }
}

fn kinds(schema: &Schema) -> Vec<Kind<'_>> {
    let (address, trusted, dispatcher) = (&schema.address, &schema.trusted, &schema.dispatcher);
    let kamailios = [
        Kind {
            known: "version",
            name: &schema.version_table,
            version: 1,
            columns: Vec::new(),
        },
        Kind {
            known: "address",
            name: &address.table,
            version: ADDRESS_VERSION,
            columns: vec![
                ("id", &address.id),
                ("grp", &address.group),
                ("ip_addr", &address.ip_addr),
                ("mask", &address.mask),
                ("port", &address.port),
                ("tag", &address.tag),
            ],
        },
        Kind {
            known: "trusted",
            name: &trusted.table,
            version: TRUSTED_VERSION,
            columns: vec![
                ("src_ip", &trusted.source),
                ("proto", &trusted.proto),
                ("from_pattern", &trusted.from),
                ("ruri_pattern", &trusted.ruri),
                ("tag", &trusted.tag),
                ("priority", &trusted.priority),
            ],
        },
        Kind {
            known: "dispatcher",
            name: &dispatcher.table,
            version: DISPATCHER_VERSION,
            columns: vec![
                ("setid", &dispatcher.setid),
                ("destination", &dispatcher.destination),
                ("flags", &dispatcher.flags),
                ("priority", &dispatcher.priority),
                ("attrs", &dispatcher.attrs),
                ("description", &dispatcher.description),
            ],
        },
    ];
    let ours = OURS.iter().map(|name| Kind {
        known: name.as_str(),
        name,
        version: 1,
        columns: Vec::new(),
    });
    kamailios.into_iter().chain(ours).collect()
}

fn statements(steps: &[MigrationStep]) -> impl Iterator<Item = &String> {
    let made = steps.iter().filter_map(|step| match &step.action {
        MigrationAction::Create(statements) => Some(statements),
        MigrationAction::Keep | MigrationAction::Complain(_) => None,
    });
    made.flatten()
}

/// A statement with the quoted names replaced.
fn renamed(statement: &str, quote: char, names: &[(&str, &Name)]) -> String {
    let parts = statement.split(quote).enumerate().map(|(at, part)| {
        let is_name = at % 2 == 1;
        let other = names.iter().find(|(known, _)| is_name && *known == part);
        other.map_or(part, |(_, name)| name.as_str())
    });
    parts.collect::<Vec<_>>().join(&quote.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dialect::{MySql, Postgres, Sqlite};

    #[test]
    fn each_table_is_made_with_its_version_in_its_own_names() {
        let mut schema = Schema::default();
        for (dialect, index) in [(&MySql as &dyn Dialect, 0), (&Sqlite, 1), (&Postgres, 1)] {
            let steps = all(&schema, dialect);
            let counts: Vec<_> = steps
                .iter()
                .map(|step| statements(std::slice::from_ref(step)).count())
                .collect();
            assert_eq!(
                counts,
                [2, 2, 2 + index, 2, 2, 2, 2, 2, 2 + index, 2, 2],
                "{steps:#?}"
            );
        }
        schema.version_table = "versions".parse().unwrap();
        schema.address.table = "trunks".parse().unwrap();
        schema.address.group = "mask_of".parse().unwrap();
        schema.address.mask = "grp".parse().unwrap();
        let steps = all(&schema, &MySql);
        let trunks: Vec<_> = statements(&steps[1..2]).collect();
        assert_eq!(
            trunks[0],
            "INSERT IGNORE INTO `versions` (`table_name`, `table_version`) VALUES ('trunks', 6)"
        );
        assert!(
            trunks[1].starts_with("CREATE TABLE IF NOT EXISTS `trunks` (\n"),
            "{}",
            trunks[1]
        );
        assert!(
            trunks[1].contains("`mask_of` INT(11) UNSIGNED"),
            "{}",
            trunks[1]
        );
        assert!(trunks[1].contains("`grp` INT DEFAULT 32"), "{}", trunks[1]);
        let versions: Vec<_> = statements(&steps[..1]).collect();
        assert!(
            versions[0].contains("EXISTS `versions` ("),
            "{}",
            versions[0]
        );
        assert!(
            versions[1].contains("INTO `versions`") && versions[1].contains("('versions', 1)"),
            "{}",
            versions[1]
        );
    }
}
