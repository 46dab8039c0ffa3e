//! The configuration of the wasmtime engine, and the ticks of a deadline.

use std::num::NonZeroUsize;
use std::time::Duration;

use wasmtime::{
    Config, Enabled, Engine, InstanceAllocationStrategy, PoolingAllocationConfig, Strategy,
    WasmFeatures,
};

use crate::limits::Limits;
use crate::ticker::TICK;

/// Maximum number of ticks in the second part of a deadline. The first of them may come at once.
const MOST_LATER: u64 = 2;

/// Bytes of a page of linear memory.
pub(crate) const PAGE: usize = 64 << 10;

/// Bytes of linear memory that a pool slot keeps resident between calls where the kernel has PAGEMAP_SCAN. The pages within that a call has
/// written are reset by a copy; all others are returned to the kernel, and the next call takes a page fault for each that it writes. Enough
/// for language runtimes: a new instance of a Go policy takes half as long as with 128 KiB (docs/languages.md), and more has no effect.
const MEMORY_KEEP_RESIDENT: usize = 1 << 20;

/// As [`MEMORY_KEEP_RESIDENT`], for kernels without PAGEMAP_SCAN, where a reset copies all of these bytes and they all stay resident: two
/// pages, which is all that small policies use.
const MEMORY_KEEP_RESIDENT_UNSCANNED: usize = 2 * PAGE;

const TABLE_KEEP_RESIDENT: usize = 64 << 10;

/// Unused pool slots that keep the memory image of their last policy.
const WARM_SLOTS: u32 = 32;

/// Core instances reserved for each sandbox. A component encoded by `wit-component` has three.
const CORE_INSTANCES: u32 = 4;

/// Maximum number of core instances of one component: enough for a composition of 16 components.
pub(crate) const MOST_INSTANCES: u32 = 64;
/// Maximum number of linear memories of one component, in all its instances together.
pub(crate) const MOST_MEMORIES: u32 = 16;
/// Maximum number of tables of one component, in all its instances together.
pub(crate) const MOST_TABLES: u32 = 64;

/// The kind of engine that code is compiled for. Machine code runs on one kind only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// [`Runtime::new`](crate::Runtime::new): calls for requests.
    Serving,
    /// [`Runtime::metered`](crate::Runtime::metered): calls with fuel metering.
    Metered,
}

/// An engine with a pool of sandboxes, whose address space is reserved here.
pub(crate) fn pooled(limits: &Limits) -> wasmtime::Result<Engine> {
    let mut config = config(limits);
    config.allocation_strategy(InstanceAllocationStrategy::Pooling(pool(limits)));
    Engine::new(&config)
}

/// An engine that maps memory for each sandbox. Many times slower than a pool, but needs little address space.
pub(crate) fn on_demand(limits: &Limits) -> wasmtime::Result<Engine> {
    let mut config = config(limits);
    config
        .allocation_strategy(InstanceAllocationStrategy::OnDemand)
        .memory_reservation(limits.memory_bytes as u64)
        .memory_guard_size(PAGE as u64);
    Engine::new(&config)
}

/// An engine without a pool that compiles for [`pooled`] or [`metered`] engines.
pub(crate) fn compiling(limits: &Limits, target: Target) -> wasmtime::Result<Engine> {
    let mut config = config(limits);
    config
        .allocation_strategy(InstanceAllocationStrategy::OnDemand)
        .consume_fuel(target == Target::Metered);
    Engine::new(&config)
}

/// An engine that meters the fuel of calls. Slower; the fuel of a call is the same on every machine.
pub(crate) fn metered(limits: &Limits) -> wasmtime::Result<Engine> {
    let mut config = config(limits);
    config
        .allocation_strategy(InstanceAllocationStrategy::OnDemand)
        // A profile needs to know how deep the stack is.
        .wasm_backtrace_max_frames(NonZeroUsize::new(1024))
        .consume_fuel(true);
    Engine::new(&config)
}

/// Whether an engine meters fuel.
pub(crate) fn is_metered(engine: &Engine) -> bool {
    wasmtime::Store::new(engine, ()).get_fuel().is_ok()
}

/// The deadline of a call in ticks, in two parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ticks {
    pub(crate) first: u64,
    /// Ticks of the second part. They count from the first check after the first part, because the thread may have been preempted until
    /// then.
    pub(crate) then: u64,
}

