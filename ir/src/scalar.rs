//! Scalar functions: what an elementwise `map`, an epilogue or a prologue computes for one element.
//!
//! A [`ScalarExpr`] is a small SSA list over inputs `a0, a1, ...`, constants and earlier nodes `t0, t1, ...`; its last
//! line is the result. The text form is `t0 = mul(a0, a1); add(t0, f32:0.5)`.

use std::fmt;
use std::str::FromStr;

use crate::dtype::DType;

macro_rules! scalar_functions {
    ($($(#[doc = $doc:literal])* $variant:ident $text:literal $arity:literal $rule:ident;)*) => {
        /// A scalar function without parameters.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
        pub enum Function { $($(#[doc = $doc])* $variant,)* }

        impl Function {
            /// Every function, in declaration order.
            pub const ALL: &'static [Function] = &[$(Function::$variant,)*];

            /// Name in the text form.
            pub fn text(self) -> &'static str {
                match self { $(Function::$variant => $text,)* }
            }

            /// Number of arguments.
            pub fn arity(self) -> usize {
                match self { $(Function::$variant => $arity,)* }
            }

            /// How argument and result types relate.
            pub fn rule(self) -> Rule {
                match self { $(Function::$variant => Rule::$rule,)* }
            }

            /// What the function computes.
            pub fn doc(self) -> &'static str {
                match self { $(Function::$variant => concat!($($doc),*),)* }
            }
        }
    };
}

/// Type rule of a scalar function.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Rule {
    /// All arguments have one numeric type, which is the result's.
    Number,
    /// All arguments have one floating-point type, which is the result's.
    Float,
    /// All arguments have one integer type, which is the result's.
    Integer,
    /// Truth values in and out.
    Logic,
    /// Two arguments of one type, a truth value out.
    Compare,
    /// One floating-point argument, a truth value out.
    Test,
    /// A truth value, then two arguments of one type, which is the result's.
    Select,
}

scalar_functions! {
    /// `-x`; wraps for the smallest integer.
    Neg "neg" 1 Number;
    /// `|x|`; wraps for the smallest integer.
    Abs "abs" 1 Number;
    /// -1, 0 or 1; NaN stays NaN.
    Sign "sign" 1 Number;
    /// Largest integer not above `x`.
    Floor "floor" 1 Float;
    /// Smallest integer not below `x`.
    Ceil "ceil" 1 Float;
    /// Nearest integer, halves to even.
    Round "round" 1 Float;
    /// Integer part, towards zero.
    Trunc "trunc" 1 Float;
    /// Square root.
    Sqrt "sqrt" 1 Float;
    /// `1 / x`.
    Reciprocal "reciprocal" 1 Float;
    /// `e^x`.
    Exp "exp" 1 Float;
    /// Natural logarithm.
    Log "log" 1 Float;
    /// `log(1 + x)`, accurate near zero.
    Log1p "log1p" 1 Float;
    /// `e^x - 1`, accurate near zero.
    Expm1 "expm1" 1 Float;
    /// Sine of radians.
    Sin "sin" 1 Float;
    /// Cosine of radians.
    Cos "cos" 1 Float;
    /// Tangent of radians.
    Tan "tan" 1 Float;
    /// Inverse sine.
    Asin "asin" 1 Float;
    /// Inverse cosine.
    Acos "acos" 1 Float;
    /// Inverse tangent.
    Atan "atan" 1 Float;
    /// Hyperbolic sine.
    Sinh "sinh" 1 Float;
    /// Hyperbolic cosine.
    Cosh "cosh" 1 Float;
    /// Hyperbolic tangent.
    Tanh "tanh" 1 Float;
    /// Inverse hyperbolic sine.
    Asinh "asinh" 1 Float;
    /// Inverse hyperbolic cosine.
    Acosh "acosh" 1 Float;
    /// Inverse hyperbolic tangent.
    Atanh "atanh" 1 Float;
    /// Gauss error function.
    Erf "erf" 1 Float;
    /// `1 / (1 + e^-x)`.
    Sigmoid "sigmoid" 1 Float;
    /// `x + y`; integers wrap.
    Add "add" 2 Number;
    /// `x - y`; integers wrap.
    Sub "sub" 2 Number;
    /// `x * y`; integers wrap.
    Mul "mul" 2 Number;
    /// `x / y`; integers truncate towards zero, and division by zero yields zero.
    Div "div" 2 Number;
    /// Remainder with the sign of `y`; 0 for an integer division by zero.
    Mod "mod" 2 Number;
    /// Remainder with the sign of `x`, as C's `fmod` and `%`; 0 for an integer division by zero.
    Rem "rem" 2 Number;
    /// `x^y`; integers wrap, and a negative integer exponent gives the reciprocal truncated towards zero (0 for base 0).
    Pow "pow" 2 Number;
    /// The larger; NaN if either is NaN.
    Max "max" 2 Number;
    /// The smaller; NaN if either is NaN.
    Min "min" 2 Number;
    /// Bitwise and.
    BitAnd "bitand" 2 Integer;
    /// Bitwise or.
    BitOr "bitor" 2 Integer;
    /// Bitwise exclusive or.
    BitXor "bitxor" 2 Integer;
    /// Bitwise complement.
    BitNot "bitnot" 1 Integer;
    /// Shift left; zero when shifted by the width or more.
    ShiftLeft "shl" 2 Integer;
    /// Shift right, arithmetic for signed types; by the width or more leaves the sign.
    ShiftRight "shr" 2 Integer;
    /// Logical and.
    And "and" 2 Logic;
    /// Logical or.
    Or "or" 2 Logic;
    /// Logical exclusive or.
    Xor "xor" 2 Logic;
    /// Logical complement.
    Not "not" 1 Logic;
    /// `x == y`; false if either is NaN.
    Equal "eq" 2 Compare;
    /// `x < y`.
    Less "lt" 2 Compare;
    /// `x <= y`.
    LessEqual "le" 2 Compare;
    /// True for NaN.
    IsNan "isnan" 1 Test;
    /// True for both infinities.
    IsInf "isinf" 1 Test;
    /// `c ? x : y`.
    Select "select" 3 Select;
}

/// A typed number; the payload is the value's bit pattern in the low bits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Scalar {
    /// Element type.
    pub dtype: DType,
    /// Bit pattern of an `f64` for floating-point types (so that every narrower value is exact), two's complement otherwise.
    pub bits: u64,
}

impl Scalar {
    /// A floating-point number, kept as `f64`; it is rounded to `dtype` where it is used.
    pub fn float(dtype: DType, value: f64) -> Scalar {
        Scalar { dtype, bits: value.to_bits() }
    }

    /// An integer or truth value.
    pub fn integer(dtype: DType, value: i64) -> Scalar {
        Scalar { dtype, bits: value as u64 }
    }

    /// `value` as a number of type `dtype`, integers by truncation.
    pub fn of(dtype: DType, value: f64) -> Scalar {
        if dtype.is_float() { Scalar::float(dtype, value) } else { Scalar::integer(dtype, value as i64) }
    }

    /// The value as `f64`; large 64-bit integers round.
    pub fn as_f64(self) -> f64 {
        match self.dtype.class() {
            crate::dtype::Class::Float => f64::from_bits(self.bits),
            crate::dtype::Class::Unsigned => self.bits as f64,
            _ => self.bits as i64 as f64,
        }
    }

    /// The value as an integer; floating-point numbers truncate.
    pub fn as_i64(self) -> i64 {
        if self.dtype.is_float() { f64::from_bits(self.bits) as i64 } else { self.bits as i64 }
    }
}

impl fmt::Display for Scalar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.dtype.is_float() {
            let value = f64::from_bits(self.bits);
            // NaN payloads survive as hexadecimal; everything else prints shortest round trip.
            if value.is_nan() {
                write!(f, "{}:0x{:x}", self.dtype, self.bits)
            } else {
                write!(f, "{}:{value:?}", self.dtype)
            }
        } else if self.dtype.class() == crate::dtype::Class::Unsigned {
            write!(f, "{}:{}", self.dtype, self.bits)
        } else {
            write!(f, "{}:{}", self.dtype, self.bits as i64)
        }
    }
}

