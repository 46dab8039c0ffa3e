//! Sandboxes of one policy: made from the pool for each call, or kept.

use std::sync::Arc;
use std::time::Duration;

use wasmtime::component::Component;
use wasmtime::{Engine, Store, StoreContextMut, UpdateDeadline};

use crate::call::{Bounds, Call};
use crate::check::Checked;
use crate::engine::Ticks;
use crate::failure::{Failure, Stage, Terms};
use crate::limits::Limits;
use crate::module::Use;
use crate::state::Data;
use crate::ticker::Ticker;
use crate::verdict::Verdict;
use crate::{bulk_memory, component, engine, module};

/// A policy that is compiled.
pub(crate) enum Code {
    /// As a core module.
    Module(module::Module),
    /// As a component.
    Component(Component),
}

/// What policies are run by.
#[derive(Clone, Copy)]
pub(crate) struct Machine<'m> {
    pub(crate) engine: &'m Engine,
    pub(crate) ticker: &'m Arc<Ticker>,
}

/// A policy that is compiled and linked.
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

enum Live {
    Module(module::Live),
    Component(component::Live),
}

/// A sandbox that serves one call after the other.
pub(crate) struct Open {
    store: Store<Data>,
    ticker: Arc<Ticker>,
    live: Live,
    usage: Use,
    is_metered: bool,
}

/// The limits of one call.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rules {
    pub(crate) bounds: Bounds,
    ticks: Ticks,
    terms: Terms,
}

/// What a call brought, and where it failed.
pub(crate) type Outcome = Result<Verdict, (Stage, Failure)>;

