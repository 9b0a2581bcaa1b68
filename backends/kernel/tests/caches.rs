//! Appends and attention on caches of every format and layout, in the kernel interpreter, against the reference
//! interpreter.

use std::collections::BTreeMap;

use tcc_interpret::{Interpreter, State, Tensor, Value};
use tcc_ir::data::Data;
use tcc_ir::dim::Symbol;
use tcc_ir::dtype::DType;
use tcc_ir::module::Module;
use tcc_ir::operator::Operator;
use tcc_ir::types::TensorType;
use tcc_kernel::evaluate::evaluate;
use tcc_kernel::lower::{Argument, Tuning, lower};

const SLOTS: i64 = 96;

struct Case {
    heads: [usize; 2],
    depth: [usize; 2],
    page: usize,
    window: usize,
    sinks: usize,
    split: usize,
    storage: [&'static str; 2],
    /// Sequence and position of each token, run by run.
    runs: &'static [&'static [(i64, i64)]],
}

fn module(case: &Case) -> Module {
    let Case {
        heads: [heads, shared], depth: [depth, value_depth], page, window, sinks, split, storage, ..
    } = case;
    let [k_storage, v_storage] = storage;
    let k = format!("tensor<{SLOTS}x{shared}x{depth}xf32>");
    let v = format!("tensor<{SLOTS}x{shared}x{value_depth}xf32>");
    let rows =
        |heads: &usize, depth: &usize| format!("tensor<?x{heads}x{depth}xf32, \"n; {heads}; {depth}\">");
    let (q, x, w, y) =
        (rows(heads, depth), rows(shared, depth), rows(shared, value_depth), rows(heads, value_depth));
    let (index, table) = ("tensor<?xi64, \"n\">", "tensor<?x?xi64, \"s; p\">");
    let text = format!(
        "module {{ \"tir.func\"() ({{ ^bb0(%0: {q}, %1: {x}, %2: {w}, %3: {index}, %4: {table}, %5: {index}, %6: {index}):\n\
         %7 = \"tir.kv_state\"() {{name = \"k\", shape = [{SLOTS}, {shared}, {depth}], storage = \"{k_storage}\"}} : () -> {k}\n\
         %8 = \"tir.kv_state\"() {{name = \"v\", shape = [{SLOTS}, {shared}, {value_depth}], storage = \"{v_storage}\"}} : () -> {v}\n\
         %9 = \"tir.kv_append\"(%7, %1, %3) {{storage = \"{k_storage}\"}} : ({k}, {x}, {index}) -> {k}\n\
         %10 = \"tir.kv_append\"(%8, %2, %3) {{storage = \"{v_storage}\"}} : ({v}, {w}, {index}) -> {v}\n\
         %11 = \"tir.kv_attend\"(%0, %9, %10, %4, %5, %6) {{scale = 0.25, softcap = 3.0, window = {window}, sinks = {sinks}, \
         page = {page}, split = {split}, k_storage = \"{k_storage}\", v_storage = \"{v_storage}\"}} : \
         ({q}, {k}, {v}, {table}, {index}, {index}) -> {y}\n\
         \"tir.return\"(%11) : ({y}) -> () }}) {{sym_name = \"main\", \
         input_names = [\"q\", \"k\", \"v\", \"slots\", \"table\", \"rows\", \"positions\"], output_names = [\"y\"], \
         symbols = [[\"n\", 0, 64], [\"s\", 1, 8], [\"p\", 0, 256]]}} : () -> () }}"
    );
    let module = tcc_ir::parse::module(&text).unwrap_or_else(|error| panic!("{error}\n{text}"));
    tcc_ir::verify::verify(&module).unwrap_or_else(|error| panic!("{error}\n{text}"));
    module
}

/// The kernels of the module's operations, in the kernel interpreter.
struct Machine<'m> {
    module: &'m Module,
    /// Memory of caches by name.
    state: BTreeMap<String, Vec<u8>>,
}

