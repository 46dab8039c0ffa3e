//! The interfaces `counters`, `settings`, `clock` and `edits`. An optional result is a byte that says whether it is there, and the value
//! at the next place that suits its size.

use wasmtime::Linker;

use crate::call::Call;
use crate::clock::LocalTime;
use crate::contract::{CLOCK, COUNTERS, EDITS, SETTINGS};

use super::Data;
use super::functions::{Context, give_copy, give_list};
use super::guest::{check, open, text, write_bytes, write_words};

pub(super) fn link(linker: &mut Linker<Data>) -> wasmtime::Result<()> {
    link_counters(linker)?;
    link_numbers(linker)?;
    link_texts(linker)?;
    link_clock(linker)?;
    link_edits(linker)
}

fn link_counters(linker: &mut Linker<Data>) -> wasmtime::Result<()> {
    linker.func_wrap(
        COUNTERS,
        "add",
        |mut caller: Context<'_>, at: u32, length: u32, amount: u64, seconds: u32| {
            let (memory, call) = open(&mut caller)?;
            let name = text(memory, at, length, call.host_call_bytes())?;
            wasmtime::Result::Ok(call.add(name, amount, seconds))
        },
    )?;
    linker.func_wrap(
        COUNTERS,
        "value",
        |mut caller: Context<'_>, at: u32, length: u32| {
            let (memory, call) = open(&mut caller)?;
            let name = text(memory, at, length, call.host_call_bytes())?;
            wasmtime::Result::Ok(call.value(name))
        },
    )?;
    linker.func_wrap(
        COUNTERS,
        "rate-limit",
        |mut caller: Context<'_>, at: u32, length: u32, per_second: f64, burst: u32| {
            let (memory, call) = open(&mut caller)?;
            let key = text(memory, at, length, call.host_call_bytes())?;
            let within = call.rate_limit(key, per_second, burst);
            wasmtime::Result::Ok(u32::from(within))
        },
    )?;
    Ok(())
}

fn link_numbers(linker: &mut Linker<Data>) -> wasmtime::Result<()> {
    linker.func_wrap(
        SETTINGS,
        "boolean",
        |mut caller: Context<'_>, at: u32, length: u32, result: u32| {
            let (memory, call) = open(&mut caller)?;
            let key = text(memory, at, length, call.host_call_bytes())?;
            let found = call.boolean(key);
            let bytes = [found.is_some().into(), found.unwrap_or_default().into()];
            write_bytes(&mut caller, result, 1, &bytes)
        },
    )?;
    linker.func_wrap(
        SETTINGS,
        "integer",
        |mut caller: Context<'_>, at: u32, length: u32, result: u32| {
            let (memory, call) = open(&mut caller)?;
            let key = text(memory, at, length, call.host_call_bytes())?;
            let found = call.integer(key);
            let value = found.unwrap_or_default().to_le_bytes();
            write_wide(&mut caller, result, found.is_some(), value)
        },
    )?;
    linker.func_wrap(
        SETTINGS,
        "number",
        |mut caller: Context<'_>, at: u32, length: u32, result: u32| {
            let (memory, call) = open(&mut caller)?;
            let key = text(memory, at, length, call.host_call_bytes())?;
            let found = call.number(key);
            let value = found.unwrap_or_default().to_le_bytes();
            write_wide(&mut caller, result, found.is_some(), value)
        },
    )?;
    Ok(())
}

