//! Patched call sites: a call that a program makes again and again is answered inside the program.
//!
//! A stop at a tracer costs five times what the call itself costs. So the tracer replaces the instructions of a place in
//! the program that has proved to be busy, `mov $number, %eax; syscall`, by a jump of the same seven bytes. It leads through a
//! stub of that place's to the handler ([`HANDLER`]), which is mapped at one address in every program; the seccomp
//! filter stops no call that is made there. The handler knows directories: a table that the tracer writes and all programs read
//! ([`layout`]) says for each which trees of the host it is made of. With that it makes the call itself, on the host's files,
//! and mends what root emulation would have another way. All else goes through the stub's second half, a call like the
//! one that was replaced, to the tracer.
//!
//! ```text
//! program        stub (low 2 GiB)              handler
//! jmp *[stub] -> lea rcx, second half  ------> look up, call, mend
//! ...         <- (return address)      <------ done
//!                mov eax, number; syscall  <-- not for us: the tracer's
//!             <- jmp return address
//! ```
//!
//! Nothing here is a boundary: whoever jumps to the handler's instructions can make its calls with any path. What the kernel holds
//! a container to beneath (Landlock) holds for these, too.
#![forbid(unsafe_code)]

/// Where things are, and what the tracer tells the handler.
#[path = "layout.rs"]
pub mod layout;

#[cfg(target_arch = "x86_64")]
mod x86_64 {
    include!(concat!(env!("OUT_DIR"), "/symbols.rs"));

    /// Calls that it answers, by their numbers.
    pub const ANSWERED: [u32; 35] = [
        2, 4, 5, 6, 21, 79, 82, 83, 87, 88, 89, 90, 91, 92, 93, 94, 191, 192, 193, 196, 217, 257, 258, 260,
        262, 263, 264, 266, 267, 268, 269, 280, 316, 332, 439,
    ];

    /// Calls that it makes itself: these are let through when they come from it.
    pub const MADE: [u32; 17] =
        [5, 91, 93, 196, 217, 257, 258, 260, 262, 263, 264, 266, 267, 268, 280, 332, 437];

    const _: () = assert!(HANDLER.len() < crate::layout::TEXT_SIZE as usize);

    /// The handler's bytes; they stand at [`crate::layout::TEXT`].
    pub const HANDLER: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/handler.bin"));

    /// The call site that can be replaced, if it is one: a `mov` of a constant to a register, and `syscall`. The constant is
    /// mostly the call's number, else an argument.
    pub fn is_site(bytes: [u8; 7], number: u32) -> bool {
        let [move_it, a, b, c, d, 0x0f, 0x05] = bytes else { return false };
        match move_it {
            EAX => u32::from_le_bytes([a, b, c, d]) == number,
            EDX | ESI | EDI => true,
            _ => false,
        }
    }

    const EAX: u8 = 0xb8;
    const EDX: u8 = 0xba;
    const ESI: u8 = 0xbe;
    const EDI: u8 = 0xbf;

    /// The jump that replaces it: through the word at the end of the stub at `stub`.
    pub fn jump(stub: u64) -> [u8; 7] {
        let [a, b, c, d] = ((stub + 56) as u32).to_le_bytes();
        [0xff, 0x24, 0x25, a, b, c, d]
    }

    /// The stub at `stub` for a site that was `bytes`, for calls with this number, that go on at `next`.
    pub fn stub(stub: u64, bytes: [u8; 7], number: u32, next: u64) -> [u8; 64] {
        let mut code = [0xcc; 64];
        let [a, b, c, d] = number.to_le_bytes();
        // lea rcx, [rip + 16]; what was replaced; mov eax, number; jmp [rip + 25]
        code[..7].copy_from_slice(&[0x48, 0x8d, 0x0d, 16, 0, 0, 0]);
        code[7..12].copy_from_slice(&bytes[..5]);
        code[12..23].copy_from_slice(&[0xb8, a, b, c, d, 0xff, 0x25, 25, 0, 0, 0]);
        // mov eax, number; syscall; jmp [rip + 0]
        code[23..36].copy_from_slice(&[0xb8, a, b, c, d, 0x0f, 0x05, 0xff, 0x25, 0, 0, 0, 0]);
        code[36..44].copy_from_slice(&next.to_le_bytes());
        code[48..56].copy_from_slice(&(crate::layout::TEXT + ENTER).to_le_bytes());
        code[56..64].copy_from_slice(&stub.to_le_bytes());
        code
    }
}

#[cfg(target_arch = "x86_64")]
pub use x86_64::*;

#[cfg(all(test, target_arch = "x86_64"))]
mod tests {
    use super::layout::{bits_of, Row, BITS, BITS_AT, ROWS, ROWS_AT, STUBS, TABLE_SIZE, TEXT, TEXTS_AT};
    use super::*;

    #[test]
    fn only_a_constant_and_a_call_are_a_site() {
        let of = |first: u8, number: u32| {
            let [a, b, c, d] = number.to_le_bytes();
            [first, a, b, c, d, 0x0f, 0x05]
        };
        assert!(is_site(of(0xb8, 257), 257) && is_site(of(0xbf, 0xffff_ff9c), 257));
        // Another call's number, a register that calls do not look at, no call at all.
        assert!(!is_site(of(0xb8, 256), 257) && !is_site(of(0xb9, 257), 257));
        assert!(!is_site([0xb8, 1, 1, 0, 0, 0x0f, 0x34], 257));
    }

    #[test]
    fn a_stub_leads_to_the_handler_and_back() {
        let next = 0x7f12_3456_789a;
        let site = [0xbf, 0x9c, 0xff, 0xff, 0xff, 0x0f, 0x05];
        let code = stub(STUBS + 64, site, 257, next);
        let word = |at: usize| u64::from_le_bytes(code[at..at + 8].try_into().expect("eight bytes"));
        let distance =
            |at: usize| at as i32 + 4 + i32::from_le_bytes(code[at..at + 4].try_into().expect("four"));
        // Where each instruction with a distance leads: the second half, the handler's address, the return address.
        assert_eq!((distance(3), distance(19), distance(32)), (23, 48, 36));
        assert_eq!((word(36), word(48), word(56)), (next, TEXT + ENTER, STUBS + 64));
        assert_eq!(code[7..12], site[..5]);
        assert_eq!(23 + layout::STUB_RETURN as usize, 36);
        let [0xff, 0x24, 0x25, a, b, c, d] = jump(STUBS + 64) else { panic!("another jump") };
        assert_eq!(u64::from(u32::from_le_bytes([a, b, c, d])), STUBS + 64 + 56);
    }

    #[test]
    fn the_parts_of_the_table_do_not_touch() {
        let parts = [ROWS_AT, BITS_AT, TEXTS_AT, TABLE_SIZE];
        assert!(parts.windows(2).all(|pair| pair[0] < pair[1]));
        assert_eq!(ROWS_AT + (ROWS * size_of::<Row>()) as u64, BITS_AT);
        assert!((0..1000).map(bits_of).all(|(a, b)| a < BITS && b < BITS));
    }

    #[test]
    fn the_handler_begins_with_its_entry_and_reads_where_it_says() {
        // movzx ecx, byte ptr [rsi + rax]; mov rax, -1
        assert_eq!(HANDLER[READ as usize..][..4], [0x0f, 0xb6, 0x0c, 0x06]);
        assert_eq!(HANDLER[FAULT as usize..][..3], [0x48, 0xc7, 0xc0]);
        assert!(MADE.iter().all(|number| *number < 512) && ANSWERED.is_sorted());
    }
}
