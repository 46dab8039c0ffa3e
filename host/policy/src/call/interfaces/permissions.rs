//! The interface `permissions`.

use std::borrow::Cow;

use wasmtime::component::WasmStr;
use wasmtime::{Linker, component};

use crate::call::Call;
use crate::call::abi::component::{ComponentContext, lifted, timely, timely_mut};
use crate::call::abi::module::{ModuleContext, check, give, open, text, write_words};
use crate::call::state::Data;
use crate::contract::PERMISSIONS;

pub(super) fn link_module(linker: &mut Linker<Data>) -> wasmtime::Result<()> {
    linker.func_wrap(
        PERMISSIONS,
        "allow-source-address",
        |mut caller: ModuleContext<'_>, group: u32| -> wasmtime::Result<u32> {
            check(caller.data())?;
            Ok(caller.data_mut().call.allow_source_address(group).into())
        },
    )?;
    linker.func_wrap(
        PERMISSIONS,
        "allow-address",
        |mut caller: ModuleContext<'_>, group: u32, at: u32, length: u32, port: u32| {
            let (memory, call) = open(&mut caller)?;
            let address = text(memory, at, length, call.host_call_bytes())?;
            let allowed = call.allow_address(group, address, port as u16);
            wasmtime::Result::Ok(u32::from(allowed))
        },
    )?;
    linker.func_wrap(
        PERMISSIONS,
        "source-address-group",
        |mut caller: ModuleContext<'_>, result: u32| {
            open(&mut caller)?;
            let group = caller.data_mut().call.source_address_group();
            give_number(&mut caller, result, group)
        },
    )?;
    linker.func_wrap(
        PERMISSIONS,
        "address-group",
        |mut caller: ModuleContext<'_>, at: u32, length: u32, port: u32, result: u32| {
            let (memory, call) = open(&mut caller)?;
            let address = text(memory, at, length, call.host_call_bytes())?;
            let group = call.address_group(address, port as u16);
            give_number(&mut caller, result, group)
        },
    )?;
    linker.func_wrap(
        PERMISSIONS,
        "last-tag",
        |mut caller: ModuleContext<'_>, result: u32| {
            open(&mut caller)?;
            if caller.data().call.last_tag().is_none() {
                return write_words(&mut caller, result, &[0, 0, 0]);
            }
            let (at, length) = give(&mut caller, last_tag)?;
            write_words(&mut caller, result, &[1, at, length])
        },
    )?;
    Ok(())
}

pub(super) fn link_component(linker: &mut component::Linker<Data>) -> wasmtime::Result<()> {
    let mut permissions = linker.instance(PERMISSIONS)?;
    permissions.func_wrap(
        "allow-source-address",
        |mut store: ComponentContext<'_>, (group,): (u32,)| {
            Ok((timely_mut(&mut store)?.allow_source_address(group),))
        },
    )?;
    permissions.func_wrap(
        "allow-address",
        |mut store: ComponentContext<'_>, (group, address, port): (u32, WasmStr, u16)| {
            let address = lifted(&store, &address)?;
            let call = timely_mut(&mut store)?;
            Ok((call.allow_address(group, &address, port),))
        },
    )?;
    permissions.func_wrap(
        "source-address-group",
        |mut store: ComponentContext<'_>, (): ()| {
            Ok((timely_mut(&mut store)?.source_address_group(),))
        },
    )?;
    permissions.func_wrap(
        "address-group",
        |mut store: ComponentContext<'_>, (address, port): (WasmStr, u16)| {
            let address = lifted(&store, &address)?;
            let call = timely_mut(&mut store)?;
            Ok((call.address_group(&address, port),))
        },
    )?;
    permissions.func_wrap("last-tag", |store: ComponentContext<'_>, (): ()| {
        Ok((timely(&store)?.last_tag().map(str::to_owned),))
    })
}

fn give_number(
    caller: &mut ModuleContext<'_>,
    result: u32,
    number: Option<u32>,
) -> wasmtime::Result<()> {
    let [case, number] = match number {
        Some(number) => [1, number],
        None => [0, 0],
    };
    write_words(caller, result, &[case, number])
}

fn last_tag(call: &Call) -> Cow<'_, str> {
    call.last_tag().unwrap_or_default().into()
}
