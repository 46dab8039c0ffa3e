//! The reference documentation of the contract, generated from the WIT text.

use std::fmt::Write as _;

use wit_parser::{Docs, Function, Interface, Resolve, Type, TypeDefKind, TypeId, WorldItem};

/// The expected content of `docs/contract.md`.
///
/// # Panics
/// If the contract cannot be parsed.
pub fn page() -> String {
    let mut resolve = Resolve::default();
    let (package, _) = resolve
        .push_path(crate::root().join("policy-wit"))
        .expect("the contract can be parsed");
    let name = resolve.packages[package].name.clone();
    let world = |name| {
        let world = resolve.select_world(&[package], Some(name));
        &resolve.worlds[world.expect("the contract has this world")]
    };
    let more = [world("configured-policy"), world("failover-policy")];
    let world = world("routing-policy");
    let mut page = format!(
        "# The contract\n\n`{name}`, world `{}`. Generated from `policy-wit/routing-policy.wit`; `PORTCULLIS_WRITE=1 cargo nextest run -p \
         portcullis-tests --test contract` regenerates it.\n\n",
        world.name
    );
    page += &text(&resolve.packages[package].docs);
    page += &text(&world.docs);
    page += "## What a policy exports\n\n";
    for (_, item) in &world.exports {
        if let WorldItem::Function(function) = item {
            page += &entry(&resolve, function, "###");
        }
    }
    for more in more {
        let _ = writeln!(
            page,
            "A policy of the world `{}` also exports:\n",
            more.name
        );
        for (key, item) in &more.exports {
            if let WorldItem::Function(function) = item
                && !world.exports.contains_key(key)
            {
                page += &entry(&resolve, function, "###");
            }
        }
    }
    page += "A policy of the world `configured-failover-policy` exports both.\n\n";
    page += "## What it may import\n\nA policy imports only the interfaces that it uses.\n\n";
    for (_, item) in &world.imports {
        let WorldItem::Interface { id, .. } = item else {
            continue;
        };
        page += &interface(&resolve, &resolve.interfaces[*id]);
    }
    let page = page.trim_end();
    format!("{page}\n")
}

fn interface(resolve: &Resolve, interface: &Interface) -> String {
    let name = interface.name.as_deref().unwrap_or_default();
    let mut page = format!("### {name}\n\n{}", text(&interface.docs));
    for (_, id) in &interface.types {
        page += &definition(resolve, *id);
    }
    for function in interface.functions.values() {
        page += &entry(resolve, function, "####");
    }
    page
}

fn entry(resolve: &Resolve, function: &Function, heading: &str) -> String {
    let params = function.params.iter();
    let params = params.map(|param| format!("{}: {}", param.name, shown(resolve, &param.ty)));
    let result = function.result.as_ref();
    let result = result.map_or_else(String::new, |ty| format!(" -> {}", shown(resolve, ty)));
    format!(
        "{heading} {}\n\n```wit\n{}: func({}){result}\n```\n\n{}",
        function.name,
        function.name,
        params.collect::<Vec<_>>().join(", "),
        text(&function.docs)
    )
}

/// A type that has a name, with what it is made of.
fn definition(resolve: &Resolve, id: TypeId) -> String {
    let ty = &resolve.types[id];
    let Some(name) = &ty.name else {
        return String::new();
    };
    // A type of another interface, which is described there.
    if matches!(ty.kind, TypeDefKind::Type(_)) {
        return String::new();
    }
    let mut page = format!("#### {name} ({})\n\n{}", ty.kind.as_str(), text(&ty.docs));
    let mut part = |name: &str, ty: Option<&Type>, docs: &Docs| {
        let ty = ty.map_or_else(String::new, |ty| format!(": {}", shown(resolve, ty)));
        let docs = text(docs).trim_end().replace('\n', "\n  ");
        let docs = if docs.is_empty() {
            docs
        } else {
            format!(": {docs}")
        };
        let _infallible = writeln!(page, "- `{name}{ty}`{docs}");
    };
    match &ty.kind {
        TypeDefKind::Record(record) => {
            for field in &record.fields {
                part(&field.name, Some(&field.ty), &field.docs);
            }
        }
        TypeDefKind::Variant(variant) => {
            for case in &variant.cases {
                part(&case.name, case.ty.as_ref(), &case.docs);
            }
        }
        TypeDefKind::Enum(all) => {
            for case in &all.cases {
                part(&case.name, None, &case.docs);
            }
        }
        TypeDefKind::Resource
        | TypeDefKind::Handle(_)
        | TypeDefKind::Flags(_)
        | TypeDefKind::Tuple(_)
        | TypeDefKind::Option(_)
        | TypeDefKind::Result(_)
        | TypeDefKind::List(_)
        | TypeDefKind::Map(..)
        | TypeDefKind::FixedLengthList(..)
        | TypeDefKind::Future(_)
        | TypeDefKind::Stream(_)
        | TypeDefKind::Type(_)
        | TypeDefKind::Unknown => {}
    }
    page + "\n"
}

fn shown(resolve: &Resolve, ty: &Type) -> String {
    let Type::Id(id) = ty else {
        return primitive(ty).to_owned();
    };
    let ty = &resolve.types[*id];
    if let Some(name) = &ty.name {
        return name.clone();
    }
    match &ty.kind {
        TypeDefKind::Option(of) => format!("option<{}>", shown(resolve, of)),
        TypeDefKind::List(of) => format!("list<{}>", shown(resolve, of)),
        TypeDefKind::Result(of) => {
            let side = |of: &Option<Type>| match of {
                Some(of) => shown(resolve, of),
                None => "_".to_owned(),
            };
            format!("result<{}, {}>", side(&of.ok), side(&of.err))
        }
        other @ (TypeDefKind::Record(_)
        | TypeDefKind::Resource
        | TypeDefKind::Handle(_)
        | TypeDefKind::Flags(_)
        | TypeDefKind::Tuple(_)
        | TypeDefKind::Variant(_)
        | TypeDefKind::Enum(_)
        | TypeDefKind::Map(..)
        | TypeDefKind::FixedLengthList(..)
        | TypeDefKind::Future(_)
        | TypeDefKind::Stream(_)
        | TypeDefKind::Type(_)
        | TypeDefKind::Unknown) => other.as_str().to_owned(),
    }
}

fn primitive(ty: &Type) -> &'static str {
    match ty {
        Type::Bool => "bool",
        Type::U8 => "u8",
        Type::U16 => "u16",
        Type::U32 => "u32",
        Type::U64 => "u64",
        Type::S8 => "s8",
        Type::S16 => "s16",
        Type::S32 => "s32",
        Type::S64 => "s64",
        Type::F32 => "f32",
        Type::F64 => "f64",
        Type::Char => "char",
        Type::String => "string",
        Type::ErrorContext | Type::Id(_) => "?",
    }
}

fn text(docs: &Docs) -> String {
    match &docs.contents {
        Some(text) => format!("{}\n\n", text.trim()),
        None => String::new(),
    }
}
