//! PostgreSQL's frontend/backend protocol, 3.0 to 3.2: framing and the messages that guard reads or writes.
//!
//! Bodies stay as bytes; what guard need not understand is passed on unread. Every length is checked before it is
//! believed. Facts: <https://www.postgresql.org/docs/current/protocol-message-formats.html>.

mod backend;
mod copy_out;
mod description;
mod error;
mod frame;
mod frontend;
mod rows;
mod startup;

pub use backend::{
    Backend, CommandTag, ErrorFields, TransactionStatus, parameter_status, ready_for_query, sasl_mechanisms,
    without_channel_binding,
};
pub use copy_out::CopyOutResponse;
pub use description::describe_portal;
pub use error::{ErrorResponse, Severity};
pub use frame::{HEADER_BYTES, Header, MAX_MESSAGE_BYTES, WireError, cstring};
pub use frontend::{
    BindHead, CloseKind, Frontend, ParseHead, bind_values, close_or_describe, function_oid, parse_message,
    query, query_message,
};
pub use rows::{Columns, DataRow, FieldDescription, RowDescription};
pub use startup::{CancelKey, MAX_STARTUP_BYTES, Startup, StartupPacket, backend_process_id};
