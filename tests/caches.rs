//! Key-value caches on every executor against the reference interpreter: random shapes, formats and layouts, several runs
//! over one state.

use tcc::compile::{Compiled, compile_module};
use tcc::inputs::{Inputs, ordered, to_data};
use tcc::runtime::{Session, SessionOptions, State};
use tcc::{CompileOptions, Target};
use tcc_interpret::{Interpreter, State as Caches, Tensor, Value};
use tcc_ir::dim::Symbol;
use tcc_ir::dtype::DType;
use tcc_ir::module::Module;

/// Numbers that look random and are the same every time.
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, limit: u64) -> u64 {
        (self.next() >> 16) % limit
    }

    fn pick<T: Clone>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len() as u64) as usize].clone()
    }

    fn reals(&mut self, count: usize) -> Vec<f64> {
        (0..count).map(|_| (self.below(4001) as f64 - 2000.0) / 1000.0).collect()
    }
}

/// One function: append to two caches, then attend.
#[derive(Clone, Debug)]
struct Shape {
    heads: usize,
    kv_heads: usize,
    depth: usize,
    value_depth: usize,
    page: usize,
    window: usize,
    sinks: usize,
    split: usize,
    softcap: f64,
    k_storage: String,
    v_storage: String,
}

const SLOTS: usize = 192;

impl Shape {
    fn module(&self) -> Module {
        let Shape { heads, kv_heads, depth, value_depth, page, window, sinks, split, softcap, .. } = self;
        let (k_storage, v_storage) = (&self.k_storage, &self.v_storage);
        let k = format!("tensor<?x{kv_heads}x{depth}xf32, \"kv_slots; {kv_heads}; {depth}\">");
        let v = format!("tensor<?x{kv_heads}x{value_depth}xf32, \"kv_slots; {kv_heads}; {value_depth}\">");
        let rows =
            |heads: &usize, depth: &usize| format!("tensor<?x{heads}x{depth}xf32, \"n; {heads}; {depth}\">");
        let (q, x, w) = (rows(heads, depth), rows(kv_heads, depth), rows(kv_heads, value_depth));
        let y = rows(heads, value_depth);
        let (index, table) = ("tensor<?xi64, \"n\">", "tensor<?x?xi64, \"s; p\">");
        let text = format!(
            "module {{ \"tir.func\"() ({{ ^bb0(%0: {q}, %1: {x}, %2: {w}, %3: {index}, %4: {table}, %5: {index}, %6: {index}):\n\
             %7 = \"tir.kv_state\"() {{name = \"k\", shape = [\"kv_slots\", {kv_heads}, {depth}], storage = \"{k_storage}\"}} : () -> {k}\n\
             %8 = \"tir.kv_state\"() {{name = \"v\", shape = [\"kv_slots\", {kv_heads}, {value_depth}], storage = \"{v_storage}\"}} : () -> {v}\n\
             %9 = \"tir.kv_append\"(%7, %1, %3) {{storage = \"{k_storage}\"}} : ({k}, {x}, {index}) -> {k}\n\
             %10 = \"tir.kv_append\"(%8, %2, %3) {{storage = \"{v_storage}\"}} : ({v}, {w}, {index}) -> {v}\n\
             %11 = \"tir.kv_attend\"(%0, %9, %10, %4, %5, %6) {{scale = 0.25, softcap = {softcap:?}, window = {window}, \
             sinks = {sinks}, page = {page}, split = {split}, k_storage = \"{k_storage}\", v_storage = \"{v_storage}\"}} : \
             ({q}, {k}, {v}, {table}, {index}, {index}) -> {y}\n\
             \"tir.return\"(%11) : ({y}) -> () }}) {{sym_name = \"main\", \
             input_names = [\"q\", \"k\", \"v\", \"slots\", \"table\", \"rows\", \"positions\"], output_names = [\"y\"], \
             symbols = [[\"n\", 0, 96], [\"s\", 1, 8], [\"p\", 0, 256], [\"kv_slots\", 1, 4096]]}} : () -> () }}"
        );
        tcc_tests::compiler::read(&text).unwrap_or_else(|error| panic!("{error}\n{text}"))
    }
}

/// Tokens of one run: which sequence and position each has.
struct Batch {
    tokens: Vec<(usize, i64)>,
}

/// Pages of two sequences, dealt out so that they interleave and run backwards.
fn pages(shape: &Shape, sequence: usize) -> Vec<i64> {
    let count = SLOTS / shape.page;
    (0..count).rev().filter(|page| page % 2 == sequence).map(|page| page as i64).collect()
}

