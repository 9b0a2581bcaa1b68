//! NumPy `.npy` and `.npz` files.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::Path;

use npyz::{Endianness, NpyHeader, Order, TypeChar};
use tcc_ir::data::Data;
use tcc_ir::dtype::DType;
use zip::result::ZipError;
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipArchive, ZipWriter};

/// Why a file could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum NpzError {
    /// The file itself.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// The archive around the arrays.
    #[error("{0}")]
    Archive(#[from] ZipError),
    /// An element type that NumPy or the IR lacks.
    #[error("no NumPy element type for `{0}`")]
    Type(String),
    /// The array is larger than its bytes or the address space.
    #[error("the array does not hold what its header says")]
    Length,
}

/// Reads an array.
///
/// # Errors
/// See [`NpzError`].
pub fn read_npy(mut reader: impl Read) -> Result<Data, NpzError> {
    let header = NpyHeader::from_reader(&mut reader)?;
    let npyz::DType::Plain(kind) = header.dtype() else { return Err(NpzError::Type(header.dtype().descr())) };
    let unsupported = || NpzError::Type(kind.to_string());
    let dtype = numpy_type(kind.type_char(), kind.size_field()).ok_or_else(unsupported)?;
    if kind.endianness() == Endianness::Big && dtype.size() > 1 {
        return Err(unsupported());
    }
    let shape: Vec<usize> = header
        .shape()
        .iter()
        .map(|&dim| usize::try_from(dim))
        .collect::<Result<_, _>>()
        .map_err(|_| NpzError::Length)?;
    let count =
        shape.iter().try_fold(1usize, |product, &dim| product.checked_mul(dim)).ok_or(NpzError::Length)?;
    let length = dtype.bytes_for(count).ok_or(NpzError::Length)?;
    let mut bytes = Vec::new();
    // A bound instead of `read_exact` into a buffer of the declared length, which a damaged header could blow up.
    reader.take(length as u64 + 1).read_to_end(&mut bytes)?;
    if header.order() == Order::Fortran && shape.len() > 1 {
        bytes = row_major(&bytes, &shape, dtype.size());
    }
    Data::new(dtype, &shape, bytes.into()).map_err(|_| NpzError::Length)
}

/// Reads every array of an archive.
///
/// # Errors
/// See [`NpzError`].
pub fn read_npz(path: &Path) -> Result<BTreeMap<String, Data>, NpzError> {
    let mut archive = ZipArchive::new(BufReader::new(File::open(path)?))?;
    let mut arrays = BTreeMap::new();
    for index in 0..archive.len() {
        let entry = archive.by_index(index)?;
        if let Some(name) = entry.name()?.strip_suffix(".npy").map(str::to_owned) {
            arrays.insert(name, read_npy(entry)?);
        }
    }
    Ok(arrays)
}

/// Writes an array.
///
/// # Errors
/// See [`NpzError`]; the types under 16 bits that NumPy lacks have no form in a file.
pub fn write_npy(mut writer: impl Write, data: &Data) -> Result<(), NpzError> {
    let kind = numpy_name(data.dtype()).ok_or_else(|| NpzError::Type(data.dtype().to_string()))?;
    let dims: String = data.shape().iter().map(|dim| format!("{dim},")).collect();
    let mut header = format!("{{'descr': '{kind}', 'fortran_order': False, 'shape': ({dims}), }}");
    // Magic, version, length and header fill whole blocks of 64 bytes, the last of them a line feed.
    let padding = 64 - (10 + header.len() + 1) % 64;
    header.push_str(&" ".repeat(padding % 64));
    header.push('\n');
    let length = u16::try_from(header.len()).map_err(|_| NpzError::Length)?;
    writer.write_all(b"\x93NUMPY\x01\x00")?;
    writer.write_all(&length.to_le_bytes())?;
    writer.write_all(header.as_bytes())?;
    Ok(writer.write_all(data.bytes())?)
}

/// Writes an archive of arrays, uncompressed.
///
/// # Errors
/// See [`NpzError`].
pub fn write_npz<'a>(
    path: &Path,
    arrays: impl IntoIterator<Item = (&'a str, &'a Data)>,
) -> Result<(), NpzError> {
    let mut archive = ZipWriter::new(BufWriter::new(File::create(path)?));
    let options = SimpleFileOptions::default().compression_method(CompressionMethod::Stored).large_file(true);
    for (name, data) in arrays {
        archive.start_file(format!("{name}.npy"), options)?;
        write_npy(&mut archive, data)?;
    }
    archive.finish()?.flush()?;
    Ok(())
}

