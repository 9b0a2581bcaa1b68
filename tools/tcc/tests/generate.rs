//! The commands for language models on a tiny model: the program is run as a user runs it.

mod tiny_model;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use tiny_model::{CONTEXT, Flaws};

/// A folder with the model, which goes with it.
struct Folder(tempfile::TempDir);

impl Folder {
    fn with(flaws: Flaws) -> Folder {
        let folder = Folder(tempfile::tempdir().expect("a folder"));
        tiny_model::write(&folder.model(), flaws);
        folder
    }

    fn model(&self) -> PathBuf {
        self.0.path().join("tiny.gguf")
    }

    fn file(&self, name: &str, contents: &str) -> PathBuf {
        let path = self.0.path().join(name);
        std::fs::write(&path, contents).expect("the folder can be written");
        path
    }
}

/// Runs a command on a model.
fn tcc(command: &str, model: &Path, arguments: &[&str], input: &str) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_tcc"))
        .arg(command)
        .arg(model)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts");
    // A program that refuses its arguments does not read.
    let _ = child.stdin.take().map(|mut stdin| stdin.write_all(input.as_bytes()));
    child.wait_with_output().expect("the program ends")
}

#[track_caller]
fn good(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout.clone()).expect("the output is text")
}

/// The command ends with this status and says this.
#[track_caller]
fn refused(output: &Output, status: i32, expected: &str) {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(status), "{stderr}");
    assert!(stderr.contains(expected), "{stderr}");
    assert!(output.stdout.is_empty());
}

fn json(text: &str) -> serde_json::Value {
    serde_json::from_str(text).expect("the output is JSON")
}

#[test]
fn the_same_options_give_the_same_text() {
    let folder = Folder::with(Flaws::default());
    let run = |more: &[&str]| {
        let common = ["--target", "interpreter", "--prompt", "on the", "--ignore-end", "--json"];
        json(&good(&tcc("generate", &folder.model(), &[&common[..], more].concat(), "")))
    };
    let greedy = run(&["--max-tokens", "24"]);
    assert_eq!(
        (greedy["tokens"].as_array().map(Vec::len), greedy["prompt_tokens"].as_u64()),
        (Some(24), Some(2))
    );
    assert_eq!(greedy["finish"], "length");
    let drawn =
        |seed: &str| run(&["--max-tokens", "12", "--temperature", "1.2", "--top-k", "40", "--seed", seed]);
    assert_eq!(drawn("3"), drawn("3"));
    assert_ne!(drawn("3"), drawn("4"));
    // A text ends where the context does.
    assert_eq!(run(&["--max-tokens", "24", "--context", "8"])["finish"], "context");
    refused(&tcc("generate", &folder.file("bad.tcc", "nothing"), &["--prompt", "a"], ""), 1, "error: ");
}

#[test]
fn compiled_models_and_bundles_write_what_the_interpreter_does() {
    let folder = Folder::with(Flaws::default());
    let exact = ["--kv", "f32", "--activations", "f32"];
    let prompts =
        ["--prompt", "on the", "--prompt", "the other", "--max-tokens", "16", "--ignore-end", "--json"];
    let run = |model: &Path, more: &[&str]| -> Vec<serde_json::Value> {
        let lines = good(&tcc("generate", model, &[&prompts[..], &exact, more].concat(), ""));
        lines.lines().map(|line| json(line)["tokens"].clone()).collect()
    };
    let expected = run(&folder.model(), &["--target", "interpreter"]);
    assert_eq!(expected.len(), 2);
    for target in ["cpu", "cranelift"] {
        for threads in ["1", "2"] {
            let found = run(&folder.model(), &["--target", target, "--threads", threads]);
            assert_eq!(found, expected, "{target}, {threads} threads");
        }
        let bundle = folder.0.path().join(format!("{target}.tcc"));
        let arguments = ["-o", &bundle.to_string_lossy(), "--target", target];
        good(&tcc("compile", &folder.model(), &[&arguments[..], &exact].concat(), ""));
        assert_eq!(run(&bundle, &[]), expected, "{target}, bundle");
    }
}

