//! Checks of the module structure of the crates, which run as tests of this crate.
//!
//! A file depends on the files that define the items that it names, through all re-exports. `mod x;`, re-exports of items further down, and
//! code for tests only are no dependencies.

mod arrows;
mod circles;
mod known;
mod names;
mod source;

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::Result;

use crate::workspace::{Workspace, root};
use arrows::{Arrows, Circle};
use known::{CIRCLES, MODULES, SCATTERED};
use source::Sources;

/// No files of a crate depend on each other.
#[test]
fn no_files_need_each_other() {
    let found: Vec<_> = everything()
        .iter()
        .flat_map(|crate_| Arrows::of(crate_).circles())
        .collect();
    compare(&found, CIRCLES);
}

/// No sibling modules of a crate depend on each other, even if their files do not.
#[test]
fn no_modules_need_each_other() {
    let found: Vec<_> = everything()
        .iter()
        .flat_map(|crate_| Arrows::of(crate_).of_siblings().circles())
        .collect();
    compare(&found, MODULES);
}

/// A type's inherent methods are in one file, or in the directory with its name.
#[test]
fn methods_are_where_their_type_is() {
    let found: BTreeSet<_> = everything()
        .iter()
        .flat_map(names::scattered_methods)
        .collect();
    let known: BTreeSet<_> = SCATTERED.iter().map(|line| line.to_string()).collect();

    let new: Vec<_> = found.difference(&known).collect();
    let gone: Vec<_> = known.difference(&found).collect();

    assert!(
        new.is_empty(),
        "types with methods in several files: {new:#?}"
    );
    assert!(
        gone.is_empty(),
        "in one file now, take them off the list: {gone:#?}"
    );
}

/// Fails on unknown cycles, and on known ones that no longer exist.
fn compare(found: &[Circle], known: &[&[&str]]) {
    let known: BTreeSet<Vec<String>> = known
        .iter()
        .map(|files| files.iter().map(|file| file.to_string()).collect())
        .collect();

    let new: Vec<_> = found
        .iter()
        .filter(|circle| !known.contains(&circle.files))
        .map(ToString::to_string)
        .collect();
    let gone: Vec<_> = known
        .iter()
        .filter(|files| !found.iter().any(|circle| circle.files == **files))
        .collect();

    assert!(new.is_empty(), "{} circles:\n{}", new.len(), new.join("\n"));
    assert!(
        gone.is_empty(),
        "no circles any more, take them off the list: {gone:#?}"
    );
}

/// Returns all crates of this workspace, libraries and binaries.
fn everything() -> Vec<Sources> {
    let workspace = Workspace::own().expect("cargo metadata works");
    let read = workspace
        .packages
        .iter()
        .filter_map(|package| package.manifest_path.parent())
        .flat_map(|folder| [folder.join("src/lib.rs"), folder.join("src/main.rs")])
        .filter(|file| file.exists())
        .map(|file| Sources::read(&file, &text_of))
        .collect::<Result<Vec<_>>>();
    read.expect("all files are read")
}

fn text_of(file: &Path) -> Option<String> {
    std::fs::read_to_string(file).ok()
}

