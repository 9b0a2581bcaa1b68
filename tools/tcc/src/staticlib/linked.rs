//! The object that binds manifest, weights and kernels together: `tcc_linked_program` of the runtime, in constants.

use bytes::Bytes;
use object::write::{Object, Relocation, StandardSection, Symbol, SymbolId, SymbolSection};
use object::{
    Architecture, BinaryFormat, Endianness, RelocationEncoding, RelocationFlags, RelocationKind, SectionKind,
    SymbolFlags, SymbolKind, SymbolScope, elf,
};
use tcc_runtime::capi::linked::LINKED_VERSION;
use tcc_runtime::manifest::{ALIGNMENT, Manifest};

use super::StaticLibraryError;

/// Size of an address on every machine here.
const WORD: u64 = 8;

/// A machine whose programs are made of ELF objects of 64 bits, least significant byte first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Machine {
    X86_64,
    Aarch64,
    Riscv64,
}

impl Machine {
    /// The machine that a manifest names.
    pub(super) fn of(arch: &str) -> Result<Machine, StaticLibraryError> {
        [Machine::X86_64, Machine::Aarch64, Machine::Riscv64]
            .into_iter()
            .find(|machine| machine.name() == arch)
            .ok_or_else(|| StaticLibraryError::Machine { arch: arch.to_string() })
    }

    /// Its name as Rust spells it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Machine::X86_64 => "x86_64",
            Machine::Aarch64 => "aarch64",
            Machine::Riscv64 => "riscv64",
        }
    }

    /// Its number in ELF headers.
    pub(super) fn elf(self) -> u16 {
        match self {
            Machine::X86_64 => elf::EM_X86_64,
            Machine::Aarch64 => elf::EM_AARCH64,
            Machine::Riscv64 => elf::EM_RISCV,
        }
    }

    fn architecture(self) -> Architecture {
        match self {
            Machine::X86_64 => Architecture::X86_64,
            Machine::Aarch64 => Architecture::Aarch64,
            Machine::Riscv64 => Architecture::Riscv64,
        }
    }
}

/// One word of a table.
enum Word {
    Number(u64),
    Address(SymbolId, u64),
}

/// An object under construction.
struct Writer {
    object: Object<'static>,
}

impl Writer {
    /// A function that another object defines.
    fn foreign(&mut self, name: &str) -> SymbolId {
        self.object.add_symbol(Symbol {
            name: name.as_bytes().to_vec(),
            value: 0,
            size: 0,
            kind: SymbolKind::Unknown,
            scope: SymbolScope::Unknown,
            weak: false,
            section: SymbolSection::Undefined,
            flags: SymbolFlags::None,
        })
    }

    /// Appends a table of words, whose addresses the linker fills in.
    fn table(&mut self, words: &[Word]) -> Result<(SymbolId, u64), StaticLibraryError> {
        let section = self.object.section_id(StandardSection::ReadOnlyDataWithRel);
        let bytes: Vec<u8> = words
            .iter()
            .flat_map(|word| match word {
                Word::Number(number) => number.to_le_bytes(),
                Word::Address(..) => [0; WORD as usize],
            })
            .collect();
        let start = self.object.append_section_data(section, &bytes, WORD);
        for (index, word) in words.iter().enumerate() {
            let Word::Address(symbol, offset) = *word else { continue };
            let relocation = Relocation {
                offset: start + index as u64 * WORD,
                symbol,
                addend: offset as i64,
                flags: RelocationFlags::Generic {
                    kind: RelocationKind::Absolute,
                    encoding: RelocationEncoding::Generic,
                    size: 64,
                },
            };
            self.object
                .add_relocation(section, relocation)
                .map_err(|error| StaticLibraryError::Object(error.to_string()))?;
        }
        Ok((self.object.section_symbol(section), start))
    }
}

/// The object that defines `PREFIX_program`. `functions` are the symbols of the manifest's kernels.
pub(super) fn object(
    manifest: &Manifest,
    weights: &[Bytes],
    functions: &[&str],
    prefix: &str,
    machine: Machine,
) -> Result<Vec<u8>, StaticLibraryError> {
    let fail = |error: &dyn std::fmt::Display| StaticLibraryError::Object(error.to_string());
    let json = serde_json::to_vec(manifest).map_err(|error| fail(&error))?;
    let object = Object::new(BinaryFormat::Elf, machine.architecture(), Endianness::Little);
    let mut writer = Writer { object };

    let constants = writer.object.section_id(StandardSection::ReadOnlyData);
    let json_start = writer.object.append_section_data(constants, &json, WORD);
    let json_section = writer.object.section_symbol(constants);
    let blobs = writer.object.add_section(Vec::new(), b".rodata.weights".to_vec(), SectionKind::ReadOnlyData);
    let blob_section = writer.object.section_symbol(blobs);
    let mut blob_words = Vec::with_capacity(2 * weights.len());
    for (weight, blob) in weights.iter().zip(&manifest.weights) {
        let alignment = u64::from(blob.alignment).max(ALIGNMENT);
        let start = writer.object.append_section_data(blobs, weight, alignment);
        blob_words.extend([Word::Address(blob_section, start), Word::Number(weight.len() as u64)]);
    }

    let mut kernel_words = Vec::with_capacity(functions.len());
    for function in functions {
        let symbol = match writer.object.symbol_id(function.as_bytes()) {
            Some(symbol) => symbol,
            None => writer.foreign(function),
        };
        kernel_words.push(Word::Address(symbol, 0));
    }
    let (tables, kernels_start) = writer.table(&kernel_words)?;
    let (_, blobs_start) = writer.table(&blob_words)?;
    // The order of the fields of `LinkedProgram`.
    let words = [
        Word::Number(LINKED_VERSION as u64),
        Word::Address(json_section, json_start),
        Word::Number(json.len() as u64),
        Word::Address(tables, kernels_start),
        Word::Number(functions.len() as u64),
        Word::Address(tables, blobs_start),
        Word::Number(weights.len() as u64),
    ];
    let (_, program) = writer.table(&words)?;
    let section = writer.object.section_id(StandardSection::ReadOnlyDataWithRel);
    // Visible, because a shared library exports it, and with its size: programs copy as many bytes of it into their own memory.
    writer.object.add_symbol(Symbol {
        name: format!("{prefix}_program").into_bytes(),
        value: program,
        size: words.len() as u64 * WORD,
        kind: SymbolKind::Data,
        scope: SymbolScope::Dynamic,
        weak: false,
        section: SymbolSection::Section(section),
        flags: SymbolFlags::None,
    });
    // Without this, linkers make the stack of the program executable.
    writer.object.add_section(Vec::new(), b".note.GNU-stack".to_vec(), SectionKind::Other);
    writer.object.write().map_err(|error| fail(&error))
}