impl FromStr for Scalar {
    type Err = String;

    fn from_str(text: &str) -> Result<Scalar, String> {
        let (dtype, value) = text.rsplit_once(':').ok_or_else(|| format!("'{text}' is not TYPE:VALUE"))?;
        let dtype: DType = dtype.parse()?;
        let bad = || format!("'{value}' is not a value of {dtype}");
        if let Some(hex) = value.strip_prefix("0x") {
            return Ok(Scalar { dtype, bits: u64::from_str_radix(hex, 16).map_err(|_| bad())? });
        }
        if dtype.is_float() {
            return Ok(Scalar::float(dtype, value.parse().map_err(|_| bad())?));
        }
        let wide: i128 = value.parse().map_err(|_| bad())?;
        let (low, high) = dtype.integer_range().ok_or_else(bad)?;
        if wide < low || wide > high {
            return Err(bad());
        }
        Ok(Scalar { dtype, bits: wide as u64 })
    }
}

/// What one node of a scalar expression does.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum ScalarOp {
    /// A function without parameters.
    Call(Function),
    /// Conversion to a type: floats round to nearest even; float to integer truncates towards zero and saturates, NaN becomes 0;
    /// integer to integer wraps; anything to bool tests for non-zero; float to fp8 saturates to the largest finite value.
    Cast(DType),
    /// As `Cast`, except that integers saturate instead of wrapping and floats that overflow fp8 become NaN or infinity.
    CastAlternate(DType),
    /// Same bits, another type of the same width.
    Bitcast(DType),
}