fn link_texts(linker: &mut Linker<Data>) -> wasmtime::Result<()> {
    linker.func_wrap(
        SETTINGS,
        "text",
        |mut caller: Context<'_>, at: u32, length: u32, result: u32| {
            let Some(found) = by_key(&mut caller, at, length, Call::text)? else {
                return write_words(&mut caller, result, &[0, 0, 0]);
            };
            let (at, length) = give_copy(&mut caller, &found)?;
            write_words(&mut caller, result, &[1, at, length])
        },
    )?;
    linker.func_wrap(
        SETTINGS,
        "texts",
        |mut caller: Context<'_>, at: u32, length: u32, result: u32| {
            let Some(found) = by_key(&mut caller, at, length, Call::texts)? else {
                return write_words(&mut caller, result, &[0, 0, 0]);
            };
            let [list, length] = give_list(&mut caller, &found)?;
            write_words(&mut caller, result, &[1, list, length])
        },
    )?;
    linker.func_wrap(
        SETTINGS,
        "keys",
        |mut caller: Context<'_>, at: u32, length: u32, result: u32| {
            let keys = by_key(&mut caller, at, length, Call::keys)?;
            let list = give_list(&mut caller, &keys)?;
            write_words(&mut caller, result, &list)
        },
    )?;
    linker.func_wrap(SETTINGS, "json", |mut caller: Context<'_>, result: u32| {
        let (_, call) = open(&mut caller)?;
        let json = call.json();
        let (at, length) = give_copy(&mut caller, &json)?;
        write_words(&mut caller, result, &[at, length])
    })?;
    Ok(())
}

fn link_clock(linker: &mut Linker<Data>) -> wasmtime::Result<()> {
    linker.func_wrap(CLOCK, "now", |mut caller: Context<'_>| {
        check(caller.data())?;
        wasmtime::Result::Ok(caller.data_mut().now())
    })?;
    linker.func_wrap(
        CLOCK,
        "local",
        |mut caller: Context<'_>, at: u32, length: u32, result: u32| {
            let local = by_key(&mut caller, at, length, Call::local)?;
            write_bytes(&mut caller, result, 4, &lowered(local))
        },
    )?;
    Ok(())
}

fn link_edits(linker: &mut Linker<Data>) -> wasmtime::Result<()> {
    linker.func_wrap(
        EDITS,
        "add-header",
        |mut caller: Context<'_>, at: u32, length: u32, value_at: u32, value_length: u32| {
            let (memory, call) = open(&mut caller)?;
            let limit = call.host_call_bytes();
            let name = text(memory, at, length, limit)?;
            let value = text(memory, value_at, value_length, limit)?;
            wasmtime::Result::Ok(u32::from(call.add_header(name, value)?))
        },
    )?;
    linker.func_wrap(
        EDITS,
        "remove-header",
        |mut caller: Context<'_>, at: u32, length: u32| {
            let (memory, call) = open(&mut caller)?;
            let name = text(memory, at, length, call.host_call_bytes())?;
            wasmtime::Result::Ok(u32::from(call.remove_header(name)?))
        },
    )?;
    Ok(())
}

/// What is found by a text that the module passes.
fn by_key<T>(
    caller: &mut Context<'_>,
    at: u32,
    length: u32,
    find: impl FnOnce(&mut Call, &str) -> T,
) -> wasmtime::Result<T> {
    let (memory, call) = open(caller)?;
    let key = text(memory, at, length, call.host_call_bytes())?;
    Ok(find(call, key))
}

/// An optional number of eight bytes.
fn write_wide(
    caller: &mut Context<'_>,
    result: u32,
    is_there: bool,
    value: [u8; 8],
) -> wasmtime::Result<()> {
    let mut bytes = [0; 16];
    bytes[0] = is_there.into();
    bytes[8..].copy_from_slice(&value);
    write_bytes(caller, result, 8, &bytes)
}

/// An optional `local-time` as it lies in memory.
fn lowered(local: Option<LocalTime>) -> [u8; 16] {
    let mut bytes = [0; 16];
    let Some(local) = local else {
        return bytes;
    };
    bytes[0] = 1;
    bytes[4..6].copy_from_slice(&local.year.to_le_bytes());
    bytes[6..12].copy_from_slice(&[
        local.month,
        local.day,
        local.hour,
        local.minute,
        local.second,
        local.weekday,
    ]);
    bytes[12..].copy_from_slice(&local.offset.to_le_bytes());
    bytes
}
