//! Builds and runs the parts.
