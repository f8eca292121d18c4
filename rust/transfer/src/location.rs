//! Addresses: their parts, and what a `Location` means where it was found.
//!
//! RFC 3986 §5.2 as far as registries use it: absolute, scheme-relative,
//! path-absolute and path-relative references.

use crate::TransferError;

/// Scheme, authority and the rest of an http or https address.
pub struct Address<'a> {
    /// `http` or `https`.
    pub scheme: &'a str,
    /// `host` or `host:port`.
    pub authority: &'a str,
    /// Everything after the authority: empty, or it begins with `/` or `?`.
    pub rest: &'a str,
}

impl<'a> Address<'a> {
    /// Splits an address.
    pub fn parse(url: &'a str) -> Result<Address<'a>, TransferError> {
        let bad = || TransferError::BadUrl(url.chars().take(200).collect());
        let (scheme, after) = url.split_once("://").ok_or_else(bad)?;
        if !(scheme == "http" || scheme == "https") {
            return Err(bad());
        }
        let end = after.find(['/', '?', '#']).unwrap_or(after.len());
        let (authority, rest) = after.split_at(end);
        // User information in an address would be sent to whoever it names.
        if authority.is_empty() || authority.contains('@') || url.bytes().any(|byte| byte <= b' ') {
            return Err(bad());
        }
        Ok(Address { scheme, authority, rest })
    }

    /// The host without its port, in lower case, and without the brackets of IPv6.
    pub fn host(&self) -> String {
        split_port(self.authority).0.trim_matches(['[', ']']).to_ascii_lowercase()
    }

    /// The port, also when it is the scheme's own.
    pub fn port(&self) -> u16 {
        let default = if self.scheme == "https" { 443 } else { 80 };
        split_port(self.authority).1.and_then(|port| port.parse().ok()).unwrap_or(default)
    }

    /// Whether two addresses lead to the same port of the same host by the same scheme.
    pub fn same_origin(&self, other: &Address<'_>) -> bool {
        self.scheme == other.scheme && self.host() == other.host() && self.port() == other.port()
    }
}

fn split_port(authority: &str) -> (&str, Option<&str>) {
    match authority.rfind(':') {
        Some(at) if !authority[at..].contains(']') => (&authority[..at], Some(&authority[at + 1..])),
        _ => (authority, None),
    }
}

/// The address that `location`, found at `base`, means.
pub fn resolve(base: &str, location: &str) -> Result<String, TransferError> {
    let location = location.split('#').next().unwrap_or("");
    let from = Address::parse(base)?;
    let full = if location.starts_with("http://") || location.starts_with("https://") {
        location.to_owned()
    } else if let Some(after) = location.strip_prefix("//") {
        format!("{}://{after}", from.scheme)
    } else if location.starts_with('/') {
        format!("{}://{}{location}", from.scheme, from.authority)
    } else if location.contains("://") || location.is_empty() {
        return Err(TransferError::BadUrl(location.chars().take(200).collect()));
    } else {
        let path = from.rest.split(['?', '#']).next().unwrap_or("");
        let folder = path.rfind('/').map_or("/", |at| &path[..=at]);
        format!("{}://{}{folder}{location}", from.scheme, from.authority)
    };
    Address::parse(&full)?;
    Ok(full)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locations_mean_what_rfc_3986_says() {
        let base = "https://r.example:5000/v2/app/blobs/uploads/?x=1";
        for (location, expected) in [
            ("https://s3.example/bucket?sig=a%2Fb", "https://s3.example/bucket?sig=a%2Fb"),
            ("//s3.example/b", "https://s3.example/b"),
            ("/v2/app/blobs/uploads/17", "https://r.example:5000/v2/app/blobs/uploads/17"),
            ("18?state=z", "https://r.example:5000/v2/app/blobs/uploads/18?state=z"),
            ("/a#fragment", "https://r.example:5000/a"),
        ] {
            assert_eq!(resolve(base, location).unwrap(), expected, "{location}");
        }
    }

    #[test]
    fn odd_locations_are_refused() {
        for location in
            ["", "ftp://x/y", "https://user:pass@host/", "https:///path", "/a b", "file:///etc/passwd"]
        {
            assert!(resolve("https://r.example/v2/", location).is_err(), "{location}");
        }
    }

    #[test]
    fn ipv6_authorities_have_their_port_told_apart() {
        let with = Address::parse("http://[::1]:5000/v2/").unwrap();
        assert_eq!((with.host().as_str(), with.port()), ("::1", 5000));
        let without = Address::parse("https://[::1]/v2/").unwrap();
        assert_eq!((without.host().as_str(), without.port()), ("::1", 443));
    }
}
