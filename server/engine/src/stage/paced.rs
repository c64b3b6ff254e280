//! A join input that hands out as many rows at a time as the join can deal with quickly.
//!
//! A join may look at millions of pairs for one input batch without returning, and meanwhile nobody can
//! stop it. Between two pieces this input yields, so that cancellation is noticed.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::error::Result;
use datafusion::execution::{RecordBatchStream, SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties};
use futures::{Stream, StreamExt};

const FIRST_ROWS: usize = 8;
/// A piece that took longer than this is followed by smaller ones.
const SLOW: Duration = Duration::from_millis(100);
/// A piece that took less than this is followed by larger ones.
const QUICK: Duration = Duration::from_millis(20);

/// Wraps the input of a join that streams by.
#[derive(Debug)]
pub(crate) struct PacedExec {
    input: Arc<dyn ExecutionPlan>,
}

impl PacedExec {
    pub(crate) fn new(input: Arc<dyn ExecutionPlan>) -> PacedExec {
        PacedExec { input }
    }
}

impl DisplayAs for PacedExec {
    fn fmt_as(&self, _format: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PacedExec")
    }
}

impl ExecutionPlan for PacedExec {
    fn name(&self) -> &str {
        "PacedExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        self.input.properties()
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }

    fn maintains_input_order(&self) -> Vec<bool> {
        vec![true]
    }

    fn apply_expressions(
        &self,
        _f: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn with_new_children(
        self: Arc<Self>,
        mut children: Vec<Arc<dyn ExecutionPlan>>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        match children.pop() {
            Some(input) => Ok(Arc::new(PacedExec::new(input))),
            None => Ok(self),
        }
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let input = self.input.execute(partition, context)?;
        Ok(Box::pin(PacedStream {
            input,
            rest: None,
            rows: FIRST_ROWS,
            handed_out: None,
        }))
    }
}

struct PacedStream {
    input: SendableRecordBatchStream,
    /// What is left of the last batch.
    rest: Option<RecordBatch>,
    rows: usize,
    /// When the last piece went out.
    handed_out: Option<Instant>,
}

impl Stream for PacedStream {
    type Item = Result<RecordBatch>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if let Some(since) = self.handed_out.take() {
            let took = since.elapsed();
            if took > SLOW {
                self.rows = (self.rows / 2).max(1);
            } else if took < QUICK {
                self.rows = self.rows.saturating_mul(2).min(1 << 20);
            }
            if took >= QUICK {
                context.waker().wake_by_ref();
                return Poll::Pending;
            }
        }
        let batch = match self.rest.take() {
            Some(rest) => rest,
            None => match self.input.poll_next_unpin(context) {
                Poll::Ready(Some(Ok(batch))) => batch,
                other => return other,
            },
        };
        self.handed_out = Some(Instant::now());
        if batch.num_rows() <= self.rows {
            return Poll::Ready(Some(Ok(batch)));
        }
        let piece = batch.slice(0, self.rows);
        self.rest = Some(batch.slice(self.rows, batch.num_rows() - self.rows));
        Poll::Ready(Some(Ok(piece)))
    }
}

impl RecordBatchStream for PacedStream {
    fn schema(&self) -> SchemaRef {
        self.input.schema()
    }
}
