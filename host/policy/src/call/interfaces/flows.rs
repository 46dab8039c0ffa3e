//! The interface `flows`.

use serde_json::json;
use wasmtime::component::{ComponentType, Lower};
use wasmtime::{Linker, component};

use crate::call::Call;
use crate::call::abi::component::{ComponentContext, timely_mut};
use crate::call::abi::module::{ModuleContext, check};
use crate::call::state::Data;
use crate::contract::FLOWS;
use crate::flow_state::FlowState;
use crate::host_state::HostState;
use crate::tape::{Answer, SideEffect};

pub(super) fn link_module(linker: &mut Linker<Data>) -> wasmtime::Result<()> {
    linker.func_wrap(FLOWS, "route", |mut caller: ModuleContext<'_>| {
        check(caller.data())?;
        let flow = caller.data_mut().call.route_flow();
        wasmtime::Result::Ok(WireFlow::from(flow) as u32)
    })?;
    linker.func_wrap(FLOWS, "came-along", |mut caller: ModuleContext<'_>| {
        check(caller.data())?;
        wasmtime::Result::Ok(u32::from(caller.data_mut().call.came_along_flow()))
    })?;
    linker.func_wrap(FLOWS, "is-client", |mut caller: ModuleContext<'_>| {
        check(caller.data())?;
        wasmtime::Result::Ok(u32::from(caller.data_mut().call.is_client()))
    })?;
    linker.func_wrap(FLOWS, "keep", |mut caller: ModuleContext<'_>| {
        check(caller.data())?;
        caller.data_mut().call.keep_flow();
        wasmtime::Result::Ok(())
    })?;
    Ok(())
}

pub(super) fn link_component(linker: &mut component::Linker<Data>) -> wasmtime::Result<()> {
    let mut flows = linker.instance(FLOWS)?;
    flows.func_wrap("route", |mut store: ComponentContext<'_>, (): ()| {
        let flow = timely_mut(&mut store)?.route_flow();
        Ok((WireFlow::from(flow),))
    })?;
    flows.func_wrap("came-along", |mut store: ComponentContext<'_>, (): ()| {
        Ok((timely_mut(&mut store)?.came_along_flow(),))
    })?;
    flows.func_wrap("is-client", |mut store: ComponentContext<'_>, (): ()| {
        Ok((timely_mut(&mut store)?.is_client(),))
    })?;
    flows.func_wrap("keep", |mut store: ComponentContext<'_>, (): ()| {
        timely_mut(&mut store)?.keep_flow();
        Ok(())
    })
}

#[derive(Clone, Copy, ComponentType, Lower)]
#[component(enum)]
#[repr(u8)]
enum WireFlow {
    #[component(name = "none")]
    None,
    #[component(name = "alive")]
    Alive,
    #[component(name = "gone")]
    Gone,
    #[component(name = "invalid")]
    Invalid,
}

impl From<FlowState> for WireFlow {
    fn from(flow: FlowState) -> Self {
        match flow {
            FlowState::None => Self::None,
            FlowState::Alive => Self::Alive,
            FlowState::Gone => Self::Gone,
            FlowState::Invalid => Self::Invalid,
        }
    }
}

impl Call {
    /// `flows.route`
    fn route_flow(&mut self) -> FlowState {
        self.of_flows("flows.route", |call, host| {
            host.route_flow(call.request(), call.scope())
        })
    }

    /// `flows.came-along`
    fn came_along_flow(&mut self) -> bool {
        self.of_flows("flows.came-along", |call, host| {
            host.came_along_flow(call.request(), call.scope())
        })
    }

    /// `flows.is-client`
    fn is_client(&mut self) -> bool {
        self.of_flows("flows.is-client", |call, host| {
            host.is_client(call.request(), call.scope())
        })
    }

    /// `flows.keep`
    fn keep_flow(&mut self) {
        self.answered("flows.keep", SideEffect::None, || json!([]), |_| ());
        self.wishes_mut().keeps_flow = true;
    }

    /// Answers a query from the state of the host; with nothing, if that is not known.
    fn of_flows<T: Answer + Default>(
        &mut self,
        function: &'static str,
        read: impl FnOnce(&Self, &dyn HostState) -> T,
    ) -> T {
        self.answered(
            function,
            SideEffect::None,
            || json!([]),
            |call| {
                let host = call.host();
                host.map(|host| read(call, host)).unwrap_or_default()
            },
        )
    }
}
