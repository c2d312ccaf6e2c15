//! The node's data plane, fed by the cluster's directory and the node's own containers.

mod book;
mod container;

pub use self::{
    book::Book,
    container::{LocalContainer, NetworkFacts, Place},
};
