//! Plans on the wire: DataFusion's protobuf, with our leaves and operators as JSON.

use std::sync::Arc;

use arrow::datatypes::Schema;
use bytes::Bytes;
use datafusion::common::plan_datafusion_err;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::TaskContext;
use datafusion::physical_expr::{Partitioning, PhysicalExpr, ScalarFunctionExpr};
use datafusion::physical_plan::ExecutionPlan;
use datafusion_proto::bytes::{
    physical_plan_from_bytes_with_proto_converter, physical_plan_to_bytes_with_extension_codec,
};
use datafusion_proto::physical_plan::{
    DefaultPhysicalProtoConverter, PhysicalExtensionCodec, PhysicalPlanDecodeContext,
    PhysicalProtoConverterExtension,
};
use datafusion_proto::protobuf;
use prost::Message;
use serde::{Deserialize, Serialize};
use trilith_exchange::SortKey;

use super::source::{Source, SourceExec};
use super::values::ValuesExec;
use super::windows::WindowRowsExec;

#[derive(Debug)]
struct Codec;

#[derive(Serialize, Deserialize)]
struct Leaf {
    source: Source,
    ordering: Vec<SortKey>,
    input: usize,
    schema: Vec<u8>,
}

/// Our own operators of one input.
#[derive(Serialize, Deserialize)]
enum Operator {
    Values { column: usize, schema: Vec<u8> },
    WindowRows { partition: Vec<Vec<u8>>, most: u64 },
}

impl PhysicalExtensionCodec for Codec {
    fn try_decode(
        &self,
        buf: &[u8],
        inputs: &[Arc<dyn ExecutionPlan>],
        context: &TaskContext,
        converter: &dyn PhysicalProtoConverterExtension,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        if let [input] = inputs {
            let input = Arc::clone(input);
            return Ok(match serde_json::from_slice(buf).map_err(external)? {
                Operator::Values { column, schema } => {
                    let schema = Arc::new(decode_schema(&schema)?);
                    Arc::new(ValuesExec::try_new(input, column, schema)?)
                }
                Operator::WindowRows { partition, most } => {
                    let within = PhysicalPlanDecodeContext::new(context, self);
                    let schema = input.schema();
                    let exprs = partition.iter().map(|bytes| {
                        let expr = protobuf::PhysicalExprNode::decode(bytes.as_slice()).map_err(external)?;
                        converter.proto_to_physical_expr(&expr, &schema, &within)
                    });
                    let exprs = exprs.collect::<Result<Vec<_>>>()?;
                    Arc::new(WindowRowsExec::new(input, exprs, most))
                }
            });
        }
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
        converter: &dyn PhysicalProtoConverterExtension,
    ) -> Result<()> {
        if let Some(exec) = node.downcast_ref::<ValuesExec>() {
            let values = Operator::Values {
                column: exec.column(),
                schema: encode_schema(&exec.schema())?,
            };
            return serde_json::to_writer(buf, &values).map_err(external);
        }
        if let Some(exec) = node.downcast_ref::<WindowRowsExec>() {
            let exprs = exec.partition().iter();
            let exprs = exprs.map(|expr| Ok(converter.physical_expr_to_proto(expr, self)?.encode_to_vec()));
            let rows = Operator::WindowRows {
                partition: exprs.collect::<Result<_>>()?,
                most: exec.most(),
            };
            return serde_json::to_writer(buf, &rows).map_err(external);
        }
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

/// Gives the results of functions back what protobuf does not carry: marks of types that Arrow does not know.
struct Marking;

impl PhysicalProtoConverterExtension for Marking {
    fn proto_to_execution_plan(
        &self,
        proto: &protobuf::PhysicalPlanNode,
        context: &PhysicalPlanDecodeContext<'_>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        self.default_proto_to_execution_plan(proto, context)
    }

    fn execution_plan_to_proto(
        &self,
        plan: &Arc<dyn ExecutionPlan>,
        codec: &dyn PhysicalExtensionCodec,
    ) -> Result<protobuf::PhysicalPlanNode> {
        DefaultPhysicalProtoConverter {}.execution_plan_to_proto(plan, codec)
    }

    fn proto_to_physical_expr(
        &self,
        proto: &protobuf::PhysicalExprNode,
        input: &Schema,
        context: &PhysicalPlanDecodeContext<'_>,
    ) -> Result<Arc<dyn PhysicalExpr>> {
        let expr = self.default_proto_to_physical_expr(proto, input, context)?;
        let Some(call) = expr.downcast_ref::<ScalarFunctionExpr>() else {
            return Ok(expr);
        };
        let function = Arc::new(call.fun().clone());
        let options = Arc::new(call.config_options().clone());
        let fresh = ScalarFunctionExpr::try_new(
            Arc::clone(&function),
            call.args().to_vec(),
            input,
            Arc::clone(&options),
        )?;
        let marks = fresh.return_field(input)?.metadata().clone();
        if marks.is_empty() {
            return Ok(expr);
        }
        let field = call.return_field(input)?.as_ref().clone().with_metadata(marks);
        Ok(Arc::new(ScalarFunctionExpr::new(
            call.name(),
            function,
            call.args().to_vec(),
            Arc::new(field),
            options,
        )))
    }

    fn physical_expr_to_proto(
        &self,
        expr: &Arc<dyn PhysicalExpr>,
        codec: &dyn PhysicalExtensionCodec,
    ) -> Result<protobuf::PhysicalExprNode> {
        DefaultPhysicalProtoConverter {}.physical_expr_to_proto(expr, codec)
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
    physical_plan_from_bytes_with_proto_converter(bytes, context, &Codec, &Marking)
}
