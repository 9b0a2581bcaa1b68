//! The project of a design: sources, testbench, build files and report.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::Path;

use tcc_ir::dtype::DType;
use tcc_kernel::fixed::Fixed;
use tcc_passes::program::Program;
use tcc_runtime::manifest::Storage;

use crate::design::{Array, Call, Design, Place, Plan, Port, Role, check, info};
use crate::error::Error;
use crate::explore::{Objective, explore};
use crate::flow::{Action, Argument, Flow};
use crate::formats::ProgramFormats;
use crate::numbers::{Numbers, element_type, format_definition};
use crate::part::Part;
use crate::reference::{Vector, random_inputs, run_design};
use crate::report::Report;
use crate::{tables, testbench, weights};

const MATH: &str = include_str!("support/tcc_hls.h");
const INTEGER: &str = include_str!("support/tcc_integer.h");
const DATAFLOW: &str = include_str!("support/tcc_dataflow.h");
const FIXED: &str = include_str!("support/tcc_fixed.h");

/// Who decides about architecture and parallelism.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Choice {
    /// The caller.
    Plan(Plan),
    /// A search under the part's budget.
    Search(Objective),
}

impl Default for Choice {
    fn default() -> Choice {
        Choice::Plan(Plan::default())
    }
}

/// How a project is made.
#[derive(Clone, Debug, PartialEq)]
pub struct Options {
    /// Number format.
    pub numbers: Numbers,
    /// Architecture, and how much runs side by side.
    pub choice: Choice,
    /// Inputs of a few runs, each the bytes of every input: ranges are taken from them, and the testbench runs them. Without
    /// any, two are made up.
    pub calibration: Vec<Vec<Vec<u8>>>,
    /// Vectors of the testbench; without any, the interpreter runs the calibration data.
    pub vectors: Option<Vec<Vector>>,
    /// Largest accepted error of a floating-point result, relative to the larger of 1 and the expected value. Fixed point and
    /// integers are exact.
    pub tolerance: f64,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            numbers: Numbers::Float,
            choice: Choice::default(),
            calibration: Vec::new(),
            vectors: None,
            tolerance: 1e-4,
        }
    }
}

/// A project that is not written yet.
#[derive(Clone, Debug)]
pub struct Project {
    /// The design.
    pub design: Design,
    /// Formats of the program's numbers.
    pub formats: ProgramFormats,
    /// Contents by path.
    pub files: BTreeMap<String, String>,
    /// Its figures.
    pub report: Report,
}

/// Vectors that are made up where none are given.
const MADE_UP: usize = 2;

/// Makes the project of a program, whose kernels were lowered with [`crate::tuning`], for a part.
///
/// # Errors
///
/// Open dimensions, steps that are no kernels, types and functions without counterpart, and parts that are too small are
/// refused by name.
pub fn project(program: &Program, part: &Part, options: &Options) -> Result<Project, Error> {
    check(&program.manifest)?;
    let made_up = if options.calibration.is_empty() { random_inputs(program, MADE_UP)? } else { Vec::new() };
    let calibration = if made_up.is_empty() { &options.calibration } else { &made_up };
    let ranges: &[_] = match options.numbers {
        // Made-up inputs say nothing of whether a given format overflows.
        Numbers::Fixed(_) => &options.calibration,
        _ => calibration,
    };
    let formats = ProgramFormats::choose(program, &options.numbers, ranges)?;
    let (plan, points) = match &options.choice {
        Choice::Plan(plan) => (plan.clone(), Vec::new()),
        Choice::Search(objective) => {
            let search = explore(program, part, &formats, *objective)?;
            (search.plan, search.points)
        }
    };
    let design = Design::new(program, part, &formats, &plan)?;
    let report = Report { points, ..Report::new(&design, part, formats.width().map(|_| options.numbers)) };
    part.check(&report.total.resources)?;
    let mut files = BTreeMap::new();
    sources(&design, program, &mut files)?;
    let mut expected = Vec::new();
    if options.vectors.is_none() {
        for inputs in calibration {
            expected.push(Vector {
                inputs: inputs.clone(),
                outputs: run_design(program, &formats, &design, inputs)?,
            });
        }
    }
    let vectors = options.vectors.as_ref().unwrap_or(&expected);
    let tolerance = if options.numbers == Numbers::Float { options.tolerance } else { 0.0 };
    files.extend(testbench::files(&design, vectors, tolerance)?);
    files.insert("Makefile".into(), makefile(&design));
    files.insert("script.tcl".into(), script(&design, part));
    files.insert("report.json".into(), serde_json::to_string_pretty(&report)? + "\n");
    Ok(Project { design, formats, files, report })
}

