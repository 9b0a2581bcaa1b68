//! Block-quantized weights in the order in which the kernels of `block_contract` read them.
//!
//! Output rows go in tiles of `lanes`, the lanes of a vector of f32. Along the summed axis a tile is a sequence of units of
//! 32 elements. The codes of a unit are unsigned and cut into bit planes of 8, 4, 2 or 1 bits; a plane of `p` bits takes `p`
//! vectors of `4 * lanes` bytes. Byte `4 * lane + j` of vector `v` holds at bit `p * i` the bits of element
//! `4 * (v * 8 / p + i) + j` of the lane's row, so that a shift and a mask give one operand of a four-way dot product.
//! Scales and offsets of the lanes of a tile stand side by side, one vector a group.
//!
//! A number is `scale * code + offset`: see [`Scale`] and [`Offset`] for where the two come from.

use bytes::Bytes;
use half::bf16;
use tcc_ir::block_format::{BlockFormat, IQ4_VALUES, WeightForm};
use tcc_ir::data::Data;
use tcc_ir::dim::Dim;
use tcc_ir::dtype::DType;
use tcc_ir::types::TensorType;

/// Elements along the summed axis whose codes stand together.
pub const UNIT: usize = 32;

/// Where the scale of a group comes from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Scale {
    /// A float a group.
    Plain(DType),
    /// An f16 for each 256 elements times an integer (`ui8` or `i8`) a group.
    Fine(DType),
    /// As `Fine`, in the low half of a byte whose high half is the offset's.
    Nibble,
}

/// Where the offset of a group comes from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Offset {
    /// `-zero * scale`.
    Constant(i64),
    /// `-zero * scale` with a `ui8` zero a group.
    Zero,
    /// A float a group.
    Plain(DType),
    /// Minus an f16 for each 256 elements times a `ui8` a group.
    Fine,
    /// As `Fine`, in the high half of the scale's byte.
    Nibble,
}

/// How weights of one form are held in memory.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Coding {
    /// Widths of the bit planes, low bits first.
    pub planes: &'static [usize],
    /// Elements that share scale and offset.
    pub group: usize,
    /// Scales.
    pub scale: Scale,
    /// Offsets.
    pub offset: Offset,
}

/// Elements that share the f16 of two-level scales.
pub const COARSE: usize = 256;

impl Coding {
    /// The coding of a block format.
    pub fn of_format(format: BlockFormat) -> Coding {
        use BlockFormat as B;
        let half = Scale::Plain(DType::F16);
        let (planes, group, scale, offset): (&[usize], _, _, _) = match format {
            B::Q4_0 => (&[4], 32, half, Offset::Constant(8)),
            B::Q4_1 => (&[4], 32, half, Offset::Plain(DType::F16)),
            B::Q5_0 => (&[4, 1], 32, half, Offset::Constant(16)),
            B::Q5_1 => (&[4, 1], 32, half, Offset::Plain(DType::F16)),
            B::Q8_0 => (&[8], 32, half, Offset::Constant(128)),
            B::Q2K => (&[2], 16, Scale::Nibble, Offset::Nibble),
            B::Q3K => (&[2, 1], 16, Scale::Fine(DType::I8), Offset::Constant(4)),
            B::Q4K => (&[4], 32, Scale::Fine(DType::U8), Offset::Fine),
            B::Q5K => (&[4, 1], 32, Scale::Fine(DType::U8), Offset::Fine),
            B::Q6K => (&[4, 2], 16, Scale::Fine(DType::I8), Offset::Constant(32)),
            B::Q8K => (&[8], 256, Scale::Plain(DType::F32), Offset::Constant(128)),
            // The table's values take a byte: no arithmetic gives them from their index.
            B::Iq4Nl => (&[8], 32, half, Offset::Constant(128)),
            B::Iq4Xs => (&[8], 32, Scale::Fine(DType::I8), Offset::Constant(128)),
            B::Tq1_0 | B::Tq2_0 => (&[2], 256, half, Offset::Constant(1)),
        };
        Coding { planes, group, scale, offset }
    }

