//! Bindings of the layer crate: bytes in, trees and digests out.
