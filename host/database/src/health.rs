//! Whether a server serves, and how far it is.

use std::collections::BTreeMap;

use sqlx::Error;

use crate::kind::Kind;
use crate::servers::Position;
use crate::wire::Wire;

/// The result of a check.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Health {
    /// Why it does not serve.
    pub(crate) trouble: Option<String>,
    /// Whether it is only used if no other serves: a node that sends its state to another
    /// one, or a server that only reads.
    pub(crate) is_spare: bool,
    /// How far it is.
    pub(crate) position: Option<Position>,
}

const MARIADB: &str = "SELECT @@GLOBAL.gtid_current_pos, @@GLOBAL.read_only";

const MYSQL: &str = "SELECT @@GLOBAL.gtid_executed, @@GLOBAL.read_only";

const VARIABLES: &str = "SHOW GLOBAL VARIABLES WHERE Variable_name IN ('wsrep_on', 'wsrep_provider', 'gtid_mode', 'gtid_current_pos')";

const GALERA: &str = "SHOW GLOBAL STATUS WHERE Variable_name IN ('wsrep_ready', 'wsrep_local_state', 'wsrep_local_state_comment', \
     'wsrep_cluster_status', 'wsrep_cluster_state_uuid', 'wsrep_last_committed')";

/// The position up to which the log is safe: a crash does not undo it.
const POSTGRES: &str = "SELECT CAST(system_identifier AS TEXT), CAST(CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() \
     ELSE pg_current_wal_flush_lsn() END - CAST('0/0' AS pg_lsn) AS TEXT), CAST(pg_is_in_recovery() AS TEXT) FROM pg_control_system()";

impl Health {
    /// Asks a server. `kind` is what earlier checks of the connection have found.
    pub(crate) async fn ask(wire: &mut Wire, kind: &mut Option<Kind>) -> Result<Self, Error> {
        let known = match *kind {
            Some(known) => known,
            None => {
                let found = find(wire).await?;
                *kind = Some(found);
                found
            }
        };
        match known {
            Kind::Galera => Ok(of_galera(&pairs(wire, GALERA).await?)),
            Kind::MariaDb => Self::of_row(wire, MARIADB, Position::of_mariadb).await,
            Kind::MySql => Self::of_row(wire, MYSQL, Position::of_mysql).await,
            Kind::Postgres => {
                let rows = wire.texts(POSTGRES).await?;
                Ok(of_postgres(&rows.into_iter().next().unwrap_or_default()))
            }
            Kind::Plain => {
                wire.ping().await?;
                Ok(Self::default())
            }
        }
    }

    /// The position, and whether the server only reads.
    async fn of_row(
        wire: &mut Wire,
        query: &str,
        read: impl Fn(&str) -> Option<Position>,
    ) -> Result<Self, Error> {
        let rows = wire.texts(query).await?;
        let row = rows.into_iter().next().unwrap_or_default();
        let column = |at: usize| row.get(at).and_then(Option::as_deref).unwrap_or_default();
        Ok(Self {
            trouble: None,
            is_spare: !matches!(column(1), "0" | "OFF"),
            position: read(column(0)),
        })
    }
}

async fn find(wire: &mut Wire) -> Result<Kind, Error> {
    match wire {
        Wire::MySql(_) => {
            // Some programs that speak MySQL's protocol do not know the statement.
            let variables = match pairs(wire, VARIABLES).await {
                Err(Error::Database(_)) => return Ok(Kind::Plain),
                variables => variables?,
            };
            let is = |name: &str, value: &str| {
                let found = variables.get(name);
                found.is_some_and(|found| found.eq_ignore_ascii_case(value))
            };
            let has_provider = variables
                .get("wsrep_provider")
                .is_some_and(|provider| !provider.is_empty() && provider != "none");
            Ok(if is("wsrep_on", "ON") && has_provider {
                Kind::Galera
            } else if variables
                .get("gtid_current_pos")
                .is_some_and(|at| !at.is_empty())
            {
                Kind::MariaDb
            } else if is("gtid_mode", "ON") {
                Kind::MySql
            } else {
                Kind::Plain
            })
        }
        // A pooler or a user without the right does not say how far the server is.
        Wire::Postgres(_) => match wire.texts(POSTGRES).await {
            Ok(_) => Ok(Kind::Postgres),
            Err(Error::Database(_)) => Ok(Kind::Plain),
            Err(error) => Err(error),
        },
        Wire::Sqlite(_) => Ok(Kind::Plain),
    }
}