fn numpy_type(kind: TypeChar, size: u64) -> Option<DType> {
    Some(match (kind, size) {
        (TypeChar::Bool, 1) => DType::Bool,
        (TypeChar::Float, 2) => DType::F16,
        (TypeChar::Float, 4) => DType::F32,
        (TypeChar::Float, 8) => DType::F64,
        (TypeChar::Int, 1) => DType::I8,
        (TypeChar::Int, 2) => DType::I16,
        (TypeChar::Int, 4) => DType::I32,
        (TypeChar::Int, 8) => DType::I64,
        (TypeChar::Uint, 1) => DType::U8,
        (TypeChar::Uint, 2) => DType::U16,
        (TypeChar::Uint, 4) => DType::U32,
        (TypeChar::Uint, 8) => DType::U64,
        _ => return None,
    })
}

fn numpy_name(dtype: DType) -> Option<&'static str> {
    Some(match dtype {
        DType::Bool => "|b1",
        DType::F16 => "<f2",
        DType::F32 => "<f4",
        DType::F64 => "<f8",
        DType::I8 => "|i1",
        DType::I16 => "<i2",
        DType::I32 => "<i4",
        DType::I64 => "<i8",
        DType::U8 => "|u1",
        DType::U16 => "<u2",
        DType::U32 => "<u4",
        DType::U64 => "<u8",
        _ => return None,
    })
}

/// Column-major elements in row-major order.
fn row_major(bytes: &[u8], shape: &[usize], size: usize) -> Vec<u8> {
    let count: usize = shape.iter().product();
    let mut out = Vec::with_capacity(bytes.len());
    for flat in 0..count {
        let (mut rest, mut index, mut stride) = (flat, 0, count);
        for &dim in shape.iter().rev() {
            stride /= dim;
            index += rest % dim * stride;
            rest /= dim;
        }
        out.extend(bytes.get(index * size..(index + 1) * size).unwrap_or_default());
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn arrays_survive_a_round_trip(shape in prop::collection::vec(0usize..5, 0..4), which in 0usize..12) {
            let dtype = DType::ALL.iter().copied().filter(|&d| numpy_name(d).is_some()).nth(which).unwrap();
            let count: usize = shape.iter().product();
            let bytes: Vec<u8> = (0..count * dtype.size()).map(|i| if dtype == DType::Bool { i as u8 & 1 } else { i as u8 }).collect();
            let data = Data::new(dtype, &shape, bytes.into()).unwrap();
            let mut file = Vec::new();
            write_npy(&mut file, &data).unwrap();
            prop_assert_eq!((file.len() - count * dtype.size()) % 64, 0);
            prop_assert_eq!(read_npy(&file[..]).unwrap(), data);
        }
    }

    #[test]
    fn archives_keep_names_with_slashes_and_colons() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.npz");
        let data = Data::from_i64(&[2], &[1, -1]).unwrap();
        write_npz(&path, [("gpu_0/data_0", &data), ("a:0", &data)]).unwrap();
        let read = read_npz(&path).unwrap();
        assert_eq!(read.keys().collect::<Vec<_>>(), ["a:0", "gpu_0/data_0"]);
        assert_eq!(read["a:0"], data);
    }

    #[test]
    fn column_major_arrays_are_transposed() {
        let mut file = Vec::new();
        write_npy(&mut file, &Data::from_i64(&[2, 3], &[0, 3, 1, 4, 2, 5]).unwrap()).unwrap();
        let at = file.windows(5).position(|window| window == b"False").unwrap();
        file.splice(at..at + 5, *b"True ");
        assert_eq!(read_npy(&file[..]).unwrap(), Data::from_i64(&[2, 3], &[0, 1, 2, 3, 4, 5]).unwrap());
    }

    #[test]
    fn short_and_foreign_files_are_errors() {
        let mut file = Vec::new();
        write_npy(&mut file, &Data::from_i64(&[4], &[1, 2, 3, 4]).unwrap()).unwrap();
        assert!(matches!(read_npy(&file[..file.len() - 1]), Err(NpzError::Length)));
        assert!(read_npy(&b"not an array"[..]).is_err());
        let at = file.windows(3).position(|window| window == b"<i8").unwrap();
        file[at] = b'>';
        assert!(matches!(read_npy(&file[..]), Err(NpzError::Type(_))));
    }
}
