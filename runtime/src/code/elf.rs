//! Reader of ELF64 little-endian relocatable objects (System V ABI, chapter 4), every field checked.

use crate::error::{Error, Result};

/// `EM_X86_64`.
pub const MACHINE_X86_64: u16 = 62;
/// `EM_AARCH64`.
pub const MACHINE_AARCH64: u16 = 183;

/// Section type `SHT_NOBITS`: takes memory, not file space.
pub const SECTION_NOBITS: u32 = 8;
/// Section type `SHT_PROGBITS`.
pub const SECTION_PROGBITS: u32 = 1;
const SECTION_SYMTAB: u32 = 2;
const SECTION_RELA: u32 = 4;
const SECTION_REL: u32 = 9;

/// Section flag `SHF_WRITE`.
pub const FLAG_WRITE: u64 = 1;
/// Section flag `SHF_ALLOC`.
pub const FLAG_ALLOC: u64 = 2;
/// Section flag `SHF_EXECINSTR`.
pub const FLAG_EXECUTE: u64 = 4;
/// Section flag `SHF_TLS`.
pub const FLAG_THREAD_LOCAL: u64 = 0x400;

/// `SHN_UNDEF`: the symbol is defined elsewhere.
pub const INDEX_UNDEFINED: u16 = 0;
/// `SHN_ABS`: the value is not an address.
pub const INDEX_ABSOLUTE: u16 = 0xfff1;

const HEADER_BYTES: usize = 64;
const SECTION_HEADER_BYTES: u64 = 64;
const SYMBOL_BYTES: u64 = 24;
const RELA_BYTES: u64 = 24;

/// A section header and its contents.
#[derive(Clone, Copy, Debug)]
pub struct Section<'a> {
    /// Name.
    pub name: &'a str,
    /// `sh_type`.
    pub kind: u32,
    /// `sh_flags`.
    pub flags: u64,
    /// Size in memory.
    pub size: u64,
    /// Alignment, a power of two.
    pub alignment: u64,
    /// Contents; empty for `SECTION_NOBITS`.
    pub data: &'a [u8],
    link: u32,
    info: u32,
}

/// A symbol.
#[derive(Clone, Copy, Debug)]
pub struct Symbol<'a> {
    /// Name, empty for sections.
    pub name: &'a str,
    /// Section that defines it, or one of the special indices.
    pub section: u16,
    /// Offset in the section.
    pub value: u64,
}

/// A relocation with addend.
#[derive(Clone, Copy, Debug)]
pub struct Relocation {
    /// First byte in the section that it changes.
    pub offset: u64,
    /// Type, by machine.
    pub kind: u32,
    /// Symbol it refers to.
    pub symbol: u32,
    /// Constant added.
    pub addend: i64,
}

/// A parsed object.
#[derive(Debug)]
pub struct Object<'a> {
    /// `e_machine`.
    pub machine: u16,
    /// All sections, by index.
    pub sections: Vec<Section<'a>>,
    /// All symbols, by index.
    pub symbols: Vec<Symbol<'a>>,
    /// Relocations: the section that they change, and the list.
    pub relocations: Vec<(usize, Vec<Relocation>)>,
}

/// A cursor that never reads beyond its bytes.
struct Reader<'a> {
    bytes: &'a [u8],
    what: &'a str,
}

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8]> {
        let (head, tail) =
            self.bytes.split_at_checked(count).ok_or_else(|| Error::code(self.what, "is truncated"))?;
        self.bytes = tail;
        Ok(head)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    fn u16(&mut self) -> Result<u16> {
        self.array().map(u16::from_le_bytes)
    }

    fn u32(&mut self) -> Result<u32> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Result<u64> {
        self.array().map(u64::from_le_bytes)
    }
}

fn slice<'a>(bytes: &'a [u8], offset: u64, size: u64, what: &str) -> Result<&'a [u8]> {
    let range =
        usize::try_from(offset).ok().zip(offset.checked_add(size).and_then(|end| end.try_into().ok()));
    range
        .and_then(|(start, end): (usize, usize)| bytes.get(start..end))
        .ok_or_else(|| Error::code(what, format!("{size} bytes at {offset} leave the object")))
}

fn string<'a>(table: &'a [u8], offset: u32, what: &str) -> Result<&'a str> {
    table
        .get(offset as usize..)
        .and_then(|rest| rest.split(|&byte| byte == 0).next())
        .and_then(|name| std::str::from_utf8(name).ok())
        .ok_or_else(|| Error::code(what, "has a name outside the string table"))
}

