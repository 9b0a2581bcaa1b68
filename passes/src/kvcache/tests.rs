use super::*;
use crate::pipeline::run_passes;

/// Appends to and attends over caches of 3 heads of 64 channels with 9 query heads, for up to `tokens` tokens.
fn module(tokens: i64, page: i64, depth: i64) -> Module {
    let (k, x, q) = (
        format!("tensor<?x3x{depth}xf32, \"kv_slots; 3; {depth}\">"),
        format!("tensor<?x3x{depth}xf32, \"n; 3; {depth}\">"),
        format!("tensor<?x9x{depth}xf32, \"n; 9; {depth}\">"),
    );
    let index = "tensor<?xi64, \"n\">";
    let state = |name: &str| {
        format!(
            "\"tir.kv_state\"() {{name = \"{name}\", shape = [\"kv_slots\", 3, {depth}], storage = \"f32 rows 1\"}} : () -> {k}"
        )
    };
    let append = |cache: &str| {
        format!(
            "\"tir.kv_append\"({cache}, %1, %2) {{storage = \"f32 rows 1\"}} : ({k}, {x}, {index}) -> {k}"
        )
    };
    let text = format!(
        "module {{ \"tir.func\"() ({{ ^bb0(%0: {q}, %1: {x}, %2: {index}, %3: tensor<?x?xi64, \"s; p\">):\n\
         %4 = {}\n%5 = {}\n%6 = {}\n%7 = {}\n\
         %8 = \"tir.kv_attend\"(%0, %6, %7, %3, %2, %2) {{scale = 0.125, softcap = 0.0, window = 0, sinks = 0, page = {page}, \
         split = 0, k_storage = \"f32 rows 1\", v_storage = \"f32 rows 1\"}} : ({q}, {k}, {k}, tensor<?x?xi64, \"s; p\">, {index}, {index}) -> {q}\n\
         \"tir.return\"(%8) : ({q}) -> () }}) {{sym_name = \"main\", input_names = [\"q\", \"x\", \"i\", \"t\"], output_names = [\"y\"], \
         symbols = [[\"n\", 1, {tokens}], [\"s\", 1, 8], [\"p\", 1, 512], [\"kv_slots\", 1, 100000]]}} : () -> () }}",
        state("k"),
        state("v"),
        append("%4"),
        append("%5")
    );
    tcc_ir::parse::module(&text).unwrap_or_else(|error| panic!("{error}\n{text}"))
}

fn chosen(tokens: i64, page: i64, depth: i64, format: Option<CacheFormat>) -> (Vec<String>, usize) {
    let mut module = module(tokens, page, depth);
    let mut context = Context::new(Machine { cores: 2, ..Machine::of("cpu:x86-64-v4").unwrap() });
    context.caches.format = format;
    run_passes(&mut module, &["kvcache"], &context).unwrap();
    tcc_ir::verify::verify(&module).unwrap();
    let mut found = (Vec::new(), 0);
    for operation in &module.entry().unwrap().body.operations {
        match &operation.operator {
            Operator::KvState { storage, .. } => found.0.push(storage.to_string()),
            Operator::KvAttend { split, .. } => found.1 = *split,
            _ => {}
        }
    }
    found
}

#[test]
fn keys_lie_by_channels_and_values_by_tokens() {
    let (storage, _) = chosen(8, 32, 64, Some(CacheFormat::F16));
    assert!(storage[0].starts_with("f16 columns") && storage[1].starts_with("f16 rows"), "{storage:?}");
}

#[test]
fn entries_agree_on_storage_and_split_apart() {
    let (decode, few) = chosen(8, 32, 64, Some(CacheFormat::I8));
    let (prefill, many) = chosen(256, 32, 64, Some(CacheFormat::I8));
    assert_eq!(decode, prefill);
    assert!(few > 0 && many == 0, "{few} {many}");
}

#[test]
fn formats_are_changed_only_when_asked_and_where_they_fit() {
    assert!(chosen(8, 32, 64, None).0.iter().all(|storage| storage.starts_with("f32")));
    assert!(chosen(8, 32, 40, Some(CacheFormat::I4)).0.iter().all(|storage| storage.starts_with("f32")));
}

#[test]
fn blocks_divide_pages() {
    for page in [1, 3, 8, 48] {
        for text in chosen(8, page, 64, Some(CacheFormat::F16)).0 {
            let storage: CacheStorage = text.parse().unwrap();
            assert_eq!(page % storage.block as i64, 0, "{text} in pages of {page}");
        }
    }
}

#[test]
fn the_reason_names_storage_and_price() {
    let lines = explain(&module(8, 32, 64), &Machine::of("cpu:x86-64-v4").unwrap());
    assert_eq!(lines.len(), 2);
    assert!(
        lines[0].contains("keys") && lines[0].contains("bytes a token") && lines[0].contains("next"),
        "{lines:?}"
    );
}
