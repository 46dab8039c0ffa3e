//! What the host's functions get from a component: the call, and texts.

use wasmtime::StoreContextMut;
use wasmtime::component::WasmStr;

use crate::call::Call;
use crate::failure::HostError;
use crate::state::Data;

pub(crate) type ComponentContext<'a> = StoreContextMut<'a, Data>;

/// The call, if its time is not over: a component need not loop to go from one function of the host to the next, and only loops and calls
/// of its own look at the clock.
pub(crate) fn timely<'s>(store: &'s ComponentContext<'_>) -> wasmtime::Result<&'s Call> {
    let call = &store.data().call;
    call.in_time()?;
    Ok(call)
}

/// The same to change it.
pub(crate) fn timely_mut<'s>(
    store: &'s mut ComponentContext<'_>,
) -> wasmtime::Result<&'s mut Call> {
    let call = &mut store.data_mut().call;
    call.in_time()?;
    Ok(call)
}

/// A copy of a text in the sandbox's memory.
pub(crate) fn lifted(store: &ComponentContext<'_>, text: &WasmStr) -> wasmtime::Result<String> {
    let text = text.to_str(store).map_err(|_| HostError::NotUtf8)?;
    Ok(text.into_owned())
}

pub(crate) fn lifted_optional(
    store: &ComponentContext<'_>,
    given: &Option<WasmStr>,
) -> wasmtime::Result<Option<String>> {
    given.as_ref().map(|given| lifted(store, given)).transpose()
}
