//! From a kernel on arrays to one on streams: tensors come and go one element after the other, in memory order.
//!
//! The kernel keeps what it still needs in windows on the chip. Before each iteration of its outermost loop it reads as many
//! elements as the iteration may use, and after it writes those that no later iteration changes. Where an operation slides
//! over its input, as a convolution does, the window is a line buffer: a circular one as long as the widest span. Where an
//! operation needs all of its input first, the window holds all of it.
//!
//! ```text
//! for row in 0..h { y[row * w ..] = f(x[row * w .. (row + 3) * w]) }
//! =>
//! for r in 0..2 * w { window[r] = x.read() }
//! for row in 0..h {
//!   for r in 0..w { window[((row + 2) * w + r) % size] = x.read() }
//!   line[0..w] = f(window[..])
//!   for r in 0..w { y.write(line[r]) }
//! }
//! ```
//!
//! How far an iteration reads follows from the ranges of its indices; between iterations it is bounded by a line, so that loop
//! extents and positions stay arithmetic on the counter. Every element is read once and written once, in order.

use tcc_ir::dtype::DType;
use tcc_kernel::ir::{Access, BufferId, Expr, Kernel, LoopKind, Space, Stmt, Ty, Var};
use tcc_kernel::simplify::simplify;

use crate::error::Error;
use crate::range::Ranges;

/// A kernel that reads and writes streams.
#[derive(Clone, PartialEq, Debug)]
pub struct Streamed {
    /// The kernel; accesses of stream arguments are in order.
    pub kernel: Kernel,
    /// By [`BufferId`]: arguments that are streams.
    pub streams: Vec<bool>,
    /// For each window the argument whose elements it holds, in the order of the new buffers.
    pub windows: Vec<BufferId>,
    /// Iterations of the outermost loop.
    pub iterations: u64,
    /// Streams in the order of the arguments.
    pub ports: Vec<Port>,
}

/// What a kernel does with a stream.
#[derive(Clone, PartialEq, Debug)]
pub struct Port {
    /// Position of the argument.
    pub argument: u32,
    /// True for an input.
    pub reads: bool,
    /// Number of elements.
    pub elements: u64,
    line: Line,
}

impl Port {
    /// Elements that have been read when iteration `iteration` computes, or written when it is done.
    pub fn moved(&self, iteration: u64) -> u64 {
        self.line.at(i128::from(iteration)).clamp(0, i128::from(self.elements)) as u64
    }
}

/// `rise * (iteration + 1) / run + start`, kept within 0 and the number of elements.
#[derive(Clone, Copy, PartialEq, Debug)]
struct Line {
    rise: i64,
    run: i64,
    start: i64,
}

impl Line {
    fn at(self, iteration: i128) -> i128 {
        (i128::from(self.rise) * (iteration + 1)).div_euclid(self.run.into()) + i128::from(self.start)
    }

    /// As an expression of the counter plus `shift`, within 0 and `elements` where it may leave them.
    fn expr(self, counter: Var, shift: i64, iterations: u64, elements: u64) -> Expr {
        let next = Expr::Var(counter).plus(Expr::index(shift + 1));
        let risen = if self.rise % self.run == 0 {
            next.times(Expr::index(self.rise / self.run))
        } else {
            next.times(Expr::index(self.rise)).over(Expr::index(self.run))
        };
        let mut expr = risen.plus(Expr::index(self.start));
        if self.at(i128::from(shift)) < 0 {
            expr = expr.at_least(Expr::index(0));
        }
        if self.at(i128::from(iterations) - 1 + i128::from(shift)) > i128::from(elements) {
            expr = expr.at_most(Expr::index(elements as i64));
        }
        expr
    }
}

/// First and last element of a buffer that an iteration touches; none where it touches nothing.
type Span = Option<(i128, i128)>;

/// Longest outermost loop whose iterations are looked at one by one; longer ones count as one iteration.
const ITERATIONS: u64 = 1 << 18;

