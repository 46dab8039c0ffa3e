//! The one engine of the process, and the ticks that calls have.

use std::num::NonZeroUsize;
use std::time::Duration;

use wasmtime::{
    Config, Enabled, Engine, InstanceAllocationStrategy, PoolingAllocationConfig, Strategy,
    WasmFeatures,
};

use crate::limits::Limits;
use crate::ticker::TICK;

/// Ticks that a call gets when it is seen to go on: one may come at once.
const MOST_LATER: u64 = 2;

/// A page of linear memory.
pub(crate) const PAGE: usize = 64 << 10;

/// What a slot keeps in memory between calls: two pages, which small policies never leave. Resetting what was written of them costs a copy;
/// the rest goes back to the system with a system call.
const MEMORY_KEEP_RESIDENT: usize = 2 * PAGE;
const TABLE_KEEP_RESIDENT: usize = 64 << 10;

/// Slots that stay in memory while nobody uses them.
const WARM_SLOTS: u32 = 32;

/// A component as `wit-component` makes it has three core instances: so many are reserved for each sandbox.
const CORE_INSTANCES: u32 = 4;

/// The most core instances of one component: a composition of 16 components as tools make them.
pub(crate) const MOST_INSTANCES: u32 = 64;
/// The most linear memories of one component, over all its instances.
pub(crate) const MOST_MEMORIES: u32 = 16;
/// The most tables of one component, over all its instances.
pub(crate) const MOST_TABLES: u32 = 64;

/// What code is compiled for: machine code runs on engines of one kind only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// [`Runtime::new`](crate::Runtime::new): calls that serve.
    Serving,
    /// [`Runtime::metered`](crate::Runtime::metered): calls whose fuel is counted.
    Metered,
}

/// An engine whose sandboxes come from a pool that is reserved now.
pub(crate) fn pooled(limits: &Limits) -> wasmtime::Result<Engine> {
    let mut config = config(limits);
    config.allocation_strategy(InstanceAllocationStrategy::Pooling(pool(limits)));
    Engine::new(&config)
}

/// An engine that asks the system for each sandbox: many times slower, but content with little address space.
pub(crate) fn on_demand(limits: &Limits) -> wasmtime::Result<Engine> {
    let mut config = config(limits);
    config
        .allocation_strategy(InstanceAllocationStrategy::OnDemand)
        .memory_reservation(limits.memory_bytes as u64)
        .memory_guard_size(PAGE as u64);
    Engine::new(&config)
}

/// An engine that compiles for [`pooled`] or [`metered`] ones and has no place for sandboxes.
pub(crate) fn compiling(limits: &Limits, target: Target) -> wasmtime::Result<Engine> {
    let mut config = config(limits);
    config
        .allocation_strategy(InstanceAllocationStrategy::OnDemand)
        .consume_fuel(target == Target::Metered);
    Engine::new(&config)
}

/// An engine that counts what calls use of fuel. Slower, and the same on every machine.
pub(crate) fn metered(limits: &Limits) -> wasmtime::Result<Engine> {
    let mut config = config(limits);
    config
        .allocation_strategy(InstanceAllocationStrategy::OnDemand)
        .consume_fuel(true);
    Engine::new(&config)
}

/// Whether an engine counts fuel.
pub(crate) fn is_metered(engine: &Engine) -> bool {
    wasmtime::Store::new(engine, ()).get_fuel().is_ok()
}

/// The ticks that a call gets, in two parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ticks {
    pub(crate) first: u64,
    /// Those after it begin when the call is seen to go on, not before: somebody else may have had the processor all the time.
    pub(crate) then: u64,
}

impl Ticks {
    /// One more than `deadline` has, because the first may come at once.
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

/// The instructions that policies may use: what compilers emit by default, without the proposals that only widen the ground
/// for mistakes in the runtime.
///
/// Several memories are among what [`inspect`](crate::inspect()) refuses in files, and not here: the adapters that the runtime
/// itself writes between the parts of a composition have two.
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
        // Nobody unwinds through a policy with the system's tools, and registering the tables slows every swap.
        .native_unwind_info(false)
        // Failures name functions, not places in them. The map took a tenth of the memory of compiled code.
        .generate_address_map(false)
        .wasm_backtrace_max_frames(NonZeroUsize::new(16))
        .memory_init_cow(true);
    config
}

fn pool(limits: &Limits) -> PoolingAllocationConfig {
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(limits.instances)
        .total_core_instances(limits.instances.saturating_mul(CORE_INSTANCES))
        .total_memories(limits.instances)
        .total_tables(limits.instances.saturating_mul(CORE_INSTANCES))
        // The runtime adds an adapter for each border within a composition.
        .max_core_instances_per_component(2 * MOST_INSTANCES)
        .max_memories_per_component(MOST_MEMORIES)
        .max_tables_per_component(MOST_TABLES)
        .max_memories_per_module(1)
        .max_tables_per_module(1)
        .max_memory_size(limits.memory_bytes)
        .table_elements(limits.table_elements)
        .linear_memory_keep_resident(MEMORY_KEEP_RESIDENT)
        .table_keep_resident(TABLE_KEEP_RESIDENT)
        .max_unused_warm_slots(WARM_SLOTS)
        // The kernel tells what a call has written (Linux 6.7 and later). Else all that a slot keeps is written at its reset, and stays in memory.
        .pagemap_scan(Enabled::Auto);
    pool
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deadlines_have_a_tick_to_spare() {
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
