//! The functions that compiled code may call: memory and mathematics of the C library, and conversions of half
//! precision that compilers expect from their support library. Nothing else is reachable from loaded code.

use half::{bf16, f16};
use std::ffi::c_int;

/// Address of the function of this name, `None` when compiled code may not call it.
pub fn standard(name: &str) -> Option<*const ()> {
    memory(name).or_else(|| single(name)).or_else(|| double(name)).or_else(|| half_precision(name))
}

fn memory(name: &str) -> Option<*const ()> {
    Some(match name {
        "memcpy" => libc::memcpy as *const (),
        "memmove" => libc::memmove as *const (),
        "memset" => libc::memset as *const (),
        "memcmp" | "bcmp" => libc::memcmp as *const (),
        _ => return None,
    })
}

/// Declares functions of libm and a lookup by name.
macro_rules! mathematics {
    ($lookup:ident, $float:ty: unary [$($unary:ident)*] binary [$($binary:ident)*] ternary [$($ternary:ident)*] scale [$($scale:ident)*]) => {
        fn $lookup(name: &str) -> Option<*const ()> {
            unsafe extern "C" {
                $(fn $unary(x: $float) -> $float;)*
                $(fn $binary(x: $float, y: $float) -> $float;)*
                $(fn $ternary(x: $float, y: $float, z: $float) -> $float;)*
                $(fn $scale(x: $float, n: c_int) -> $float;)*
            }
            match name {
                $(stringify!($unary) => Some($unary as *const ()),)*
                $(stringify!($binary) => Some($binary as *const ()),)*
                $(stringify!($ternary) => Some($ternary as *const ()),)*
                $(stringify!($scale) => Some($scale as *const ()),)*
                _ => None,
            }
        }
    };
}

mathematics! { single, f32:
    unary [expf exp2f expm1f logf log2f log10f log1pf sinf cosf tanf asinf acosf atanf sinhf coshf tanhf asinhf acoshf
        atanhf erff erfcf tgammaf lgammaf sqrtf cbrtf fabsf floorf ceilf truncf roundf roundevenf rintf nearbyintf]
    binary [powf atan2f fmodf remainderf fminf fmaxf copysignf hypotf]
    ternary [fmaf]
    scale [ldexpf]
}

mathematics! { double, f64:
    unary [exp exp2 expm1 log log2 log10 log1p sin cos tan asin acos atan sinh cosh tanh asinh acosh atanh erf erfc
        tgamma lgamma sqrt cbrt fabs floor ceil trunc round roundeven rint nearbyint]
    binary [pow atan2 fmod remainder fmin fmax copysign hypot]
    ternary [fma]
    scale [ldexp]
}

/// Half-precision values travel in the low 16 bits of a vector register, as a binary32 does in the low 32.
fn carry(bits: u16) -> f32 {
    f32::from_bits(bits.into())
}

#[unsafe(export_name = "tcc_single_to_half")]
extern "C" fn single_to_half(value: f32) -> f32 {
    carry(f16::from_f32(value).to_bits())
}

#[unsafe(export_name = "tcc_double_to_half")]
extern "C" fn double_to_half(value: f64) -> f32 {
    carry(f16::from_f64(value).to_bits())
}

#[unsafe(export_name = "tcc_half_to_single")]
extern "C" fn half_to_single(value: f32) -> f32 {
    f16::from_bits(value.to_bits() as u16).to_f32()
}

#[unsafe(export_name = "tcc_half_to_double")]
extern "C" fn half_to_double(value: f32) -> f64 {
    f16::from_bits(value.to_bits() as u16).to_f64()
}

#[unsafe(export_name = "tcc_single_to_bfloat")]
extern "C" fn single_to_bfloat(value: f32) -> f32 {
    carry(bf16::from_f32(value).to_bits())
}

#[unsafe(export_name = "tcc_double_to_bfloat")]
extern "C" fn double_to_bfloat(value: f64) -> f32 {
    carry(bf16::from_f64(value).to_bits())
}

/// Name under which a statically linked program reaches a function that [`standard`] has and no C library: the
/// runtime exports it, so that linked and loaded code call the same one.
pub fn linked_name(name: &str) -> Option<&'static str> {
    Some(match name {
        "__truncsfhf2" => "tcc_single_to_half",
        "__truncdfhf2" => "tcc_double_to_half",
        "__extendhfsf2" => "tcc_half_to_single",
        "__extendhfdf2" => "tcc_half_to_double",
        "__truncsfbf2" => "tcc_single_to_bfloat",
        "__truncdfbf2" => "tcc_double_to_bfloat",
        _ => return None,
    })
}

fn half_precision(name: &str) -> Option<*const ()> {
    Some(match name {
        "__truncsfhf2" => single_to_half as *const (),
        "__truncdfhf2" => double_to_half as *const (),
        "__extendhfsf2" => half_to_single as *const (),
        "__extendhfdf2" => half_to_double as *const (),
        "__truncsfbf2" => single_to_bfloat as *const (),
        "__truncdfbf2" => double_to_bfloat as *const (),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::standard;

    #[test]
    fn known_names_resolve_and_others_do_not() {
        for name in ["memcpy", "expf", "exp", "fma", "ldexpf", "roundeven", "__truncsfhf2"] {
            assert!(standard(name).is_some(), "{name}");
        }
        for name in ["system", "execve", "malloc", "dlopen", "", "exp\0"] {
            assert!(standard(name).is_none(), "{name}");
        }
    }

    #[test]
    fn half_conversions_round() {
        assert_eq!(super::single_to_half(1.0).to_bits(), 0x3c00);
        assert_eq!(super::half_to_single(f32::from_bits(0x3c00)), 1.0);
        assert_eq!(super::double_to_bfloat(1.0).to_bits(), 0x3f80);
    }
}
