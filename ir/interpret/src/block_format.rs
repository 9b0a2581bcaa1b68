//! Numbers of block-quantized weights, from the definitions of the ggml formats; products and sums are those of `f32`.

use half::f16;
use tcc_ir::block_format::{BlockFormat, IQ4_VALUES};
use tcc_ir::dtype::DType;

use crate::error::{Error, Result};
use crate::tensor::{Contents, Tensor};

/// The numbers of rows of blocks, in `dtype`.
pub(crate) fn decode(bytes: &Tensor, format: BlockFormat, dtype: DType, shape: &[usize]) -> Result<Tensor> {
    let bytes: Vec<u8> = bytes.integers()?.iter().map(|byte| *byte as u8).collect();
    let mut values = Vec::with_capacity(bytes.len() / format.bytes() * format.elements());
    bytes.chunks_exact(format.bytes()).for_each(|block| decode_block(format, block, &mut values));
    if values.len() != shape.iter().product::<usize>() {
        return Err(Error::operands(format!(
            "{} bytes are no {} tensor of {shape:?}",
            bytes.len(),
            format.text()
        )));
    }
    Tensor::new(dtype, shape, Contents::from_numbers(dtype, values.into_iter().map(f64::from)))
}

fn half(block: &[u8], at: usize) -> f32 {
    f16::from_le_bytes([block[at], block[at + 1]]).to_f32()
}

/// Appends the numbers of one block.
fn decode_block(format: BlockFormat, block: &[u8], out: &mut Vec<f32>) {
    use BlockFormat as B;
    match format {
        B::Q4_0 => nibbles(&block[2..], |_, q| half(block, 0) * (f32::from(q) - 8.0), out),
        B::Q4_1 => nibbles(&block[4..], |_, q| half(block, 0) * f32::from(q) + half(block, 2), out),
        B::Q5_0 => {
            let fifth = |index: usize| block[2 + index / 8] >> (index % 8) & 1;
            nibbles(&block[6..], |index, q| half(block, 0) * (f32::from(q | fifth(index) << 4) - 16.0), out);
        }
        B::Q5_1 => {
            let fifth = |index: usize| block[4 + index / 8] >> (index % 8) & 1;
            let value = |index, q| half(block, 0) * f32::from(q | fifth(index) << 4) + half(block, 2);
            nibbles(&block[8..], value, out);
        }
        B::Q8_0 => out.extend(block[2..].iter().map(|q| half(block, 0) * f32::from(*q as i8))),
        B::Q2K => q2_k(block, out),
        B::Q3K => q3_k(block, out),
        B::Q4K => {
            for group in 0..8 {
                let (scale, min) = scale_and_min(block, group);
                let codes = &block[16 + 32 * (group / 2)..][..32];
                out.extend(codes.iter().map(|code| scale * f32::from(code >> (4 * (group % 2)) & 15) - min));
            }
        }
        B::Q5K => {
            for group in 0..8 {
                let (scale, min) = scale_and_min(block, group);
                let codes = block[48 + 32 * (group / 2)..][..32].iter().zip(&block[16..48]);
                out.extend(codes.map(|(code, fifth)| {
                    let q = code >> (4 * (group % 2)) & 15 | (fifth >> group & 1) << 4;
                    scale * f32::from(q) - min
                }));
            }
        }
        B::Q6K => q6_k(block, out),
        B::Q8K => {
            let scale = f32::from_le_bytes([block[0], block[1], block[2], block[3]]);
            out.extend(block[4..260].iter().map(|q| scale * f32::from(*q as i8)));
        }
        B::Iq4Nl => nibbles(&block[2..], |_, q| half(block, 0) * f32::from(IQ4_VALUES[usize::from(q)]), out),
        B::Iq4Xs => {
            let high = u16::from_le_bytes([block[2], block[3]]);
            for group in 0..8 {
                let low = block[4 + group / 2] >> (4 * (group % 2)) & 15;
                let scale = i32::from(low) | i32::from(high >> (2 * group) & 3) << 4;
                let scale = half(block, 0) * (scale - 32) as f32;
                let codes = &block[8 + 16 * group..][..16];
                nibbles(codes, |_, q| scale * f32::from(IQ4_VALUES[usize::from(q)]), out);
            }
        }
        B::Tq1_0 => {
            let mut trits = |bytes: &[u8], count: u32| {
                for place in 0..count {
                    // The byte is a fraction in base 3; the place's digit is the integer part after shifting by 3^place.
                    let digit = |byte: &u8| (u16::from(byte.wrapping_mul(3u8.pow(place))) * 3) >> 8;
                    out.extend(bytes.iter().map(|byte| (f32::from(digit(byte)) - 1.0) * half(block, 52)));
                }
            };
            trits(&block[..32], 5);
            trits(&block[32..48], 5);
            trits(&block[48..52], 4);
        }
        B::Tq2_0 => {
            for bytes in [&block[..32], &block[32..64]] {
                for place in 0..4 {
                    let digit = |byte: &u8| f32::from(byte >> (2 * place) & 3) - 1.0;
                    out.extend(bytes.iter().map(|byte| digit(byte) * half(block, 64)));
                }
            }
        }
    }
}

