//! Policy as code: the Cedar schema, requests built from workloads and statement effects, decisions.
//!
//! A folder of policies enters, once; then principals, actions and objects enter and [`Outcome`]s leave. Any error on
//! the way is a refusal. It does no I/O but reading the folder, and knows nothing of sockets or SQL.

pub mod approval;
pub mod cases;
pub mod columns;
pub mod ground;
pub mod rates;
pub mod request;
mod schema;
pub mod set;
pub mod vocabulary;

pub use approval::{BreakGlass, Needs, Requirement, Wait};
pub use columns::{Column, ColumnAction, Mask, Sight, Use};
pub use ground::{Facts, Ground};
pub use rates::{Rates, RatesKey};
pub use request::{Conditions, Principal, Target};
pub use set::{Origin, Outcome, PolicyError, PolicySet, built_in_cases, is_left_out};
