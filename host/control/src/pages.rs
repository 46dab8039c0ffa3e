//! Pages of metrics in transfer. A page of thousands of tenants is large, and slow clients share pages instead of each having its own.

use std::fmt;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

/// Most pages in transfer at the same time. Further clients get the last of these.
const MOST: usize = 8;

/// The pages in transfer, oldest first.
#[derive(Debug, Default)]
pub(super) struct Pages(Mutex<Vec<Weak<str>>>);

/// A page for one client.
#[derive(Clone, Debug)]
pub(super) struct Page(Arc<str>);

impl AsRef<[u8]> for Page {
    fn as_ref(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

impl Pages {
    /// Returns a page made by `make`, or the last one if there are too many.
    ///
    /// # Errors
    /// See `make`.
    pub(super) fn page(
        &self,
        make: impl FnOnce() -> Result<String, fmt::Error>,
    ) -> Result<Page, fmt::Error> {
        let mut pages = self.0.lock();
        pages.retain(|page| page.strong_count() > 0);
        let last = pages.last().filter(|_| pages.len() >= MOST);
        if let Some(last) = last.and_then(Weak::upgrade) {
            return Ok(Page(last));
        }
        let page: Arc<str> = make()?.into();
        pages.push(Arc::downgrade(&page));
        Ok(Page(page))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_that_do_not_read_share_pages() {
        let pages = Pages::default();
        let mut made = 0;
        let mut page = || {
            let page = pages.page(|| {
                made += 1;
                Ok(made.to_string())
            });
            String::from_utf8(page.as_ref().unwrap().as_ref().to_vec()).map(|text| (page, text))
        };
        // A client that reads its page gets a new one each time.
        for number in 1..=20 {
            assert_eq!(page().unwrap().1, number.to_string());
        }
        let held: Vec<_> = (0..100).map(|_| page().unwrap()).collect();
        assert_eq!(held[MOST - 1].1, "28");
        assert_eq!(held[99].1, "28");
        drop(held);
        assert_eq!(page().unwrap().1, "29");
    }
}
