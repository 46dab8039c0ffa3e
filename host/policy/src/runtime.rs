//! The runtime of the process: its engine, and the loading of policies.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use thiserror::Error;
use wasmtime::{Engine, Linker};

use crate::call::interfaces;
use crate::call::state::Data;
use crate::check;
use crate::code_cache::CodeCache;
use crate::compile::{self, CompileFailure, Compiler};
use crate::digest::Digest;
use crate::engine::{self, PAGE, Target};
use crate::inspect::Inspection;
use crate::limits::Limits;
use crate::panic;
use crate::policy::{CodeOrigin, Loaded, Policy};
use crate::problem::{LoadError, LoadProblem};
use crate::reuse::Reuse;
use crate::sandbox::{CallLimits, Code, Machine, Sandboxes};
use crate::settings::Settings;
use crate::shared_code::SharedCode;
use crate::ticker::Ticker;
use crate::trial_run;
use crate::warm::WarmSandboxes;

/// Compiles and runs policies. A process has one, because it has a clock thread and reserves address space for all sandboxes.
pub struct Runtime {
    engine: Engine,
    /// The host functions for modules.
    module_linker: Linker<Data>,
    ticker: Arc<Ticker>,
    limits: Limits,
    allocation: Allocation,
    /// Not set while files are compiled in this process.
    compiler: OnceLock<Compiler>,
    /// Not set if there is no cache.
    cache: OnceLock<CodeCache>,
    shared_code: SharedCode,
    warm: Arc<WarmSandboxes<Loaded>>,
    counts: Counts,
}

/// Number of loads since the start, by the origin of their code.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CodeCounts {
    /// Files that were compiled.
    pub compiled: u64,
    /// Files whose code came from the cache.
    pub cached: u64,
    /// Files whose code was shared with another policy.
    pub shared: u64,
}

#[derive(Default)]
struct Counts {
    compiled: AtomicU64,
    cached: AtomicU64,
    shared: AtomicU64,
}

/// A checked file and its code.
struct Compiled {
    inspection: Inspection,
    code: Arc<Code>,
    origin: CodeOrigin,
}

/// Where sandboxes come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Allocation {
    /// From a pool whose address space was reserved at the start: a call costs microseconds.
    Pooled,
    /// Mapped for each call: a call costs tens of microseconds. Used if the address space for a pool cannot be reserved.
    OnDemand {
        /// Why there is no pool.
        reason: String,
    },
}

/// Why there is no runtime.
#[derive(Debug, Error)]
pub enum RuntimeError {
    /// A limit is so small that every policy would fail.
    #[error("[policy] {key}: {value} is too small; the least is {least}")]
    Limit {
        /// The key in the configuration.
        key: &'static str,
        /// Its value.
        value: usize,
        /// Minimum value.
        least: usize,
    },
    /// The limit of memory is larger than a 32-bit memory can be.
    #[error("[policy] memory: {0} bytes are too much; the most is 4 GiB less 64 KiB")]
    Memory(usize),
    /// The engine does not support its configuration or this machine.
    #[error("the WebAssembly engine cannot be set up: {0}")]
    Engine(String),
    /// The clock thread could not be started.
    #[error("the thread that ends slow policies cannot be started: {0}")]
    Clock(#[from] std::io::Error),
}

/// The use of the pool of sandboxes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PoolUse {
    /// Number of sandboxes.
    pub live: u64,
    /// Maximum number of sandboxes.
    pub size: u64,
    /// Number of free slots that still have the memory image of a policy.
    pub warm: u64,
}

impl Runtime {
    /// Creates the engine and starts its clock.
    ///
    /// # Errors
    /// If a limit is out of range or the engine cannot be created. It is not an error if the pool cannot be reserved: a smaller pool is tried,
    /// then [`Allocation::OnDemand`] is used. Both are logged as warnings.
    pub fn new(limits: Limits) -> Result<Self, RuntimeError> {
        Self::with_pool(limits, 1)
    }

    /// The same with a pool of at least `least` sandboxes, or none.
    ///
    /// # Errors
    /// As [`Runtime::new`].
    pub fn with_pool(limits: Limits, least: u32) -> Result<Self, RuntimeError> {
        let mut limits = checked(limits)?;
        let (engine, allocation) = reserve(&mut limits, least)?;
        Ok(Self {
            ticker: Ticker::start(&engine)?,
            module_linker: module_linker(&engine)?,
            engine,
            limits,
            allocation,
            compiler: OnceLock::new(),
            cache: OnceLock::new(),
            shared_code: SharedCode::default(),
            warm: Arc::default(),
            counts: Counts::default(),
        })
    }

