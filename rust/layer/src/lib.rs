//! Image layers: from a blob to a tree that overlayfs can stack, with digests.
//!
//! A layer arrives as a tar, mostly gzip or zstd. [`extract_layer`] turns it
//! into `fs/`, owned by the user alone and made without any privilege, and
//! `index.json`, which holds what such a tree cannot: owners, devices,
//! privileged xattrs. It runs once per layer, on the path between `pull` or
//! `load` and the store; everything after it only mounts.
//!
//! Every byte is hostile until the digests are checked, and after it too. The
//! way through the crate:
//!
//! | module | turns |
//! |---|---|
//! | `section`, `compression`, `digest` | a stretch of a file into bytes, packed bytes into plain ones, bytes into names |
//! | `deflate` | gzip's bytes into plain ones |
//! | `intake`, `chunk`, `keep`, `pipeline` | all of that into chunks and a kept blob, on threads |
//! | `tar` | blocks into members; pure |
//! | `path`, `whiteout`, `xattrs` | names into places, deletions and fates; pure |
//! | `directories`, `writer`, `ledger` | members into files beneath one descriptor |
//! | `parents`, `gate` | lower layers, once they are there, into the merged view that hard links and implied directories need |
//! | `index`, `tree` | what is on disk; also for the runtime |
//! | `copy`, `stack` | an entry, or a whole stack of layers, into another tree: the fallback without overlayfs |
//! | `extract` | the above into one call |
//! | `archive` | an image archive's outer tar into a list of members |
//!
//! And back, from trees to bytes that are always the same:
//!
//! | module | turns |
//! |---|---|
//! | `source` | a description into an archive: the one way in |
//! | `beneath`, `merged` | trees into directories and names, a stack of them into one view |
//! | `changes` | a container's tree into what it changed in the layers below |
//! | `closed` | directories that their owner may not enter into some that it may, for a while |
//! | `facts`, `items` | an entry on disk, or one that was asked for, into a member |
//! | `layer_tar`, `tar::builder` | members into blocks |
//! | `pack` | blocks into a blob, with both digests |
//! | `copying`, `unpack` | one path into a tar, and a tar into a tree that is in use |
//! | `bundle_tar` | documents and blobs into an image archive |
//!
//! # Bindings
//!
//! `duckweed._core` binds these, each without logic:
//! [`extract_layer`] with a [`FileSection`] of the caller's descriptor as its
//! source, [`archive_index`], [`decompress`] (whose answer's `name()` is the
//! result), [`digest_file`], [`Request::write`] plain and into a [`pack::Packer`],
//! and [`bundle_tar::write_parts`]. All of them block; none calls back. To make a
//! long extraction stop, raise [`ExtractOptions::cancel`].
#![forbid(unsafe_code)]

mod archive;
mod base64;
mod beneath;
pub mod bundle_tar;
mod changes;
mod chunk;
mod closed;
pub mod compression;
mod copy;
pub mod copying;
mod deflate;
pub mod digest;
mod directories;
mod error;
mod extract;
mod facts;
mod gate;
pub mod index;
mod intake;
mod items;
mod keep;
mod layer_tar;
mod ledger;
mod merged;
pub mod pack;
mod parents;
pub mod path;
mod pipeline;
mod section;
mod source;
mod stack;
pub mod tar;
pub mod tree;
pub mod unpack;
mod whiteout;
mod writer;
mod xattrs;

pub use archive::{archive_index, Member};
pub use compression::{decompress, Compression, DecompressError};
pub use digest::{digest_file, Digest};
pub use error::{describe, errno_text, ExtractError, WriteError};
pub use extract::{extract_layer, ExtractOptions, LayerReport, Limits};
pub use facts::{At, Facts, NoFacts, Owners};
pub use gate::Gate;
pub use layer_tar::Written;
pub use section::FileSection;
pub use source::{Request, Source};
pub use stack::{copy_layers, CopyError};
