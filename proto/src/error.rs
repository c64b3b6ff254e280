//! Errors as callers see them: a category with its gRPC code and HTTP status, and Druid's error object.

use std::collections::HashMap;
use std::fmt;
use std::time::Duration;

use serde_json::{Map, Value, json};
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

/// Longest message on the wire, in bytes.
const MESSAGE_BYTES_MAX: usize = 2_048;
const DOMAIN: &str = "trilith";
/// When a call that found no room may come again.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// What kind of error it is. The only place that names gRPC codes and HTTP statuses of errors.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum Category {
    Defensive,
    InvalidInput,
    Unauthorized,
    Forbidden,
    NotFound,
    Conflict,
    CapacityExceeded,
    Canceled,
    RuntimeFailure,
    ServiceUnavailable,
    Timeout,
    Unsupported,
    Uncategorized,
}

/// (category, word, HTTP status, gRPC code)
const CATEGORIES: [(Category, &str, u16, Code); 13] = [
    (
        Category::InvalidInput,
        "INVALID_INPUT",
        400,
        Code::InvalidArgument,
    ),
    (Category::Unauthorized, "UNAUTHORIZED", 401, Code::Unauthenticated),
    (Category::Forbidden, "FORBIDDEN", 403, Code::PermissionDenied),
    (Category::NotFound, "NOT_FOUND", 404, Code::NotFound),
    (Category::Conflict, "CONFLICT", 409, Code::Aborted),
    (
        Category::CapacityExceeded,
        "CAPACITY_EXCEEDED",
        429,
        Code::ResourceExhausted,
    ),
    (Category::Canceled, "CANCELED", 500, Code::Cancelled),
    (Category::Timeout, "TIMEOUT", 504, Code::DeadlineExceeded),
    (Category::Unsupported, "UNSUPPORTED", 501, Code::Unimplemented),
    (
        Category::ServiceUnavailable,
        "SERVICE_UNAVAILABLE",
        503,
        Code::Unavailable,
    ),
    (Category::RuntimeFailure, "RUNTIME_FAILURE", 500, Code::Internal),
    (Category::Defensive, "DEFENSIVE", 500, Code::Internal),
    (Category::Uncategorized, "UNCATEGORIZED", 500, Code::Unknown),
];

impl Category {
    /// Every category once.
    pub fn all() -> impl Iterator<Item = Category> {
        CATEGORIES.iter().map(|row| row.0)
    }

    fn row(self) -> &'static (Category, &'static str, u16, Code) {
        // Every variant stands in the table; a test walks them.
        CATEGORIES
            .iter()
            .find(|row| row.0 == self)
            .unwrap_or(&CATEGORIES[12])
    }

    /// "INVALID_INPUT", …
    pub fn as_str(self) -> &'static str {
        self.row().1
    }

    /// Reads the word.
    pub fn parse(text: &str) -> Option<Category> {
        CATEGORIES.iter().find(|row| row.1 == text).map(|row| row.0)
    }

    /// HTTP status.
    pub fn http_status(self) -> u16 {
        self.row().2
    }

    /// gRPC code.
    pub fn grpc_code(self) -> Code {
        self.row().3
    }

    /// Category of a status that carries nothing but its code.
    pub fn of_code(code: Code) -> Category {
        match code {
            Code::FailedPrecondition | Code::OutOfRange => Category::InvalidInput,
            Code::AlreadyExists => Category::Conflict,
            code => CATEGORIES
                .iter()
                .find(|row| row.3 == code)
                .map_or(Category::Uncategorized, |row| row.0),
        }
    }
}

/// Who can do something about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Persona {
    User,
    Admin,
    Operator,
    Developer,
}

