use super::*;
use proptest::prelude::*;
use std::process::Command;
use std::sync::OnceLock;

/// Uses constants, writable data, calls, a table of addresses, libc and libm.
const SOURCE: &str = r#"
#include <math.h>
#include <string.h>
static int counter = 40;
static int zeros[100];
static const float table[4] = {1.5f, 2.5f, 3.5f, 4.5f};
const float shared_constant = 0.25f;
__attribute__((noinline)) float square(float x) { return x * x; }
float (*const operations[2])(float) = {expf, square};
float apply(int which, float x) { return operations[which](x) + table[which] + shared_constant; }
int count(void) { zeros[3]++; return ++counter + zeros[3]; }
void fill(char *to, const char *from, long bytes) { memcpy(to, from, bytes); }
double power(double x, double y) { return pow(x, y); }
"#;

fn compile(source: &str, options: &[&str]) -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let input = folder.path().join("code.c");
    let output = folder.path().join("code.o");
    std::fs::write(&input, source).unwrap();
    let status =
        Command::new("cc").args(options).arg("-c").arg(&input).arg("-o").arg(&output).status().unwrap();
    assert!(status.success());
    std::fs::read(output).unwrap()
}

fn object() -> &'static [u8] {
    static OBJECT: OnceLock<Vec<u8>> = OnceLock::new();
    OBJECT.get_or_init(|| compile(SOURCE, &["-O2", "-fPIC"]))
}

fn check(image: &CodeImage) {
    let function = |name| image.function(name).unwrap();
    // SAFETY: the types are those of the C source.
    unsafe {
        let apply: extern "C" fn(i32, f32) -> f32 = std::mem::transmute(function("apply"));
        assert_eq!(apply(0, 0.0), 1.0 + 1.5 + 0.25);
        assert_eq!(apply(1, 3.0), 9.0 + 2.5 + 0.25);
        let count: extern "C" fn() -> i32 = std::mem::transmute(function("count"));
        assert_eq!((count(), count()), (42, 44));
        let power: extern "C" fn(f64, f64) -> f64 = std::mem::transmute(function("power"));
        assert_eq!(power(2.0, 10.0), 1024.0);
        let fill: extern "C" fn(*mut u8, *const u8, i64) = std::mem::transmute(function("fill"));
        let mut copy = [0; 3];
        fill(copy.as_mut_ptr(), [7, 8, 9].as_ptr(), 3);
        assert_eq!(copy, [7, 8, 9]);
    }
    assert!(image.function("counter").is_none() && image.function("memcpy").is_none());
}

#[test]
fn compiled_objects_run() {
    for options in
        [&["-O2", "-fPIC"][..], &["-O0", "-fPIC"], &["-O2", "-fPIC", "-fno-plt"], &["-O1", "-fPIE"]]
    {
        check(&CodeImage::load(&compile(SOURCE, options)).unwrap());
    }
    check(&CodeImage::load(object()).unwrap());
}

#[test]
fn functions_are_listed() {
    let image = CodeImage::load(object()).unwrap();
    let names: Vec<_> = image.functions().collect();
    assert!(names.contains(&"apply") && names.contains(&"square"), "{names:?}");
    assert!(image.bytes() > 0);
}

#[test]
fn forbidden_functions_are_refused_by_name() {
    let object =
        compile("int system(const char *); int f(void) { return system(\"true\"); }", &["-O1", "-fPIC"]);
    let message = CodeImage::load(&object).unwrap_err().to_string();
    assert!(message.contains("`system`"), "{message}");
    extern "C" fn nothing() -> i32 {
        7
    }
    let image =
        CodeImage::load_with(&object, &|name| (name == "system").then_some(nothing as *const ())).unwrap();
    // SAFETY: the type is that of the C source.
    let f: extern "C" fn() -> i32 = unsafe { std::mem::transmute(image.function("f").unwrap()) };
    assert_eq!(f(), 7);
}

#[test]
fn unsupported_sections_are_refused() {
    let refused = |source: &str, word: &str| {
        let message = CodeImage::load(&compile(source, &["-O1", "-fPIC"])).unwrap_err().to_string();
        assert!(message.contains(word), "{message}");
    };
    refused("_Thread_local int x = 3; int f(void) { return x; }", "thread-local");
    refused("int x; __attribute__((constructor)) void f(void) { x = 1; }", "constructors");
    refused("char big[1 << 25]; char *f(void) { return big; }", "zero data");
}

#[test]
fn other_machines_are_refused() {
    let mut object = object().to_vec();
    object[18..20].copy_from_slice(&243u16.to_le_bytes());
    assert!(matches!(CodeImage::load(&object), Err(Error::WrongArchitecture { .. })));
}

proptest! {
    #[test]
    fn damaged_objects_never_panic(
        cut in 0usize..10_000,
        changes in prop::collection::vec((0usize..10_000, any::<u8>()), 0..8),
    ) {
        let mut bytes = object().to_vec();
        for (position, value) in changes {
            let position = position % bytes.len();
            bytes[position] = value;
        }
        if cut < bytes.len() {
            bytes.truncate(cut);
        }
        // Loading may succeed where padding changed; what matters is that it ends.
        drop(CodeImage::load(&bytes));
    }

    #[test]
    fn damaged_tables_never_panic(position in 0usize..2000, value: u64) {
        let mut bytes = object().to_vec();
        let table = u64::from_le_bytes(bytes[40..48].try_into().unwrap()) as usize;
        let position = table + position % (bytes.len() - table - 8);
        bytes[position..position + 8].copy_from_slice(&value.to_le_bytes());
        drop(CodeImage::load(&bytes));
    }
}
