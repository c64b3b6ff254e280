//! Input sources: where the rows of EXTERN come from.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::spec::{SpecError, error, kind, object, text, texts};

/// Where rows come from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) enum Source {
    Inline {
        data: String,
    },
    Local {
        base_dir: Option<String>,
        filter: String,
        files: Vec<String>,
        system_fields: Vec<SystemField>,
    },
    Http {
        uris: Vec<String>,
        user: Option<String>,
        password: Option<String>,
        /// Name and value.
        headers: Vec<(String, String)>,
        system_fields: Vec<SystemField>,
    },
    /// All rows of each of several sources, none of which combines others itself.
    Combining {
        delegates: Vec<Source>,
    },
}

/// A column that says where a row comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum SystemField {
    #[serde(rename = "__file_uri")]
    Uri,
    #[serde(rename = "__file_path")]
    Path,
    /// Object stores only; null elsewhere.
    #[serde(rename = "__file_bucket")]
    Bucket,
}

impl SystemField {
    pub(crate) const ALL: [(&'static str, SystemField); 3] = [
        ("__file_uri", SystemField::Uri),
        ("__file_path", SystemField::Path),
        ("__file_bucket", SystemField::Bucket),
    ];

    /// By its name as a column.
    pub(crate) fn of(name: &str) -> Option<SystemField> {
        let found = SystemField::ALL.iter().find(|(known, _)| *known == name);
        found.map(|(_, field)| *field)
    }
}

impl Source {
    /// Reads an input source.
    pub(crate) fn parse(value: &Value) -> Result<Source, SpecError> {
        let map = object(value, "the input source")?;
        match kind(map, "the input source")? {
            "inline" => {
                let data = text(map, "data")?
                    .ok_or_else(|| error("an inline input source needs the field [data]"))?;
                Ok(Source::Inline { data })
            }
            "local" => local(map),
            "http" => http(map),
            "combining" => combining(map),
            other => Err(error(refusal(other))),
        }
    }

    /// Columns that the reader fills in, for some of the rows at least.
    pub(crate) fn system_fields(&self) -> Vec<SystemField> {
        let mut all = Vec::new();
        for source in self.delegates() {
            if let Source::Local { system_fields, .. } | Source::Http { system_fields, .. } = source {
                let new = system_fields.iter().filter(|field| !all.contains(*field));
                all.extend(new.copied().collect::<Vec<_>>());
            }
        }
        all
    }

    /// Some of its rows are inline.
    pub(crate) fn has_inline(&self) -> bool {
        let mut sources = self.delegates().iter();
        sources.any(|source| matches!(source, Source::Inline { .. }))
    }

    /// Names of the headers that it sends.
    pub(crate) fn header_names(&self) -> impl Iterator<Item = &str> {
        let headers = self.delegates().iter().map(|source| match source {
            Source::Http { headers, .. } => headers.as_slice(),
            _ => &[],
        });
        headers.flatten().map(|(name, _)| name.as_str())
    }

