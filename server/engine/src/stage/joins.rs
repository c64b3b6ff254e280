//! Joins: one side is broadcast, or both are hashed, or all runs on one worker.

use std::sync::Arc;

use datafusion::common::JoinType;
use datafusion::error::Result;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::execution_plan::replace_children_if_necessary;
use datafusion::physical_plan::joins::{CrossJoinExec, HashJoinExec, NestedLoopJoinExec, PartitionMode};

use super::cut::{Cutter, Fragment, two};

/// Cuts a join whose left side is read in full before the right side streams by. None for other nodes.
pub(crate) fn cut(cutter: &mut Cutter, plan: &Arc<dyn ExecutionPlan>) -> Result<Option<Fragment>> {
    if let Some(join) = plan.downcast_ref::<HashJoinExec>() {
        if *join.partition_mode() == PartitionMode::Partitioned {
            return Ok(None);
        }
        if join.null_aware {
            // NOT IN: a single null anywhere on the right side empties the result.
            return one_worker(cutter, plan).map(Some);
        }
        if !left_once(*join.join_type()) {
            return broadcast_left(cutter, plan).map(Some);
        }
        if !left_once(join.join_type().swap()) {
            let swapped = join.swap_inputs(PartitionMode::CollectLeft)?;
            return broadcast_below(cutter, swapped).map(Some);
        }
        return one_worker(cutter, plan).map(Some);
    }
    if let Some(join) = plan.downcast_ref::<NestedLoopJoinExec>() {
        if !left_once(*join.join_type()) {
            return broadcast_left(cutter, plan).map(Some);
        }
        if !left_once(join.join_type().swap()) {
            return broadcast_below(cutter, join.swap_inputs()?).map(Some);
        }
        return one_worker(cutter, plan).map(Some);
    }
    if plan.is::<CrossJoinExec>() {
        return broadcast_left(cutter, plan).map(Some);
    }
    Ok(None)
}

/// The join emits rows of its left side by itself, so a copied left side would double them.
fn left_once(join_type: JoinType) -> bool {
    matches!(
        join_type,
        JoinType::Left | JoinType::Full | JoinType::LeftSemi | JoinType::LeftAnti | JoinType::LeftMark
    )
}

/// Swapping may put a projection above the join that restores the order of the columns.
fn broadcast_below(cutter: &mut Cutter, plan: Arc<dyn ExecutionPlan>) -> Result<Fragment> {
    if plan.children().len() == 2 {
        return broadcast_left(cutter, &plan);
    }
    let Some(child) = plan.children().first().map(|child| Arc::clone(child)) else {
        return Ok(Fragment { plan, single: true });
    };
    let below = broadcast_below(cutter, child)?;
    Ok(Fragment {
        plan: replace_children_if_necessary(plan, vec![below.plan])?,
        single: below.single,
    })
}

fn broadcast_left(cutter: &mut Cutter, plan: &Arc<dyn ExecutionPlan>) -> Result<Fragment> {
    let (left, right) = two(plan)?;
    let left = cutter.node(left, true)?;
    let right = cutter.node(right, true)?;
    if left.single && right.single {
        let children = vec![left.plan, right.plan];
        return Ok(Fragment {
            plan: replace_children_if_necessary(Arc::clone(plan), children)?,
            single: true,
        });
    }
    let left = cutter.broadcast(left)?;
    let children = vec![left, right.plan];
    Ok(Fragment {
        plan: replace_children_if_necessary(Arc::clone(plan), children)?,
        single: right.single,
    })
}

fn one_worker(cutter: &mut Cutter, plan: &Arc<dyn ExecutionPlan>) -> Result<Fragment> {
    let (left, right) = two(plan)?;
    let left = cutter.node(left, true)?;
    let left = cutter.single(left)?;
    let right = cutter.node(right, true)?;
    let right = cutter.single(right)?;
    let children = vec![left.plan, right.plan];
    Ok(Fragment {
        plan: replace_children_if_necessary(Arc::clone(plan), children)?,
        single: true,
    })
}
