//! The interface `trusted`.

use wasmtime::component::WasmStr;
use wasmtime::{Linker, component};

use crate::call::abi::component::{ComponentContext, lifted, lifted_optional, timely, timely_mut};
use crate::call::abi::module::{
    ModuleContext, check, give_list, open, optional, text, write_words,
};
use crate::call::state::Data;
use crate::call::{Peer, Rows};
use crate::contract::TRUSTED;

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
