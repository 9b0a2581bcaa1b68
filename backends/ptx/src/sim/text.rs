//! The parser of PTX text: the directives and instructions that the emitter writes; anything else is refused by line.

use std::collections::HashMap;

use thiserror::Error;

use super::instruction::{
    Arithmetic, Comparison, Entry, Instruction, Matrix, Module, Op, Operand, Register, Rounding, Shuffle,
    Space, Special, Type, Variable, Vote,
};

/// A line that is not understood.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
#[error("PTX line {line}: {what}")]
pub struct ParseError {
    /// Line in the text, from 1.
    pub line: usize,
    /// What is wrong.
    pub what: String,
}

/// Distance between variables, so that an access past the end of one never lands in the next.
const GAP: u64 = 4096;

/// Room for the shared memory that a launch asks for, which lies before the variables.
const REQUESTED: u64 = 1 << 20;

/// `.align 16 .b8 name[];`: the name.
fn requested_variable(text: &str) -> Option<String> {
    let name = text.strip_prefix(".align 16 .b8 ")?.strip_suffix("[];")?;
    Some(name.to_string())
}

/// Parses a module.
pub fn parse(text: &str) -> Result<Module, ParseError> {
    let lines: Vec<String> = text.lines().map(str::to_string).collect();
    let mut module =
        Module { version: String::new(), target: String::new(), entries: Vec::new(), lines: Vec::new() };
    let mut scope: Option<Scope> = None;
    // Shared memory of a size that the launch tells, for the entry that follows.
    let mut requested: Option<String> = None;
    for (index, line) in lines.iter().enumerate() {
        let number = index + 1;
        let fail = |what: String| ParseError { line: number, what };
        let line = line.split("//").next().unwrap_or("").trim();
        if line.is_empty() || line == "{" || line == ")" {
            continue;
        }
        if let Some(scope_now) = &mut scope {
            if line == "}" {
                if let Some(done) = scope.take() {
                    module.entries.push(done.finish()?);
                }
            } else {
                scope_now.line(number, line).map_err(fail)?;
            }
            continue;
        }
        if let Some(version) = line.strip_prefix(".version ") {
            module.version = version.to_string();
        } else if let Some(target) = line.strip_prefix(".target ") {
            module.target = target.to_string();
        } else if let Some(name) = line.strip_prefix(".visible .entry ") {
            let name = name.strip_suffix('(').ok_or_else(|| fail("an entry without parameters".into()))?;
            scope = Some(Scope::new(name, requested.take()));
        } else if let Some(variable) = line.strip_prefix(".extern .shared ") {
            requested = Some(
                requested_variable(variable)
                    .ok_or_else(|| fail(format!("'{variable}' declares no variable")))?,
            );
        } else if line != ".address_size 64" {
            return Err(fail(format!("unknown directive '{line}'")));
        }
    }
    if scope.is_some() {
        return Err(ParseError { line: lines.len(), what: "the text ends inside a kernel".into() });
    }
    module.lines = lines;
    Ok(module)
}

/// A branch whose target may follow.
struct Pending {
    instruction: usize,
    label: String,
}

struct Scope {
    entry: Entry,
    registers: HashMap<String, Register>,
    labels: HashMap<String, usize>,
    pending: Vec<Pending>,
    /// Where the next shared and the next local variable go.
    next_address: [u64; 2],
}

impl Scope {
    fn new(name: &str, requested: Option<String>) -> Scope {
        let first = if requested.is_some() { REQUESTED } else { GAP };
        let entry = Entry {
            requested: requested.map(|name| (name, GAP)),
            name: name.to_string(),
            parameters: Vec::new(),
            registers: [0; 3],
            variables: Vec::new(),
            code: Vec::new(),
            threads: [1024; 3],
        };
        let (registers, labels) = (HashMap::new(), HashMap::new());
        Scope { entry, registers, labels, pending: Vec::new(), next_address: [first, 0] }
    }

    fn finish(mut self) -> Result<Entry, ParseError> {
        for pending in self.pending {
            let instruction = &mut self.entry.code[pending.instruction];
            match self.labels.get(&pending.label) {
                Some(target) => instruction.op = Op::Branch(*target),
                None => {
                    let what = format!("there is no label '{}'", pending.label);
                    return Err(ParseError { line: instruction.line, what });
                }
            }
        }
        Ok(self.entry)
    }

