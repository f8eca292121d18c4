//! Compiles the handler by itself and lays it out as one block of bytes that can stand anywhere: no library, no stack switch,
//! no address that would have to be written when it is loaded. Whatever asks for one of these fails the build here.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use object::read::elf::ElfFile64;
use object::{
    Object as _, ObjectSection as _, ObjectSymbol as _, RelocationFlags, RelocationTarget, SectionKind,
};

const R_X86_64_PC32: u32 = 2;
const R_X86_64_PLT32: u32 = 4;
/// Through a word that holds the target's address: there is one for each target, since the address is known.
const THROUGH_A_WORD: [u32; 3] = [9, 41, 42];

#[allow(dead_code)]
#[path = "src/layout.rs"]
mod layout;

fn main() {
    for file in ["build.rs", "src/handler.rs", "src/layout.rs"] {
        println!("cargo::rerun-if-changed={file}");
    }
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets it"));
    if env::var("CARGO_CFG_TARGET_ARCH").as_deref() != Ok("x86_64") {
        return;
    }
    let object = out.join("handler.o");
    compile(&object);
    let (bytes, symbols) = link(&fs::read(&object).expect("the object file"));
    fs::write(out.join("handler.bin"), bytes).expect("write the handler");
    let constants: String =
        [("ENTER", "dw_enter"), ("READ", "dw_read"), ("PUT", "dw_put"), ("FAULT", "dw_fault")]
            .iter()
            .map(|(name, symbol)| {
                format!(
                    "/// Where in the handler `{symbol}` is.\npub const {name}: u64 = {:#x};\n",
                    symbols[*symbol]
                )
            })
            .collect();
    fs::write(out.join("symbols.rs"), constants).expect("write the symbols");
}

fn compile(to: &Path) {
    let rustc = env::var_os("RUSTC").expect("cargo sets it");
    let options = [
        "opt-level=3",
        "codegen-units=1",
        "panic=abort",
        "overflow-checks=off",
        "relocation-model=pic",
        "code-model=small",
        "target-cpu=x86-64",
        "force-unwind-tables=no",
        "no-vectorize-loops",
        "no-vectorize-slp",
    ];
    let status = Command::new(rustc)
        .args(["--edition", "2021", "--crate-type", "lib", "--crate-name", "handler", "--emit"])
        .arg(format!("obj={}", to.display()))
        .arg("--target")
        .arg(env::var("TARGET").expect("cargo sets it"))
        .args(options.iter().flat_map(|option| ["-C", option]))
        .arg("src/handler.rs")
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .status()
        .expect("run the compiler");
    assert!(status.success(), "the handler does not compile");
}

fn link(object: &[u8]) -> (Vec<u8>, HashMap<String, u64>) {
    let file: ElfFile64<'_> = ElfFile64::parse(object).expect("an object file");
    let (mut bytes, mut places) = (Vec::new(), HashMap::new());
    for section in file.sections() {
        match section.kind() {
            SectionKind::Text | SectionKind::ReadOnlyData | SectionKind::ReadOnlyString
                if section.size() > 0 =>
            {
                bytes.resize(bytes.len().next_multiple_of(section.align().max(16) as usize), 0xcc);
                places.insert(section.index(), bytes.len() as u64);
                bytes.extend_from_slice(section.data().expect("a section"));
            }
            SectionKind::Data | SectionKind::UninitializedData | SectionKind::ReadOnlyDataWithRel => {
                assert_eq!(
                    section.size(),
                    0,
                    "the handler keeps something in {}",
                    section.name().unwrap_or_default()
                );
            }
            _ => {}
        }
    }
    for section in file.sections() {
        let Some(base) = places.get(&section.index()) else { continue };
        for (offset, relocation) in section.relocations() {
            let RelocationFlags::Elf { r_type } = relocation.flags() else { panic!("not ELF") };
            let RelocationTarget::Symbol(index) = relocation.target() else {
                panic!("a target that is no symbol")
            };
            let symbol = file.symbol_by_index(index).expect("a symbol");
            let home = symbol.section_index().and_then(|index| places.get(&index));
            let home =
                home.unwrap_or_else(|| panic!("the handler needs {}", symbol.name().unwrap_or_default()));
            let place = base + offset;
            let target = match r_type {
                R_X86_64_PC32 | R_X86_64_PLT32 => home + symbol.address(),
                _ if THROUGH_A_WORD.contains(&r_type) => {
                    let end = bytes.len().next_multiple_of(8);
                    bytes.resize(end, 0xcc);
                    bytes.extend_from_slice(&(layout::TEXT + home + symbol.address()).to_le_bytes());
                    end as u64
                }
                other => panic!("relocation {other} cannot be done without a loader"),
            };
            let value = target as i64 + relocation.addend() - place as i64;
            let value = i32::try_from(value).expect("a short distance");
            bytes[place as usize..place as usize + 4].copy_from_slice(&value.to_le_bytes());
        }
    }
    let symbols = file
        .symbols()
        .filter_map(|symbol| {
            let home = places.get(&symbol.section_index()?)?;
            Some((symbol.name().ok()?.to_owned(), home + symbol.address()))
        })
        .collect();
    (bytes, symbols)
}
