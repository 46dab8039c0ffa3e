//! Pages of metrics in transfer. A page of thousands of tenants is large, and slow clients share pages instead of each having its own.

use std::fmt;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use crate::exposition::Format;

/// Most pages of a format in transfer at the same time. Further clients get the last of these.
const MOST: usize = 4;

/// The pages in transfer with their formats, oldest first.
#[derive(Debug, Default)]
pub(super) struct Pages(Mutex<Vec<(Format, Weak<str>)>>);

/// A page for one client.
#[derive(Clone, Debug)]
pub(super) struct Page(Arc<str>);

impl AsRef<[u8]> for Page {
    fn as_ref(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

impl Pages {
    /// Returns a page of this format, made by `make`, or the last one if there are too many.
    ///
    /// # Errors
    /// See `make`.
    pub(super) fn page(
        &self,
        format: Format,
        make: impl FnOnce() -> Result<String, fmt::Error>,
    ) -> Result<Page, fmt::Error> {
        let mut pages = self.0.lock();
        pages.retain(|(_, page)| page.strong_count() > 0);
        let mut alike = pages.iter().filter(|(other, _)| *other == format);
        let last = alike.clone().nth(MOST - 1).and_then(|_| alike.next_back());
        if let Some(last) = last.and_then(|(_, page)| page.upgrade()) {
            return Ok(Page(last));
        }
        let page: Arc<str> = make()?.into();
        pages.push((format, Arc::downgrade(&page)));
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
            let page = pages.page(Format::Prometheus, || {
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
        let last = (20 + MOST).to_string();
        assert_eq!([&held[MOST - 1].1, &held[99].1], [&last, &last]);
        // A client that asks for the other format gets no page of this one.
        let other = pages.page(Format::OpenMetrics, || Ok("other".into()));
        assert_eq!(other.unwrap().as_ref(), b"other");
        drop(held);
        let next = pages.page(Format::Prometheus, || Ok("next".into()));
        assert_eq!(next.unwrap().as_ref(), b"next");
    }
}
