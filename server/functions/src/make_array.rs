//! ARRAY[…]: what DataFusion makes of it, with truths as 1 and 0, and arrays of COMPLEX that say so.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::error::Result;
use datafusion::functions_nested::make_array::MakeArray;
use datafusion::logical_expr::{
    ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDFImpl, Signature,
};
use trilith_proto::column::{self, ColumnType};

use crate::function::kind_metadata;

/// The constructor of arrays.
#[derive(Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Items {
    inner: MakeArray,
}

impl ScalarUDFImpl for Items {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn aliases(&self) -> &[String] {
        self.inner.aliases()
    }

    fn signature(&self) -> &Signature {
        self.inner.signature()
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        self.inner.return_type(types)
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        let types: Vec<DataType> = args
            .arg_fields
            .iter()
            .map(|field| field.data_type().clone())
            .collect();
        let field = Field::new(self.name(), self.return_type(&types)?, true);
        let kinds = args.arg_fields.iter().map(|field| column::of_field(field));
        Ok(Arc::new(
            match kinds
                .into_iter()
                .find(|kind| matches!(kind, ColumnType::Complex(_)))
            {
                Some(kind) => field.with_metadata(kind_metadata(&ColumnType::Array(Box::new(kind)))),
                None => field,
            },
        ))
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        let types: Vec<DataType> = types
            .iter()
            .map(|data_type| match data_type {
                DataType::Boolean => DataType::Int64,
                other => other.clone(),
            })
            .collect();
        self.inner.coerce_types(&types)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        self.inner.invoke_with_args(args)
    }
}