    /// The coding of integer codes with a scale and a zero a block; `None` for types without a kernel.
    pub fn of_affine(codes: DType, scale: DType, block: usize) -> Option<Coding> {
        let planes: &[usize] = match codes.bits() {
            2 => &[2],
            4 => &[4],
            8 => &[8],
            _ => return None,
        };
        let whole = block == UNIT / 2 || (block != 0 && block.is_multiple_of(UNIT));
        let scale = match scale {
            DType::F16 => DType::F16,
            DType::F32 | DType::BF16 => DType::F32,
            _ => return None,
        };
        (codes.is_integer() && whole).then_some(Coding {
            planes,
            group: block,
            scale: Scale::Plain(scale),
            offset: Offset::Zero,
        })
    }

    /// Bits of a code.
    pub fn bits(&self) -> usize {
        self.planes.iter().sum()
    }
}

/// One of the arrays that packed weights consist of.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum BlockPart {
    /// Bit planes, as bytes.
    Codes,
    /// Bit planes, the four bytes of a lane as a `ui32`.
    Words,
    /// What [`Scale`] reads a group.
    Scale,
    /// What [`Offset`] reads a group.
    Offset,
    /// The f16 factor of the scales for each 256 elements.
    CoarseScale,
    /// The f16 factor of the offsets for each 256 elements.
    CoarseOffset,
}

/// One array of packed weights.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BlockPacking {
    /// The operands that hold the weights.
    pub operands: Vec<usize>,
    /// How the operands hold them.
    pub form: WeightForm,
    /// How the packed arrays do.
    pub coding: Coding,
    /// Which array.
    pub part: BlockPart,
    /// Rows, all experts' together, `outputs` each.
    pub rows: usize,
    /// Rows of a matrix.
    pub outputs: usize,
    /// Length of a row.
    pub depth: usize,
    /// Rows of a tile.
    pub lanes: usize,
}

/// A row of weights taken apart; numbers of groups as their bits.
#[derive(Default)]
struct Row {
    codes: Vec<u8>,
    scale: Vec<u32>,
    offset: Vec<u32>,
    coarse_scale: Vec<u32>,
    coarse_offset: Vec<u32>,
}

impl BlockPacking {
    /// Element type of the packed array.
    fn dtype(&self) -> DType {
        match self.part {
            BlockPart::Codes => DType::U8,
            BlockPart::Words => DType::U32,
            BlockPart::Scale => match self.coding.scale {
                Scale::Plain(dtype) | Scale::Fine(dtype) => dtype,
                Scale::Nibble => DType::U8,
            },
            BlockPart::Offset => match self.coding.offset {
                Offset::Plain(dtype) => dtype,
                _ => DType::U8,
            },
            BlockPart::CoarseScale | BlockPart::CoarseOffset => DType::F16,
        }
    }

    /// Elements along the summed axis that an entry stands for.
    fn run(&self) -> usize {
        match self.part {
            BlockPart::Codes | BlockPart::Words => UNIT,
            BlockPart::Scale | BlockPart::Offset => self.coding.group,
            BlockPart::CoarseScale | BlockPart::CoarseOffset => COARSE,
        }
    }

    fn shape(&self) -> Vec<usize> {
        let tiles = self.rows / self.outputs.max(1) * self.outputs.div_ceil(self.lanes);
        let runs = self.depth / self.run();
        match self.part {
            BlockPart::Codes => vec![tiles, runs, self.coding.bits(), 4 * self.lanes],
            BlockPart::Words => vec![tiles, runs, self.coding.bits(), self.lanes],
            _ => vec![tiles, runs, self.lanes],
        }
    }

