//! The contract that policies implement: the WIT package of `policy-wit`.

use std::sync::LazyLock;

use wit_component::StringEncoding;
use wit_parser::{InterfaceId, Resolve, WorldId, WorldItem, WorldKey};

/// The WIT text of the contract.
pub const WIT: &str = include_str!("../../../policy-wit/routing-policy.wit");

/// The name of the world that policies are built for.
pub const WORLD: &str = "portcullis:policy/routing-policy@0.1.0";

/// The names of all worlds: for policies that export nothing but `decide`, that validate their settings, that are asked after failures, and
/// that do both.
pub(crate) const WORLDS: [&str; 4] = [
    WORLD,
    "portcullis:policy/configured-policy@0.1.0",
    "portcullis:policy/failover-policy@0.1.0",
    "portcullis:policy/configured-failover-policy@0.1.0",
];

pub(crate) const PERMISSIONS: &str = "portcullis:policy/permissions@0.1.0";
pub(crate) const REQUEST: &str = "portcullis:policy/request@0.1.0";
pub(crate) const LOG: &str = "portcullis:policy/log@0.1.0";
pub(crate) const TRUSTED: &str = "portcullis:policy/trusted@0.1.0";
pub(crate) const RULES: &str = "portcullis:policy/rules@0.1.0";
pub(crate) const COUNTERS: &str = "portcullis:policy/counters@0.1.0";
pub(crate) const SETTINGS: &str = "portcullis:policy/settings@0.1.0";
pub(crate) const CLOCK: &str = "portcullis:policy/clock@0.1.0";
pub(crate) const EDITS: &str = "portcullis:policy/edits@0.1.0";

pub(crate) const FORWARDING: &str = "portcullis:policy/forwarding@0.1.0";
pub(crate) const OUTCOME: &str = "portcullis:policy/outcome@0.1.0";
pub(crate) const DISPATCHER: &str = "portcullis:policy/dispatcher@0.1.0";
pub(crate) const PEER: &str = "portcullis:policy/peer@0.1.0";
pub(crate) const GUARD: &str = "portcullis:policy/guard@0.1.0";
pub(crate) const FLOWS: &str = "portcullis:policy/flows@0.1.0";

/// The export of a policy that validates its settings.
pub(crate) const VALIDATE: &str = "validate-settings";

/// The export of a policy that is asked when all targets of a request have failed.
pub(crate) const ON_FAILURE: &str = "on-failure";

/// The package of all interfaces of the contract, without a version.
pub(crate) const PACKAGE: &str = "portcullis:policy/";

/// The prefix of the names of custom sections that say which world a core module is built for.
pub(crate) const SECTION: &str = "component-type";

pub(crate) static CONTRACT: LazyLock<Contract> = LazyLock::new(Contract::parse);

/// The parsed contract.
pub(crate) struct Contract {
    resolve: Resolve,
    /// In the order of [`WORLDS`].
    worlds: [WorldId; WORLDS.len()],
    /// The same worlds, each with the imports of all.
    permitted: Resolve,
}

/// What a policy exports besides `decide`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Exports {
    /// `validate-settings`
    pub validate_settings: bool,
    /// `on-failure`
    pub on_failure: bool,
}

impl Exports {
    /// The index of the world in [`WORLDS`].
    fn world(self) -> usize {
        usize::from(self.validate_settings) + 2 * usize::from(self.on_failure)
    }
}

