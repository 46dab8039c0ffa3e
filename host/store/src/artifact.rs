//! The files of generations. Several generations may have the same file.
//!
//! A file that no generation has any more is deleted by a later push. It must not be deleted while another push, on any node of a cluster, is
//! about to use it. Locks do not ensure that: nodes of Galera do not see each other's locks, and compare only the rows that two transactions
//! write. Nor should each push write the row of a file that exists, because pushes of one file on many hosts would then wait for each other.
//! So a push makes sure that the file was stored or renewed within [`RENEWED`], and only files older than [`UNUSED`] are deleted. The
//! difference is by far longer than a push takes, and than the clocks of two nodes differ.

use portcullis_database::{Failure, Link};
use sha2::{Digest as _, Sha256};

/// Age in seconds from which on a file that no generation has is deleted.
pub(crate) const UNUSED: i64 = 3600;

/// Age in seconds from which on a file is renewed before a generation uses it.
const RENEWED: i64 = UNUSED / 2;

/// Stores a file, if it does not exist yet, and makes sure that it is not deleted before a generation uses it. Must be called outside a
/// transaction, shortly before the one that stores the generation: what is written is then visible to all others at once, and the row of the
/// file is locked for a moment only.
pub(crate) async fn keep_artifact(
    link: &mut Link,
    digest: &str,
    bytes: &[u8],
) -> Result<(), Failure> {
    // The clocks of hosts may differ by minutes.
    let now = link.dialect().milliseconds();
    let query = format!(
        "SELECT {now}, (SELECT `created_at` FROM `portcullis_artifact` WHERE `digest` = ?)"
    );
    let values = [digest.into()];
    let times = link.row(&query, &values, |row| {
        Ok((row.integer(0)?, row.integer(1)?))
    });
    let (now, stored) = times.await?.unwrap_or_default();
    let now = now.unwrap_or(0) / 1000;
    let old = now - RENEWED;
    if stored.is_some_and(|at| at >= old) {
        return Ok(());
    }
    if stored.is_some() {
        let renew = "UPDATE `portcullis_artifact` SET `created_at` = ? WHERE `digest` = ? AND `created_at` < ?";
        let values = [now.into(), digest.into(), old.into()];
        if link.execute(renew, &values).await? > 0 {
            return Ok(());
        }
        // Somebody else has renewed or deleted it.
    }
    let row = "`portcullis_artifact` (`digest`, `bytes`, `created_at`) VALUES (?, ?, ?)";
    let insert = link.dialect().insert_if_absent(row);
    let values = [digest.into(), bytes.into(), now.into()];
    link.execute(&insert, &values).await.map(drop)
}

/// The SHA-256 of a file, in hexadecimal.
pub(crate) fn digest_of(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}
