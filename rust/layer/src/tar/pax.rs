//! PAX extended headers: records of the form `LENGTH KEY=VALUE\n`.
//!
//! The length counts itself. Values are bytes, except that keys which become
//! names may not hold a NUL. Unknown keys are ignored, as POSIX asks.

use super::{sparse, Fault, Segment, Time};
use crate::base64;

/// What a PAX header says about the member after it.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Extension {
    /// `path`.
    pub path: Option<Vec<u8>>,
    /// `linkpath`.
    pub link: Option<Vec<u8>>,
    /// `size`.
    pub size: Option<u64>,
    /// `uid`.
    pub uid: Option<u64>,
    /// `gid`.
    pub gid: Option<u64>,
    /// `mtime`.
    pub mtime: Option<Time>,
    /// `SCHILY.xattr.*` and `LIBARCHIVE.xattr.*`.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// `GNU.sparse.*`.
    pub sparse: Sparse,
}

/// The `GNU.sparse.*` keys. Their three versions are told apart by which are there.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Sparse {
    /// `GNU.sparse.major` and `.minor`; 1.0 keeps its map in the body.
    pub version: (u64, u64),
    /// `GNU.sparse.name`: the real path, as `path` has a made-up one.
    pub name: Option<Vec<u8>>,
    /// `GNU.sparse.size` (0.x) or `.realsize` (1.0).
    pub size: Option<u64>,
    /// 0.0: pairs of `.offset` and `.numbytes`; 0.1: one `.map`.
    pub map: Option<Vec<Segment>>,
    /// An `.offset` that waits for its `.numbytes`.
    offset: Option<u64>,
}

impl Extension {
    /// Reads all records of a header. An empty value takes an earlier one back.
    pub fn parse(mut bytes: &[u8]) -> Result<Extension, Fault> {
        let mut extension = Extension::default();
        while !bytes.is_empty() {
            let (record, rest) = split_record(bytes)?;
            extension.take(record.key, record.value)?;
            bytes = rest;
        }
        if extension.sparse.offset.is_some() {
            return Err(Fault::Sparse("an offset without its length"));
        }
        Ok(extension)
    }

    fn take(&mut self, key: &[u8], value: &[u8]) -> Result<(), Fault> {
        match key {
            b"path" => self.path = name(value)?,
            b"linkpath" => self.link = name(value)?,
            b"size" => self.size = optional(value, decimal)?,
            b"uid" => self.uid = optional(value, decimal)?,
            b"gid" => self.gid = optional(value, decimal)?,
            b"mtime" => self.mtime = optional(value, time)?,
            _ => {
                if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
                    self.set_xattr(name.to_vec(), value.to_vec(), true)?;
                } else if let Some(name) = key.strip_prefix(b"LIBARCHIVE.xattr.") {
                    let value = base64::decode(value).ok_or(Fault::Pax("an xattr is not base64"))?;
                    self.set_xattr(percent_decoded(name), value, false)?;
                } else if let Some(key) = key.strip_prefix(b"GNU.sparse.") {
                    self.sparse.take(key, value)?;
                }
            }
        }
        Ok(())
    }

    /// bsdtar writes every xattr in both spellings; SCHILY's wins as it needs no decoding.
    fn set_xattr(&mut self, name: Vec<u8>, value: Vec<u8>, wins: bool) -> Result<(), Fault> {
        if name.is_empty() || name.len() > 255 || name.contains(&0) {
            return Err(Fault::Pax("a bad xattr name"));
        }
        match self.xattrs.iter().position(|(known, _)| *known == name) {
            Some(place) if wins => self.xattrs[place].1 = value,
            Some(_) => {}
            // The lookup above is a walk: the limit keeps a header of tiny xattrs from being quadratic.
            None if self.xattrs.len() >= 1024 => return Err(Fault::Pax("more than 1024 xattrs")),
            None => self.xattrs.push((name, value)),
        }
        Ok(())
    }
}

impl Sparse {
    /// Whether any key was there that makes the member sparse.
    pub fn is_present(&self) -> bool {
        self.version != (0, 0) || self.map.is_some() || self.size.is_some()
    }

