//! A warp and how it executes an instruction: all lanes that stand at it together.
//!
//! Of a diverged warp the lanes that lag behind run first, so it comes together again where branches join.

use std::collections::VecDeque;

use super::arithmetic::{arithmetic, compare, convert};
use super::counts::Counts;
use super::fault::Fault;
use super::instruction::{
    Arithmetic, Comparison, Entry, Instruction, Op, Operand, Register, Shuffle, Space, Special, Type, Vote,
};
use super::machine::{Memories, Place, WARP, position};
use super::matrix;
use super::memory::{Actor, Local};

/// A value of each lane.
pub type Words = [u32; WARP];
/// A wide value of each lane.
pub type Doubles = [u64; WARP];

/// A copy from global to shared memory that has not landed.
struct Copy {
    lane: usize,
    to: u64,
    size: usize,
    bytes: [u8; 16],
}

/// The lanes of a warp.
pub struct Warp {
    number: usize,
    /// Lanes that exist, one bit each.
    lanes: u32,
    running: u32,
    waiting: bool,
    /// The next instruction of every lane, where they agree.
    together: Option<usize>,
    next: [usize; WARP],
    predicates: Vec<u32>,
    words: Vec<Words>,
    doubles: Vec<Doubles>,
    local: Vec<Local>,
    local_bytes: usize,
    departing: Vec<Copy>,
    groups: VecDeque<Vec<Copy>>,
}

/// Numbers of the lanes of a mask.
fn lanes_of(mask: u32) -> impl Iterator<Item = usize> {
    (0..WARP).filter(move |lane| mask >> lane & 1 == 1)
}

impl Warp {
    /// A warp of a block of so many threads.
    pub fn new(entry: &Entry, number: usize, threads: usize) -> Warp {
        let count = (threads - number * WARP).min(WARP);
        let local = entry.variables.iter().filter(|variable| variable.space == Space::Local);
        let local_bytes = local.map(|variable| variable.address + variable.bytes).max().unwrap_or(0) as usize;
        let [predicates, words, doubles] = entry.registers.map(|count| count as usize);
        let mut local = Vec::new();
        local.resize_with(if local_bytes > 0 { count } else { 0 }, Local::default);
        Warp {
            number,
            lanes: u32::MAX >> (WARP - count),
            running: 0,
            waiting: false,
            together: Some(0),
            next: [0; WARP],
            predicates: vec![0; predicates],
            words: vec![[0; WARP]; words],
            doubles: vec![[0; WARP]; doubles],
            local,
            local_bytes,
            departing: Vec::new(),
            groups: VecDeque::new(),
        }
    }

    /// Makes the warp ready for a block, with garbage in its registers.
    pub fn start(&mut self, entry: &Entry, garbage: u64) {
        (self.running, self.waiting, self.together) = (self.lanes, false, Some(0));
        debug_assert_eq!(self.words.len(), entry.registers[1] as usize);
        self.predicates.fill(garbage as u32);
        self.words.fill([garbage as u32 ^ 0x7fbf_5a5a; WARP]);
        self.doubles.fill([garbage ^ 0x7ff5_a5a5_0000_5a5a; WARP]);
        self.local.iter_mut().for_each(|local| local.reset(self.local_bytes));
        self.departing.clear();
        self.groups.clear();
    }

    /// True where a lane has something to do.
    pub fn can_run(&self) -> bool {
        self.running != 0 && !self.waiting
    }

    /// Threads at a barrier.
    pub fn waiting(&self) -> usize {
        if self.waiting { self.lanes.count_ones() as usize } else { 0 }
    }

    /// Lets the threads go on after a barrier.
    pub fn release(&mut self) {
        self.waiting = false;
    }

    /// The instruction that comes next.
    pub fn next(&self) -> usize {
        match self.together {
            Some(at) => at,
            None => lanes_of(self.running).map(|lane| self.next[lane]).min().unwrap_or(0),
        }
    }

    /// Sends the lanes of a mask to an instruction.
    fn send(&mut self, mask: u32, to: usize) {
        if mask == self.running {
            self.together = Some(to);
            return;
        }
        if let Some(at) = self.together.take() {
            self.next = [at; WARP];
        }
        lanes_of(mask).for_each(|lane| self.next[lane] = to);
        self.join();
    }

