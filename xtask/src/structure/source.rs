//! The modules of a crate: their definitions, imports and names.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use proc_macro2::{TokenStream, TokenTree};
use syn::visit::{self, Visit};
use syn::{Attribute, Item, Meta, UseTree, Visibility};

/// The segments of a path, as they are written.
pub(super) type Segments = Vec<String>;

/// The modules of one crate, the root first.
#[derive(Debug)]
pub(super) struct Sources {
    pub(super) modules: Vec<Module>,
}

/// A module, with a file of its own or within that of its parent.
#[derive(Debug, Default)]
pub(super) struct Module {
    pub(super) file: PathBuf,
    /// Its path from the root of the crate.
    pub(super) path: Segments,
    pub(super) parent: Option<usize>,
    pub(super) children: BTreeMap<String, usize>,
    /// The names of its items.
    pub(super) items: BTreeSet<String>,
    pub(super) imports: Vec<Import>,
    /// The modules from which it imports everything.
    pub(super) globs: Vec<Segments>,
    /// The paths in its code.
    pub(super) mentions: BTreeSet<Segments>,
    /// The types for which it has inherent methods.
    pub(super) inherent: BTreeSet<Segments>,
}

/// One name that a `use` item brings into its module.
#[derive(Debug)]
pub(super) struct Import {
    pub(super) name: String,
    pub(super) path: Segments,
    /// Whether other modules can use the name through this module.
    pub(super) exported: bool,
}

impl Sources {
    /// Reads a crate, starting with its root file.
    ///
    /// # Errors
    ///
    /// If a file is missing, or is not valid Rust.
    pub(super) fn read(root: &Path, text_of: &dyn Fn(&Path) -> Option<String>) -> Result<Self> {
        let mut sources = Self {
            modules: Vec::new(),
        };
        let folder = root.parent().unwrap_or_else(|| Path::new(""));
        sources.module(root, folder, None, text_of)?;
        Ok(sources)
    }

    /// Reads the module of a file, and those below it, whose files are in `folder`.
    fn module(
        &mut self,
        file: &Path,
        folder: &Path,
        name: Option<(usize, String)>,
        text_of: &dyn Fn(&Path) -> Option<String>,
    ) -> Result<()> {
        let text = text_of(file).with_context(|| format!("{} is missing", file.display()))?;
        let parsed = syn::parse_file(&text).with_context(|| format!("{}", file.display()))?;
        self.items(&parsed.items, file, folder, name, text_of)
    }

    fn items(
        &mut self,
        items: &[Item],
        file: &Path,
        folder: &Path,
        name: Option<(usize, String)>,
        text_of: &dyn Fn(&Path) -> Option<String>,
    ) -> Result<()> {
        let here = self.begin(file, name);
        for item in items.iter().filter(|item| !is_for_tests(attributes(item))) {
            let Item::Mod(below) = item else {
                let module = &mut self.modules[here];
                module.items.extend(name_of(item));
                module.visit_item(item);
                continue;
            };
            let name = below.ident.to_string();
            let inner = folder.join(&name);
            if let Some((_, items)) = &below.content {
                self.items(items, file, &inner, Some((here, name)), text_of)?;
                continue;
            }
            let candidates = [folder.join(format!("{name}.rs")), inner.join("mod.rs")];
            let Some(file) = candidates.iter().find(|file| text_of(file).is_some()) else {
                bail!("{}: no file for `mod {name}`", file.display());
            };
            self.module(file, &inner, Some((here, name)), text_of)?;
        }
        Ok(())
    }

    /// Adds an empty module below its parent.
    fn begin(&mut self, file: &Path, name: Option<(usize, String)>) -> usize {
        let here = self.modules.len();
        let mut module = Module {
            file: file.to_owned(),
            ..Module::default()
        };
        if let Some((parent, name)) = name {
            module.parent = Some(parent);
            module.path = self.modules[parent].path.clone();
            module.path.push(name.clone());
            self.modules[parent].children.insert(name, here);
        }
        self.modules.push(module);
        here
    }
}

impl Module {
    fn import(&mut self, tree: &UseTree, mut path: Segments, exported: bool) {
        match tree {
            UseTree::Path(tree) => {
                path.push(tree.ident.to_string());
                self.import(&tree.tree, path, exported);
            }
            UseTree::Name(tree) if tree.ident == "self" => self.import_as(None, path, exported),
            UseTree::Name(tree) => {
                path.push(tree.ident.to_string());
                self.import_as(None, path, exported);
            }
            UseTree::Rename(tree) => {
                if tree.ident != "self" {
                    path.push(tree.ident.to_string());
                }
                self.import_as(Some(tree.rename.to_string()), path, exported);
            }
            UseTree::Glob(_) => self.globs.push(path),
            UseTree::Group(group) => {
                for tree in &group.items {
                    self.import(tree, path.clone(), exported);
                }
            }
        }
    }

