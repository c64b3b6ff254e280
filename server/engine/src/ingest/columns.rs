//! Which output columns segments can have.

use arrow::datatypes::DataType;
use trilith_proto::fault::Fault;
use trilith_sql::Planned;

use crate::limits;

/// Every output column has a name and a type that can be stored.
pub(crate) fn check_columns(planned: &Planned) -> Result<(), Fault> {
    let fields = planned.plan.schema().fields().iter();
    // Hidden columns come after those with names.
    for (column, field) in planned.columns.iter().zip(fields) {
        if limits::RESERVED_COLUMNS.contains(&column.name.as_str()) {
            return Err(Fault::column_name_restricted(&column.name));
        }
        let unstorable = match field.data_type() {
            DataType::Interval(_) | DataType::Duration(_) => "INTERVAL",
            DataType::Time32(_) | DataType::Time64(_) => "TIME",
            DataType::Map(..) => "MAP",
            DataType::Struct(_) => "ROW",
            _ => continue,
        };
        return Err(Fault::column_type_not_supported(&column.name, Some(unstorable)));
    }
    Ok(())
}