    /// Notes where lanes have come together.
    fn join(&mut self) {
        if self.together.is_some() {
            return;
        }
        let mut lanes = lanes_of(self.running).map(|lane| self.next[lane]);
        if let Some(first) = lanes.next()
            && lanes.all(|next| next == first)
        {
            self.together = Some(first);
        }
    }

    fn actor(&self, place: &Place, lane: usize) -> Actor {
        Actor::new(place.number, place.epoch, (self.number * WARP + lane) as u32)
    }

    /// Executes one instruction; a fault comes with its lane.
    pub fn step(
        &mut self,
        entry: &Entry,
        place: &Place,
        memory: &mut Memories,
        counts: &mut Counts,
    ) -> Result<(), (usize, Fault)> {
        let at = self.next();
        let group = match self.together {
            Some(_) => self.running,
            None => lanes_of(self.running)
                .filter(|lane| self.next[*lane] == at)
                .fold(0, |mask, lane| mask | 1 << lane),
        };
        let Some(instruction) = entry.code.get(at) else {
            self.running &= !group;
            self.join();
            return Ok(());
        };
        let active = match instruction.guard {
            None => group,
            Some((register, negated)) => {
                let on = self.predicates[register as usize];
                group & if negated { !on } else { on }
            }
        };
        counts.instruction(&instruction.op, group.count_ones(), active.count_ones());
        self.send(group, at + 1);
        if active == 0 {
            return Ok(());
        }
        self.execute(instruction, active, place, memory, counts)
    }

    fn execute(
        &mut self,
        instruction: &Instruction,
        active: u32,
        place: &Place,
        memory: &mut Memories,
        counts: &mut Counts,
    ) -> Result<(), (usize, Fault)> {
        let first = active.trailing_zeros() as usize;
        let fail = |fault: Fault| (first, fault);
        match instruction.op {
            Op::Arithmetic(op, ty) => self.arithmetic(instruction, op, ty, active, place).map_err(fail)?,
            Op::Compare(op, ty) => self.compare(instruction, op, ty, active, place).map_err(fail)?,
            Op::Select => self.select(instruction, active, place),
            Op::Move => match instruction.results[0] {
                Register::Word(_) => {
                    let value = self.words(&instruction.operands[0], place);
                    self.set_words(instruction.results[0], &value, active);
                }
                _ => {
                    let value = self.doubles(&instruction.operands[0], place);
                    self.set_doubles(instruction.results[0], &value, active);
                }
            },
            Op::Convert { to, from, rounding } => {
                let value = self.doubles(&instruction.operands[0], place);
                let mut result = [0; WARP];
                for (result, value) in result.iter_mut().zip(value) {
                    *result = convert(to, from, rounding, value).ok_or(Fault::Types).map_err(fail)?;
                }
                self.set_doubles(instruction.results[0], &result, active);
            }
            Op::Parameter(number) => {
                let value = [place.arguments[number]; WARP];
                self.set_doubles(instruction.results[0], &value, active);
            }
            Op::Load(space, ty, count) => {
                self.load(instruction, (space, ty, count), active, place, memory, counts)?;
            }
            Op::Store(space, ty, count) => {
                self.store(instruction, (space, ty, count), active, place, memory, counts)?;
            }
            Op::Branch(target) => self.send(active, target),
            Op::Barrier => {
                if active != self.lanes {
                    let (arrived, threads) = (active.count_ones() as usize, self.lanes.count_ones() as usize);
                    return Err((first, Fault::DivergentBarrier { arrived, threads }));
                }
                self.waiting = true;
            }
            Op::Return => {
                self.running &= !active;
                self.join();
            }
            Op::Shuffle(_)
            | Op::Vote(_)
            | Op::Matrix(_)
            | Op::LoadMatrix(..)
            | Op::CopyCommit
            | Op::CopyWait(_) => {
                if active != u32::MAX {
                    return Err((first, Fault::DivergentWarp { arrived: active.count_ones() as usize }));
                }
                self.together(instruction, place, memory, counts)?;
            }
            Op::CopyAsync(size) => {
                self.copy_async(instruction, size as usize, active, place, memory, counts)?
            }
        }
        Ok(())
    }

