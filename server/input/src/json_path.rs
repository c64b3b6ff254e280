//! JSONPath as flattenSpec writes it (the dialect of Jayway): steps, filters, and a function at the end.

use std::cmp::Ordering;

use regex::Regex;
use serde_json::Value;

/// A path that can be evaluated.
#[derive(Debug, Clone)]
pub(crate) struct JsonPath {
    steps: Vec<Step>,
    function: Option<Function>,
}

#[derive(Debug, Clone)]
enum Step {
    Names(Vec<String>),
    All,
    Elements(Vec<i64>),
    Slice(Option<i64>, Option<i64>),
    /// The value itself and everything below it.
    Deep,
    Filter(Condition),
}

#[derive(Debug, Clone)]
enum Function {
    Min,
    Max,
    Avg,
    StdDev,
    Sum,
    Length,
    Keys,
    First,
    Last,
    Concat(Vec<Operand>),
    Append(Vec<Operand>),
}

#[derive(Debug, Clone)]
enum Condition {
    Any(Vec<Condition>),
    All(Vec<Condition>),
    Not(Box<Condition>),
    Exists(Operand),
    Compare(Operand, Comparison, Operand),
    Matches(Operand, Regex),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Comparison {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    In,
    NotIn,
}

#[derive(Debug, Clone)]
enum Operand {
    Literal(Value),
    /// From the value that the filter looks at.
    Here(JsonPath),
    /// From the record.
    Root(JsonPath),
}

impl JsonPath {
    /// Reads a path that starts with `$`; says why it is none.
    pub(crate) fn parse(text: &str) -> Result<JsonPath, String> {
        let mut reader = Reader { rest: text.trim() };
        let parsed = match reader.take("$") {
            true => reader.path(),
            // Jayway takes a path without the root as well.
            false => {
                reader.rest = text.trim();
                let dotted = format!(".{}", reader.rest);
                let mut dotted = Reader { rest: &dotted };
                let path = dotted.path();
                reader.rest = "";
                path.and_then(|path| dotted.end().map(|()| path))
            }
        };
        parsed
            .and_then(|path| reader.end().map(|()| path))
            .map_err(|why| format!("path [{text}] is invalid: {why}"))
    }

    /// Name of the field of the record with which every result begins; none if that depends on the record.
    pub(crate) fn first_field(&self) -> Option<&str> {
        let arguments = matches!(self.function, Some(Function::Concat(_) | Function::Append(_)));
        match self.steps.first() {
            Some(Step::Names(names)) if !arguments && self.steps.iter().all(Step::is_local) => {
                match names.as_slice() {
                    [name] => Some(name),
                    _ => None,
                }
            }
            _ => None,
        }
    }

    /// What is there. Several results of an open path (`..`, `*`, a filter, a slice) are a list.
    pub(crate) fn evaluate(&self, record: &Value) -> Option<Value> {
        self.evaluate_at(record, record)
    }

    fn evaluate_at(&self, here: &Value, record: &Value) -> Option<Value> {
        let mut nodes = vec![here];
        for step in &self.steps {
            let mut next = Vec::new();
            for node in nodes {
                step.follow(node, record, &mut next);
            }
            nodes = next;
        }
        let found = if self.is_open() {
            Some(Value::Array(nodes.into_iter().cloned().collect()))
        } else {
            nodes.first().copied().cloned()
        };
        match &self.function {
            None => found,
            Some(function) => function.apply(found, here, record),
        }
    }

    fn is_open(&self) -> bool {
        self.steps.iter().any(|step| match step {
            Step::Names(names) => names.len() > 1,
            Step::Elements(indexes) => indexes.len() > 1,
            _ => true,
        })
    }
}

impl Step {
    /// It does not look at the record as a whole.
    fn is_local(&self) -> bool {
        !matches!(self, Step::Filter(_))
    }