impl Ticks {
    /// One tick more than `deadline` has, because the first tick may come at once.
    pub(crate) fn of(deadline: Duration) -> Self {
        let ticks = deadline.as_nanos().div_ceil(TICK.as_nanos());
        let ticks = u64::try_from(ticks)
            .unwrap_or(u64::MAX - 1)
            .saturating_add(1);
        let then = MOST_LATER.min(ticks / 2);
        Self {
            first: ticks - then,
            then,
        }
    }
}

/// The proposals that policies must not use. Policies may use what compilers emit by default; every further proposal would enlarge the
/// attack surface of the runtime.
///
/// Multiple memories are refused by [`inspect`](crate::inspect()) and not here, because the adapters that the runtime generates between
/// the components of a composition have two memories.
pub(crate) fn refused_features() -> WasmFeatures {
    WasmFeatures::TAIL_CALL
        | WasmFeatures::MEMORY64
        | WasmFeatures::RELAXED_SIMD
        | WasmFeatures::FUNCTION_REFERENCES
        | WasmFeatures::GC
        | WasmFeatures::CUSTOM_PAGE_SIZES
        | WasmFeatures::WIDE_ARITHMETIC
        | WasmFeatures::STACK_SWITCHING
}

fn config(limits: &Limits) -> Config {
    let mut config = Config::new();
    config
        .strategy(Strategy::Cranelift)
        .wasm_features(refused_features(), false)
        .wasm_features(WasmFeatures::MULTI_MEMORY, true)
        .concurrency_support(false)
        .epoch_interruption(true)
        .max_wasm_stack(limits.stack_bytes)
        // No native unwinder (debugger, profiler, libunwind) walks the stack of a policy: backtraces come from wasmtime's own tables.
        // Registering the native tables would slow down every load.
        .native_unwind_info(false)
        // A failure names a function, not an offset within it. The address map would add a tenth to the memory of compiled code.
        .generate_address_map(false)
        .wasm_backtrace_max_frames(NonZeroUsize::new(16))
        .memory_init_cow(true);
    config
}

fn pool(limits: &Limits) -> PoolingAllocationConfig {
    let mut pool = PoolingAllocationConfig::new();
    let keep_resident = match PoolingAllocationConfig::is_pagemap_scan_available() {
        true => MEMORY_KEEP_RESIDENT,
        false => MEMORY_KEEP_RESIDENT_UNSCANNED,
    };
    pool.total_component_instances(limits.instances)
        .total_core_instances(limits.instances.saturating_mul(CORE_INSTANCES))
        .total_memories(limits.instances)
        .total_tables(limits.instances.saturating_mul(CORE_INSTANCES))
        // The runtime adds an adapter for each pair of connected components of a composition.
        .max_core_instances_per_component(2 * MOST_INSTANCES)
        .max_memories_per_component(MOST_MEMORIES)
        .max_tables_per_component(MOST_TABLES)
        .max_memories_per_module(1)
        .max_tables_per_module(1)
        .max_memory_size(limits.memory_bytes)
        .table_elements(limits.table_elements)
        .linear_memory_keep_resident(keep_resident)
        .table_keep_resident(TABLE_KEEP_RESIDENT)
        .max_unused_warm_slots(WARM_SLOTS)
        // PAGEMAP_SCAN (Linux 6.7 and later) returns the pages that a call has written. Without it, a reset writes all pages that a slot
        // keeps resident, and they stay in memory.
        .pagemap_scan(Enabled::Auto);
    pool
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_has_one_spare_tick() {
        let ticks = |first, then| Ticks { first, then };
        assert_eq!(Ticks::of(Duration::from_millis(5)), ticks(4, 2));
        assert_eq!(Ticks::of(Duration::from_micros(4100)), ticks(4, 2));
        assert_eq!(Ticks::of(Duration::from_millis(3)), ticks(2, 2));
        assert_eq!(Ticks::of(Duration::from_millis(1)), ticks(1, 1));
        assert_eq!(Ticks::of(Duration::ZERO), ticks(1, 0));
        assert_eq!(Ticks::of(Duration::MAX), ticks(u64::MAX - 2, 2));
    }

    #[test]
    fn both_engines_can_be_made() {
        pooled(&Limits::default()).unwrap();
        on_demand(&Limits::default()).unwrap();
    }
}
