//! Plans on the wire: DataFusion's protobuf, with our leaves as JSON.

use std::sync::Arc;

use arrow::datatypes::Schema;
use bytes::Bytes;
use datafusion::common::plan_datafusion_err;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::TaskContext;
use datafusion::physical_expr::Partitioning;
use datafusion::physical_plan::ExecutionPlan;
use datafusion_proto::bytes::{
    physical_plan_from_bytes_with_extension_codec, physical_plan_to_bytes_with_extension_codec,
};
use datafusion_proto::physical_plan::{PhysicalExtensionCodec, PhysicalProtoConverterExtension};
use datafusion_proto::protobuf;
use prost::Message;
use serde::{Deserialize, Serialize};
use trilith_exchange::SortKey;

use super::source::{Source, SourceExec};

#[derive(Debug)]
struct Codec;

#[derive(Serialize, Deserialize)]
struct Leaf {
    source: Source,
    ordering: Vec<SortKey>,
    input: usize,
    schema: Vec<u8>,
}

impl PhysicalExtensionCodec for Codec {
    fn try_decode(
        &self,
        buf: &[u8],
        _inputs: &[Arc<dyn ExecutionPlan>],
        _context: &TaskContext,
        _converter: &dyn PhysicalProtoConverterExtension,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let leaf: Leaf = serde_json::from_slice(buf).map_err(external)?;
        let schema = Arc::new(decode_schema(&leaf.schema)?);
        let partitioning = Partitioning::UnknownPartitioning(1);
        let exec = SourceExec::new(leaf.source, schema, leaf.ordering, partitioning).with_input(leaf.input);
        Ok(Arc::new(exec))
    }

    fn try_encode(
        &self,
        node: Arc<dyn ExecutionPlan>,
        buf: &mut Vec<u8>,
        _converter: &dyn PhysicalProtoConverterExtension,
    ) -> Result<()> {
        let Some(exec) = node.downcast_ref::<SourceExec>() else {
            return Err(plan_datafusion_err!(
                "{} cannot be sent to a worker process",
                node.name()
            ));
        };
        let leaf = Leaf {
            source: exec.source().clone(),
            ordering: exec.ordering().to_vec(),
            input: exec.input(),
            schema: encode_schema(&exec.schema())?,
        };
        serde_json::to_writer(buf, &leaf).map_err(external)
    }
}

fn external(error: impl std::error::Error + Send + Sync + 'static) -> DataFusionError {
    DataFusionError::External(Box::new(error))
}

/// A schema as DataFusion's protobuf.
pub(crate) fn encode_schema(schema: &Schema) -> Result<Vec<u8>> {
    let message: protobuf::Schema = schema.try_into().map_err(external)?;
    Ok(message.encode_to_vec())
}

/// The reverse of [`encode_schema`].
pub(crate) fn decode_schema(bytes: &[u8]) -> Result<Schema> {
    let message = protobuf::Schema::decode(bytes).map_err(external)?;
    Schema::try_from(&message).map_err(external)
}

/// A plan with assigned leaves as bytes.
pub fn encode_plan(plan: &Arc<dyn ExecutionPlan>) -> Result<Bytes> {
    physical_plan_to_bytes_with_extension_codec(Arc::clone(plan), &Codec)
}

/// The reverse of [`encode_plan`].
pub fn decode_plan(bytes: &[u8], context: &TaskContext) -> Result<Arc<dyn ExecutionPlan>> {
    physical_plan_from_bytes_with_extension_codec(bytes, context, &Codec)
}
