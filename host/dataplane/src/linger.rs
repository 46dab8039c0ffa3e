//! The end of a stream whose peer may still be sending. Closing it at once would make the system reset the connection, and the peer could lose
//! the response that was sent last.

use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::time::{Instant, timeout_at};

/// How long a stream is read before it is closed.
const LONGEST: Duration = Duration::from_secs(1);

/// For how many bytes a stream is read before it is closed.
const MOST_BYTES: usize = 256 << 10;

/// Size of one read in bytes.
const CHUNK: usize = 4096;

/// Reads and discards what the peer sends: until the peer closes the stream, for one second or for 256 KiB.
pub async fn discard_input(read: &mut (impl AsyncRead + Unpin)) {
    let deadline = Instant::now() + LONGEST;
    let mut discarded = Vec::with_capacity(CHUNK);
    let mut total = 0;
    while let Ok(Ok(count @ 1..)) = timeout_at(deadline, read.read_buf(&mut discarded)).await {
        discarded.clear();
        total += count;
        if total >= MOST_BYTES {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncWriteExt as _, duplex};

    use super::*;

    #[tokio::test]
    async fn input_is_discarded_up_to_the_limit_or_the_end() {
        let (mut here, mut there) = duplex(2 * MOST_BYTES);
        there.write_all(&[0; 100]).await.unwrap();
        there.shutdown().await.unwrap();
        discard_input(&mut here).await;
        assert_eq!(here.read(&mut [0; 1]).await.unwrap(), 0);

        let (mut here, mut there) = duplex(2 * MOST_BYTES);
        there.write_all(&vec![0; MOST_BYTES + CHUNK]).await.unwrap();
        drop(there);
        discard_input(&mut here).await;
        let mut rest = Vec::new();
        here.read_to_end(&mut rest).await.unwrap();
        assert!((1..=CHUNK).contains(&rest.len()), "{}", rest.len());
    }
}
