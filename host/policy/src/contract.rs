//! The contract that policies are held to: the text of `policy-wit`.

use std::sync::LazyLock;

use wit_component::StringEncoding;
use wit_parser::{InterfaceId, Resolve, WorldId, WorldItem, WorldKey};

/// The WIT text of the contract that this host offers.
pub const WIT: &str = include_str!("../../../policy-wit/routing-policy.wit");

/// The name of the world that a policy is built for.
pub const WORLD: &str = "portcullis:policy/routing-policy@0.1.0";

/// The name of the world of a policy that looks at its settings.
pub(crate) const CONFIGURED_WORLD: &str = "portcullis:policy/configured-policy@0.1.0";

pub(crate) const PERMISSIONS: &str = "portcullis:policy/permissions@0.1.0";
pub(crate) const REQUEST: &str = "portcullis:policy/request@0.1.0";
pub(crate) const LOG: &str = "portcullis:policy/log@0.1.0";
pub(crate) const TRUSTED: &str = "portcullis:policy/trusted@0.1.0";
pub(crate) const RULES: &str = "portcullis:policy/rules@0.1.0";
pub(crate) const COUNTERS: &str = "portcullis:policy/counters@0.1.0";
pub(crate) const SETTINGS: &str = "portcullis:policy/settings@0.1.0";
pub(crate) const CLOCK: &str = "portcullis:policy/clock@0.1.0";
pub(crate) const EDITS: &str = "portcullis:policy/edits@0.1.0";

/// The export of a policy that looks at its settings.
pub(crate) const VALIDATE: &str = "validate-settings";

/// The package that all interfaces of the contract are in, whatever their version.
pub(crate) const PACKAGE: &str = "portcullis:policy/";

/// The custom sections that say what world a core module is built for start with this.
pub(crate) const SECTION: &str = "component-type";

pub(crate) static CONTRACT: LazyLock<Contract> = LazyLock::new(Contract::parse);

/// The contract, parsed.
pub(crate) struct Contract {
    resolve: Resolve,
    world: WorldId,
    configured: WorldId,
}

impl Contract {
    fn parse() -> Self {
        let mut resolve = Resolve::default();
        let package = resolve
            .push_source("routing-policy.wit", WIT)
            .expect("the contract is part of this build and has been parsed by its tests");
        let world = |name| {
            resolve
                .select_world(&[package], Some(name))
                .expect("the contract has this world")
        };
        let (world, configured) = (world("routing-policy"), world("configured-policy"));
        Self {
            resolve,
            world,
            configured,
        }
    }

    /// Whether `interface` is one that a policy may import.
    pub(crate) fn offers(&self, interface: &str) -> bool {
        self.imported().any(|(name, _)| name == interface)
    }

    /// Whether a policy may import `function` of `interface`.
    pub(crate) fn offers_function(&self, interface: &str, function: &str) -> bool {
        self.imported().any(|(name, id)| {
            name == interface && self.resolve.interfaces[id].functions.contains_key(function)
        })
    }

    /// The names of all interfaces that have functions to import.
    pub(crate) fn interfaces(&self) -> Vec<String> {
        let with_functions = self
            .imported()
            .filter(|&(_, id)| !self.resolve.interfaces[id].functions.is_empty());
        with_functions.map(|(name, _)| name).collect()
    }

    /// Why `component` does not fit the world, in the validator's words. One that looks at its settings has a world of its own.
    pub(crate) fn check(&self, component: &[u8], is_configured: bool) -> Result<(), String> {
        let world = if is_configured {
            self.configured
        } else {
            self.world
        };
        wit_component::targets(&self.resolve, world, component)
            .map_err(|error| error.root_cause().to_string())
    }

    fn imported(&self) -> impl Iterator<Item = (String, InterfaceId)> {
        let imports = &self.resolve.worlds[self.world].imports;
        imports.iter().filter_map(|(key, item)| match (key, item) {
            (WorldKey::Interface(_), WorldItem::Interface { id, .. }) => {
                Some((self.resolve.name_world_key(key), *id))
            }
            _ => None,
        })
    }
}

/// Adds to a core module what says that it is built for the contract: the custom section that the SDK's bindings add when they
/// are compiled. Policies written in WebAssembly's text form need it.
///
/// # Errors
/// If the section cannot be encoded, in the encoder's words.
pub fn embed(module: &mut Vec<u8>) -> Result<(), String> {
    embed_world(module, CONTRACT.world)
}

/// The same for a policy that exports `validate-settings`.
///
/// # Errors
/// As [`embed`].
pub fn embed_configured(module: &mut Vec<u8>) -> Result<(), String> {
    embed_world(module, CONTRACT.configured)
}

fn embed_world(module: &mut Vec<u8>, world: WorldId) -> Result<(), String> {
    let resolve = &CONTRACT.resolve;
    let embedded =
        wit_component::embed_component_metadata(module, resolve, world, StringEncoding::UTF8);
    embedded.map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_is_the_world_that_the_host_names() {
        let world = &CONTRACT.resolve.worlds[CONTRACT.world];
        let package = world.package.unwrap();

        assert_eq!(CONTRACT.resolve.id_of_name(package, &world.name), WORLD);
        let world = &CONTRACT.resolve.worlds[CONTRACT.configured];
        let name = CONTRACT.resolve.id_of_name(package, &world.name);
        assert_eq!(name, CONFIGURED_WORLD);
    }

    #[test]
    fn interfaces_with_functions_are_those_that_the_host_defines() {
        assert_eq!(
            CONTRACT.interfaces(),
            [
                PERMISSIONS,
                REQUEST,
                LOG,
                TRUSTED,
                RULES,
                COUNTERS,
                SETTINGS,
                CLOCK,
                EDITS
            ]
        );
    }

    #[test]
    fn functions_are_known_by_interface() {
        assert!(CONTRACT.offers_function(LOG, "log"));
        assert!(!CONTRACT.offers_function(LOG, "method"));
        assert!(!CONTRACT.offers_function("portcullis:policy/log@0.2.0", "log"));
        assert!(CONTRACT.offers("portcullis:policy/types@0.1.0"));
    }
}
