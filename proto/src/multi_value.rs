//! Multi-value strings: how a VARCHAR holds two or more values.
//!
//! No string that is read has a byte 0, so that byte marks what is not one plain value: the values stand behind each other with
//! [`BETWEEN`] between them, and [`NULL`] for those that are NULL. A row without values is NULL itself. Compared as bytes, such strings are in the order of
//! their values, as Druid sorts them. Clients see JSON lists ([`shown`]).

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, StringArray};
use arrow::datatypes::DataType;
use arrow::error::ArrowError;
use arrow::record_batch::{RecordBatch, RecordBatchOptions};

/// Values, some of them NULL.
pub type Texts = Vec<Option<String>>;

/// Stands between two values: less than any character that a longer value could have there.
const BETWEEN: &str = "\0\u{2}";
/// A value that is NULL; alone, no value at all, which only older segments have.
const NULL: &str = "\0\u{1}";

/// Values of a multi-value string; none if the text is one value.
pub fn split(text: &str) -> Option<Texts> {
    if !is_multiple(text) {
        return None;
    }
    if text == NULL {
        return Some(Vec::new());
    }
    let values = text.split(BETWEEN);
    Some(
        values
            .map(|value| (value != NULL).then(|| value.to_owned()))
            .collect(),
    )
}

/// Values as a text: one is plain, none are NULL.
pub fn joined(values: &[Option<String>]) -> Option<String> {
    match values {
        [] => None,
        [one] => one.clone(),
        many => {
            let texts: Vec<&str> = many
                .iter()
                .map(|value| value.as_deref().unwrap_or(NULL))
                .collect();
            Some(texts.join(BETWEEN))
        }
    }
}

/// True if a text has not exactly one value.
pub fn is_multiple(text: &str) -> bool {
    text.as_bytes().contains(&0) && (text == NULL || text.contains(BETWEEN))
}

/// True if a text of the column has not exactly one value.
pub fn any_multiple(texts: &StringArray) -> bool {
    let offsets = texts.value_offsets();
    let (first, last) = (offsets.first().copied(), offsets.last().copied());
    let range = first.unwrap_or(0) as usize..last.unwrap_or(0) as usize;
    let marked = texts
        .value_data()
        .get(range)
        .is_some_and(|bytes| bytes.contains(&0));
    marked && texts.iter().flatten().any(is_multiple)
}

/// Multi-value strings with their values in order, NULL first; none if there are no others.
pub fn sorted(texts: &StringArray) -> Option<StringArray> {
    changed(texts, |mut values| {
        values.sort_unstable();
        joined(&values)
    })
}

fn changed(texts: &StringArray, change: impl Fn(Texts) -> Option<String>) -> Option<StringArray> {
    if !any_multiple(texts) {
        return None;
    }
    let texts = texts.iter().map(|text| match split(text?) {
        Some(values) => change(values),
        None => text.map(str::to_owned),
    });
    Some(texts.collect())
}

/// Rows as clients see them: multi-value strings are JSON lists.
pub fn shown(batch: RecordBatch) -> Result<RecordBatch, ArrowError> {
    let json = |column: &ArrayRef| -> Option<ArrayRef> {
        if column.data_type() != &DataType::Utf8 {
            return None;
        }
        let shown = changed(column.as_string::<i32>(), |values| {
            serde_json::to_string(&values).ok()
        })?;
        Some(Arc::new(shown))
    };
    let columns: Vec<Option<ArrayRef>> = batch.columns().iter().map(json).collect();
    if columns.iter().all(Option::is_none) {
        return Ok(batch);
    }
    let columns = columns
        .into_iter()
        .zip(batch.columns())
        .map(|(shown, column)| shown.unwrap_or_else(|| Arc::clone(column)));
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    RecordBatch::try_new_with_options(batch.schema(), columns.collect(), &options)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn texts(values: &[Option<&str>]) -> Texts {
        values.iter().map(|value| value.map(str::to_owned)).collect()
    }

    #[test]
    fn values_come_back() {
        for values in [
            texts(&[Some("a"), Some("b")]),
            texts(&[Some(""), Some("")]),
            texts(&[None, Some("")]),
            texts(&[None, None]),
            texts(&[Some("[\"a\",\"b\"]"), None, Some("ü")]),
        ] {
            let text = joined(&values).unwrap();
            assert_eq!(split(&text), Some(values));
        }
        assert_eq!(joined(&texts(&[Some("a")])).unwrap(), "a");
        assert_eq!(joined(&texts(&[None])), None);
        assert_eq!(joined(&[]), None);
        assert_eq!(split(NULL), Some(Vec::new()));
        for plain in ["", "a", "[]", "[\"a\",\"b\"]", "a\0b", "\0"] {
            assert_eq!(split(plain), None);
        }
    }

    #[test]
    fn bytes_are_in_the_order_of_the_values() {
        let in_order = [
            texts(&[None, Some("b")]),
            texts(&[Some(""), Some("b")]),
            texts(&[Some("1"), Some("2")]),
            texts(&[Some("10")]),
            texts(&[Some("2")]),
            texts(&[Some("2"), Some("1")]),
            texts(&[Some("3")]),
            texts(&[Some("A"), Some("B")]),
            texts(&[Some("AA"), Some("")]),
            texts(&[Some("B")]),
        ];
        let written: Vec<String> = in_order.iter().map(|values| joined(values).unwrap()).collect();
        assert!(written.is_sorted(), "{written:?}");
    }

    #[test]
    fn clients_see_lists() {
        let column: StringArray = [Some("a".to_owned()), None, joined(&texts(&[Some("b"), None]))]
            .into_iter()
            .collect();
        assert!(any_multiple(&column) && !any_multiple(&column.slice(0, 2)));
        let batch = RecordBatch::try_from_iter([("x", Arc::new(column) as ArrayRef)]).unwrap();
        let shown = shown(batch).unwrap();
        let found: Vec<_> = shown.column(0).as_string::<i32>().iter().collect();
        assert_eq!(found, [Some("a"), None, Some("[\"b\",null]")]);
    }
}