impl Sandboxes {
    /// Links compiled code with the host's functions.
    pub(crate) fn new(machine: Machine<'_>, code: &Code) -> wasmtime::Result<Self> {
        let Machine { engine, ticker } = machine;
        let prepared = match code {
            Code::Module(module) => Prepared::Module(module::Prepared::new(engine, module)?),
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

    /// Whether a sandbox can be put back to its first state after a call.
    pub(crate) fn can_reset(&self) -> bool {
        match &self.prepared {
            Prepared::Module(prepared) => prepared.can_reset(),
            Prepared::Component(_) => false,
        }
    }

    /// Makes a sandbox, asks it for a verdict, and ends it. The state of the call comes back in any case.
    pub(crate) fn ask(&self, state: Data, rules: &Rules) -> (Data, Outcome, Option<u64>) {
        let _running = self.ticker.begin();
        let mut store = self.store(state, rules);
        let outcome = match self.prepared.instantiate(&mut store, Use::Once) {
            Ok(live) => ask(&mut store, &live, rules),
            Err(error) => Err((
                Stage::Instantiate,
                Failure::read(&error, Stage::Instantiate, rules.terms),
            )),
        };
        let fuel = fuel_used(&store);
        (store.into_data(), outcome, fuel)
    }

    /// Asks a new sandbox what is wrong with its settings; none if the policy has nothing to say about them.
    pub(crate) fn validate(
        &self,
        state: Data,
        rules: &Rules,
    ) -> Option<Result<Result<(), String>, Failure>> {
        let _running = self.ticker.begin();
        let mut store = self.store(state, rules);
        match &self.prepared {
            Prepared::Module(prepared) => prepared.validate(&mut store, rules.terms),
            Prepared::Component(prepared) => {
                let answer = prepared.validate(&mut store)?;
                Some(answer.map_err(|error| Failure::read(&error, Stage::Decide, rules.terms)))
            }
        }
    }

    /// Makes a sandbox that can be asked again and again. On failure the state of the call comes back.
    pub(crate) fn open(
        &self,
        state: Data,
        rules: &Rules,
        usage: Use,
    ) -> Result<Open, (Data, Failure)> {
        let running = self.ticker.begin();
        let mut store = self.store(state, rules);
        let instantiated = self.prepared.instantiate(&mut store, usage);
        drop(running);
        match instantiated {
            Ok(live) => Ok(Open {
                store,
                ticker: Arc::clone(&self.ticker),
                live,
                usage,
                is_metered: self.is_metered,
            }),
            Err(error) => {
                let failure = Failure::read(&error, Stage::Instantiate, rules.terms);
                Err((store.into_data(), failure))
            }
        }
    }

    /// Start functions run while a sandbox is made, so the deadline comes first.
    fn store(&self, mut state: Data, rules: &Rules) -> Store<Data> {
        state.memory = 0;
        state.call.end.go_by(&self.ticker);
        let mut store = Store::new(&self.engine, state);
        store.limiter(|state| &mut **state);
        store.set_hostcall_fuel(rules.terms.host_call_bytes);
        store.epoch_deadline_callback(go_on_or_end);
        start_clock(&mut store, rules);
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
    /// Compiles what has been checked.
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

impl Open {
    /// The state of the call, to begin and end calls.
    pub(crate) fn call(&mut self) -> &mut Call {
        &mut self.store.data_mut().call
    }

    /// Asks for a verdict. After a failure the sandbox is of no more use.
    pub(crate) fn ask(&mut self, rules: &Rules) -> Outcome {
        let _running = self.ticker.begin();
        start_clock(&mut self.store, rules);
        if self.is_metered {
            fill(&mut self.store);
        }
        ask(&mut self.store, &self.live, rules)
    }

    /// The fuel of the last call, where it is counted.
    pub(crate) fn fuel_used(&self) -> Option<u64> {
        match self.is_metered {
            true => fuel_used(&self.store),
            false => None,
        }
    }

    /// Makes the sandbox ready for the next call, after one that went well; false if it is of no more use.
    pub(crate) fn make_ready(&mut self) -> bool {
        match (self.usage, &self.live) {
            (Use::Again, _) => true,
            (Use::Reset, Live::Module(live)) => live.reset(&mut self.store),
            _ => false,
        }
    }

    /// What it was made for.
    pub(crate) fn usage(&self) -> Use {
        self.usage
    }

    /// Ends the sandbox.
    pub(crate) fn close(self) -> Data {
        self.store.into_data()
    }
}

impl Rules {
    pub(crate) fn of(limits: &Limits) -> Self {
        let bounds = Bounds {
            memory_bytes: limits.memory_bytes,
            table_elements: limits.table_elements,
            host_call_bytes: limits.host_call_bytes,
            log_bytes: limits.log_bytes,
            log_lines: limits.log_lines,
            mute: false,
        };
        let terms = Terms {
            deadline: limits.deadline,
            host_call_bytes: limits.host_call_bytes,
        };
        Self {
            bounds,
            ticks: Ticks::of(limits.deadline),
            terms,
        }
    }

    pub(crate) fn with_deadline(mut self, deadline: Duration) -> Self {
        self.ticks = Ticks::of(deadline);
        self.terms.deadline = deadline;
        self
    }

    pub(crate) fn muted(mut self) -> Self {
        self.bounds.mute = true;
        self
    }
}

fn ask(store: &mut Store<Data>, live: &Live, rules: &Rules) -> Outcome {
    let verdict = match live {
        Live::Module(live) => live.decide(store, rules.terms),
        Live::Component(live) => live
            .decide(store)
            .map_err(|error| Failure::read(&error, Stage::Decide, rules.terms)),
    };
    verdict
        .and_then(|verdict| Ok(verdict.checked()?))
        .map_err(|failure| (Stage::Decide, failure))
}

fn start_clock(store: &mut Store<Data>, rules: &Rules) {
    let Ticks { first, then } = rules.ticks;
    store.data().call.end.set(first, then);
    store.set_epoch_deadline(NEXT_WAKE);
}

/// A call looks at its end each time that the clock wakes up, which it may do after several ticks.
const NEXT_WAKE: u64 = 1;

/// What becomes of a call when the clock has woken up: it goes on, or ends.
fn go_on_or_end(store: StoreContextMut<'_, Data>) -> wasmtime::Result<UpdateDeadline> {
    Ok(match store.data().call.end.is_ahead() {
        true => UpdateDeadline::Continue(NEXT_WAKE),
        false => UpdateDeadline::Interrupt,
    })
}

/// More than any call lives to use.
const FULL: u64 = u64::MAX;

fn fill<T>(store: &mut Store<T>) {
    store
        .set_fuel(FULL)
        .expect("asked only where the engine counts fuel");
}

fn fuel_used<T>(store: &Store<T>) -> Option<u64> {
    Some(FULL - store.get_fuel().ok()?)
}
