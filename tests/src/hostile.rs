//! Bad input, one file a diagnostic: ONNX models in protobuf's text format under `errors/`, with directives in comments.
//!
//! ```text
//! # expect: the graph has a cycle
//! # expect: 'a'
//! ir_version: 8 ...
//! ```
//!
//! | directive | meaning |
//! |---|---|
//! | `expect: TEXT` | the message contains this; several lines may be given |
//! | `arguments: ...` | arguments of `tcc`, `MODEL` and `OUT` stand for paths; default `compile MODEL -o OUT` |
//! | `npy: NAME SPEC` | an array beside the model, see [`crate::inputs`] |
//! | `bytes: NAME COUNT` | a file of zeros beside the model |
//! | `disk: BYTES` | no file may grow beyond this |
//! | `link: NAME TARGET` | a symbolic link beside the model |
//! | `not yet: REASON` | the promise does not hold yet; the test fails as soon as it does |
//! | `mangle: empty` | the model file holds nothing |
//! | `mangle: truncate PERCENT` | it holds only the first part of the model |
//! | `mangle: text` | it holds this text, not the model |
//! | `mangle: nodes COUNT` | this many empty nodes are appended to the graph: two bytes each on disk |
//! | `mangle: nest COUNT` | the graph is wrapped into this many `If` branches |
//! | `mangle: twin LEVELS` | local functions are added, each of which calls the next one twice |
//!
//! [`check`] holds the promise that all of them test: exit status 1, one message, nothing written, no panic, and no more
//! memory than a limit.

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use prost::Message;
use prost_reflect::{DescriptorPool, DynamicMessage};
use tcc_frontend::onnx::proto::{
    AttributeProto, FunctionProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, attribute_proto,
};

use crate::inputs::{Dims, InputSpec};
use tcc::npz;

/// Address space that `tcc` may take on a small file. LLVM and MLIR map some hundred megabytes.
const MEMORY: u64 = 4 << 30;
/// Refusing takes milliseconds; this is for a loaded machine.
const TIME: Duration = Duration::from_secs(60);

/// A bad input that was read.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Hostile {
    /// Texts that the message contains.
    pub expect: Vec<String>,
    /// Why the promise does not hold for this file yet.
    pub not_yet: Option<String>,
    /// Largest file that may be written.
    pub disk: Option<usize>,
    arguments: Option<Vec<String>>,
    files: Vec<SideFile>,
    mangles: Vec<Mangle>,
    source: String,
}

#[derive(Clone, PartialEq, Debug)]
enum SideFile {
    Array(String, String),
    Zeros(String, usize),
    Link(String, String),
}

#[derive(Clone, PartialEq, Debug)]
enum Mangle {
    Empty,
    Text,
    Truncate(usize),
    Nodes(usize),
    Nest(usize),
    Twin(usize),
}

/// How a run of `tcc` ended.
#[derive(Clone, Debug)]
pub struct Ended {
    /// Exit status; `None` where a signal ended it or time ran out.
    pub status: Option<i32>,
    /// What it wrote to standard error.
    pub message: String,
    /// What it wrote to standard output.
    pub output: String,
}

impl Hostile {
    /// Reads a file of `errors/`.
    ///
    /// # Errors
    /// The directive that cannot be read.
    pub fn parse(text: &str) -> Result<Hostile, String> {
        let mut hostile = Hostile { source: text.to_owned(), ..Hostile::default() };
        for (index, line) in text.lines().enumerate() {
            let Some((keyword, rest)) = line.strip_prefix("# ").and_then(|line| line.split_once(':')) else {
                continue;
            };
            let bad = || format!("line {}: `{line}` cannot be read", index + 1);
            let words: Vec<&str> = rest.split_whitespace().collect();
            let number = |word: &str| word.parse::<usize>().map_err(|_| bad());
            match (keyword, &words[..]) {
                ("expect", [_, ..]) => hostile.expect.push(rest.trim().to_owned()),
                ("arguments", words) => {
                    hostile.arguments = Some(words.iter().map(|&word| word.to_owned()).collect())
                }
                ("npy", [name, ..]) => {
                    let spec = rest.trim().strip_prefix(name).unwrap_or_default().trim();
                    hostile.files.push(SideFile::Array((*name).to_owned(), spec.to_owned()));
                }
                ("bytes", [name, count]) => {
                    hostile.files.push(SideFile::Zeros((*name).to_owned(), number(count)?))
                }
                ("not yet", [_, ..]) => hostile.not_yet = Some(rest.trim().to_owned()),
                ("disk", [bytes]) => hostile.disk = Some(number(bytes)?),
                ("link", [name, target]) => {
                    hostile.files.push(SideFile::Link((*name).to_owned(), (*target).to_owned()));
                }
                ("mangle", ["empty"]) => hostile.mangles.push(Mangle::Empty),
                ("mangle", ["text"]) => hostile.mangles.push(Mangle::Text),
                ("mangle", ["truncate", percent]) => hostile.mangles.push(Mangle::Truncate(number(percent)?)),
                ("mangle", ["nodes", count]) => hostile.mangles.push(Mangle::Nodes(number(count)?)),
                ("mangle", ["nest", count]) => hostile.mangles.push(Mangle::Nest(number(count)?)),
                ("mangle", ["twin", count]) => hostile.mangles.push(Mangle::Twin(number(count)?)),
                ("expect" | "npy" | "bytes" | "disk" | "link" | "mangle" | "not yet", _) => return Err(bad()),
                _ => {}
            }
        }
        if hostile.expect.is_empty() { Err("there is no `# expect:` line".to_owned()) } else { Ok(hostile) }
    }

