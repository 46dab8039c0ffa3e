//! The contract that policies implement: the WIT package of `policy-wit`.

use std::sync::LazyLock;

use wit_component::StringEncoding;
use wit_parser::{InterfaceId, Resolve, WorldId, WorldItem, WorldKey};

/// The WIT text of the contract.
pub const WIT: &str = include_str!("../../../policy-wit/routing-policy.wit");

/// The name of the world that policies are built for.
pub const WORLD: &str = "portcullis:policy/routing-policy@0.1.0";

/// The name of the world for policies that validate their settings.
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

/// The export of a policy that validates its settings.
pub(crate) const VALIDATE: &str = "validate-settings";

/// The package of all interfaces of the contract, without a version.
pub(crate) const PACKAGE: &str = "portcullis:policy/";

/// The prefix of the names of custom sections that say which world a core module is built for.
pub(crate) const SECTION: &str = "component-type";

pub(crate) static CONTRACT: LazyLock<Contract> = LazyLock::new(Contract::parse);

/// The parsed contract.
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

    /// Whether a policy may import `interface`.
    pub(crate) fn offers(&self, interface: &str) -> bool {
        self.imported().any(|(name, _)| name == interface)
    }

    /// Whether a policy may import `function` of `interface`.
    pub(crate) fn offers_function(&self, interface: &str, function: &str) -> bool {
        self.imported().any(|(name, id)| {
            name == interface && self.resolve.interfaces[id].functions.contains_key(function)
        })
    }

    /// The names of all interfaces with functions.
    pub(crate) fn interfaces(&self) -> Vec<String> {
        let with_functions = self
            .imported()
            .filter(|&(_, id)| !self.resolve.interfaces[id].functions.is_empty());
        with_functions.map(|(name, _)| name).collect()
    }

    /// Checks that `component` fits its world. Policies that validate their settings (`is_configured`) have a world of their own.
    ///
    /// # Errors
    /// The first difference, as `wit-component` words it.
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

/// Adds the custom section that says that a core module is built for the contract. The bindings of the SDK add it at compile time;
/// policies in WebAssembly text format need this function.
///
/// # Errors
/// If the section cannot be encoded; the text is the encoder's.
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
    fn the_worlds_have_the_names_of_the_constants() {
        let world = &CONTRACT.resolve.worlds[CONTRACT.world];
        let package = world.package.unwrap();

        assert_eq!(CONTRACT.resolve.id_of_name(package, &world.name), WORLD);
        let world = &CONTRACT.resolve.worlds[CONTRACT.configured];
        let name = CONTRACT.resolve.id_of_name(package, &world.name);
        assert_eq!(name, CONFIGURED_WORLD);
    }

    #[test]
    fn the_host_defines_all_interfaces_with_functions() {
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
    fn functions_belong_to_their_interface() {
        assert!(CONTRACT.offers_function(LOG, "log"));
        assert!(!CONTRACT.offers_function(LOG, "method"));
        assert!(!CONTRACT.offers_function("portcullis:policy/log@0.2.0", "log"));
        assert!(CONTRACT.offers("portcullis:policy/types@0.1.0"));
    }
}
