//! Which shared libraries a program of this machine needs: asked of the loader that the program itself names.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const MAGIC: [u8; 4] = *b"\x7fELF";
const CLASS_64: u8 = 2;
const LITTLE_ENDIAN: u8 = 1;
const SEGMENT_INTERPRETER: u32 = 3;
const PATH_BYTES_MAX: u64 = 4096;

/// The loader and the libraries of a program, by the paths at which they are looked for; nothing for a static program.
///
/// The loader is run to list them, as `ldd` does.
pub(super) fn libraries(program: &Path) -> io::Result<Vec<PathBuf>> {
    let Some(loader) = interpreter(&mut File::open(program)?)? else { return Ok(Vec::new()) };
    let listed = Command::new(&loader).arg("--list").arg(program).stdin(Stdio::null()).output()?;
    if !listed.status.success() {
        let words = String::from_utf8_lossy(&listed.stderr).trim().to_owned();
        // A program without libraries has a loader only for its own relocation.
        return if words.contains("statically linked") {
            Ok(Vec::new())
        } else {
            Err(io::Error::other(words))
        };
    }
    let mut found = parse_list(&String::from_utf8_lossy(&listed.stdout))?;
    found.push(loader);
    found.sort();
    found.dedup();
    Ok(found)
}

/// Lines are `name => /path (0x...)`, `/path (0x...)`, `name => not found` or a kernel's object without a path.
fn parse_list(text: &str) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for line in text.lines() {
        let target = line.split_once("=>").map_or(line, |(_, target)| target).trim();
        if target == "not found" {
            return Err(io::Error::new(io::ErrorKind::NotFound, format!("shared library {}", line.trim())));
        }
        let path = target.split(" (0x").next().unwrap_or_default().trim();
        if path.starts_with('/') {
            found.push(PathBuf::from(path));
        }
    }
    Ok(found)
}

/// The loader that a program names; `None` where it is no dynamic ELF program of this kind of machine.
fn interpreter(file: &mut (impl Read + Seek)) -> io::Result<Option<PathBuf>> {
    let mut head = [0; 64];
    if file.read_exact(&mut head).is_err()
        || head[..4] != MAGIC
        || head[4] != CLASS_64
        || head[5] != LITTLE_ENDIAN
    {
        return Ok(None);
    }
    let word = |at: usize| u64::from_le_bytes(std::array::from_fn(|index| head[at + index]));
    let half = |at: usize| u64::from(u16::from_le_bytes([head[at], head[at + 1]]));
    let (table, size, count) = (word(32), half(54), half(56));
    for index in 0..count {
        let mut segment = [0; 56];
        file.seek(SeekFrom::Start(table.saturating_add(index * size)))?;
        file.read_exact(&mut segment)?;
        let word = |at: usize| u64::from_le_bytes(std::array::from_fn(|index| segment[at + index]));
        if u32::from_le_bytes([segment[0], segment[1], segment[2], segment[3]]) != SEGMENT_INTERPRETER {
            continue;
        }
        let (offset, length) = (word(8), word(32));
        if length > PATH_BYTES_MAX {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the loader's path is too long"));
        }
        let mut path = vec![0; length as usize];
        file.seek(SeekFrom::Start(offset))?;
        file.read_exact(&mut path)?;
        let path = String::from_utf8_lossy(&path);
        return Ok(Some(PathBuf::from(path.trim_end_matches('\0'))));
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Cursor;

    #[test]
    fn a_loaders_list_is_read() {
        let text = "\tlinux-vdso.so.1 (0x1)\n\tlibc.so.6 => /lib/libc.so.6 (0x2)\n\t/lib64/ld.so (0x3)\n";
        assert_eq!(
            parse_list(text).unwrap(),
            [PathBuf::from("/lib/libc.so.6"), PathBuf::from("/lib64/ld.so")]
        );
        assert!(parse_list("\tlibx.so => not found\n").is_err());
    }

    #[test]
    fn what_is_no_program_has_no_loader() {
        for bytes in [&b""[..], b"#!/bin/sh\n", &[0x7f, b'E', b'L', b'F', 1, 1]] {
            assert_eq!(interpreter(&mut Cursor::new(bytes)).unwrap(), None);
        }
        let own = std::env::current_exe().unwrap();
        let found = libraries(&own).unwrap();
        assert!(found.iter().all(|path| path.is_file()), "{found:?}");
    }
}