impl Machine<'_> {
    fn run(&mut self, inputs: &[Data], sizes: &dyn Fn(&Symbol) -> Option<i64>) -> Vec<u8> {
        let function = self.module.entry().unwrap();
        let mut memory: BTreeMap<u32, Vec<u8>> = BTreeMap::new();
        let mut cache_of: BTreeMap<u32, String> = BTreeMap::new();
        for (param, data) in function.body.params.iter().zip(inputs) {
            memory.insert(param.0, data.bytes().to_vec());
        }
        let bytes = |ty: &TensorType| {
            let count: i64 = ty.shape.iter().map(|dim| dim.evaluate(sizes).unwrap()).product();
            vec![0u8; ty.dtype().bytes_for(count as usize).unwrap()]
        };
        for operation in &function.body.operations {
            if let Operator::KvState { name, shape, storage } = &operation.operator {
                let (dtype, shape) = storage.memory(&shape[0], &shape[1], &shape[2]);
                self.state.entry(name.clone()).or_insert_with(|| bytes(&TensorType::new(dtype, shape)));
                cache_of.insert(operation.results[0].0, name.clone());
                continue;
            }
            let types = |values: &[tcc_ir::module::Value]| -> Vec<TensorType> {
                values.iter().map(|value| function.type_of(*value).as_tensor().unwrap().clone()).collect()
            };
            let (operands, results) = (types(&operation.operands), types(&operation.results));
            let tuning = Tuning {
                vector_bits: 256,
                vector_registers: 16,
                l1_bytes: 32 << 10,
                l2_bytes: 512 << 10,
                dot: false,
                gpu: None,
            };
            let constant = vec![false; operands.len()];
            let lowered = lower(&operation.operator, &operands, &results, &constant, "operator", &tuning)
                .unwrap_or_else(|error| panic!("{error}"));
            let mut temporaries: Vec<Vec<u8>> = lowered.temporaries.iter().map(&bytes).collect();
            let mut result = bytes(&results[0]);
            for launch in &lowered.launches {
                let place = |argument: &Argument, state: &BTreeMap<String, Vec<u8>>| match argument {
                    Argument::Operand(index) | Argument::View(index, _) => {
                        let value = operation.operands[*index].0;
                        cache_of
                            .get(&value)
                            .map_or_else(|| memory[&value].clone(), |name| state[name].clone())
                    }
                    Argument::Result(_) => result.clone(),
                    Argument::Temporary(index) => temporaries[*index].clone(),
                    other => panic!("{other:?} of operands that nothing packs"),
                };
                let before: Vec<Vec<u8>> =
                    launch.arguments.iter().map(|argument| place(argument, &self.state)).collect();
                let mut buffers = before.clone();
                let mut slices: Vec<&mut [u8]> = buffers.iter_mut().map(|bytes| &mut bytes[..]).collect();
                let dim = |text: &String| tcc_ir::parse::dim(text).unwrap().evaluate(sizes).unwrap();
                let dims: Vec<i64> = launch.kernel.dims.iter().map(dim).collect();
                evaluate(&launch.kernel, &mut slices, &dims, 0, i64::MAX)
                    .unwrap_or_else(|error| panic!("{error}\n{}", launch.kernel));
                for ((argument, after), before) in launch.arguments.iter().zip(buffers).zip(before) {
                    match argument {
                        Argument::Result(_) => result = after,
                        Argument::Temporary(index) => temporaries[*index] = after,
                        Argument::Operand(index) | Argument::View(index, _) => {
                            // Views show the same memory: what a view has changed joins the rest.
                            let Some(name) = cache_of.get(&operation.operands[*index].0) else { continue };
                            let whole = self.state.get_mut(name).unwrap();
                            for (place, (new, old)) in whole.iter_mut().zip(after.iter().zip(&before)) {
                                if new != old {
                                    *place = *new;
                                }
                            }
                        }
                        _ => {}
                    }
                }
            }
            match &operation.operator {
                Operator::KvAppend { .. } => {
                    let name = cache_of[&operation.operands[0].0].clone();
                    cache_of.insert(operation.results[0].0, name);
                }
                _ => return result,
            }
        }
        Vec::new()
    }
}

/// Pages of sequence 0 are the even ones from the back, of sequence 1 the odd ones.
fn slot(case: &Case, sequence: i64, position: i64) -> i64 {
    let page = case.page as i64;
    let pages = SLOTS / page;
    (pages - 1 - (2 * (position / page) + sequence)) * page + position % page
}

