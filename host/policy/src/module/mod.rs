//! Policies that are core modules: instantiated directly, with the canonical ABI of the contract implemented by hand.
//!
//! A module could also be instantiated as a component, as [`check`](crate::check) encodes it. But such a component has three instances (the
//! module, a shim and its fix-up), and the runtime converts its values by a general algorithm; a direct call costs less than half. Tests
//! compare both: the same verdicts and the same failures.
//!
//! Memory safety does not depend on this code: it is safe Rust, and checks every value that a module passes.

mod lift;

use std::borrow::Cow;

use wasmparser::{Validator, WasmFeatures};
use wasmtime::{
    Engine, Extern, Func, Instance, InstancePre, Linker, Memory, ModuleExport, Store, TypedFunc,
};

use crate::bulk_memory;
use crate::call::abi::module as abi;
use crate::call::state::Data;
use crate::contract::{ON_FAILURE, VALIDATE};
use crate::engine;
use crate::failure::{Failure, ReportedLimits, Stage};
use crate::guest::Guest;
use crate::inspect::{Inspection, Kind};
use crate::names;
use crate::next_step::NextStep;
use crate::reset::{self, Marked, NoReset, Pristine, Resettable};
use crate::verdict::Verdict;

/// A compiled module.
pub(crate) struct Module {
    module: wasmtime::Module,
    /// Why its instances cannot be reset; `None` if they can.
    no_reset: Option<NoReset>,
}

/// A linked module.
pub(crate) struct Prepared {
    pre: InstancePre<Data>,
    memory: ModuleExport,
    decide: ModuleExport,
    on_failure: Option<ModuleExport>,
    realloc: Option<ModuleExport>,
    post_return: Option<ModuleExport>,
    post_on_failure: Option<ModuleExport>,
    /// Runs before the first call.
    initialize: Option<ModuleExport>,
    reset: Option<ModuleExport>,
    save: Option<ModuleExport>,
    no_reset: Option<NoReset>,
    validate: Option<ModuleExport>,
}

/// A live instance of a module.
pub(crate) struct Live {
    decide: Export,
    on_failure: Option<Box<Export>>,
    reset: Option<Box<Reset>>,
}

/// A function that returns the address of its result.
struct Export {
    function: TypedFunc<(), u32>,
    /// Frees the memory of the result.
    post_return: Option<TypedFunc<u32, ()>>,
}

/// How an instance is reset.
struct Reset {
    /// Restores the globals, and returns the marks of what the call wrote.
    globals: TypedFunc<(), u64>,
    memory: Pristine,
}

/// How an instance is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Use {
    /// For one call.
    Once,
    /// For several calls, each of which finds the state that the previous one left.
    Again,
    /// For several calls, with a reset to the initial state after each.
    Reset,
}

/// Whether a file that fits the contract can be instantiated directly. A module that uses special exports of the component model is
/// instantiated as a component.
pub(crate) fn fits(inspection: &Inspection) -> bool {
    const SPECIAL: [&str; 2] = ["cabi_import_realloc", "cabi_export_realloc"];
    let exports = &inspection.exports;
    let has = |name: &str, kind: &str| {
        let mut exports = exports.iter();
        exports.any(|export| export.name == name && export.kind == kind)
    };
    inspection.kind == Kind::Module
        && has("memory", "memory")
        && has("decide", "function")
        && !exports
            .iter()
            .any(|export| SPECIAL.contains(&&*export.name))
}

/// Why instances of a file that fits the contract cannot be reset after a call, so that each call gets a new instance; `None` if they can.
pub fn no_reset(file: &[u8], inspection: &Inspection) -> Option<NoReset> {
    match inspection.kind {
        Kind::Component => Some(NoReset::Component),
        Kind::Module if !fits(inspection) => Some(NoReset::SpecialExport),
        Kind::Module => Resettable::of(file).err(),
    }
}

/// Rewrites the module of a file that [`fits`], for the compiler: bulk memory operations in pieces, marks, the reset
/// function, and short names.
pub(crate) fn rewritten(file: &[u8], has_marks: bool) -> wasmtime::Result<Cow<'_, [u8]>> {
    let module = bulk_memory::module(file)?;
    let module = match Resettable::of(file) {
        Ok(resettable) => with_reset(&resettable, module, has_marks),
        Err(_) => module,
    };
    // Marks are added where calls are for requests. Elsewhere, a profile shows all names.
    let of_language = match has_marks {
        true => names::OF_LANGUAGE,
        false => names::LONGEST,
    };
    Ok(names::shortened(module, of_language))
}

/// A valid module may be so close to a limit of the format that what is added makes it invalid. Then it goes without marks, or is not reset.
fn with_reset<'a>(
    resettable: &Resettable,
    module: Cow<'a, [u8]>,
    has_marks: bool,
) -> Cow<'a, [u8]> {
    let marked = has_marks.then(|| reset::marked(&module)).flatten();
    let with_marks =
        marked.and_then(|Marked { module, global }| resettable.with_reset(&module, Some(global)));
    let valid = |added: Option<Vec<u8>>| added.filter(|module| is_valid(module));
    match valid(with_marks).or_else(|| valid(resettable.with_reset(&module, None))) {
        Some(module) => Cow::Owned(module),
        None => module,
    }
}