    fn import_as(&mut self, name: Option<String>, path: Segments, exported: bool) {
        let Some(name) = name.or_else(|| path.last().cloned()) else {
            return;
        };
        self.imports.push(Import {
            name,
            path,
            exported,
        });
    }

    /// Collects the paths in the arguments of a macro.
    fn tokens(&mut self, tokens: TokenStream) {
        let mut path = Segments::new();
        let mut colons = 0;
        let mut is_field = false;
        for token in tokens {
            match token {
                TokenTree::Ident(ident) => {
                    if colons != 2 || path.is_empty() {
                        self.mention(std::mem::take(&mut path));
                    }
                    if !is_field {
                        path.push(ident.to_string());
                    }
                    colons = 0;
                    is_field = false;
                    continue;
                }
                TokenTree::Punct(punct) if punct.as_char() == ':' => {
                    colons += 1;
                    continue;
                }
                TokenTree::Punct(punct) => is_field = punct.as_char() == '.',
                TokenTree::Group(group) => {
                    self.mention(std::mem::take(&mut path));
                    self.tokens(group.stream());
                    is_field = false;
                }
                // As in `#[serde(with = "crate::time")]`.
                TokenTree::Literal(literal) => {
                    let text = literal.to_string();
                    let path = text.trim_matches('"').split("::").map(str::to_owned);
                    self.mention(path.collect());
                    is_field = false;
                }
            }
            self.mention(std::mem::take(&mut path));
            colons = 0;
        }
        self.mention(path);
    }

    fn mention(&mut self, path: Segments) {
        if !path.is_empty() {
            self.mentions.insert(path);
        }
    }
}

impl<'ast> Visit<'ast> for Module {
    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        if item.leading_colon.is_none() {
            let exported = !matches!(item.vis, Visibility::Inherited);
            self.import(&item.tree, Segments::new(), exported);
        }
    }

    fn visit_item_impl(&mut self, item: &'ast syn::ItemImpl) {
        if let (None, syn::Type::Path(of)) = (&item.trait_, &*item.self_ty) {
            self.inherent.insert(segments(&of.path));
        }
        visit::visit_item_impl(self, item);
    }

    fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
        if !is_for_tests(&item.attrs) {
            visit::visit_impl_item_fn(self, item);
        }
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        if path.leading_colon.is_none() {
            self.mention(segments(path));
        }
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, item: &'ast syn::Macro) {
        self.visit_path(&item.path);
        self.tokens(item.tokens.clone());
    }

    fn visit_meta_list(&mut self, item: &'ast syn::MetaList) {
        self.visit_path(&item.path);
        self.tokens(item.tokens.clone());
    }
}

fn segments(path: &syn::Path) -> Segments {
    path.segments
        .iter()
        .map(|segment| segment.ident.to_string())
        .collect()
}

/// Whether code is for tests only: `#[cfg(test)]`, or `test` combined with something else.
fn is_for_tests(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| match &attribute.meta {
        Meta::List(list) if list.path.is_ident("cfg") => {
            let condition = list.tokens.to_string();
            condition == "test" || (condition.starts_with("all") && condition.contains("test"))
        }
        Meta::Path(_) | Meta::List(_) | Meta::NameValue(_) => false,
    })
}

#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "the other items are not examined, and syn adds more"
)]
fn attributes(item: &Item) -> &[Attribute] {
    match item {
        Item::Const(item) => &item.attrs,
        Item::Enum(item) => &item.attrs,
        Item::Fn(item) => &item.attrs,
        Item::Impl(item) => &item.attrs,
        Item::Macro(item) => &item.attrs,
        Item::Mod(item) => &item.attrs,
        Item::Static(item) => &item.attrs,
        Item::Struct(item) => &item.attrs,
        Item::Trait(item) => &item.attrs,
        Item::Type(item) => &item.attrs,
        Item::Union(item) => &item.attrs,
        Item::Use(item) => &item.attrs,
        _ => &[],
    }
}

#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "the other items have no name, and syn adds more"
)]
fn name_of(item: &Item) -> Option<String> {
    let name = match item {
        Item::Const(item) => &item.ident,
        Item::Enum(item) => &item.ident,
        Item::Fn(item) => &item.sig.ident,
        Item::Macro(item) => item.ident.as_ref()?,
        Item::Static(item) => &item.ident,
        Item::Struct(item) => &item.ident,
        Item::Trait(item) => &item.ident,
        Item::Type(item) => &item.ident,
        Item::Union(item) => &item.ident,
        _ => return None,
    };
    Some(name.to_string())
}