    /// The sources that it combines; itself if it combines none.
    pub(crate) fn delegates(&self) -> &[Source] {
        match self {
            Source::Combining { delegates } => delegates,
            single => std::slice::from_ref(single),
        }
    }
}

/// Why a source cannot be read, and what to use instead.
fn refusal(kind: &str) -> String {
    match kind {
        "druid" => "input source type [druid] is not allowed in EXTERN; select FROM the datasource instead".to_owned(),
        "s3" | "google" | "azure" | "azureStorage" | "hdfs" | "oss" => format!(
            "input source type [{kind}] is not supported yet: object stores cannot be read; use http with URLs, or local"
        ),
        "sql" => "input source type [sql] is not supported; export the rows to files and read them with local or http".to_owned(),
        "delta" | "iceberg" => format!(
            "input source type [{kind}] is not supported; read the Parquet files of the table with local or http"
        ),
        other => format!("input source type [{other}] is unknown; use inline, local, http or combining"),
    }
}

fn local(map: &Map<String, Value>) -> Result<Source, SpecError> {
    let base_dir = text(map, "baseDir")?;
    let files = texts(map, "files")?.unwrap_or_default();
    if base_dir.is_none() && files.is_empty() {
        return Err(error("a local input source needs the field [baseDir] or [files]"));
    }
    Ok(Source::Local {
        base_dir,
        filter: text(map, "filter")?.unwrap_or_else(|| "*".to_owned()),
        files,
        system_fields: system_fields(map)?,
    })
}

fn http(map: &Map<String, Value>) -> Result<Source, SpecError> {
    let uris = texts(map, "uris")?.filter(|uris| !uris.is_empty());
    let uris = uris.ok_or_else(|| error("an http input source needs the field [uris]"))?;
    for uri in &uris {
        let url = url::Url::parse(uri).map_err(|cause| error(format!("uri [{uri}]: {cause}")))?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(error(format!(
                "Only [http, https] protocols are allowed, got [{}]",
                url.scheme()
            )));
        }
    }
    Ok(Source::Http {
        uris,
        user: text(map, "httpAuthenticationUsername")?,
        password: password(map.get("httpAuthenticationPassword"))?,
        headers: headers(map.get("requestHeaders"))?,
        system_fields: system_fields(map)?,
    })
}

fn combining(map: &Map<String, Value>) -> Result<Source, SpecError> {
    let sources = match map.get("delegates") {
        Some(Value::Array(sources)) if !sources.is_empty() => sources,
        None | Some(Value::Null | Value::Array(_)) => {
            return Err(error("Must specify at least one delegate inputSource"));
        }
        Some(_) => {
            return Err(error(
                "field [delegates] of a combining input source must be a list of input sources",
            ));
        }
    };
    let mut delegates = Vec::with_capacity(sources.len());
    for source in sources {
        delegates.extend_from_slice(Source::parse(source)?.delegates());
    }
    Ok(Source::Combining { delegates })
}

fn system_fields(map: &Map<String, Value>) -> Result<Vec<SystemField>, SpecError> {
    let names = texts(map, "systemFields")?.unwrap_or_default();
    names
        .iter()
        .map(|name| {
            SystemField::of(name).ok_or_else(|| {
                error(format!(
                    "system field [{name}] is unknown; use __file_uri, __file_path or __file_bucket"
                ))
            })
        })
        .collect()
}

fn headers(value: Option<&Value>) -> Result<Vec<(String, String)>, SpecError> {
    let map = match value {
        None | Some(Value::Null) => return Ok(Vec::new()),
        Some(Value::Object(map)) => map,
        Some(_) => {
            return Err(error(
                "field [requestHeaders] must be an object of names and texts",
            ));
        }
    };
    map.iter()
        .map(|(name, value)| {
            let value = value
                .as_str()
                .ok_or_else(|| error(format!("header [{name}] of requestHeaders must be a string")))?;
            Ok((name.clone(), value.to_owned()))
        })
        .collect()
}

fn password(value: Option<&Value>) -> Result<Option<String>, SpecError> {
    match value {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone())),
        Some(Value::Object(map)) => match map.get("type").and_then(Value::as_str) {
            Some("default") => text(map, "password"),
            Some("environment") => {
                let name = text(map, "variable")?.unwrap_or_default();
                std::env::var(&name)
                    .map(Some)
                    .map_err(|_| error(format!("environment variable [{name}] for a password is not set")))
            }
            _ => Err(error(
                "httpAuthenticationPassword must have the type default or environment",
            )),
        },
        Some(_) => Err(error("httpAuthenticationPassword must be a string or an object")),
    }
}

/// The source without its password and the values of its headers.
pub(crate) fn masked(source: &Value) -> Value {
    let mut echo = source.clone();
    if let Some(password) = echo.get_mut("httpAuthenticationPassword")
        && !password.is_null()
    {
        *password = json!("<masked>");
    }
    if let Some(Value::Object(headers)) = echo.get_mut("requestHeaders") {
        headers.values_mut().for_each(|value| *value = json!("<masked>"));
    }
    if let Some(Value::Array(delegates)) = echo.get_mut("delegates") {
        delegates.iter_mut().for_each(|source| *source = masked(source));
    }
    echo
}