/// Makes streams of the arguments at these positions.
pub fn stream(kernel: &Kernel, positions: &[u32]) -> Result<Streamed, Error> {
    let mut streamed = kernel.clone();
    unwrap(&mut streamed);
    let kernel = &streamed.clone();
    let buffers: Vec<(BufferId, u32, u64)> = kernel
        .buffers
        .iter()
        .enumerate()
        .filter_map(|(number, buffer)| match buffer.space {
            Space::Argument(position) if positions.contains(&position) => Some((number, position, buffer)),
            _ => None,
        })
        .map(|(number, position, buffer)| {
            let count = Ranges::default().of(&buffer.count).map_or(0, |(low, _)| low.max(0) as u64);
            (BufferId(number as u32), position, count)
        })
        .collect();
    let (counter, iterations, body) = outermost(&mut streamed);
    let spans = spans(kernel, &body, counter, iterations);
    let mut result = Streamed {
        streams: vec![false; kernel.buffers.len()],
        windows: Vec::new(),
        iterations,
        ports: Vec::new(),
        kernel: streamed,
    };
    let (mut before, mut first, mut inner, mut last, mut after) =
        (Vec::new(), Vec::new(), body, Vec::new(), Vec::new());
    for (buffer, argument, elements) in buffers {
        result.streams[buffer.0 as usize] = true;
        let declared = kernel.buffer_of(buffer);
        let (loads, stores) = (&spans[buffer.0 as usize].0, &spans[buffer.0 as usize].1);
        // Temporaries are declared as read and written, whatever a kernel does with them.
        let (loaded, stored) = (loads.iter().any(Option::is_some), stores.iter().any(Option::is_some));
        let writes = stored || (declared.access == Access::Write && !loaded);
        let reads = !writes || (loaded && first_is_read(&inner, buffer));
        if reads && writes {
            return Err(Error::Unsupported {
                kernel: kernel.name.clone(),
                what: format!("stream '{}' that is read and written", declared.name),
                advice: "choose the sequential architecture",
            });
        }
        let touched: Vec<Span> = loads.iter().zip(stores).map(|(a, b)| joined(*a, *b)).collect();
        let (line, size) = if reads { read_line(&touched, elements) } else { write_line(&touched, elements) };
        let window = result.window(buffer, size.min(elements.max(1)));
        inner.iter_mut().for_each(|stmt| redirect(stmt, buffer, window, (size < elements).then_some(size)));
        let place =
            |index: Expr| if size < elements { index.remainder(Expr::index(size as i64)) } else { index };
        let kernel = &mut result.kernel;
        let mut copy = |start: Expr, count: Expr, block: &mut Vec<Stmt>| {
            if count.is_index(0) {
                return;
            }
            let r = kernel.counter("r");
            let index = start.plus(Expr::Var(r));
            let (to, to_index, from, from_index) = if reads {
                (window, place(index.clone()), buffer, index)
            } else {
                (buffer, index.clone(), window, place(index))
            };
            let value = Expr::load(from, from_index);
            let body = vec![Stmt::Store { buffer: to, index: to_index, value, valid: None }];
            block.push(Stmt::For { var: r, extent: count, kind: LoopKind::Serial, body });
        };
        let moved = |iteration: i128| line.at(iteration).clamp(0, elements.into()) as i64;
        let start = line.expr(counter, -1, iterations, elements);
        let end = line.expr(counter, 0, iterations, elements);
        // Where the line stays within its bounds and rises evenly, every iteration moves the same number.
        let even = line.rise % line.run == 0
            && line.at(-1) >= 0
            && line.at(i128::from(iterations) - 1) <= elements.into();
        let count = if even { Expr::index(line.rise / line.run) } else { end.minus(start.clone()) };
        copy(Expr::index(0), Expr::index(moved(-1)), if reads { &mut before } else { &mut after });
        copy(start, count, if reads { &mut first } else { &mut last });
        let done = moved(i128::from(iterations) - 1);
        copy(Expr::index(done), Expr::index(elements as i64 - done), &mut after);
        result.ports.push(Port { argument, reads, elements, line });
    }
    first.append(&mut inner);
    first.append(&mut last);
    let main = Stmt::For {
        var: counter,
        extent: Expr::index(iterations as i64),
        kind: LoopKind::Serial,
        body: first,
    };
    before.push(main);
    before.append(&mut after);
    result.kernel.body = before;
    result.streams.resize(result.kernel.buffers.len(), false);
    result.ports.sort_by_key(|port| port.argument);
    Ok(result)
}

impl Streamed {
    fn window(&mut self, buffer: BufferId, size: u64) -> BufferId {
        let (name, dtype): (String, DType) = {
            let declared = self.kernel.buffer_of(buffer);
            (format!("{}_window", declared.name), declared.dtype)
        };
        self.windows.push(buffer);
        self.kernel.buffer(&name, dtype, Space::OnChip, Expr::index(size as i64), Access::ReadWrite)
    }
}

/// Takes away outermost loops of one iteration, such as those over a batch of one.
fn unwrap(kernel: &mut Kernel) {
    simplify(kernel);
    while let [Stmt::For { var, extent, body, .. }] = &mut kernel.body[..]
        && extent.is_index(1)
        && matches!(body[..], [Stmt::For { .. }])
    {
        let (var, mut inner) = (*var, std::mem::take(body));
        let first = |expr: &Expr| expr.substitute(&|other| (other == var).then(|| Expr::index(0)));
        inner.iter_mut().for_each(|stmt| stmt.map_exprs(&mut |expr| first(expr)));
        kernel.body = inner;
        simplify(kernel);
    }
}

