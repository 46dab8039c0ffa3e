//! A module in an engine of its own, to compare rewritten modules with their originals.

use wasmtime::{Engine, Global, Instance, Memory, Module, Store, TypedFunc};

/// An instance of a module with a memory `memory`, whose bytes are those of [`first`].
pub(crate) struct Lab {
    pub(crate) store: Store<()>,
    pub(crate) instance: Instance,
    memory: Memory,
}

impl Lab {
    pub(crate) fn new(module: &Module) -> Self {
        let mut store = Store::new(module.engine(), ());
        let instance = Instance::new(&mut store, module, &[]).unwrap();
        let memory = instance.get_memory(&mut store, "memory").unwrap();
        for (at, byte) in memory.data_mut(&mut store).iter_mut().enumerate() {
            *byte = first(at);
        }
        Self {
            store,
            instance,
            memory,
        }
    }

    /// Calls an exported function; false if it traps.
    pub(crate) fn does(&mut self, name: &str, arguments: (u32, u32, u32)) -> bool {
        let function: TypedFunc<(u32, u32, u32), ()> =
            self.instance.get_typed_func(&mut self.store, name).unwrap();
        function.call(&mut self.store, arguments).is_ok()
    }

    /// The bytes of the memory.
    pub(crate) fn memory(&self) -> &[u8] {
        self.memory.data(&self.store)
    }

    /// The value of an exported global.
    pub(crate) fn global(&mut self, name: &str) -> u64 {
        let global: Global = self.instance.get_global(&mut self.store, name).unwrap();
        global.get(&mut self.store).unwrap_i64().cast_unsigned()
    }
}

/// The first value of the byte at this address: never 0, and different from that of most other bytes.
pub(crate) fn first(at: usize) -> u8 {
    (at.wrapping_mul(2_654_435_761) >> 16) as u8 | 1
}

/// Compiles the original module and the rewritten one.
pub(crate) fn compiled(files: [&[u8]; 2]) -> [Module; 2] {
    let engine = Engine::default();
    files.map(|file| Module::new(&engine, file).unwrap())
}
