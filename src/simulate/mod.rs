//! A stand-in for a provider.
