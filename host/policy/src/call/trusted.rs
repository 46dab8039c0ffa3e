//! Answers of the interface `trusted`.

use std::ops::ControlFlow;

use portcullis_address::{Effort, FromUri, Proto, Spent, TrustedQuestion, TrustedSource};
use serde_json::json;

use crate::failure::HostError;
use crate::tape::SideEffect;

use super::Call;

/// A peer named by the policy instead of the source of the request.
pub(crate) struct Peer<'p> {
    pub(crate) address: &'p str,
    pub(crate) transport: &'p str,
    pub(crate) from: Option<&'p str>,
}

/// Which of the matching rows a query returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rows {
    First,
    All,
}

impl Call {
    /// `trusted.allow-trusted`, `trusted.count-trusted` and, with a peer, `trusted.allow-trusted-address` and
    /// `trusted.count-trusted-address`: the number of matching rows.
    pub(crate) fn trusted(&mut self, rows: Rows, peer: Option<Peer<'_>>) -> wasmtime::Result<u32> {
        let function = match (rows, &peer) {
            (Rows::First, None) => "trusted.allow-trusted",
            (Rows::First, Some(_)) => "trusted.allow-trusted-address",
            (Rows::All, None) => "trusted.count-trusted",
            (Rows::All, Some(_)) => "trusted.count-trusted-address",
        };
        let arguments = || match &peer {
            None => json!([]),
            Some(peer) => json!([peer.address, peer.transport, peer.from]),
        };
        let mut has_room = true;
        let count = self.answered(function, SideEffect::Tags, arguments, |call| {
            let counted = call.count_trusted(rows, peer.as_ref(), &mut has_room);
            counted.unwrap_or_default()
        });
        // If the deadline has passed, the count is incomplete.
        self.in_time()?;
        match has_room {
            true => Ok(count),
            false => Err(HostError::TooMuch.into()),
        }
    }

    /// Counts the rows and collects their tags, up to the bytes that one host call may pass (`has_room`).
    fn count_trusted(
        &mut self,
        rows: Rows,
        peer: Option<&Peer<'_>>,
        has_room: &mut bool,
    ) -> Result<u32, Spent> {
        let mut room = self.host_call_bytes();
        if !self.scope().admits_trusted() {
            return Ok(0);
        }
        let (request, snapshot, end, tags) = self.parts();
        let own_from;
        let (source, transport, from) = match peer {
            None => {
                own_from = request.from_uri();
                (
                    TrustedSource::Ip(request.source().ip()),
                    request.transport(),
                    FromUri::Own(&own_from),
                )
            }
            Some(peer) => {
                let from = match peer.from {
                    Some(from) => FromUri::Given(from),
                    None => {
                        own_from = request.from_uri();
                        FromUri::Own(&own_from)
                    }
                };
                (TrustedSource::parse(peer.address), peer.transport, from)
            }
        };
        let Some(proto) = Proto::parse(transport) else {
            return Ok(0);
        };
        let ruri = request.uri();
        let question = TrustedQuestion {
            source,
            proto,
            from,
            ruri: &ruri,
        };
        let mut count = 0;
        let goes_on = || end.is_ahead();
        let effort = &mut Effort::new(&goes_on);
        snapshot.trusted.table.find(question, effort, |found| {
            if count == 0 {
                tags.clear();
            }
            count += 1;
            if let Some(tag) = found.tag {
                let left = room.checked_sub(tag.len());
                *has_room = left.is_some();
                room = left.unwrap_or_default();
                tags.push(tag.to_owned());
            }
            match rows {
                Rows::All if *has_room => ControlFlow::Continue(()),
                Rows::All | Rows::First => ControlFlow::Break(()),
            }
        })?;
        Ok(count)
    }
}
