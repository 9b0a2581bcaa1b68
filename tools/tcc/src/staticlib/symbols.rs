//! Makes objects with kernels fit to be linked with other code.
//!
//! Names of kernels are only unique within a model, so every symbol that an object defines gets the name of the
//! library and the number of the object in front, and becomes hidden. Functions that the runtime provides to kernels
//! where no C library has them get the runtime's names. Names live in a string table that symbols refer to by offset:
//! a longer table at the end of the file replaces the old one, and nothing else of the object moves.

use std::collections::BTreeMap;

use object::LittleEndian as LE;
use object::elf::{self, FileHeader64, STB_LOCAL, STV_HIDDEN};
use object::read::elf::{FileHeader, SectionHeader, Sym};
use tcc_runtime::code::externals;

use super::StaticLibraryError;
use super::linked::Machine;

/// Offsets in the structures of ELF64 (System V ABI, chapter 4).
const SECTION_HEADER_OFFSET: usize = 24;
const SECTION_HEADER_SIZE: usize = 32;
const SYMBOL_OTHER: usize = 5;

/// The functions of a library, by their names before the change.
pub(super) struct Kernels<'n> {
    prefix: &'n str,
    objects: usize,
    linked: BTreeMap<String, String>,
}

fn fail(reason: impl ToString) -> StaticLibraryError {
    StaticLibraryError::Object(reason.to_string())
}

impl<'n> Kernels<'n> {
    /// No functions yet, of a library with this prefix.
    pub(super) fn new(prefix: &'n str) -> Kernels<'n> {
        Kernels { prefix, objects: 0, linked: BTreeMap::new() }
    }

    /// Name of a function after the change.
    pub(super) fn linked(&self, symbol: &str) -> Result<&str, StaticLibraryError> {
        let linked = self.linked.get(symbol).map(String::as_str);
        linked.ok_or_else(|| fail(format!("kernel {symbol} is in no object")))
    }

    /// Name of a symbol after the change, none where it stays.
    fn rename(&mut self, name: &str, defined: bool) -> Result<Option<String>, StaticLibraryError> {
        if defined {
            let linked = format!("{}_{}_{name}", self.prefix, self.objects);
            // As in a bundle, the first object that defines a name wins.
            self.linked.entry(name.to_string()).or_insert_with(|| linked.clone());
            return Ok(Some(linked));
        }
        if let Some(linked) = externals::linked_name(name) {
            return Ok(Some(linked.to_string()));
        }
        // The linker makes a table of that name.
        if name == "_GLOBAL_OFFSET_TABLE_" || externals::standard(name).is_some() {
            return Ok(None);
        }
        Err(fail(format!("calls {name}, which no library is known to have")))
    }

    /// An object with changed names.
    pub(super) fn add(&mut self, object: &[u8], machine: Machine) -> Result<Vec<u8>, StaticLibraryError> {
        let header = FileHeader64::<LE>::parse(object).map_err(fail)?;
        if header.e_machine(LE) != machine.elf() {
            return Err(fail(format!("is not for {}", machine.name())));
        }
        let sections = header.sections(LE, object).map_err(fail)?;
        let symbols = sections.symbols(LE, object, elf::SHT_SYMTAB).map_err(fail)?;
        let mut changed = object.to_vec();
        if symbols.is_empty() {
            return Ok(changed);
        }
        let table = sections.section(symbols.section()).map_err(fail)?;
        let strings = sections.section(symbols.string_section()).map_err(fail)?;
        let mut names = strings.data(LE, object).map_err(fail)?.to_vec();
        for (index, symbol) in symbols.enumerate() {
            if symbol.st_bind() == STB_LOCAL || symbol.st_name(LE) == 0 {
                continue;
            }
            let name = symbol.name(LE, symbols.strings()).map_err(fail)?;
            let name = std::str::from_utf8(name).map_err(fail)?;
            let defined = !symbol.is_undefined(LE);
            let Some(linked) = self.rename(name, defined)? else { continue };
            let start = table.sh_offset(LE) as usize + index.0 * size_of::<elf::Sym64<LE>>();
            let offset = u32::try_from(names.len()).map_err(fail)?;
            names.extend(linked.bytes());
            names.push(0);
            changed[start..start + 4].copy_from_slice(&offset.to_le_bytes());
            if defined {
                changed[start + SYMBOL_OTHER] = STV_HIDDEN;
            }
        }
        let position =
            header.e_shoff(LE) as usize + symbols.string_section().0 * size_of::<elf::SectionHeader64<LE>>();
        let end = changed.len() as u64;
        for (field, value) in [(SECTION_HEADER_OFFSET, end), (SECTION_HEADER_SIZE, names.len() as u64)] {
            let start = position + field;
            changed[start..start + 8].copy_from_slice(&value.to_le_bytes());
        }
        changed.extend(names);
        self.objects += 1;
        Ok(changed)
    }
}

#[cfg(test)]
mod tests {
    use object::read::elf::ElfFile64;
    use object::write::{Object, StandardSection, Symbol, SymbolSection};
    use object::{
        Architecture, BinaryFormat, Endianness, Object as _, ObjectSymbol, SymbolFlags, SymbolKind,
        SymbolScope,
    };

    use super::{Kernels, Machine};

    /// An object that defines `defined` and calls the rest.
    fn object(defined: &str, undefined: &[&str]) -> Vec<u8> {
        let mut object = Object::new(BinaryFormat::Elf, Architecture::X86_64, Endianness::Little);
        let text = object.section_id(StandardSection::Text);
        object.append_section_data(text, &[0xc3], 1);
        let mut add = |name: &str, section, scope| {
            let (name, kind, flags) = (name.as_bytes().to_vec(), SymbolKind::Text, SymbolFlags::None);
            object.add_symbol(Symbol { name, value: 0, size: 0, kind, scope, weak: false, section, flags });
        };
        add(defined, SymbolSection::Section(text), SymbolScope::Dynamic);
        undefined.iter().for_each(|name| add(name, SymbolSection::Undefined, SymbolScope::Unknown));
        object.write().unwrap()
    }

    fn names(object: &[u8]) -> Vec<(String, bool)> {
        let file = ElfFile64::<object::LittleEndian>::parse(object).unwrap();
        let symbols = file.symbols().filter(|symbol| symbol.name() != Ok(""));
        symbols.map(|symbol| (symbol.name().unwrap().to_string(), symbol.is_undefined())).collect()
    }

    #[test]
    fn symbols_get_the_names_of_library_and_runtime() {
        let mut kernels = Kernels::new("net");
        let first = kernels.add(&object("add", &["expf", "__truncsfbf2"]), Machine::X86_64).unwrap();
        let expected = [("net_0_add", false), ("expf", true), ("tcc_single_to_bfloat", true)];
        assert_eq!(names(&first), expected.map(|(name, undefined)| (name.to_string(), undefined)));
        let second = kernels.add(&object("add", &[]), Machine::X86_64).unwrap();
        assert_eq!(names(&second), [("net_1_add".to_string(), false)]);
        assert_eq!(kernels.linked("add").unwrap(), "net_0_add");
        assert!(kernels.linked("subtract").is_err());
    }

    #[test]
    fn what_no_library_has_is_refused() {
        let mut kernels = Kernels::new("net");
        let error = kernels.add(&object("add", &["system"]), Machine::X86_64).unwrap_err();
        assert!(error.to_string().contains("calls system"), "{error}");
        assert!(kernels.add(&object("add", &[]), Machine::Aarch64).is_err());
        assert!(kernels.add(b"no object", Machine::X86_64).is_err());
    }
}