impl Persona {
    /// "USER", …
    pub fn as_str(self) -> &'static str {
        match self {
            Persona::User => "USER",
            Persona::Admin => "ADMIN",
            Persona::Operator => "OPERATOR",
            Persona::Developer => "DEVELOPER",
        }
    }

    /// Reads the word.
    pub fn parse(text: &str) -> Option<Persona> {
        [
            Persona::User,
            Persona::Admin,
            Persona::Operator,
            Persona::Developer,
        ]
        .into_iter()
        .find(|persona| persona.as_str() == text)
    }
}

/// A place in a statement, counted from 1; ends are those of the last character.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[allow(missing_docs)]
pub struct Position {
    pub line: u64,
    pub column: u64,
    pub end_line: u64,
    pub end_column: u64,
}

/// An error that goes to a caller.
#[derive(Debug, Clone, PartialEq)]
pub struct ApiError {
    /// Kind.
    pub category: Category,
    /// Addressee.
    pub persona: Persona,
    /// "invalidInput", "notFound", a fault code, …
    pub error_code: String,
    /// Text for people, with the remedy.
    pub message: String,
    /// Details, values are strings.
    pub context: Map<String, Value>,
}

impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for ApiError {}

impl ApiError {
    /// An error with an empty context.
    pub fn new(category: Category, persona: Persona, error_code: &str, message: impl Into<String>) -> Self {
        let error_code = error_code.to_owned();
        ApiError {
            category,
            persona,
            error_code,
            message: message.into(),
            context: Map::new(),
        }
    }

    /// Wrong input of any kind but SQL text.
    pub fn invalid_input(message: impl Into<String>) -> Self {
        ApiError::new(Category::InvalidInput, Persona::User, "invalidInput", message)
    }

    /// Wrong SQL; with a place the message ends in " (line [L], column [C])".
    pub fn sql(message: impl Into<String>, position: Option<Position>) -> Self {
        let mut error = ApiError::invalid_input(message);
        error.context.insert("sourceType".into(), "sql".into());
        if let Some(place) = position {
            error.message = format!(
                "{} (line [{}], column [{}])",
                error.message, place.line, place.column
            );
            error = error.at(place);
        }
        error
    }

    /// Adds a place to the context, not to the message.
    pub fn at(mut self, place: Position) -> Self {
        for (key, value) in [
            ("line", place.line),
            ("column", place.column),
            ("endLine", place.end_line),
            ("endColumn", place.end_column),
        ] {
            self.context.insert(key.into(), value.to_string().into());
        }
        self
    }

    /// Adds one entry to the context.
    pub fn with(mut self, key: &str, value: impl Into<String>) -> Self {
        self.context.insert(key.to_owned(), Value::String(value.into()));
        self
    }

    /// Unknown task, query, datasource, …
    pub fn not_found(message: impl Into<String>) -> Self {
        ApiError::new(Category::NotFound, Persona::User, "notFound", message)
    }

    /// Something that Trilith does not do.
    pub fn unsupported(message: impl Into<String>) -> Self {
        ApiError::new(Category::Unsupported, Persona::User, "unsupported", message)
    }

    /// The service cannot take the call now.
    pub fn unavailable(message: impl Into<String>) -> Self {
        ApiError::new(
            Category::ServiceUnavailable,
            Persona::Operator,
            "unavailable",
            message,
        )
    }

    /// A failure inside the server; details belong into the log.
    pub fn internal(message: impl Into<String>) -> Self {
        ApiError::new(
            Category::RuntimeFailure,
            Persona::Developer,
            "internalServerError",
            message,
        )
    }

    /// Druid's error object.
    pub fn to_json(&self) -> Value {
        json!({
            "error": "druidException",
            "errorCode": self.error_code,
            "persona": self.persona.as_str(),
            "category": self.category.as_str(),
            "errorMessage": self.message,
            "context": self.context,
        })
    }