/// What an argument of a node refers to.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum Arg {
    /// An operand of the expression.
    Input(u16),
    /// An earlier node.
    Node(u16),
    /// A constant.
    Const(Scalar),
}

/// One application of a scalar operator.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct ScalarNode {
    /// What is applied.
    pub op: ScalarOp,
    /// To what.
    pub args: Vec<Arg>,
}

/// A scalar function of `inputs` arguments.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct ScalarExpr {
    /// How many operands the expression reads.
    pub inputs: u16,
    /// Nodes in dependency order.
    pub nodes: Vec<ScalarNode>,
    /// The result.
    pub result: Arg,
}

/// Why a scalar expression is not well formed.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("scalar expression: {0}")]
pub struct ScalarError(pub String);

impl ScalarExpr {
    /// The expression that returns its only input.
    pub fn identity() -> ScalarExpr {
        ScalarExpr { inputs: 1, nodes: Vec::new(), result: Arg::Input(0) }
    }

    /// One function applied to the inputs in order.
    pub fn call(function: Function) -> ScalarExpr {
        let mut expr =
            ScalarExpr { inputs: function.arity() as u16, nodes: Vec::new(), result: Arg::Input(0) };
        let args: Vec<Arg> = (0..expr.inputs).map(Arg::Input).collect();
        expr.result = expr.push(ScalarOp::Call(function), &args);
        expr
    }

    /// Conversion of the only input.
    pub fn cast(dtype: DType) -> ScalarExpr {
        let mut expr = ScalarExpr::identity();
        expr.result = expr.push(ScalarOp::Cast(dtype), &[Arg::Input(0)]);
        expr
    }

    /// An expression under construction: `inputs` operands, result to be set.
    pub fn with_inputs(inputs: usize) -> ScalarExpr {
        ScalarExpr { inputs: inputs as u16, nodes: Vec::new(), result: Arg::Input(0) }
    }

