//! The sandboxes of a policy: created for one call, or for several.

use std::sync::Arc;
use std::time::Duration;

use wasmtime::component::Component;
use wasmtime::{Engine, Linker, Store, StoreContextMut, UpdateDeadline, WasmBacktrace};

use crate::call::state::Data;
use crate::call::{Bounds, Call};
use crate::check::Checked;
use crate::engine::Ticks;
use crate::failure::{Failure, ReportedLimits, Stage};
use crate::limits::Limits;
use crate::module::Use;
use crate::next_step::NextStep;
use crate::profile::{Profile, Recorder};
use crate::reset::NoReset;
use crate::reuse::Reuse;
use crate::ticker::Ticker;
use crate::verdict::Verdict;
use crate::{bulk_memory, component, engine, module};

/// The compiled code of a policy.
pub(crate) enum Code {
    /// As a core module.
    Module(module::Module),
    /// As a component.
    Component(Component),
}

/// The engine and the clock that run policies.
#[derive(Clone, Copy)]
pub(crate) struct Machine<'m> {
    pub(crate) engine: &'m Engine,
    pub(crate) ticker: &'m Arc<Ticker>,
    /// The host functions for modules.
    pub(crate) module_linker: &'m Linker<Data>,
}

/// The compiled and linked code of a policy, which creates sandboxes.
pub(crate) struct Sandboxes {
    engine: Engine,
    ticker: Arc<Ticker>,
    is_metered: bool,
    prepared: Prepared,
}

enum Prepared {
    Module(module::Prepared),
    Component(component::Prepared),
}

/// A live instance.
pub(crate) enum Live {
    Module(module::Live),
    Component(component::Live),
}

/// A sandbox for several calls.
pub(crate) struct Sandbox {
    store: Store<Data>,
    ticker: Arc<Ticker>,
    live: Live,
    usage: Use,
    /// Number of calls of a sandbox that keeps its state.
    calls: u32,
    is_metered: bool,
}

/// The limits of a call, in the forms that their users need.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CallLimits {
    pub(crate) bounds: Bounds,
    ticks: Ticks,
    reported: ReportedLimits,
}

/// The result of a call. A failure comes with its stage.
pub(crate) type Outcome<T> = Result<T, (Stage, Failure)>;

/// A call of an export, with a validated result: [`Live::decide`] or [`Live::on_failure`].
pub(crate) type Question<T> = fn(&Live, &mut Store<Data>, ReportedLimits) -> Result<T, Failure>;

impl Sandboxes {
    /// Links compiled code with the host functions.
    pub(crate) fn new(machine: Machine<'_>, code: &Code) -> wasmtime::Result<Self> {
        let Machine {
            engine,
            ticker,
            module_linker,
        } = machine;
        let prepared = match code {
            Code::Module(module) => Prepared::Module(module::Prepared::new(module_linker, module)?),
            Code::Component(component) => {
                Prepared::Component(component::Prepared::new(engine, component)?)
            }
        };
        Ok(Self {
            engine: engine.clone(),
            ticker: Arc::clone(ticker),
            is_metered: engine::is_metered(engine),
            prepared,
        })
    }

    /// Why sandboxes cannot be reset after a call; `None` if they can.
    pub(crate) fn no_reset(&self) -> Option<NoReset> {
        match &self.prepared {
            Prepared::Module(prepared) => prepared.no_reset(),
            Prepared::Component(_) => Some(NoReset::Component),
        }
    }

    /// Makes one call in a new sandbox and drops the sandbox. Returns the state of the call, the result, and the fuel if it is metered.
    pub(crate) fn ask<T>(
        &self,
        state: Data,
        limits: &CallLimits,
        question: Question<T>,
    ) -> (Data, Outcome<T>, Option<u64>) {
        let _running = self.ticker.begin();
        let mut store = self.store(state, limits);
        let outcome = match self.prepared.instantiate(&mut store, Use::Once) {
            Ok(live) => ask(&mut store, &live, limits, question),
            Err(error) => Err((
                Stage::Instantiate,
                Failure::read(&error, Stage::Instantiate, limits.reported),
            )),
        };
        let fuel = fuel_used(&store);
        (store.into_data(), outcome, fuel)
    }