    /// A runtime without a pool that meters fuel ([`Evaluator::fuel`](crate::Evaluator::fuel)): for replays and tools, not for serving.
    ///
    /// # Errors
    /// As [`Runtime::new`].
    pub fn metered(limits: Limits) -> Result<Self, RuntimeError> {
        let limits = checked(limits)?;
        let engine =
            engine::metered(&limits).map_err(|error| RuntimeError::Engine(format!("{error:#}")))?;
        Ok(Self {
            ticker: Ticker::start(&engine)?,
            module_linker: module_linker(&engine)?,
            engine,
            limits,
            allocation: Allocation::OnDemand {
                reason: "the runtime meters fuel".to_owned(),
            },
            compiler: OnceLock::new(),
            cache: OnceLock::new(),
            shared_code: SharedCode::default(),
            warm: Arc::default(),
            counts: Counts::default(),
        })
    }

    /// Compiles files with `compiler` from now on. Only the first call has an effect. Without a pool ([`Allocation::OnDemand`]), files are
    /// still compiled in this process, because their code depends on the memory configuration of the engine.
    pub fn compile_with(&self, compiler: Compiler) {
        if self.allocation == Allocation::Pooled || self.target() == Target::Metered {
            let _first = self.compiler.set(compiler);
        }
    }

    /// The number of evaluators for which [`Policy::warm_up`] makes sandboxes. They take up to [`WARM_POLICIES`](crate::WARM_POLICIES) slots of
    /// the pool for each evaluator.
    pub fn warm_up_for(&self, evaluators: usize) {
        self.warm.set_evaluators(evaluators);
    }

    /// Uses `cache` from now on for code that the compiler process compiles. Only the first call has an effect.
    pub fn cache_with(&self, cache: CodeCache) {
        let _first = self.cache.set(cache);
    }

    /// The cache of compiled code, if there is one.
    pub fn cache(&self) -> Option<&CodeCache> {
        self.cache.get()
    }

    /// Number of loads since the start, by the origin of their code.
    pub fn code_counts(&self) -> CodeCounts {
        let count = |count: &AtomicU64| count.load(Ordering::Relaxed);
        CodeCounts {
            compiled: count(&self.counts.compiled),
            cached: count(&self.counts.cached),
            shared: count(&self.counts.shared),
        }
    }

    /// Whether the clock thread is asleep, because no call runs.
    pub fn clock_sleeps(&self) -> bool {
        self.ticker.sleeps()
    }

    fn machine(&self) -> Machine<'_> {
        Machine {
            engine: &self.engine,
            ticker: &self.ticker,
            module_linker: &self.module_linker,
        }
    }

    fn target(&self) -> Target {
        match engine::is_metered(&self.engine) {
            true => Target::Metered,
            false => Target::Serving,
        }
    }

    /// The limits of all policies.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Where sandboxes come from.
    pub fn allocation(&self) -> &Allocation {
        &self.allocation
    }

    /// The use of the pool; zeros without a pool.
    pub fn pool_use(&self) -> PoolUse {
        let Some(metrics) = self.engine.pooling_allocator_metrics() else {
            return PoolUse::default();
        };
        PoolUse {
            live: metrics.memories() as u64,
            size: self.limits.instances.into(),
            warm: metrics.unused_warm_memories().into(),
        }
    }

    /// Checks, compiles and tests a policy. `name` is for logs and errors, usually the name of the file.
    ///
    /// Takes tens of milliseconds and more, so it must not run on a worker.
    ///
    /// # Errors
    /// What is wrong with the file and how to fix it.
    pub fn load(&self, name: &str, bytes: &[u8]) -> Result<Policy, LoadError> {
        self.load_within(name, bytes, &self.limits, &Arc::default())
    }

    /// The same with limits and settings of the policy. A limit has no effect if it is above the limit of the runtime. Stack and number of
    /// sandboxes are always those of the runtime. The policy may refuse the settings.
    ///
    /// # Errors
    /// As [`Runtime::load`].
    pub fn load_within(
        &self,
        name: &str,
        bytes: &[u8],
        limits: &Limits,
        settings: &Arc<Settings>,
    ) -> Result<Policy, LoadError> {
        let limits = self.limits.clone().lowered_to(limits);
        panic::catch(|| self.load_inner(name, bytes, &limits, settings))
            .map_err(|problem| problem.of(name))
    }

    fn load_inner(
        &self,
        name: &str,
        bytes: &[u8],
        limits: &Limits,
        settings: &Arc<Settings>,
    ) -> Result<Policy, LoadProblem> {
        let start = Instant::now();
        let Compiled {
            inspection,
            code,
            origin,
        } = self.compiled(bytes, limits)?;
        let sandboxes =
            Sandboxes::new(self.machine(), &code).map_err(|error| LoadProblem::Link {
                cause: last(&error),
            })?;
        let exports = inspection.exported();
        let (trial, trial_failure) = trial_run::run(&sandboxes, limits, settings, exports)?;
        Ok(Policy {
            loaded: Arc::new(Loaded {
                name: name.into(),
                inspection,
                sandboxes,
                _code: code,
                limits: CallLimits::of(limits),
                trial: exports.validate_settings.then_some(trial),
                trial_failure,
                asks_on_failure: exports.on_failure,
                load_time: start.elapsed(),
                code_origin: origin,
                dropped_lines: AtomicU64::new(0),
                warm: Arc::clone(&self.warm),
            }),
            reuse: Reuse::Never,
            home: None,
        })
    }
}