    /// Appends a node, or returns the equal one that is already there.
    pub fn push(&mut self, op: ScalarOp, args: &[Arg]) -> Arg {
        let node = ScalarNode { op, args: args.to_vec() };
        let index = self.nodes.iter().position(|known| *known == node).unwrap_or_else(|| {
            self.nodes.push(node);
            self.nodes.len() - 1
        });
        Arg::Node(index as u16)
    }

    /// Appends a function call; see [`ScalarExpr::push`].
    pub fn apply(&mut self, function: Function, args: &[Arg]) -> Arg {
        self.push(ScalarOp::Call(function), args)
    }

    /// True where the expression passes its only input through.
    pub fn is_identity(&self) -> bool {
        self.inputs == 1 && self.result == Arg::Input(0)
    }

    /// The single function that this expression applies to its inputs in order, if it is one.
    pub fn as_call(&self) -> Option<Function> {
        match (&self.nodes[..], self.result) {
            ([ScalarNode { op: ScalarOp::Call(function), args }], Arg::Node(0))
                if args.len() == self.inputs as usize
                    && args.iter().enumerate().all(|(index, arg)| *arg == Arg::Input(index as u16)) =>
            {
                Some(*function)
            }
            _ => None,
        }
    }

    /// Copies `other` into this expression with its inputs replaced by `args`; returns where its result is.
    pub fn inline(&mut self, other: &ScalarExpr, args: &[Arg]) -> Arg {
        let mut placed: Vec<Arg> = Vec::with_capacity(other.nodes.len());
        let resolve = |arg: &Arg, placed: &[Arg]| match arg {
            Arg::Input(index) => args[*index as usize],
            Arg::Node(index) => placed[*index as usize],
            Arg::Const(scalar) => Arg::Const(*scalar),
        };
        for node in &other.nodes {
            let node_args: Vec<Arg> = node.args.iter().map(|arg| resolve(arg, &placed)).collect();
            let position = self.push(node.op, &node_args);
            placed.push(position);
        }
        resolve(&other.result, &placed)
    }

    /// The element type of every node and of the result, given the inputs' types.
    pub fn infer(&self, inputs: &[DType]) -> Result<(Vec<DType>, DType), ScalarError> {
        let error = |text: String| Err(ScalarError(text));
        if inputs.len() != self.inputs as usize {
            return error(format!("takes {} inputs, got {}", self.inputs, inputs.len()));
        }
        let mut types: Vec<DType> = Vec::with_capacity(self.nodes.len());
        let lookup = |arg: &Arg, types: &[DType]| match arg {
            Arg::Input(index) => inputs.get(*index as usize).copied(),
            Arg::Node(index) => types.get(*index as usize).copied(),
            Arg::Const(scalar) => Some(scalar.dtype),
        };
        for (index, node) in self.nodes.iter().enumerate() {
            let Some(args) = node.args.iter().map(|arg| lookup(arg, &types)).collect::<Option<Vec<DType>>>()
            else {
                return error(format!("t{index} refers to something that does not come before it"));
            };
            types.push(node.op.infer(&args).map_err(|text| ScalarError(format!("t{index}: {text}")))?);
        }
        match lookup(&self.result, &types) {
            Some(dtype) => Ok((types, dtype)),
            None => error("the result refers to nothing".into()),
        }
    }