    /// As [`Sandboxes::ask`], with a profile of the call; its deadline is that of the runtime. `None` if fuel is not metered.
    pub(crate) fn profile<T>(
        &self,
        mut state: Data,
        limits: &CallLimits,
        question: Question<T>,
    ) -> (Data, Outcome<T>, Option<Profile>) {
        state.profile = self.is_metered.then(|| Box::new(Recorder::new(FULL)));
        let (mut state, outcome, fuel) = self.ask(state, limits, question);
        let recorder = state.profile.take();
        let profile = recorder
            .zip(fuel)
            .map(|(recorder, fuel)| recorder.finish(FULL - fuel));
        (state, outcome, profile)
    }

    /// Calls `validate-settings` in a new sandbox; `None` if the policy does not export it.
    pub(crate) fn validate(
        &self,
        state: Data,
        limits: &CallLimits,
    ) -> Option<Result<Result<(), String>, Failure>> {
        let _running = self.ticker.begin();
        let mut store = self.store(state, limits);
        match &self.prepared {
            Prepared::Module(prepared) => prepared.validate(&mut store, limits.reported),
            Prepared::Component(prepared) => {
                let answer = prepared.validate(&mut store)?;
                Some(answer.map_err(|error| Failure::read(&error, Stage::Decide, limits.reported)))
            }
        }
    }

    /// Creates a sandbox for several calls. A failure returns the state of the call.
    pub(crate) fn open(
        &self,
        state: Data,
        limits: &CallLimits,
        usage: Use,
    ) -> Result<Sandbox, (Data, Failure)> {
        let running = self.ticker.begin();
        let mut store = self.store(state, limits);
        let instantiated = self.prepared.instantiate(&mut store, usage);
        drop(running);
        match instantiated {
            Ok(live) => Ok(Sandbox {
                store,
                ticker: Arc::clone(&self.ticker),
                live,
                usage,
                calls: 0,
                is_metered: self.is_metered,
            }),
            Err(error) => {
                let failure = Failure::read(&error, Stage::Instantiate, limits.reported);
                Err((store.into_data(), failure))
            }
        }
    }

    /// Creates the store of a sandbox. The deadline starts here, because instantiation runs start functions.
    fn store(&self, mut state: Data, limits: &CallLimits) -> Store<Data> {
        state.memory = 0;
        state.call.end.go_by(&self.ticker);
        let mut store = Store::new(&self.engine, state);
        store.limiter(|state| &mut **state);
        store.set_hostcall_fuel(limits.reported.host_call_bytes);
        store.epoch_deadline_callback(continue_or_interrupt);
        start_clock(&mut store, limits);
        if self.is_metered {
            fill(&mut store);
        }
        store
    }
}

impl Prepared {
    fn instantiate(&self, store: &mut Store<Data>, usage: Use) -> wasmtime::Result<Live> {
        match self {
            Self::Module(prepared) => prepared.instantiate(store, usage).map(Live::Module),
            Self::Component(prepared) => prepared.instantiate(store).map(Live::Component),
        }
    }
}

impl Code {
    /// Compiles a checked file.
    pub(crate) fn compile(
        engine: &Engine,
        file: &[u8],
        checked: &Checked<'_>,
    ) -> wasmtime::Result<Self> {
        if module::fits(&checked.inspection) {
            return Ok(Self::Module(module::Module::compile(engine, file)?));
        }
        let component = Component::new(engine, bulk_memory::component(&checked.component)?)?;
        component.initialize_copy_on_write_image()?;
        Ok(Self::Component(component))
    }
}

impl Sandbox {
    /// The state of the call.
    pub(crate) fn call(&mut self) -> &mut Call {
        &mut self.store.data_mut().call
    }

    /// Makes a call. After a failure, the sandbox must be dropped.
    pub(crate) fn ask<T>(&mut self, limits: &CallLimits, question: Question<T>) -> Outcome<T> {
        let _running = self.ticker.begin();
        start_clock(&mut self.store, limits);
        if self.is_metered {
            fill(&mut self.store);
        }
        ask(&mut self.store, &self.live, limits, question)
    }

    /// The fuel of the last call, if it is metered.
    pub(crate) fn fuel_used(&self) -> Option<u64> {
        match self.is_metered {
            true => fuel_used(&self.store),
            false => None,
        }
    }

    /// Prepares the sandbox for the next call after a successful one; false if it must be dropped. `reuse` is that of the policy.
    pub(crate) fn make_ready(&mut self, reuse: Reuse) -> bool {
        match (self.usage, &self.live) {
            (Use::Again, _) => {
                self.calls = self.calls.saturating_add(1);
                reuse.goes_on_after(self.calls)
            }
            (Use::Reset, Live::Module(live)) => live.reset(&mut self.store),
            (Use::Reset, Live::Component(_)) | (Use::Once, _) => false,
        }
    }

