//! Statements that reach the server after the host has given them up.

use std::sync::Arc;
use std::time::Duration;

use portcullis_database::{AddressNames, Connections, DatabaseUrl, RowStatements, Value};
use portcullis_testkit::lease::Lease;
use portcullis_testkit::mariadb::MariaDb;
use portcullis_testkit::proxy::Proxy;
use portcullis_testkit::wait;
use tokio::task::spawn_blocking;

/// Time limit of a statement.
const LIMIT: Duration = Duration::from_secs(2);

/// A server, and the proxy through which the host reaches it.
struct Site {
    server: MariaDb,
    proxy: Proxy,
    _lease: Lease,
}

impl Site {
    fn start() -> Arc<Self> {
        let (server, lease) = (MariaDb::start(), Lease::new());
        let proxy = Proxy::start(lease.addr(3, 3306), server.addr());
        Arc::new(Self {
            server,
            proxy,
            _lease: lease,
        })
    }

    /// Adds a row through the proxy, and returns its id.
    async fn add(&self) -> Option<i64> {
        let url = format!("mysql://kamailio:kamailiorw@{}/kamailio", self.proxy.addr());
        let connections = Connections::new(url.parse::<DatabaseUrl>().unwrap());
        let names = AddressNames::default();
        let statements = RowStatements {
            table: &names.table,
            id: &names.id,
            columns: names.columns(),
            dialect: connections.dialect(),
        };
        let row = [
            Value::from(200_i64),
            Value::from("192.0.2.1"),
            Value::from(32_i64),
            Value::from(0_i64),
            Value::Text(None),
        ];
        let added = connections.insert_row(LIMIT, &statements, row);
        added.await.unwrap()
    }

    /// The ids of all rows.
    fn ids(&self) -> String {
        let ids = "SELECT GROUP_CONCAT(id) FROM address WHERE ip_addr = '192.0.2.1'";
        self.server.sql("kamailio", ids).trim().to_owned()
    }

    /// Waits until the proxy holds a statement back, and a session runs another one that begins so.
    fn wait_until_held(&self, begins: &str) {
        wait::until("a statement is held back", || {
            self.proxy.is_holding().then_some(())
        });
        let ask = format!(
            "SELECT COUNT(*) FROM information_schema.PROCESSLIST WHERE INFO LIKE '{begins}%' AND ID <> CONNECTION_ID()"
        );
        wait::until("the next try has begun", || {
            (self.server.sql("", &ask).trim() != "0").then_some(())
        });
    }
}

#[tokio::test]
#[ignore = "needs MariaDB"]
async fn a_row_whose_commit_arrives_after_the_next_try_has_begun_is_stored_once() {
    let site = Site::start();
    site.proxy.hold("COMMIT");
    let other = Arc::clone(&site);
    let late = spawn_blocking(move || {
        // The next try waits until it is known whether the first one is committed.
        other.wait_until_held("INSERT IGNORE");
        other.proxy.release();
    });
    let id = site.add().await;
    late.await.unwrap();
    assert_eq!(Some(site.ids()), id.map(|id| id.to_string()));
}

#[tokio::test]
#[ignore = "needs MariaDB"]
async fn a_row_whose_insertion_was_given_up_is_stored_once() {
    let site = Site::start();
    // The values of the row: the statement was prepared before.
    site.proxy.hold("192.0.2.1");
    // The server gets the statement when the row is there, and the end of the connection right behind it: no COMMIT follows.
    let id = site.add().await;
    assert!(site.proxy.is_holding());
    assert_eq!(Some(site.ids()), id.map(|id| id.to_string()));
    site.proxy.release();
    wait::until("the session of the first try has ended", || {
        let sessions =
            "SELECT COUNT(*) FROM information_schema.PROCESSLIST WHERE USER = 'kamailio'";
        (site.server.sql("", sessions).trim() == "0").then_some(())
    });
    assert_eq!(Some(site.ids()), id.map(|id| id.to_string()));
}