    /// Reads back what `From<ApiError> for Status` wrote; other statuses map from their code.
    pub fn from_status(status: &Status) -> ApiError {
        let message = status.message().to_owned();
        let Some(info) = status
            .get_details_error_info()
            .filter(|info| info.domain == DOMAIN)
        else {
            // What tonic says when the deadline of a call passes on this side.
            let expired = status.code() == Code::Cancelled && message == "Timeout expired";
            let category = match expired {
                true => Category::Timeout,
                false => Category::of_code(status.code()),
            };
            return ApiError::new(category, Persona::Operator, "general", message);
        };
        let mut metadata = info.metadata;
        let error_code = metadata
            .remove("errorCode")
            .unwrap_or_else(|| "general".to_owned());
        let category = metadata
            .remove("category")
            .and_then(|word| Category::parse(&word));
        let persona = metadata.remove("persona").and_then(|word| Persona::parse(&word));
        let context = match metadata.remove("context").map(|text| serde_json::from_str(&text)) {
            Some(Ok(context)) => context,
            _ => Map::new(),
        };
        ApiError {
            category: category.unwrap_or_else(|| Category::of_code(status.code())),
            persona: persona.unwrap_or(Persona::Operator),
            error_code,
            message,
            context,
        }
    }
}

/// "invalidInput" → "INVALID_INPUT", the form of `ErrorInfo.reason`.
fn reason(error_code: &str) -> String {
    let mut reason = String::with_capacity(error_code.len() + 4);
    let mut previous_lower = false;
    for character in error_code.chars() {
        if character.is_uppercase() && previous_lower {
            reason.push('_');
        }
        previous_lower = character.is_lowercase() || character.is_ascii_digit();
        reason.extend(character.to_uppercase());
    }
    reason
}

impl From<ApiError> for Status {
    fn from(error: ApiError) -> Status {
        let mut message = error.message;
        if message.len() > MESSAGE_BYTES_MAX {
            let mut cut = MESSAGE_BYTES_MAX - 3;
            while !message.is_char_boundary(cut) {
                cut -= 1;
            }
            message.truncate(cut);
            message.push_str("...");
        }
        let metadata = HashMap::from([
            ("errorCode".to_owned(), error.error_code.clone()),
            ("category".to_owned(), error.category.as_str().to_owned()),
            ("persona".to_owned(), error.persona.as_str().to_owned()),
            ("context".to_owned(), Value::Object(error.context).to_string()),
        ]);
        let mut details = ErrorDetails::with_error_info(reason(&error.error_code), DOMAIN, metadata);
        if error.category == Category::CapacityExceeded {
            details.set_retry_info(Some(RETRY_AFTER));
        }
        Status::with_error_details(error.category.grpc_code(), message, details)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_category_survives_both_mappings() {
        for category in Category::all() {
            assert_eq!(Category::parse(category.as_str()), Some(category));
            let error = ApiError::new(category, Persona::User, "someCode", "text").with("line", "3");
            let status = Status::from(error.clone());
            assert_eq!(status.code(), category.grpc_code());
            assert_eq!(ApiError::from_status(&status), error);
        }
        assert_eq!(Category::all().count(), 13);
        assert_eq!(Category::of_code(Code::Unavailable), Category::ServiceUnavailable);
        assert_eq!(Category::NotFound.http_status(), 404);
    }

    #[test]
    fn sql_errors_carry_their_place() {
        let place = Position {
            line: 2,
            column: 7,
            end_line: 2,
            end_column: 9,
        };
        let error = ApiError::sql("Object 'x' not found", Some(place));
        assert_eq!(error.message, "Object 'x' not found (line [2], column [7])");
        assert_eq!(
            error.to_json().to_string(),
            r#"{"error":"druidException","errorCode":"invalidInput","persona":"USER","category":"INVALID_INPUT","errorMessage":"Object 'x' not found (line [2], column [7])","context":{"sourceType":"sql","line":"2","column":"7","endLine":"2","endColumn":"9"}}"#
        );
    }

    #[test]
    fn long_messages_are_cut_at_a_character() {
        let status = Status::from(ApiError::invalid_input("ä".repeat(3_000)));
        assert!(status.message().len() <= MESSAGE_BYTES_MAX);
    }
}
