//! The process' one engine, and the way from a file's bytes to a policy.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use thiserror::Error;
use wasmtime::Engine;

use crate::check;
use crate::code_cache::CodeCache;
use crate::compile::{self, CompileFailure, Compiler};
use crate::contract::VALIDATE;
use crate::digest::Digest;
use crate::engine::{self, PAGE, Target};
use crate::inspect::Inspection;
use crate::limits::Limits;
use crate::panic;
use crate::policy::{CodeOrigin, Loaded, Policy};
use crate::problem::{LoadError, LoadProblem};
use crate::sandbox::{Code, Machine, Rules, Sandboxes};
use crate::settings::Settings;
use crate::shared_code::SharedCode;
use crate::ticker::Ticker;
use crate::trial_run;

/// Compiles and runs policies. One for each process: it has a clock thread, and reserves address space for all sandboxes.
pub struct Runtime {
    engine: Engine,
    ticker: Arc<Ticker>,
    limits: Limits,
    allocation: Allocation,
    /// None while files are compiled in this process.
    compiler: OnceLock<Compiler>,
    /// None while no code outlives the process.
    cache: OnceLock<CodeCache>,
    shared_code: SharedCode,
    counts: Counts,
}

/// How often code came from where, since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CodeCounts {
    /// Files that were compiled.
    pub compiled: u64,
    /// Files whose code was in the cache.
    pub cached: u64,
    /// Files whose code another policy had in memory.
    pub shared: u64,
}

#[derive(Default)]
struct Counts {
    compiled: AtomicU64,
    cached: AtomicU64,
    shared: AtomicU64,
}

/// A file that has been checked, with its code.
struct Compiled {
    inspection: Inspection,
    code: Arc<Code>,
    origin: CodeOrigin,
}

/// Where sandboxes come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Allocation {
    /// From a pool that was reserved at the start: a call costs microseconds.
    Pooled,
    /// From the system, for each call anew: a call costs tens of microseconds. This happens when the address space for the pool
    /// cannot be reserved.
    OnDemand {
        /// Why there is no pool.
        reason: String,
    },
}

/// Why there is no runtime.
#[derive(Debug, Error)]
pub enum RuntimeError {
    /// A limit makes every policy fail.
    #[error("[policy] {key}: {value} is too small; the least is {least}")]
    Limit {
        /// The key in the configuration.
        key: &'static str,
        /// Its value.
        value: usize,
        /// The least value.
        least: usize,
    },
    /// A limit is beyond what a 32-bit memory can have.
    #[error("[policy] memory: {0} bytes are too much; the most is 4 GiB less 64 KiB")]
    Memory(usize),
    /// The engine refuses its configuration or this machine.
    #[error("the WebAssembly engine cannot be set up: {0}")]
    Engine(String),
    /// The clock thread cannot be started.
    #[error("the thread that ends slow policies cannot be started: {0}")]
    Clock(#[from] std::io::Error),
}

/// How many sandboxes there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PoolUse {
    /// Sandboxes that exist now.
    pub live: u64,
    /// Sandboxes that may exist at the same time.
    pub size: u64,
    /// Free slots that still hold the memory image of a policy.
    pub warm: u64,
}

impl Runtime {
    /// Sets the engine up and starts its clock.
    ///
    /// # Errors
    /// If a limit makes no sense or the machine has no place for the engine. A pool that cannot be reserved is no error: a smaller one is
    /// tried, and without any [`Runtime::allocation`] tells. Either is warned about.
    pub fn new(limits: Limits) -> Result<Self, RuntimeError> {
        Self::with_pool(limits, 1)
    }

    /// The same where a pool of fewer than `least` sandboxes would be no use.
    ///
    /// # Errors
    /// As [`Runtime::new`].
    pub fn with_pool(limits: Limits, least: u32) -> Result<Self, RuntimeError> {
        let mut limits = checked(limits)?;
        let (engine, allocation) = reserve(&mut limits, least)?;
        Ok(Self {
            ticker: Ticker::start(&engine)?,
            engine,
            limits,
            allocation,
            compiler: OnceLock::new(),
            cache: OnceLock::new(),
            shared_code: SharedCode::default(),
            counts: Counts::default(),
        })
    }

    /// A runtime that counts fuel ([`Evaluator::fuel`](crate::Evaluator::fuel)), without a pool: for what is not served but looked into.
    ///
    /// # Errors
    /// As [`Runtime::new`].
    pub fn metered(limits: Limits) -> Result<Self, RuntimeError> {
        let limits = checked(limits)?;
        let engine =
            engine::metered(&limits).map_err(|error| RuntimeError::Engine(format!("{error:#}")))?;
        Ok(Self {
            ticker: Ticker::start(&engine)?,
            engine,
            limits,
            allocation: Allocation::OnDemand {
                reason: "it counts fuel".to_owned(),
            },
            compiler: OnceLock::new(),
            cache: OnceLock::new(),
            shared_code: SharedCode::default(),
            counts: Counts::default(),
        })
    }

    /// Has files compiled elsewhere from now on; the first time it is called counts. Where no address space could be reserved for
    /// sandboxes, files are compiled here all the same: their code depends on what was reserved.
    pub fn compile_with(&self, compiler: Compiler) {
        if self.allocation == Allocation::Pooled || self.target() == Target::Metered {
            let _first = self.compiler.set(compiler);
        }
    }