impl Runtime {
    /// Checks a file and returns its code: that of another policy from the same file, from the cache, or newly compiled.
    fn compiled(&self, bytes: &[u8], limits: &Limits) -> Result<Compiled, LoadProblem> {
        let digest = Digest::of(bytes);
        let (inspection, code, origin) = self.code_of(bytes, &digest, limits)?;
        let count = match origin {
            CodeOrigin::Compiler => &self.counts.compiled,
            CodeOrigin::Cache => &self.counts.cached,
            CodeOrigin::Memory => &self.counts.shared,
        };
        count.fetch_add(1, Ordering::Relaxed);
        if origin != CodeOrigin::Memory {
            self.shared_code.insert(digest, &code);
        }
        Ok(Compiled {
            inspection,
            code,
            origin,
        })
    }

    fn code_of(
        &self,
        bytes: &[u8],
        digest: &Digest,
        limits: &Limits,
    ) -> Result<(Inspection, Arc<Code>, CodeOrigin), LoadProblem> {
        let fits = bytes.len() <= limits.module_bytes;
        if let Some(code) = self.shared_code.find(digest).filter(|_| fits) {
            let inspection = check::check_again(bytes, limits)?;
            return Ok((inspection, code, CodeOrigin::Memory));
        }
        // Code that is compiled in this process is not cached, because it may depend on an engine without a pool.
        let Some(compile) = self.compiler.get().filter(|_| fits) else {
            let checked = check::check(bytes, limits)?;
            let code = Code::compile(&self.engine, bytes, &checked);
            let code = code.map_err(not_compiled)?;
            return Ok((checked.inspection, Arc::new(code), CodeOrigin::Compiler));
        };
        if let Some((inspection, code)) = self.cached(bytes, digest, limits)? {
            return Ok((inspection, Arc::new(code), CodeOrigin::Cache));
        }
        // The file is checked in this process only after the compiler process has survived it.
        let compiled = match compile(bytes, limits, self.target()) {
            Err(CompileFailure::TooCostly(cause)) => {
                return Err(LoadProblem::TooCostly { cause });
            }
            // The file may have crashed the compiler process, so this process does not read it.
            Err(failure @ CompileFailure::Broken(_)) => {
                return Err(LoadProblem::Compile {
                    cause: failure.to_string(),
                });
            }
            Err(failure @ CompileFailure::Refused(_)) => Err(failure),
            Ok(code) => Ok(code),
        };
        let checked = check::check(bytes, limits)?;
        let machine_code = compiled.map_err(|failure| LoadProblem::Compile {
            cause: failure.to_string(),
        })?;
        let code = compile::take(&self.engine, bytes, &checked.inspection, &machine_code);
        let code = code.map_err(not_compiled)?;
        if let Some(cache) = self.cache.get() {
            cache.keep(&self.engine, digest, &machine_code);
        }
        Ok((checked.inspection, Arc::new(code), CodeOrigin::Compiler))
    }

    /// The cached code of a file. A file with cached code has been checked and compiled by this build before, so this process can read it.
    fn cached(
        &self,
        bytes: &[u8],
        digest: &Digest,
        limits: &Limits,
    ) -> Result<Option<(Inspection, Code)>, LoadProblem> {
        let Some(cache) = self.cache.get() else {
            return Ok(None);
        };
        let Some(machine_code) = cache.find(&self.engine, digest) else {
            return Ok(None);
        };
        let inspection = check::check_again(bytes, limits)?;
        match compile::take(&self.engine, bytes, &inspection, &machine_code) {
            Ok(code) => Ok(Some((inspection, code))),
            Err(error) => {
                cache.refuse(&self.engine, digest, &error);
                Ok(None)
            }
        }
    }
}

