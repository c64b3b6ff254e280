//! flattenSpec: columns out of the depth of a record.

use serde_json::{Map, Value};

use crate::json_path::JsonPath;
use crate::spec::{SpecError, error, flag, text};

/// A checked flattenSpec.
#[derive(Debug, Clone)]
pub(crate) struct Flatten {
    fields: Vec<(String, Expression)>,
    /// Fields of the record are columns as well, when columns are looked for.
    pub discovery: bool,
}

impl Default for Flatten {
    fn default() -> Flatten {
        Flatten {
            fields: Vec::new(),
            discovery: true,
        }
    }
}

/// Where the value of a column is.
#[derive(Debug, Clone)]
pub(crate) enum Expression {
    /// A field of the record.
    Root(String),
    Path(JsonPath),
    /// Fields of objects within each other.
    Tree(Vec<String>),
}

/// Which kinds of fields a format has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Paths {
    Json,
    /// Binary formats: no jq.
    PathOnly,
}

impl Flatten {
    pub(crate) fn parse(spec: Option<&Value>, paths: Paths) -> Result<Flatten, SpecError> {
        let map = match spec {
            None | Some(Value::Null) => return Ok(Flatten::default()),
            Some(Value::Object(map)) => map,
            Some(_) => return Err(error("field [flattenSpec] of the input format must be an object")),
        };
        let items = match map.get("fields") {
            None | Some(Value::Null) => &[][..],
            Some(Value::Array(items)) => items,
            Some(_) => return Err(error("field [fields] of flattenSpec must be a list")),
        };
        let mut fields: Vec<(String, Expression)> = Vec::with_capacity(items.len());
        for item in items {
            let (name, expression) = field(item, paths)?;
            if fields.iter().any(|(other, _)| *other == name) {
                return Err(error(format!(
                    "flattenSpec has the field [{name}] twice; give each its own name"
                )));
            }
            fields.push((name, expression));
        }
        Ok(Flatten {
            fields,
            // A column that is declared is looked for in any case.
            discovery: flag(map, "useFieldDiscovery")?.unwrap_or(true),
        })
    }

    /// Names of its fields.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.fields.iter().map(|(name, _)| name.as_str())
    }

    /// Where a column is: as the spec says, or the field of that name.
    pub(crate) fn column(&self, name: &str) -> Expression {
        let field = self.fields.iter().find(|(field, _)| field == name);
        field.map_or_else(
            || Expression::Root(name.to_owned()),
            |(_, expression)| expression.clone(),
        )
    }
}

fn field(item: &Value, paths: Paths) -> Result<(String, Expression), SpecError> {
    let map = match item {
        Value::String(name) => return Ok((name.clone(), Expression::Root(name.clone()))),
        Value::Object(map) => map,
        _ => return Err(error("a field of flattenSpec must be a name or an object")),
    };
    let name = text(map, "name")?.ok_or_else(|| error("a field of flattenSpec lacks [name]"))?;
    let expression = expression(map, &name, paths)
        .map_err(|why| error(format!("field [{name}] of flattenSpec: {why}")))?;
    Ok((name, expression))
}

fn expression(map: &Map<String, Value>, name: &str, paths: Paths) -> Result<Expression, String> {
    let text = |key: &str| match map.get(key) {
        Some(Value::String(text)) => Ok(Some(text.clone())),
        None | Some(Value::Null) => Ok(None),
        Some(_) => Err(format!("[{key}] must be a string")),
    };
    let kind = text("type")?.unwrap_or_else(|| "root".to_owned());
    let expr = text("expr")?;
    match kind.to_ascii_lowercase().as_str() {
        "root" => Ok(Expression::Root(expr.unwrap_or_else(|| name.to_owned()))),
        "path" => {
            let expr = expr.ok_or("type [path] needs [expr]")?;
            JsonPath::parse(&expr).map(Expression::Path)
        }
        "jq" if paths == Paths::PathOnly => Err("type [jq] is for json only; use path".to_owned()),
        "jq" => {
            let expr = expr.ok_or("type [jq] needs [expr]")?;
            jq_path(&expr).map(Expression::Path)
        }
        "tree" => match map.get("nodes") {
            Some(Value::Array(nodes)) if !nodes.is_empty() => nodes
                .iter()
                .map(|node| node.as_str().map(str::to_owned))
                .collect::<Option<Vec<_>>>()
                .map(Expression::Tree)
                .ok_or_else(|| "[nodes] must be a list of strings".to_owned()),
            _ => Err("type [tree] needs [nodes], a list of strings".to_owned()),
        },
        other => Err(format!("unknown type [{other}]; use root, path, jq or tree")),
    }
}

/// jq as far as it walks down: `.a.b[0]`, `.["a b"]`, `.a | .b`, `.a?`. This is a path.
fn jq_path(expr: &str) -> Result<JsonPath, String> {
    let refused = || {
        format!(
            "jq [{expr}] does more than walk down (.a.b[0]); use type path, or JSON functions in the statement"
        )
    };
    let mut path = "$".to_owned();
    for part in expr.split('|').map(str::trim) {
        if !part.starts_with('.') || part.contains("..") {
            return Err(refused());
        }
        let steps = part.replace(".[", "[").replace('?', "");
        // A lone dot is the value itself.
        let steps = if steps == "." { "" } else { steps.as_str() };
        let simple = |c: char| c.is_alphanumeric() || "_.[]\"-".contains(c) || c == ' ';
        if steps.contains("[]") || !steps.chars().all(simple) {
            return Err(refused());
        }
        path.push_str(steps);
    }
    JsonPath::parse(&path).map_err(|_| refused())
}

impl Expression {
    /// The value in a record; none if there is none.
    pub(crate) fn evaluate(&self, record: &Value) -> Option<Value> {
        match self {
            Expression::Root(name) => record.get(name).cloned(),
            Expression::Path(path) => path.evaluate(record),
            Expression::Tree(nodes) => nodes
                .iter()
                .try_fold(record, |value, node| value.as_object()?.get(node))
                .cloned(),
        }
    }

    /// The one field of the record that it needs; none if it may need others.
    pub(crate) fn first_field(&self) -> Option<&str> {
        match self {
            Expression::Root(name) => Some(name),
            Expression::Path(path) => path.first_field(),
            Expression::Tree(nodes) => nodes.first().map(String::as_str),
        }
    }
}
