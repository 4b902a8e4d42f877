//! The messages of OpenTelemetry's protocol for logs, as far as they are used: `opentelemetry/proto/logs/v1/logs.proto` and
//! `collector/logs/v1/logs_service.proto`, version 1. Rows enter, one request leaves.

use guard_common::audit::flat::{COLUMNS, Flat, Get, time};

use super::super::Given;

/// Longest text of an attribute in bytes.
const MAX_TEXT: usize = 64 * 1024;

/// What is sent.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ExportLogsServiceRequest {
    /// One for each agent.
    #[prost(message, repeated, tag = "1")]
    pub resource_logs: Vec<ResourceLogs>,
}

/// What comes back.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ExportLogsServiceResponse {
    /// Where not everything was taken.
    #[prost(message, optional, tag = "1")]
    pub partial_success: Option<ExportLogsPartialSuccess>,
}

/// What was not taken.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ExportLogsPartialSuccess {
    /// How many.
    #[prost(int64, tag = "1")]
    pub rejected_log_records: i64,
    /// Why.
    #[prost(string, tag = "2")]
    pub error_message: String,
}

/// Records of one source.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ResourceLogs {
    /// The agent.
    #[prost(message, optional, tag = "1")]
    pub resource: Option<Resource>,
    /// Its records.
    #[prost(message, repeated, tag = "2")]
    pub scope_logs: Vec<ScopeLogs>,
}

/// A source.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Resource {
    /// What names it.
    #[prost(message, repeated, tag = "1")]
    pub attributes: Vec<KeyValue>,
}

/// Records of one program.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ScopeLogs {
    /// The program.
    #[prost(message, optional, tag = "1")]
    pub scope: Option<InstrumentationScope>,
    /// Its records.
    #[prost(message, repeated, tag = "2")]
    pub log_records: Vec<LogRecord>,
}

/// A program.
#[derive(Clone, PartialEq, prost::Message)]
pub struct InstrumentationScope {
    /// Its name.
    #[prost(string, tag = "1")]
    pub name: String,
    /// Its version.
    #[prost(string, tag = "2")]
    pub version: String,
}

/// A record.
#[derive(Clone, PartialEq, prost::Message)]
pub struct LogRecord {
    /// When it happened; 0 where that is not known.
    #[prost(fixed64, tag = "1")]
    pub time_unix_nano: u64,
    /// 9 info, 13 warn, 17 error.
    #[prost(int32, tag = "2")]
    pub severity_number: i32,
    /// The same in a word.
    #[prost(string, tag = "3")]
    pub severity_text: String,
    /// For people.
    #[prost(message, optional, tag = "5")]
    pub body: Option<AnyValue>,
    /// The row.
    #[prost(message, repeated, tag = "6")]
    pub attributes: Vec<KeyValue>,
    /// Attributes that were cut or left out.
    #[prost(uint32, tag = "7")]
    pub dropped_attributes_count: u32,
    /// When it left.
    #[prost(fixed64, tag = "11")]
    pub observed_time_unix_nano: u64,
    /// `guard.<kind>`
    #[prost(string, tag = "12")]
    pub event_name: String,
}

/// A named value.
#[derive(Clone, PartialEq, prost::Message)]
pub struct KeyValue {
    /// The name.
    #[prost(string, tag = "1")]
    pub key: String,
    /// The value.
    #[prost(message, optional, tag = "2")]
    pub value: Option<AnyValue>,
}

/// A value.
#[derive(Clone, PartialEq, prost::Message)]
pub struct AnyValue {
    /// Of one kind.
    #[prost(oneof = "Value", tags = "1, 3")]
    pub value: Option<Value>,
}

/// The kinds that are used.
#[derive(Clone, PartialEq, prost::Oneof)]
pub enum Value {
    /// Text.
    #[prost(string, tag = "1")]
    Text(String),
    /// A whole number.
    #[prost(int64, tag = "3")]
    Int(i64),
}

/// The request of a batch.
pub(super) fn request(batch: &[Given]) -> ExportLogsServiceRequest {
    let one = |given: &[Given]| {
        let scope =
            InstrumentationScope { name: "guard".to_owned(), version: env!("CARGO_PKG_VERSION").to_owned() };
        ResourceLogs {
            resource: given.first().map(|first| resource(&first.flat)),
            scope_logs: vec![ScopeLogs {
                scope: Some(scope),
                log_records: given.iter().map(|given| record(&given.flat)).collect(),
            }],
        }
    };
    ExportLogsServiceRequest { resource_logs: batch.chunk_by(|a, b| a.agent == b.agent).map(one).collect() }
}

fn resource(flat: &Flat) -> Resource {
    let named = [("host.name", &flat.host), ("service.instance.id", &flat.agent_id)];
    let mut attributes = vec![pair("service.name", Value::Text("guard".to_owned()))];
    attributes
        .extend(named.iter().filter_map(|(name, value)| Some(pair(name, Value::Text((*value).clone()?)))));
    Resource { attributes }
}

fn record(flat: &Flat) -> LogRecord {
    let (severity_number, severity_text) = severity(flat);
    let mut record = LogRecord {
        time_unix_nano: nanos(flat.occurred_at.unwrap_or_default()),
        observed_time_unix_nano: nanos(crate::store::now()),
        severity_number,
        severity_text: severity_text.to_owned(),
        body: Some(AnyValue { value: Some(Value::Text(body(flat))) }),
        event_name: format!("guard.{}", flat.kind.as_deref().unwrap_or("unknown")),
        ..LogRecord::default()
    };
    if let Some(key) = &flat.key {
        record.attributes.push(pair("log.record.uid", Value::Text(key.clone())));
    }
    for column in COLUMNS {
        let value = match column.get {
            Get::Text(get) => get(flat).map(|text| {
                let end = text.floor_char_boundary(MAX_TEXT);
                record.dropped_attributes_count += u32::from(end < text.len());
                Value::Text(text[..end].to_owned())
            }),
            Get::Int(get) => get(flat).map(|number| Value::Int(*number)),
            Get::Time(get) => get(flat).map(|micros| Value::Text(time(*micros))),
            Get::Bytes(_) => None,
        };
        record.attributes.extend(value.map(|value| pair(&format!("guard.{}", column.name), value)));
    }
    record
}

/// Which statement, which connection, which event, in one line.
fn body(flat: &Flat) -> String {
    let kind = flat.kind.as_deref().unwrap_or("unknown");
    let what =
        flat.statement.as_ref().or(flat.workload.as_ref()).or(flat.event.as_ref()).or(flat.detail.as_ref());
    let mut body = [Some(kind), flat.verdict.as_deref(), what.map(String::as_str)]
        .into_iter()
        .flatten()
        .collect::<Vec<_>>()
        .join(" ");
    body.truncate(body.floor_char_boundary(MAX_TEXT));
    body
}

fn severity(flat: &Flat) -> (i32, &'static str) {
    match (flat.verdict.as_deref(), flat.kind.as_deref()) {
        (_, Some("gap" | "unknown")) => (17, "ERROR"),
        (Some("refused" | "would-refuse" | "held" | "would-hold"), _) => (13, "WARN"),
        _ if flat.access.as_deref() == Some("non-proxied") => (13, "WARN"),
        _ => (9, "INFO"),
    }
}

fn nanos(micros: i64) -> u64 {
    u64::try_from(micros).unwrap_or(0).saturating_mul(1_000)
}

fn pair(name: &str, value: Value) -> KeyValue {
    KeyValue { key: name.to_owned(), value: Some(AnyValue { value: Some(value) }) }
}