    /// Instructions of the whole warp.
    fn together(
        &mut self,
        instruction: &Instruction,
        place: &Place,
        memory: &mut Memories,
        counts: &mut Counts,
    ) -> Result<(), (usize, Fault)> {
        let operand = |index: usize| &instruction.operands[index];
        match instruction.op {
            Op::Shuffle(shuffle) => {
                let (value, by) = (self.words(operand(0), place), self.words(operand(1), place));
                let mut result = value;
                for lane in 0..WARP {
                    let by = by[lane] as usize;
                    let from = match shuffle {
                        Shuffle::Butterfly => lane ^ by,
                        Shuffle::Down => lane + by,
                        Shuffle::Up => lane.wrapping_sub(by),
                        Shuffle::Index => by,
                    };
                    // Outside the warp a lane keeps its own value.
                    result[lane] = value.get(from).copied().unwrap_or(value[lane]);
                }
                self.set_words(instruction.results[0], &result, u32::MAX);
            }
            Op::Vote(vote) => {
                let mask = self.predicate(operand(0));
                match vote {
                    Vote::Any => {
                        self.set_predicate(instruction.results[0], if mask != 0 { !0 } else { 0 }, !0)
                    }
                    Vote::All => {
                        self.set_predicate(instruction.results[0], if mask == !0 { !0 } else { 0 }, !0);
                    }
                    Vote::Ballot => self.set_words(instruction.results[0], &[mask; WARP], !0),
                }
            }
            Op::Matrix(kind) => {
                let mut fragments = [[0; WARP]; 10];
                for (index, fragment) in fragments.iter_mut().enumerate() {
                    *fragment = self.words(operand(index), place);
                }
                let [a0, a1, a2, a3, b0, b1, c @ ..] = fragments;
                let results = matrix::multiply(kind, [a0, a1, a2, a3], [b0, b1], c);
                for (register, result) in instruction.results.iter().zip(&results) {
                    self.set_words(*register, result, u32::MAX);
                }
            }
            Op::LoadMatrix(count, transposed) => {
                let addresses = self.addresses(operand(0), instruction.offset, place);
                let rows = 8 * count;
                let mut tiles = vec![[0u8; 16]; rows];
                for (lane, row) in tiles.iter_mut().enumerate() {
                    let actor = self.actor(place, lane);
                    memory.shared.read(addresses[lane], row, actor).map_err(|fault| (lane, fault))?;
                }
                counts.access(Space::Shared, &addresses[..rows], 16);
                for (number, register) in instruction.results.iter().enumerate() {
                    let tile = &tiles[8 * number..8 * number + 8];
                    let value = matrix::fragment(tile, transposed);
                    self.set_words(*register, &value, u32::MAX);
                }
            }
            Op::CopyCommit => {
                let group = std::mem::take(&mut self.departing);
                self.groups.push_back(group);
            }
            Op::CopyWait(allowed) => {
                while self.groups.len() as u64 > allowed {
                    for copy in self.groups.pop_front().into_iter().flatten() {
                        let actor = self.actor(place, copy.lane);
                        memory.shared.land(copy.to, &copy.bytes[..copy.size], actor);
                    }
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn copy_async(
        &mut self,
        instruction: &Instruction,
        size: usize,
        active: u32,
        place: &Place,
        memory: &mut Memories,
        counts: &mut Counts,
    ) -> Result<(), (usize, Fault)> {
        let to = self.addresses(&instruction.operands[0], instruction.offset, place);
        let from = self.addresses(&instruction.operands[1], instruction.source_offset, place);
        let valid = self.words(&instruction.operands[2], place);
        let mut sources = Vec::with_capacity(WARP);
        for lane in lanes_of(active) {
            let actor = self.actor(place, lane);
            let mut bytes = [0; 16];
            let valid = (valid[lane] as usize).min(size);
            // Sources are read in pieces of four bytes, the granule of what can be left out.
            for piece in (0..valid).step_by(4) {
                let address = from[lane] + piece as u64;
                let piece = &mut bytes[piece..piece + 4];
                memory.global.read(address, piece, actor).map_err(|fault| (lane, fault))?;
            }
            if valid > 0 {
                if !from[lane].is_multiple_of(size as u64) {
                    return Err((lane, Fault::Misaligned { address: from[lane], size: size as u64 }));
                }
                sources.push(from[lane]);
            }
            memory.shared.depart(to[lane], size as u64, actor).map_err(|fault| (lane, fault))?;
            self.departing.push(Copy { lane, to: to[lane], size, bytes });
        }
        counts.access(Space::Global, &sources, size as u64);
        counts.lanes(Space::Shared, &to, active, size as u64);
        Ok(())
    }

    fn addresses(&self, base: &Operand, offset: i64, place: &Place) -> Doubles {
        let mut addresses = self.doubles(base, place);
        addresses.iter_mut().for_each(|address| *address = address.wrapping_add_signed(offset));
        addresses
    }

    fn load(
        &mut self,
        instruction: &Instruction,
        (space, ty, count): (Space, Type, usize),
        active: u32,
        place: &Place,
        memory: &mut Memories,
        counts: &mut Counts,
    ) -> Result<(), (usize, Fault)> {
        let width = ty.bits() as usize / 8;
        let size = width * count;
        let addresses = self.addresses(&instruction.operands[0], instruction.offset, place);
        let mut values = [[0u64; WARP]; 4];
        let decode = |bytes: &[u8], lane: usize, values: &mut [Doubles; 4]| {
            for (part, bytes) in bytes.chunks_exact(width).enumerate() {
                let mut wide = [0; 8];
                wide[..width].copy_from_slice(bytes);
                values[part][lane] = extend(ty, u64::from_le_bytes(wide));
            }
        };
        let consecutive = active == u32::MAX
            && space == Space::Global
            && (1..WARP).all(|lane| addresses[lane] == addresses[0] + (lane * size) as u64)
            && addresses[0].is_multiple_of(size as u64);
        let bulk =
            if consecutive { memory.global.constant(addresses[0], (WARP * size) as u64) } else { None };
        if let Some(bytes) = bulk {
            for (lane, bytes) in bytes.chunks_exact(size).enumerate() {
                decode(bytes, lane, &mut values);
            }
        } else {
            for lane in lanes_of(active) {
                let mut bytes = [0; 32];
                let bytes = &mut bytes[..size];
                let actor = self.actor(place, lane);
                let result = match space {
                    Space::Global => memory.global.read(addresses[lane], bytes, actor),
                    Space::Shared => memory.shared.read(addresses[lane], bytes, actor),
                    Space::Local => self.local[lane].read(addresses[lane], bytes),
                };
                result.map_err(|fault| (lane, fault))?;
                decode(bytes, lane, &mut values);
            }
        }
        counts.lanes(space, &addresses, active, size as u64);
        for (register, value) in instruction.results.iter().zip(&values) {
            self.set_doubles(*register, value, active);
        }
        Ok(())
    }

    fn store(
        &mut self,
        instruction: &Instruction,
        (space, ty, count): (Space, Type, usize),
        active: u32,
        place: &Place,
        memory: &mut Memories,
        counts: &mut Counts,
    ) -> Result<(), (usize, Fault)> {
        let width = ty.bits() as usize / 8;
        let size = width * count;
        let addresses = self.addresses(&instruction.operands[0], instruction.offset, place);
        let mut values = [[0u64; WARP]; 4];
        for (value, operand) in values.iter_mut().zip(&instruction.operands[1..]) {
            *value = self.doubles(operand, place);
        }
        for lane in lanes_of(active) {
            let mut bytes = [0; 32];
            for (part, bytes) in bytes[..size].chunks_exact_mut(width).enumerate() {
                bytes.copy_from_slice(&values[part][lane].to_le_bytes()[..width]);
            }
            let actor = self.actor(place, lane);
            let result = match space {
                Space::Global => memory.global.write(addresses[lane], &bytes[..size], actor),
                Space::Shared => memory.shared.write(addresses[lane], &bytes[..size], actor),
                Space::Local => self.local[lane].write(addresses[lane], &bytes[..size]),
            };
            result.map_err(|fault| (lane, fault))?;
        }
        counts.lanes(space, &addresses, active, size as u64);
        Ok(())
    }

    fn arithmetic(
        &mut self,
        instruction: &Instruction,
        op: Arithmetic,
        ty: Type,
        active: u32,
        place: &Place,
    ) -> Result<(), Fault> {
        if ty == Type::Pred {
            return self.logic(instruction, op, active);
        }
        let operand = |index: usize| instruction.operands.get(index);
        let words = |warp: &Warp, index: usize| {
            operand(index).map_or([0; WARP], |operand| warp.words(operand, place))
        };
        if ty == Type::Float(32) {
            let (a, b) = (words(self, 0), words(self, 1));
            let result = match op {
                Arithmetic::Fma => Some(fused(&a, &b, &words(self, 2))),
                Arithmetic::Add => Some(single(&a, &b, |a, b| a + b)),
                Arithmetic::Mul => Some(single(&a, &b, |a, b| a * b)),
                Arithmetic::Sub => Some(single(&a, &b, |a, b| a - b)),
                _ => None,
            };
            if let Some(result) = result {
                self.set_words(instruction.results[0], &result, active);
                return Ok(());
            }
        }
        if ty.bits() == 32 && !ty.is_float() {
            let (a, b) = (words(self, 0), words(self, 1));
            let each = |f: fn(u32, u32) -> u32| {
                let mut result = [0; WARP];
                for lane in 0..WARP {
                    result[lane] = f(a[lane], b[lane]);
                }
                result
            };
            let result = match op {
                Arithmetic::Add => Some(each(u32::wrapping_add)),
                Arithmetic::Sub => Some(each(u32::wrapping_sub)),
                Arithmetic::Mul => Some(each(u32::wrapping_mul)),
                Arithmetic::And => Some(each(|a, b| a & b)),
                Arithmetic::Or => Some(each(|a, b| a | b)),
                Arithmetic::Xor => Some(each(|a, b| a ^ b)),
                Arithmetic::Mad => {
                    let c = words(self, 2);
                    let mut result = each(u32::wrapping_mul);
                    for lane in 0..WARP {
                        result[lane] = result[lane].wrapping_add(c[lane]);
                    }
                    Some(result)
                }
                _ => None,
            };
            if let Some(result) = result {
                self.set_words(instruction.results[0], &result, active);
                return Ok(());
            }
        }
        let doubles = |warp: &Warp, index: usize| {
            operand(index).map_or([0; WARP], |operand| warp.doubles(operand, place))
        };
        let (a, b, c) = (doubles(self, 0), doubles(self, 1), doubles(self, 2));
        let mut result = [0; WARP];
        let wide = ty.bits() == 64 && !ty.is_float();
        match op {
            Arithmetic::Add if wide => {
                (0..WARP).for_each(|lane| result[lane] = a[lane].wrapping_add(b[lane]))
            }
            Arithmetic::Mad if wide => {
                (0..WARP).for_each(|lane| result[lane] = a[lane].wrapping_mul(b[lane]).wrapping_add(c[lane]))
            }
            Arithmetic::Mul if wide => {
                (0..WARP).for_each(|lane| result[lane] = a[lane].wrapping_mul(b[lane]))
            }
            _ => {
                for lane in 0..WARP {
                    result[lane] = arithmetic(op, ty, a[lane], b[lane], c[lane]).ok_or(Fault::Types)?;
                }
            }
        }
        self.set_doubles(instruction.results[0], &result, active);
        Ok(())
    }

    fn logic(&mut self, instruction: &Instruction, op: Arithmetic, active: u32) -> Result<(), Fault> {
        let operand =
            |index: usize| instruction.operands.get(index).map_or(0, |operand| self.predicate(operand));
        let (a, b) = (operand(0), operand(1));
        let result = match op {
            Arithmetic::And => a & b,
            Arithmetic::Or => a | b,
            Arithmetic::Xor => a ^ b,
            Arithmetic::Not => !a,
            _ => return Err(Fault::Types),
        };
        self.set_predicate(instruction.results[0], result, active);
        Ok(())
    }

    fn compare(
        &mut self,
        instruction: &Instruction,
        op: Comparison,
        ty: Type,
        active: u32,
        place: &Place,
    ) -> Result<(), Fault> {
        let a = self.doubles(&instruction.operands[0], place);
        let b = self.doubles(&instruction.operands[1], place);
        let mut mask = 0u32;
        if ty == Type::Signed(64) {
            let test: fn(i64, i64) -> bool = match op {
                Comparison::Eq => |a, b| a == b,
                Comparison::Ne => |a, b| a != b,
                Comparison::Lt => |a, b| a < b,
                Comparison::Le => |a, b| a <= b,
                Comparison::Gt => |a, b| a > b,
                Comparison::Ge => |a, b| a >= b,
                _ => return Err(Fault::Types),
            };
            for lane in 0..WARP {
                mask |= u32::from(test(a[lane] as i64, b[lane] as i64)) << lane;
            }
        } else {
            for lane in 0..WARP {
                mask |= u32::from(compare(op, ty, a[lane], b[lane]).ok_or(Fault::Types)?) << lane;
            }
        }
        self.set_predicate(instruction.results[0], mask, active);
        Ok(())
    }

    fn select(&mut self, instruction: &Instruction, active: u32, place: &Place) {
        let [a, b, condition] = &instruction.operands[..] else { return };
        let condition = self.predicate(condition);
        let (a, mut b) = (self.doubles(a, place), self.doubles(b, place));
        for lane in lanes_of(condition) {
            b[lane] = a[lane];
        }
        self.set_doubles(instruction.results[0], &b, active);
    }

    fn special(&self, special: Special, place: &Place) -> Doubles {
        let mut lanes = [0; WARP];
        for (lane, value) in lanes.iter_mut().enumerate() {
            let thread = || position((self.number * WARP + lane) as u64, place.grid.threads);
            *value = match special {
                Special::Thread(axis) => thread()[axis],
                Special::Threads(axis) => place.grid.threads[axis],
                Special::Block(axis) => place.block[axis],
                Special::Blocks(axis) => place.grid.blocks[axis],
                Special::Lane => lane as u64,
            };
        }
        lanes
    }

    fn predicate(&self, operand: &Operand) -> u32 {
        match operand {
            Operand::Register(Register::Predicate(number)) => self.predicates[*number as usize],
            Operand::Immediate(bits) if bits & 1 == 1 => u32::MAX,
            _ => 0,
        }
    }

    #[inline]
    fn words(&self, operand: &Operand, place: &Place) -> Words {
        match operand {
            Operand::Register(Register::Word(number)) => self.words[*number as usize],
            Operand::Immediate(bits) => [*bits as u32; WARP],
            _ => self.doubles(operand, place).map(|wide| wide as u32),
        }
    }

    #[inline]
    fn doubles(&self, operand: &Operand, place: &Place) -> Doubles {
        match operand {
            Operand::Register(Register::Double(number)) => self.doubles[*number as usize],
            Operand::Register(Register::Word(number)) => self.words[*number as usize].map(u64::from),
            Operand::Register(Register::Predicate(number)) => {
                let mask = self.predicates[*number as usize];
                std::array::from_fn(|lane| u64::from(mask >> lane & 1))
            }
            Operand::Immediate(bits) => [*bits; WARP],
            Operand::Special(special) => self.special(*special, place),
        }
    }

    #[inline]
    fn set_words(&mut self, register: Register, value: &Words, active: u32) {
        match register {
            Register::Word(number) => {
                let register = &mut self.words[number as usize];
                if active == u32::MAX {
                    *register = *value;
                } else {
                    lanes_of(active).for_each(|lane| register[lane] = value[lane]);
                }
            }
            _ => self.set_doubles(register, &value.map(u64::from), active),
        }
    }

    #[inline]
    fn set_doubles(&mut self, register: Register, value: &Doubles, active: u32) {
        match register {
            Register::Double(number) => {
                let register = &mut self.doubles[number as usize];
                if active == u32::MAX {
                    *register = *value;
                } else {
                    lanes_of(active).for_each(|lane| register[lane] = value[lane]);
                }
            }
            Register::Word(_) => self.set_words(register, &value.map(|wide| wide as u32), active),
            Register::Predicate(_) => {
                let mask = (0..WARP).fold(0, |mask, lane| mask | ((value[lane] & 1) as u32) << lane);
                self.set_predicate(register, mask, active);
            }
        }
    }

    fn set_predicate(&mut self, register: Register, value: u32, active: u32) {
        if let Register::Predicate(number) = register {
            let register = &mut self.predicates[number as usize];
            *register = *register & !active | value & active;
        }
    }
}

/// The value that a load of this type leaves in a register.
fn extend(ty: Type, bits: u64) -> u64 {
    match ty {
        Type::Signed(width) => ((bits << (64 - width)) as i64 >> (64 - width)) as u64,
        _ => bits,
    }
}

/// The NaN that f32 arithmetic produces.
const NAN: u32 = 0x7fff_ffff;

#[inline]
fn bits(value: f32) -> u32 {
    if value.is_nan() { NAN } else { value.to_bits() }
}

#[inline]
fn single(a: &Words, b: &Words, f: impl Fn(f32, f32) -> f32) -> Words {
    let mut result = [0; WARP];
    for lane in 0..WARP {
        result[lane] = bits(f(f32::from_bits(a[lane]), f32::from_bits(b[lane])));
    }
    result
}

#[inline]
fn fused(a: &Words, b: &Words, c: &Words) -> Words {
    let mut result = [0; WARP];
    for lane in 0..WARP {
        let [a, b, c] = [a[lane], b[lane], c[lane]].map(f32::from_bits);
        result[lane] = bits(a.mul_add(b, c));
    }
    result
}