fn is_valid(module: &[u8]) -> bool {
    Validator::new_with_features(WasmFeatures::all())
        .validate_all(module)
        .is_ok()
}

impl Module {
    /// Compiles a file that [`fits`].
    pub(crate) fn compile(engine: &Engine, file: &[u8]) -> wasmtime::Result<Self> {
        Self::of(file, Self::translate(engine, file)?)
    }

    /// Compiles a file to machine code.
    pub(crate) fn translate(engine: &Engine, file: &[u8]) -> wasmtime::Result<wasmtime::Module> {
        // Fuel would count the marks as instructions of the policy.
        let has_marks = !engine::is_metered(engine);
        wasmtime::Module::new(engine, rewritten(file, has_marks)?)
    }

    /// The module of a file whose machine code is the result of [`Module::translate`].
    pub(crate) fn of(file: &[u8], module: wasmtime::Module) -> wasmtime::Result<Self> {
        module.initialize_copy_on_write_image()?;
        // A file that is not resettable may have an export of this name itself.
        let no_reset = match (Resettable::of(file), module.get_export_index(reset::EXPORT)) {
            (Ok(_), Some(_)) => None,
            (Ok(_), None) => Some(NoReset::Rewriting),
            (Err(no_reset), _) => Some(no_reset),
        };
        Ok(Self { module, no_reset })
    }
}

impl Prepared {
    /// Links `module` with the host functions of `linker`. All policies have those of one linker, so that what the runtime keeps of a function
    /// is in memory once, and in the caches of a processor that has called it for another policy.
    pub(crate) fn new(
        linker: &Linker<Data>,
        Module { module, no_reset }: &Module,
    ) -> wasmtime::Result<Self> {
        let export = |name: &str| {
            let found = module.get_export_index(name);
            found.ok_or_else(|| wasmtime::Error::msg(format!("the module has no export `{name}`")))
        };
        Ok(Self {
            pre: linker.instantiate_pre(module)?,
            memory: export("memory")?,
            decide: export("decide")?,
            on_failure: export(ON_FAILURE).ok(),
            realloc: export("cabi_realloc").ok(),
            post_return: export("cabi_post_decide").ok(),
            post_on_failure: export("cabi_post_on-failure").ok(),
            initialize: export(reset::INITIALIZE).ok(),
            reset: match no_reset {
                None => Some(export(reset::EXPORT)?),
                Some(_) => None,
            },
            save: export(reset::SAVE).ok(),
            no_reset: *no_reset,
            validate: export(VALIDATE).ok(),
        })
    }

    /// Why instances cannot be reset; `None` if they can.
    pub(crate) fn no_reset(&self) -> Option<NoReset> {
        self.no_reset
    }

    /// Calls `validate-settings` of a new instance; `None` if the policy does not export it.
    pub(crate) fn validate(
        &self,
        store: &mut Store<Data>,
        reported: ReportedLimits,
    ) -> Option<Result<Result<(), String>, Failure>> {
        let export = self.validate.as_ref()?;
        Some(self.validate_by(store, export, reported))
    }

    fn validate_by(
        &self,
        store: &mut Store<Data>,
        export: &ModuleExport,
        reported: ReportedLimits,
    ) -> Result<Result<(), String>, Failure> {
        let read = |error: wasmtime::Error| Failure::read(&error, Stage::Decide, reported);
        let made = self.instance(store, Use::Once);
        let (instance, _) =
            made.map_err(|error| Failure::read(&error, Stage::Instantiate, reported))?;
        let function = instance.get_module_export(&mut *store, export);
        let function = function.and_then(Extern::into_func);
        let no_function = || wasmtime::Error::msg("the export is of another kind");
        let function = function.ok_or_else(no_function).map_err(read)?;
        let function = function.typed::<(), u32>(&*store).map_err(read)?;
        let at = function.call(&mut *store, ()).map_err(read)?;
        let guest = abi::of(store.data()).map_err(read)?;
        lift::result(guest.memory().data(&*store), at, reported.host_call_bytes)
    }

    /// Creates an instance, which runs its start function and `_initialize`.
    pub(crate) fn instantiate(
        &self,
        store: &mut Store<Data>,
        usage: Use,
    ) -> wasmtime::Result<Live> {
        Ok(self.instance(store, usage)?.1)
    }

