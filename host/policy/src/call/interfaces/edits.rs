//! The interface `edits`.

use serde_json::json;
use wasmtime::component::WasmStr;
use wasmtime::{Linker, component};

use crate::call::Call;
use crate::call::abi::component::{ComponentContext, lifted, timely_mut};
use crate::call::abi::module::{ModuleContext, open, text};
use crate::call::state::Data;
use crate::contract::EDITS;
use crate::edits::Edit;
use crate::tape::SideEffect;
use crate::verdict::InvalidVerdict;

pub(super) fn link_module(linker: &mut Linker<Data>) -> wasmtime::Result<()> {
    linker.func_wrap(
        EDITS,
        "add-header",
        |mut caller: ModuleContext<'_>, at: u32, length: u32, value_at: u32, value_length: u32| {
            let (memory, call) = open(&mut caller)?;
            let limit = call.host_call_bytes();
            let name = text(memory, at, length, limit)?;
            let value = text(memory, value_at, value_length, limit)?;
            wasmtime::Result::Ok(u32::from(call.add_header(name, value)?))
        },
    )?;
    linker.func_wrap(
        EDITS,
        "remove-header",
        |mut caller: ModuleContext<'_>, at: u32, length: u32| {
            let (memory, call) = open(&mut caller)?;
            let name = text(memory, at, length, call.host_call_bytes())?;
            wasmtime::Result::Ok(u32::from(call.remove_header(name)?))
        },
    )?;
    Ok(())
}

pub(super) fn link_component(linker: &mut component::Linker<Data>) -> wasmtime::Result<()> {
    let mut edits = linker.instance(EDITS)?;
    edits.func_wrap(
        "add-header",
        |mut store: ComponentContext<'_>, (name, value): (WasmStr, WasmStr)| {
            let (name, value) = (lifted(&store, &name)?, lifted(&store, &value)?);
            Ok((timely_mut(&mut store)?.add_header(&name, &value)?,))
        },
    )?;
    edits.func_wrap(
        "remove-header",
        |mut store: ComponentContext<'_>, (name,): (WasmStr,)| {
            let name = lifted(&store, &name)?;
            Ok((timely_mut(&mut store)?.remove_header(&name)?,))
        },
    )
}

impl Call {
    /// `edits.add-header`
    fn add_header(&mut self, name: &str, value: &str) -> Result<bool, InvalidVerdict> {
        let arguments = || json!([name, value]);
        let edit = || Edit::Add {
            name: name.to_owned(),
            value: value.to_owned(),
        };
        self.edit("edits.add-header", name, arguments, edit)
    }

    /// `edits.remove-header`
    fn remove_header(&mut self, name: &str) -> Result<bool, InvalidVerdict> {
        let arguments = || json!([name]);
        let edit = || Edit::Remove {
            name: name.to_owned(),
        };
        self.edit("edits.remove-header", name, arguments, edit)
    }

    fn edit(
        &mut self,
        function: &'static str,
        name: &str,
        arguments: impl FnOnce() -> serde_json::Value,
        edit: impl FnOnce() -> Edit,
    ) -> Result<bool, InvalidVerdict> {
        let edit = edit();
        edit.check()?;
        let admitted = self.answered(function, SideEffect::None, arguments, |call| {
            call.scope().admits_header(name)
        });
        if admitted {
            self.edits().push(edit)?;
        }
        Ok(admitted)
    }
}