    /// Type of the packed array.
    pub fn packed(&self) -> TensorType {
        TensorType::new(self.dtype(), self.shape().into_iter().map(Dim::from).collect())
    }

    /// The array from the operands' contents; the error says what does not fit.
    pub fn apply(&self, operands: &[Data]) -> Result<Data, String> {
        let shape = self.shape();
        let tile_bytes = shape[1..].iter().product::<usize>() * self.dtype().size();
        let mut bytes = vec![0u8; shape[0] * tile_bytes];
        let threads = std::thread::available_parallelism().map_or(1, |threads| threads.get());
        let share = shape[0].div_ceil(threads).max(1);
        std::thread::scope(|scope| {
            let part = |(number, part): (usize, &mut [u8])| -> Result<(), String> {
                for (tile, out) in part.chunks_exact_mut(tile_bytes.max(1)).enumerate() {
                    self.tile(operands, number * share + tile, out)?;
                }
                Ok(())
            };
            let parts: Vec<_> = bytes
                .chunks_mut((share * tile_bytes).max(1))
                .enumerate()
                .map(|job| scope.spawn(move || part(job)))
                .collect();
            parts.into_iter().try_for_each(|part| part.join().unwrap_or(Err("packing failed".into())))
        })?;
        Data::new(self.dtype(), &shape, Bytes::from(bytes)).map_err(|error| error.to_string())
    }

    /// Writes one tile.
    fn tile(&self, operands: &[Data], tile: usize, out: &mut [u8]) -> Result<(), String> {
        let tiles = self.outputs.div_ceil(self.lanes);
        let (matrix, first) = (tile / tiles, tile % tiles * self.lanes);
        let size = self.dtype().size();
        for lane in 0..self.lanes.min(self.outputs - first) {
            let row = self.row(operands, matrix * self.outputs + first + lane)?;
            let values = match self.part {
                BlockPart::Codes | BlockPart::Words => {
                    let unit_bytes = self.coding.bits() * 4 * self.lanes;
                    for (codes, out) in row.codes.chunks_exact(UNIT).zip(out.chunks_exact_mut(unit_bytes)) {
                        self.planes(codes, lane, out);
                    }
                    continue;
                }
                BlockPart::Scale => row.scale,
                BlockPart::Offset => row.offset,
                BlockPart::CoarseScale => row.coarse_scale,
                BlockPart::CoarseOffset => row.coarse_offset,
            };
            for (run, value) in values.iter().enumerate() {
                let to = (run * self.lanes + lane) * size;
                out[to..to + size].copy_from_slice(&value.to_le_bytes()[..size]);
            }
        }
        Ok(())
    }

    /// Writes the codes of a unit of one lane.
    fn planes(&self, codes: &[u8], lane: usize, out: &mut [u8]) {
        let (mut vector, mut low) = (0, 0);
        for width in self.coding.planes {
            let per_byte = 8 / width;
            for (index, code) in codes.iter().enumerate() {
                let (quad, member) = (index / 4, index % 4);
                let bits = (code >> low) & (0xffu16 >> (8 - width)) as u8;
                let at = (vector + quad / per_byte) * 4 * self.lanes + 4 * lane + member;
                out[at] |= bits << (width * (quad % per_byte));
            }
            vector += width;
            low += width;
        }
    }

    fn row(&self, operands: &[Data], number: usize) -> Result<Row, String> {
        let mut row = Row::default();
        match (self.form, operands) {
            (WeightForm::Blocks(format), [data]) => {
                let length = format.row_bytes(self.depth).ok_or("a row is no whole number of blocks")?;
                let bytes =
                    data.bytes().get(number * length..(number + 1) * length).ok_or("too few bytes")?;
                bytes.chunks_exact(format.bytes()).for_each(|block| row.push(format, block));
            }
            (WeightForm::Affine { block }, [codes, scale, zero]) => {
                let bias = if codes.dtype().is_signed() { 1 << (codes.dtype().bits() - 1) } else { 0 };
                let groups = self.depth / block;
                for index in number * self.depth..(number + 1) * self.depth {
                    row.codes.push((integer(codes, index)? + bias) as u8);
                }
                for index in number * groups..(number + 1) * groups {
                    row.scale.push(float(scale, index)?);
                    row.offset.push((integer(zero, index)? + bias) as u8 as u32);
                }
            }
            _ => return Err("the number of operands does not fit the form".into()),
        }
        Ok(row)
    }
}

