//! The node's containers as the Engine API and tasks see them.
