//! Integer weights packed into 32-bit words: GPTQ and AWQ.
//!
//! Both hold `q`, `scale` and `zero` with `w = (q - zero) * scale` for groups of inputs, and both become codes
//! `[out, in]` with parameters `[out, groups]`, which is what `tir.dequantize` takes.
//!
//! - GPTQ (Frantar et al. 2022; AutoGPTQ's files): `qweight` `[in / per, out]`, `per` codes of a word along the inputs,
//!   lowest bits first; `qzeros` `[groups, out / per]` along the outputs, holding `zero - 1` modulo the code range (format
//!   `gptq`) or `zero` (`gptq_v2`); `scales` `[groups, out]`; `g_idx` `[in]`, the group of each input.
//! - AWQ (Lin et al. 2023): `qweight` `[in, out / 8]` and `qzeros` `[groups, out / 8]`, both along the outputs, nibble `i`
//!   of a word for the output `[0, 2, 4, 6, 1, 3, 5, 7][i]` of its eight; `scales` `[groups, out]`.

use super::error::{LanguageModelError, Result};
use bytes::Bytes;
use tcc_ir::convert;
use tcc_ir::data::Data;
use tcc_ir::dtype::DType;

/// How a folder's weights are quantized.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Packing {
    /// Not at all.
    None,
    /// GPTQ.
    Gptq {
        /// Bits of a code.
        bits: usize,
        /// Inputs in a group, 0 for all.
        group: usize,
        /// True where zero points are stored less one.
        less_one: bool,
    },
    /// AWQ.
    Awq {
        /// Inputs in a group, 0 for all.
        group: usize,
    },
    /// 8-bit floats with scales of blocks.
    Float {
        /// Rows and columns of a block.
        block: [usize; 2],
    },
}

/// Integer weights as `tir.dequantize` takes them.
#[derive(Clone, Debug)]
pub struct Grouped {
    /// Codes `[out, in]`.
    pub codes: Data,
    /// Scales `[out, groups]`, `f32`.
    pub scales: Data,
    /// Zero points `[out, groups]`, of the type of the codes.
    pub zeros: Data,
    /// Inputs in a group.
    pub block: usize,
    /// The input that each column of the codes belongs to, where groups are not of neighbours.
    pub order: Option<Data>,
}

/// The tensors of a packed matrix.
pub(super) struct Parts<'n> {
    pub(super) name: &'n str,
    pub(super) codes: Data,
    pub(super) zeros: Option<Data>,
    pub(super) scales: Option<Data>,
    pub(super) groups: Option<Data>,
}

/// The output that nibble `i` of an AWQ word belongs to.
const AWQ_ORDER: [usize; 8] = [0, 2, 4, 6, 1, 3, 5, 7];