    fn follow<'v>(&self, node: &'v Value, record: &Value, out: &mut Vec<&'v Value>) {
        match (self, node) {
            (Step::Names(names), Value::Object(map)) => {
                out.extend(names.iter().filter_map(|name| map.get(name)));
            }
            (Step::All, Value::Object(map)) => out.extend(map.values()),
            (Step::All, Value::Array(items)) => out.extend(items),
            (Step::Elements(indexes), Value::Array(items)) => {
                let elements = indexes
                    .iter()
                    .filter_map(|index| items.get(place(*index, items.len())?));
                out.extend(elements);
            }
            (Step::Slice(start, end), Value::Array(items)) => {
                let bound = |index: i64| {
                    let index = if index < 0 {
                        index + items.len() as i64
                    } else {
                        index
                    };
                    index.clamp(0, items.len() as i64) as usize
                };
                let from = start.map_or(0, bound);
                let to = end.map_or(items.len(), bound);
                out.extend(items.get(from..to.max(from)).unwrap_or_default());
            }
            (Step::Deep, _) => below(node, out),
            (Step::Filter(condition), Value::Array(items)) => {
                out.extend(items.iter().filter(|item| condition.holds(item, record)));
            }
            (Step::Filter(condition), Value::Object(_)) if condition.holds(node, record) => out.push(node),
            _ => {}
        }
    }
}

fn place(index: i64, length: usize) -> Option<usize> {
    let index = if index < 0 { index + length as i64 } else { index };
    usize::try_from(index).ok()
}

fn below<'v>(node: &'v Value, out: &mut Vec<&'v Value>) {
    out.push(node);
    match node {
        Value::Object(map) => map.values().for_each(|value| below(value, out)),
        Value::Array(items) => items.iter().for_each(|value| below(value, out)),
        _ => {}
    }
}

impl Function {
    fn apply(&self, found: Option<Value>, here: &Value, record: &Value) -> Option<Value> {
        let values = |operands: &[Operand]| -> Vec<Value> {
            let values = operands.iter().filter_map(|operand| operand.value(here, record));
            values.collect()
        };
        match self {
            Function::Min | Function::Max | Function::Avg | Function::StdDev | Function::Sum => {
                let Some(Value::Array(items)) = found else {
                    return None;
                };
                let numbers: Vec<f64> = items.iter().filter_map(Value::as_f64).collect();
                self.number(&numbers).map(Value::from)
            }
            Function::Length => match found? {
                Value::Array(items) => Some(Value::from(items.len())),
                Value::Object(map) => Some(Value::from(map.len())),
                _ => None,
            },
            Function::Keys => match found? {
                Value::Object(map) => Some(map.keys().map(|key| Value::from(key.as_str())).collect()),
                _ => None,
            },
            Function::First => found?.as_array()?.first().cloned(),
            Function::Last => found?.as_array()?.last().cloned(),
            Function::Concat(operands) => {
                let mut text = String::new();
                if let Some(Value::Array(items)) = &found {
                    items
                        .iter()
                        .filter_map(Value::as_str)
                        .for_each(|item| text.push_str(item));
                }
                for value in values(operands) {
                    match value {
                        Value::String(item) => text.push_str(&item),
                        Value::Array(items) => items
                            .iter()
                            .filter_map(Value::as_str)
                            .for_each(|item| text.push_str(item)),
                        Value::Null => {}
                        other => text.push_str(&other.to_string()),
                    }
                }
                Some(Value::String(text))
            }
            Function::Append(operands) => match found? {
                Value::Array(mut items) => {
                    items.extend(values(operands));
                    Some(Value::Array(items))
                }
                other => Some(other),
            },
        }
    }

    fn number(&self, numbers: &[f64]) -> Option<f64> {
        if numbers.is_empty() {
            return None;
        }
        let (sum, count) = (numbers.iter().sum::<f64>(), numbers.len() as f64);
        Some(match self {
            Function::Min => numbers.iter().copied().fold(f64::INFINITY, f64::min),
            Function::Max => numbers.iter().copied().fold(f64::NEG_INFINITY, f64::max),
            Function::Avg => sum / count,
            Function::StdDev => {
                let squares: f64 = numbers.iter().map(|number| number * number).sum();
                (squares / count - sum * sum / count / count).sqrt()
            }
            _ => sum,
        })
    }
}