fn inputs(shape: &Shape, batch: &Batch, noise: &mut Noise) -> Vec<(&'static str, Tensor)> {
    let n = batch.tokens.len();
    let tables: Vec<Vec<i64>> = (0..2).map(|sequence| pages(shape, sequence)).collect();
    let width = tables.iter().map(Vec::len).min().unwrap_or(0);
    let slot = |(sequence, position): &(usize, i64)| match usize::try_from(*position) {
        Ok(position) => {
            tables[*sequence][position / shape.page] * shape.page as i64 + (position % shape.page) as i64
        }
        Err(_) => -1,
    };
    let mut real = |heads: usize, depth: usize| {
        Tensor::from_numbers(DType::F32, &[n, heads, depth], &noise.reals(n * heads * depth)).unwrap()
    };
    let index =
        |shape: &[usize], values: Vec<i64>| Tensor::from_integers(DType::I64, shape, &values).unwrap();
    vec![
        ("q", real(shape.heads, shape.depth)),
        ("k", real(shape.kv_heads, shape.depth)),
        ("v", real(shape.kv_heads, shape.value_depth)),
        ("slots", index(&[n], batch.tokens.iter().map(slot).collect())),
        ("table", index(&[2, width], tables.iter().flat_map(|table| table[..width].to_vec()).collect())),
        ("rows", index(&[n], batch.tokens.iter().map(|(sequence, _)| *sequence as i64).collect())),
        ("positions", index(&[n], batch.tokens.iter().map(|(_, position)| *position).collect())),
    ]
}

fn targets() -> &'static [&'static str] {
    if cfg!(feature = "llvm") { &["cpu", "cranelift"] } else { &["cranelift"] }
}

/// Sessions of one compiled function on one and on two threads, each with a state of its own.
struct Executor {
    name: &'static str,
    compiled: Compiled,
    sessions: Vec<Session>,
}

impl Executor {
    fn new(name: &'static str, module: &Module, level: u8) -> Executor {
        let target = Target::named(name).unwrap();
        let options = CompileOptions { threads: 1, level, ..CompileOptions::new(target) };
        let compiled =
            compile_module(module.clone(), "test", &options).unwrap_or_else(|error| panic!("{error}"));
        let executable = compiled.executable().unwrap();
        let session = |threads| {
            let state = State::new(&[executable.manifest()], &[("kv_slots", SLOTS as i64)], None).unwrap();
            let options = SessionOptions { threads, state: Some(state), ..SessionOptions::default() };
            Session::with_options(&executable, &options).unwrap()
        };
        Executor { name, sessions: vec![session(1), session(2)], compiled }
    }

