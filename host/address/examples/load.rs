//! Loads an address table as the host does and prints how long that took and how much memory the table holds.
//!
//! `cargo run --release -p portcullis-address --example load -- [ROWS | URL]`: without a URL it starts a MariaDB in a
//! temporary directory and fills it with this many rows (default 1,000,000), a quarter of them hosts.

use std::time::Instant;

use portcullis_address::{Database, DatabaseUrl};
use portcullis_testkit::mariadb::MariaDb;
use portcullis_testkit::server::Server;

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let argument = std::env::args()
        .nth(1)
        .unwrap_or_else(|| "1000000".to_owned());
    if let Ok(rows) = argument.parse() {
        let large = vec!["--innodb-buffer-pool-size=512M".to_owned()];
        let server = Server::from(MariaDb::start_with(|_| large));
        let url: DatabaseUrl = server.url().parse().expect("a good URL");
        let database = Database::new(url);
        fill(&server, rows).await;
        println!(
            "MariaDB {} with {} rows",
            server.ask("SELECT VERSION()").await,
            rows
        );
        measure(&database).await;
        return;
    }
    let url: DatabaseUrl = argument
        .parse()
        .expect("a number of rows or a URL of a database");
    measure(&Database::new(url)).await;
}

/// Adds this many rows, hosts and networks mixed, in another order than that of their addresses.
async fn fill(server: &Server, rows: u64) {
    server
        .sql(&format!(
            "INSERT INTO address (grp, ip_addr, mask, port, tag) \
             SELECT 200 + seq MOD 5, \
                    INET_NTOA((seq * 2654435761 DIV 16) MOD 3758096384 & IF(seq MOD 4 = 0, 4294967295, 4294967040)), \
                    IF(seq MOD 4 = 0, 32, 24), IF(seq MOD 7 = 0, 5060, 0), IF(seq MOD 3 = 0, CONCAT('customer', seq), '') \
             FROM seq_1_to_{rows}"
        ))
        .await;
}

/// Loads the table three times, and prints time and memory of each load.
async fn measure(database: &Database) {
    for round in 1..=3 {
        let before = memory("VmRSS");
        let begun = Instant::now();
        let loaded = database.load().await.expect("the table can be loaded");
        let took = begun.elapsed();
        println!(
            "load {round}: {:.2} s; {} hosts, {} networks, {} names, {} skipped; table {:.1} MB; resident {:.1} MB ({:+.1}), peak {:.1} MB",
            took.as_secs_f64(),
            loaded.table.host_count(),
            loaded.table.subnet_count(),
            loaded.table.domain_count(),
            loaded.skipped,
            loaded.table.memory_bytes() as f64 / 1e6,
            memory("VmRSS"),
            memory("VmRSS") - before,
            memory("VmHWM"),
        );
    }
}

/// A line of `/proc/self/status` in MB.
fn memory(name: &str) -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix(name))
        .unwrap_or_default();
    let kib = line.trim_start_matches(':').trim().trim_end_matches(" kB");
    kib.parse::<f64>().unwrap_or_default() * 1024.0 / 1e6
}
