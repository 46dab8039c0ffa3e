//! The interfaces `counters`, `settings`, `clock` and `edits`.

use wasmtime::component::{ComponentType, Linker, Lower, WasmStr};

use crate::clock::LocalTime;
use crate::contract::{CLOCK, COUNTERS, EDITS, SETTINGS};

use super::{Context, Data, text, timely_mut};

#[derive(ComponentType, Lower)]
#[component(record)]
struct WireLocalTime {
    year: u16,
    month: u8,
    day: u8,
    hour: u8,
    minute: u8,
    second: u8,
    weekday: u8,
    offset: i32,
}

pub(super) fn link(linker: &mut Linker<Data>) -> wasmtime::Result<()> {
    link_counters(linker)?;
    link_settings(linker)?;
    link_clock(linker)?;
    link_edits(linker)
}

fn link_counters(linker: &mut Linker<Data>) -> wasmtime::Result<()> {
    let mut counters = linker.instance(COUNTERS)?;
    counters.func_wrap(
        "add",
        |mut store: Context<'_>, (name, amount, seconds): (WasmStr, u64, u32)| {
            let name = text(&store, &name)?;
            Ok((timely_mut(&mut store)?.add(&name, amount, seconds),))
        },
    )?;
    counters.func_wrap("value", |mut store: Context<'_>, (name,): (WasmStr,)| {
        let name = text(&store, &name)?;
        Ok((timely_mut(&mut store)?.value(&name),))
    })?;
    counters.func_wrap(
        "rate-limit",
        |mut store: Context<'_>, (key, per_second, burst): (WasmStr, f64, u32)| {
            let key = text(&store, &key)?;
            Ok((timely_mut(&mut store)?.rate_limit(&key, per_second, burst),))
        },
    )
}

/// Links functions that find something by a key.
macro_rules! by_key {
    ($instance:ident, $($name:literal: $method:ident),+ $(,)?) => {$(
        $instance.func_wrap($name, |mut store: Context<'_>, (key,): (WasmStr,)| {
            let key = text(&store, &key)?;
            Ok((timely_mut(&mut store)?.$method(&key),))
        })?;
    )+};
}

fn link_settings(linker: &mut Linker<Data>) -> wasmtime::Result<()> {
    let mut settings = linker.instance(SETTINGS)?;
    by_key!(
        settings,
        "boolean": boolean,
        "integer": integer,
        "number": number,
        "text": text,
        "texts": texts,
        "keys": keys,
    );
    settings.func_wrap("json", |mut store: Context<'_>, (): ()| {
        Ok((timely_mut(&mut store)?.json(),))
    })
}

fn link_clock(linker: &mut Linker<Data>) -> wasmtime::Result<()> {
    let mut clock = linker.instance(CLOCK)?;
    clock.func_wrap("now", |mut store: Context<'_>, (): ()| {
        Ok((timely_mut(&mut store)?.now(),))
    })?;
    clock.func_wrap("local", |mut store: Context<'_>, (zone,): (WasmStr,)| {
        let zone = text(&store, &zone)?;
        let local = timely_mut(&mut store)?.local(&zone);
        Ok((local.map(WireLocalTime::from),))
    })
}

fn link_edits(linker: &mut Linker<Data>) -> wasmtime::Result<()> {
    let mut edits = linker.instance(EDITS)?;
    edits.func_wrap(
        "add-header",
        |mut store: Context<'_>, (name, value): (WasmStr, WasmStr)| {
            let (name, value) = (text(&store, &name)?, text(&store, &value)?);
            Ok((timely_mut(&mut store)?.add_header(&name, &value)?,))
        },
    )?;
    edits.func_wrap(
        "remove-header",
        |mut store: Context<'_>, (name,): (WasmStr,)| {
            let name = text(&store, &name)?;
            Ok((timely_mut(&mut store)?.remove_header(&name)?,))
        },
    )
}

impl From<LocalTime> for WireLocalTime {
    fn from(time: LocalTime) -> Self {
        let LocalTime {
            year,
            month,
            day,
            hour,
            minute,
            second,
            weekday,
            offset,
        } = time;
        Self {
            year,
            month,
            day,
            hour,
            minute,
            second,
            weekday,
            offset,
        }
    }
}