fn sources(design: &Design, program: &Program, files: &mut BTreeMap<String, String>) -> Result<(), Error> {
    let mut tables = BTreeSet::new();
    let mut prototypes =
        String::from("// The functions of the design.\n#pragma once\n\n#include \"types.h\"\n");
    for function in &design.functions {
        let emitted = &function.emitted;
        tables.extend(&emitted.tables);
        let _ = write!(prototypes, "\n{};\n", emitted.prototype);
        let mut text = String::from("#include \"kernels.h\"\n");
        if !emitted.tables.is_empty() {
            text.push_str("#include \"tables.h\"\n");
        }
        let _ = write!(text, "\n{}", emitted.text);
        files.insert(format!("src/{}.cpp", emitted.name), text);
    }
    files.insert("src/kernels.h".into(), prototypes);
    files.insert("src/types.h".into(), types(design));
    files.insert("src/tcc_hls.h".into(), MATH.into());
    if design.flow.is_some() {
        files.insert("src/tcc_dataflow.h".into(), DATAFLOW.into());
    }
    if design.uses_ap_types() {
        files.insert("src/tcc_integer.h".into(), INTEGER.into());
    }
    if !design.formats().is_empty() {
        files.insert("src/tcc_fixed.h".into(), FIXED.into());
    }
    if !tables.is_empty() {
        let mut text = String::from("// Functions as tables.\n#pragma once\n\n#include \"types.h\"\n");
        for (table, format) in &tables {
            let _ = write!(text, "\n{}", tables::definition(table, *format));
        }
        files.insert("src/tables.h".into(), text);
    }
    for array in &design.arrays {
        let Role::Weight(tensor) = array.role else { continue };
        let unreadable = || Error::Program(format!("constant '{}' has no data", array.name));
        let Storage::Weight { blob, offset, bytes } = info(&program.manifest, tensor)?.storage else {
            return Err(unreadable());
        };
        let data = program.weights.get(blob as usize).ok_or_else(unreadable)?;
        let (first, length) = (usize::try_from(offset).ok(), usize::try_from(bytes).ok());
        let range = first.zip(length).and_then(|(first, length)| data.get(first..first.checked_add(length)?));
        let elements = crate::design::elements(&program.manifest, tensor)?;
        let text = range
            .and_then(|data| weights::header(&array.name, array.dtype, array.format, elements, data))
            .ok_or_else(unreadable)?;
        files.insert(format!("src/{}.h", array.name), text);
    }
    let prototype = top_prototype(design)?;
    files.insert(
        "src/top.h".into(),
        format!("// The top function.\n#pragma once\n\n#include \"types.h\"\n\n{prototype};\n"),
    );
    files.insert("src/top.cpp".into(), top(design, &prototype)?);
    Ok(())
}

fn types(design: &Design) -> String {
    let mut text = String::from("// Types of the design.\n#pragma once\n\n#include \"tcc_hls.h\"\n");
    if design.uses_ap_types() {
        text.push_str("#include \"tcc_integer.h\"\n");
    }
    if design.flow.is_some() {
        text.push_str("#include \"tcc_dataflow.h\"\n");
    }
    let formats = design.formats();
    if !formats.is_empty() {
        text.push_str(
            "#include \"tcc_fixed.h\"\n\n// Fixed point: all bits, and those before the binary point.\n",
        );
        formats.into_iter().for_each(|format| text.push_str(&format_definition(format)));
    }
    text
}

fn type_name(design: &Design, dtype: DType, format: Option<Fixed>) -> Result<String, Error> {
    element_type(dtype, format).ok_or_else(|| Error::Unsupported {
        kernel: design.name.clone(),
        what: format!("type for {dtype} elements"),
        advice: "convert the model to f32 or integers",
    })
}

fn top_prototype(design: &Design) -> Result<String, Error> {
    let mut arguments = Vec::new();
    let ports = design.inputs.iter().map(|port| ("const ", port));
    for (constant, port) in ports.chain(design.outputs.iter().map(|port| ("", port))) {
        let ty = type_name(design, port.dtype, port.format)?;
        arguments.push(format!("{constant}{ty} {}[{}]", port.name, port.elements.max(1)));
    }
    Ok(format!("void {}({})", design.name, arguments.join(", ")))
}

