//! Expressions as C++ text.
//!
//! Sums and products of integers are exact in C++ (`ap_int` operators widen) and wrap where they are assigned; operations
//! that see more than the low bits first convert to their type. The same holds of fixed point, with rounding.

use tcc_ir::dtype::{Class, DType};
use tcc_ir::scalar::{Function, Scalar, ScalarOp};
use tcc_kernel::fixed::Exact;
use tcc_kernel::ir::Expr;

use super::Emitter;
use crate::error::Error;
use crate::tables::{literal, name as table_name};

/// Text with how strongly its outermost operator binds, as C++ has it: 12 never needs parentheses.
pub struct Text {
    /// The expression.
    pub text: String,
    binding: u8,
    /// False where the C++ value may lie outside the type that the expression has.
    wrapped: bool,
    /// True where the C++ type is that of indices.
    pub native: bool,
}

const TERNARY: u8 = 1;
const SUM: u8 = 9;
const PRODUCT: u8 = 10;
const UNARY: u8 = 11;
const PRIMARY: u8 = 12;

impl Text {
    fn new(text: impl Into<String>, binding: u8) -> Text {
        Text { text: text.into(), binding, wrapped: true, native: false }
    }

    fn primary(text: impl Into<String>) -> Text {
        Text::new(text, PRIMARY)
    }

    /// Parenthesized where it binds less than an operator of that strength.
    pub fn above(&self, binding: u8) -> String {
        if self.binding >= binding { self.text.clone() } else { format!("({})", self.text) }
    }
}

