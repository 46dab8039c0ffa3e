//! Answers of the interface `flows`.

use serde_json::json;

use crate::flow_state::FlowState;
use crate::host_state::HostState;
use crate::tape::{Answer, SideEffect};

use super::Call;

impl Call {
    /// `flows.route`
    pub(crate) fn route_flow(&mut self) -> FlowState {
        self.of_flows("flows.route", |call, host| {
            host.route_flow(call.request(), call.scope())
        })
    }

    /// `flows.came-along`
    pub(crate) fn came_along_flow(&mut self) -> bool {
        self.of_flows("flows.came-along", |call, host| {
            host.came_along_flow(call.request(), call.scope())
        })
    }

    /// `flows.is-client`
    pub(crate) fn is_client(&mut self) -> bool {
        self.of_flows("flows.is-client", |call, host| {
            host.is_client(call.request(), call.scope())
        })
    }

    /// `flows.keep`
    pub(crate) fn keep_flow(&mut self) {
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
