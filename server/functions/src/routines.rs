//! What INFORMATION_SCHEMA.ROUTINES lists: every function that a statement can call, from the registry.

use datafusion::logical_expr::ScalarUDFImpl;

use crate::function::Function;

/// A function that a statement can call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Routine {
    /// In upper case.
    pub name: String,
    /// It combines rows.
    pub aggregate: bool,
    /// Its forms, one a line, each in single quotes.
    pub signatures: String,
}

/// Functions of DataFusion that work as Druid's do: name, aggregate, fewest and most arguments.
pub(crate) const BUILT_IN: [(&str, bool, usize, usize); 24] = [
    ("avg", true, 1, 1),
    ("bit_or", true, 1, 1),
    ("bit_xor", true, 1, 1),
    ("count", true, 0, 1),
    ("grouping", true, 1, MANY),
    ("max", true, 1, 1),
    ("min", true, 1, 1),
    ("sum", true, 1, 1),
    ("coalesce", false, 1, MANY),
    ("ifnull", false, 2, 2),
    ("nullif", false, 2, 2),
    ("nvl", false, 2, 2),
    ("cume_dist", false, 0, 0),
    ("dense_rank", false, 0, 0),
    ("first_value", false, 1, 1),
    ("lag", false, 1, 2),
    ("last_value", false, 1, 1),
    ("lead", false, 1, 2),
    ("ntile", false, 1, 1),
    ("percent_rank", false, 0, 0),
    ("rank", false, 0, 0),
    ("row_number", false, 0, 0),
    // Written as functions of their own with the time of the row.
    ("earliest", true, 1, 2),
    ("latest", true, 1, 2),
];

const MANY: usize = usize::MAX;

fn signatures(name: &str, least: usize, most: usize) -> String {
    let form = |count: usize, more: bool| {
        let mut args = vec!["<ANY>"; count];
        if more {
            args.push("...");
        }
        format!("'{name}({})'", args.join(", "))
    };
    if most == MANY {
        return form(least, true);
    }
    let forms: Vec<String> = (least..=most).map(|count| form(count, false)).collect();
    forms.join("\n")
}

/// Every function, by name.
pub fn routines() -> Vec<Routine> {
    let mut routines: Vec<Routine> = Vec::new();
    let mut add = |name: &str, aggregate: bool, least: usize, most: usize| {
        // Names of our own are no part of the language.
        if name.starts_with("druid_") {
            return;
        }
        let name = name.to_uppercase();
        let signatures = signatures(&name, least, most);
        routines.push(Routine {
            name,
            aggregate,
            signatures,
        });
    };
    for function in crate::all() {
        let (least, most) = function.arguments();
        for name in names(&function) {
            add(&name, false, least, most);
        }
    }
    for aggregate in crate::aggregate::own() {
        let (least, most) = aggregate.arguments;
        add(aggregate.name, true, least, most);
        for alias in &aggregate.aliases {
            add(alias, true, least, most);
        }
    }
    for (name, aggregate, least, most) in BUILT_IN {
        add(name, aggregate, least, most);
    }
    routines.sort_by(|a, b| a.name.cmp(&b.name));
    routines.dedup_by(|a, b| a.name == b.name);
    routines
}

fn names(function: &Function) -> Vec<String> {
    std::iter::once(function.name().to_owned())
        .chain(function.aliases().iter().cloned())
        .collect()
}
