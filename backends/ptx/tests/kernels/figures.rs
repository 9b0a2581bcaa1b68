//! The table of static figures in docs/gpu.md: what assembler, machine code and simulator say of typical kernels.
//!
//! `TCC_BLESS=1` writes it. The tools come from `tests/fetch-ptxas`; without them the test says that it is skipped.

use std::fmt::Write;
use std::path::Path;
use std::process::Command;

use tcc_ir::dtype::DType;
use tcc_ir::types::TensorType;
use tcc_ptx::{Target, module, sim};

use crate::assembled::tool;
use crate::cases::{Case, convolution, elementwise, matrix, operators, product};
use crate::execute::simulate;

/// What is known of one kernel.
struct Figures {
    name: String,
    registers: u64,
    threads: u64,
    shared: u64,
    /// Multiplications of tensor cores or lanes by hundred instructions of the innermost loop that has them; none without.
    share: Option<u64>,
    conflicts: f64,
    sectors: f64,
}

fn cases() -> Vec<Case> {
    let mut cases = vec![
        product("512"),
        matrix([DType::F16, DType::F16, DType::F32], "512", false),
        matrix([DType::BF16, DType::BF16, DType::F32], "512", false),
        matrix([DType::U8, DType::I8, DType::I32], "512", false),
        convolution([DType::F32; 3], "64"),
        convolution([DType::U8, DType::I8, DType::I32], "64"),
        elementwise(),
    ];
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

/// The largest share of multiplications, in hundredths, among the innermost loops of machine code.
fn share(code: &str) -> Option<u64> {
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
        let multiplies = |text: &&&str| ["HMMA", "IMMA", "FFMA", "IMAD "].iter().any(|op| text.contains(op));
        let count = body.iter().filter(multiplies).count();
        best = best.max(Some(100 * count as u64 / body.len().max(1) as u64));
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
    let counts = simulate(&parsed, &ptx.launch[0], &mut buffers, &size, 1)
        .unwrap_or_else(|error| panic!("{}: {error}", case.name));
    let per = |count: u64, requests: u64| count as f64 / requests.max(1) as f64;
    Some(Figures {
        name: case.name.clone(),
        registers: number_before(&log, "registers")?,
        threads: ptx.launch[0].block.iter().product(),
        shared: ptx.launch[0].static_shared_bytes,
        share: share(&code),
        conflicts: per(counts.bank_conflicts, counts.shared_requests),
        sectors: per(counts.global_sectors, counts.global_requests),
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
        "| kernel for sm_80 | threads | registers | shared KiB | multiplications in the inner loop | conflicts a shared access | sectors a global access |\n|---|---|---|---|---|---|---|\n",
    );
    for case in cases() {
        let figures = figures(&case, &target, folder.path()).unwrap();
        let share = figures.share.filter(|share| *share > 0).map_or("".into(), |share| format!("{share} %"));
        let (shared, conflicts) = match figures.shared {
            0 => (String::new(), String::new()),
            bytes => (format!("{}", bytes as f64 / 1024.0), format!("{:.2}", figures.conflicts)),
        };
        writeln!(
            table,
            "| {} | {} | {} | {shared} | {share} | {conflicts} | {:.1} |",
            figures.name, figures.threads, figures.registers, figures.sectors
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
