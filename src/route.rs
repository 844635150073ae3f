//! Topic and key.
