//! Headers and bytes.