fn of_galera(status: &BTreeMap<String, String>) -> Health {
    let value = |name: &str| status.get(name).map(String::as_str).unwrap_or_default();
    let comment = value("wsrep_local_state_comment");
    // A node that has committed nothing yet says 18446744073709551615.
    let last = value("wsrep_last_committed").parse().ok();
    let last = last.filter(|last| *last != u64::MAX);
    let trouble = if value("wsrep_cluster_status") != "Primary" {
        let cluster = value("wsrep_cluster_status");
        Some(format!(
            "it is not in the primary component of its cluster (wsrep_cluster_status is {cluster})"
        ))
    } else if value("wsrep_ready") != "ON" {
        Some(format!(
            "it does not accept statements (wsrep_ready is OFF, wsrep_local_state is {comment})"
        ))
    } else {
        match value("wsrep_local_state") {
            // Donor, which serves with some state transfers, and Synced
            "2" | "4" if last.is_some() => None,
            "2" | "4" => Some(format!(
                "it does not say how far it is (wsrep_last_committed is {:?})",
                value("wsrep_last_committed")
            )),
            _ => Some(format!("it is not synced (wsrep_local_state is {comment})")),
        }
    };
    Health {
        trouble,
        is_spare: value("wsrep_local_state") == "2",
        position: last.map(|last| Position::Galera {
            cluster: value("wsrep_cluster_state_uuid").to_owned(),
            last,
        }),
    }
}

/// A standby is a spare.
fn of_postgres(row: &[Option<String>]) -> Health {
    let column = |at: usize| row.get(at).and_then(Option::as_deref);
    let position = || {
        Some(Position::Postgres {
            system: column(0)?.to_owned(),
            at: column(1)?.parse().ok()?,
        })
    };
    Health {
        trouble: None,
        is_spare: column(2) != Some("false"),
        position: position(),
    }
}

/// Names and values.
async fn pairs(wire: &mut Wire, query: &str) -> Result<BTreeMap<String, String>, Error> {
    let rows = wire.texts(query).await?;
    let pair = |row: Vec<Option<String>>| {
        let mut columns = row.into_iter();
        let name = columns.next().flatten()?.to_ascii_lowercase();
        Some((name, columns.next().flatten().unwrap_or_default()))
    };
    Ok(rows.into_iter().filter_map(pair).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(cluster: &str, ready: &str, state: &str, comment: &str) -> Health {
        let status = [
            ("wsrep_cluster_status", cluster),
            ("wsrep_ready", ready),
            ("wsrep_local_state", state),
            ("wsrep_local_state_comment", comment),
            ("wsrep_cluster_state_uuid", "19ae82ed"),
            ("wsrep_last_committed", "27"),
        ];
        let status = status.map(|(name, value)| (name.to_owned(), value.to_owned()));
        of_galera(&status.into())
    }

    #[test]
    fn only_a_synced_node_of_the_primary_component_serves_and_a_donor_if_need_be() {
        let good = node("Primary", "ON", "4", "Synced");
        assert_eq!((good.trouble.clone(), good.is_spare), (None, false));
        assert_eq!(good.position.unwrap().to_string(), "19ae82ed:27");
        let donor = node("Primary", "ON", "2", "Donor/Desynced");
        assert_eq!((donor.trouble.clone(), donor.is_spare), (None, true));
        for (node, said) in [
            (
                node("non-Primary", "OFF", "0", "Initialized"),
                "it is not in the primary component of its cluster (wsrep_cluster_status is non-Primary)",
            ),
            (
                node("Primary", "ON", "3", "Joined"),
                "it is not synced (wsrep_local_state is Joined)",
            ),
            (
                node("Primary", "OFF", "1", "Joining"),
                "it does not accept statements (wsrep_ready is OFF, wsrep_local_state is Joining)",
            ),
        ] {
            assert_eq!(node.trouble.as_deref(), Some(said));
        }
        assert!(of_galera(&BTreeMap::new()).trouble.is_some());
    }

    #[test]
    fn a_node_that_does_not_say_how_far_it_is_is_not_used() {
        for last in ["18446744073709551615", ""] {
            let status = [
                ("wsrep_cluster_status", "Primary"),
                ("wsrep_ready", "ON"),
                ("wsrep_local_state", "4"),
                ("wsrep_local_state_comment", "Synced"),
                ("wsrep_cluster_state_uuid", "19ae82ed"),
                ("wsrep_last_committed", last),
            ];
            let status = status.map(|(name, value)| (name.to_owned(), value.to_owned()));
            let health = of_galera(&status.into());
            assert_eq!(health.position, None);
            let expected =
                format!("it does not say how far it is (wsrep_last_committed is {last:?})");
            assert_eq!(health.trouble, Some(expected));
        }
    }

    #[test]
    fn a_standby_is_a_spare_and_has_no_position_before_it_has_replayed_anything() {
        let row = |at: Option<&str>, standby: &str| {
            let row = [Some("71"), at, Some(standby)];
            of_postgres(&row.map(|column| column.map(str::to_owned)))
        };
        assert_eq!(row(None, "true").position, None);
        assert!(row(None, "true").is_spare);
        let primary = row(Some("24313216"), "false");
        assert!(!primary.is_spare);
        assert_eq!(primary.position.unwrap().to_string(), "LSN 0/172FD80 of 71");
        assert_eq!(of_postgres(&[]).position, None);
    }
}
