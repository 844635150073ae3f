//! Linxup.
