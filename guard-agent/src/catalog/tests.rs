//! Whole catalogs.
