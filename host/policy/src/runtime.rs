//! The process' one engine, and the way from a file's bytes to a policy.

use std::sync::atomic::AtomicU64;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use thiserror::Error;
use wasmtime::Engine;

use crate::codes::Codes;
use crate::compile::{self, CompileFailure, Compiler};
use crate::contract::VALIDATE;
use crate::digest::Digest;
use crate::engine::{self, PAGE};
use crate::limits::Limits;
use crate::load::{self, LoadError, LoadProblem};
use crate::policy::{Loaded, Policy};
use crate::sandbox::{Code, Rules, Sandboxes};
use crate::settings::Settings;
use crate::view::RequestView;

/// Compiles and runs policies. One for each process: it has a clock thread, and reserves address space for all sandboxes.
pub struct Runtime {
    engine: Engine,
    limits: Limits,
    allocation: Allocation,
    /// None while files are compiled in this process.
    compiler: OnceLock<Compiler>,
    codes: Codes,
}

/// Where sandboxes come from.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
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
#[non_exhaustive]
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
        engine::start_clock(&engine)?;
        Ok(Self {
            engine,
            limits,
            allocation,
            compiler: OnceLock::new(),
            codes: Codes::default(),
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
        engine::start_clock(&engine)?;
        Ok(Self {
            engine,
            limits,
            allocation: Allocation::OnDemand {
                reason: "it counts fuel".to_owned(),
            },
            compiler: OnceLock::new(),
            codes: Codes::default(),
        })
    }

    /// Has files compiled elsewhere from now on; the first time it is called counts. Without a pool there is nothing to gain: files are
    /// compiled here then.
    pub fn compile_with(&self, compiler: Compiler) {
        if self.allocation == Allocation::Pooled {
            let _first = self.compiler.set(compiler);
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
    pub fn load<R: RequestView>(&self, name: &str, bytes: &[u8]) -> Result<Policy<R>, LoadError> {
        self.load_within(name, bytes, &self.limits, &Arc::default())
    }

    /// The same for a policy with limits of its own, and with the settings that it will have, which it may refuse. What is above the
    /// runtime's own limits is the runtime's; its stack and its number of sandboxes are in any case.
    ///
    /// # Errors
    /// As [`Runtime::load`].
    pub fn load_within<R: RequestView>(
        &self,
        name: &str,
        bytes: &[u8],
        limits: &Limits,
        settings: &Arc<Settings>,
    ) -> Result<Policy<R>, LoadError> {
        let limits = self.limits.clone().lowered_to(limits);
        self.load_inner(name, bytes, &limits, settings)
            .map_err(|problem| problem.of(name))
    }

    fn load_inner<R: RequestView>(
        &self,
        name: &str,
        bytes: &[u8],
        limits: &Limits,
        settings: &Arc<Settings>,
    ) -> Result<Policy<R>, LoadProblem> {
        let start = Instant::now();
        let (checked, code) = self.compiled(bytes, limits)?;
        let (trial, trial_failure) = load::try_out(&self.engine, &code, limits, settings)?;
        let is_configured = checked.inspection.has_function(VALIDATE);
        let sandboxes = Sandboxes::new(&self.engine, &code).map_err(|error| LoadProblem::Link {
            cause: last(&error),
        })?;
        Ok(Policy {
            loaded: Arc::new(Loaded {
                name: name.into(),
                inspection: checked.inspection,
                sandboxes,
                _code: code,
                rules: Rules::of(limits),
                trial: is_configured.then_some(trial),
                trial_failure,
                load_time: start.elapsed(),
                dropped_lines: AtomicU64::new(0),
            }),
            reuse: false,
        })
    }
}

impl Runtime {
    /// Checks a file and makes code of it, or takes that of another policy from the same file. With a compiler elsewhere that comes
    /// first: what it can bear, this process can.
    fn compiled<'f>(
        &self,
        bytes: &'f [u8],
        limits: &Limits,
    ) -> Result<(load::Checked<'f>, Arc<Code>), LoadProblem> {
        let fits = bytes.len() <= limits.module_bytes;
        let digest = Digest::of(bytes);
        if let Some(code) = self.codes.find(&digest).filter(|_| fits) {
            return Ok((load::check(bytes, limits)?, code));
        }
        let compiled = match self.compiler.get() {
            Some(compile) if fits => Some(compile(bytes, limits)),
            _ => None,
        };
        if let Some(Err(CompileFailure::TooCostly(cause))) = compiled {
            return Err(LoadProblem::TooCostly { cause });
        }
        let checked = load::check(bytes, limits)?;
        let code = match compiled {
            None => Code::compile(&self.engine, bytes, &checked),
            Some(Ok(code)) => compile::take(&self.engine, bytes, &checked, &code),
            Some(Err(failure)) => Err(wasmtime::Error::msg(failure.to_string())),
        };
        let code = code.map_err(|error| LoadProblem::Compile {
            cause: last(&error),
        })?;
        let code = Arc::new(code);
        self.codes.note(digest, &code);
        Ok((checked, code))
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
