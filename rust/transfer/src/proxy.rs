//! Which proxy an address goes through: `HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY` and `NO_PROXY`.
//!
//! The rules are those of Go's `httpproxy` package, which Docker users' settings
//! are made for: names match themselves and their subdomains, addresses match
//! exactly or by CIDR, a port narrows an entry, `*` matches all, and the machine
//! itself is never reached through a proxy.

use std::net::IpAddr;

use crate::location::Address;

/// The environment's proxy settings.
#[derive(Clone, Debug, Default)]
pub struct Proxies {
    http: Option<String>,
    https: Option<String>,
    except: Vec<String>,
}

impl Proxies {
    /// Reads the settings from `get`, which looks up a variable.
    pub fn read(get: impl Fn(&str) -> Option<String>) -> Proxies {
        let either = |name: &str| {
            let found = get(name).filter(|value| !value.is_empty());
            found.or_else(|| get(&name.to_lowercase()).filter(|value| !value.is_empty()))
        };
        let all = either("ALL_PROXY");
        let except = either("NO_PROXY").unwrap_or_default();
        Proxies {
            http: either("HTTP_PROXY").or_else(|| all.clone()),
            https: either("HTTPS_PROXY").or(all),
            except: except.split(',').map(|entry| entry.trim().to_ascii_lowercase()).collect(),
        }
    }

    /// The proxy for an address; none: it is reached directly.
    pub fn choose(&self, address: &Address<'_>) -> Option<&str> {
        let proxy = if address.scheme == "https" { &self.https } else { &self.http };
        let proxy = proxy.as_deref()?;
        let (host, port) = (address.host(), address.port());
        let ip = host.parse::<IpAddr>().ok();
        let is_here = host == "localhost" || ip.is_some_and(|ip| ip.is_loopback());
        let excepted = self.except.iter().any(|entry| matches(entry, &host, port, ip));
        (!is_here && !excepted).then_some(proxy)
    }
}

fn matches(entry: &str, host: &str, port: u16, ip: Option<IpAddr>) -> bool {
    match entry {
        "" => return false,
        "*" => return true,
        _ => {}
    }
    if let Some((network, bits)) = entry.split_once('/') {
        let network = network.parse::<IpAddr>();
        return match (network, bits.parse::<u32>(), ip) {
            (Ok(network), Ok(bits), Some(ip)) => contains(network, bits, ip),
            _ => false,
        };
    }
    if let (Ok(entry), Some(ip)) = (entry.trim_matches(['[', ']']).parse::<IpAddr>(), ip) {
        return entry == ip;
    }
    let (name, wanted) = match entry.rsplit_once(':') {
        Some((name, digits)) if !name.contains(':') => (name, digits.parse::<u16>().ok()),
        _ => (entry, None),
    };
    if wanted.is_some_and(|wanted| wanted != port) {
        return false;
    }
    let name = name.strip_prefix('*').unwrap_or(name);
    match name.strip_prefix('.') {
        Some(domain) => host.strip_suffix(domain).is_some_and(|rest| rest.ends_with('.')),
        None => host == name || host.strip_suffix(name).is_some_and(|rest| rest.ends_with('.')),
    }
}

fn contains(network: IpAddr, bits: u32, ip: IpAddr) -> bool {
    let (network, ip, width): (u128, u128, u32) = match (network, ip) {
        (IpAddr::V4(network), IpAddr::V4(ip)) => {
            (u128::from(network.to_bits()), u128::from(ip.to_bits()), 32)
        }
        (IpAddr::V6(network), IpAddr::V6(ip)) => (network.to_bits(), ip.to_bits(), 128),
        _ => return false,
    };
    match width.checked_sub(bits) {
        None => false,
        Some(shift) => network.checked_shr(shift).unwrap_or(0) == ip.checked_shr(shift).unwrap_or(0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxies(no_proxy: &str) -> Proxies {
        let no_proxy = no_proxy.to_owned();
        Proxies::read(move |name| match name {
            "HTTPS_PROXY" => Some("http://secure:3128".to_owned()),
            "http_proxy" => Some("http://plain:3128".to_owned()),
            "NO_PROXY" => Some(no_proxy.clone()),
            _ => None,
        })
    }

    fn chosen(no_proxy: &str, url: &str) -> Option<String> {
        proxies(no_proxy).choose(&Address::parse(url).unwrap()).map(str::to_owned)
    }

    #[test]
    fn each_scheme_has_its_proxy() {
        assert_eq!(chosen("", "https://r.example/v2/").as_deref(), Some("http://secure:3128"));
        assert_eq!(chosen("", "http://r.example/v2/").as_deref(), Some("http://plain:3128"));
    }

    #[test]
    fn the_machine_itself_is_reached_directly() {
        for url in ["http://localhost:5000/", "http://127.0.0.1:5000/", "http://127.9.9.9/", "https://[::1]/"]
        {
            assert_eq!(chosen("", url), None, "{url}");
        }
    }

    #[test]
    fn exceptions_match_as_in_go() {
        for (entry, url, direct) in [
            ("example.com", "https://example.com/", true),
            ("example.com", "https://r.example.com/", true),
            ("example.com", "https://badexample.com/", false),
            (".example.com", "https://example.com/", false),
            (".example.com", "https://r.example.com/", true),
            ("*.example.com", "https://r.example.com/", true),
            ("r.example.com:5000", "https://r.example.com:5000/", true),
            ("r.example.com:5000", "https://r.example.com/", false),
            ("10.0.0.0/8", "https://10.2.3.4/", true),
            ("10.0.0.0/8", "https://11.2.3.4/", false),
            ("10.0.0.0/0", "https://11.2.3.4/", true),
            ("10.0.0.0/33", "https://10.0.0.0/", false),
            ("192.168.1.1", "https://192.168.1.1:5000/", true),
            ("fd00::/8", "https://[fd12::1]/", true),
            ("*", "https://anything.example/", true),
            ("a.example, b.example", "https://b.example/", true),
            (",,", "https://b.example/", false),
        ] {
            assert_eq!(chosen(entry, url).is_none(), direct, "{entry} {url}");
        }
    }
}
