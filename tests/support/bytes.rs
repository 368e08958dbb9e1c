//! Bytes as words of a text line, and file contents that a number describes.

/// `bytes` as one printable word; `unescape` gives them back.
pub fn escape(bytes: &[u8]) -> String {
    if bytes.is_empty() {
        return "%".into();
    }
    let mut out = String::new();
    for &b in bytes {
        if b.is_ascii_alphanumeric() || b"._/+-:,".contains(&b) {
            out.push(char::from(b));
        } else {
            out.push_str(&format!("%{b:02x}"));
        }
    }
    out
}

/// The bytes of a word that `escape` made.
pub fn unescape(word: &str) -> Vec<u8> {
    let mut out = Vec::new();
    if word == "%" {
        return out;
    }
    let raw = word.as_bytes();
    let mut at = 0;
    while at < raw.len() {
        if raw[at] == b'%' {
            out.push(
                u8::from_str_radix(&word[at + 1..at + 3], 16).expect("two hex digits after %"),
            );
            at += 3;
        } else {
            out.push(raw[at]);
            at += 1;
        }
    }
    out
}

/// Bytes that depend on `seed` and on the place in the file.
pub fn fill(seed: u64, offset: u64, len: usize) -> Vec<u8> {
    (0..len as u64)
        .map(|i| {
            let at = offset + i;
            // 251 is prime, so that shifted data never looks right; never 0, which a hole is.
            ((at.wrapping_mul(31) ^ (at >> 8) ^ seed.wrapping_mul(97)) % 251) as u8 + 1
        })
        .collect()
}

/// FNV-1a, enough to tell contents apart in a message.
pub fn digest(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |h, &b| {
        (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3)
    })
}
