//! Policy as code: the Cedar schema, requests built from workloads and statement effects, decisions.

pub mod vocabulary;
