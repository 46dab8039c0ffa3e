//! Making Kamailio's tables where they are absent, and nothing else.

use sqlx::sqlite::SqliteConnection;
use sqlx::{AssertSqlSafe, Executor, Row as _};

use super::error::{ADDRESS_VERSION, TRUSTED_VERSION};
use super::schema::{Name, Schema};
use super::statements::Engine;
use super::{Absent, Database, DatabaseError, DatabaseUrl, Link};

const MYSQL: [&str; 4] = [
    include_str!("../../../../migrations/mysql/0001_address.sql"),
    include_str!("../../../../migrations/mysql/0002_trusted.sql"),
    include_str!("../../../../migrations/mysql/0003_policies.sql"),
    include_str!("../../../../migrations/mysql/0004_tenants.sql"),
];
const SQLITE: [&str; 4] = [
    include_str!("../../../../migrations/sqlite/0001_address.sql"),
    include_str!("../../../../migrations/sqlite/0002_trusted.sql"),
    include_str!("../../../../migrations/sqlite/0003_policies.sql"),
    include_str!("../../../../migrations/sqlite/0004_tenants.sql"),
];

/// Our own tables, which Kamailio knows nothing of.
static OURS: [Name; 4] = [
    Name::known("portcullis_artifact"),
    Name::known("portcullis_generation"),
    Name::known("portcullis_seat"),
    Name::known("portcullis_tenant"),
];

/// What a migration does about one table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MigrationStep {
    /// The table.
    pub table: String,
    /// What is done.
    pub action: MigrationAction,
}

/// What is done about a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MigrationAction {
    /// It is absent, and made with these statements.
    Create(Vec<String>),
    /// It is there, and left as it is.
    Keep,
    /// It is left as it is, and this is wrong with it.
    Complain(String),
}

/// One of the tables.
struct Kind<'s> {
    /// Kamailio's name.
    known: &'static str,
    name: &'s Name,
    /// The version to be written down.
    version: i64,
    /// What its columns are called, beside those that have Kamailio's name.
    columns: Vec<(&'static str, &'s Name)>,
}

impl Database {
    /// What a migration would do. Changes nothing, and makes no file.
    ///
    /// # Errors
    /// When the database can't be reached.
    pub async fn migration(&self) -> Result<Vec<MigrationStep>, DatabaseError> {
        let mut link = match self.open(Absent::Refuse).await {
            Ok(link) => link,
            Err(DatabaseError::NoFile { .. }) => return Ok(all(&self.schema, Engine::Sqlite)),
            Err(error) => return Err(error),
        };
        let steps = self.plan(&mut link).await?;
        link.close().await;
        Ok(steps)
    }

    /// Makes Kamailio's tables `version`, `address` and `trusted`, by the names of the [`schema`](Self::schema), and our own ones for
    /// policies, where they are absent. A table that is there is never touched, nor is its row in `version`. What was done is returned.
    ///
    /// # Errors
    /// When the database can't be reached or forbids it.
    pub async fn migrate(&self) -> Result<Vec<MigrationStep>, DatabaseError> {
        let steps = self.migration().await?;
        // A file that is not there is made with its tables.
        let mut link = self.open(Absent::Make).await?;
        match &mut link {
            Link::MySql(link) => {
                for statement in statements(&steps) {
                    let statement = sqlx::raw_sql(AssertSqlSafe(statement.clone()));
                    self.run(link.execute(statement)).await?;
                }
            }
            Link::Sqlite(link) => self.run(run_sqlite(link, &steps)).await?,
        }
        link.close().await;
        Ok(steps)
    }

    /// The same, for those who need not know what was done.
    ///
    /// # Errors
    /// As for [`migrate`](Self::migrate).
    pub async fn create_tables(&self) -> Result<(), DatabaseError> {
        self.migrate().await.map(drop)
    }

    async fn plan(&self, link: &mut Link) -> Result<Vec<MigrationStep>, DatabaseError> {
        let engine = match self.url {
            DatabaseUrl::MySql(_) => Engine::MySql,
            DatabaseUrl::Sqlite(_) => Engine::Sqlite,
        };
        let mut steps = Vec::new();
        for kind in kinds(&self.schema) {
            let action = match self.is_there(link, kind.name).await? {
                false => MigrationAction::Create(kind.statements(&self.schema, engine)),
                true => self.judge(link, &kind).await?,
            };
            let table = kind.name.to_string();
            steps.push(MigrationStep { table, action });
        }
        Ok(steps)
    }