    /// Writes the model and the files beside it into a folder and returns the arguments for `tcc`.
    ///
    /// # Errors
    /// The text is no ONNX model, or a file cannot be written.
    pub fn write(&self, pool: &DescriptorPool, folder: &Path, out: &Path) -> Result<Vec<String>, String> {
        let fail = |error: io::Error| error.to_string();
        let model = folder.join("model.onnx");
        fs::write(&model, self.model(pool)?).map_err(fail)?;
        for file in &self.files {
            match file {
                SideFile::Array(name, spec) => {
                    let data = InputSpec::parse(spec, &Dims::new())?.generate(name)?;
                    let mut bytes = Vec::new();
                    npz::write_npy(&mut bytes, &data).map_err(|error| error.to_string())?;
                    fs::write(folder.join(name), bytes).map_err(fail)?;
                }
                SideFile::Zeros(name, count) => {
                    fs::write(folder.join(name), vec![0; *count]).map_err(fail)?
                }
                SideFile::Link(name, target) => {
                    std::os::unix::fs::symlink(target, folder.join(name)).map_err(fail)?;
                }
            }
        }
        let default = ["compile", "MODEL", "-o", "OUT"].map(str::to_owned).to_vec();
        let replace = |word: &String| {
            word.replace("MODEL", &model.display().to_string())
                .replace("OUT", &out.display().to_string())
                .replace("FOLDER", &folder.display().to_string())
        };
        Ok(self.arguments.as_ref().unwrap_or(&default).iter().map(replace).collect())
    }

    /// The bytes of the model file.
    fn model(&self, pool: &DescriptorPool) -> Result<Vec<u8>, String> {
        if self.mangles.contains(&Mangle::Text) {
            return Ok(self.source.clone().into_bytes());
        }
        let kind = pool.get_message_by_name("onnx.ModelProto").ok_or("the schema has no onnx.ModelProto")?;
        let message =
            DynamicMessage::parse_text_format(kind, &self.source).map_err(|error| error.to_string())?;
        let mut bytes = message.encode_to_vec();
        for mangle in &self.mangles {
            let model = || ModelProto::decode(&bytes[..]).map_err(|error| error.to_string());
            bytes = match *mangle {
                Mangle::Empty | Mangle::Text => Vec::new(),
                Mangle::Truncate(percent) => bytes[..bytes.len() * percent.min(100) / 100].to_vec(),
                Mangle::Nodes(count) => {
                    // Field 7 of the model (graph) with `count` empty entries of field 1 (node); protobuf merges it in.
                    let mut bytes = bytes.clone();
                    bytes.push(7 << 3 | 2);
                    prost::encode_length_delimiter(2 * count, &mut bytes)
                        .map_err(|error| error.to_string())?;
                    bytes.extend([1 << 3 | 2, 0].repeat(count));
                    bytes
                }
                Mangle::Nest(count) => nested(model()?, count).encode_to_vec(),
                Mangle::Twin(levels) => twins(model()?, levels).encode_to_vec(),
            };
        }
        Ok(bytes)
    }
}

/// The graph inside `count` branches of `If` nodes, one branch each: two would double the size at every level.
fn nested(mut model: ModelProto, count: usize) -> ModelProto {
    let Some(mut graph) = model.graph.take() else { return model };
    let (inputs, outputs) = (std::mem::take(&mut graph.input), graph.output.clone());
    for _ in 0..count {
        let branch = AttributeProto {
            name: Some("then_branch".to_owned()),
            r#type: Some(attribute_proto::AttributeType::Graph as i32),
            g: Some(graph),
            ..Default::default()
        };
        let node = NodeProto {
            op_type: Some("If".to_owned()),
            input: vec!["condition".to_owned()],
            output: outputs.iter().map(|value| value.name().to_owned()).collect(),
            attribute: vec![branch],
            ..Default::default()
        };
        let name = Some("outer".to_owned());
        graph = GraphProto { node: vec![node], output: outputs.clone(), name, ..Default::default() };
    }
    model.graph = Some(GraphProto { input: inputs, ..graph });
    model
}