    fn run(&mut self, inputs: &[(&'static str, Tensor)]) -> Vec<f64> {
        let inputs: Inputs =
            inputs.iter().map(|(name, tensor)| ((*name).to_owned(), tensor.to_data().unwrap())).collect();
        let ordered = ordered(&self.compiled.manifest, &inputs).unwrap();
        let arguments = ordered.tensors().unwrap_or_else(|error| panic!("{error}"));
        let mut results = self.sessions.iter_mut().map(|session| {
            let outputs = session.run(&arguments).unwrap_or_else(|error| panic!("{error}"));
            Tensor::from(to_data(&outputs[0]).unwrap()).to_numbers().unwrap()
        });
        let (one, two) = (results.next().unwrap(), results.next().unwrap());
        assert_eq!(one, two, "{}: one and two threads differ", self.name);
        one
    }
}

/// Runs the batches one after the other everywhere and compares. At level 0 the storage stays as it is written, at level
/// 1 a pass chooses the layout.
///
/// Scores are sums of at most 128 products of magnitude 4 times the scale 0.25, softmax turns their absolute error into a
/// relative one of the weights, and results are means of values up to 2: 128 * 2^-24 * 128 * 2 with room for the sums
/// over the context and for `exp` stays below 0.004. Codes of integer formats are exact by definition.
fn check(shape: &Shape, batches: &[Batch], level: u8, seed: u64) {
    let module = shape.module();
    let caches = Caches::new([(Symbol::new("kv_slots"), SLOTS as i64)]);
    let interpreter = Interpreter::new(&module).with_state(&caches);
    let mut executors: Vec<Executor> =
        targets().iter().map(|name| Executor::new(name, &module, level)).collect();
    let mut noise = Noise(seed);
    for (number, batch) in batches.iter().enumerate() {
        let inputs = inputs(shape, batch, &mut noise);
        let arguments = inputs.iter().map(|(_, tensor)| Value::Tensor(tensor.clone())).collect();
        let expected = interpreter.run(arguments).unwrap_or_else(|error| panic!("{shape:?}: {error}"));
        let expected = expected[0].as_tensor().unwrap().to_numbers().unwrap();
        for executor in &mut executors {
            let found = executor.run(&inputs);
            assert_eq!(found.len(), expected.len());
            let error = found.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
            let numbers = found.iter().all(|value| value.is_finite());
            assert!(numbers && error < 0.004, "{} batch {number} of {shape:?}: error {error}", executor.name);
        }
    }
}

/// A prompt of one sequence in chunks, one of another, then both token by token, with padding between.
fn batches(noise: &mut Noise, capacity: i64) -> Vec<Batch> {
    let mut lengths = [0i64; 2];
    let mut all = vec![Batch { tokens: Vec::new() }];
    for _ in 0..6 {
        let mut tokens = Vec::new();
        for _ in 0..noise.pick(&[1usize, 1, 2, 3]) {
            let sequence = noise.below(2) as usize;
            let count = noise.pick(&[1i64, 1, 2, 7, 13, 31]).min(capacity - lengths[sequence]);
            tokens.extend((0..count).map(|offset| (sequence, lengths[sequence] + offset)));
            lengths[sequence] += count;
            if noise.below(3) == 0 {
                tokens.push((sequence, -1));
            }
        }
        all.push(Batch { tokens });
    }
    all
}

fn random_shape(noise: &mut Noise) -> Shape {
    let kv_heads = noise.pick(&[1usize, 1, 2, 3]);
    let scaled = noise.below(2) == 0;
    let depths: &[usize] = if scaled { &[32, 64, 96] } else { &[1, 7, 16, 40, 64, 128] };
    let formats: &[&str] = if scaled { &["i8", "i4", "f16"] } else { &["f32", "f16"] };
    let page = noise.pick(&[1usize, 3, 16, 32, 48]);
    let storage = |noise: &mut Noise| {
        let order = noise.pick(&["rows", "columns"]);
        let block = noise.pick(&[1usize, 5, 16, 16, 32]);
        format!("{} {order} {block}", noise.pick(formats))
    };
    let (k_storage, v_storage) = (storage(noise), storage(noise));
    Shape {
        heads: kv_heads * noise.pick(&[1usize, 2, 3, 7]),
        kv_heads,
        depth: noise.pick(depths),
        value_depth: noise.pick(depths),
        page,
        window: noise.pick(&[0usize, 0, 1, 5, 40]),
        sinks: noise.pick(&[0usize, 0, 4]),
        split: noise.pick(&[0usize, 0, 16, 64]),
        softcap: noise.pick(&[0.0, 0.0, 3.0]),
        k_storage,
        v_storage,
    }
}

#[test]
fn the_layouts_that_are_chosen() {
    let mut noise = Noise(0x9E37_79B9_7F4A_7C15);
    for (split, window) in [(0, 0), (64, 0), (64, 37)] {
        let shape = Shape {
            heads: 6,
            kv_heads: 2,
            depth: 64,
            value_depth: 64,
            page: 32,
            window,
            sinks: 0,
            split,
            softcap: 0.0,
            k_storage: "f16 columns 16".into(),
            v_storage: "f16 rows 32".into(),
        };
        let batches = batches(&mut noise, 96);
        check(&shape, &batches, 1, noise.next());
    }
}

#[test]
fn random_shapes_formats_and_layouts() {
    let cases = std::env::var("TCC_CASES").ok().and_then(|text| text.parse().ok()).unwrap_or(24);
    let mut noise = Noise(0x2545_F491_4F6C_DD1D);
    for _ in 0..cases {
        let shape = random_shape(&mut noise);
        let capacity = (SLOTS / shape.page / 2 * shape.page) as i64;
        let batches = batches(&mut noise, capacity);
        check(&shape, &batches, 0, noise.next());
    }
}

#[test]
fn hostile_indices_stay_inside_the_cache() {
    let shape = Shape { split: 16, ..random_shape(&mut Noise(7)) };
    let module = shape.module();
    for name in targets() {
        let mut executor = Executor::new(name, &module, 0);
        let mut noise = Noise(11);
        for width in [0usize, 1, 4] {
            let n = 5;
            let far = |noise: &mut Noise| noise.pick(&[-1i64, 0, 3, 191, 192, 1 << 40, i64::MAX, i64::MIN]);
            let list = |noise: &mut Noise, shape: &[usize]| {
                let values: Vec<i64> = (0..shape.iter().product()).map(|_| far(noise)).collect();
                Tensor::from_integers(DType::I64, shape, &values).unwrap()
            };
            let batch = Batch { tokens: (0..n).map(|_| (0, -1)).collect() };
            let mut inputs = inputs(&shape, &batch, &mut noise);
            for (name, tensor) in &mut inputs {
                match *name {
                    "table" => *tensor = list(&mut noise, &[1, width]),
                    "slots" | "rows" | "positions" => *tensor = list(&mut noise, &[n]),
                    _ => {}
                }
            }
            assert!(executor.run(&inputs).iter().all(|value| value.is_finite()));
        }
    }
}
