//! Policies that are components: the runtime converts their values.

use wasmtime::component::{
    Component, ComponentExportIndex, ComponentType, InstancePre, Lift, TypedFunc,
};
use wasmtime::{Engine, Store};

use crate::call::interfaces;
use crate::call::state::Data;
use crate::contract::{ON_FAILURE, VALIDATE};
use crate::next_step::NextStep;
use crate::verdict::{Rejection, Verdict};

/// A linked component.
pub(crate) struct Prepared {
    pre: InstancePre<Data>,
    decide: ComponentExportIndex,
    on_failure: Option<ComponentExportIndex>,
    validate: Option<ComponentExportIndex>,
}

/// A live instance of a component.
pub(crate) struct Live {
    decide: TypedFunc<(), (WireVerdict,)>,
    on_failure: Option<TypedFunc<(), (WireNextStep,)>>,
}

#[derive(ComponentType, Lift)]
#[component(variant)]
pub(crate) enum WireVerdict {
    #[component(name = "relay")]
    Relay(Option<String>),
    #[component(name = "reject")]
    Reject(WireRejection),
    #[component(name = "drop")]
    Drop,
    #[component(name = "pass")]
    Pass,
}

#[derive(ComponentType, Lift)]
#[component(variant)]
pub(crate) enum WireNextStep {
    #[component(name = "best")]
    Best,
    #[component(name = "answer")]
    Answer(WireRejection),
    #[component(name = "again")]
    Again,
}

#[derive(ComponentType, Lift)]
#[component(record)]
pub(crate) struct WireRejection {
    code: u16,
    reason: String,
    headers: Vec<WireHeader>,
}

#[derive(ComponentType, Lift)]
#[component(record)]
pub(crate) struct WireHeader {
    name: String,
    value: String,
}

impl Prepared {
    /// Links `component` with the host functions.
    pub(crate) fn new(engine: &Engine, component: &Component) -> wasmtime::Result<Self> {
        let pre = interfaces::component_linker(engine)?.instantiate_pre(component)?;
        let decide = component
            .get_export_index(None, "decide")
            .ok_or_else(|| wasmtime::Error::msg("the component has no export `decide`"))?;
        let on_failure = component.get_export_index(None, ON_FAILURE);
        let validate = component.get_export_index(None, VALIDATE);
        Ok(Self {
            pre,
            decide,
            on_failure,
            validate,
        })
    }

    /// Calls `validate-settings` of a new instance; `None` if the policy does not export it.
    pub(crate) fn validate(
        &self,
        store: &mut Store<Data>,
    ) -> Option<wasmtime::Result<Result<(), String>>> {
        let export = self.validate.as_ref()?;
        Some(self.validate_by(store, export))
    }

    fn validate_by(
        &self,
        store: &mut Store<Data>,
        export: &ComponentExportIndex,
    ) -> wasmtime::Result<Result<(), String>> {
        let instance = self.pre.instantiate(&mut *store)?;
        let function = instance.get_typed_func::<(), (Result<(), String>,)>(&mut *store, export)?;
        let (result,) = function.call(store, ())?;
        Ok(result)
    }

    /// Creates an instance, which runs its start functions.
    pub(crate) fn instantiate(&self, store: &mut Store<Data>) -> wasmtime::Result<Live> {
        let instance = self.pre.instantiate(&mut *store)?;
        let decide = instance.get_typed_func(&mut *store, self.decide)?;
        let on_failure = self.on_failure.as_ref();
        let on_failure = on_failure.map(|export| instance.get_typed_func(&mut *store, export));
        Ok(Live {
            decide,
            on_failure: on_failure.transpose()?,
        })
    }
}

impl Live {
    /// Calls `decide`. The verdict is not validated yet.
    pub(crate) fn decide(&self, store: &mut Store<Data>) -> wasmtime::Result<Verdict> {
        let (verdict,) = self.decide.call(store, ())?;
        Ok(verdict.into())
    }

    /// Calls `on-failure`. The step is not validated yet. Without this export, the step is the best response.
    pub(crate) fn on_failure(&self, store: &mut Store<Data>) -> wasmtime::Result<NextStep> {
        let Some(on_failure) = &self.on_failure else {
            return Ok(NextStep::Best);
        };
        let (step,) = on_failure.call(store, ())?;
        Ok(step.into())
    }
}

impl From<WireVerdict> for Verdict {
    fn from(verdict: WireVerdict) -> Self {
        match verdict {
            WireVerdict::Relay(next_hop) => Self::Relay(next_hop),
            WireVerdict::Reject(rejection) => Self::Reject(rejection.into()),
            WireVerdict::Drop => Self::Drop,
            WireVerdict::Pass => Self::Pass,
        }
    }
}

impl From<WireNextStep> for NextStep {
    fn from(step: WireNextStep) -> Self {
        match step {
            WireNextStep::Best => Self::Best,
            WireNextStep::Answer(rejection) => Self::Answer(rejection.into()),
            WireNextStep::Again => Self::Again,
        }
    }
}

impl From<WireRejection> for Rejection {
    fn from(rejection: WireRejection) -> Self {
        let headers = rejection.headers.into_iter();
        Self {
            code: rejection.code,
            reason: rejection.reason,
            headers: headers.map(|field| (field.name, field.value)).collect(),
        }
    }
}