    fn line(&mut self, number: usize, line: &str) -> Result<(), String> {
        if let Some(label) = line.strip_suffix(':') {
            return match self.labels.insert(label.to_string(), self.entry.code.len()) {
                None => Ok(()),
                Some(_) => Err(format!("label '{label}' occurs twice")),
            };
        }
        if let Some(parameter) = line.strip_prefix(".param .u64 ") {
            self.entry.parameters.push(parameter.trim_end_matches(',').to_string());
            return Ok(());
        }
        if let Some(sizes) = line.strip_prefix(".maxntid ") {
            for (place, size) in self.entry.threads.iter_mut().zip(sizes.split(", ")) {
                *place = size.parse().map_err(|_| format!("'{size}' is not a number of threads"))?;
            }
            return Ok(());
        }
        if line.starts_with(".minnctapersm ") || line == ".pragma \"nounroll\";" {
            return Ok(());
        }
        let statement = line.strip_suffix(';').ok_or("the line has no ';'")?;
        if let Some(registers) = statement.strip_prefix(".reg ") {
            return self.declare_registers(registers);
        }
        for (prefix, space) in [(".shared ", Space::Shared), (".local ", Space::Local)] {
            if let Some(variable) = statement.strip_prefix(prefix) {
                return self.declare_variable(space, variable);
            }
        }
        self.instruction(number, statement)
    }

    /// `.f32 %f<12>`: registers `%f0` to `%f11`.
    fn declare_registers(&mut self, text: &str) -> Result<(), String> {
        let wrong = || format!("'{text}' declares no registers");
        let (ty, rest) = text.split_once(' ').ok_or_else(wrong)?;
        let ty: Type = ty.trim_start_matches('.').parse().map_err(|()| wrong())?;
        let (name, count) = rest.trim_end_matches('>').split_once('<').ok_or_else(wrong)?;
        let count: usize = count.parse().map_err(|_| wrong())?;
        let kind = match ty.bits() {
            1 => 0,
            ..=32 => 1,
            _ => 2,
        };
        for number in 0..count {
            let next = self.entry.registers[kind];
            let register = [Register::Predicate, Register::Word, Register::Double][kind](next);
            self.registers.insert(format!("{name}{number}"), register);
            self.entry.registers[kind] += 1;
        }
        Ok(())
    }

    /// `.align 16 .b8 name[64]`.
    fn declare_variable(&mut self, space: Space, text: &str) -> Result<(), String> {
        let wrong = || format!("'{text}' declares no variable");
        let words: Vec<&str> = text.split(' ').collect();
        let [".align", align, ".b8", array] = words[..] else { return Err(wrong()) };
        let align: u64 = align.parse().map_err(|_| wrong())?;
        let (name, bytes) = array.trim_end_matches(']').split_once('[').ok_or_else(wrong)?;
        let bytes: u64 = bytes.parse().map_err(|_| wrong())?;
        let local = space == Space::Local;
        let next = &mut self.next_address[usize::from(local)];
        let address = next.checked_next_multiple_of(align).ok_or_else(wrong)?;
        let gap = if local { 16 } else { GAP };
        *next = address.checked_add(bytes).and_then(|end| end.checked_add(gap)).ok_or_else(wrong)?;
        self.entry.variables.push(Variable { name: name.to_string(), space, address, bytes });
        Ok(())
    }

    fn register(&self, name: &str) -> Result<Register, String> {
        self.registers.get(name).copied().ok_or_else(|| format!("register '{name}' is not declared"))
    }

    fn predicate(&self, name: &str) -> Result<u32, String> {
        match self.register(name)? {
            Register::Predicate(number) => Ok(number),
            _ => Err(format!("register '{name}' is no predicate")),
        }
    }

    /// `%r1` or `{%r1, %r2}`.
    fn tuple(&self, text: &str) -> Result<Vec<Register>, String> {
        elements(text).map(|name| self.register(name)).collect()
    }

    /// The operands of one to four texts, each a single one or a tuple, one after the other.
    fn operands(&self, texts: &[&str]) -> Result<Vec<Operand>, String> {
        texts.iter().flat_map(|text| elements(text)).map(|text| self.operand(text)).collect()
    }

