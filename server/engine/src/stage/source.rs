//! The leaf of every stage: external data, segments, or the output of another stage.

use std::fmt;
use std::sync::Arc;

use arrow::compute::SortOptions;
use arrow::datatypes::SchemaRef;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::error::Result;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_expr::{
    EquivalenceProperties, LexOrdering, Partitioning, PhysicalExpr, PhysicalSortExpr,
};
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType};
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties};
use serde::{Deserialize, Serialize};
use trilith_exchange::{SortKey, StageSource};
use trilith_input::{ExternSpec, Split};
use trilith_metadata::VisibleSegment;
use trilith_proto::id::StageNumber;
use trilith_proto::interval::Interval;
use trilith_segment::SegmentRecord;

use super::prune::Pruning;
use super::read;

/// One segment, with the parts of its time chunk that are visible.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SegmentSlice {
    /// What the metadata says of it.
    #[serde(with = "shared")]
    pub record: Arc<SegmentRecord>,
    /// None when all of it is visible.
    pub visible: Option<Vec<Interval>>,
}

impl From<&VisibleSegment> for SegmentSlice {
    fn from(segment: &VisibleSegment) -> SegmentSlice {
        let whole = segment.parts.as_slice() == [segment.record.interval];
        SegmentSlice {
            record: Arc::clone(&segment.record),
            visible: (!whole).then(|| segment.parts.clone()),
        }
    }
}

/// A shared record travels as the record.
mod shared {
    use std::sync::Arc;

    use serde::{Deserialize, Deserializer, Serialize, Serializer};
    use trilith_segment::SegmentRecord;

    pub(super) fn serialize<S: Serializer>(
        record: &Arc<SegmentRecord>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        record.as_ref().serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Arc<SegmentRecord>, D::Error> {
        SegmentRecord::deserialize(deserializer).map(Arc::new)
    }
}

/// Where rows come from. In a plan that is not yet assigned to a worker, the lists hold everything.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Source {
    /// EXTERN.
    External {
        /// Source, format, signature.
        spec: Arc<ExternSpec>,
        /// Columns of the signature.
        projection: Vec<usize>,
        /// Files of this worker; empty before assignment.
        splits: Vec<Split>,
    },
    /// A datasource.
    Segments {
        /// Its name.
        datasource: String,
        /// Segments of this worker.
        segments: Vec<SegmentSlice>,
        /// What the filters above say of segments.
        pruning: Pruning,
    },
    /// Another stage.
    Stage {
        /// Which.
        stage: StageNumber,
        /// Merge by the keys that the stage sorted by.
        merge: bool,
        /// Partitions are sorted each for itself, and do not follow each other: all of them are merged.
        #[serde(default)]
        interleaved: bool,
        /// Every worker reads all of it.
        broadcast: bool,
        /// Where the outputs are; empty before assignment.
        sources: Vec<StageSource>,
        /// Partitions of this worker; empty before assignment.
        partitions: Vec<u32>,
    },
}

/// Reads a [`Source`]. One output partition once it is assigned to a worker.
#[derive(Debug, Clone)]
pub struct SourceExec {
    source: Source,
    schema: SchemaRef,
    ordering: Vec<SortKey>,
    input: usize,
    properties: Arc<PlanProperties>,
}

impl SourceExec {
    /// A leaf whose rows come in the given order (empty: none).
    pub fn new(
        source: Source,
        schema: SchemaRef,
        ordering: Vec<SortKey>,
        partitioning: Partitioning,
    ) -> SourceExec {
        let properties = properties(&schema, &ordering, partitioning);
        SourceExec {
            source,
            schema,
            ordering,
            input: 0,
            properties,
        }
    }

    /// Where rows come from.
    pub fn source(&self) -> &Source {
        &self.source
    }

    /// Order of the rows.
    pub fn ordering(&self) -> &[SortKey] {
        &self.ordering
    }

    /// Number of this input in its stage, from 0.
    pub fn input(&self) -> usize {
        self.input
    }

    /// The same leaf as input number `input`.
    pub fn with_input(mut self, input: usize) -> SourceExec {
        self.input = input;
        self
    }

    /// The same leaf with one worker's share to read.
    pub fn assigned(&self, source: Source) -> SourceExec {
        let partitioning = Partitioning::UnknownPartitioning(1);
        SourceExec::new(
            source,
            Arc::clone(&self.schema),
            self.ordering.clone(),
            partitioning,
        )
        .with_input(self.input)
    }
}

fn properties(schema: &SchemaRef, ordering: &[SortKey], partitioning: Partitioning) -> Arc<PlanProperties> {
    let sort = ordering.iter().filter_map(|key| {
        let field = schema.fields().get(key.column)?;
        Some(PhysicalSortExpr::new(
            Arc::new(Column::new(field.name(), key.column)),
            SortOptions {
                descending: key.descending,
                nulls_first: key.nulls_first,
            },
        ))
    });
    let equivalence = match LexOrdering::new(sort) {
        Some(ordering) => EquivalenceProperties::new_with_orderings(Arc::clone(schema), [ordering]),
        None => EquivalenceProperties::new(Arc::clone(schema)),
    };
    Arc::new(PlanProperties::new(
        equivalence,
        partitioning,
        EmissionType::Incremental,
        Boundedness::Bounded,
    ))
}

impl DisplayAs for SourceExec {
    fn fmt_as(&self, _format: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.source {
            Source::External { .. } => write!(f, "SourceExec: external"),
            Source::Segments {
                datasource, segments, ..
            } => {
                write!(
                    f,
                    "SourceExec: datasource={datasource}, segments={}",
                    segments.len()
                )
            }
            Source::Stage {
                stage,
                merge,
                broadcast,
                ..
            } => {
                write!(
                    f,
                    "SourceExec: stage={stage}, merge={merge}, broadcast={broadcast}"
                )
            }
        }
    }
}

impl ExecutionPlan for SourceExec {
    fn name(&self) -> &str {
        "SourceExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        Vec::new()
    }

    fn apply_expressions(
        &self,
        _f: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn with_new_children(self: Arc<Self>, _: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(self)
    }

    fn execute(&self, _partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        read::execute(&self.source, &self.ordering, &self.schema, self.input, &context)
    }
}
