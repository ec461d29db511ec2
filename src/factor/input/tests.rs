//! Tests of panel input.