fn module_linker(engine: &Engine) -> Result<Linker<Data>, RuntimeError> {
    interfaces::module_linker(engine).map_err(|error| RuntimeError::Engine(format!("{error:#}")))
}

fn not_compiled(error: wasmtime::Error) -> LoadProblem {
    LoadProblem::Compile {
        cause: last(&error),
    }
}

/// Creates an engine with a pool of the configured size or, if that fails, with a smaller pool or none.
fn reserve(limits: &mut Limits, least: u32) -> Result<(Engine, Allocation), RuntimeError> {
    let wanted = limits.instances;
    let reason = loop {
        match engine::pooled(limits) {
            Ok(engine) if limits.instances == wanted => return Ok((engine, Allocation::Pooled)),
            Ok(engine) => {
                tracing::warn!(
                    event = "sandbox_pool_small",
                    wanted,
                    instances = limits.instances,
                    "address space for fewer sandboxes than configured: calls are slower if there are many policies; raise the limit on \
                     virtual memory (ulimit -v), or lower `instances` in [policy]"
                );
                return Ok((engine, Allocation::Pooled));
            }
            Err(_) if limits.instances > least => {
                limits.instances = (limits.instances / 4).max(least);
            }
            Err(error) => break format!("{error:#}"),
        }
    };
    let engine =
        engine::on_demand(limits).map_err(|error| RuntimeError::Engine(format!("{error:#}")))?;
    tracing::warn!(
        event = "sandbox_pool_missing",
        reason,
        "no address space for the pool of sandboxes: each call is many times slower; raise the limit on virtual memory (ulimit -v)"
    );
    Ok((engine, Allocation::OnDemand { reason }))
}

fn checked(mut limits: Limits) -> Result<Limits, RuntimeError> {
    let least = [
        ("memory", limits.memory_bytes, PAGE),
        ("stack", limits.stack_bytes, 16 << 10),
        ("module", limits.module_bytes, 1),
        ("deadline", limits.deadline.as_nanos().min(1) as usize, 1),
    ];
    for (key, value, least) in least {
        if value < least {
            return Err(RuntimeError::Limit { key, value, least });
        }
    }
    if limits.memory_bytes > u32::MAX as usize - PAGE + 1 {
        return Err(RuntimeError::Memory(limits.memory_bytes));
    }
    limits.memory_bytes -= limits.memory_bytes % PAGE;
    limits.instances = limits.instances.max(1);
    Ok(limits)
}

fn last(error: &wasmtime::Error) -> String {
    error.root_cause().to_string()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn limits_out_of_range_are_refused() {
        let refused = |change: fn(&mut Limits)| {
            let mut limits = Limits::default();
            change(&mut limits);
            Runtime::new(limits).err().unwrap().to_string()
        };

        assert_eq!(
            refused(|limits| limits.memory_bytes = 1000),
            "[policy] memory: 1000 is too small; the least is 65536"
        );
        assert_eq!(
            refused(|limits| limits.deadline = Duration::ZERO),
            "[policy] deadline: 0 is too small; the least is 1"
        );
        assert!(refused(|limits| limits.memory_bytes = 1 << 32).contains("4 GiB"));
    }

    #[test]
    fn memory_is_rounded_down_to_whole_pages() {
        let limits = Limits {
            memory_bytes: 100_000,
            ..Limits::default()
        };

        let runtime = Runtime::new(limits).unwrap();

        assert_eq!(runtime.limits().memory_bytes, PAGE);
    }

    #[test]
    fn a_smaller_pool_is_reserved_if_the_configured_one_does_not_fit() {
        let limits = Limits {
            instances: 1 << 20,
            ..Limits::default()
        };

        let runtime = Runtime::new(limits).unwrap();

        assert_eq!(runtime.allocation(), &Allocation::Pooled);
        let size = runtime.pool_use().size;
        assert!((1..1 << 20).contains(&size), "{size}");
    }

    #[test]
    fn sandboxes_are_mapped_on_demand_if_no_pool_fits() {
        let limits = Limits {
            instances: u32::MAX,
            ..Limits::default()
        };

        let runtime = Runtime::with_pool(limits, 1 << 20).unwrap();

        assert!(matches!(runtime.allocation(), Allocation::OnDemand { .. }));
    }
}
