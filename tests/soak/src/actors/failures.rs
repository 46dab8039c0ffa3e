//! Failures: the database, the limit of descriptors, the disk.

use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Result, ensure};
use portcullis_testkit::wait;

use crate::process::{Held, descriptor_limit, set_descriptor_limit};
use crate::site::{Site, at};

/// How long each failure lasts.
const LENGTH: Duration = Duration::from_millis(1200);

/// Kills the database and starts it again. The failure ends when the host has loaded a row that was added afterwards.
pub(crate) fn stop_database(site: &Site, number: u64) -> Result<()> {
    let _one = site.one_failure();
    let _disruption = site.disruptions.begin();
    let mut database = site.database();
    database.die();
    std::thread::sleep(LENGTH);
    database.up();
    let before = site.host.metric("portcullis_address_rows", &[]);
    let ip = format!("198.51.{}.{}", number / 250 % 250, number % 250);
    database.sql(
        "kamailio",
        &format!("INSERT INTO address (grp, ip_addr, mask, port) VALUES (202, '{ip}', 32, 0)"),
    );
    drop(database);
    wait::until("the host follows its database again", || {
        (site.host.metric("portcullis_address_rows", &[]) > before).then_some(())
    });
    Ok(())
}

/// Lowers the limit of descriptors to those in use, while connections are opened. Afterwards, the control port must answer, and SIP over
/// TCP too.
pub(crate) fn exhaust_descriptors(site: &Site, _number: u64) -> Result<()> {
    let _one = site.one_failure();
    let pid = site.host.pid();
    let (soft, hard) = descriptor_limit(pid)?;
    {
        let _disruption = site.disruptions.begin();
        let limit = ShortOf { pid, soft, hard };
        set_descriptor_limit(pid, Held::of(pid)?.files as u64, hard)?;
        let flood: Vec<_> = (0..200)
            .filter_map(|_| TcpStream::connect_timeout(&site.host.sip(), LENGTH).ok())
            .collect();
        site.books.add(
            "connections beside a shortage of descriptors",
            flood.len() as u64,
        );
        std::thread::sleep(LENGTH);
        drop(limit);
        drop(flood);
        wait::until("the control port answers after the shortage", || {
            site.host
                .get("/healthz")
                .filter(|(status, _)| *status == 200)
        });
    }
    let mut caller = site.host.tcp(at::SLOW);
    let request = caller.request("MESSAGE", "sip:bob@acme.example");
    let code = caller.ask(&request).code();
    ensure!(
        code == 480,
        "SIP over TCP answers {code} after the shortage"
    );
    Ok(())
}

/// Restores the limit, even if the turn fails.
struct ShortOf {
    pid: u32,
    soft: u64,
    hard: u64,
}

impl Drop for ShortOf {
    fn drop(&mut self) {
        set_descriptor_limit(self.pid, self.soft, self.hard)
            .expect("the limit of the host can be set back");
    }
}

/// Fills the disk of the records until some are lost, then frees space, after which records must be written again.
pub(crate) fn fill_disk(site: &Site, _number: u64) -> Result<()> {
    let Some(disk) = &site.disk else {
        return Ok(());
    };
    let _one = site.one_failure();
    let _disruption = site.disruptions.begin();
    let lost = site.host.metric("portcullis_records_lost_total", &[]);
    let mut filler = disk.fill()?;
    wait::until("records are lost on a full disk", || {
        // The host frees room for a whole file when it begins a new one in place of the oldest.
        filler.top_up();
        (site.host.metric("portcullis_records_lost_total", &[]) > lost).then_some(())
    });
    drop(filler);
    let written = site.host.metric("portcullis_records_written_total", &[]);
    wait::until("records are written again when there is room", || {
        (site.host.metric("portcullis_records_written_total", &[]) > written).then_some(())
    });
    Ok(())
}
