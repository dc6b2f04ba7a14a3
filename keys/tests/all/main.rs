//! Integration tests of the crate `keys`, in one binary.

mod crash;
mod published_vectors;
mod rfc8949;