/// Local functions `f0` to `f{levels}`, each of which calls the next one twice; the graph calls `f0`.
fn twins(mut model: ModelProto, levels: usize) -> ModelProto {
    let call = |operator: String, input: &str, output: &str| NodeProto {
        op_type: Some(operator),
        domain: Some("local".to_owned()),
        input: vec![input.to_owned()],
        output: vec![output.to_owned()],
        ..Default::default()
    };
    let opset = |domain: &str| OperatorSetIdProto { domain: Some(domain.to_owned()), version: Some(17) };
    for level in 0..=levels {
        let mut body =
            vec![call(format!("f{}", level + 1), "x", "t"), call(format!("f{}", level + 1), "t", "y")];
        if level == levels {
            for node in &mut body {
                node.op_type = Some("Relu".to_owned());
                node.domain = None;
            }
        }
        model.functions.push(FunctionProto {
            name: Some(format!("f{level}")),
            domain: Some("local".to_owned()),
            input: vec!["x".to_owned()],
            output: vec!["y".to_owned()],
            node: body,
            opset_import: vec![opset(""), opset("local")],
            ..Default::default()
        });
    }
    model.opset_import.push(opset("local"));
    model
}

/// The schema of the text format.
///
/// # Errors
/// The schema cannot be read.
pub fn schema() -> Result<DescriptorPool, String> {
    let folder = crate::cache::tests_folder().join("../frontend/proto");
    let files = protox::compile(["onnx/onnx-ml.proto"], [folder]).map_err(|error| error.to_string())?;
    DescriptorPool::from_file_descriptor_set(files).map_err(|error| error.to_string())
}

/// Runs a program under the limits on memory, time and, where `disk` says so, the size of files.
///
/// # Errors
/// It cannot be started.
pub fn run_limited(
    program: &Path,
    arguments: &[String],
    folder: &Path,
    disk: Option<usize>,
) -> Result<Ended, String> {
    let mut command = Command::new("prlimit");
    command.arg(format!("--as={MEMORY}")).arg("--core=0");
    if let Some(bytes) = disk {
        // With the signal ignored, writing beyond the limit fails as it does on a full disk.
        command.arg(format!("--fsize={bytes}")).args(["sh", "-c", "trap '' XFSZ; exec \"$0\" \"$@\""]);
    }
    command.arg(program).args(arguments).current_dir(folder);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|error| format!("prlimit: {error}"))?;
    let capture = |pipe: Option<Box<dyn Read + Send>>| {
        std::thread::spawn(move || {
            let mut bytes = Vec::new();
            if let Some(mut pipe) = pipe {
                // A broken pipe ends the text, nothing more.
                let _ = pipe.read_to_end(&mut bytes);
            }
            String::from_utf8_lossy(&bytes).into_owned()
        })
    };
    let output = capture(child.stdout.take().map(|pipe| Box::new(pipe) as Box<dyn Read + Send>));
    let message = capture(child.stderr.take().map(|pipe| Box::new(pipe) as Box<dyn Read + Send>));
    let start = Instant::now();
    let status = loop {
        match child.try_wait().map_err(|error| error.to_string())? {
            Some(status) => break status.code(),
            None if start.elapsed() > TIME => {
                child.kill().and_then(|()| child.wait()).map_err(|error| error.to_string())?;
                break None;
            }
            None => std::thread::sleep(Duration::from_millis(5)),
        }
    };
    let text =
        |thread: std::thread::JoinHandle<String>| thread.join().map_err(|_| "a reader panicked".to_owned());
    Ok(Ended { status, message: text(message)?, output: text(output)? })
}