impl Operand {
    fn value(&self, here: &Value, record: &Value) -> Option<Value> {
        match self {
            Operand::Literal(value) => Some(value.clone()),
            Operand::Here(path) => path.evaluate_at(here, record),
            Operand::Root(path) => path.evaluate(record),
        }
    }
}

impl Condition {
    fn holds(&self, here: &Value, record: &Value) -> bool {
        match self {
            Condition::Any(parts) => parts.iter().any(|part| part.holds(here, record)),
            Condition::All(parts) => parts.iter().all(|part| part.holds(here, record)),
            Condition::Not(inner) => !inner.holds(here, record),
            Condition::Exists(operand) => match operand.value(here, record) {
                // An open path exists when it finds something.
                Some(Value::Array(items)) if operand.is_open() => !items.is_empty(),
                found => found.is_some(),
            },
            Condition::Matches(operand, pattern) => match operand.value(here, record) {
                Some(Value::String(text)) => pattern.is_match(&text),
                _ => false,
            },
            Condition::Compare(left, comparison, right) => {
                let (left, right) = (left.value(here, record), right.value(here, record));
                comparison.holds(left.as_ref(), right.as_ref())
            }
        }
    }
}

impl Operand {
    fn is_open(&self) -> bool {
        match self {
            Operand::Literal(_) => false,
            Operand::Here(path) | Operand::Root(path) => path.is_open(),
        }
    }
}

impl Comparison {
    fn holds(self, left: Option<&Value>, right: Option<&Value>) -> bool {
        let order = match (left, right) {
            (Some(left), Some(right)) => compare(left, right),
            (None, None) => Some(Ordering::Equal),
            _ => None,
        };
        match self {
            Comparison::Equal => order == Some(Ordering::Equal),
            Comparison::NotEqual => order != Some(Ordering::Equal),
            Comparison::Less => order == Some(Ordering::Less),
            Comparison::LessOrEqual => matches!(order, Some(Ordering::Less | Ordering::Equal)),
            Comparison::Greater => order == Some(Ordering::Greater),
            Comparison::GreaterOrEqual => matches!(order, Some(Ordering::Greater | Ordering::Equal)),
            Comparison::In | Comparison::NotIn => {
                let (Some(left), Some(Value::Array(items))) = (left, right) else {
                    return self == Comparison::NotIn;
                };
                let found = items
                    .iter()
                    .any(|item| compare(left, item) == Some(Ordering::Equal));
                found == (self == Comparison::In)
            }
        }
    }
}

/// Order of two values of a kind; none if they are of different kinds.
fn compare(left: &Value, right: &Value) -> Option<Ordering> {
    match (left, right) {
        (Value::Number(left), Value::Number(right)) => match (left.as_i64(), right.as_i64()) {
            (Some(left), Some(right)) => Some(left.cmp(&right)),
            _ => left.as_f64()?.partial_cmp(&right.as_f64()?),
        },
        (Value::String(left), Value::String(right)) => Some(left.cmp(right)),
        (Value::Bool(left), Value::Bool(right)) => Some(left.cmp(right)),
        (left, right) => (left == right).then_some(Ordering::Equal),
    }
}

struct Reader<'t> {
    rest: &'t str,
}

