//! The interface `trusted`.

use std::ops::ControlFlow;

use portcullis_address::{Effort, FromUri, Proto, Spent, TrustedQuestion, TrustedSource};
use serde_json::json;
use wasmtime::component::WasmStr;
use wasmtime::{Linker, component};

use crate::call::Call;
use crate::call::abi::component::{ComponentContext, lifted, lifted_optional, timely, timely_mut};
use crate::call::abi::module::{
    ModuleContext, check, give_list, open, optional, text, write_words,
};
use crate::call::state::Data;
use crate::contract::TRUSTED;
use crate::failure::HostError;
use crate::tape::SideEffect;

pub(super) fn link_module(linker: &mut Linker<Data>) -> wasmtime::Result<()> {
    for (own, address, rows) in [
        ("allow-trusted", "allow-trusted-address", Rows::First),
        ("count-trusted", "count-trusted-address", Rows::All),
    ] {
        linker.func_wrap(TRUSTED, own, move |mut caller: ModuleContext<'_>| {
            check(caller.data())?;
            caller.data_mut().call.trusted(rows, None)
        })?;
        linker.func_wrap(
            TRUSTED,
            address,
            move |mut caller: ModuleContext<'_>,
                  at: u32,
                  length: u32,
                  transport_at: u32,
                  transport_length: u32,
                  has_from: u32,
                  from_at: u32,
                  from_length: u32| {
                let (memory, call) = open(&mut caller)?;
                let limit = call.host_call_bytes();
                let peer = Peer {
                    address: text(memory, at, length, limit)?,
                    transport: text(memory, transport_at, transport_length, limit)?,
                    from: optional(memory, [has_from, from_at, from_length], limit)?,
                };
                call.trusted(rows, Some(peer))
            },
        )?;
    }
    linker.func_wrap(TRUSTED, "tags", tags)?;
    Ok(())
}

pub(super) fn link_component(linker: &mut component::Linker<Data>) -> wasmtime::Result<()> {
    let mut trusted = linker.instance(TRUSTED)?;
    trusted.func_wrap(
        "allow-trusted",
        |mut store: ComponentContext<'_>, (): ()| {
            Ok((timely_mut(&mut store)?.trusted(Rows::First, None)? > 0,))
        },
    )?;
    trusted.func_wrap(
        "count-trusted",
        |mut store: ComponentContext<'_>, (): ()| {
            Ok((timely_mut(&mut store)?.trusted(Rows::All, None)?,))
        },
    )?;
    trusted.func_wrap(
        "allow-trusted-address",
        |mut store: ComponentContext<'_>, peer: TrustedAddress| {
            Ok((trusted_address(&mut store, Rows::First, &peer)? > 0,))
        },
    )?;
    trusted.func_wrap(
        "count-trusted-address",
        |mut store: ComponentContext<'_>, peer: TrustedAddress| {
            Ok((trusted_address(&mut store, Rows::All, &peer)?,))
        },
    )?;
    trusted.func_wrap("tags", |store: ComponentContext<'_>, (): ()| {
        Ok((timely(&store)?.trusted_tags().to_vec(),))
    })
}

fn tags(mut caller: ModuleContext<'_>, result: u32) -> wasmtime::Result<()> {
    open(&mut caller)?;
    // Copied, because the allocations run code of the module.
    let tags = caller.data().call.trusted_tags().to_vec();
    let list = give_list(&mut caller, &tags)?;
    write_words(&mut caller, result, &list)
}

type TrustedAddress = (WasmStr, WasmStr, Option<WasmStr>);

fn trusted_address(
    store: &mut ComponentContext<'_>,
    rows: Rows,
    (address, transport, from): &TrustedAddress,
) -> wasmtime::Result<u32> {
    let (address, transport) = (lifted(store, address)?, lifted(store, transport)?);
    let from = lifted_optional(store, from)?;
    let peer = Peer {
        address: &address,
        transport: &transport,
        from: from.as_deref(),
    };
    timely_mut(store)?.trusted(rows, Some(peer))
}

/// A peer named by the policy instead of the source of the request.
struct Peer<'p> {
    address: &'p str,
    transport: &'p str,
    from: Option<&'p str>,
}

/// Which of the matching rows a query returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rows {
    First,
    All,
}

impl Call {
    /// `trusted.allow-trusted`, `trusted.count-trusted` and, with a peer, `trusted.allow-trusted-address` and
    /// `trusted.count-trusted-address`: the number of matching rows.
    fn trusted(&mut self, rows: Rows, peer: Option<Peer<'_>>) -> wasmtime::Result<u32> {
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
