//! Servers with tables, and books that follow them.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use portcullis_address::{
    AddressBook, BookOptions, Database, DatabaseUrl, FromUri, Proto, Snapshot, TrustedQuestion,
    TrustedSource,
};
use portcullis_testkit::postgres::Postgres;
use portcullis_testkit::server::{Dialect, Server};

pub(crate) use portcullis_testkit::wait::eventually;

/// A server with Kamailio's tables. In MariaDB our migrations create them, in PostgreSQL Kamailio's own scripts.
pub(crate) async fn with_tables(dialect: Dialect) -> (Server, Database) {
    match dialect {
        Dialect::MariaDb => {
            let server = Server::empty(dialect);
            let database = database(&server);
            let made = database.create_tables().await;
            made.expect("the tables can be made");
            (server, database)
        }
        Dialect::Postgres => {
            let server = Server::from(Postgres::start());
            let database = database(&server);
            (server, database)
        }
    }
}

/// The database of a server. Connections to PostgreSQL are kept; with MariaDB each use opens one.
pub(crate) fn database(server: &Server) -> Database {
    let database = database_at(&server.url());
    match server.dialect() {
        Dialect::MariaDb => database,
        Dialect::Postgres => database.kept(),
    }
}

pub(crate) fn database_at(url: &str) -> Database {
    let url: DatabaseUrl = url.parse().expect("a good URL");
    Database::new(url)
}

pub(crate) fn book(database: Database) -> Arc<AddressBook> {
    let options = BookOptions {
        poll: Duration::from_millis(50),
        ..BookOptions::default()
    };
    Arc::new(AddressBook::new(database, options))
}

pub(crate) fn watch(book: &Arc<AddressBook>) -> tokio::task::JoinHandle<()> {
    let book = Arc::clone(book);
    tokio::spawn(async move { book.watch().await })
}

pub(crate) async fn until(book: &AddressBook, what: impl Fn(&Snapshot) -> bool) {
    eventually("the table is as it should be", || what(&book.current())).await;
}

pub(crate) fn knows(snapshot: &Snapshot, source: &str, group: u32) -> bool {
    let source: IpAddr = source.parse().expect("an address");
    snapshot.table.lookup(source).find(group, 5060).is_some()
}

/// The tags of the peers that trust a request from this source over UDP.
pub(crate) fn trust(snapshot: &Snapshot, source: &str, from: &str) -> Vec<String> {
    let question = TrustedQuestion {
        source: TrustedSource::Ip(source.parse().expect("an address")),
        proto: Proto::Udp,
        from: FromUri::Own(from),
        ruri: "sip:bob@example.com",
    };
    let matches = snapshot.trusted.table.matches(question);
    let tag = |tag: Option<&str>| tag.unwrap_or("-").to_owned();
    matches.iter().map(|found| tag(found.tag)).collect()
}