impl Contract {
    fn parse() -> Self {
        let mut resolve = Resolve::default();
        let package = resolve
            .push_source("routing-policy.wit", WIT)
            .expect("the contract is part of this build and has been parsed by its tests");
        let worlds = WORLDS.map(|name| {
            resolve
                .select_world(&[package], Some(name))
                .expect("the contract has this world")
        });
        let permitted = with_shared_imports(&resolve, worlds);
        Self {
            resolve,
            worlds,
            permitted,
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

    /// Checks that `component` fits the world of its exports.
    ///
    /// # Errors
    /// The first difference, as `wit-component` words it.
    pub(crate) fn check(&self, component: &[u8], exports: Exports) -> Result<(), String> {
        let world = self.worlds[exports.world()];
        wit_component::targets(&self.permitted, world, component)
            .map_err(|error| error.root_cause().to_string())
    }

    fn imported(&self) -> impl Iterator<Item = (String, InterfaceId)> {
        // The imports of all worlds are the same.
        let imports = &self.resolve.worlds[self.worlds[0]].imports;
        imports.iter().filter_map(|(key, item)| match (key, item) {
            (WorldKey::Interface(_), WorldItem::Interface { id, .. }) => {
                Some((self.resolve.name_world_key(key), *id))
            }
            _ => None,
        })
    }
}

/// Lets the policies of each world import what those of any world may. A module has one section for each world of the SDK, whatever it
/// exports, so that it imports the types of all of them.
fn with_shared_imports(resolve: &Resolve, worlds: [WorldId; WORLDS.len()]) -> Resolve {
    let mut permitted = resolve.clone();
    for from in worlds {
        for (key, item) in &resolve.worlds[from].imports {
            for world in worlds {
                let imports = &mut permitted.worlds[world].imports;
                let own = imports.entry(key.clone());
                own.or_insert_with(|| item.clone());
            }
        }
    }
    permitted
}

/// Adds the custom section that says that a core module is built for the contract. The bindings of the SDK add it at compile time;
/// policies in WebAssembly text format need this function.
///
/// # Errors
/// If the section cannot be encoded; the text is the encoder's.
pub fn embed(module: &mut Vec<u8>) -> Result<(), String> {
    embed_with(module, Exports::default())
}

/// The same for a policy that exports more than `decide`.
///
/// # Errors
/// As [`embed`].
pub fn embed_with(module: &mut Vec<u8>, exports: Exports) -> Result<(), String> {
    let resolve = &CONTRACT.resolve;
    let world = CONTRACT.worlds[exports.world()];
    let embedded =
        wit_component::embed_component_metadata(module, resolve, world, StringEncoding::UTF8);
    embedded.map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use wasm_encoder::{CustomSection, Section};

    use super::*;

    #[test]
    fn the_worlds_have_the_names_of_the_constants() {
        let names = CONTRACT.worlds.map(|id| {
            let world = &CONTRACT.resolve.worlds[id];
            let package = world.package.unwrap();
            CONTRACT.resolve.id_of_name(package, &world.name)
        });
        assert_eq!(names, WORLDS);
        let with = |validate_settings, on_failure| Exports {
            validate_settings,
            on_failure,
        };
        let exports = [
            with(false, false),
            with(true, false),
            with(false, true),
            with(true, true),
        ];
        assert_eq!(exports.map(Exports::world), [0, 1, 2, 3]);
    }

    #[test]
    fn the_imported_interfaces_of_all_worlds_are_the_same() {
        let imports = CONTRACT.worlds.map(|id| {
            let imports = CONTRACT.resolve.worlds[id].imports.keys();
            let interfaces = imports.filter(|key| matches!(key, WorldKey::Interface(_)));
            interfaces.cloned().collect::<Vec<_>>()
        });
        assert!(imports.iter().all(|other| *other == imports[0]));
    }

    #[test]
    fn a_module_may_have_the_sections_of_all_worlds() {
        let mut module = wat::parse_str(
            r#"(module
                (memory (export "memory") 1)
                (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) unreachable)
                (func (export "decide") (result i32) i32.const 16))"#,
        )
        .unwrap();
        let resolve = &CONTRACT.resolve;
        for world in CONTRACT.worlds {
            // As `wit-bindgen` does for the bindings of a world that are not exported.
            let mut imported = resolve.clone();
            imported.worlds[world].exports.clear();
            if world == CONTRACT.worlds[0] {
                imported.clone_from(resolve);
            }
            let section =
                wit_component::metadata::encode(&imported, world, StringEncoding::UTF8, None)
                    .unwrap();
            let custom = CustomSection {
                name: format!("{SECTION}:{}", imported.worlds[world].name).into(),
                data: section.into(),
            };
            custom.append_to(&mut module);
        }
        let component = wit_component::ComponentEncoder::default()
            .module(&module)
            .and_then(|mut encoder| encoder.encode())
            .unwrap();
        assert_eq!(CONTRACT.check(&component, Exports::default()), Ok(()));
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
                EDITS,
                FORWARDING,
                OUTCOME,
                DISPATCHER,
                PEER,
                GUARD,
                FLOWS
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