#[test]
fn prompts_come_from_arguments_files_and_pipes() {
    let folder = Folder::with(Flaws::default());
    let run = |arguments: &[&str], input: &str| {
        let all = [&["--target", "interpreter", "--max-tokens", "5", "--json"], arguments].concat();
        good(&tcc("generate", &folder.model(), &all, input))
    };
    let expected = run(&["--prompt", "on the"], "");
    assert_eq!(run(&[], "on the"), expected);
    assert_eq!(run(&["--prompt-file", &folder.file("prompt", "on the").to_string_lossy()], ""), expected);
    let batch = run(&["--prompt", "on the", "--prompt", "xyz"], "");
    assert_eq!(batch.lines().next(), expected.lines().next());
    assert_eq!(batch.lines().count(), 2);
}

#[test]
fn stop_strings_grammars_and_probabilities() {
    let folder = Folder::with(Flaws::default());
    let run = |arguments: &[&str]| {
        let all = [&["--target", "interpreter", "--prompt", "on", "--max-tokens", "12", "--json"], arguments]
            .concat();
        json(&good(&tcc("generate", &folder.model(), &all, "")))
    };
    let grammar = folder.file("g.lark", "start: \"yes\" | \"no\"");
    let answer = run(&["--grammar", &grammar.to_string_lossy()]);
    assert!(answer["text"] == "yes" || answer["text"] == "no", "{answer}");
    assert_eq!(answer["finish"], "end");
    let schema = folder.file("s.json", r#"{"enum": ["a", "b"]}"#);
    let answer = run(&["--json-schema", &schema.to_string_lossy()]);
    assert!(answer["text"] == "\"a\"" || answer["text"] == "\"b\"", "{answer}");
    let answer = run(&["--logprobs", "2", "--ignore-end"]);
    assert_eq!(answer["logprobs"].as_array().map(Vec::len), Some(12));
    assert_eq!(answer["logprobs"][0]["top"][0]["token"], answer["tokens"][0]);
}

#[test]
fn chat_keeps_the_conversation() {
    let folder = Folder::with(Flaws::default());
    let arguments = ["--target", "interpreter", "--max-tokens", "4"];
    let output = good(&tcc("chat", &folder.model(), &arguments, "on\n/reset\non\n/quit\nthe\n"));
    // After the reset the same question has the same answer.
    let half = output.len() / 2;
    assert_eq!(output[..half], output[half..]);
    let template = folder.file("t.jinja", "{{ messages[0].content }}");
    let direct = tcc("generate", &folder.model(), &[&arguments[..], &["--prompt", "on"]].concat(), "");
    let template = template.to_string_lossy();
    let chat = [&arguments[..], &["--template", &template]].concat();
    assert_eq!(good(&tcc("chat", &folder.model(), &chat, "on\n")), good(&direct));
}

#[test]
fn perplexity_of_a_text() {
    let folder = Folder::with(Flaws::default());
    let text = "the cat sat on the mat and looked at the other cat; then it sat on the other mat.";
    let path = folder.file("text", text);
    let run = |window: &str, stride: &str| {
        let path = path.to_string_lossy();
        let options =
            ["--target", "interpreter", "--text", &path, "--window", window, "--stride", stride, "--json"];
        json(&good(&tcc("eval", &folder.model(), &options, "")))
    };
    let (whole, parts) = (run("96", "48"), run("32", "16"));
    assert_eq!(whole["tokens"], parts["tokens"]);
    for found in [&whole, &parts] {
        // Random weights foresee little, but probabilities they are.
        assert!(
            found["perplexity"].as_f64().is_some_and(|value| value > 1.0 && value.is_finite()),
            "{found}"
        );
    }
}

#[test]
fn bad_options_are_wrong_usage() {
    let folder = Folder::with(Flaws::default());
    let run = |arguments: &[&str]| {
        tcc(
            "generate",
            &folder.model(),
            &[&["--target", "interpreter", "--prompt", "on"], arguments].concat(),
            "",
        )
    };
    refused(&run(&["--temperature", "-1"]), 2, "--temperature -1: expected a number of at least 0");
    refused(&run(&["--top-p", "1.5"]), 2, "--top-p 1.5");
    refused(&run(&["--grammar", "a", "--json-schema", "b"]), 2, "cannot be used with");
    refused(&run(&["--template", "x"]), 2, "--chat");
}

#[test]
fn bad_input_is_refused_by_name() {
    let folder = Folder::with(Flaws::default());
    let run = |arguments: &[&str]| {
        tcc("generate", &folder.model(), &[&["--target", "interpreter"], arguments].concat(), "")
    };
    let long = "x".repeat(CONTEXT as usize);
    refused(&run(&["--prompt", &long]), 1, "a prompt of 96 tokens leaves no room in a context of 96");
    refused(
        &run(&["--prompt", "abcdef", "--context", "4"]),
        1,
        "a prompt of 6 tokens leaves no room in a context of 4",
    );
    refused(
        &run(&["--prompt", "a", "--context", "5000"]),
        1,
        "--context 5000: the model was trained on at most 96",
    );
    refused(&run(&["--prompt", ""]), 1, "the prompt is empty");
    let grammar = folder.file("g.lark", "start: nothing");
    refused(&run(&["--prompt", "a", "--grammar", &grammar.to_string_lossy()]), 1, "error: grammar: ");
    refused(&run(&["--prompt", "a", "--grammar", "/missing"]), 1, "/missing");
    let eval = ["--target", "interpreter", "--text", "/missing"];
    refused(&tcc("eval", &folder.model(), &eval, ""), 1, "/missing");
}

#[test]
fn flawed_models_are_refused_by_name() {
    let run = |flaws: Flaws, command: &str, arguments: &[&str]| {
        let folder = Folder::with(flaws);
        tcc(command, &folder.model(), &[&["--target", "interpreter"], arguments].concat(), "on\n")
    };
    let no_template = Flaws { no_template: true, ..Flaws::default() };
    refused(&run(no_template, "chat", &[]), 1, "the model has no chat template");
    good(&run(no_template, "generate", &["--max-tokens", "1"]));
    let broken = Flaws { template: Some("{% for m in messages %}\n{{ m.content }}"), ..Flaws::default() };
    refused(&run(broken, "chat", &[]), 1, "chat template, line 2");
    let no_tokenizer = Flaws { no_tokenizer: true, ..Flaws::default() };
    refused(&run(no_tokenizer, "generate", &[]), 1, "tokenizer");
    let fewer = Flaws { padding: -2, ..Flaws::default() };
    refused(&run(fewer, "generate", &[]), 1, "tokens");
}

#[test]
fn a_closed_pipe_is_no_error() {
    let folder = Folder::with(Flaws::default());
    let mut child = Command::new(env!("CARGO_BIN_EXE_tcc"))
        .args([
            "generate",
            &folder.model().to_string_lossy(),
            "--target",
            "interpreter",
            "--prompt",
            "on",
            "--ignore-end",
        ])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts");
    drop(child.stdout.take());
    let output = child.wait_with_output().expect("the program ends");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// The example is built with the tests; here it runs.
#[test]
fn the_example_runs() {
    let program = Path::new(env!("CARGO_BIN_EXE_tcc")).with_file_name("examples").join("continue");
    let folder = Folder::with(Flaws::default());
    if !program.is_file() {
        println!("skipped: {} was not built; run: cargo test -p tcc --examples", program.display());
        return;
    }
    let output = Command::new(program).arg(folder.model()).args(["on the", "5"]).output().expect("it starts");
    let text = good(&output);
    assert_eq!(text.lines().filter(|line| line.contains(": on the")).count(), 2, "{text}");
}
