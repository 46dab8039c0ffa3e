//! Adds functions to a module. They come after its own, so all indices stay.

use std::borrow::Cow;

use wasm_encoder::reencode::{Reencode, RoundtripReencoder};
use wasm_encoder::{
    CodeSection, Function, FunctionSection, Module, RawSection, TypeSection, ValType,
};
use wasmparser::{FunctionBody, Parser, Payload, TypeRef};

/// Functions of one type that are added to a module.
pub(crate) struct AddedFunctions {
    pub(crate) params: &'static [ValType],
    pub(crate) results: &'static [ValType],
    pub(crate) bodies: Vec<Function>,
}

/// The other changes of a module that gets functions. By default there are none.
pub(crate) trait Edit {
    /// The body of a function of the module's own; `None` if it cannot be rewritten.
    fn body<'f>(&mut self, file: &'f [u8], body: &FunctionBody<'f>) -> Option<Cow<'f, [u8]>> {
        file.get(body.range()).map(Cow::Borrowed)
    }

    /// Writes what comes before a section or replaces it, and returns whether it is replaced; `None` if it cannot be rewritten. Sections of
    /// types, functions and code are not among them.
    fn section(&mut self, _section: &Payload<'_>, _whole: &mut Module) -> Option<bool> {
        Some(false)
    }
}

/// The index of the first function that is added to a valid module: the number of its own and imported functions.
pub(crate) fn first_added(file: &[u8]) -> Option<u32> {
    let mut functions = 0;
    for payload in Parser::new(0).parse_all(file) {
        let payload = payload.ok()?;
        if let Payload::ImportSection(imports) = payload {
            for import in imports.into_imports() {
                functions += u32::from(matches!(import.ok()?.ty, TypeRef::Func(_)));
            }
        } else if let Payload::FunctionSection(section) = payload {
            functions += section.count();
        }
    }
    Some(functions)
}

impl AddedFunctions {
    /// The valid module with the added functions and other changes; `None` if it has no functions of its own, or cannot be rewritten.
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "all other sections are copied"
    )]
    pub(crate) fn add_to(&self, file: &[u8], edit: &mut impl Edit) -> Option<Vec<u8>> {
        let mut whole = Module::new();
        let mut code = CodeSection::new();
        let (mut ty, mut bodies) = (0, 0);
        for payload in Parser::new(0).parse_all(file) {
            let payload = payload.ok()?;
            match &payload {
                Payload::TypeSection(section) => {
                    let mut types = TypeSection::new();
                    RoundtripReencoder
                        .parse_type_section(&mut types, section.clone())
                        .ok()?;
                    ty = types.len();
                    let (params, results) = (self.params, self.results);
                    types
                        .ty()
                        .function(params.iter().copied(), results.iter().copied());
                    whole.section(&types);
                }
                Payload::FunctionSection(section) => {
                    let mut functions = FunctionSection::new();
                    RoundtripReencoder
                        .parse_function_section(&mut functions, section.clone())
                        .ok()?;
                    for _ in &self.bodies {
                        functions.function(ty);
                    }
                    whole.section(&functions);
                }
                Payload::CodeSectionStart { count, .. } => bodies = *count,
                Payload::CodeSectionEntry(body) => {
                    code.raw(&edit.body(file, body)?);
                    if code.len() == bodies {
                        for body in &self.bodies {
                            code.function(body);
                        }
                        whole.section(&code);
                    }
                }
                section => {
                    let Some((id, range)) = section.as_section() else {
                        continue;
                    };
                    if !edit.section(section, &mut whole)? {
                        let data = file.get(range)?;
                        whole.section(&RawSection { id, data });
                    }
                }
            }
        }
        (bodies > 0).then(|| whole.finish())
    }
}

#[cfg(test)]
mod tests {
    use wasm_encoder::Instruction;

    use super::*;

    struct NoEdit;

    impl Edit for NoEdit {}

    fn added(text: &str) -> Option<Vec<u8>> {
        let mut body = Function::new([]);
        body.instruction(&Instruction::I64Const(7));
        body.instruction(&Instruction::End);
        let functions = AddedFunctions {
            params: &[],
            results: &[ValType::I64],
            bodies: vec![body.clone(), body],
        };
        functions.add_to(&wat::parse_str(text).unwrap(), &mut NoEdit)
    }

    #[test]
    fn added_functions_come_after_those_of_the_module() {
        let module = r#"(module (import "a" "f" (func)) (import "a" "m" (memory 1))
            (func (export "own") (result i32) i32.const 1) (@custom "mine" "text"))"#;
        assert_eq!(first_added(&wat::parse_str(module).unwrap()), Some(2));
        let with_functions = added(module).unwrap();
        wasmparser::validate(&with_functions).unwrap();
        assert_eq!(first_added(&with_functions), Some(4));
        let text = with_functions.windows(4);
        assert_eq!(text.filter(|four| four == b"mine").count(), 1);
    }

    #[test]
    fn a_module_without_functions_of_its_own_gets_none() {
        assert_eq!(added("(module (memory 1))"), None);
        assert_eq!(added(r#"(module (import "a" "f" (func)))"#), None);
    }
}