/// An integer of at most 8 bits.
fn integer(data: &Data, index: usize) -> Result<i32, String> {
    let bits = data.dtype().bits();
    let byte = *data.bytes().get(index * bits / 8).ok_or("too few integers")?;
    let code = i32::from(byte >> (index * bits % 8)) & ((1 << bits) - 1);
    let signed = data.dtype().is_signed() && code >> (bits - 1) == 1;
    Ok(if signed { code - (1 << bits) } else { code })
}

/// The bits of an f16, or of an `f32` for wider types.
fn float(data: &Data, index: usize) -> Result<u32, String> {
    let size = data.dtype().size();
    let bytes = data.bytes().get(index * size..(index + 1) * size).ok_or("too few scales")?;
    match data.dtype() {
        DType::F16 => Ok(u32::from(u16::from_le_bytes([bytes[0], bytes[1]]))),
        DType::BF16 => Ok(bf16::from_le_bytes([bytes[0], bytes[1]]).to_f32().to_bits()),
        DType::F32 => Ok(u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])),
        other => Err(format!("scales of {other} are not packed")),
    }
}

fn half_bits(block: &[u8], at: usize) -> u32 {
    u32::from(u16::from_le_bytes([block[at], block[at + 1]]))
}

impl Row {
    /// Takes a block apart; [`tcc_ir::block_format`] describes the formats.
    fn push(&mut self, format: BlockFormat, block: &[u8]) {
        use BlockFormat as B;
        let fifth = |at: usize, index: usize| (block[at + index / 8] >> (index % 8) & 1) << 4;
        match format {
            B::Q4_0 => self.nibbles(&block[2..], |_, code| code),
            B::Q4_1 => self.nibbles(&block[4..], |_, code| code),
            B::Q5_0 => self.nibbles(&block[6..], |index, code| code | fifth(2, index)),
            B::Q5_1 => self.nibbles(&block[8..], |index, code| code | fifth(4, index)),
            B::Q8_0 => self.codes.extend(block[2..].iter().map(|byte| byte ^ 128)),
            B::Iq4Nl => self.nibbles(&block[2..], |_, code| table_code(code)),
            B::Q2K => {
                self.pairs(&block[16..80], |_, code| code);
                self.scale.extend(block[..16].iter().map(|byte| u32::from(*byte)));
                self.coarse_scale.push(half_bits(block, 80));
                self.coarse_offset.push(half_bits(block, 82));
            }
            B::Q3K => {
                self.pairs(&block[32..96], |index, code| code | (block[index % 32] >> (index / 32) & 1) << 2);
                let packed = &block[96..108];
                for group in 0..16 {
                    let low = packed[group % 8] >> (4 * (group / 8)) & 15;
                    let high = packed[8 + group % 4] >> (2 * (group / 4)) & 3;
                    self.scale.push((i32::from(low | high << 4) - 32) as u8 as u32);
                }
                self.coarse_scale.push(half_bits(block, 108));
            }
            B::Q4K | B::Q5K => {
                let start = if format == B::Q4K { 16 } else { 48 };
                for group in 0..8 {
                    for (index, byte) in block[start + 32 * (group / 2)..][..32].iter().enumerate() {
                        let low = byte >> (4 * (group % 2)) & 15;
                        let high = if format == B::Q5K { block[16 + index] >> group & 1 } else { 0 };
                        self.codes.push(low | high << 4);
                    }
                }
                let packed = &block[4..16];
                for group in 0..8 {
                    let (scale, min) = if group < 4 {
                        (packed[group] & 63, packed[group + 4] & 63)
                    } else {
                        let late = packed[group + 4];
                        (late & 15 | (packed[group - 4] >> 6) << 4, late >> 4 | (packed[group] >> 6) << 4)
                    };
                    self.scale.push(scale.into());
                    self.offset.push(min.into());
                }
                self.coarse_scale.push(half_bits(block, 0));
                self.coarse_offset.push(half_bits(block, 2));
            }
            B::Q6K => {
                for index in 0..256 {
                    let (chunk, place, byte) = (index / 128, index / 32 % 4, index % 32);
                    let low = block[64 * chunk + 32 * (place % 2) + byte] >> (4 * (place / 2)) & 15;
                    let high = block[128 + 32 * chunk + byte] >> (2 * place) & 3;
                    self.codes.push(low | high << 4);
                }
                self.scale.extend(block[192..208].iter().map(|byte| u32::from(*byte)));
                self.coarse_scale.push(half_bits(block, 208));
            }
            B::Q8K => {
                self.codes.extend(block[4..260].iter().map(|byte| byte ^ 128));
                self.scale.push(u32::from_le_bytes([block[0], block[1], block[2], block[3]]));
            }
            B::Iq4Xs => {
                let high = u16::from_le_bytes([block[2], block[3]]);
                for group in 0..8 {
                    self.nibbles(&block[8 + 16 * group..][..16], |_, code| table_code(code));
                    let low = i32::from(block[4 + group / 2] >> (4 * (group % 2)) & 15);
                    let scale = low | i32::from(high >> (2 * group) & 3) << 4;
                    self.scale.push((scale - 32) as u8 as u32);
                }
                self.coarse_scale.push(half_bits(block, 0));
            }
            B::Tq1_0 => {
                for (bytes, count) in [(&block[..32], 5), (&block[32..48], 5), (&block[48..52], 4)] {
                    for place in 0..count {
                        let digit =
                            |byte: &u8| ((u16::from(byte.wrapping_mul(3u8.pow(place))) * 3) >> 8) as u8;
                        self.codes.extend(bytes.iter().map(digit));
                    }
                }
                self.scale.push(half_bits(block, 52));
            }
            B::Tq2_0 => {
                self.pairs(&block[..64], |_, code| code);
                self.scale.push(half_bits(block, 64));
            }
        }
        match format {
            B::Q4_0 | B::Q5_0 | B::Q8_0 | B::Iq4Nl => self.scale.push(half_bits(block, 0)),
            B::Q4_1 | B::Q5_1 => {
                self.scale.push(half_bits(block, 0));
                self.offset.push(half_bits(block, 2));
            }
            _ => {}
        }
    }

    /// All low halves of the bytes, then all high ones.
    fn nibbles(&mut self, bytes: &[u8], code: impl Fn(usize, u8) -> u8) {
        for half in 0..2 {
            let start = half * bytes.len();
            let codes = bytes.iter().enumerate().map(|(at, byte)| code(start + at, byte >> (4 * half) & 15));
            self.codes.extend(codes);
        }
    }

    /// Runs of 32 bytes, the four pairs of bits of each one after the other.
    fn pairs(&mut self, bytes: &[u8], code: impl Fn(usize, u8) -> u8) {
        for (run, bytes) in bytes.chunks_exact(32).enumerate() {
            for place in 0..4 {
                let start = 128 * run + 32 * place;
                let codes =
                    bytes.iter().enumerate().map(|(at, byte)| code(start + at, byte >> (2 * place) & 3));
                self.codes.extend(codes);
            }
        }
    }
}

/// The byte of a value of the iq4 table, 128 above it.
fn table_code(index: u8) -> u8 {
    IQ4_VALUES[usize::from(index)] as u8 ^ 128
}