    fn take(&mut self, key: &[u8], value: &[u8]) -> Result<(), Fault> {
        let number = || decimal(value).ok_or(Fault::Sparse("not a number"));
        match key {
            b"major" => self.version.0 = number()?,
            b"minor" => self.version.1 = number()?,
            b"name" => self.name = name(value)?,
            b"size" | b"realsize" => self.size = Some(number()?),
            b"map" => self.map = Some(sparse::parse_list(value)?),
            b"offset" if self.offset.is_some() => return Err(Fault::Sparse("an offset without its length")),
            b"offset" => self.offset = Some(number()?),
            b"numbytes" => {
                let offset = self.offset.take().ok_or(Fault::Sparse("a length without its offset"))?;
                let segment = Segment { offset, length: number()? };
                self.map.get_or_insert_with(Vec::new).push(segment);
            }
            _ => {}
        }
        Ok(())
    }
}

/// One record.
struct Record<'a> {
    key: &'a [u8],
    value: &'a [u8],
}

/// Splits the first record off.
fn split_record(bytes: &[u8]) -> Result<(Record<'_>, &[u8]), Fault> {
    let space = bytes.iter().take(21).position(|&byte| byte == b' ').ok_or(Fault::Pax("no length"))?;
    let length = decimal(&bytes[..space]).ok_or(Fault::Pax("a bad length"))?;
    let length = usize::try_from(length).map_err(|_| Fault::Pax("a bad length"))?;
    if length <= space + 1 || length > bytes.len() {
        return Err(Fault::Pax("a length that does not fit"));
    }
    let (whole, rest) = bytes.split_at(length);
    let body = whole[space + 1..].strip_suffix(b"\n").ok_or(Fault::Pax("no newline at its end"))?;
    let equals = body.iter().position(|&byte| byte == b'=').ok_or(Fault::Pax("no equals sign"))?;
    let record = Record { key: &body[..equals], value: &body[equals + 1..] };
    if record.key.is_empty() || record.key.contains(&0) {
        return Err(Fault::Pax("a bad key"));
    }
    Ok((record, rest))
}

fn name(value: &[u8]) -> Result<Option<Vec<u8>>, Fault> {
    if value.contains(&0) {
        return Err(Fault::Pax("a NUL in a name"));
    }
    Ok(if value.is_empty() { None } else { Some(value.to_vec()) })
}

fn optional<T>(value: &[u8], parse: impl Fn(&[u8]) -> Option<T>) -> Result<Option<T>, Fault> {
    match value {
        b"" => Ok(None),
        _ => parse(value).map(Some).ok_or(Fault::Pax("a bad number")),
    }
}

/// Decimal digits only: no sign, no blanks; at most `i64::MAX`, as sizes in the kernel.
pub fn decimal(text: &[u8]) -> Option<u64> {
    if text.is_empty() {
        return None;
    }
    let n = text.iter().try_fold(0i64, |n, &digit| match digit {
        b'0'..=b'9' => n.checked_mul(10)?.checked_add(i64::from(digit - b'0')),
        _ => None,
    })?;
    u64::try_from(n).ok()
}