    /// Drops nodes that the result does not need.
    pub fn prune(&self) -> ScalarExpr {
        let mut needed = vec![false; self.nodes.len()];
        let mut stack = vec![self.result];
        while let Some(arg) = stack.pop() {
            if let Arg::Node(index) = arg
                && !std::mem::replace(&mut needed[index as usize], true)
            {
                stack.extend(self.nodes[index as usize].args.iter().copied());
            }
        }
        let mut kept = ScalarExpr::with_inputs(self.inputs as usize);
        let mut moved = vec![Arg::Input(0); self.nodes.len()];
        let renumber = |arg: &Arg, moved: &[Arg]| match arg {
            Arg::Node(index) => moved[*index as usize],
            other => *other,
        };
        for (index, node) in self.nodes.iter().enumerate().filter(|(index, _)| needed[*index]) {
            let args: Vec<Arg> = node.args.iter().map(|arg| renumber(arg, &moved)).collect();
            moved[index] = kept.push(node.op, &args);
        }
        kept.result = renumber(&self.result, &moved);
        kept
    }
}

impl ScalarOp {
    /// The result type for argument types.
    pub fn infer(self, args: &[DType]) -> Result<DType, String> {
        let function = match self {
            ScalarOp::Call(function) => function,
            ScalarOp::Cast(to) | ScalarOp::CastAlternate(to) => {
                let [from] = args else { return Err("a cast takes one argument".into()) };
                return if *from == DType::String || to == DType::String {
                    Err("text has no scalar casts".into())
                } else {
                    Ok(to)
                };
            }
            ScalarOp::Bitcast(to) => {
                let [from] = args else { return Err("a bitcast takes one argument".into()) };
                return if from.bits() == to.bits() {
                    Ok(to)
                } else {
                    Err(format!("{from} and {to} differ in width"))
                };
            }
        };
        let name = function.text();
        if args.len() != function.arity() {
            return Err(format!("{name} takes {} arguments, got {}", function.arity(), args.len()));
        }
        let operands = if function.rule() == Rule::Select { &args[1..] } else { args };
        if operands.windows(2).any(|pair| pair[0] != pair[1]) {
            return Err(format!("{name} takes arguments of one type, got {args:?}"));
        }
        let dtype = operands[0];
        let accepted = match function.rule() {
            Rule::Number => dtype.is_float() || dtype.is_integer(),
            Rule::Float | Rule::Test => dtype.is_float(),
            Rule::Integer => dtype.is_integer(),
            Rule::Logic => dtype == DType::Bool,
            Rule::Compare => dtype != DType::String,
            Rule::Select => args[0] == DType::Bool && dtype != DType::String,
        };
        match (accepted, function.rule()) {
            (false, _) => Err(format!("{name} does not take {args:?}")),
            (true, Rule::Compare | Rule::Test) => Ok(DType::Bool),
            (true, _) => Ok(dtype),
        }
    }
}

impl fmt::Display for ScalarOp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ScalarOp::Call(function) => f.write_str(function.text()),
            ScalarOp::Cast(dtype) => write!(f, "cast<{dtype}>"),
            ScalarOp::CastAlternate(dtype) => write!(f, "cast_alternate<{dtype}>"),
            ScalarOp::Bitcast(dtype) => write!(f, "bitcast<{dtype}>"),
        }
    }
}

impl FromStr for ScalarOp {
    type Err = String;

    fn from_str(text: &str) -> Result<ScalarOp, String> {
        if let Some((name, rest)) = text.split_once('<') {
            let dtype = rest.strip_suffix('>').ok_or_else(|| format!("'{text}' lacks '>'"))?.parse()?;
            return match name {
                "cast" => Ok(ScalarOp::Cast(dtype)),
                "cast_alternate" => Ok(ScalarOp::CastAlternate(dtype)),
                "bitcast" => Ok(ScalarOp::Bitcast(dtype)),
                _ => Err(format!("unknown scalar operator '{text}'")),
            };
        }
        Function::ALL
            .iter()
            .find(|function| function.text() == text)
            .map(|function| ScalarOp::Call(*function))
            .ok_or_else(|| format!("unknown scalar operator '{text}'"))
    }
}

impl fmt::Display for Arg {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Arg::Input(index) => write!(f, "a{index}"),
            Arg::Node(index) => write!(f, "t{index}"),
            Arg::Const(scalar) => write!(f, "{scalar}"),
        }
    }
}

