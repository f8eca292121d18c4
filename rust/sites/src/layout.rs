// Where things are, and what the tracer tells the handler. Compiled twice: into this crate, and into the handler, which has
// neither a standard library nor a crate to import from.

/// Where the handler's instructions are in every address space: a part that no kernel uses by itself, for programs as
/// sanitizers see it.
pub const TEXT: u64 = 0x5660_0000_0000;
/// Its room. Calls made from here are not stopped.
pub const TEXT_SIZE: u64 = 0x1_0000;
/// Where the table is that the tracer writes and everybody reads.
pub const TABLE: u64 = TEXT + 0x100_0000;
/// Memory of the process's own.
pub const PRIVATE: u64 = TEXT + 0x200_0000;
/// Its size, bytes.
pub const PRIVATE_SIZE: u64 = 64 + 16 * KNOWN as u64;
/// Where the ways from patched sites begin: a jump through memory reaches the low 2 GiB alone.
pub const STUBS: u64 = 0x7fd0_0000;
/// Room for 1023 of them.
pub const STUBS_SIZE: u64 = 0x1_0000;
/// The size of one.
pub const STUB: u64 = 64;
/// Where in a stub the return address is, counted from its second half.
pub const STUB_RETURN: u64 = 13;

/// How many directories of layers a process remembers by itself; a power of two.
pub const KNOWN: usize = 4096;

/// The table's first words.
#[repr(C)]
pub struct Head {
    /// Which names lead where: older rows with a text do not count.
    pub names: u64,
    /// Which directories come from a layer alone: what processes remember from before does not count.
    pub lower: u64,
    /// Our user on the host, who is root inside.
    pub uid: u32,
    /// Our group.
    pub gid: u32,
    /// A record may be a device's.
    pub has_devices: u32,
    /// The rows' room is used up to here.
    pub spare: u32,
}

/// How many trees a row can tell.
pub const TREES: usize = 6;
/// `text_length` of a row that is found by the directory itself.
pub const BY_IDENTITY: u32 = u32::MAX;

/// Row flag: it counts.
pub const VALID: u32 = 1;
/// Row flag: the first tree is the one that is written to.
pub const UPPER: u32 = 2;
/// Row flag: its files may be changed and removed there.
pub const WRITE: u32 = 4;
/// Row flag: files made there belong to who makes them.
pub const CREATE: u32 = 8;
/// Row flag: the kernel's listing is the whole truth.
pub const LISTED: u32 = 16;
/// Row flag: nothing may be written here.
pub const READ_ONLY: u32 = 32;
/// Row flag: a layer's alone, and so is all beneath but what is special.
pub const LOWER: u32 = 128;
/// Row flag: the directory above lies in the same trees.
pub const INNER: u32 = 256;
/// Row flag: its listing is in the texts.
pub const TOLD: u32 = 1024;
/// Row flag: the upper tree has it, and layers have a part in it.
pub const MERGED: u32 = 512;

/// What is known of a directory.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Row {
    /// Odd: it is being written.
    pub sequence: u32,
    /// See the flags.
    pub flags: u32,
    /// Of what it is found by.
    pub hash: u64,
    /// The directory that the text begins at, or that it is: device and inode; 0, 0: the root.
    pub device: u64,
    /// See `device`.
    pub inode: u64,
    /// `Head::names` as it was. Of a row that is found by identity: where in the texts the directory's own path is, and its length.
    pub names: u64,
    /// The path as programs write it: where in the texts.
    pub text: u32,
    /// Its length, or [`BY_IDENTITY`].
    pub text_length: u32,
    /// How many trees it comes from.
    pub trees: u32,
    /// How many of its names are not for us.
    pub specials: u32,
    /// Where in the texts their hashes are.
    pub special: u32,
    /// Nothing.
    pub spare: u32,
    /// Where in the texts the trees' host paths are, and their lengths.
    pub tree: [(u32, u32); TREES],
    /// With [`MERGED`]: device and inode that the directory is shown under. With [`TOLD`]: where in the texts its listing is, as
    /// getdents64(2) gives it, with its length above; and how many names that has.
    pub more: [u64; 2],
}

/// How many rows; a power of two.
pub const ROWS: usize = 16384;
/// How far a row can be from where its hash puts it.
pub const REACH: usize = 16;
/// Where the rows begin in the table.
pub const ROWS_AT: u64 = 4096;
/// Where the bits begin: two for each inode with a record.
pub const BITS_AT: u64 = ROWS_AT + (ROWS * 128) as u64;
/// How many, a power of two.
pub const BITS: u64 = 1 << 23;
/// Where the texts begin.
pub const TEXTS_AT: u64 = BITS_AT + BITS / 8;
/// Room for them.
pub const TEXTS: u64 = 0x40_0000;
/// The size of the table, bytes.
pub const TABLE_SIZE: u64 = TEXTS_AT + TEXTS;

/// The process's own memory.
#[repr(C)]
pub struct Own {
    /// Not zero: every call goes to the tracer.
    pub is_off: u64,
    /// Nothing.
    pub spare: [u64; 7],
    /// Directories of layers: generation, and hash of the identity.
    pub known: [(u64, u64); KNOWN],
}

/// Spreads bits.
#[inline(always)]
pub const fn mix(word: u64) -> u64 {
    let word = (word ^ (word >> 32)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    word ^ (word >> 29)
}

/// The two bits of an inode.
#[inline(always)]
pub const fn bits_of(inode: u64) -> (u64, u64) {
    let hash = mix(inode);
    (hash & (BITS - 1), (hash >> 32) & (BITS - 1))
}

/// The hash of a directory by its identity.
#[inline(always)]
pub const fn hash_of_identity(device: u64, inode: u64) -> u64 {
    mix(inode.wrapping_add(device << 40)) | 1
}

/// One step of a text's hash.
#[inline(always)]
pub const fn step(hash: u64, byte: u8) -> u64 {
    (hash ^ byte as u64).wrapping_mul(0x100_0000_01b3)
}

/// Where a text's hash begins.
pub const EMPTY: u64 = 0xcbf2_9ce4_8422_2325;

/// The hash of a text that begins at a directory.
#[inline(always)]
pub const fn hash_from(device: u64, inode: u64, text: u64) -> u64 {
    mix(text ^ inode.wrapping_mul(31).wrapping_add(device << 40)) | 1
}

const _: () = assert!(core::mem::size_of::<Row>() == 128);
