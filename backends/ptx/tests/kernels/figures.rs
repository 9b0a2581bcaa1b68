//! The table of static figures in docs/gpu.md: what assembler, machine code and simulator say of typical kernels.
//!
//! `TCC_BLESS=1` writes it. The tools come from `tests/fetch-ptxas`; without them the test says that it is skipped.

use std::fmt::Write;
use std::path::Path;
use std::process::Command;

use tcc_ir::dtype::DType;
use tcc_ir::types::TensorType;
use tcc_ptx::architecture::Resources;
use tcc_ptx::{Target, module, sim};

use crate::assembled::tool;
use crate::cases::{
    Case, attention16, convolution, elementwise, matrix, operators, product, square, vectors,
};
use crate::execute::simulate_blocks;

/// What is known of one kernel.
struct Figures {
    name: String,
    registers: u64,
    threads: u64,
    shared: u64,
    /// Of the innermost loop that has most multiplications of tensor cores or lanes; none without.
    share: Option<Share>,
    conflicts: f64,
    /// Bytes asked for of those in sectors that are touched.
    used: f64,
    occupancy: f64,
}

fn cases() -> Vec<Case> {
    let mut cases = vec![
        product("512"),
        square(DType::F16, 4096),
        square(DType::BF16, 4096),
        matrix([DType::F16, DType::F16, DType::F32], "4096", false),
        matrix([DType::BF16, DType::BF16, DType::F32], "4096", false),
        matrix([DType::U8, DType::I8, DType::I32], "4096", false),
        convolution([DType::F32; 3], "64"),
        convolution([DType::U8, DType::I8, DType::I32], "64"),
        attention16(),
        elementwise(),
    ];
    cases.extend(vectors());
    let others = ["convolution in 12 groups", "softmax", "normalization", "attention", "transpose"];
    cases.extend(operators().into_iter().filter(|case| others.contains(&&case.name[..])));
    cases
}

/// `Used 40 registers` and the like.
fn number_before(text: &str, word: &str) -> Option<u64> {
    let words: Vec<&str> = text.split_whitespace().collect();
    let at = words.iter().position(|found| found.starts_with(word))?;
    words.get(at.checked_sub(1)?)?.parse().ok()
}

/// Multiplications of a loop.
#[derive(Clone, Copy, PartialEq, PartialOrd)]
struct Share {
    /// Among its instructions.
    plain: f64,
    /// The same where one of tensor cores counts as the cycles for which it keeps its core busy, as nothing else can issue to that
    /// core in the meantime, and every other one as one cycle.
    weighted: f64,
}

/// The largest shares of multiplications among the innermost loops of machine code.
fn share(code: &str, matrix_cycles: f64) -> Option<Share> {
    let mut lines: Vec<(u64, &str)> = Vec::new();
    for line in code.lines() {
        let Some((address, text)) = line.trim().strip_prefix("/*").and_then(|rest| rest.split_once("*/"))
        else {
            continue;
        };
        if let (Ok(address), false) = (u64::from_str_radix(address, 16), text.trim().starts_with("/*")) {
            lines.push((address, text.trim()));
        }
    }
    let mut best = None;
    for (address, text) in &lines {
        let Some(target) = text.split_once("BRA").and_then(|(_, rest)| rest.split("0x").nth(1)) else {
            continue;
        };
        let digits: String = target.chars().take_while(char::is_ascii_hexdigit).collect();
        let Ok(target) = u64::from_str_radix(&digits, 16) else { continue };
        if target >= *address {
            continue;
        }
        let body: Vec<&str> =
            lines.iter().filter(|(at, _)| (target..=*address).contains(at)).map(|(_, text)| *text).collect();
        let count =
            |ops: &[&str]| body.iter().filter(|text| ops.iter().any(|op| text.contains(op))).count() as f64;
        let (tensor, lanes) = (count(&["HMMA", "IMMA"]), count(&["FFMA", "IMAD "]));
        let multiplies = if tensor > 0.0 { tensor } else { lanes };
        let others = body.len() as f64 - multiplies;
        let weight = if tensor > 0.0 { matrix_cycles } else { 1.0 };
        let share = Share {
            plain: multiplies / body.len().max(1) as f64,
            weighted: weight * multiplies / (weight * multiplies + others).max(1.0),
        };
        if best.is_none_or(|best: Share| best.plain < share.plain) {
            best = Some(share);
        }
    }
    best
}