impl Reader<'_> {
    fn space(&mut self) {
        self.rest = self.rest.trim_start();
    }

    fn take(&mut self, token: &str) -> bool {
        match self.rest.strip_prefix(token) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    fn expect(&mut self, token: &str) -> Result<(), String> {
        self.space();
        match self.take(token) {
            true => Ok(()),
            false => Err(format!("expected [{token}] before [{}]", self.rest)),
        }
    }

    fn end(&mut self) -> Result<(), String> {
        self.space();
        match self.rest.is_empty() {
            true => Ok(()),
            false => Err(format!("cannot read [{}]", self.rest)),
        }
    }

    /// What follows the root.
    fn path(&mut self) -> Result<JsonPath, String> {
        let mut steps = Vec::new();
        loop {
            if self.take("..") {
                steps.push(Step::Deep);
                if self.rest.starts_with('[') {
                    continue;
                }
            } else if !self.take(".") {
                if self.take("[") {
                    steps.push(self.bracket()?);
                    continue;
                }
                return Ok(JsonPath {
                    steps,
                    function: None,
                });
            }
            if self.take("*") {
                steps.push(Step::All);
                continue;
            }
            let name = self.name()?;
            if self.take("(") {
                let function = Some(self.function(&name)?);
                return Ok(JsonPath { steps, function });
            }
            steps.push(Step::Names(vec![name]));
        }
    }

    fn name(&mut self) -> Result<String, String> {
        let end = self
            .rest
            .find(|c: char| ".[]()=<>!&|,".contains(c) || c.is_whitespace())
            .unwrap_or(self.rest.len());
        if end == 0 {
            return Err(format!("a name must stand before [{}]", self.rest));
        }
        let (name, rest) = self.rest.split_at(end);
        self.rest = rest;
        Ok(name.to_owned())
    }

    fn bracket(&mut self) -> Result<Step, String> {
        self.space();
        if self.take("*") {
            self.expect("]")?;
            return Ok(Step::All);
        }
        if self.take("?") {
            self.expect("(")?;
            let condition = self.any()?;
            self.expect(")")?;
            self.expect("]")?;
            return Ok(Step::Filter(condition));
        }
        if self.rest.starts_with(['\'', '"']) {
            let mut names = vec![self.quoted()?];
            self.space();
            while self.take(",") {
                self.space();
                names.push(self.quoted()?);
                self.space();
            }
            self.expect("]")?;
            return Ok(Step::Names(names));
        }
        let end = self.rest.find(']').ok_or("a [ is not closed")?;
        let (inside, rest) = self.rest.split_at(end);
        self.rest = &rest[1..];
        let number = |text: &str| -> Result<i64, String> {
            text.trim()
                .parse()
                .map_err(|_| format!("[{inside}] is no position in a list"))
        };
        if let Some((start, end)) = inside.split_once(':') {
            let bound = |text: &str| match text.trim() {
                "" => Ok(None),
                text => number(text).map(Some),
            };
            return Ok(Step::Slice(bound(start)?, bound(end)?));
        }
        let indexes = inside.split(',').map(number).collect::<Result<Vec<_>, _>>()?;
        Ok(Step::Elements(indexes))
    }

    fn quoted(&mut self) -> Result<String, String> {
        let mut chars = self.rest.char_indices();
        let quote = match chars.next() {
            Some((_, quote @ ('\'' | '"'))) => quote,
            _ => return Err(format!("expected a quoted name before [{}]", self.rest)),
        };
        let mut text = String::new();
        let mut escaped = false;
        for (at, c) in chars {
            if escaped {
                text.push(c);
                escaped = false;
            } else if c == '\\' {
                escaped = true;
            } else if c == quote {
                self.rest = &self.rest[at + c.len_utf8()..];
                return Ok(text);
            } else {
                text.push(c);
            }
        }
        Err("a quote is not closed".to_owned())
    }

    fn function(&mut self, name: &str) -> Result<Function, String> {
        let mut operands = Vec::new();
        self.space();
        while !self.take(")") {
            operands.push(self.operand()?);
            self.space();
            if !self.take(",") && !self.rest.starts_with(')') {
                return Err(format!("expected [)] before [{}]", self.rest));
            }
            self.space();
        }
        Ok(match name {
            "min" => Function::Min,
            "max" => Function::Max,
            "avg" => Function::Avg,
            "stddev" => Function::StdDev,
            "sum" => Function::Sum,
            "length" | "size" => Function::Length,
            "keys" => Function::Keys,
            "first" => Function::First,
            "last" => Function::Last,
            "concat" => Function::Concat(operands),
            "append" => Function::Append(operands),
            other => return Err(format!("there is no function [{other}]")),
        })
    }

    fn any(&mut self) -> Result<Condition, String> {
        let mut parts = vec![self.all()?];
        self.space();
        while self.take("||") {
            parts.push(self.all()?);
            self.space();
        }
        Ok(match parts.len() {
            1 => parts.remove(0),
            _ => Condition::Any(parts),
        })
    }

    fn all(&mut self) -> Result<Condition, String> {
        let mut parts = vec![self.condition()?];
        self.space();
        while self.take("&&") {
            parts.push(self.condition()?);
            self.space();
        }
        Ok(match parts.len() {
            1 => parts.remove(0),
            _ => Condition::All(parts),
        })
    }

    fn condition(&mut self) -> Result<Condition, String> {
        self.space();
        if self.take("!") {
            return Ok(Condition::Not(Box::new(self.condition()?)));
        }
        if self.take("(") {
            let inner = self.any()?;
            self.expect(")")?;
            return Ok(inner);
        }
        let left = self.operand()?;
        self.space();
        if self.take("=~") {
            return Ok(Condition::Matches(left, self.pattern()?));
        }
        let comparisons = [
            ("==", Comparison::Equal),
            ("!=", Comparison::NotEqual),
            ("<=", Comparison::LessOrEqual),
            ("<", Comparison::Less),
            (">=", Comparison::GreaterOrEqual),
            (">", Comparison::Greater),
            ("in ", Comparison::In),
            ("nin ", Comparison::NotIn),
        ];
        for (token, comparison) in comparisons {
            if self.take(token) {
                return Ok(Condition::Compare(left, comparison, self.operand()?));
            }
        }
        Ok(Condition::Exists(left))
    }

    fn operand(&mut self) -> Result<Operand, String> {
        self.space();
        if self.take("@") {
            return self.path().map(Operand::Here);
        }
        if self.take("$") {
            return self.path().map(Operand::Root);
        }
        if self.rest.starts_with(['\'', '"']) {
            return self.quoted().map(|text| Operand::Literal(Value::String(text)));
        }
        if self.take("[") {
            let mut items = Vec::new();
            self.space();
            while !self.take("]") {
                match self.operand()? {
                    Operand::Literal(value) => items.push(value),
                    _ => return Err("a list can hold literals only".to_owned()),
                }
                self.space();
                if !self.take(",") && !self.rest.starts_with(']') {
                    return Err("a [ is not closed".to_owned());
                }
                self.space();
            }
            return Ok(Operand::Literal(Value::Array(items)));
        }
        let end = self
            .rest
            .find(|c: char| "()&|=<>!,]".contains(c) || c.is_whitespace())
            .unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(end);
        let value = serde_json::from_str::<Value>(word)
            .ok()
            .filter(|value| !value.is_object() && !value.is_array())
            .ok_or_else(|| format!("cannot read [{}]", self.rest))?;
        self.rest = rest;
        Ok(Operand::Literal(value))
    }

    /// `/pattern/flags`. The whole text must match.
    fn pattern(&mut self) -> Result<Regex, String> {
        self.expect("/")?;
        let mut end = None;
        let mut escaped = false;
        for (at, c) in self.rest.char_indices() {
            match c {
                _ if escaped => escaped = false,
                '\\' => escaped = true,
                '/' => {
                    end = Some(at);
                    break;
                }
                _ => {}
            }
        }
        let end = end.ok_or("a pattern is not closed")?;
        let (pattern, rest) = self.rest.split_at(end);
        self.rest = &rest[1..];
        let mut flags = String::new();
        while let Some(flag) = self.rest.chars().next().filter(|c| "imsx".contains(*c)) {
            flags.push(flag);
            self.rest = &self.rest[1..];
        }
        let flags = if flags.is_empty() {
            flags
        } else {
            format!("(?{flags})")
        };
        let whole = format!("{flags}^(?:{})$", pattern.replace("\\/", "/"));
        Regex::new(&whole).map_err(|_| format!("cannot use the pattern [{pattern}]"))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn finds_what_jayway_finds() {
        let record = json!({
            "a": {"b": {"c": 7}, "x.y": "dotted", "list": [1, 2, 3.5, -4]},
            "books": [
                {"title": "one", "price": 8.95, "tags": ["a", "b"]},
                {"title": "two", "price": 12, "isbn": "x"},
                {"title": "three", "price": 22.5, "tags": []},
            ],
            "words": ["p", "q"],
            "none": null,
        });
        let cases: &[(&str, Option<Value>)] = &[
            ("$.a.b.c", Some(json!(7))),
            ("$['a']['b'].c", Some(json!(7))),
            ("$.a['x.y']", Some(json!("dotted"))),
            ("$.a.b", Some(json!({"c": 7}))),
            ("$", Some(record.clone())),
            ("a.b.c", Some(json!(7))),
            ("$.missing.b", None),
            ("$.none", Some(json!(null))),
            ("$.a.list[0]", Some(json!(1))),
            ("$.a.list[-1]", Some(json!(-4))),
            ("$.a.list[9]", None),
            ("$.a.list[0,2]", Some(json!([1, 3.5]))),
            ("$.a.list[1:3]", Some(json!([2, 3.5]))),
            ("$.a.list[-2:]", Some(json!([3.5, -4]))),
            ("$.a.list[:1]", Some(json!([1]))),
            ("$.a.list[*]", Some(json!([1, 2, 3.5, -4]))),
            ("$.books[*].title", Some(json!(["one", "two", "three"]))),
            ("$..title", Some(json!(["one", "two", "three"]))),
            ("$..tags[0]", Some(json!(["a"]))),
            ("$.a['x.y','b']", Some(json!(["dotted", {"c": 7}]))),
            ("$.a.b.*", Some(json!([7]))),
            ("$.books[?(@.price < 10)].title", Some(json!(["one"]))),
            ("$.books[?(@.price >= 12 && @.isbn)].title", Some(json!(["two"]))),
            (
                "$.books[?(!(@.isbn) || @.title == 'two')].price",
                Some(json!([8.95, 12, 22.5])),
            ),
            (
                "$.books[?(@.title =~ /T.*/i)].title",
                Some(json!(["two", "three"])),
            ),
            (
                "$.books[?(@.title in ['one', 'three'])].price",
                Some(json!([8.95, 22.5])),
            ),
            (
                "$.books[?(@.price > $.a.b.c)].title",
                Some(json!(["one", "two", "three"])),
            ),
            ("$.a.list.min()", Some(json!(-4.0))),
            ("$.a.list.max()", Some(json!(3.5))),
            ("$.a.list.sum()", Some(json!(2.5))),
            ("$.a.list.avg()", Some(json!(0.625))),
            ("$.books..price.sum()", Some(json!(43.45))),
            ("$.a.list.length()", Some(json!(4))),
            ("$.a.length()", Some(json!(3))),
            ("$.words.min()", None),
            ("$.concat($.words[0], '-', $.a.b.c)", Some(json!("p-7"))),
            ("$.words.concat()", Some(json!("pq"))),
            ("$.words.append('r')", Some(json!(["p", "q", "r"]))),
        ];
        for (path, expected) in cases {
            let found = JsonPath::parse(path).unwrap().evaluate(&record);
            assert_eq!(found, *expected, "{path}");
        }
        let spread = JsonPath::parse("$.a.list.stddev()")
            .unwrap()
            .evaluate(&record)
            .unwrap();
        // Of 1, 2, 3.5 and -4: mean 0.625, mean of squares 8.3125.
        assert!((spread.as_f64().unwrap() - (8.3125_f64 - 0.390_625).sqrt()).abs() < 1e-12);
    }

    #[test]
    fn says_what_is_wrong_with_a_path() {
        for (path, why) in [
            ("$.a[", "not closed"),
            ("$.a[x]", "position"),
            ("$.a.nothing()", "[nothing]"),
            ("$.a[?(@.x ==)]", "cannot read"),
            ("$.", "name"),
            ("$.a['b]", "not closed"),
        ] {
            let error = JsonPath::parse(path).unwrap_err();
            assert!(error.contains(why) && error.contains(path), "{error}");
        }
    }
}
