//! Chat templates: the model's own text around messages, in Jinja.
//!
//! Templates are written for the Python library, with the methods of Python's strings, lists and dictionaries, and with
//! the settings and functions that Hugging Face's `transformers` gives them: blocks trim the line break after them and
//! the white space before them; `raise_exception` refuses messages; `strftime_now` formats the present time; `tojson`
//! escapes nothing for HTML.

use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Kwargs, Serde, Value};
use minijinja::{Environment, ErrorKind};
use serde::{Deserialize, Serialize};

use super::GenerateError;

/// One turn of a conversation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// `system`, `user` or `assistant`, or whatever else the template knows.
    pub role: String,
    /// What is said.
    pub content: String,
}

impl Message {
    /// A turn of this role.
    pub fn new(role: &str, content: impl Into<String>) -> Message {
        Message { role: role.to_string(), content: content.into() }
    }
}

/// The marks that templates write around messages.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TemplateMarks {
    /// Text of the token that begins a text.
    pub bos_token: String,
    /// Text of the token that ends one.
    pub eos_token: String,
}

/// A template that parses.
pub struct ChatTemplate {
    environment: Environment<'static>,
    marks: TemplateMarks,
}

/// Name of the only template.
const NAME: &str = "chat template";

impl ChatTemplate {
    /// Parses a template.
    pub fn new(source: &str, marks: TemplateMarks) -> Result<ChatTemplate, GenerateError> {
        let mut environment = Environment::new();
        environment.set_syntax(
            SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build().map_err(refuse)?,
        );
        environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        environment.add_filter("tojson", to_json);
        environment.add_function("raise_exception", raise_exception);
        environment.add_function("strftime_now", strftime_now);
        environment.set_fuel(Some(FUEL));
        environment.add_template_owned(NAME, without_generation_marks(source)).map_err(refuse)?;
        Ok(ChatTemplate { environment, marks })
    }

    /// The text of a conversation; with `answer` the beginning of the assistant's next turn, too.
    pub fn render(&self, messages: &[Message], answer: bool) -> Result<String, GenerateError> {
        let template = self.environment.get_template(NAME).map_err(refuse)?;
        let context = minijinja::context! {
            messages => Value::from(Serde(messages)),
            add_generation_prompt => answer,
            bos_token => self.marks.bos_token.clone(),
            eos_token => self.marks.eos_token.clone(),
        };
        template.render(context).map_err(refuse)
    }
}

impl std::fmt::Debug for ChatTemplate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ChatTemplate({:?})", self.marks)
    }
}

/// Instructions that one rendering may take: a template comes with a model file, and one that runs forever must not hang.
const FUEL: u64 = 50_000_000;

fn refuse(error: minijinja::Error) -> GenerateError {
    let mut reason = error.detail().map_or_else(|| error.kind().to_string(), str::to_string);
    if error.kind() != ErrorKind::InvalidOperation && error.detail().is_some() {
        reason = format!("{}: {reason}", error.kind());
    }
    GenerateError::Template { line: error.line(), reason }
}

/// `transformers` lets templates mark what the assistant says, for training; here the marks mean nothing.
fn without_generation_marks(source: &str) -> String {
    let mut result = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(start) = rest.find("{%") {
        let Some(length) = rest[start..].find("%}") else { break };
        let block = &rest[start + 2..start + length];
        let inner = block.trim_start_matches(['-', '+']).trim_end_matches(['-', '+']).trim();
        result.push_str(&rest[..start + 2]);
        match inner {
            "generation" => result.push_str(&block.replacen("generation", "if true", 1)),
            "endgeneration" => result.push_str(&block.replacen("endgeneration", "endif", 1)),
            _ => result.push_str(block),
        }
        rest = &rest[start + length..];
    }
    result.push_str(rest);
    result
}

/// `raise_exception(message)`: the template refuses the conversation.
fn raise_exception(message: String) -> Result<Value, minijinja::Error> {
    Err(minijinja::Error::new(ErrorKind::InvalidOperation, message))
}

/// `strftime_now(format)`: the local time.
fn strftime_now(format: String) -> Result<String, minijinja::Error> {
    let now = jiff::Zoned::now();
    jiff::fmt::strtime::format(&format, &now)
        .map_err(|error| minijinja::Error::new(ErrorKind::InvalidOperation, error.to_string()))
}

/// `value | tojson(indent=none)`, as Python's `json.dumps` with `ensure_ascii=False` writes it.
fn to_json(value: Value, options: Kwargs) -> Result<Value, minijinja::Error> {
    let indent: Option<usize> = options.get("indent")?;
    // Other options order keys and such; the order of the template's value stays.
    let fail = |error: String| minijinja::Error::new(ErrorKind::BadSerialization, error);
    let mut bytes = Vec::new();
    let written = match indent {
        Some(width) => {
            let spaces = " ".repeat(width.min(64));
            let formatter = serde_json::ser::PrettyFormatter::with_indent(spaces.as_bytes());
            value.serialize(&mut serde_json::Serializer::with_formatter(&mut bytes, formatter))
        }
        None => value.serialize(&mut serde_json::Serializer::with_formatter(&mut bytes, PythonFormatter)),
    };
    written.map_err(|error| fail(error.to_string()))?;
    let text = String::from_utf8(bytes).map_err(|error| fail(error.to_string()))?;
    Ok(Value::from_safe_string(text))
}

