//! The interface `clock`.

use wasmtime::component::WasmStr;
use wasmtime::{Linker, component};

use crate::call::Call;
use crate::call::abi::component::{ComponentContext, lifted, timely_mut};
use crate::call::abi::module::{ModuleContext, by_key, check, write_bytes};
use crate::call::state::Data;
use crate::clock::LocalTime;
use crate::contract::CLOCK;

pub(super) fn link_module(linker: &mut Linker<Data>) -> wasmtime::Result<()> {
    linker.func_wrap(CLOCK, "now", |mut caller: ModuleContext<'_>| {
        check(caller.data())?;
        wasmtime::Result::Ok(caller.data_mut().call.now())
    })?;
    linker.func_wrap(
        CLOCK,
        "local",
        |mut caller: ModuleContext<'_>, at: u32, length: u32, result: u32| {
            let local = by_key(&mut caller, at, length, Call::local)?;
            write_bytes(&mut caller, result, 4, &lowered(local))
        },
    )?;
    Ok(())
}

pub(super) fn link_component(linker: &mut component::Linker<Data>) -> wasmtime::Result<()> {
    let mut clock = linker.instance(CLOCK)?;
    clock.func_wrap("now", |mut store: ComponentContext<'_>, (): ()| {
        Ok((timely_mut(&mut store)?.now(),))
    })?;
    clock.func_wrap(
        "local",
        |mut store: ComponentContext<'_>, (zone,): (WasmStr,)| {
            let zone = lifted(&store, &zone)?;
            let local = timely_mut(&mut store)?.local(&zone);
            Ok((local.map(WireLocalTime::from),))
        },
    )
}

/// The memory layout of an optional `local-time`.
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

#[derive(component::ComponentType, component::Lower)]
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

impl Call {
    /// `clock.now`
    fn now(&mut self) -> u64 {
        self.moment().milliseconds()
    }

    /// `clock.local`
    fn local(&mut self, zone: &str) -> Option<LocalTime> {
        self.moment().local(zone)
    }
}
