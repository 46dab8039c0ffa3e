//! Measures the cost of one check for changes, which the host makes every second, and compares it with the cost of reading the whole table.
//!
//! `cargo run --release -p portcullis-address --example look -- [ROWS…]` (default 1,000 and 1,000,000) starts a MariaDB and a PostgreSQL
//! in temporary directories, and fills a table of each engine, an SQLite file and an address file with this many rows.

use std::time::{Duration, Instant};

use portcullis_address::{Database, DatabaseUrl, Format, NewRow, RowWriter, Watcher};
use portcullis_testkit::mariadb::MariaDb;
use portcullis_testkit::postgres::Postgres;
use portcullis_testkit::server::Server;

/// Number of measured checks.
const LOOKS: usize = 500;

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let counts = std::env::args().skip(1).map(|count| count.parse());
    let counts: Result<Vec<u32>, _> = counts.collect();
    let mut counts = counts.expect("numbers of rows");
    if counts.is_empty() {
        counts = vec![1_000, 1_000_000];
    }
    for count in counts {
        println!("{count} rows");
        let rows: Vec<_> = (0..count).map(row).collect();
        let large = vec!["--innodb-buffer-pool-size=512M".to_owned()];
        let server = Server::from(MariaDb::start_with(|_| large));
        let database = connect(&server);
        println!("  MariaDB {}", server.ask("SELECT VERSION()").await);
        import(&database, &rows).await;
        for engine in ["InnoDB", "MyISAM", "Aria"] {
            server
                .sql(&format!("ALTER TABLE address ENGINE = {engine}"))
                .await;
            measure(engine, &database).await;
        }
        let server = Server::from(Postgres::start());
        println!("  {}", server.ask("SELECT version()").await);
        let database = connect(&server).kept();
        import(&database, &rows).await;
        measure("PostgreSQL", &database).await;
        let folder = tempfile::tempdir().expect("a temporary directory can be made");
        let sqlite = Database::new(DatabaseUrl::Sqlite(folder.path().join("table.db")));
        import(&sqlite, &rows).await;
        measure("SQLite", &sqlite).await;
        let path = folder.path().join("address.list");
        std::fs::write(&path, address_file(&rows)).expect("a file can be written");
        measure("address file", &sqlite.with_address_file(path)).await;
    }
}

fn connect(server: &Server) -> Database {
    let url: DatabaseUrl = server.url().parse().expect("a good URL");
    Database::new(url)
}

async fn import(database: &Database, rows: &[NewRow]) {
    let begun = Instant::now();
    database.import(rows, true).await.expect("the rows go in");
    println!(
        "  {}: imported in {:.2} s",
        database.url(),
        begun.elapsed().as_secs_f64()
    );
}

async fn measure(what: &str, database: &Database) {
    let mut watcher = Watcher::new(database.clone());
    watcher.look().await.expect("the table can be looked at");
    let mut looks = Vec::with_capacity(LOOKS);
    for _ in 0..LOOKS {
        let begun = Instant::now();
        watcher.look().await.expect("the table can be looked at");
        looks.push(begun.elapsed());
    }
    looks.sort_unstable();
    let begun = Instant::now();
    let loaded = database.load().await.expect("the table can be loaded");
    println!(
        "  {what}: a look takes {} µs (median; 99 of 100 at most {} µs), reading {} rows {:.3} s; changes detected by {}",
        micros(looks[LOOKS / 2]),
        micros(looks[LOOKS * 99 / 100]),
        loaded.table.len(),
        begun.elapsed().as_secs_f64(),
        watcher
            .source()
            .map_or_else(String::new, ToString::to_string),
    );
}

fn micros(time: Duration) -> u128 {
    time.as_nanos().div_ceil(1_000)
}

/// A quarter hosts, the rest networks.
fn row(number: u32) -> NewRow {
    let bits = (number.wrapping_mul(2_654_435_761) >> 4) % 0xe000_0000;
    let is_host = number.is_multiple_of(4);
    let addr = std::net::Ipv4Addr::from(if is_host { bits } else { bits & !0xff });
    NewRow {
        group: i64::from(200 + number % 5),
        ip_addr: addr.to_string(),
        mask: if is_host { 32 } else { 24 },
        port: if number.is_multiple_of(7) { 5060 } else { 0 },
        tag: number
            .is_multiple_of(3)
            .then(|| format!("customer{number}")),
    }
}

fn address_file(rows: &[NewRow]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut writer =
        RowWriter::new(Format::AddressFile, &mut bytes).expect("memory can be written");
    for row in rows {
        writer.write(row).expect("a row that the format takes");
    }
    writer.finish().expect("memory can be written");
    bytes
}
