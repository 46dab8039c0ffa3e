//! Policies that are components: the runtime converts their values.

use wasmtime::component::{Component, ComponentExportIndex, ComponentType, InstancePre, Lift};
use wasmtime::{Engine, Store};

use crate::contract::VALIDATE;
use crate::interfaces;
use crate::state::Data;
use crate::verdict::{Rejection, Verdict};

/// A linked component.
pub(crate) struct Prepared {
    pre: InstancePre<Data>,
    decide: ComponentExportIndex,
    validate: Option<ComponentExportIndex>,
}

/// A live instance of a component.
pub(crate) struct Live {
    decide: wasmtime::component::TypedFunc<(), (WireVerdict,)>,
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
        let validate = component.get_export_index(None, VALIDATE);
        Ok(Self {
            pre,
            decide,
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
        Ok(Live { decide })
    }
}

impl Live {
    /// Calls `decide`. The verdict is not validated yet.
    pub(crate) fn decide(&self, store: &mut Store<Data>) -> wasmtime::Result<Verdict> {
        let (verdict,) = self.decide.call(store, ())?;
        Ok(verdict.into())
    }
}

impl From<WireVerdict> for Verdict {
    fn from(verdict: WireVerdict) -> Self {
        match verdict {
            WireVerdict::Relay(next_hop) => Self::Relay(next_hop),
            WireVerdict::Reject(rejection) => Self::Reject(Rejection {
                code: rejection.code,
                reason: rejection.reason,
                headers: rejection
                    .headers
                    .into_iter()
                    .map(|header| (header.name, header.value))
                    .collect(),
            }),
            WireVerdict::Drop => Self::Drop,
            WireVerdict::Pass => Self::Pass,
        }
    }
}
