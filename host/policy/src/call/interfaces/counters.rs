//! The interface `counters`.

use serde_json::json;
use wasmtime::component::WasmStr;
use wasmtime::{Linker, component};

use crate::call::Call;
use crate::call::abi::component::{ComponentContext, lifted, timely_mut};
use crate::call::abi::module::{ModuleContext, open, text};
use crate::call::state::Data;
use crate::clock::Moment;
use crate::contract::COUNTERS;
use crate::tape::SideEffect;

pub(super) fn link_module(linker: &mut Linker<Data>) -> wasmtime::Result<()> {
    linker.func_wrap(
        COUNTERS,
        "add",
        |mut caller: ModuleContext<'_>, at: u32, length: u32, amount: u64, seconds: u32| {
            let (memory, call) = open(&mut caller)?;
            let name = text(memory, at, length, call.host_call_bytes())?;
            wasmtime::Result::Ok(call.add(name, amount, seconds))
        },
    )?;
    linker.func_wrap(
        COUNTERS,
        "value",
        |mut caller: ModuleContext<'_>, at: u32, length: u32| {
            let (memory, call) = open(&mut caller)?;
            let name = text(memory, at, length, call.host_call_bytes())?;
            wasmtime::Result::Ok(call.value(name))
        },
    )?;
    linker.func_wrap(
        COUNTERS,
        "rate-limit",
        |mut caller: ModuleContext<'_>, at: u32, length: u32, per_second: f64, burst: u32| {
            let (memory, call) = open(&mut caller)?;
            let key = text(memory, at, length, call.host_call_bytes())?;
            let within = call.rate_limit(key, per_second, burst);
            wasmtime::Result::Ok(u32::from(within))
        },
    )?;
    Ok(())
}

pub(super) fn link_component(linker: &mut component::Linker<Data>) -> wasmtime::Result<()> {
    let mut counters = linker.instance(COUNTERS)?;
    counters.func_wrap(
        "add",
        |mut store: ComponentContext<'_>, (name, amount, seconds): (WasmStr, u64, u32)| {
            let name = lifted(&store, &name)?;
            Ok((timely_mut(&mut store)?.add(&name, amount, seconds),))
        },
    )?;
    counters.func_wrap(
        "value",
        |mut store: ComponentContext<'_>, (name,): (WasmStr,)| {
            let name = lifted(&store, &name)?;
            Ok((timely_mut(&mut store)?.value(&name),))
        },
    )?;
    counters.func_wrap(
        "rate-limit",
        |mut store: ComponentContext<'_>, (key, per_second, burst): (WasmStr, f64, u32)| {
            let key = lifted(&store, &key)?;
            Ok((timely_mut(&mut store)?.rate_limit(&key, per_second, burst),))
        },
    )
}

impl Call {
    /// `counters.add`
    fn add(&mut self, name: &str, amount: u64, seconds: u32) -> u64 {
        let arguments = || json!([name, amount, seconds]);
        self.answered("counters.add", SideEffect::None, arguments, |call| {
            let now = call.steady();
            call.scope().counters().add(name, amount, seconds, now)
        })
    }

    /// `counters.value`
    fn value(&mut self, name: &str) -> u64 {
        let arguments = || json!([name]);
        self.answered("counters.value", SideEffect::None, arguments, |call| {
            let now = call.steady();
            call.scope().counters().value(name, now)
        })
    }

    /// `counters.rate-limit`
    fn rate_limit(&mut self, key: &str, per_second: f64, burst: u32) -> bool {
        let arguments = || json!([key, per_second, burst]);
        self.answered("counters.rate-limit", SideEffect::None, arguments, |call| {
            let now = call.steady();
            let counters = call.scope().counters();
            counters.rate_limit(key, per_second, burst, now)
        })
    }

    /// The monotonic time of the call.
    fn steady(&mut self) -> std::time::Instant {
        let Moment { steady, .. } = self.moment();
        steady
    }
}
