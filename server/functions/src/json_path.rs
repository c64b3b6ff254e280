//! Paths into JSON: `$`, `.name`, `['name']`, `[n]`.

use serde_json::Value;

/// A step of a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Step {
    Field(String),
    /// From the end when negative.
    Element(i64),
}

/// Reads a path; a reason if it is none.
pub(crate) fn parse(path: &str) -> Result<Vec<Step>, String> {
    let wrong = |why: &str| Err(format!("JSONPath [{path}] is invalid, {why}"));
    if path.is_empty() {
        return Ok(Vec::new());
    }
    let Some(mut rest) = path.strip_prefix('$') else {
        return wrong("it must start with '$'");
    };
    let mut steps = Vec::new();
    while !rest.is_empty() {
        if let Some(after) = rest.strip_prefix('.') {
            let end = after.find(['.', '[']).unwrap_or(after.len());
            if end == 0 {
                if after.is_empty() && steps.is_empty() {
                    return Ok(steps);
                }
                return wrong("a name must follow '.'");
            }
            steps.push(Step::Field(after[..end].to_owned()));
            rest = &after[end..];
        } else if let Some(after) = rest.strip_prefix("['") {
            let Some(end) = after.find("']") else {
                return wrong("unterminated single-quote (')");
            };
            steps.push(Step::Field(after[..end].replace("\\'", "'")));
            rest = &after[end + 2..];
        } else if let Some(after) = rest.strip_prefix('[') {
            let Some(end) = after.find(']') else {
                return wrong("unterminated '['");
            };
            let Ok(index) = after[..end].parse() else {
                return wrong(&format!(
                    "array specifier [{}] should be a number, it was not. Use ' if this value was meant to be a field name",
                    &after[..end]
                ));
            };
            steps.push(Step::Element(index));
            rest = &after[end + 1..];
        } else {
            return wrong("path parts must be separated with '.'");
        }
    }
    Ok(steps)
}

/// What is at a path.
pub(crate) fn follow<'v>(value: &'v Value, steps: &[Step]) -> Option<&'v Value> {
    steps.iter().try_fold(value, |value, step| match (value, step) {
        (Value::Object(map), Step::Field(name)) => map.get(name),
        (Value::Array(items), Step::Element(index)) => {
            let index = if *index < 0 {
                index + items.len() as i64
            } else {
                *index
            };
            items.get(usize::try_from(index).ok()?)
        }
        _ => None,
    })
}

/// Paths of all leaves; an array of primitive values is one leaf.
pub(crate) fn leaves(value: &Value, path: &mut String, paths: &mut Vec<String>) {
    let length = path.len();
    match value {
        Value::Object(map) => {
            for (name, value) in map {
                let quoted = name.is_empty() || name.contains(['.', '\'', '"', '[', ']']);
                if quoted {
                    path.push_str("['");
                    path.push_str(name);
                    path.push_str("']");
                } else {
                    path.push('.');
                    path.push_str(name);
                }
                leaves(value, path, paths);
                path.truncate(length);
            }
        }
        Value::Array(items) if items.iter().any(|item| item.is_object() || item.is_array()) => {
            for (index, item) in items.iter().enumerate() {
                path.push_str(&format!("[{index}]"));
                leaves(item, path, paths);
                path.truncate(length);
            }
        }
        _ => paths.push(path.clone()),
    }
}