/// Returns the path of a file relative to the repository.
fn name_of(file: &Path) -> String {
    file.strip_prefix(root())
        .unwrap_or(file)
        .display()
        .to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Creates a crate of a few files, given with their texts.
    fn sources(files: &[(&str, &str)]) -> Sources {
        let text_of = |file: &Path| {
            let found = files.iter().find(|(name, _)| Path::new(name) == file)?;
            Some(found.1.to_owned())
        };
        Sources::read(Path::new("lib.rs"), &text_of).expect("the files are read")
    }

    fn circles(files: &[(&str, &str)]) -> Vec<Vec<String>> {
        let circles = Arrows::of(&sources(files)).circles();
        circles.into_iter().map(|circle| circle.files).collect()
    }

    const LIB: (&str, &str) = ("lib.rs", "mod a;\nmod b;");

    #[test]
    fn files_that_name_each_other_are_a_circle() {
        let a = ("a.rs", "use crate::b::B;\npub struct A(B);");
        let b = ("b.rs", "pub struct B;\nfn f(a: super::a::A) {}");

        assert_eq!(circles(&[LIB, a, b]), [["a.rs", "b.rs"]]);
    }

    #[test]
    fn files_that_name_each_other_one_way_are_none() {
        let a = ("a.rs", "use crate::b::B;\npub struct A(B);");
        let b = (
            "b.rs",
            "pub struct B;\nimpl B { fn a(&self) -> u8 { self.a } }",
        );

        assert!(circles(&[LIB, a, b]).is_empty());
    }

    #[test]
    fn a_name_leads_through_re_exports_to_its_definition() {
        let lib = ("lib.rs", "mod a;\nmod b;\npub use a::A;\npub use b::*;");
        let a = ("a.rs", "pub struct A(super::B);");
        let b = ("b.rs", "use crate::A;\npub struct B(Box<A>);");

        assert_eq!(circles(&[lib, a, b]), [["a.rs", "b.rs"]]);
    }

    #[test]
    fn a_re_export_that_is_used_here_too_is_an_arrow() {
        let a = ("a/mod.rs", "mod c;\npub use c::C;\npub struct A;");
        let b = ("b.rs", "");
        let c = ("a/c.rs", "pub struct C(Box<super::A>);");
        assert!(circles(&[LIB, a, b, c]).is_empty());

        let a = ("a/mod.rs", "mod c;\npub use c::C;\npub struct A(C);");
        assert_eq!(circles(&[LIB, a, b, c]), [["a/c.rs", "a/mod.rs"]]);
    }

    #[test]
    fn a_prelude_is_no_arrow() {
        let lib = (
            "lib.rs",
            "mod a;\npub const N: u8 = 1;\npub mod prelude { pub use crate::a::A; }",
        );
        let a = ("a.rs", "pub struct A([u8; super::N as usize]);");

        assert!(circles(&[lib, a]).is_empty());
    }

    #[test]
    fn a_re_export_of_what_is_not_below_is_an_arrow() {
        let a = ("a.rs", "pub use crate::b::B;\npub struct A;");
        let b = ("b.rs", "use crate::a::A;\npub struct B(A);");

        assert_eq!(circles(&[LIB, a, b]), [["a.rs", "b.rs"]]);
    }

    #[test]
    fn a_module_that_is_imported_is_what_is_named_of_it() {
        let a = ("a.rs", "use crate::b;\npub fn f() { b::g() }");
        let b = ("b.rs", "use crate::a;\npub fn g() { let a = 1; a.f() }");
        assert!(circles(&[LIB, a, b]).is_empty());

        let b = ("b.rs", "use crate::a;\npub fn g() { a::f() }");
        assert_eq!(circles(&[LIB, a, b]), [["a.rs", "b.rs"]]);
    }

    #[test]
    fn macros_and_attributes_name_things() {
        let a = ("a.rs", "pub fn f() { println!(\"{}\", crate::b::G) }");
        let b = (
            "b.rs",
            "pub const G: u8 = 1;\n#[serde(with = \"crate::a::f\")]\nstruct S;",
        );

        assert_eq!(circles(&[LIB, a, b]), [["a.rs", "b.rs"]]);
    }

    #[test]
    fn tests_do_not_count() {
        let a = ("a.rs", "use crate::b::B;\npub struct A(B);");
        let b = (
            "b.rs",
            "pub struct B;\n#[cfg(test)]\nmod tests { use crate::a::A; }\n#[cfg(test)]\nmod more;",
        );

        assert!(circles(&[LIB, a, b]).is_empty());
    }

    #[test]
    fn modules_within_a_file_belong_to_it() {
        let a = ("a.rs", "mod inner { pub struct A(crate::b::B); }");
        let b = ("b.rs", "use crate::a::inner::A;\npub struct B(Box<A>);");

        assert_eq!(circles(&[LIB, a, b]), [["a.rs", "b.rs"]]);
    }

    #[test]
    fn a_missing_file_is_named() {
        let text_of = |file: &Path| (file == Path::new("lib.rs")).then(|| "mod gone;".to_owned());
        let error = Sources::read(Path::new("lib.rs"), &text_of).expect_err("a file is missing");

        assert_eq!(error.to_string(), "lib.rs: no file for `mod gone`");
    }

    #[test]
    fn modules_are_a_circle_though_their_files_are_none() {
        let a = ("a.rs", "mod x;\nmod y;");
        let (x, y) = (("a/x.rs", "use crate::b::B;"), ("a/y.rs", "pub struct Y;"));
        let b = ("b.rs", "pub struct B;\nmod z;");
        let z = ("b/z.rs", "use crate::a::y::Y;\nuse super::B;");
        let arrows = Arrows::of(&sources(&[LIB, a, x, y, b, z]));

        assert!(arrows.circles().is_empty());
        let found = arrows.of_siblings().circles();
        let found: Vec<_> = found.into_iter().map(|circle| circle.files).collect();
        assert_eq!(found, [["a", "b"]]);
    }

    #[test]
    fn methods_in_another_file_are_found() {
        let a = ("a.rs", "pub struct A;\nimpl A {}");
        let b = ("b.rs", "use crate::a::A;\nimpl A {}\nimpl Clone for A {}");

        assert_eq!(
            names::scattered_methods(&sources(&[LIB, a, b])),
            ["A: a.rs, b.rs"]
        );
    }

    #[test]
    fn methods_may_be_in_the_folder_of_their_type() {
        let a = ("a.rs", "mod c;\npub struct A;\nimpl A {}");
        let b = ("b.rs", "use crate::a::A;\nimpl Clone for A {}");
        let c = ("a/c.rs", "use super::A;\nimpl A {}");

        assert!(names::scattered_methods(&sources(&[LIB, a, b, c])).is_empty());
    }

    #[test]
    fn a_folder_has_the_name_of_the_type_whose_methods_are_in_it() {
        let found = |folder: &str, name: &str| {
            let lib = format!("mod {folder};");
            let home = format!("mod c;\npub struct {name};\nimpl {name} {{}}");
            let child = format!("use super::{name};\nimpl {name} {{}}");
            let (at, below) = (format!("{folder}.rs"), format!("{folder}/c.rs"));
            let files = [("lib.rs", &*lib), (&*at, &*home), (&*below, &*child)];
            names::scattered_methods(&sources(&files))
        };
        for folder in ["trusted_table", "trusted", "table"] {
            assert!(found(folder, "TrustedTable").is_empty(), "{folder}");
        }
        for folder in ["page", "trust", "able"] {
            let line = format!("TrustedTable: {folder}/c.rs, {folder}.rs");
            assert_eq!(found(folder, "TrustedTable"), [line]);
        }
    }
}