fn place_text(design: &Design, place: &Place) -> String {
    let name = &design.arrays[place.array].name;
    if place.offset == 0 { name.clone() } else { format!("{name} + {}", place.offset) }
}

fn copy(text: &mut String, from: &str, to: &str, elements: u64) {
    let _ = writeln!(text, "  for (int i = 0; i < {elements}; ++i) {{\n#pragma HLS PIPELINE II=1");
    let _ = writeln!(text, "    {to} = {from};\n  }}");
}

fn element(design: &Design, place: &Place) -> String {
    let name = &design.arrays[place.array].name;
    if place.offset == 0 { format!("{name}[i]") } else { format!("{name}[{} + i]", place.offset) }
}

fn top(design: &Design, prototype: &str) -> Result<String, Error> {
    let mut text = String::from("#include \"top.h\"\n\n#include \"kernels.h\"\n");
    let weights = design.arrays.iter().filter(|array| matches!(array.role, Role::Weight(_)));
    weights.clone().for_each(|array| {
        let _ = writeln!(text, "#include \"{}.h\"", array.name);
    });
    let _ = writeln!(text, "\n{prototype} {{");
    let ports: Vec<&Port> = design.inputs.iter().chain(&design.outputs).collect();
    for (number, port) in ports.iter().enumerate() {
        let _ =
            writeln!(text, "#pragma HLS INTERFACE m_axi port={} offset=slave bundle=gmem{number}", port.name);
    }
    text.push_str("#pragma HLS INTERFACE s_axilite port=return\n");
    if let Some(flow) = &design.flow {
        processes(design, flow, &mut text)?;
        text.push_str("}\n");
        return Ok(text);
    }
    for array in &design.arrays {
        if array.role == Role::Local {
            let ty = type_name(design, array.dtype, array.format)?;
            let _ = writeln!(text, "  static {ty} {}[{}];", array.name, array.memory.elements.max(1));
        }
        pragmas(&mut text, array);
    }
    for port in &design.inputs {
        if let Some(place) = &port.place {
            copy(&mut text, &format!("{}[i]", port.name), &element(design, place), port.elements);
        }
    }
    for call in &design.calls {
        match call {
            Call::Function { function, arguments, layer } => {
                let arguments: Vec<String> =
                    arguments.iter().map(|place| place_text(design, place)).collect();
                let name = &design.functions[*function].emitted.name;
                let layer: String = layer.chars().filter(|character| !character.is_control()).collect();
                let _ = writeln!(text, "  // Layer {layer}.\n  {name}({});", arguments.join(", "));
            }
            Call::Copy { from, to, elements } => {
                copy(&mut text, &element(design, from), &element(design, to), *elements);
            }
        }
    }
    for port in &design.outputs {
        if let Some(place) = &port.place {
            copy(&mut text, &element(design, place), &format!("{}[i]", port.name), port.elements);
        }
    }
    text.push_str("}\n");
    Ok(text)
}

/// The processes of a dataflow design and the FIFOs between them.
fn processes(design: &Design, flow: &Flow, text: &mut String) -> Result<(), Error> {
    text.push_str("#pragma HLS DATAFLOW\n");
    design.arrays.iter().for_each(|array| pragmas(text, array));
    for fifo in &flow.fifos {
        let ty = type_name(design, fifo.dtype, fifo.format)?;
        let (name, depth) = (&fifo.name, fifo.depth);
        let _ = writeln!(text, "  hls::stream<{ty}> {name}(\"{name}\");");
        let _ = writeln!(text, "#pragma HLS STREAM variable={name} depth={depth}");
    }
    let fifo = |number: &usize| flow.fifos[*number].name.as_str();
    for process in &flow.processes {
        let fifos: Vec<&str> = process.inputs.iter().chain(&process.outputs).map(fifo).collect();
        let elements =
            process.inputs.iter().chain(&process.outputs).map(|number| flow.fifos[*number].elements).next();
        let (elements, fifos) = (elements.unwrap_or(0), fifos.join(", "));
        let _ = match &process.action {
            Action::Load(port) => {
                writeln!(text, "  load<{elements}>({}, {fifos});", design.inputs[*port].name)
            }
            Action::Store(port) => {
                writeln!(text, "  store<{elements}>({fifos}, {});", design.outputs[*port].name)
            }
            Action::Forward => writeln!(text, "  forward<{elements}>({fifos});"),
            Action::Duplicate => writeln!(text, "  duplicate<{elements}>({fifos});"),
            Action::Call { function, arguments, layer } => {
                let argument = |argument: &Argument| match argument {
                    Argument::Fifo(number) => fifo(number),
                    Argument::Array(number) => design.arrays[*number].name.as_str(),
                };
                let arguments: Vec<&str> = arguments.iter().map(argument).collect();
                let name = &design.functions[*function].emitted.name;
                let layer: String = layer.chars().filter(|character| !character.is_control()).collect();
                writeln!(text, "  // Layer {layer}.\n  {name}({});", arguments.join(", "))
            }
        };
    }
    Ok(())
}