    fn operand(&self, text: &str) -> Result<Operand, String> {
        if let Some(variable) = self.entry.variables.iter().find(|variable| variable.name == text) {
            return Ok(Operand::Immediate(variable.address));
        }
        if let Some((name, address)) = &self.entry.requested
            && name == text
        {
            return Ok(Operand::Immediate(*address));
        }
        if let Some(special) = special(text) {
            return Ok(Operand::Special(special));
        }
        if text.starts_with('%') {
            return Ok(Operand::Register(self.register(text)?));
        }
        let bits = match (text.strip_prefix("0f"), text.strip_prefix("0d")) {
            (Some(hex), _) | (_, Some(hex)) => u64::from_str_radix(hex, 16).ok(),
            _ => text.parse::<i64>().ok().map(|value| value as u64).or_else(|| text.parse().ok()),
        };
        bits.map(Operand::Immediate).ok_or_else(|| format!("'{text}' is not an operand"))
    }

    /// `[register + offset]`.
    fn address(&self, text: &str) -> Result<(Operand, i64), String> {
        let inside = text.strip_prefix('[').and_then(|text| text.strip_suffix(']'));
        let inside = inside.ok_or_else(|| format!("'{text}' is not an address"))?;
        let (base, offset) = inside.split_once('+').unwrap_or((inside, "0"));
        let offset = offset.trim().parse().map_err(|_| format!("'{offset}' is not an offset"))?;
        Ok((self.operand(base.trim())?, offset))
    }