/// Takes the outermost loop apart: its counter, number of iterations and body. A body of several statements is one iteration.
fn outermost(kernel: &mut Kernel) -> (Var, u64, Vec<Stmt>) {
    let mut body = std::mem::take(&mut kernel.body);
    if let [Stmt::For { var, extent, kind: LoopKind::Serial | LoopKind::Parallel, body: inner }] =
        &mut body[..]
        && let Some(extent) = extent.as_index().and_then(|extent| u64::try_from(extent).ok())
        && (1..=ITERATIONS).contains(&extent)
    {
        return (*var, extent, std::mem::take(inner));
    }
    (kernel.variable("once", Ty::INDEX), 1, body)
}

fn joined(a: Span, b: Span) -> Span {
    match (a, b) {
        (Some(a), Some(b)) => Some((a.0.min(b.0), a.1.max(b.1))),
        (a, b) => a.or(b),
    }
}

/// By buffer and iteration: what is loaded, and what is stored.
fn spans(kernel: &Kernel, body: &[Stmt], counter: Var, iterations: u64) -> Vec<(Vec<Span>, Vec<Span>)> {
    let empty =
        vec![(vec![None; iterations as usize], vec![None; iterations as usize]); kernel.buffers.len()];
    let mut finder = Finder { kernel, iteration: 0, spans: empty };
    for iteration in 0..iterations {
        let mut ranges = Ranges::default();
        ranges.bind(counter, Some((iteration.into(), iteration.into())));
        finder.iteration = iteration as usize;
        finder.block(body, &mut ranges);
    }
    finder.spans
}

struct Finder<'k> {
    kernel: &'k Kernel,
    iteration: usize,
    spans: Vec<(Vec<Span>, Vec<Span>)>,
}

impl Finder<'_> {
    fn block(&mut self, block: &[Stmt], ranges: &mut Ranges) {
        for stmt in block {
            match stmt {
                Stmt::For { var, extent, body, .. } => {
                    self.loads(extent, ranges);
                    let trips = ranges.enter(*var, extent);
                    if trips.is_none() {
                        ranges.bind(*var, None);
                    }
                    if trips.is_none_or(|(_, most)| most > 0) {
                        self.block(body, ranges);
                    }
                }
                Stmt::Assign { var, value } => {
                    self.loads(value, ranges);
                    ranges.bind(*var, ranges.of(value));
                }
                Stmt::Store { buffer, index, value, valid } => {
                    self.loads(index, ranges);
                    self.loads(value, ranges);
                    valid.iter().for_each(|valid| self.loads(valid, ranges));
                    self.touch(*buffer, index, false, ranges);
                }
                Stmt::If { condition, then, otherwise } => {
                    self.loads(condition, ranges);
                    // What a branch assigns holds in it only.
                    self.block(then, &mut ranges.clone());
                    self.block(otherwise, &mut ranges.clone());
                    unbind(then, ranges);
                    unbind(otherwise, ranges);
                }
                Stmt::Barrier | Stmt::Warp(_) => {}
            }
        }
    }

    fn loads(&mut self, expr: &Expr, ranges: &Ranges) {
        expr.visit(&mut |part| {
            if let Expr::Load { buffer, index, .. } = part {
                self.touch(*buffer, index, true, ranges);
            }
        });
    }

    fn touch(&mut self, buffer: BufferId, index: &Expr, load: bool, ranges: &Ranges) {
        if !matches!(self.kernel.buffer_of(buffer).space, Space::Argument(_)) {
            return;
        }
        let count = Ranges::default().of(&self.kernel.buffer_of(buffer).count).map_or(0, |(low, _)| low);
        let (low, high) = ranges.of(index).unwrap_or((0, count - 1));
        let span = (low.max(0), high.min(count - 1));
        let (loads, stores) = &mut self.spans[buffer.0 as usize];
        let entry = if load { &mut loads[self.iteration] } else { &mut stores[self.iteration] };
        if span.0 <= span.1 {
            *entry = joined(*entry, Some(span));
        }
    }
}

fn unbind(block: &[Stmt], ranges: &mut Ranges) {
    for stmt in block {
        match stmt {
            Stmt::Assign { var, .. } => ranges.bind(*var, None),
            Stmt::For { body, .. } => unbind(body, ranges),
            Stmt::If { then, otherwise, .. } => {
                unbind(then, ranges);
                unbind(otherwise, ranges);
            }
            _ => {}
        }
    }
}

