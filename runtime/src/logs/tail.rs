//! Where the last lines of a file begin, found from its end so that the cost follows the lines and not the file.

use std::io::{self, Read, Seek, SeekFrom};

const BLOCK_BYTES: u64 = 16 * 1024;

/// The offset at which the last `lines` lines begin; a last line without an end counts.
pub(super) fn start_of_last(file: &mut (impl Read + Seek), lines: u64) -> io::Result<u64> {
    let end = file.seek(SeekFrom::End(0))?;
    if lines == 0 || end == 0 {
        return Ok(end);
    }
    let mut block = vec![0; BLOCK_BYTES as usize];
    let (mut right, mut seen) = (end, 0);
    while right > 0 {
        let left = right.saturating_sub(BLOCK_BYTES);
        let bytes = &mut block[..(right - left) as usize];
        file.seek(SeekFrom::Start(left))?;
        file.read_exact(bytes)?;
        for (index, _) in bytes.iter().enumerate().rev().filter(|(_, byte)| **byte == b'\n') {
            let next = left + index as u64 + 1;
            // The end of the very last line begins no line.
            if next == end {
                continue;
            }
            seen += 1;
            if seen == lines {
                return Ok(next);
            }
        }
        right = left;
    }
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Cursor;

    #[test]
    fn the_last_lines_are_found() {
        let check = |text: &str, lines: u64, want: &str| {
            let start = start_of_last(&mut Cursor::new(text.as_bytes()), lines).unwrap();
            assert_eq!(&text[start as usize..], want, "{lines} of {} bytes", text.len());
        };
        check("", 3, "");
        check("a\nb\nc\n", 0, "");
        check("a\nb\nc\n", 1, "c\n");
        check("a\nb\nc\n", 2, "b\nc\n");
        check("a\nb\nc\n", 9, "a\nb\nc\n");
        check("a\nb\nc", 1, "c");
        check("\n\n", 1, "\n");
        let long = format!("{}\nend\n", "x".repeat(3 * BLOCK_BYTES as usize));
        check(&long, 1, "end\n");
        check(&long, 2, &long);
    }
}