    async fn is_there(&self, link: &mut Link, table: &Name) -> Result<bool, DatabaseError> {
        let mysql = "SELECT COUNT(*) FROM information_schema.TABLES WHERE TABLE_SCHEMA = DATABASE() AND TABLE_NAME = ?";
        let sqlite = "SELECT COUNT(*) FROM sqlite_master WHERE type IN ('table', 'view') AND name = ? COLLATE NOCASE";
        macro_rules! count {
            ($link:expr, $question:expr) => {{
                let count = sqlx::query($question).bind(table.as_str()).fetch_one($link);
                let count: Result<i64, _> = self.run(count).await?.try_get(0);
                count.map_err(|error| self.failed(&error))?
            }};
        }
        let count = match link {
            Link::MySql(link) => count!(link, mysql),
            Link::Sqlite(link) => count!(link, sqlite),
        };
        Ok(count > 0)
    }

    /// What to say of a table that is there.
    async fn judge(
        &self,
        link: &mut Link,
        kind: &Kind<'_>,
    ) -> Result<MigrationAction, DatabaseError> {
        if kind.name == &self.schema.version_table {
            return Ok(MigrationAction::Keep);
        }
        match self.check_version(link, kind.name, kind.version).await {
            Ok(()) => Ok(MigrationAction::Keep),
            Err(
                error @ (DatabaseError::Version { .. }
                | DatabaseError::NoTable { .. }
                | DatabaseError::NoColumn { .. }),
            ) => Ok(MigrationAction::Complain(error.to_string())),
            Err(error) => Err(error),
        }
    }
}

/// The steps for a database that has no tables at all.
pub(super) fn all(schema: &Schema, engine: Engine) -> Vec<MigrationStep> {
    let steps = kinds(schema).into_iter().map(|kind| MigrationStep {
        table: kind.name.to_string(),
        action: MigrationAction::Create(kind.statements(schema, engine)),
    });
    steps.collect()
}

/// All or none, so that a host that dies meanwhile leaves no half of a database, and two that start at once do not meet.
pub(super) async fn run_sqlite(
    link: &mut SqliteConnection,
    steps: &[MigrationStep],
) -> Result<(), sqlx::Error> {
    link.execute(sqlx::raw_sql("BEGIN IMMEDIATE")).await?;
    for statement in statements(steps) {
        link.execute(sqlx::raw_sql(AssertSqlSafe(statement.clone())))
            .await?;
    }
    link.execute(sqlx::raw_sql("COMMIT")).await?;
    Ok(())
}

impl Kind<'_> {
    /// The row of the version goes first, if the table of versions is there: should the table fail then, the next migration makes
    /// it, while a table without its version would be left alone.
    fn statements(&self, schema: &Schema, engine: Engine) -> Vec<String> {
        let files = match engine {
            Engine::MySql => MYSQL,
            Engine::Sqlite => SQLITE,
        };
        let all = files.iter().flat_map(|file| file.split(";\n"));
        let bare = all.map(|statement| {
            let lines = statement.lines().filter(|line| !line.starts_with("--"));
            lines.collect::<Vec<_>>().join("\n").trim().to_owned()
        });
        let (mut versions, mut tables) = (Vec::new(), Vec::new());
        for statement in bare {
            if statement.starts_with("INSERT") && statement.contains(&format!("('{}',", self.known))
            {
                let row = statement.replace(&format!("'{}'", self.known), &self.name.literal());
                versions.push(renamed(&row, &[("version", &schema.version_table)]));
            } else if statement.starts_with("CREATE")
                && statement.contains(&format!(" `{}` (", self.known))
            {
                let mut names = self.columns.clone();
                names.push((self.known, self.name));
                tables.push(renamed(&statement, &names));
            }
        }
        match self.name == &schema.version_table {
            true => [tables, versions].concat(),
            false => [versions, tables].concat(),
        }
    }
}

fn kinds(schema: &Schema) -> Vec<Kind<'_>> {
    let (address, trusted) = (&schema.address, &schema.trusted);
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

/// A statement with other names in place of those that stand in it in quotes.
fn renamed(statement: &str, names: &[(&str, &Name)]) -> String {
    let parts = statement.split('`').enumerate().map(|(at, part)| {
        let is_name = at % 2 == 1;
        let other = names.iter().find(|(known, _)| is_name && *known == part);
        other.map_or(part, |(_, name)| name.as_str())
    });
    parts.collect::<Vec<_>>().join("`")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_table_is_made_with_its_version_in_its_own_names() {
        let mut schema = Schema::default();
        for engine in [Engine::MySql, Engine::Sqlite] {
            let steps = all(&schema, engine);
            let counts: Vec<_> = steps
                .iter()
                .map(|step| statements(std::slice::from_ref(step)).count())
                .collect();
            let index = usize::from(engine == Engine::Sqlite);
            assert_eq!(counts, [2, 2, 2 + index, 2, 2, 2, 2], "{steps:#?}");
        }
        schema.version_table = "versions".parse().unwrap();
        schema.address.table = "trunks".parse().unwrap();
        schema.address.group = "mask_of".parse().unwrap();
        schema.address.mask = "grp".parse().unwrap();
        let steps = all(&schema, Engine::MySql);
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
