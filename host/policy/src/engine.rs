//! The one engine of the process, and the clock that ends calls.

use std::io;
use std::num::NonZeroUsize;
use std::thread;
use std::time::Duration;

use wasmtime::{
    Config, Enabled, Engine, InstanceAllocationStrategy, PoolingAllocationConfig, Strategy,
    WasmFeatures,
};

use crate::limits::Limits;
use crate::prompt::be_prompt;

/// The period of the clock that ends calls.
pub(crate) const TICK: Duration = Duration::from_millis(1);

/// Ticks that a call gets when it is seen to go on: one may come at once.
const MOST_LATER: u64 = 2;

/// A page of linear memory.
pub(crate) const PAGE: usize = 64 << 10;

/// What a slot keeps in memory between calls: two pages, which small policies never leave. Resetting them costs a copy; the
/// rest goes back to the system with a system call.
const MEMORY_KEEP_RESIDENT: usize = 2 * PAGE;
const TABLE_KEEP_RESIDENT: usize = 64 << 10;

/// Slots that stay in memory while nobody uses them.
const WARM_SLOTS: u32 = 32;

/// A component as `wit-component` makes it has three core instances; compositions have more.
const CORE_INSTANCES: u32 = 4;

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

/// An engine that compiles for [`pooled`] ones and has no place for sandboxes.
pub(crate) fn compiling(limits: &Limits) -> wasmtime::Result<Engine> {
    let mut config = config(limits);
    config.allocation_strategy(InstanceAllocationStrategy::OnDemand);
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

/// Starts the thread that moves the engine's epoch on once a [`TICK`]. It ends with the engine.
///
/// A thread of the system and not a task: the workers that it interrupts may all be inside policies.
pub(crate) fn start_clock(engine: &Engine) -> io::Result<()> {
    let engine = engine.weak();
    thread::Builder::new()
        .name("policy-clock".into())
        .spawn(move || {
            if let Err(error) = be_prompt() {
                tracing::debug!(%error, "On busy processors calls end late: their clock has no shorter slice.");
            }
            loop {
                thread::sleep(TICK);
                let Some(engine) = engine.upgrade() else {
                    break;
                };
                engine.increment_epoch();
            }
        })
        .map(drop)
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
pub(crate) fn refused_features() -> WasmFeatures {
    WasmFeatures::TAIL_CALL
        | WasmFeatures::MULTI_MEMORY
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
        .concurrency_support(false)
        .epoch_interruption(true)
        .max_wasm_stack(limits.stack_bytes)
        // A load shares the machine with calls: it takes one core, not all.
        .parallel_compilation(false)
        // Nobody unwinds through a policy with the system's tools, and registering the tables slows every swap.
        .native_unwind_info(false)
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
        .max_core_instances_per_component(CORE_INSTANCES)
        .max_memories_per_component(1)
        .max_tables_per_component(CORE_INSTANCES)
        .max_memories_per_module(1)
        .max_tables_per_module(1)
        .max_memory_size(limits.memory_bytes)
        .table_elements(limits.table_elements)
        .linear_memory_keep_resident(MEMORY_KEEP_RESIDENT)
        .table_keep_resident(TABLE_KEEP_RESIDENT)
        .max_unused_warm_slots(WARM_SLOTS)
        .pagemap_scan(Enabled::No);
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

    #[test]
    fn the_clock_ends_with_the_engine() {
        let engine = on_demand(&Limits::default()).unwrap();
        let weak = engine.weak();

        start_clock(&engine).unwrap();
        drop(engine);

        // The clock holds the engine for moments only.
        while weak.upgrade().is_some() {
            thread::yield_now();
        }
    }
}
