//! What the files of a package are laid out for.

/// A kind of package.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flavour {
    Debian,
    Rpm,
    /// A container, which has no manual pages, no shell and no service manager.
    Image,
    /// A tarball for any distribution.
    Static,
}
