//! The interface `permissions`.

use std::borrow::Cow;
use std::net::IpAddr;

use portcullis_address::{Entries, Match, parse_ip};
use serde_json::json;
use wasmtime::component::WasmStr;
use wasmtime::{Linker, component};

use crate::call::Call;
use crate::call::abi::component::{ComponentContext, lifted, timely, timely_mut};
use crate::call::abi::module::{ModuleContext, check, give, open, text, write_words};
use crate::call::state::Data;
use crate::contract::PERMISSIONS;
use crate::scope::Scope;
use crate::tape::SideEffect;

pub(super) fn link_module(linker: &mut Linker<Data>) -> wasmtime::Result<()> {
    linker.func_wrap(
        PERMISSIONS,
        "allow-source-address",
        |mut caller: ModuleContext<'_>, group: u32| -> wasmtime::Result<u32> {
            check(caller.data())?;
            Ok(caller.data_mut().call.allow_source_address(group).into())
        },
    )?;
    linker.func_wrap(
        PERMISSIONS,
        "allow-address",
        |mut caller: ModuleContext<'_>, group: u32, at: u32, length: u32, port: u32| {
            let (memory, call) = open(&mut caller)?;
            let address = text(memory, at, length, call.host_call_bytes())?;
            let allowed = call.allow_address(group, address, port as u16);
            wasmtime::Result::Ok(u32::from(allowed))
        },
    )?;
    linker.func_wrap(
        PERMISSIONS,
        "source-address-group",
        |mut caller: ModuleContext<'_>, result: u32| {
            open(&mut caller)?;
            let group = caller.data_mut().call.source_address_group();
            give_number(&mut caller, result, group)
        },
    )?;
    linker.func_wrap(
        PERMISSIONS,
        "address-group",
        |mut caller: ModuleContext<'_>, at: u32, length: u32, port: u32, result: u32| {
            let (memory, call) = open(&mut caller)?;
            let address = text(memory, at, length, call.host_call_bytes())?;
            let group = call.address_group(address, port as u16);
            give_number(&mut caller, result, group)
        },
    )?;
    linker.func_wrap(
        PERMISSIONS,
        "last-tag",
        |mut caller: ModuleContext<'_>, result: u32| {
            open(&mut caller)?;
            if caller.data().call.last_tag().is_none() {
                return write_words(&mut caller, result, &[0, 0, 0]);
            }
            let (at, length) = give(&mut caller, last_tag)?;
            write_words(&mut caller, result, &[1, at, length])
        },
    )?;
    Ok(())
}

pub(super) fn link_component(linker: &mut component::Linker<Data>) -> wasmtime::Result<()> {
    let mut permissions = linker.instance(PERMISSIONS)?;
    permissions.func_wrap(
        "allow-source-address",
        |mut store: ComponentContext<'_>, (group,): (u32,)| {
            Ok((timely_mut(&mut store)?.allow_source_address(group),))
        },
    )?;
    permissions.func_wrap(
        "allow-address",
        |mut store: ComponentContext<'_>, (group, address, port): (u32, WasmStr, u16)| {
            let address = lifted(&store, &address)?;
            let call = timely_mut(&mut store)?;
            Ok((call.allow_address(group, &address, port),))
        },
    )?;
    permissions.func_wrap(
        "source-address-group",
        |mut store: ComponentContext<'_>, (): ()| {
            Ok((timely_mut(&mut store)?.source_address_group(),))
        },
    )?;
    permissions.func_wrap(
        "address-group",
        |mut store: ComponentContext<'_>, (address, port): (WasmStr, u16)| {
            let address = lifted(&store, &address)?;
            let call = timely_mut(&mut store)?;
            Ok((call.address_group(&address, port),))
        },
    )?;
    permissions.func_wrap("last-tag", |store: ComponentContext<'_>, (): ()| {
        Ok((timely(&store)?.last_tag().map(str::to_owned),))
    })
}

fn give_number(
    caller: &mut ModuleContext<'_>,
    result: u32,
    number: Option<u32>,
) -> wasmtime::Result<()> {
    let [case, number] = match number {
        Some(number) => [1, number],
        None => [0, 0],
    };
    write_words(caller, result, &[case, number])
}