fn check(case: &Case) {
    let module = module(case);
    let caches = State::new([]);
    let interpreter = Interpreter::new(&module).with_state(&caches);
    let mut machine = Machine { module: &module, state: BTreeMap::new() };
    for (run, tokens) in case.runs.iter().enumerate() {
        let n = tokens.len();
        let width = SLOTS / case.page as i64 / 2;
        let reals = |heads: usize, depth: usize, seed: usize| {
            let value = |index: usize| ((index * 7919 + seed * 613 + run * 31) % 97) as f64 / 24.0 - 2.0;
            let values: Vec<f64> = (0..n * heads * depth).map(value).collect();
            Tensor::from_numbers(DType::F32, &[n, heads, depth], &values).unwrap()
        };
        let index =
            |shape: &[usize], values: Vec<i64>| Tensor::from_integers(DType::I64, shape, &values).unwrap();
        let of_tokens = |value: &dyn Fn(&(i64, i64)) -> i64| index(&[n], tokens.iter().map(value).collect());
        let pages = SLOTS / case.page as i64;
        let table = (0..2).flat_map(|sequence| (0..width).map(move |page| pages - 1 - (2 * page + sequence)));
        let inputs = [
            reals(case.heads[0], case.depth[0], 1),
            reals(case.heads[1], case.depth[0], 2),
            reals(case.heads[1], case.depth[1], 3),
            of_tokens(&|(sequence, position)| {
                if *position < 0 { -1 } else { slot(case, *sequence, *position) }
            }),
            index(&[2, width as usize], table.collect()),
            of_tokens(&|(sequence, _)| *sequence),
            of_tokens(&|(_, position)| *position),
        ];
        let expected = interpreter.run(inputs.iter().cloned().map(Value::Tensor).collect());
        let expected = expected.unwrap_or_else(|error| panic!("{error}"));
        let expected = expected[0].as_tensor().unwrap().to_numbers().unwrap();
        let data: Vec<Data> = inputs.iter().map(|tensor| tensor.to_data().unwrap()).collect();
        let sizes = |symbol: &Symbol| match symbol.name() {
            "n" => Some(n as i64),
            "s" => Some(2),
            "p" => Some(width),
            _ => None,
        };
        let found = machine.run(&data, &sizes);
        let found: Vec<f64> = found
            .chunks_exact(4)
            .map(|chunk| f64::from(f32::from_le_bytes(chunk.try_into().unwrap())))
            .collect();
        assert_eq!(found.len(), expected.len());
        // Scores are sums of few products up to 4 in f32; their error turns into one of the weights.
        let error = found.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
        assert!(
            error < 1e-4,
            "run {run} of {:?} window {} split {}: error {error}",
            case.storage,
            case.window,
            case.split
        );
    }
}

const PROMPT: &[(i64, i64)] = &[(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, -1), (0, 3), (0, 4)];
const RUNS: &[&[(i64, i64)]] = &[PROMPT, &[(0, 5)], &[], &[(1, 2), (0, 6), (0, 7)], &[(0, 8)]];

#[test]
fn every_format_and_layout() {
    let storages = [
        ["f32 rows 1", "f32 rows 1"],
        ["f16 columns 8", "f16 rows 8"],
        ["f16 rows 16", "f32 columns 8"],
        ["f32 columns 16", "f16 rows 1"],
        ["f32 columns 5", "f32 rows 3"],
    ];
    for storage in storages {
        for (window, sinks, split, page) in [(0, 0, 0, 8), (3, 1, 16, 16), (0, 0, 16, 3)] {
            check(&Case { heads: [4, 2], depth: [5, 9], page, window, sinks, split, storage, runs: RUNS });
        }
    }
}

#[test]
fn codes_and_scales() {
    for storage in
        [["i8 columns 8", "i8 rows 8"], ["i4 columns 8", "i4 rows 1"], ["i8 rows 1", "i4 columns 4"]]
    {
        for (split, page) in [(0, 8), (16, 4)] {
            check(&Case {
                heads: [3, 1],
                depth: [32, 64],
                page,
                window: 0,
                sinks: 0,
                split,
                storage,
                runs: RUNS,
            });
        }
    }
}
