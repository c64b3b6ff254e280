//! What operators of a work order find in their task context.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::TaskContext;
use datafusion::execution::context::SessionContext;
use datafusion::execution::runtime_env::RuntimeEnv;
use datafusion::logical_expr::{AggregateUDF, HigherOrderUDF, ScalarUDF, WindowUDF};
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_optimizer::ensure_coop::EnsureCooperative;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::coop::CooperativeExec;
use datafusion::physical_plan::execution_plan::replace_children_if_necessary;
use datafusion::physical_plan::joins::{CrossJoinExec, HashJoinExec, NestedLoopJoinExec};
use datafusion::physical_plan::union::UnionExec;
use datafusion::prelude::SessionConfig;
use tokio_util::sync::CancellationToken;
use trilith_exchange::{Exchange, FlightPool};
use trilith_input::Policy;
use trilith_proto::fault::Fault;

use super::adaptive;
use super::counters::StageCounters;
use super::paced::PacedExec;
use crate::worker::{MemoryBounds, ParseWarnings};

/// Found by [`super::SourceExec`] as an extension of the session configuration.
pub struct WorkOrderServices {
    /// Stage outputs of this process.
    pub exchange: Arc<Exchange>,
    /// Connections to the exchanges of other processes.
    pub flight_pool: Arc<FlightPool>,
    /// What EXTERN may read.
    pub policy: Arc<Policy>,
    /// Root of the segment files.
    pub segment_directory: PathBuf,
    /// "host:port" of this process's exchange.
    pub own_address: String,
    /// Stops downloads.
    pub cancel: CancellationToken,
    /// Counters of the work order.
    pub counters: Arc<StageCounters>,
    /// Where parse errors go.
    pub warnings: Arc<ParseWarnings>,
    /// How much memory the process may use.
    pub memory: MemoryBounds,
    /// Drop byte 0 from strings instead of failing.
    pub remove_null_bytes: bool,
    /// Largest row in bytes; readers remember larger records for the message of `RowTooLarge`.
    pub max_frame_bytes: u64,
}

struct Functions {
    scalar: HashMap<String, Arc<ScalarUDF>>,
    higher_order: HashMap<String, Arc<HigherOrderUDF>>,
    aggregate: HashMap<String, Arc<AggregateUDF>>,
    window: HashMap<String, Arc<WindowUDF>>,
}

/// Every function that a plan may name, built once for the process.
fn functions() -> &'static Functions {
    static FUNCTIONS: OnceLock<Functions> = OnceLock::new();
    FUNCTIONS.get_or_init(|| {
        let state = SessionContext::new().state();
        let mut functions = Functions {
            scalar: state.scalar_functions().clone(),
            higher_order: state.higher_order_functions().clone(),
            aggregate: state.aggregate_functions().clone(),
            window: state.window_functions().clone(),
        };
        for udf in trilith_functions::scalar_functions() {
            for name in names(udf.name(), udf.aliases()) {
                functions.scalar.insert(name, Arc::clone(&udf));
            }
        }
        for udf in trilith_functions::aggregate_functions() {
            for name in names(udf.name(), udf.aliases()) {
                functions.aggregate.insert(name, Arc::clone(&udf));
            }
        }
        for udf in trilith_functions::window_functions() {
            for name in names(udf.name(), udf.aliases()) {
                functions.window.insert(name, Arc::clone(&udf));
            }
        }
        functions
    })
}

fn names(name: &str, aliases: &[String]) -> Vec<String> {
    std::iter::once(name.to_owned())
        .chain(aliases.iter().cloned())
        .collect()
}

/// A task context that knows every function.
pub fn task_context(id: String, session: SessionConfig, runtime_env: Arc<RuntimeEnv>) -> Arc<TaskContext> {
    let functions = functions();
    Arc::new(TaskContext::new(
        Some(id.clone()),
        id,
        session,
        functions.scalar.clone(),
        functions.higher_order.clone(),
        functions.aggregate.clone(),
        functions.window.clone(),
        runtime_env,
    ))
}

/// Makes long-running operators yield now and then, so that cancellation is noticed.
///
/// A join can make many rows of few, or look at many pairs without making any, and asks its inputs for
/// nothing meanwhile: its output counts as work, and the input that streams by is handed out in pieces.
///
/// The side that is read first has a budget: see [`super::adaptive`].
pub fn make_cooperative(plan: Arc<dyn ExecutionPlan>) -> Result<Arc<dyn ExecutionPlan>> {
    let plan = plan.transform_up(|node| {
        let streams_right =
            node.is::<HashJoinExec>() || node.is::<NestedLoopJoinExec>() || node.is::<CrossJoinExec>();
        let node = match (streams_right, node.children().as_slice()) {
            (true, [left, right]) => {
                let right = Arc::new(PacedExec::new(Arc::clone(right))) as Arc<dyn ExecutionPlan>;
                let children = vec![Arc::clone(left), right];
                adaptive::wrap(replace_children_if_necessary(node, children)?)?
            }
            _ => node,
        };
        if node.children().len() < 2 || node.is::<UnionExec>() {
            return Ok(Transformed::no(node));
        }
        Ok(Transformed::yes(
            Arc::new(CooperativeExec::new(node)) as Arc<dyn ExecutionPlan>
        ))
    })?;
    EnsureCooperative::new().optimize(plan.data, &ConfigOptions::default())
}

/// Carries a fault through DataFusion.
pub fn fault_error(fault: Fault) -> DataFusionError {
    DataFusionError::External(Box::new(fault))
}