fn last_tag(call: &Call) -> Cow<'_, str> {
    call.last_tag().unwrap_or_default().into()
}

/// The address of a query.
enum Address<'a> {
    Ip(IpAddr),
    Name(&'a str),
}

impl Call {
    /// `permissions.allow-source-address`
    fn allow_source_address(&mut self, group: u32) -> bool {
        self.answered(
            "permissions.allow-source-address",
            SideEffect::Tag,
            || json!([group]),
            |call| call.finds_source(group),
        )
    }

    /// `permissions.source-address-group`
    fn source_address_group(&mut self) -> Option<u32> {
        self.answered(
            "permissions.source-address-group",
            SideEffect::Tag,
            || json!([]),
            Self::find_source,
        )
    }

    /// `permissions.allow-address`
    fn allow_address(&mut self, group: u32, address: &str, port: u16) -> bool {
        self.answered(
            "permissions.allow-address",
            SideEffect::Tag,
            || json!([group, address, port]),
            |call| call.finds(group, Address::parse(address), port),
        )
    }

    /// `permissions.address-group`
    fn address_group(&mut self, address: &str, port: u16) -> Option<u32> {
        self.answered(
            "permissions.address-group",
            SideEffect::Tag,
            || json!([address, port]),
            |call| call.find(Address::parse(address), port),
        )
    }

    fn finds_source(&mut self, group: u32) -> bool {
        if !self.scope.admits_group(group) {
            return false;
        }
        let source = self.request().source();
        let entries = self.addresses.table.lookup(source.ip());
        let found = entries.find(group, source.port());
        note(&mut self.tag, &mut self.has_tag, found).is_some()
    }

    fn find_source(&mut self) -> Option<u32> {
        let source = self.request().source();
        let entries = self.addresses.table.lookup(source.ip());
        let found = first_within(&self.scope, entries, source.port());
        note(&mut self.tag, &mut self.has_tag, found)
    }

    fn finds(&mut self, group: u32, address: Address<'_>, port: u16) -> bool {
        if !self.scope.admits_group(group) {
            return false;
        }
        let table = &self.addresses.table;
        let entries = match address {
            Address::Ip(ip) => table.lookup(ip),
            Address::Name(name) => table.lookup_name(name),
        };
        note(&mut self.tag, &mut self.has_tag, entries.find(group, port)).is_some()
    }

    fn find(&mut self, address: Address<'_>, port: u16) -> Option<u32> {
        let table = &self.addresses.table;
        let entries = match address {
            Address::Ip(ip) => table.lookup(ip),
            Address::Name(name) => table.lookup_name(name),
        };
        let found = first_within(&self.scope, entries, port);
        note(&mut self.tag, &mut self.has_tag, found)
    }
}

impl<'a> Address<'a> {
    /// Parses an address as the table does. Any other text is a host name.
    fn parse(text: &'a str) -> Self {
        parse_ip(text).map_or(Self::Name(text), Self::Ip)
    }
}

/// The first row of a group in the scope.
#[inline]
fn first_within<'t>(scope: &Scope, entries: Entries<'t>, port: u16) -> Option<Match<'t>> {
    match scope.is_limited() {
        false => entries.first(port),
        true => entries.first_of(port, scope.groups()),
    }
}

/// Stores the tag of a match for `last-tag`. Without a match, the tag of the previous match stays.
fn note(tag: &mut String, has_tag: &mut bool, found: Option<Match<'_>>) -> Option<u32> {
    let found = found?;
    *has_tag = found.tag.is_some();
    tag.clear();
    tag.push_str(found.tag.unwrap_or_default());
    Some(found.group)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_an_ip_address_or_a_host_name() {
        for ip in ["192.0.2.1", "2001:db8::1", "[2001:db8::1]"] {
            assert!(matches!(Address::parse(ip), Address::Ip(_)), "{ip}");
        }
        for name in ["gw.example.com", "192.0.2.1:5060", ""] {
            assert!(
                matches!(Address::parse(name), Address::Name(text) if text == name),
                "{name}"
            );
        }
    }
}