    fn instruction(&mut self, line: usize, statement: &str) -> Result<(), String> {
        let mut rest = statement;
        let mut guard = None;
        if let Some(guarded) = statement.strip_prefix('@') {
            let (predicate, tail) = guarded.split_once(' ').ok_or("a guard without an instruction")?;
            let negated = predicate.starts_with('!');
            guard = Some((self.predicate(predicate.trim_start_matches('!'))?, negated));
            rest = tail;
        }
        let (opcode, arguments) = rest.split_once(' ').unwrap_or((rest, ""));
        let words = split(arguments);
        let parts: Vec<&str> = opcode.split('.').collect();
        let mut instruction = Instruction {
            line,
            guard,
            op: Op::Return,
            results: Vec::new(),
            operands: Vec::new(),
            offset: 0,
            source_offset: 0,
        };
        let unknown = || format!("unknown instruction '{opcode}'");
        match (&parts[..], &words[..]) {
            (["ret"], []) => {}
            (["bar", "sync"], ["0"]) => instruction.op = Op::Barrier,
            (["bra"], [label]) => {
                let (instruction, label) = (self.entry.code.len(), label.to_string());
                self.pending.push(Pending { instruction, label });
            }
            (["ld", "param", _], [result, name]) => {
                let name = name.trim_start_matches('[').trim_end_matches(']');
                let position = self.entry.parameters.iter().position(|parameter| parameter == name);
                let position = position.ok_or_else(|| format!("there is no parameter '{name}'"))?;
                instruction.op = Op::Parameter(position);
                instruction.results = vec![self.register(result)?];
            }
            (["ld", space, vector @ .., ty], [result, address]) => {
                instruction.results = self.tuple(result)?;
                let count = vector_count(vector, instruction.results.len()).ok_or_else(unknown)?;
                instruction.op = Op::Load(memory(space)?, type_of(ty)?, count);
                let (base, offset) = self.address(address)?;
                (instruction.operands, instruction.offset) = (vec![base], offset);
            }
            (["st", space, vector @ .., ty], [address, value]) => {
                let values = self.operands(&[value])?;
                let count = vector_count(vector, values.len()).ok_or_else(unknown)?;
                instruction.op = Op::Store(memory(space)?, type_of(ty)?, count);
                let (base, offset) = self.address(address)?;
                instruction.operands = std::iter::once(base).chain(values).collect();
                instruction.offset = offset;
            }
            (["shfl", "sync", mode, "b32"], [result, value, lane, _, "-1"]) => {
                instruction.op = Op::Shuffle(match *mode {
                    "bfly" => Shuffle::Butterfly,
                    "down" => Shuffle::Down,
                    "up" => Shuffle::Up,
                    "idx" => Shuffle::Index,
                    _ => return Err(unknown()),
                });
                instruction.results = vec![self.register(result)?];
                instruction.operands = self.operands(&[value, lane])?;
            }
            (["vote", "sync", kind, _], [result, value, "-1"]) => {
                instruction.op = Op::Vote(match *kind {
                    "any" => Vote::Any,
                    "all" => Vote::All,
                    "ballot" => Vote::Ballot,
                    _ => return Err(unknown()),
                });
                instruction.results = vec![self.register(result)?];
                instruction.operands = self.operands(&[value])?;
            }
            (["mma", "sync", "aligned", shape, "row", "col", types @ ..], [d, a, b, c]) => {
                instruction.op = Op::Matrix(matrix(shape, types).ok_or_else(unknown)?);
                instruction.results = self.tuple(d)?;
                instruction.operands = self.operands(&[a, b, c])?;
                if instruction.results.len() != 4 || instruction.operands.len() != 10 {
                    return Err(format!("'{opcode}' takes fragments of 4, 4, 2 and 4 registers"));
                }
            }
            (["ldmatrix", "sync", "aligned", "m8n8", rest @ .., "shared", "b16"], [result, address]) => {
                let (count, transposed) = match rest {
                    ["x4"] => (4, false),
                    ["x4", "trans"] => (4, true),
                    ["x2"] => (2, false),
                    ["x2", "trans"] => (2, true),
                    _ => return Err(unknown()),
                };
                instruction.op = Op::LoadMatrix(count, transposed);
                instruction.results = self.tuple(result)?;
                if instruction.results.len() != count {
                    return Err(format!("'{opcode}' gives {count} registers"));
                }
                let (base, offset) = self.address(address)?;
                (instruction.operands, instruction.offset) = (vec![base], offset);
            }
            (["cp", "async", "ca" | "cg", "shared", "global"], [to, from, bytes, valid @ ..]) => {
                let size = bytes.parse().map_err(|_| format!("'{bytes}' is no number of bytes"))?;
                if !matches!((size, parts[2]), (16, _) | (4 | 8, "ca")) || valid.len() > 1 {
                    return Err(unknown());
                }
                instruction.op = Op::CopyAsync(size);
                let valid = valid.first().copied().unwrap_or(bytes);
                let ((to, offset), (from, source)) = (self.address(to)?, self.address(from)?);
                (instruction.offset, instruction.source_offset) = (offset, source);
                instruction.operands = vec![to, from, self.operand(valid)?];
            }
            (["cp", "async", "commit_group"], []) => instruction.op = Op::CopyCommit,
            (["cp", "async", "wait_group"], [count]) => {
                let count = count.parse().map_err(|_| format!("'{count}' is no number of groups"))?;
                instruction.op = Op::CopyWait(count);
            }
            (_, [result, operands @ ..]) => {
                let (op, arity) = operation(&parts).ok_or_else(unknown)?;
                if operands.len() != arity {
                    return Err(format!("'{opcode}' takes {arity} operands"));
                }
                instruction.op = op;
                instruction.results = vec![self.register(result)?];
                instruction.operands = self.operands(operands)?;
            }
            _ => return Err(unknown()),
        }
        self.entry.code.push(instruction);
        Ok(())
    }
}

/// Operands at the commas outside braces and brackets.
fn split(text: &str) -> Vec<&str> {
    let (mut words, mut depth, mut start) = (Vec::new(), 0, 0);
    for (at, letter) in text.char_indices() {
        match letter {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                words.push(text[start..at].trim());
                start = at + 1;
            }
            _ => {}
        }
    }
    let last = text[start..].trim();
    if !last.is_empty() {
        words.push(last);
    }
    words
}

/// The elements of a tuple in braces, or the text itself.
fn elements(text: &str) -> impl Iterator<Item = &str> {
    text.trim_start_matches('{').trim_end_matches('}').split(',').map(str::trim)
}

/// `.v2`, `.v4` or nothing, and as many registers.
fn vector_count(words: &[&str], registers: usize) -> Option<usize> {
    let count = match words {
        [] => 1,
        ["v2"] => 2,
        ["v4"] => 4,
        _ => return None,
    };
    (count == registers).then_some(count)
}

