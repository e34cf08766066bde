//! The options of cgroups.
#![forbid(unsafe_code)]

use crate::cli::Row;

/// Its rows, in the order of the help.
pub const ROWS: &[Row] = &[];
