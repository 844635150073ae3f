//! Custom data onto the objects.