fn matrix(shape: &str, types: &[&str]) -> Option<Matrix> {
    let signed = |ty: &str| match ty {
        "s8" => Some(true),
        "u8" => Some(false),
        _ => None,
    };
    match (shape, types) {
        ("m16n8k16", ["f32", "f16", "f16", "f32"]) => Some(Matrix::Half),
        ("m16n8k16", ["f32", "bf16", "bf16", "f32"]) => Some(Matrix::Bfloat),
        ("m16n8k8", ["f32", "tf32", "tf32", "f32"]) => Some(Matrix::Tf32),
        ("m16n8k32", ["s32", a, b, "s32"]) => Some(Matrix::Integer(signed(a)?, signed(b)?)),
        _ => None,
    }
}

fn type_of(text: &str) -> Result<Type, String> {
    text.parse().map_err(|()| format!("unknown type '.{text}'"))
}

fn memory(text: &str) -> Result<Space, String> {
    match text {
        "global" => Ok(Space::Global),
        "shared" => Ok(Space::Shared),
        "local" => Ok(Space::Local),
        _ => Err(format!("unknown memory space '.{text}'")),
    }
}

fn special(text: &str) -> Option<Special> {
    if text == "%laneid" {
        return Some(Special::Lane);
    }
    let (name, axis) = text.split_once('.')?;
    let axis = ["x", "y", "z"].iter().position(|known| *known == axis)?;
    Some(match name {
        "%tid" => Special::Thread(axis),
        "%ntid" => Special::Threads(axis),
        "%ctaid" => Special::Block(axis),
        "%nctaid" => Special::Blocks(axis),
        _ => return None,
    })
}

/// An instruction on registers and its number of operands.
fn operation(parts: &[&str]) -> Option<(Op, usize)> {
    use Arithmetic::*;
    let ty: Type = parts.last()?.parse().ok()?;
    let of = |arithmetic, arity| Some((Op::Arithmetic(arithmetic, ty), arity));
    let float = ty.is_float();
    match parts[..parts.len() - 1] {
        ["mov"] | ["cvta", "to", "global"] => Some((Op::Move, 1)),
        ["selp"] => Some((Op::Select, 3)),
        ["setp", comparison] => Some((Op::Compare(compare(comparison)?, ty), 2)),
        ["cvt", ref options @ .., to] => {
            let to = to.parse().ok()?;
            let rounding = match options {
                [] => Rounding::Exact,
                ["rn"] => Rounding::Nearest,
                ["rni"] => Rounding::WholeNearest,
                ["rzi"] => Rounding::WholeZero,
                ["rmi"] => Rounding::WholeDown,
                ["rpi"] => Rounding::WholeUp,
                _ => return None,
            };
            Some((Op::Convert { to, from: ty, rounding }, 1))
        }
        ["add", "rn"] if float => of(Add, 2),
        ["sub", "rn"] if float => of(Sub, 2),
        ["mul", "rn"] if float => of(Mul, 2),
        ["div", "rn"] if float => of(Div, 2),
        ["fma", "rn"] if float => of(Fma, 3),
        ["sqrt", "rn"] if float => of(Sqrt, 1),
        ["add"] if !float => of(Add, 2),
        ["sub"] if !float => of(Sub, 2),
        ["mul", "lo"] if !float => of(Mul, 2),
        ["mad", "lo"] if !float => of(Mad, 3),
        ["div"] if !float => of(Div, 2),
        ["rem"] if !float => of(Rem, 2),
        ["min"] => of(Min, 2),
        ["max"] => of(Max, 2),
        ["min", "NaN"] if float => of(MinNan, 2),
        ["max", "NaN"] if float => of(MaxNan, 2),
        ["neg"] => of(Neg, 1),
        ["abs"] => of(Abs, 1),
        ["and"] => of(And, 2),
        ["or"] => of(Or, 2),
        ["xor"] => of(Xor, 2),
        ["not"] => of(Not, 1),
        ["shl"] => of(Shl, 2),
        ["shr"] => of(Shr, 2),
        _ => None,
    }
}

fn compare(text: &str) -> Option<Comparison> {
    Some(match text {
        "eq" => Comparison::Eq,
        "ne" => Comparison::Ne,
        "lt" => Comparison::Lt,
        "le" => Comparison::Le,
        "gt" => Comparison::Gt,
        "ge" => Comparison::Ge,
        "neu" => Comparison::Neu,
        "num" => Comparison::Num,
        "nan" => Comparison::Nan,
        _ => return None,
    })
}