/// Unpacks a matrix `[rows, columns]`, that is `[out, in]`.
pub(super) fn unpack(parts: &Parts<'_>, [rows, columns]: [usize; 2], packing: &Packing) -> Result<Grouped> {
    let tensor = |suffix: &str, reason: String| LanguageModelError::Tensor {
        name: format!("{}{suffix}", parts.name),
        reason,
    };
    let (bits, group, awq) = match packing {
        Packing::Gptq { bits, group, .. } => (*bits, *group, false),
        Packing::Awq { group } => (4, *group, true),
        Packing::None | Packing::Float { .. } => {
            let reason = "packed integers, and config.json has no quantization_config for them";
            return Err(tensor(".qweight", reason.into()));
        }
    };
    let dtype = match bits {
        2 => DType::U2,
        4 => DType::U4,
        8 => DType::U8,
        _ => return Err(tensor(".qweight", format!("{bits} bits, expected 2, 4 or 8"))),
    };
    let per = 32 / bits;
    let block = if group == 0 { columns } else { group };
    if block == 0 || !columns.is_multiple_of(block) {
        return Err(tensor(".qweight", format!("{columns} inputs are no whole groups of {block}")));
    }
    let groups = columns / block;
    let packed = if awq { rows } else { columns };
    if !packed.is_multiple_of(per) || !rows.is_multiple_of(per) {
        return Err(tensor(".qweight", format!("[{rows}, {columns}] is no whole number of 32-bit words")));
    }
    let words = |data: &Option<Data>, suffix: &str, shape: [usize; 2]| -> Result<Vec<u32>> {
        let data = data.as_ref().ok_or_else(|| tensor(suffix, "missing".into()))?;
        if data.shape() != shape || data.dtype() != DType::I32 {
            return Err(tensor(suffix, format!("{data:?}, expected i32 of {shape:?}")));
        }
        Ok(data
            .bytes()
            .chunks_exact(4)
            .map(|word| u32::from_le_bytes([word[0], word[1], word[2], word[3]]))
            .collect())
    };
    let mask = (1u32 << bits) - 1;
    let code = |word: u32, place: usize| (word >> (place * bits) & mask) as u8;
    // The nibble of a word where the output is found.
    let place = |output: usize| match awq {
        true => AWQ_ORDER.iter().position(|found| *found == output % per).unwrap_or(0),
        false => output % per,
    };
    let shape = if awq { [columns, rows / per] } else { [columns / per, rows] };
    let codes = words(&Some(parts.codes.clone()), ".qweight", shape)?;
    let order = order(parts, columns, block).map_err(|reason| tensor(".g_idx", reason))?;
    let mut unpacked = Vec::with_capacity(rows * columns);
    for row in 0..rows {
        for column in 0..columns {
            let input = order.as_ref().map_or(column, |order| order[column]);
            unpacked.push(match awq {
                true => code(codes[input * (rows / per) + row / per], place(row)),
                false => code(codes[input / per * rows + row], input % per),
            });
        }
    }
    let zeros = words(&parts.zeros, ".qzeros", [groups, rows / per])?;
    let less_one = matches!(packing, Packing::Gptq { less_one: true, .. });
    let mut unpacked_zeros = Vec::with_capacity(rows * groups);
    for row in 0..rows {
        for group in 0..groups {
            let zero = code(zeros[group * (rows / per) + row / per], place(row));
            unpacked_zeros.push((zero + u8::from(less_one)) & mask as u8);
        }
    }
    let scales = parts.scales.as_ref().ok_or_else(|| tensor(".scales", "missing".into()))?;
    if scales.shape() != [groups, rows] || !scales.dtype().is_float() {
        return Err(tensor(".scales", format!("{scales:?}, expected floats of {:?}", [groups, rows])));
    }
    let scale = |row: usize, group: usize| {
        convert::element(scales, group * rows + row).map_or(0.0, |scalar| scalar.as_f64() as f32)
    };
    let transposed: Vec<f32> = (0..rows)
        .flat_map(|row| (0..groups).map(move |group| (row, group)))
        .map(|(row, group)| scale(row, group))
        .collect();
    let pack = |codes: Vec<u8>| Bytes::from(if bits == 8 { codes } else { convert::pack(dtype, &codes) });
    let order = order.map(|order| {
        let order: Vec<i64> = order.into_iter().map(|input| input as i64).collect();
        Data::from_i64(&[columns], &order)
    });
    Ok(Grouped {
        codes: Data::new(dtype, &[rows, columns], pack(unpacked))?,
        scales: Data::from_f32(&[rows, groups], &transposed)?,
        zeros: Data::new(dtype, &[rows, groups], pack(unpacked_zeros))?,
        block,
        order: order.transpose()?,
    })
}

/// Inputs in the order of their groups, where groups are not of neighbours.
fn order(parts: &Parts<'_>, columns: usize, block: usize) -> std::result::Result<Option<Vec<usize>>, String> {
    let Some(groups) = &parts.groups else { return Ok(None) };
    let groups = groups.to_integers().filter(|groups| groups.len() == columns);
    let groups = groups.ok_or_else(|| format!("expected {columns} integers"))?;
    if groups.iter().enumerate().all(|(column, group)| *group == (column / block) as i64) {
        return Ok(None);
    }
    let mut order: Vec<usize> = (0..columns).collect();
    order.sort_by_key(|column| groups[*column]);
    let even = order.iter().enumerate().all(|(place, column)| groups[*column] == (place / block) as i64);
    if even { Ok(Some(order)) } else { Err(format!("groups are not all of {block} inputs")) }
}
