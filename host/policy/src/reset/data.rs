//! Lets the code of a module copy its data into memory, in place of an image that the runtime maps.
//!
//! An image is worth its cost if it is mapped many times and rarely written. An instance that is reset is made once for each worker, and
//! its statics are on the page that each call writes. The image of such a module only costs: a page in the file of its machine code, a page of
//! its own, a file descriptor and a memory map, for each policy that a host has.

use wasm_encoder::reencode::{Reencode, RoundtripReencoder};
use wasm_encoder::{ConstExpr, DataSection};
use wasmparser::{ConstExpr as Offset, DataKind, DataSectionReader, Operator};

/// Bytes of memory, from the first to the last that has data, above which the data stays an image: pages that no call writes are then in memory
/// once for all workers.
const MOST: u64 = 16 << 10;

/// The section with each offset written as a sum, from which the runtime makes no image. `None` if the data stays as it is, because it is large
/// or its place is known only at run time.
pub(super) fn without_image(section: &DataSectionReader<'_>) -> Option<DataSection> {
    let mut data = DataSection::new();
    let (mut first, mut end) = (u64::MAX, 0);
    for segment in section.clone() {
        let segment = segment.ok()?;
        let DataKind::Active {
            memory_index,
            offset_expr,
        } = segment.kind
        else {
            RoundtripReencoder.parse_data(&mut data, segment).ok()?;
            continue;
        };
        let at = constant(&offset_expr)?;
        first = first.min(u64::from(at.cast_unsigned()));
        end = end.max(u64::from(at.cast_unsigned()) + segment.data.len() as u64);
        let sum = ConstExpr::i32_const(at).with_i32_const(0).with_i32_add();
        data.active(memory_index, &sum, segment.data.iter().copied());
    }
    (end.saturating_sub(first) <= MOST).then_some(data)
}

/// The value of an expression that is one constant.
fn constant(offset: &Offset<'_>) -> Option<i32> {
    let mut operators = offset.get_operators_reader();
    let Ok(Operator::I32Const { value }) = operators.read() else {
        return None;
    };
    matches!(operators.read(), Ok(Operator::End)).then_some(value)
}

#[cfg(test)]
mod tests {
    use wasm_encoder::Module;
    use wasmparser::{Parser, Payload};
    use wasmtime::{Engine, Instance, Store};

    use super::*;

    /// The module with the data section of [`without_image`], if there is one.
    fn rewritten(text: &str) -> Option<Vec<u8>> {
        let file = wat::parse_str(text).unwrap();
        let mut whole = Module::new();
        for payload in Parser::new(0).parse_all(&file) {
            let payload = payload.unwrap();
            if let Payload::DataSection(section) = &payload {
                whole.section(&without_image(section)?);
            } else if let Some((id, range)) = payload.as_section() {
                let data = &file[range];
                whole.section(&wasm_encoder::RawSection { id, data });
            }
        }
        Some(whole.finish())
    }

    /// The memory of a new instance, and the size of the machine code in bytes.
    fn compiled(file: &[u8]) -> (Vec<u8>, usize) {
        let engine = Engine::default();
        let module = wasmtime::Module::new(&engine, file).unwrap();
        let size = module.serialize().unwrap().len();
        let mut store = Store::new(&engine, ());
        let instance = Instance::new(&mut store, &module, &[]).unwrap();
        let memory = instance.get_memory(&mut store, "memory").unwrap();
        (memory.data(&store).to_vec(), size)
    }

    #[test]
    fn the_memory_of_an_instance_is_the_same_without_a_page_for_its_image() {
        let text = r#"(module (memory (export "memory") 1)
            (data (i32.const 40000) "first") (data (i32.const 40003) "second") (data "passive")
            (data (i32.const 50000) "third") (data (i32.const 45000) ""))"#;
        let (expected, with_image) = compiled(&wat::parse_str(text).unwrap());
        let (found, without) = compiled(&rewritten(text).unwrap());
        assert_eq!(&found[40_000..40_009], b"firsecond");
        assert!(found == expected);
        assert!(without + 3 * 4096 < with_image, "{without} {with_image}");
    }

    #[test]
    fn data_that_reaches_over_many_pages_stays_an_image() {
        let text = |end: u32| {
            format!(r#"(module (memory 1) (data (i32.const 8) "a") (data (i32.const {end}) "z"))"#)
        };
        assert!(rewritten(&text(8 + 16_383)).is_some());
        assert!(rewritten(&text(8 + 16_384)).is_none());
    }

    #[test]
    fn data_whose_place_is_computed_stays_as_it_is() {
        let text =
            r#"(module (memory 1) (global $g i32 (i32.const 9)) (data (global.get $g) "data"))"#;
        assert!(rewritten(text).is_none());
    }
}
