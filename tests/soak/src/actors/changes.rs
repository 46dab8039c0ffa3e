//! Changes by operators and tenants: new policies, reloads, changed rows.

use anyhow::{Result, bail, ensure};
use portcullis_testkit::guests::rejecting;
use serde_json::json;

use crate::site::Site;

/// Replaces the policy file of the host by three valid ones, then by a broken one, which must not affect the active policy.
pub(crate) fn swap_file(site: &Site, number: u64) -> Result<()> {
    let mut policy = rejecting(401, &format!("file {number}"));
    if number % 4 == 3 {
        policy.truncate(policy.len() / 2);
    }
    site.host.replace_policy(&policy);
    Ok(())
}

/// Pushes a policy to a tenant: valid ones, and now and then a broken one, which must be refused.
pub(crate) fn push(site: &Site, number: u64) -> Result<()> {
    let mut policy = rejecting(480, &format!("generation {}", number + 1));
    let is_broken = number % 5 == 4;
    if is_broken {
        policy.truncate(policy.len() / 2);
    }
    let ((status, told), calm) = site
        .disruptions
        .during(|| site.host.push("acme", "arrival=activate", &policy));
    match (is_broken, status) {
        (false, 201) => site.books.count("good pushes taken"),
        (true, 422) => site.books.count("broken pushes refused"),
        _ if calm => bail!("status {status}: {told}"),
        _ => site.books.count("pushes refused beside a disruption"),
    }
    Ok(())
}

/// Requests a reload of the address table, alternately over HTTP and by SIGHUP.
pub(crate) fn reload(site: &Site, number: u64) -> Result<()> {
    if number % 2 == 1 {
        site.host.signal("HUP");
        return Ok(());
    }
    let (answer, calm) = site
        .disruptions
        .during(|| site.host.rpc("permissions.addressReload", json!([])));
    let reloaded = answer["result"] == "Reload OK";
    ensure!(reloaded || !calm, "{answer}");
    if !reloaded {
        site.books.count("reloads refused beside a disruption");
    }
    Ok(())
}

/// Adds a row that matches no source, and removes an earlier one.
///
/// The number of rows is constant at all times, because other actors use it to detect whether the host has loaded their rows.
pub(crate) fn change_rows(site: &Site, number: u64) -> Result<()> {
    let Some(database) = site.database_if_up() else {
        return Ok(());
    };
    let (third, fourth) = (number / 250 % 250, number % 250);
    database.sql(
        "kamailio",
        &format!(
            "BEGIN; INSERT INTO address (grp, ip_addr, mask, port) VALUES (201, '203.0.{third}.{fourth}', 32, 0); \
             DELETE FROM address WHERE grp = 201 ORDER BY id LIMIT 1; COMMIT"
        ),
    );
    Ok(())
}