/// True where a kernel that reads and writes an argument reads it before it writes it.
fn first_is_read(block: &[Stmt], buffer: BufferId) -> bool {
    fn first(stmt: &Stmt, buffer: BufferId) -> Option<bool> {
        let mut reads = false;
        let mut look = |expr: &Expr| {
            expr.visit(&mut |part| {
                reads |= matches!(part, Expr::Load { buffer: read, .. } if *read == buffer)
            });
        };
        match stmt {
            Stmt::For { body, .. } => body.iter().find_map(|stmt| first(stmt, buffer)),
            Stmt::If { condition, then, otherwise } => {
                look(condition);
                if reads {
                    return Some(true);
                }
                then.iter().chain(otherwise).find_map(|stmt| first(stmt, buffer))
            }
            stmt => {
                stmt.visit_exprs(&mut look);
                let writes = matches!(stmt, Stmt::Store { buffer: written, .. } if *written == buffer);
                if reads { Some(true) } else { writes.then_some(false) }
            }
        }
    }
    block.iter().find_map(|stmt| first(stmt, buffer)).unwrap_or(false)
}

fn window_size(span: i128, elements: u64) -> u64 {
    let size = u64::try_from(span.max(1)).unwrap_or(u64::MAX).checked_next_power_of_two().unwrap_or(u64::MAX);
    if size >= elements { elements } else { size }
}

/// The line of an input that is never behind what iterations need, and the size of its window.
fn read_line(touched: &[Span], elements: u64) -> (Line, u64) {
    let count = touched.len();
    let mut needed = Vec::with_capacity(count);
    let mut most = 0i128;
    for span in touched {
        most = most.max(span.map_or(0, |(_, high)| high + 1));
        needed.push(most);
    }
    let rise = needed[count - 1] - needed[0];
    let mut line = Line { rise: rise as i64, run: (count as i64 - 1).max(1), start: 0 };
    let behind = needed.iter().enumerate().map(|(iteration, needed)| needed - line.at(iteration as i128));
    // What the first iteration reads at its start is at most one step.
    line.start = behind.max().unwrap_or(0).max(0) as i64;
    let mut kept = i128::from(elements);
    let mut span = 1;
    for (iteration, touched) in touched.iter().enumerate().rev() {
        kept = kept.min(touched.map_or(kept, |(low, _)| low));
        let read = line.at(iteration as i128).min(elements.into());
        span = span.max(read - kept.min(read));
    }
    (line, window_size(span, elements))
}

/// The line of an output that is never ahead of what is final, and the size of its window.
fn write_line(touched: &[Span], elements: u64) -> (Line, u64) {
    let count = touched.len();
    let mut done = vec![i128::from(elements); count];
    let mut least = i128::from(elements);
    for iteration in (0..count).rev() {
        done[iteration] = least;
        least = least.min(touched[iteration].map_or(least, |(low, _)| low));
    }
    let mut line = Line { rise: elements as i64, run: count as i64, start: 0 };
    let ahead = done.iter().enumerate().map(|(iteration, done)| line.at(iteration as i128) - done);
    line.start = -(ahead.max().unwrap_or(0).max(0) as i64);
    let (mut most, mut span) = (0i128, 1i128);
    for (iteration, touched) in touched.iter().enumerate() {
        most = most.max(touched.map_or(0, |(_, high)| high + 1));
        let written = line.at(iteration as i128 - 1).clamp(0, elements.into());
        span = span.max(most - written).max(line.at(iteration as i128).clamp(0, elements.into()) - written);
    }
    (line, window_size(span, elements))
}

/// Replaces accesses of a buffer by those of its window.
fn redirect(stmt: &mut Stmt, buffer: BufferId, window: BufferId, circle: Option<u64>) {
    let place = |index: Expr| match circle {
        Some(size) => index.remainder(Expr::index(size as i64)),
        None => index,
    };
    match stmt {
        Stmt::For { body, .. } => body.iter_mut().for_each(|stmt| redirect(stmt, buffer, window, circle)),
        Stmt::If { then, otherwise, .. } => {
            then.iter_mut().chain(otherwise).for_each(|stmt| redirect(stmt, buffer, window, circle));
        }
        Stmt::Store { buffer: target, index, .. } if *target == buffer => {
            *target = window;
            *index = place(index.clone());
        }
        _ => {}
    }
    let own = |expr: &Expr| {
        expr.rewrite(&mut |part| match part {
            Expr::Load { buffer: source, index, lanes, valid } if source == buffer => {
                Expr::Load { buffer: window, index: Box::new(place(*index)), lanes, valid }
            }
            other => other,
        })
    };
    match stmt {
        Stmt::For { extent, .. } => *extent = own(extent),
        Stmt::If { condition, .. } => *condition = own(condition),
        stmt => stmt.map_exprs(&mut |expr| own(expr)),
    }
}