impl<'a> Object<'a> {
    /// Reads an object; nothing in it is trusted.
    pub fn parse(bytes: &'a [u8]) -> Result<Self> {
        let header = bytes.get(..HEADER_BYTES).ok_or_else(|| Error::code("ELF header", "is truncated"))?;
        let mut reader = Reader { bytes: header, what: "ELF header" };
        let ident = reader.take(16)?;
        if ident[..4] != *b"\x7fELF" || ident[4] != 2 || ident[5] != 1 {
            return Err(Error::code("ELF header", "is not that of a 64-bit little-endian object"));
        }
        let (kind, machine) = (reader.u16()?, reader.u16()?);
        if kind != 1 {
            return Err(Error::code("ELF header", format!("has file type {kind}, not relocatable")));
        }
        reader.take(4 + 8 + 8)?;
        let table_offset = reader.u64()?;
        reader.take(4 + 2 + 2 + 2)?;
        let (entry_size, count, names_index) = (reader.u16()?, reader.u16()?, reader.u16()?);
        if count > 0 && u64::from(entry_size) != SECTION_HEADER_BYTES {
            return Err(Error::code("ELF header", format!("has section headers of {entry_size} bytes")));
        }
        let table = slice(bytes, table_offset, u64::from(count) * SECTION_HEADER_BYTES, "section table")?;

        let mut sections = Vec::with_capacity(count.into());
        let mut names = Vec::with_capacity(count.into());
        for entry in table.chunks_exact(SECTION_HEADER_BYTES as usize) {
            let mut reader = Reader { bytes: entry, what: "section header" };
            let (name, kind) = (reader.u32()?, reader.u32()?);
            let (flags, _address, offset, size) =
                (reader.u64()?, reader.u64()?, reader.u64()?, reader.u64()?);
            let (link, info) = (reader.u32()?, reader.u32()?);
            let alignment = reader.u64()?.max(1);
            let data = match kind {
                SECTION_NOBITS | 0 => &[],
                _ => slice(bytes, offset, size, "section")?,
            };
            names.push(name);
            sections.push(Section { name: "", kind, flags, size, alignment, data, link, info });
        }
        if let Some(table) = sections.get(usize::from(names_index)).map(|section| section.data) {
            for (section, name) in sections.iter_mut().zip(names) {
                section.name = string(table, name, "section")?;
            }
        }
        let symbols = parse_symbols(&sections)?;
        let relocations = parse_relocations(&sections, symbols.len())?;
        Ok(Object { machine, sections, symbols, relocations })
    }
}

fn parse_symbols<'a>(sections: &[Section<'a>]) -> Result<Vec<Symbol<'a>>> {
    let Some(table) = sections.iter().find(|section| section.kind == SECTION_SYMTAB) else {
        return Ok(Vec::new());
    };
    let names = sections
        .get(table.link as usize)
        .ok_or_else(|| Error::code("symbol table", "names no string table"))?
        .data;
    let entries = table.data.chunks_exact(SYMBOL_BYTES as usize);
    if !entries.remainder().is_empty() {
        return Err(Error::code("symbol table", "is truncated"));
    }
    entries
        .map(|entry| {
            let mut reader = Reader { bytes: entry, what: "symbol" };
            let name = string(names, reader.u32()?, "symbol")?;
            reader.take(2)?;
            let section = reader.u16()?;
            let value = reader.u64()?;
            if let Some(home) = sections.get(usize::from(section))
                && section != INDEX_UNDEFINED
                && value > home.size
            {
                return Err(Error::code(format!("symbol `{name}`"), "lies outside its section"));
            }
            Ok(Symbol { name, section, value })
        })
        .collect()
}

fn parse_relocations(sections: &[Section], symbols: usize) -> Result<Vec<(usize, Vec<Relocation>)>> {
    let mut all = Vec::new();
    for section in sections {
        let target = section.info as usize;
        let Some(home) = sections.get(target) else { continue };
        if home.flags & FLAG_ALLOC == 0 {
            continue;
        }
        if section.kind == SECTION_REL {
            return Err(Error::code(section.name, "has relocations without addends"));
        }
        if section.kind != SECTION_RELA {
            continue;
        }
        let entries = section.data.chunks_exact(RELA_BYTES as usize);
        if !entries.remainder().is_empty() {
            return Err(Error::code(section.name, "is truncated"));
        }
        let list: Result<Vec<_>> = entries
            .map(|entry| {
                let mut reader = Reader { bytes: entry, what: section.name };
                let (offset, info, addend) = (reader.u64()?, reader.u64()?, reader.u64()? as i64);
                let (symbol, kind) = ((info >> 32) as u32, info as u32);
                if symbol as usize >= symbols {
                    return Err(Error::code(section.name, format!("refers to symbol {symbol} of {symbols}")));
                }
                Ok(Relocation { offset, kind, symbol, addend })
            })
            .collect();
        all.push((target, list?));
    }
    Ok(all)
}