fn pragmas(text: &mut String, array: &Array) {
    if array.memory.banks > 1 {
        let _ = writeln!(
            text,
            "#pragma HLS ARRAY_PARTITION variable={} type=cyclic factor={} dim=1",
            array.name, array.memory.banks
        );
    }
    if array.memory.large {
        let _ = writeln!(text, "#pragma HLS BIND_STORAGE variable={} type=ram_2p impl=uram", array.name);
    }
}

fn makefile(design: &Design) -> String {
    let needs = if design.uses_ap_types() {
        "ifeq ($(AP_INCLUDE),)\n$(error set AP_INCLUDE to the folder with ap_int.h and ap_fixed.h)\nendif\n"
    } else {
        ""
    };
    format!(
        "# C simulation: make csim AP_INCLUDE=FOLDER, with the folder of ap_int.h and ap_fixed.h.\n\
         CXX ?= g++\nCXXFLAGS ?= -O1\nAP_INCLUDE ?=\n{needs}\n\
         SOURCES := $(wildcard src/*.cpp) tb/testbench.cpp\nHEADERS := $(wildcard src/*.h) tb/testbench.h\n\
         INCLUDES := -Isrc -Itb $(if $(AP_INCLUDE),-isystem $(AP_INCLUDE))\n\n\
         .PHONY: csim clean\n\
         csim: build/csim\n\t./build/csim tb\n\n\
         build/csim: $(SOURCES) $(HEADERS)\n\tmkdir -p build\n\
         \tprintf '#include \"../%s\"\\n' $(SOURCES) > build/all.cpp\n\
         \t$(CXX) -std=c++14 $(CXXFLAGS) -ffp-contract=off -Wall -Wno-unknown-pragmas $(INCLUDES) build/all.cpp -o $@\n\n\
         clean:\n\trm -rf build\n"
    )
}

fn script(design: &Design, part: &Part) -> String {
    let period = 1000.0 / f64::from(part.clock_mhz.max(1));
    let name = &design.name;
    format!(
        "# Vitis HLS: vitis_hls -f script.tcl\nopen_project -reset {name}_project\nset_top {name}\n\
         add_files [glob src/*.cpp] -cflags \"-Isrc\"\n\
         add_files -tb [glob tb/*] -cflags \"-Isrc -Itb\"\n\
         open_solution -reset solution -flow_target vivado\nset_part {{{}}}\ncreate_clock -period {period:.3}\n\
         csim_design -argv \"[pwd]/tb\"\ncsynth_design\nexit\n",
        part.device
    )
}

impl Project {
    /// Writes the project as the folder `path`, all at once or not at all. A project that is there already is replaced;
    /// any other folder that is not empty is left alone and refused.
    pub fn write(&self, path: &Path) -> Result<(), Error> {
        let failed = |at: &Path| {
            let path = at.display().to_string();
            move |source: std::io::Error| Error::Write { path, source }
        };
        let is_project = path.join("report.json").is_file() && path.join("script.tcl").is_file();
        let occupied = path.exists() && path.read_dir().map_err(failed(path))?.next().is_some();
        if occupied && !is_project {
            return Err(failed(path)(std::io::Error::from(std::io::ErrorKind::DirectoryNotEmpty)));
        }
        let parent = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        std::fs::create_dir_all(parent).map_err(failed(parent))?;
        let folder = tempfile::Builder::new().prefix(".hls-").tempdir_in(parent).map_err(failed(parent))?;
        let staged = folder.path().join("new");
        for (name, contents) in &self.files {
            let file = staged.join(name);
            if let Some(parent) = file.parent() {
                std::fs::create_dir_all(parent).map_err(failed(parent))?;
            }
            std::fs::write(&file, contents).map_err(failed(&file))?;
        }
        if path.exists() {
            std::fs::rename(path, folder.path().join("old")).map_err(failed(path))?;
        }
        std::fs::rename(&staged, path).map_err(failed(path))
    }
}
