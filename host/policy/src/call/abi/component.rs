//! Arguments from components: the call, and texts.

use wasmtime::StoreContextMut;
use wasmtime::component::WasmStr;

use crate::call::Call;
use crate::call::state::Data;
use crate::failure::HostError;

pub(crate) type ComponentContext<'a> = StoreContextMut<'a, Data>;

/// The call, unless its deadline has passed. Host functions check this, because the runtime checks the epoch only in loops and at function
/// entries of the policy: a component could call host functions one after the other without either.
pub(crate) fn timely<'s>(store: &'s ComponentContext<'_>) -> wasmtime::Result<&'s Call> {
    let call = &store.data().call;
    call.in_time()?;
    Ok(call)
}

/// The same for functions that change the call.
pub(crate) fn timely_mut<'s>(
    store: &'s mut ComponentContext<'_>,
) -> wasmtime::Result<&'s mut Call> {
    let call = &mut store.data_mut().call;
    call.in_time()?;
    Ok(call)
}

/// Copies a text out of the memory of the sandbox.
pub(crate) fn lifted(store: &ComponentContext<'_>, text: &WasmStr) -> wasmtime::Result<String> {
    let text = text.to_str(store).map_err(|_| HostError::NotUtf8)?;
    Ok(text.into_owned())
}

/// The same for an optional text.
pub(crate) fn lifted_optional(
    store: &ComponentContext<'_>,
    given: &Option<WasmStr>,
) -> wasmtime::Result<Option<String>> {
    given.as_ref().map(|given| lifted(store, given)).transpose()
}