/// `[-]SECONDS[.FRACTION]`; digits beyond nanoseconds are cut off.
fn time(text: &[u8]) -> Option<Time> {
    let (is_negative, text) = match text.strip_prefix(b"-") {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let mut parts = text.splitn(2, |&byte| byte == b'.');
    let seconds = i64::try_from(decimal(parts.next()?)?).ok()?;
    let fraction = parts.next().unwrap_or_default();
    if !fraction.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let digits = fraction.iter().chain(std::iter::repeat(&b'0')).take(9);
    let nanoseconds = digits.fold(0, |n, digit| n * 10 + u32::from(digit - b'0'));
    Some(match (is_negative, nanoseconds) {
        (false, _) => Time { seconds, nanoseconds },
        (true, 0) => Time { seconds: -seconds, nanoseconds },
        (true, _) => Time { seconds: -seconds - 1, nanoseconds: 1_000_000_000 - nanoseconds },
    })
}

/// LIBARCHIVE writes xattr names URL-encoded.
fn percent_decoded(name: &[u8]) -> Vec<u8> {
    let hex = |digit: u8| (digit as char).to_digit(16).map(|n| n as u8);
    let mut decoded = Vec::with_capacity(name.len());
    let mut rest = name;
    while let Some((&first, tail)) = rest.split_first() {
        match (first, tail) {
            (b'%', [high, low, after @ ..]) if hex(*high).is_some() && hex(*low).is_some() => {
                decoded.push(hex(*high).unwrap_or(0) << 4 | hex(*low).unwrap_or(0));
                rest = after;
            }
            _ => {
                decoded.push(first);
                rest = tail;
            }
        }
    }
    decoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_become_fields() {
        let pairs: [(&str, &[u8]); 4] = [
            ("path", b"a\xff/long/nam"),
            ("mtime", b"1.500000001"),
            ("SCHILY.xattr.user.a", b"\0b\n"),
            ("unknown.key", b"zzz"),
        ];
        let text: Vec<u8> = pairs.iter().flat_map(|(key, value)| record(key, value)).collect();
        let extension = Extension::parse(&text).unwrap();
        assert_eq!(extension.path.unwrap(), b"a\xff/long/nam");
        assert_eq!(extension.mtime.unwrap(), Time { seconds: 1, nanoseconds: 500_000_001 });
        assert_eq!(extension.xattrs, [(b"user.a".to_vec(), b"\0b\n".to_vec())]);
    }

    /// A record with its length worked out.
    fn record(key: &str, value: &[u8]) -> Vec<u8> {
        let body = [key.as_bytes(), b"=", value, b"\n"].concat();
        let mut length = body.len() + 2;
        while format!("{length} ").len() + body.len() != length {
            length += 1;
        }
        [format!("{length} ").as_bytes(), &body[..]].concat()
    }

    #[test]
    fn libarchive_xattrs_are_decoded_and_yield_to_schily() {
        let encoded = record("LIBARCHIVE.xattr.user.a%2Cb", b"Zg");
        let plain = record("SCHILY.xattr.user.a,b", b"x");
        let value = |records: &[&[u8]]| Extension::parse(&records.concat()).unwrap().xattrs;
        assert_eq!(value(&[&encoded]), [(b"user.a,b".to_vec(), b"f".to_vec())]);
        assert_eq!(value(&[&encoded, &plain]), [(b"user.a,b".to_vec(), b"x".to_vec())]);
        assert_eq!(value(&[&plain, &encoded]), [(b"user.a,b".to_vec(), b"x".to_vec())]);
    }

    #[test]
    fn times_before_the_epoch_round_down() {
        type Row = (&'static [u8], Option<(i64, u32)>);
        let table: &[Row] = &[
            (b"1", Some((1, 0))),
            (b"1.5", Some((1, 500_000_000))),
            (b"1.", Some((1, 0))),
            (b"-1", Some((-1, 0))),
            (b"-1.25", Some((-2, 750_000_000))),
            (b"0.1234567899", Some((0, 123_456_789))),
            (b"9223372036854775807", Some((i64::MAX, 0))),
            (b"-9223372036854775807.5", Some((i64::MIN, 500_000_000))),
            (b"9223372036854775808", None),
            (b".5", None),
            (b"1.x", None),
            (b"--1", None),
            (b"+1", None),
        ];
        for (text, expected) in table {
            let expected = expected.map(|(seconds, nanoseconds)| Time { seconds, nanoseconds });
            assert_eq!(time(text), expected, "{text:?}");
        }
    }

    #[test]
    fn malformed_records_are_refused() {
        let table: &[&[u8]] = &[
            b"path=x\n",
            b"0 \n",
            b"4 a=\n",
            b"6 a=b\n\n",
            b"7 a=b\n",
            b"99999999999999999999 a=b\n",
            b"-6 a=b\n",
            b" 6 a=b\n",
            b"06 a=bc",
            b"7 =abc\n",
            b"8 ab\0=c\n",
            b"6 abc\n",
            &record("path", b"a\0"),
            &record("size", b"-1"),
            &record("size", b"0x10"),
            &record("size", b"99999999999999999999"),
            &record("uid", b" 1"),
            &record("mtime", b"1e3"),
            &record("GNU.sparse.map", b"1"),
            &record("GNU.sparse.map", b"1,2,"),
            &record("GNU.sparse.numbytes", b"1"),
            &record("GNU.sparse.offset", b"1"),
            &record("GNU.sparse.major", b"one"),
            &record("LIBARCHIVE.xattr.user.a", b"Z"),
            &record("SCHILY.xattr.", b"x"),
        ];
        for text in table {
            assert!(Extension::parse(text).is_err(), "{}", text.escape_ascii());
        }
    }
}