/// JSON with spaces after commas and colons.
struct PythonFormatter;

impl serde_json::ser::Formatter for PythonFormatter {
    fn begin_array_value<W: ?Sized + std::io::Write>(
        &mut self,
        writer: &mut W,
        first: bool,
    ) -> std::io::Result<()> {
        if first { Ok(()) } else { writer.write_all(b", ") }
    }

    fn begin_object_key<W: ?Sized + std::io::Write>(
        &mut self,
        writer: &mut W,
        first: bool,
    ) -> std::io::Result<()> {
        if first { Ok(()) } else { writer.write_all(b", ") }
    }

    fn begin_object_value<W: ?Sized + std::io::Write>(&mut self, writer: &mut W) -> std::io::Result<()> {
        writer.write_all(b": ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn render(source: &str, messages: &[Message]) -> Result<String, GenerateError> {
        let marks = TemplateMarks { bos_token: "<s>".into(), eos_token: "</s>".into() };
        ChatTemplate::new(source, marks)?.render(messages, true)
    }

    fn conversation() -> Vec<Message> {
        vec![Message::new("system", " Be brief. "), Message::new("user", "Hi <b>")]
    }

    #[test]
    fn a_template_in_the_manner_of_chatml() {
        let source = "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\\n' + message['content'] + \
                      '<|im_end|>' + '\\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}\
                      {% endif %}";
        let text = render(source, &conversation()).expect("it renders");
        let expected = "<|im_start|>system\n Be brief. <|im_end|>\n<|im_start|>user\nHi <b><|im_end|>\n\
                        <|im_start|>assistant\n";
        assert_eq!(text, expected);
    }

    #[test]
    fn a_template_in_the_manner_of_llama() {
        let source = r#"{{- bos_token }}
{%- if messages[0]['role'] == 'system' %}
    {%- set system_message = messages[0]['content']|trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set system_message = "" %}
{%- endif %}
{{- "<<SYS>>" + system_message + "<</SYS>>" }}
{%- for message in messages %}
    {%- if not (message.role == 'ipython' or 'tool_calls' in message) %}
        {{- '[' + message['role'].upper() + ']' + message['content'].strip() + eos_token }}
    {%- endif %}
{%- endfor %}"#;
        let text = render(source, &conversation()).expect("it renders");
        assert_eq!(text, "<s><<SYS>>Be brief.<</SYS>>[USER]Hi <b></s>");
    }

    #[test]
    fn marks_for_training_mean_nothing() {
        let source = "{% for m in messages %}\n{%- generation -%}\n{{ m.content }}\n{%- endgeneration -%}\n{% endfor %}";
        assert_eq!(render(source, &conversation()).expect("it renders"), " Be brief. Hi <b>");
    }

    #[test]
    fn json_as_python_writes_it() {
        let text = render("{{ messages | tojson }}", &conversation()).expect("it renders");
        let expected =
            r#"[{"role": "system", "content": " Be brief. "}, {"role": "user", "content": "Hi <b>"}]"#;
        assert_eq!(text, expected);
        let text = render("{{ [1, 'ä'] | tojson(indent=2) }}", &[]).expect("it renders");
        assert_eq!(text, "[\n  1,\n  \"ä\"\n]");
    }

    #[test]
    fn python_methods_loop_controls_and_namespaces() {
        let source = "{%- set ns = namespace(found=false) -%}{%- for m in messages -%}{%- if loop.first -%}{%- continue -%}\
                      {%- endif -%}{%- set ns.found = m.content.split(' ')[0].startswith('Hi') -%}{%- endfor -%}\
                      {{ ns.found }} {{ 'a,b'.replace(',', ';') }} {{ messages | length }}";
        assert_eq!(render(source, &conversation()).expect("it renders").to_lowercase(), "true a;b 2");
    }

    #[test]
    fn the_year_is_a_number() {
        let text = render("{{ strftime_now('%Y') }}", &[]).expect("it renders");
        assert!(text.parse::<u32>().expect("a number") >= 2024);
    }

    #[test]
    fn a_template_that_does_not_parse_names_the_line() {
        let error =
            render("{% for m in messages %}\n{{ m.content }\n{% endfor %}", &[]).expect_err("it is refused");
        assert!(matches!(error, GenerateError::Template { line: Some(2), .. }), "{error}");
    }

    #[test]
    fn a_template_may_refuse_messages() {
        let source = "{{ bos_token }}\n{% if messages[0].role == 'system' %}{{ raise_exception('No system message.') }}{% endif %}";
        let error = render(source, &conversation()).expect_err("it is refused");
        assert_eq!(error.to_string(), "chat template, line 2: No system message.");
    }

    #[test]
    fn a_template_that_runs_on_is_stopped() {
        let source = "{% for a in range(9999) %}{% for b in range(9999) %}{% for c in range(9999) %}{% endfor %}{% endfor %}{% endfor %}";
        let error = render(source, &[]).expect_err("it is stopped");
        assert!(matches!(error, GenerateError::Template { .. }), "{error}");
    }
}