impl FromStr for Arg {
    type Err = String;

    fn from_str(text: &str) -> Result<Arg, String> {
        let index = |digits: &str| digits.parse::<u16>().map_err(|_| format!("'{text}' is not an operand"));
        if text.contains(':') {
            Ok(Arg::Const(text.parse()?))
        } else if let Some(digits) = text.strip_prefix('a') {
            Ok(Arg::Input(index(digits)?))
        } else if let Some(digits) = text.strip_prefix('t') {
            Ok(Arg::Node(index(digits)?))
        } else {
            Err(format!("'{text}' is not an operand"))
        }
    }
}

impl fmt::Display for ScalarExpr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "({})", self.inputs)?;
        for (index, node) in self.nodes.iter().enumerate() {
            write!(f, " t{index} = {}(", node.op)?;
            for (position, arg) in node.args.iter().enumerate() {
                write!(f, "{}{arg}", if position > 0 { ", " } else { "" })?;
            }
            write!(f, ");")?;
        }
        write!(f, " {}", self.result)
    }
}

impl FromStr for ScalarExpr {
    type Err = ScalarError;

    fn from_str(text: &str) -> Result<ScalarExpr, ScalarError> {
        let error = |what: &str| ScalarError(format!("{what} in '{text}'"));
        let (inputs, body) = text
            .trim()
            .strip_prefix('(')
            .and_then(|rest| rest.split_once(')'))
            .ok_or_else(|| error("missing '(INPUTS)'"))?;
        let inputs = inputs.trim().parse().map_err(|_| error("bad input count"))?;
        let mut lines: Vec<&str> = body.split(';').map(str::trim).collect();
        let result = lines.pop().ok_or_else(|| error("missing result"))?.parse().map_err(ScalarError)?;
        let mut nodes = Vec::with_capacity(lines.len());
        for (index, line) in lines.iter().enumerate() {
            let (name, call) = line.split_once('=').ok_or_else(|| error("missing '='"))?;
            if name.trim() != format!("t{index}") {
                return Err(error("nodes are not numbered in order"));
            }
            let (op, args) = call
                .trim()
                .strip_suffix(')')
                .and_then(|call| call.split_once('('))
                .ok_or_else(|| error("missing '(ARGUMENTS)'"))?;
            let args = args
                .split(',')
                .map(|arg| arg.trim().parse())
                .collect::<Result<Vec<Arg>, String>>()
                .map_err(ScalarError)?;
            nodes.push(ScalarNode { op: op.trim().parse().map_err(ScalarError)?, args });
        }
        Ok(ScalarExpr { inputs, nodes, result })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_round_trips() {
        let text = "(2) t0 = mul(a0, a1); t1 = cast<f16>(t0); t2 = add(t1, f16:0.5); t2";
        let expr: ScalarExpr = text.parse().unwrap();
        assert_eq!(expr.to_string(), text);
        assert_eq!(expr.infer(&[DType::F32, DType::F32]).unwrap().1, DType::F16);
    }

    #[test]
    fn inlining_shares_equal_nodes() {
        let square: ScalarExpr = "(1) t0 = mul(a0, a0); t0".parse().unwrap();
        let mut expr = ScalarExpr::with_inputs(1);
        let a = expr.inline(&square, &[Arg::Input(0)]);
        let b = expr.inline(&square, &[Arg::Input(0)]);
        assert_eq!(a, b);
        expr.result = a;
        assert_eq!(expr, square);
    }

    #[test]
    fn types_are_checked() {
        let add = ScalarExpr::call(Function::Add);
        assert!(add.infer(&[DType::F32, DType::I32]).is_err());
        assert!(ScalarExpr::call(Function::Exp).infer(&[DType::I32]).is_err());
        assert_eq!(ScalarExpr::call(Function::Less).infer(&[DType::I8, DType::I8]).unwrap().1, DType::Bool);
    }
}