    /// Number of 64ths of its memory that the last call wrote, if the sandbox has been reset.
    pub(crate) fn written(&self) -> u32 {
        self.store.data().written
    }

    /// How the sandbox is used.
    pub(crate) fn usage(&self) -> Use {
        self.usage
    }

    /// Drops the sandbox and returns the state of the call.
    pub(crate) fn close(self) -> Data {
        self.store.into_data()
    }
}

impl Live {
    /// Calls `decide`.
    pub(crate) fn decide(
        &self,
        store: &mut Store<Data>,
        reported: ReportedLimits,
    ) -> Result<Verdict, Failure> {
        let verdict = match self {
            Self::Module(live) => live.decide(store, reported)?,
            Self::Component(live) => live
                .decide(store)
                .map_err(|error| Failure::read(&error, Stage::Decide, reported))?,
        };
        Ok(verdict.checked(store.data().call.has_targets())?)
    }

    /// Calls `on-failure`.
    pub(crate) fn on_failure(
        &self,
        store: &mut Store<Data>,
        reported: ReportedLimits,
    ) -> Result<NextStep, Failure> {
        let step = match self {
            Self::Module(live) => live.on_failure(store, reported)?,
            Self::Component(live) => live
                .on_failure(store)
                .map_err(|error| Failure::read(&error, Stage::Decide, reported))?,
        };
        Ok(step.checked(store.data().call.has_targets())?)
    }
}

impl CallLimits {
    pub(crate) fn of(limits: &Limits) -> Self {
        let bounds = Bounds {
            memory_bytes: limits.memory_bytes,
            table_elements: limits.table_elements,
            host_call_bytes: limits.host_call_bytes,
            log_bytes: limits.log_bytes,
            log_lines: limits.log_lines,
            mute: false,
        };
        let reported = ReportedLimits {
            deadline: limits.deadline,
            host_call_bytes: limits.host_call_bytes,
        };
        Self {
            bounds,
            ticks: Ticks::of(limits.deadline),
            reported,
        }
    }

    pub(crate) fn with_deadline(mut self, deadline: Duration) -> Self {
        self.ticks = Ticks::of(deadline);
        self.reported.deadline = deadline;
        self
    }

    pub(crate) fn muted(mut self) -> Self {
        self.bounds.mute = true;
        self
    }
}

fn ask<T>(
    store: &mut Store<Data>,
    live: &Live,
    limits: &CallLimits,
    question: Question<T>,
) -> Outcome<T> {
    question(live, store, limits.reported).map_err(|failure| (Stage::Decide, failure))
}

fn start_clock(store: &mut Store<Data>, limits: &CallLimits) {
    let Ticks { first, then } = limits.ticks;
    store.data().call.end.set(first, then);
    store.set_epoch_deadline(match store.data().profile {
        None => NEXT_WAKE,
        // The next check calls `continue_or_interrupt`, and so do all others.
        Some(_) => 0,
    });
}

/// Epochs until a call checks its deadline again. The clock increments the epoch each time it wakes up, which may be after several ticks.
const NEXT_WAKE: u64 = 1;

/// Called when the epoch has changed: the call continues, or ends at its deadline.
fn continue_or_interrupt(mut store: StoreContextMut<'_, Data>) -> wasmtime::Result<UpdateDeadline> {
    let mut next = NEXT_WAKE;
    if store.data().profile.is_some() {
        next = 0;
        let left = store.get_fuel()?;
        let backtrace = WasmBacktrace::capture(&store);
        if let Some(recorder) = &mut store.data_mut().profile {
            recorder.check(left, backtrace.frames());
        }
    }
    Ok(match store.data().call.end.is_ahead() {
        true => UpdateDeadline::Continue(next),
        false => UpdateDeadline::Interrupt,
    })
}

/// More fuel than any call can use within its deadline.
const FULL: u64 = u64::MAX;

fn fill<T>(store: &mut Store<T>) {
    store
        .set_fuel(FULL)
        .expect("only called if the engine meters fuel");
}

fn fuel_used<T>(store: &Store<T>) -> Option<u64> {
    Some(FULL - store.get_fuel().ok()?)
}