    /// Has code that is compiled elsewhere kept, and that of earlier processes used, from now on; the first time it is called counts.
    pub fn cache_with(&self, cache: CodeCache) {
        let _first = self.cache.set(cache);
    }

    /// Where compiled code is kept for the next start; none if nowhere.
    pub fn cache(&self) -> Option<&CodeCache> {
        self.cache.get()
    }

    /// How often code came from where.
    pub fn code_counts(&self) -> CodeCounts {
        let count = |count: &AtomicU64| count.load(Ordering::Relaxed);
        CodeCounts {
            compiled: count(&self.counts.compiled),
            cached: count(&self.counts.cached),
            shared: count(&self.counts.shared),
        }
    }

    /// Whether the clock that ends calls sleeps, which it does while no call runs.
    pub fn clock_sleeps(&self) -> bool {
        self.ticker.sleeps()
    }

    fn machine(&self) -> Machine<'_> {
        Machine {
            engine: &self.engine,
            ticker: &self.ticker,
        }
    }

    fn target(&self) -> Target {
        match engine::is_metered(&self.engine) {
            true => Target::Metered,
            false => Target::Serving,
        }
    }

    /// The limits that hold for all policies.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Where sandboxes come from.
    pub fn allocation(&self) -> &Allocation {
        &self.allocation
    }

    /// How many sandboxes there are; zeros without a pool.
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

    /// Checks, compiles and tries a policy. `name` is for logs and errors: its file, as a rule.
    ///
    /// Takes tens of milliseconds and more, so it must not be called on a thread that serves requests.
    ///
    /// # Errors
    /// Says what is wrong with the file and how to mend it.
    pub fn load(&self, name: &str, bytes: &[u8]) -> Result<Policy, LoadError> {
        self.load_within(name, bytes, &self.limits, &Arc::default())
    }

    /// The same for a policy with limits of its own, and with the settings that it will have, which it may refuse. What is above the
    /// runtime's own limits is the runtime's; its stack and its number of sandboxes are in any case.
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
        panic::caught(|| self.load_inner(name, bytes, &limits, settings))
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
        let (trial, trial_failure) = trial_run::run(&sandboxes, limits, settings)?;
        let is_configured = inspection.has_function(VALIDATE);
        Ok(Policy {
            loaded: Arc::new(Loaded {
                name: name.into(),
                inspection,
                sandboxes,
                _code: code,
                rules: Rules::of(limits),
                trial: is_configured.then_some(trial),
                trial_failure,
                load_time: start.elapsed(),
                code_origin: origin,
                dropped_lines: AtomicU64::new(0),
            }),
            reuse: false,
        })
    }
}

impl Runtime {
    /// Checks a file and makes code of it, or takes that of another policy from the same file, or of an earlier process.
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
            self.shared_code.note(digest, &code);
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
        // What is compiled in this process depends on more than the cache knows of.
        let Some(compile) = self.compiler.get().filter(|_| fits) else {
            let checked = check::check(bytes, limits)?;
            let code = Code::compile(&self.engine, bytes, &checked);
            let code = code.map_err(not_compiled)?;
            return Ok((checked.inspection, Arc::new(code), CodeOrigin::Compiler));
        };
        if let Some((inspection, code)) = self.cached(bytes, digest, limits)? {
            return Ok((inspection, Arc::new(code), CodeOrigin::Cache));
        }
        // The compiler comes first: what it can bear, this process can.
        let compiled = match compile(bytes, limits, self.target()) {
            Err(CompileFailure::TooCostly(cause)) => {
                return Err(LoadProblem::TooCostly { cause });
            }
            // What ended the other process might end this one.
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

    /// The code that an earlier process of this build compiled. A file that has any keeps the contract, and was borne by the compiler, so
    /// this process bears it, too.
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

fn not_compiled(error: wasmtime::Error) -> LoadProblem {
    LoadProblem::Compile {
        cause: last(&error),
    }
}

/// An engine with a pool: the one that is wanted, or a smaller one, or none.
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
                    "There is address space for fewer sandboxes than wanted: calls are slower where there are many policies. Raise \
                     the limit on virtual memory (ulimit -v), or lower `instances` in [policy]."
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
        "no address space for the pool of sandboxes: each call is many times slower; raise the limit on virtual memory \
         (ulimit -v)"
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
    fn limits_that_nothing_can_keep_are_refused() {
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
    fn memory_counts_in_whole_pages() {
        let limits = Limits {
            memory_bytes: 100_000,
            ..Limits::default()
        };

        let runtime = Runtime::new(limits).unwrap();

        assert_eq!(runtime.limits().memory_bytes, PAGE);
    }

    #[test]
    fn a_pool_that_does_not_fit_is_made_smaller() {
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
    fn a_pool_that_does_not_fit_is_reported() {
        let limits = Limits {
            instances: u32::MAX,
            ..Limits::default()
        };

        let runtime = Runtime::with_pool(limits, 1 << 20).unwrap();

        assert!(matches!(runtime.allocation(), Allocation::OnDemand { .. }));
    }
}