/// All low halves of the bytes, then all high halves; `value` takes the index of the element and its code.
fn nibbles(bytes: &[u8], value: impl Fn(usize, u8) -> f32, out: &mut Vec<f32>) {
    out.extend(bytes.iter().enumerate().map(|(index, byte)| value(index, byte & 15)));
    out.extend(bytes.iter().enumerate().map(|(index, byte)| value(index + bytes.len(), byte >> 4)));
}

/// Scale and minimum of a group of 32 in `q4_k` and `q5_k`: 6 bits each in bytes 4 to 16.
fn scale_and_min(block: &[u8], group: usize) -> (f32, f32) {
    let bytes = &block[4..16];
    let (scale, min) = if group < 4 {
        (bytes[group] & 63, bytes[group + 4] & 63)
    } else {
        let (low, high) = (bytes[group + 4], [bytes[group - 4] >> 6, bytes[group] >> 6]);
        (low & 15 | high[0] << 4, low >> 4 | high[1] << 4)
    };
    (half(block, 0) * f32::from(scale), half(block, 2) * f32::from(min))
}

fn q2_k(block: &[u8], out: &mut Vec<f32>) {
    let (scale, min) = (half(block, 80), half(block, 82));
    for index in 0..256 {
        // Two halves of 128; in each, 2-bit place `index / 32` of 32 bytes; a scale for each 16 elements.
        let (chunk, place, byte) = (index / 128, index / 32 % 4, index % 32);
        let q = block[16 + 32 * chunk + byte] >> (2 * place) & 3;
        let group = block[index / 16];
        out.push(scale * f32::from(group & 15) * f32::from(q) - min * f32::from(group >> 4));
    }
}

fn q3_k(block: &[u8], out: &mut Vec<f32>) {
    let scales = &block[96..108];
    for index in 0..256 {
        let (chunk, place, byte) = (index / 128, index / 32 % 4, index % 32);
        let low = block[32 + 32 * chunk + byte] >> (2 * place) & 3;
        let high = block[byte] >> (index / 32) & 1;
        let group = index / 16;
        let scale = scales[group % 8] >> (4 * (group / 8)) & 15
            | (scales[8 + group % 4] >> (2 * (group / 4)) & 3) << 4;
        let scale = half(block, 108) * (f32::from(scale) - 32.0);
        out.push(scale * (f32::from(low | high << 2) - 4.0));
    }
}

fn q6_k(block: &[u8], out: &mut Vec<f32>) {
    for index in 0..256 {
        let (chunk, place, byte) = (index / 128, index / 32 % 4, index % 32);
        let low = block[64 * chunk + 32 * (place % 2) + byte] >> (4 * (place / 2)) & 15;
        let high = block[128 + 32 * chunk + byte] >> (2 * place) & 3;
        let scale = half(block, 208) * f32::from(block[192 + index / 16] as i8);
        out.push(scale * (f32::from(low | high << 4) - 32.0));
    }
}