fn figures(case: &Case, target: &Target, folder: &Path) -> Option<Figures> {
    let (ptxas, cuobjdump) = (tool("ptxas")?, tool("cuobjdump")?);
    let lowered = case.lowered(target);
    let kernel = lowered.launches.last().unwrap().kernel.clone();
    let ptx = module(&[kernel], target).unwrap();
    let (file, cubin) = (folder.join("kernel.ptx"), folder.join("kernel.cubin"));
    std::fs::write(&file, &ptx.text).unwrap();
    let output =
        Command::new(ptxas).args(["-v", "-arch", target.name, "-o"]).args([&cubin, &file]).output().unwrap();
    let log = String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{}: {log}", case.name);
    assert!(log.contains("0 bytes spill stores, 0 bytes spill loads"), "{}: {log}", case.name);
    let path =
        format!("{}:{}", cuobjdump.parent().unwrap().display(), std::env::var("PATH").unwrap_or_default());
    let code = Command::new(&cuobjdump).env("PATH", path).arg("-sass").arg(&cubin).output().unwrap();
    let code = String::from_utf8_lossy(&code.stdout).into_owned();
    let tensor = ptx.text.contains("mma.sync");
    assert!(!tensor || code.contains("HMMA") || code.contains("IMMA"), "{}: {code}", case.name);

    let threads = ptx.launch[0].block.iter().product();
    let shared = ptx.launch[0].static_shared_bytes + ptx.launch[0].dynamic_shared_bytes;
    let registers = number_before(&log, "registers")?;
    let architecture = target.architecture();
    let sizes = |name: &str| Some(if name == "k" { 32 } else { 128 });
    let size =
        |text: &str| tcc_ir::parse::dim(text).ok()?.evaluate(&|symbol| sizes(&symbol.to_string())).ok();
    let bytes = |ty: &TensorType| {
        let count: i64 = ty.shape.iter().map(|dim| size(&dim.to_string()).unwrap()).product();
        vec![0u8; ty.dtype().bytes_for(count as usize).unwrap()]
    };
    let mut buffers: Vec<Vec<u8>> = lowered
        .launches
        .last()
        .unwrap()
        .arguments
        .iter()
        .map(|argument| match argument {
            tcc_kernel::lower::Argument::Operand(index) => bytes(&case.operands[*index]),
            tcc_kernel::lower::Argument::Result(_) => bytes(&case.result),
            tcc_kernel::lower::Argument::Temporary(index) => bytes(&lowered.temporaries[*index]),
            tcc_kernel::lower::Argument::Packed(index) => bytes(&lowered.packings[*index].packed),
            tcc_kernel::lower::Argument::Block(_) | tcc_kernel::lower::Argument::View(..) => {
                panic!("no operand is in blocks or a cache")
            }
        })
        .collect();
    let parsed = sim::parse(&ptx.text).unwrap();
    let counts = simulate_blocks(&parsed, &ptx.launch[0], &mut buffers, &size, (1, 8))
        .unwrap_or_else(|error| panic!("{}: {error}", case.name));
    let per = |count: u64, requests: u64| count as f64 / requests.max(1) as f64;
    Some(Figures {
        name: case.name.clone(),
        registers,
        threads,
        shared,
        share: share(&code, architecture.matrix_cycles()),
        conflicts: per(counts.bank_conflicts, counts.shared_requests),
        used: per(counts.global_bytes, 32 * counts.global_sectors),
        occupancy: architecture.occupancy(&Resources { threads, registers, shared }),
    })
}

#[test]
fn the_table_of_figures_is_that_of_the_documentation() {
    if tool("ptxas").is_none() || tool("cuobjdump").is_none() {
        eprintln!("skipped: no ptxas and cuobjdump; tests/fetch-ptxas installs them");
        return;
    }
    let target = Target::named("sm_80").unwrap();
    let folder = tempfile::tempdir().unwrap();
    let mut table = String::from(
        "| kernel for sm_80 | threads | registers | shared KiB | occupancy | multiplications in the inner loop | by cycles of tensor cores | conflicts a shared access | used of sectors |\n|---|---|---|---|---|---|---|---|---|\n",
    );
    for case in cases() {
        let figures = figures(&case, &target, folder.path()).unwrap();
        let percent = |share: f64| format!("{:.0} %", 100.0 * share);
        let share = figures.share.filter(|share| share.plain >= 0.005);
        let plain = share.map_or(String::new(), |share| percent(share.plain));
        let weighted = share.filter(|share| share.weighted > share.plain);
        let weighted = weighted.map_or(String::new(), |share| percent(share.weighted));
        let (shared, conflicts) = match figures.shared {
            0 => (String::new(), String::new()),
            bytes => (format!("{}", bytes as f64 / 1024.0), format!("{:.2}", figures.conflicts)),
        };
        let (occupancy, used) = (percent(figures.occupancy), percent(figures.used));
        writeln!(
            table,
            "| {} | {} | {} | {shared} | {occupancy} | {plain} | {weighted} | {conflicts} | {used} |",
            figures.name, figures.threads, figures.registers,
        )
        .unwrap();
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/gpu.md");
    let text = std::fs::read_to_string(&path).unwrap();
    let (start, end) = ("<!-- figures -->\n", "<!-- end of figures -->");
    let (head, rest) = text.split_once(start).expect("docs/gpu.md has a place for the table");
    let (known, tail) = rest.split_once(end).expect("docs/gpu.md has an end of the table");
    if std::env::var_os("TCC_BLESS").is_some() {
        std::fs::write(&path, format!("{head}{start}{table}{end}{tail}")).unwrap();
        return;
    }
    assert_eq!(known, table, "TCC_BLESS=1 writes the table");
}
