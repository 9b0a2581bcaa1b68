//! Attention of 16-bit floats on tensor cores, against a softmax in f64.

use half::{bf16, f16};
use tcc_ir::dtype::DType;
use tcc_ir::operator::Operator;
use tcc_kernel::Kernel;
use tcc_kernel::lower::{Argument, lower};
use tcc_ptx::schedule::tuning;
use tcc_ptx::{Target, module, sim};

use crate::cases::tensor;
use crate::execute::{Random, simulate};

/// One attention over `n` queries and `k` keys.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    pub dtype: DType,
    pub heads: [usize; 2],
    pub depths: [usize; 2],
    pub causal: bool,
    pub window: u64,
    pub softcap: f64,
}

const SCALE: f64 = 0.25;

pub const CASES: [Case; 4] = [
    Case { dtype: DType::F16, heads: [2, 1], depths: [64, 64], causal: true, window: 0, softcap: 0.0 },
    Case { dtype: DType::BF16, heads: [2, 2], depths: [16, 32], causal: false, window: 0, softcap: 0.0 },
    Case { dtype: DType::F16, heads: [4, 2], depths: [48, 16], causal: true, window: 70, softcap: 3.0 },
    Case { dtype: DType::F16, heads: [1, 1], depths: [128, 128], causal: true, window: 0, softcap: 0.0 },
];

impl Case {
    pub fn kernel(&self, target: &Target) -> (Kernel, Vec<Argument>) {
        let Case { dtype, heads: [q_heads, heads], depths: [depth, value_depth], .. } = *self;
        let ty = |heads: usize, length: &str, depth: usize| {
            tensor(dtype, &["2", &heads.to_string(), length, &depth.to_string()])
        };
        let operands = [ty(q_heads, "n", depth), ty(heads, "k", depth), ty(heads, "k", value_depth)];
        let operator = Operator::Attention {
            scale: SCALE.into(),
            softcap: self.softcap.into(),
            causal: self.causal,
            window: self.window as _,
        };
        let results = [ty(q_heads, "n", value_depth)];
        let lowered = lower(&operator, &operands, &results, &[false; 3], "flash", &tuning(target)).unwrap();
        let [launch] = &lowered.launches[..] else { panic!("attention is one kernel") };
        (launch.kernel.clone(), launch.arguments.clone())
    }

    fn number(&self, bits: u16) -> f64 {
        if self.dtype == DType::F16 { f16::from_bits(bits).to_f64() } else { bf16::from_bits(bits).to_f64() }
    }

    fn numbers(&self, bytes: &[u8]) -> Vec<f64> {
        bytes.chunks(2).map(|pair| self.number(u16::from_le_bytes([pair[0], pair[1]]))).collect()
    }

    /// Multiples of an eighth up to two, which both types hold.
    fn random(&self, count: usize, random: &mut Random) -> Vec<u8> {
        (0..count)
            .flat_map(|_| {
                let value = (random.next() % 33) as f64 / 8.0 - 2.0;
                let bits = match self.dtype {
                    DType::F16 => f16::from_f64(value).to_bits(),
                    _ => bf16::from_f64(value).to_bits(),
                };
                bits.to_le_bytes()
            })
            .collect()
    }

    fn check(&self, [q_len, kv_len]: [usize; 2], seed: u64) {
        let target = Target::named("sm_80").unwrap();
        let (kernel, arguments) = self.kernel(&target);
        let ptx = module(&[kernel], &target).unwrap();
        assert!(ptx.text.contains("mma.sync") && ptx.text.contains(".trans"), "{}", ptx.text);
        let parsed = sim::parse(&ptx.text).unwrap_or_else(|error| panic!("{error}\n{}", ptx.text));
        let Case { heads: [q_heads, heads], depths: [depth, value_depth], .. } = *self;
        let mut random = Random(seed + 5);
        let operands = [
            self.random(2 * q_heads * q_len * depth, &mut random),
            self.random(2 * heads * kv_len * depth, &mut random),
            self.random(2 * heads * kv_len * value_depth, &mut random),
        ];
        let result = vec![0xa5; 2 * 2 * q_heads * q_len * value_depth];
        let place = |argument: &Argument| match argument {
            Argument::Operand(index) => operands[*index].clone(),
            _ => result.clone(),
        };
        let mut buffers: Vec<Vec<u8>> = arguments.iter().map(place).collect();
        let dim = |name: &str| {
            let symbol = |symbol: &tcc_ir::dim::Symbol| match symbol.to_string().as_str() {
                "n" => Some(q_len as i64),
                _ => Some(kv_len as i64),
            };
            tcc_ir::parse::dim(name).ok()?.evaluate(&symbol).ok()
        };
        let counts = simulate(&parsed, &ptx.launch[0], &mut buffers, &dim, seed)
            .unwrap_or_else(|error| panic!("{self:?} {q_len} {kv_len}: {error}"));
        assert_eq!(counts.bank_conflicts * u64::from(depth.is_power_of_two()), 0, "{self:?}");
        let at = arguments.iter().position(|argument| matches!(argument, Argument::Result(_))).unwrap();
        let found = self.numbers(&buffers[at]);
        let [q, k, v] = operands.map(|bytes| self.numbers(&bytes));
        // Weights are rounded to the type, and so is the result; values are at most two.
        let epsilon = if self.dtype == DType::F16 { 2f64.powi(-11) } else { 2f64.powi(-8) };
        let bound = 2.0 * 2.0 * epsilon + 1e-4;
        for row in 0..2 * q_heads * q_len {
            let (head, query) = (row / q_len, row % q_len);
            let shared = head / q_heads * heads + head % q_heads * heads / q_heads;
            let last = query as i64 + kv_len as i64 - q_len as i64;
            let sees = |key: i64| {
                (!self.causal || key <= last) && (self.window == 0 || key > last - self.window as i64)
            };
            let score = |key: usize| {
                let own = &q[row * depth..][..depth];
                let other = &k[(shared * kv_len + key) * depth..][..depth];
                let score = SCALE * own.iter().zip(other).map(|(a, b)| a * b).sum::<f64>();
                if self.softcap > 0.0 { self.softcap * (score / self.softcap).tanh() } else { score }
            };
            let scores: Vec<(usize, f64)> =
                (0..kv_len).filter(|key| sees(*key as i64)).map(|key| (key, score(key))).collect();
            let largest = scores.iter().map(|(_, score)| *score).fold(f64::NEG_INFINITY, f64::max);
            let total: f64 = scores.iter().map(|(_, score)| (score - largest).exp()).sum();
            for channel in 0..value_depth {
                let value = |key: usize| v[(shared * kv_len + key) * value_depth + channel];
                let sum: f64 = scores.iter().map(|(key, score)| (score - largest).exp() * value(*key)).sum();
                let expected = if scores.is_empty() { 0.0 } else { sum / total };
                let value = found[row * value_depth + channel];
                let close = (value - expected).abs() <= bound;
                assert!(
                    close,
                    "{self:?} {q_len} {kv_len} row {row} channel {channel}: {value}, not {expected}"
                );
            }
        }
    }
}

#[test]
fn attention_on_tensor_cores_is_a_softmax() {
    for (seed, case) in CASES.iter().enumerate() {
        for lengths in [[1, 1], [5, 0], [67, 67], [3, 130], [70, 33]] {
            case.check(lengths, seed as u64);
        }
    }
}

/// One kernel of each case.
pub fn kernels(target: &Target) -> Vec<Kernel> {
    CASES.iter().map(|case| case.kernel(target).0).collect()
}