impl Emitter<'_> {
    pub(super) fn expr(&mut self, expr: &Expr) -> Result<Text, Error> {
        match expr {
            Expr::Const(scalar) => self.constant(*scalar),
            Expr::Var(var) => match self.variable(*var) {
                Some(name) => {
                    let native = self.indices.is_native(*var);
                    Ok(Text { native, ..Text::primary(name) })
                }
                None => self.unsupported("variable that is read before it is assigned", "verify the kernel"),
            },
            Expr::Dim(_) => self.unsupported("dimension decided at run time", "fix all dimensions"),
            Expr::Load { buffer, index, lanes: 1, valid } => {
                let text = self.element(*buffer, index)?;
                let Some(valid) = valid else { return Ok(Text::primary(text)) };
                let valid = self.expr(valid)?.above(8);
                let ty = self.local_type(self.kernel.buffer_of(*buffer).dtype)?;
                Ok(Text::new(format!("{valid} > 0 ? {ty}({text}) : {ty}(0)"), TERNARY))
            }
            Expr::Call(op, args) => self.call(*op, args, expr),
            Expr::Splat(value, 1) | Expr::ReduceLanes(_, value) if self.kernel.type_of(value).lanes == 1 => {
                self.expr(value)
            }
            Expr::Ramp { base, lanes: 1, .. } => self.expr(base),
            Expr::Fma(a, b, c) => {
                let (a, b, c) = (self.expr(a)?, self.expr(b)?, self.expr(c)?);
                let text = format!("{} + {} * {}", c.above(SUM), a.above(PRODUCT), b.above(UNARY));
                Ok(Text { wrapped: false, ..Text::new(text, SUM) })
            }
            Expr::Load { .. }
            | Expr::Splat(..)
            | Expr::Ramp { .. }
            | Expr::Dot { .. }
            | Expr::ReduceLanes(..)
            | Expr::Shuffle(..) => self.unsupported(
                format!("vector '{}'", self.kernel.expr_text(expr)),
                "lower the kernel with one lane",
            ),
        }
    }

    fn local_type(&self, dtype: DType) -> Result<String, Error> {
        match self.types.local(dtype) {
            Some(name) => Ok(name),
            None => {
                self.unsupported(format!("type for {dtype} values"), "convert the model to f32 or integers")
            }
        }
    }

    fn constant(&self, scalar: Scalar) -> Result<Text, Error> {
        if let (DType::F32, Some(format)) = (scalar.dtype, self.types.local_format()) {
            let value = literal(Exact::nearest(scalar.as_f64(), format));
            return Ok(Text::primary(format!("{}({value})", self.local_type(scalar.dtype)?)));
        }
        let value = scalar.as_f64();
        let text = match scalar.dtype {
            DType::F32 | DType::F64 if value.is_nan() => "NAN".to_string(),
            DType::F32 | DType::F64 if value.is_infinite() => {
                (if value > 0.0 { "INFINITY" } else { "-INFINITY" }).to_string()
            }
            DType::F32 => format!("{:?}f", value as f32),
            DType::F64 => format!("{value:?}"),
            DType::Bool => (scalar.bits != 0).to_string(),
            DType::U64 => format!("{}ULL", scalar.bits),
            dtype if dtype.is_integer() => match scalar.as_i64() {
                i64::MIN => "(-9223372036854775807LL - 1)".to_string(),
                value if i32::try_from(value).is_ok_and(|value| value > i32::MIN) => value.to_string(),
                value => format!("{value}LL"),
            },
            dtype => {
                return self.unsupported(
                    format!("constant of type {dtype}"),
                    "convert the model to f32 or integers",
                );
            }
        };
        let binding = if text.starts_with('-') { UNARY } else { PRIMARY };
        Ok(Text { native: scalar.dtype == DType::I64, ..Text::new(text, binding) })
    }

    /// The value of an integer expression brought into its type.
    fn wrapped(&mut self, expr: &Expr) -> Result<Text, Error> {
        let text = self.expr(expr)?;
        let dtype = self.kernel.type_of(expr).dtype;
        if text.wrapped || text.native || !dtype.is_integer() {
            return Ok(text);
        }
        Ok(Text::primary(format!("{}({})", self.local_type(dtype)?, text.text)))
    }

    fn call(&mut self, op: ScalarOp, args: &[Expr], whole: &Expr) -> Result<Text, Error> {
        if self.kernel.type_of(whole).lanes != 1 {
            return self.unsupported(
                format!("vector '{}'", self.kernel.expr_text(whole)),
                "lower the kernel with one lane",
            );
        }
        match (op, args) {
            (ScalarOp::Call(function), _) => self.function(function, args, whole),
            (ScalarOp::Cast(to), [value]) => self.cast(value, to, false),
            (ScalarOp::CastAlternate(to), [value]) => self.cast(value, to, true),
            _ => self.unsupported(
                format!("'{}'", self.kernel.expr_text(whole)),
                "keep bit patterns out of the model",
            ),
        }
    }

    fn cast(&mut self, value: &Expr, to: DType, saturate: bool) -> Result<Text, Error> {
        let from = self.kernel.type_of(value).dtype;
        let ty = self.local_type(to)?;
        let fixed = self.types.is_fixed();
        let (low, high) = to.integer_range().unwrap_or((0, 0));
        Ok(match (from.class(), to.class()) {
            (Class::Float, Class::Float) if from == to || fixed => return self.expr(value),
            (_, Class::Bool) => {
                let text = self.wrapped(value)?;
                Text::new(format!("{} != 0", text.above(7)), 6)
            }
            (Class::Float, Class::Float) => Text::primary(format!("{ty}({})", self.expr(value)?.text)),
            (Class::Float, _) if fixed => {
                let (from_type, text) = (self.local_type(from)?, self.expr(value)?.text);
                Text::primary(format!("fixed_to_integer<{ty}, {}>({from_type}({text}))", to.is_signed()))
            }
            (Class::Float, _) => {
                let limit = 2f64.powi(to.bits() as i32 - i32::from(to.is_signed()));
                let text = self.expr(value)?.text;
                Text::primary(format!("to_integer<{ty}>({text}, {}, {limit:?})", to.is_signed()))
            }
            (_, Class::Float) => {
                let text = self.wrapped(value)?;
                if fixed || text.native {
                    Text::primary(format!("{ty}({})", text.text))
                } else {
                    let conversion = if to == DType::F32 { "to_float" } else { "to_double" };
                    match from {
                        DType::Bool => Text::primary(format!("{ty}({})", text.text)),
                        // A constant has no conversion functions until it has its type.
                        _ => {
                            Text::primary(format!("{}({}).{conversion}()", self.local_type(from)?, text.text))
                        }
                    }
                }
            }
            _ if saturate => {
                let text = self.wrapped(value)?.text;
                let wide = if from.bits() < 64 && to.bits() < 64 { "long long" } else { "ap_int<66>" };
                let limit = |value: i128| {
                    if value > i128::from(i64::MAX) { format!("{value}ULL") } else { format!("{value}LL") }
                };
                let low = if to == DType::I64 { "(-9223372036854775807LL - 1)".into() } else { limit(low) };
                let wide_value = if wide == "long long" {
                    format!("(long long){ty_from}({text})", ty_from = self.local_type(from)?)
                } else {
                    text
                };
                Text::primary(format!("clamped<{ty}, {wide}>({wide_value}, {low}, {})", limit(high)))
            }
            // A value of a narrower type keeps its value in the wider one.
            _ => {
                let contained = from.integer_range().is_some_and(|(a, b)| low <= a && b <= high);
                let text = self.wrapped(value)?;
                match contained && !text.native && from != DType::Bool {
                    true => text,
                    false => Text::primary(format!("{ty}({})", text.text)),
                }
            }
        })
    }

    fn infix(&mut self, symbol: &str, binding: u8, args: &[Expr], wrapped: bool) -> Result<Text, Error> {
        let [a, b] = args else { return self.unsupported(symbol, "verify the kernel") };
        let (a, b) =
            if wrapped { (self.wrapped(a)?, self.wrapped(b)?) } else { (self.expr(a)?, self.expr(b)?) };
        let native = a.native && b.native;
        let text = format!("{} {symbol} {}", a.above(binding), b.above(binding + 1));
        Ok(Text { native, wrapped: wrapped || native, ..Text::new(text, binding) })
    }

    /// A template of the support headers, with its type named.
    fn template(&mut self, name: &str, ty: &str, args: &[Expr]) -> Result<Text, Error> {
        let mut texts = Vec::new();
        for arg in args {
            texts.push(self.wrapped(arg)?.text);
        }
        let native = ty == self.indices.type_name();
        Ok(Text { native, ..Text::primary(format!("{name}<{ty}>({})", texts.join(", "))) })
    }

    fn function(&mut self, function: Function, args: &[Expr], whole: &Expr) -> Result<Text, Error> {
        use Function::*;
        let Some(last) = args.last() else { return self.unsupported(function.text(), "verify the kernel") };
        let dtype = self.kernel.type_of(last).dtype;
        let ty = if self.indices.holds(whole) {
            self.indices.type_name().to_string()
        } else {
            self.local_type(dtype)?
        };
        match function {
            Add | Sub | Mul => {
                let (symbol, binding) = match function {
                    Add => ("+", SUM),
                    Sub => ("-", SUM),
                    _ => ("*", PRODUCT),
                };
                let text = self.infix(symbol, binding, args, false)?;
                Ok(Text { wrapped: text.native || dtype.is_float(), ..text })
            }
            Neg => {
                let text = self.expr(last)?;
                Ok(Text {
                    wrapped: text.native || dtype.is_float(),
                    native: text.native,
                    ..Text::new(format!("-{}", text.above(PRIMARY)), UNARY)
                })
            }
            Equal => self.infix("==", 6, args, true),
            Less => self.infix("<", 7, args, true),
            LessEqual => self.infix("<=", 7, args, true),
            And => self.infix("&&", 2, args, true),
            Or => self.infix("||", 1, args, true),
            Xor => self.infix("!=", 6, args, true),
            Not => Ok(Text::new(format!("!{}", self.expr(last)?.above(PRIMARY)), UNARY)),
            Max => self.template("larger", &ty, args),
            Min => self.template("smaller", &ty, args),
            Abs => self.template("magnitude", &ty, args),
            Sign => self.template("sign", &ty, args),
            Select => self.select(args, &ty),
            _ if dtype.is_integer() => self.integer(function, args, &ty),
            _ if self.types.is_fixed() => self.fixed(function, args, &ty),
            _ => self.float(function, args, &ty),
        }
    }

    fn select(&mut self, args: &[Expr], ty: &str) -> Result<Text, Error> {
        let [condition, a, b] = args else { return self.unsupported("select", "verify the kernel") };
        let condition = self.expr(condition)?.above(2);
        let (a, b) = (self.wrapped(a)?, self.wrapped(b)?);
        let native = a.native && b.native;
        let text = if native || matches!(ty, "float" | "double" | "bool") {
            format!("{condition} ? {} : {}", a.above(2), b.above(2))
        } else {
            format!("{condition} ? {ty}({}) : {ty}({})", a.text, b.text)
        };
        Ok(Text { native, ..Text::new(text, TERNARY) })
    }

    fn integer(&mut self, function: Function, args: &[Expr], ty: &str) -> Result<Text, Error> {
        let by_constant = args.get(1).and_then(Expr::as_index).is_some_and(|divisor| divisor > 0);
        match function {
            Function::Div | Function::Rem
                if by_constant && args.iter().all(|arg| self.indices.holds(arg)) =>
            {
                self.infix(if function == Function::Div { "/" } else { "%" }, PRODUCT, args, true)
            }
            Function::Div => self.template("quotient", ty, args),
            Function::Rem => self.template("remainder_of", ty, args),
            Function::Mod => self.template("modulo", ty, args),
            Function::ShiftLeft => self.template("shift_left", ty, args),
            Function::ShiftRight => self.template("shift_right", ty, args),
            Function::BitAnd | Function::BitOr | Function::BitXor => {
                let symbol = match function {
                    Function::BitAnd => "&",
                    Function::BitOr => "|",
                    _ => "^",
                };
                let [a, b] = args else { return self.unsupported(function.text(), "verify the kernel") };
                let (a, b) = (self.expr(a)?.text, self.expr(b)?.text);
                Ok(Text::primary(format!("{ty}({ty}({a}) {symbol} {ty}({b}))")))
            }
            Function::BitNot => {
                let text = self.expr(&args[0])?.text;
                Ok(Text::primary(format!("{ty}(~{ty}({text}))")))
            }
            _ => self.unsupported(
                format!("integer function '{}'", function.text()),
                "compute it in floating point",
            ),
        }
    }

    fn float(&mut self, function: Function, args: &[Expr], ty: &str) -> Result<Text, Error> {
        use Function::*;
        let name = match function {
            Div => return self.infix("/", PRODUCT, args, false),
            Reciprocal => {
                let one = if ty == "float" { "1.0f" } else { "1.0" };
                let text = self.expr(&args[0])?.above(UNARY);
                return Ok(Text::new(format!("{one} / {text}"), PRODUCT));
            }
            Sigmoid => return self.template("sigmoid", ty, args),
            Mod => return self.template("float_modulo", ty, args),
            Floor => "floor",
            Ceil => "ceil",
            // Halves to even in the default rounding mode.
            Round => "rint",
            Trunc => "trunc",
            Sqrt => "sqrt",
            Exp => "exp",
            Log => "log",
            Log1p => "log1p",
            Expm1 => "expm1",
            Sin => "sin",
            Cos => "cos",
            Tan => "tan",
            Asin => "asin",
            Acos => "acos",
            Atan => "atan",
            Sinh => "sinh",
            Cosh => "cosh",
            Tanh => "tanh",
            Asinh => "asinh",
            Acosh => "acosh",
            Atanh => "atanh",
            Erf => "erf",
            Rem => "fmod",
            Pow => "pow",
            IsNan => "isnan",
            IsInf => "isinf",
            _ => {
                return self
                    .unsupported(format!("function '{}' on {ty}", function.text()), "rewrite the operation");
            }
        };
        let mut texts = Vec::new();
        for arg in args {
            texts.push(format!("{ty}({})", self.expr(arg)?.text));
        }
        if let [Expr::Var(_) | Expr::Load { .. }] = args {
            texts = vec![self.expr(&args[0])?.text];
        }
        Ok(Text::primary(format!("scalar::{name}({})", texts.join(", "))))
    }

    fn fixed(&mut self, function: Function, args: &[Expr], ty: &str) -> Result<Text, Error> {
        use Function::*;
        let Some(format) = self.types.local_format() else {
            return self.unsupported(function.text(), "use float numbers");
        };
        let mut texts = Vec::new();
        for arg in args {
            texts.push(self.expr(arg)?.text);
        }
        let unary = texts.first().cloned().unwrap_or_default();
        let text = match function {
            Div => format!("fixed_quotient<{ty}>({})", texts.join(", ")),
            Reciprocal => format!("fixed_quotient<{ty}>({ty}(1), {unary})"),
            Floor => format!("fixed_floor<{ty}>({unary})"),
            Ceil => format!("fixed_ceil<{ty}>({unary})"),
            Round => format!("fixed_round<{ty}>({unary})"),
            Trunc => format!("fixed_trunc<{ty}>({unary})"),
            Sqrt => format!("fixed_root<{ty}>({unary})"),
            // Fixed point has neither.
            IsNan | IsInf => "false".to_string(),
            _ => match self.table(function, format) {
                Some(table) if function == Log => {
                    let (intervals, shift, octave) = (
                        table.intervals(),
                        table.shift,
                        literal(Exact::nearest(std::f64::consts::LN_2, format)),
                    );
                    let name = table_name(&table, format);
                    format!("fixed_log<{intervals}, {shift}, {ty}>({name}, {unary}, {ty}({octave}))")
                }
                Some(table) => {
                    let (intervals, shift, low) = (table.intervals(), table.shift, table.low);
                    let name = table_name(&table, format);
                    format!("lookup<{intervals}, {shift}, {ty}>({name}, {ty}({unary}), {low})")
                }
                None => {
                    let what = format!("fixed-point table for '{}'", function.text());
                    return self.unsupported(what, "use --quant float");
                }
            },
        };
        Ok(Text::primary(text))
    }
}
