//! What DataFusion's SQL planner asks for.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, OnceLock};

use arrow::datatypes::{DataType, SchemaRef};
use datafusion::catalog::TableProvider;
use datafusion::common::config::ConfigOptions;
use datafusion::common::{TableReference, plan_datafusion_err, plan_err};
use datafusion::datasource::provider_as_source;
use datafusion::error::Result;
use datafusion::execution::SessionState;
use datafusion::logical_expr::planner::{ContextProvider, ExprPlanner};
use datafusion::logical_expr::{AggregateUDF, HigherOrderUDF, ScalarUDF, TableSource, WindowUDF};

/// Tables of one statement and all functions.
pub(crate) struct Provider<'a> {
    pub state: &'a SessionState,
    /// By schema and name.
    pub tables: HashMap<(String, String), Arc<dyn TableProvider>>,
    /// Ours come first.
    pub planners: Vec<Arc<dyn ExprPlanner>>,
}

/// Schema and name of a reference; "druid" is the default schema.
pub(crate) fn qualified(names: &[String]) -> Option<(String, String)> {
    match names {
        [table] => Some(("druid".to_owned(), table.clone())),
        [schema, table] => Some((schema.clone(), table.clone())),
        [catalog, schema, table] if catalog == "druid" => Some((schema.clone(), table.clone())),
        _ => None,
    }
}

/// Functions of our own, and those that rewrites need.
const INTERNAL: [&str; 1] = ["make_array"];

/// True for what INFORMATION_SCHEMA.ROUTINES lists: DataFusion's other functions have other rules.
fn is_known(name: &str) -> bool {
    static KNOWN: OnceLock<HashSet<String>> = OnceLock::new();
    let known = KNOWN.get_or_init(|| {
        let routines = trilith_functions::routines().into_iter();
        routines
            .map(|routine| routine.name.to_ascii_lowercase())
            .collect()
    });
    let name = name.to_ascii_lowercase();
    name.starts_with("druid_") || INTERNAL.contains(&name.as_str()) || known.contains(&name)
}

impl ContextProvider for Provider<'_> {
    fn get_table_source(&self, name: TableReference) -> Result<Arc<dyn TableSource>> {
        let schema = name.schema().unwrap_or("druid").to_owned();
        match self.tables.get(&(schema, name.table().to_owned())) {
            Some(table) => Ok(provider_as_source(Arc::clone(table))),
            None => plan_err!("Object '{}' not found", name.table()),
        }
    }

    fn get_table_function_source(
        &self,
        name: &str,
        _args: Vec<datafusion::logical_expr::Expr>,
    ) -> Result<Arc<dyn TableSource>> {
        plan_err!("No match found for table function [{name}]")
    }

    fn create_cte_work_table(&self, name: &str, _schema: SchemaRef) -> Result<Arc<dyn TableSource>> {
        Err(plan_datafusion_err!("Recursive WITH is not supported: [{name}]"))
    }

    fn get_expr_planners(&self) -> &[Arc<dyn ExprPlanner>] {
        &self.planners
    }

    fn get_function_meta(&self, name: &str) -> Option<Arc<ScalarUDF>> {
        if !is_known(name) {
            return None;
        }
        self.state
            .scalar_functions()
            .get(&name.to_ascii_lowercase())
            .cloned()
    }

    fn get_higher_order_meta(&self, _name: &str) -> Option<Arc<HigherOrderUDF>> {
        None
    }

    fn get_aggregate_meta(&self, name: &str) -> Option<Arc<AggregateUDF>> {
        if !is_known(name) {
            return None;
        }
        self.state
            .aggregate_functions()
            .get(&name.to_ascii_lowercase())
            .cloned()
    }

    fn get_window_meta(&self, name: &str) -> Option<Arc<WindowUDF>> {
        if !is_known(name) {
            return None;
        }
        self.state
            .window_functions()
            .get(&name.to_ascii_lowercase())
            .cloned()
    }

    fn get_variable_type(&self, _variable_names: &[String]) -> Option<DataType> {
        None
    }

    fn options(&self) -> &ConfigOptions {
        self.state.config_options()
    }

    fn udf_names(&self) -> Vec<String> {
        self.state.scalar_functions().keys().cloned().collect()
    }

    fn higher_order_function_names(&self) -> Vec<String> {
        self.state.higher_order_functions().keys().cloned().collect()
    }

    fn udaf_names(&self) -> Vec<String> {
        self.state.aggregate_functions().keys().cloned().collect()
    }

    fn udwf_names(&self) -> Vec<String> {
        self.state.window_functions().keys().cloned().collect()
    }
}
