//! Go's text/template with the functions Docker adds, for `--format`.
//!
//! The engine is gotmpl; this file turns JSON into its values and supplies
//! Docker's functions (docker/cli, `templates` package, as documented in "Format
//! command and log output"). One thing the engine cannot do is call a method: the
//! `.Label "key"` of `docker ps` becomes `label . "key"` before parsing, and looks
//! the key up in the row's `LabelMap`.

use std::collections::BTreeMap;
use std::sync::Arc;

use gotmpl::{MissingKey, Template, TemplateError, Value};

/// Renders one template over one JSON document.
///
/// # Errors
/// The parser's or the executor's message, one line, as Go words it where the engine does.
pub fn render(template: &str, data: &str) -> Result<String, String> {
    let json: serde_json::Value = serde_json::from_str(data).map_err(|error| error.to_string())?;
    let source = with_methods_as_functions(template);
    with_docker_functions(Template::new(""))
        .missing_key(MissingKey::Error)
        .parse(&source)
        .map_err(|error| format!("template parsing error: {error}"))?
        .execute_to_string(&value(&json))
        .map_err(|error| format!("template: {error}"))
}

fn with_docker_functions(template: Template) -> Template {
    template
        .func("json", |args| Ok(Value::String(json_text(first(args)?).into())))
        .func("split", |args| {
            let (text, separator) = (text(args, 0)?, text(args, 1)?);
            Ok(Value::List(text.split(separator.as_str()).map(|part| Value::String(part.into())).collect()))
        })
        .func("join", |args| {
            let Value::List(items) = first(args)? else {
                return Err(TemplateError::Exec("join: want a list".into()));
            };
            let parts: Vec<String> = items.iter().map(ToString::to_string).collect();
            Ok(Value::String(parts.join(&text(args, 1)?).into()))
        })
        .func("lower", |args| Ok(Value::String(text(args, 0)?.to_lowercase().into())))
        .func("upper", |args| Ok(Value::String(text(args, 0)?.to_uppercase().into())))
        .func("title", |args| Ok(Value::String(title(&text(args, 0)?).into())))
        .func("pad", |args| {
            let pad = |n| " ".repeat(usize::try_from(n).unwrap_or(0).min(4096));
            let (text, before, after) = (text(args, 0)?, number(args, 1)?, number(args, 2)?);
            Ok(Value::String(if text.is_empty() { text } else { pad(before) + &text + &pad(after) }.into()))
        })
        .func("truncate", |args| {
            let (text, length) = (text(args, 0)?, usize::try_from(number(args, 1)?).unwrap_or(0));
            Ok(Value::String(text.chars().take(length).collect::<String>().into()))
        })
        .func("label", |args| {
            let key = text(args, 1)?;
            let label = first(args)?.field("LabelMap").and_then(|labels| labels.field(&key));
            Ok(label.cloned().unwrap_or_else(|| Value::String("".into())))
        })
}

fn first(args: &[Value]) -> Result<&Value, TemplateError> {
    args.first().ok_or_else(|| TemplateError::Exec("wrong number of args: want at least 1 got 0".into()))
}

fn text(args: &[Value], index: usize) -> Result<String, TemplateError> {
    args.get(index).map(ToString::to_string).ok_or_else(|| {
        TemplateError::Exec(format!("wrong number of args: want {} got {}", index + 1, args.len()))
    })
}

fn number(args: &[Value], index: usize) -> Result<i64, TemplateError> {
    args.get(index)
        .and_then(Value::as_int)
        .ok_or_else(|| TemplateError::Exec(format!("argument {} is not a number", index + 1)))
}

/// Upper-cases the first letter of each word, as Go's `strings.Title` does.
fn title(text: &str) -> String {
    let mut at_start = true;
    text.chars()
        .flat_map(|c| {
            let upper = at_start && c.is_alphabetic();
            at_start = !(c.is_alphanumeric() || c == '_' || c == '\'');
            if upper {
                c.to_uppercase().collect::<Vec<_>>()
            } else {
                vec![c]
            }
        })
        .collect()
}

/// `.Label "x"` inside an action becomes `label $ "x"`: the row is the root, whatever the dot has become.
fn with_methods_as_functions(template: &str) -> String {
    let mut out = String::with_capacity(template.len());
    let mut rest = template;
    while let Some(open) = rest.find("{{") {
        let (before, action) = rest.split_at(open);
        out.push_str(before);
        let end = action.find("}}").map_or(action.len(), |at| at + 2);
        out.push_str(&action[..end].replace(".Label \"", "label $ \"").replace(".Label `", "label $ `"));
        rest = &action[end..];
    }
    out + rest
}

fn value(json: &serde_json::Value) -> Value {
    use serde_json::Value as Json;
    match json {
        Json::Null => Value::Nil,
        Json::Bool(flag) => Value::Bool(*flag),
        Json::Number(n) => match (n.as_i64(), n.as_u64()) {
            (Some(int), _) => Value::Int(int),
            (None, Some(uint)) => Value::Uint(uint),
            (None, None) => Value::Float(n.as_f64().unwrap_or(f64::NAN)),
        },
        Json::String(text) => Value::String(text.as_str().into()),
        Json::Array(items) => Value::List(items.iter().map(value).collect()),
        Json::Object(map) => {
            let map: BTreeMap<Arc<str>, Value> =
                map.iter().map(|(k, v)| (k.as_str().into(), value(v))).collect();
            Value::Map(Arc::new(map))
        }
    }
}

fn json_text(value: &Value) -> String {
    to_json(value).to_string()
}

fn to_json(value: &Value) -> serde_json::Value {
    use serde_json::Value as Json;
    match value {
        Value::Bool(flag) => Json::Bool(*flag),
        Value::Int(n) => (*n).into(),
        Value::Uint(n) => (*n).into(),
        Value::Float(n) => (*n).into(),
        Value::String(text) => Json::String(text.to_string()),
        Value::List(items) => Json::Array(items.iter().map(to_json).collect()),
        Value::Map(map) => Json::Object(
            map.iter()
                .filter(|(k, _)| &***k != "LabelMap")
                .map(|(k, v)| (k.to_string(), to_json(v)))
                .collect(),
        ),
        _ => Json::Null,
    }
}
