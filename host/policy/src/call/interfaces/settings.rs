//! The interface `settings`. For modules, an optional number is a discriminant byte, followed by the value at the next aligned offset.

use serde_json::json;
use wasmtime::component::WasmStr;
use wasmtime::{Linker, component};

use crate::call::Call;
use crate::call::abi::component::{ComponentContext, lifted, timely_mut};
use crate::call::abi::module::{
    ModuleContext, by_key, give_copy, give_list, open, text, write_bytes, write_wide, write_words,
};
use crate::call::state::Data;
use crate::contract::SETTINGS;
use crate::settings::Settings;
use crate::tape::{Answer, SideEffect};

pub(super) fn link_module(linker: &mut Linker<Data>) -> wasmtime::Result<()> {
    link_numbers(linker)?;
    link_texts(linker)
}

/// Defines functions with a key as their argument.
macro_rules! by_key {
    ($instance:ident, $($name:literal: $method:ident),+ $(,)?) => {$(
        $instance.func_wrap($name, |mut store: ComponentContext<'_>, (key,): (WasmStr,)| {
            let key = lifted(&store, &key)?;
            Ok((timely_mut(&mut store)?.$method(&key),))
        })?;
    )+};
}

pub(super) fn link_component(linker: &mut component::Linker<Data>) -> wasmtime::Result<()> {
    let mut settings = linker.instance(SETTINGS)?;
    by_key!(
        settings,
        "boolean": boolean,
        "integer": integer,
        "number": number,
        "text": text,
        "texts": texts,
        "keys": keys,
    );
    settings.func_wrap("json", |mut store: ComponentContext<'_>, (): ()| {
        Ok((timely_mut(&mut store)?.json(),))
    })
}

fn link_numbers(linker: &mut Linker<Data>) -> wasmtime::Result<()> {
    linker.func_wrap(
        SETTINGS,
        "boolean",
        |mut caller: ModuleContext<'_>, at: u32, length: u32, result: u32| {
            let (memory, call) = open(&mut caller)?;
            let key = text(memory, at, length, call.host_call_bytes())?;
            let found = call.boolean(key);
            let bytes = [found.is_some().into(), found.unwrap_or_default().into()];
            write_bytes(&mut caller, result, 1, &bytes)
        },
    )?;
    linker.func_wrap(
        SETTINGS,
        "integer",
        |mut caller: ModuleContext<'_>, at: u32, length: u32, result: u32| {
            let (memory, call) = open(&mut caller)?;
            let key = text(memory, at, length, call.host_call_bytes())?;
            let found = call.integer(key);
            let value = found.unwrap_or_default().to_le_bytes();
            write_wide(&mut caller, result, found.is_some(), value)
        },
    )?;
    linker.func_wrap(
        SETTINGS,
        "number",
        |mut caller: ModuleContext<'_>, at: u32, length: u32, result: u32| {
            let (memory, call) = open(&mut caller)?;
            let key = text(memory, at, length, call.host_call_bytes())?;
            let found = call.number(key);
            let value = found.unwrap_or_default().to_le_bytes();
            write_wide(&mut caller, result, found.is_some(), value)
        },
    )?;
    Ok(())
}

fn link_texts(linker: &mut Linker<Data>) -> wasmtime::Result<()> {
    linker.func_wrap(
        SETTINGS,
        "text",
        |mut caller: ModuleContext<'_>, at: u32, length: u32, result: u32| {
            let Some(found) = by_key(&mut caller, at, length, Call::text)? else {
                return write_words(&mut caller, result, &[0, 0, 0]);
            };
            let (at, length) = give_copy(&mut caller, &found)?;
            write_words(&mut caller, result, &[1, at, length])
        },
    )?;
    linker.func_wrap(
        SETTINGS,
        "texts",
        |mut caller: ModuleContext<'_>, at: u32, length: u32, result: u32| {
            let Some(found) = by_key(&mut caller, at, length, Call::texts)? else {
                return write_words(&mut caller, result, &[0, 0, 0]);
            };
            let [list, length] = give_list(&mut caller, &found)?;
            write_words(&mut caller, result, &[1, list, length])
        },
    )?;
    linker.func_wrap(
        SETTINGS,
        "keys",
        |mut caller: ModuleContext<'_>, at: u32, length: u32, result: u32| {
            let keys = by_key(&mut caller, at, length, Call::keys)?;
            let list = give_list(&mut caller, &keys)?;
            write_words(&mut caller, result, &list)
        },
    )?;
    linker.func_wrap(
        SETTINGS,
        "json",
        |mut caller: ModuleContext<'_>, result: u32| {
            let (_, call) = open(&mut caller)?;
            let json = call.json();
            let (at, length) = give_copy(&mut caller, &json)?;
            write_words(&mut caller, result, &[at, length])
        },
    )?;
    Ok(())
}

impl Call {
    /// `settings.boolean`
    fn boolean(&mut self, key: &str) -> Option<bool> {
        self.setting("settings.boolean", key, Settings::boolean)
    }

    /// `settings.integer`
    fn integer(&mut self, key: &str) -> Option<i64> {
        self.setting("settings.integer", key, Settings::integer)
    }

    /// `settings.number`
    fn number(&mut self, key: &str) -> Option<f64> {
        self.setting("settings.number", key, Settings::number)
    }

    /// `settings.text`
    fn text(&mut self, key: &str) -> Option<String> {
        let text = |settings: &Settings, key: &str| settings.text(key).map(str::to_owned);
        self.setting("settings.text", key, text)
    }

    /// `settings.texts`
    fn texts(&mut self, key: &str) -> Option<Vec<String>> {
        self.setting("settings.texts", key, Settings::texts)
    }

    /// `settings.keys`
    fn keys(&mut self, key: &str) -> Vec<String> {
        self.setting("settings.keys", key, Settings::keys)
    }

    /// `settings.json`
    fn json(&mut self) -> String {
        let arguments = || json!([]);
        self.answered("settings.json", SideEffect::None, arguments, |call| {
            call.scope().settings().json().to_owned()
        })
    }

    fn setting<T: Answer>(
        &mut self,
        function: &'static str,
        key: &str,
        read: impl FnOnce(&Settings, &str) -> T,
    ) -> T {
        let arguments = || json!([key]);
        self.answered(function, SideEffect::None, arguments, |call| {
            read(call.scope().settings(), key)
        })
    }
}
