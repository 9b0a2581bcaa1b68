//! Names that follow from the file name of a library.

use std::path::Path;

use tcc_kernel::identifier::plain;

use super::StaticLibraryError;

/// What goes before names that do not start with a letter.
pub(super) const LEAD: &str = "m";

/// The name of a library: `libNAME.a` or `libNAME.so` gives `NAME.h` and `NAME.rs`, and names in C that start with `NAME_`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LibraryName {
    stem: String,
    prefix: String,
    shared: bool,
}

impl LibraryName {
    /// The name that the file name stands for. In C, what is no letter or digit becomes `_`.
    pub fn of(path: &Path) -> Result<LibraryName, StaticLibraryError> {
        let file = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let fail = |reason: &str| StaticLibraryError::Name { name: file.clone(), reason: reason.to_string() };
        let (stem, shared) = match (file.strip_suffix(".a"), file.strip_suffix(".so")) {
            (Some(stem), _) => (stem, false),
            (None, Some(stem)) => (stem, true),
            (None, None) => return Err(fail("the file name does not end in .a or .so")),
        };
        let stem = stem.strip_prefix("lib").unwrap_or(stem);
        if stem.is_empty() {
            return Err(fail("the file name has nothing but lib and its ending"));
        }
        let prefix = plain(stem, LEAD);
        if prefix == "tcc" || prefix.starts_with("tcc_") {
            return Err(fail("names that start with tcc_ belong to the runtime; choose another"));
        }
        Ok(LibraryName { stem: stem.to_string(), prefix, shared })
    }

    /// An identifier of C.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// What a linker takes after `-l` where the file name starts with `lib`.
    pub fn stem(&self) -> &str {
        &self.stem
    }

    /// True for a shared library.
    pub fn is_shared(&self) -> bool {
        self.shared
    }

    /// File name of the header.
    pub fn header_file(&self) -> String {
        format!("{}.h", self.stem)
    }

    /// File name of the module for Rust programs, whose name a `mod` item can have.
    pub fn module_file(&self) -> String {
        format!("{}.rs", self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::LibraryName;

    #[test]
    fn file_names_become_identifiers() {
        for (file, prefix, header) in [
            ("libmlp.a", "mlp", "mlp.h"),
            ("some/folder/libresnet-50.v2.a", "resnet_50_v2", "resnet-50.v2.h"),
            ("libmlp.so", "mlp", "mlp.h"),
            ("8bit.a", "m8bit", "8bit.h"),
            ("lib_x.a", "m_x", "_x.h"),
        ] {
            let name = LibraryName::of(file.as_ref()).unwrap();
            assert_eq!((name.prefix(), name.header_file().as_str()), (prefix, header));
        }
    }

    #[test]
    fn other_file_names_are_refused() {
        for file in ["mlp.dll", "mlp", "lib.a", ".a", "lib.so", "libtcc.a", "libtcc-session.a", ""] {
            assert!(LibraryName::of(file.as_ref()).is_err(), "{file}");
        }
    }
}