    fn instance(&self, store: &mut Store<Data>, usage: Use) -> wasmtime::Result<(Instance, Live)> {
        store.data_mut().guest = None;
        let instance = self.pre.instantiate(&mut *store)?;
        let mut export = |export: &ModuleExport| instance.get_module_export(&mut *store, export);
        let other_kind = || wasmtime::Error::msg("the module's exports are of other kinds");
        let (Some(Extern::Memory(memory)), Some(Extern::Func(decide))) =
            (export(&self.memory), export(&self.decide))
        else {
            return Err(other_kind());
        };
        let on_failure = match self.on_failure.as_ref().map(&mut export) {
            Some(Some(Extern::Func(on_failure))) => Some(on_failure),
            Some(_) => return Err(other_kind()),
            None => None,
        };
        let realloc = self.realloc.as_ref().and_then(&mut export);
        // Post-return functions free the memory of a result. They are not needed if the instance is dropped or reset after the call.
        let (post_return, post_on_failure) = match usage {
            Use::Again => (
                self.post_return.as_ref().and_then(&mut export),
                self.post_on_failure.as_ref().and_then(&mut export),
            ),
            Use::Once | Use::Reset => (None, None),
        };
        let reset = match usage {
            Use::Reset => self.reset.as_ref().and_then(&mut export),
            Use::Once | Use::Again => None,
        };
        let mut function =
            |of: Option<&ModuleExport>| of.and_then(&mut export).and_then(Extern::into_func);
        let initialize = function(self.initialize.as_ref());
        let save = function(self.save.as_ref().filter(|_| reset.is_some()));
        let size = memory.data_size(&*store);
        let realloc = realloc.and_then(Extern::into_func);
        store.data_mut().guest = Some(Guest::new(memory, size, realloc));
        if let Some(initialize) = initialize {
            initialize.typed::<(), ()>(&*store)?.call(&mut *store, ())?;
        }
        let function = |export: Option<Extern>| export.and_then(Extern::into_func);
        let live = Live {
            decide: Export::of(decide, function(post_return), store)?,
            on_failure: match on_failure {
                Some(on_failure) => {
                    let post_return = function(post_on_failure);
                    Some(Box::new(Export::of(on_failure, post_return, store)?))
                }
                None => None,
            },
            reset: match function(reset) {
                Some(globals) => Reset::of(memory, globals, save, store)?.map(Box::new),
                None => None,
            },
        };
        Ok((instance, live))
    }
}

impl Live {
    /// Calls `decide`. The verdict is not validated yet.
    pub(crate) fn decide(
        &self,
        store: &mut Store<Data>,
        reported: ReportedLimits,
    ) -> Result<Verdict, Failure> {
        self.decide.call(store, reported, lift::verdict)
    }

    /// Calls `on-failure`. The step is not validated yet. A policy that does not export it wants the best response.
    pub(crate) fn on_failure(
        &self,
        store: &mut Store<Data>,
        reported: ReportedLimits,
    ) -> Result<NextStep, Failure> {
        match &self.on_failure {
            Some(on_failure) => on_failure.call(store, reported, lift::next_step),
            None => Ok(NextStep::Best),
        }
    }

    /// Resets the instance after a successful call; false if it cannot be used again.
    pub(crate) fn reset(&self, store: &mut Store<Data>) -> bool {
        let Some(reset) = &self.reset else {
            return false;
        };
        let Ok(module) = reset.globals.call(&mut *store, ()) else {
            return false;
        };
        let Some(guest) = &mut store.data_mut().guest else {
            return false;
        };
        let marks = module | guest.take_marks();
        store.data_mut().written = marks.count_ones();
        reset.memory.restore(store, marks)
    }
}

impl Reset {
    /// Notes the initial state of an instance that has not been called yet; `None` if its memory has grown before: marks are for a memory of
    /// the declared size.
    fn of(
        memory: Memory,
        globals: Func,
        save: Option<Func>,
        store: &mut Store<Data>,
    ) -> wasmtime::Result<Option<Self>> {
        let declared = memory
            .ty(&*store)
            .minimum()
            .saturating_mul(engine::PAGE as u64);
        if declared != memory.data_size(&*store) as u64 {
            return Ok(None);
        }
        if let Some(save) = save {
            save.typed::<(), u64>(&*store)?.call(&mut *store, ())?;
        }
        Ok(Some(Self {
            globals: globals.typed(&*store)?,
            memory: Pristine::of(store, memory),
        }))
    }
}

impl Export {
    fn of(
        function: Func,
        post_return: Option<Func>,
        store: &Store<Data>,
    ) -> wasmtime::Result<Self> {
        let post_return = post_return.map(|function| function.typed(store));
        Ok(Self {
            function: function.typed(store)?,
            post_return: post_return.transpose()?,
        })
    }

    /// Calls the function and reads its result.
    fn call<T>(
        &self,
        store: &mut Store<Data>,
        reported: ReportedLimits,
        lift: fn(&[u8], u32, usize) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let read = |error: wasmtime::Error| Failure::read(&error, Stage::Decide, reported);
        let at = self.function.call(&mut *store, ()).map_err(read)?;
        let guest = abi::of(store.data()).map_err(read)?;
        let result = lift(guest.memory().data(&*store), at, reported.host_call_bytes)?;
        if let Some(post_return) = &self.post_return {
            abi::enter(store.data_mut());
            post_return.call(&mut *store, at).map_err(read)?;
            abi::leave(store.data_mut());
        }
        Ok(result)
    }
}