/// What a refusal must look like.
///
/// # Errors
/// The promise that is broken.
pub fn check(ended: &Ended, expect: &[String], written: &[PathBuf]) -> Result<(), String> {
    let message = ended.message.trim();
    for sign in ["panicked at", "RUST_BACKTRACE", "stack overflow", "memory allocation of"] {
        if message.contains(sign) {
            return Err(format!("it panicked:\n{message}"));
        }
    }
    match ended.status {
        Some(1) => {}
        Some(status) => return Err(format!("exit status {status}, expected 1:\n{message}")),
        None => return Err(format!("ended by a signal or after {} s:\n{message}", TIME.as_secs())),
    }
    if message.lines().filter(|line| line.starts_with("error:")).count() != 1 {
        return Err(format!("expected one line that starts with `error:`, found:\n{message}"));
    }
    if let Some(missing) = expect.iter().find(|text| !message.contains(text.as_str())) {
        return Err(format!("the message does not say `{missing}`:\n{message}"));
    }
    if !ended.output.is_empty() {
        return Err(format!("standard output is not empty:\n{}", ended.output));
    }
    if !written.is_empty() {
        return Err(format!("it left {written:?}"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"ir_version: 8 opset_import { version: 17 }
        graph { name: "g" node { op_type: "Relu" input: "x" output: "y" }
        input { name: "x" type { tensor_type { elem_type: 1 shape { dim { dim_value: 2 } } } } }
        output { name: "y" type { tensor_type { elem_type: 1 } } } }"#;

    fn model(mangle: &str) -> Vec<u8> {
        Hostile::parse(&format!("# expect: x\n# mangle: {mangle}\n{GOOD}"))
            .unwrap()
            .model(&schema().unwrap())
            .unwrap()
    }

    #[test]
    fn mangling_does_what_it_says() {
        let good =
            Hostile::parse(&format!("# expect: x\n{GOOD}")).unwrap().model(&schema().unwrap()).unwrap();
        let decode = |bytes: Vec<u8>| ModelProto::decode(&bytes[..]).unwrap();
        assert_eq!(decode(good.clone()).graph.unwrap().node.len(), 1);
        assert!(model("empty").is_empty());
        assert_eq!(model("truncate 50"), good[..good.len() / 2]);
        assert_eq!(decode(model("nodes 1000")).graph.unwrap().node.len(), 1001);
        assert_eq!(decode(model("twin 3")).functions.len(), 4);
        let nested = decode(model("nest 3")).graph.unwrap();
        assert_eq!(nested.node[0].op_type(), "If");
        assert!(model("text").starts_with(b"# expect"));
    }

    #[test]
    fn every_file_of_the_folder_is_a_model_in_text_form() {
        let (pool, mut count) = (schema().unwrap(), 0);
        for entry in fs::read_dir(crate::cache::tests_folder().join("errors")).unwrap() {
            let path = entry.unwrap().path();
            let hostile = Hostile::parse(&fs::read_to_string(&path).unwrap());
            let hostile = hostile.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            let folder = tempfile::tempdir().unwrap();
            let arguments = hostile.write(&pool, folder.path(), Path::new("/out"));
            let arguments = arguments.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            assert!(arguments.len() >= 3, "{}", path.display());
            count += 1;
        }
        assert!(count > 80, "{count}");
    }

    #[test]
    fn directives_that_cannot_be_read_are_named() {
        assert!(Hostile::parse(GOOD).unwrap_err().contains("expect"));
        assert!(Hostile::parse("# expect: a\n# mangle: twist").unwrap_err().contains("line 2"));
        assert!(Hostile::parse("# expect: a\n# bytes: b many").unwrap_err().contains("line 2"));
    }

    #[test]
    fn every_broken_promise_is_noticed() {
        let ended =
            |status, message: &str| Ended { status, message: message.to_owned(), output: String::new() };
        let expect = ["field".to_owned()];
        let good = ended(Some(1), "error: bad field\n  with detail\n");
        assert!(check(&good, &expect, &[]).is_ok());
        assert!(check(&good, &expect, &[PathBuf::from("out")]).is_err());
        assert!(check(&Ended { output: "x".to_owned(), ..good }, &expect, &[]).is_err());
        for (status, message) in [
            (Some(0), "error: bad field"),
            (Some(3), "error: bad field"),
            (None, "error: bad field"),
            (Some(1), "bad field"),
            (Some(1), "error: bad field\nerror: bad field"),
            (Some(1), "error: something else"),
            (Some(1), "error: bad field\nthread 'main' panicked at x.rs"),
        ] {
            assert!(check(&ended(status, message), &expect, &[]).is_err(), "{status:?} {message}");
        }
    }

    #[test]
    fn time_and_status_come_back() {
        let folder = tempfile::tempdir().unwrap();
        let arguments = ["-c", "echo out; echo err >&2; exit 7"].map(str::to_owned);
        let ended = run_limited(Path::new("/bin/sh"), &arguments, folder.path(), None).unwrap();
        assert_eq!((ended.status, ended.output.trim(), ended.message.trim()), (Some(7), "out", "err"));
        let arguments = ["if=/dev/zero", "of=out", "bs=4096", "count=4"].map(str::to_owned);
        let ended = run_limited(Path::new("dd"), &arguments, folder.path(), Some(8192)).unwrap();
        assert_eq!((ended.status, ended.message.contains("too large")), (Some(1), true), "{ended:?}");
    }
}
