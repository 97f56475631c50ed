//! Where the server itself may send a request to: a callback must not reach what its author could
//! not reach on his own (security by refusal of everything that is not plainly public).
//!
//! A name is resolved once, every address of it is checked here, and the checked one is connected.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    str::FromStr,
};

/// The longest address of a callback.
const URL_BYTES_MAX: usize = 2_048;
/// Ports below this belong to services of the system, but for those of the web.
const FIRST_FREE_PORT: u16 = 1_024;
const WEB_PORTS: [u16; 2] = [80, 443];

/// Why an address is not sent to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Forbidden {
    #[error("is this machine (loopback)")]
    Loopback,
    #[error("means no address (unspecified)")]
    Unspecified,
    #[error("is of a private network")]
    Private,
    #[error("is of a provider's inner network (100.64.0.0/10)")]
    SharedAddress,
    #[error("is of the local link")]
    LinkLocal,
    #[error("is of a private network (unique local, site local)")]
    UniqueLocal,
    #[error("is of a network for measurements")]
    Benchmark,
    #[error("is of a network for examples")]
    Documentation,
    #[error("is a group or everybody (multicast, broadcast)")]
    Multicast,
    #[error("is reserved")]
    Reserved,
    #[error("stands for an IPv4 address (mapped, compatible, NAT64, 6to4 or Teredo)")]
    Translated,
}

use Forbidden::{
    Benchmark, Documentation, LinkLocal, Loopback, Multicast, Private, Reserved, SharedAddress,
    Translated, UniqueLocal, Unspecified,
};

const fn v4(a: u8, b: u8, c: u8, d: u8) -> u32 {
    u32::from_be_bytes([a, b, c, d])
}

/// Prefix, its length in bits, and why. The first that fits tells the reason.
const V4: &[(u32, u32, Forbidden)] = &[
    (v4(0, 0, 0, 0), 8, Unspecified),
    (v4(10, 0, 0, 0), 8, Private),
    (v4(100, 64, 0, 0), 10, SharedAddress),
    (v4(127, 0, 0, 0), 8, Loopback),
    (v4(169, 254, 0, 0), 16, LinkLocal),
    (v4(172, 16, 0, 0), 12, Private),
    (v4(192, 0, 0, 0), 24, Reserved),
    (v4(192, 0, 2, 0), 24, Documentation),
    (v4(192, 88, 99, 0), 24, Translated),
    (v4(192, 168, 0, 0), 16, Private),
    (v4(198, 18, 0, 0), 15, Benchmark),
    (v4(198, 51, 100, 0), 24, Documentation),
    (v4(203, 0, 113, 0), 24, Documentation),
    (v4(224, 0, 0, 0), 4, Multicast),
    (v4(255, 255, 255, 255), 32, Multicast),
    (v4(240, 0, 0, 0), 4, Reserved),
];

const fn v6(groups: [u16; 8]) -> u128 {
    let [a, b, c, d, e, f, g, h] = groups;
    Ipv6Addr::new(a, b, c, d, e, f, g, h).to_bits()
}

const V6: &[(u128, u32, Forbidden)] = &[
    (v6([0, 0, 0, 0, 0, 0, 0, 0]), 128, Unspecified),
    (v6([0, 0, 0, 0, 0, 0, 0, 1]), 128, Loopback),
    (v6([0, 0, 0, 0, 0, 0xffff, 0, 0]), 96, Translated),
    (v6([0, 0, 0, 0, 0xffff, 0, 0, 0]), 96, Translated),
    (v6([0, 0, 0, 0, 0, 0, 0, 0]), 96, Translated),
    (v6([0x64, 0xff9b, 0, 0, 0, 0, 0, 0]), 96, Translated),
    (v6([0x64, 0xff9b, 1, 0, 0, 0, 0, 0]), 48, Translated),
    (v6([0x2001, 0, 0, 0, 0, 0, 0, 0]), 32, Translated),
    (v6([0x2001, 2, 0, 0, 0, 0, 0, 0]), 48, Benchmark),
    (v6([0x2001, 0xdb8, 0, 0, 0, 0, 0, 0]), 32, Documentation),
    (v6([0x2001, 0, 0, 0, 0, 0, 0, 0]), 23, Reserved),
    (v6([0x2002, 0, 0, 0, 0, 0, 0, 0]), 16, Translated),
    (v6([0x3fff, 0, 0, 0, 0, 0, 0, 0]), 20, Documentation),
    (v6([0xfc00, 0, 0, 0, 0, 0, 0, 0]), 7, UniqueLocal),
    (v6([0xfe80, 0, 0, 0, 0, 0, 0, 0]), 10, LinkLocal),
    (v6([0xfec0, 0, 0, 0, 0, 0, 0, 0]), 10, UniqueLocal),
    (v6([0xff00, 0, 0, 0, 0, 0, 0, 0]), 8, Multicast),
];
/// Nothing outside of this is public.
const V6_PUBLIC: (u128, u32) = (v6([0x2000, 0, 0, 0, 0, 0, 0, 0]), 3);

fn v4_within(address: u32, prefix: u32, bits: u32) -> bool {
    bits == 0 || (address ^ prefix) >> (32 - bits) == 0
}

fn v6_within(address: u128, prefix: u128, bits: u32) -> bool {
    bits == 0 || (address ^ prefix) >> (128 - bits) == 0
}

/// Why nothing is sent to an address; `None`: it is public.
pub fn why_forbidden(address: IpAddr) -> Option<Forbidden> {
    match address {
        IpAddr::V4(it) => v4_forbidden(it),
        IpAddr::V6(it) => v6_forbidden(it),
    }
}

fn v4_forbidden(address: Ipv4Addr) -> Option<Forbidden> {
    let bits = address.to_bits();
    V4.iter().find(|it| v4_within(bits, it.0, it.1)).map(|it| it.2)
}

fn v6_forbidden(address: Ipv6Addr) -> Option<Forbidden> {
    let bits = address.to_bits();
    let named = V6.iter().find(|it| v6_within(bits, it.0, it.1)).map(|it| it.2);
    named.or_else(|| (!v6_within(bits, V6_PUBLIC.0, V6_PUBLIC.1)).then_some(Reserved))
}

/// A network such as `10.1.0.0/16`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    bits: u8,
}

/// A text is no network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a network is an address and a number of bits: 10.1.0.0/16 or fd00::/8")]
pub struct NoNetwork;

impl FromStr for Network {
    type Err = NoNetwork;

    fn from_str(text: &str) -> Result<Self, NoNetwork> {
        let (address, bits) = text.split_once('/').ok_or(NoNetwork)?;
        let address: IpAddr = address.parse().map_err(|_| NoNetwork)?;
        let bits: u8 = bits.parse().map_err(|_| NoNetwork)?;
        let bits_max = if address.is_ipv4() { 32 } else { 128 };
        // What looks like one host but stands for many would surprise its author.
        let network = Self { address, bits };
        let is_network = bits <= bits_max && network.is_masked();
        is_network.then_some(network).ok_or(NoNetwork)
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.bits)
    }
}

impl Network {
    fn is_masked(self) -> bool {
        let bits = u32::from(self.bits);
        match self.address {
            IpAddr::V4(it) => it.to_bits().checked_shl(bits).unwrap_or(0) == 0,
            IpAddr::V6(it) => it.to_bits().checked_shl(bits).unwrap_or(0) == 0,
        }
    }

    pub fn contains(self, address: IpAddr) -> bool {
        let bits = u32::from(self.bits);
        match (self.address, address) {
            (IpAddr::V4(net), IpAddr::V4(it)) => v4_within(it.to_bits(), net.to_bits(), bits),
            (IpAddr::V6(net), IpAddr::V6(it)) => v6_within(it.to_bits(), net.to_bits(), bits),
            _ => false,
        }
    }
}

/// What the operator allows beyond the public addresses and https.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    pub allowed: Vec<Network>,
    pub allows_http: bool,
}

/// Why a URL is not sent to, whatever its host resolves to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadUrl {
    #[error("a URL such as https://example.org/done, without user or password")]
    Malformed,
    #[error("at most {URL_BYTES_MAX} octets")]
    TooLong,
    #[error("https; the operator has not allowed http")]
    Scheme,
    #[error("port 80, 443 or above 1023")]
    Port,
    #[error("a host name, or an address as 192.0.2.1 or [2001:db8::1]")]
    Host,
    #[error("an address that is public: this one {0}")]
    Address(#[from] Forbidden),
}

/// A URL that may be sent to, if the addresses of its host may.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Destination {
    pub is_https: bool,
    pub host: Host,
    pub port: u16,
    /// With its query.
    pub path: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Host {
    Name(String),
    Address(IpAddr),
}

impl fmt::Display for Host {
    /// As a URL writes it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(it) => f.write_str(it),
            Self::Address(IpAddr::V4(it)) => write!(f, "{it}"),
            Self::Address(IpAddr::V6(it)) => write!(f, "[{it}]"),
        }
    }
}

impl Rules {
    /// Whether a connection to this address may be made.
    ///
    /// # Errors
    /// [`Forbidden`]
    pub fn check_address(&self, address: IpAddr) -> Result<(), Forbidden> {
        match why_forbidden(address) {
            Some(why) if !self.allowed.iter().any(|it| it.contains(address)) => Err(why),
            _ => Ok(()),
        }
    }

    /// Takes a URL apart and checks what can be checked without asking a name server.
    ///
    /// # Errors
    /// [`BadUrl`]; the message says what would do.
    pub fn check_url(&self, url: &str) -> Result<Destination, BadUrl> {
        if URL_BYTES_MAX < url.len() {
            return Err(BadUrl::TooLong);
        }
        if !url.bytes().all(|it| it.is_ascii_graphic()) || url.contains('\\') {
            return Err(BadUrl::Malformed);
        }
        let url: http::Uri = url.parse().map_err(|_| BadUrl::Malformed)?;
        let is_https = match url.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err(BadUrl::Malformed),
        };
        if !is_https && !self.allows_http {
            return Err(BadUrl::Scheme);
        }
        let authority = url.authority().ok_or(BadUrl::Malformed)?;
        if authority.as_str().contains('@') {
            return Err(BadUrl::Malformed);
        }
        let port = match authority.as_str().strip_prefix(authority.host()) {
            Some("") => {
                if is_https {
                    443
                } else {
                    80
                }
            }
            _ => authority.port_u16().ok_or(BadUrl::Port)?,
        };
        if port < FIRST_FREE_PORT && !WEB_PORTS.contains(&port) {
            return Err(BadUrl::Port);
        }
        let host = host(authority.host())?;
        if let Host::Address(it) = host {
            self.check_address(it)?;
        }
        let path = url.path_and_query().map_or("/", |it| it.as_str()).to_owned();
        Ok(Destination { is_https, host, port, path })
    }
}

fn host(text: &str) -> Result<Host, BadUrl> {
    if let Some(inner) = text.strip_prefix('[').and_then(|it| it.strip_suffix(']')) {
        let address = inner.parse::<Ipv6Addr>().map_err(|_| BadUrl::Host)?;
        return Ok(Host::Address(address.into()));
    }
    if let Ok(address) = text.parse::<Ipv4Addr>() {
        return Ok(Host::Address(address.into()));
    }
    let name = text.strip_suffix('.').unwrap_or(text);
    let is_label = |it: &str| {
        let letters = it.bytes().all(|it| it.is_ascii_alphanumeric() || it == b'-' || it == b'_');
        (1..=63).contains(&it.len()) && letters
    };
    // 127.1, 0x7f.1 and 2130706433 are addresses to some resolvers.
    let last = name.rsplit('.').next().unwrap_or(name);
    let is_number = last.starts_with(|it: char| it.is_ascii_digit());
    if name.len() <= 253 && !is_number && name.split('.').all(is_label) {
        Ok(Host::Name(name.to_ascii_lowercase()))
    } else {
        Err(BadUrl::Host)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    /// The first and the last address of each range, and the neighbours that are public.
    #[test]
    fn every_range_is_refused_from_its_first_to_its_last_address() {
        for (first, last, why) in [
            ("0.0.0.0", "0.255.255.255", Unspecified),
            ("10.0.0.0", "10.255.255.255", Private),
            ("100.64.0.0", "100.127.255.255", SharedAddress),
            ("127.0.0.0", "127.255.255.255", Loopback),
            ("169.254.0.0", "169.254.255.255", LinkLocal),
            ("169.254.169.254", "169.254.169.254", LinkLocal),
            ("172.16.0.0", "172.31.255.255", Private),
            ("192.0.0.0", "192.0.0.255", Reserved),
            ("192.0.2.0", "192.0.2.255", Documentation),
            ("192.88.99.0", "192.88.99.255", Translated),
            ("192.168.0.0", "192.168.255.255", Private),
            ("198.18.0.0", "198.19.255.255", Benchmark),
            ("198.51.100.0", "198.51.100.255", Documentation),
            ("203.0.113.0", "203.0.113.255", Documentation),
            ("224.0.0.0", "239.255.255.255", Multicast),
            ("240.0.0.0", "255.255.255.254", Reserved),
            ("255.255.255.255", "255.255.255.255", Multicast),
            ("::", "::", Unspecified),
            ("::1", "::1", Loopback),
            ("::2", "::ffff:ffff", Translated),
            ("::ffff:0:0", "::ffff:255.255.255.255", Translated),
            ("::ffff:127.0.0.1", "::ffff:8.8.8.8", Translated),
            ("::ffff:0:0:0", "::ffff:0:ffff:ffff", Translated),
            ("64:ff9b::", "64:ff9b::ffff:ffff", Translated),
            ("64:ff9b:1::", "64:ff9b:1:ffff:ffff:ffff:ffff:ffff", Translated),
            ("100::", "100::ffff:ffff:ffff:ffff", Reserved),
            ("2001::", "2001:0:ffff:ffff:ffff:ffff:ffff:ffff", Translated),
            ("2001:2::", "2001:2:0:ffff:ffff:ffff:ffff:ffff", Benchmark),
            ("2001:10::", "2001:1ff:ffff:ffff:ffff:ffff:ffff:ffff", Reserved),
            ("2001:db8::", "2001:db8:ffff:ffff:ffff:ffff:ffff:ffff", Documentation),
            ("2002::", "2002:ffff:ffff:ffff:ffff:ffff:ffff:ffff", Translated),
            ("3fff::", "3fff:fff:ffff:ffff:ffff:ffff:ffff:ffff", Documentation),
            ("4000::", "fbff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", Reserved),
            ("fc00::", "fdff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", UniqueLocal),
            ("fe80::", "febf:ffff:ffff:ffff:ffff:ffff:ffff:ffff", LinkLocal),
            ("fec0::", "feff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", UniqueLocal),
            ("ff00::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", Multicast),
        ] {
            for text in [first, last] {
                assert_eq!(why_forbidden(ip(text)), Some(why), "{text}");
                assert_eq!(Rules::default().check_address(ip(text)), Err(why), "{text}");
            }
        }
    }

    #[test]
    fn the_neighbours_of_the_ranges_are_public() {
        for text in [
            "1.0.0.0",
            "9.255.255.255",
            "11.0.0.0",
            "100.63.255.255",
            "100.128.0.0",
            "126.255.255.255",
            "128.0.0.0",
            "169.253.255.255",
            "169.255.0.0",
            "172.15.255.255",
            "172.32.0.0",
            "192.0.1.0",
            "192.0.3.0",
            "192.167.255.255",
            "192.169.0.0",
            "198.17.255.255",
            "198.20.0.0",
            "223.255.255.255",
            "2001:200::",
            "2001:db7:ffff::",
            "2001:db9::",
            "2003::",
            "2606:4700:4700::1111",
            "3ffe:ffff::",
            "3fff:1000::",
        ] {
            assert_eq!(why_forbidden(ip(text)), None, "{text}");
        }
    }

    #[test]
    fn the_operator_may_allow_a_network_and_nothing_beside_it() {
        let allowed = vec!["10.1.0.0/16".parse().expect("one"), "::1/128".parse().expect("one")];
        let rules = Rules { allowed, allows_http: false };
        assert_eq!(rules.check_address(ip("10.1.255.255")), Ok(()));
        assert_eq!(rules.check_address(ip("::1")), Ok(()));
        assert_eq!(rules.check_address(ip("10.2.0.0")), Err(Private));
        assert_eq!(rules.check_address(ip("::ffff:10.1.0.1")), Err(Translated));
        assert_eq!(rules.check_address(ip("127.0.0.1")), Err(Loopback));
        assert_eq!(rules.check_address(ip("8.8.8.8")), Ok(()));
    }

    #[test]
    fn a_network_is_written_with_its_bits_and_nothing_behind_them() {
        for text in ["0.0.0.0/0", "10.1.0.0/16", "10.1.2.3/32", "::/0", "fd00::/8", "::1/128"] {
            let network: Network = text.parse().expect(text);
            assert_eq!(network.to_string(), text);
        }
        for text in ["10.1.0.0", "10.1.0.0/33", "10.1.2.3/16", "::1/64", "x/8", "10.0.0.0/-1", ""] {
            assert_eq!(text.parse::<Network>(), Err(NoNetwork), "{text}");
        }
        let everything: Network = "0.0.0.0/0".parse().expect("one");
        assert!(everything.contains(ip("255.255.255.255")) && !everything.contains(ip("::1")));
    }

    #[test]
    fn a_good_url_is_taken_apart() {
        let rules = Rules::default();
        let found = rules.check_url("https://Hooks.Example.org./done?id=1").expect("good");
        assert_eq!(found.host, Host::Name("hooks.example.org".to_owned()));
        assert_eq!((found.is_https, found.port, found.path.as_str()), (true, 443, "/done?id=1"));
        let found = rules.check_url("https://[2606:4700::1]:8443").expect("good");
        assert_eq!((found.host, found.port), (Host::Address(ip("2606:4700::1")), 8443));
        assert_eq!(found.path, "/");
        let http = Rules { allows_http: true, ..Rules::default() };
        assert_eq!(http.check_url("http://example.org/").map(|it| it.port), Ok(80));
    }

    #[test]
    fn other_urls_are_refused() {
        use BadUrl::{Address, Host, Malformed, Port, Scheme, TooLong};
        let long = format!("https://example.org/{}", "a".repeat(URL_BYTES_MAX));
        for (url, why) in [
            ("", Malformed),
            ("example.org", Malformed),
            ("/done", Malformed),
            ("ftp://example.org/", Malformed),
            ("file:///etc/passwd", Malformed),
            ("https://", Malformed),
            ("https:///done", Malformed),
            ("http://example.org/", Scheme),
            ("https://user@example.org/", Malformed),
            ("https://user:word@example.org/", Malformed),
            ("https://example.org@127.0.0.1/", Malformed),
            ("https://example.org/\r\nHost: x", Malformed),
            ("https://example.org/a b", Malformed),
            ("https://example.org\\@127.0.0.1/", Malformed),
            ("https://exämple.org/", Malformed),
            ("https://127。0。0。1/", Malformed),
            ("https://example.org:22/", Port),
            ("https://example.org:0/", Port),
            ("https://example.org:65536/", Port),
            ("https://example.org:/", Port),
            ("https://127.0.0.1/", Address(Loopback)),
            ("https://127.0.0.1./", Host),
            ("https://127.1/", Host),
            ("https://2130706433/", Host),
            ("https://0x7f000001/", Host),
            ("https://0177.0.0.1/", Host),
            ("https://0x7f.0.0.1/", Host),
            ("https://127.0.0.1.5/", Host),
            ("https://[::1]/", Address(Loopback)),
            ("https://[::ffff:127.0.0.1]/", Address(Translated)),
            ("https://[fe80::1%25eth0]/", Host),
            ("https://169.254.169.254/latest/meta-data/", Address(LinkLocal)),
            ("https://a..b/", Host),
            (long.as_str(), TooLong),
        ] {
            let found = Rules::default().check_url(url).map(|it| it.host);
            let is_refused = match (found, why) {
                // Some of them are no URL at all to the parser, which is as good.
                (Err(Malformed), Host | Port) => true,
                (Err(it), _) => it == why,
                (Ok(_), _) => false,
            };
            assert!(is_refused, "{url}: {:?}", Rules::default().check_url(url));
        }
    }

    proptest! {
        #[test]
        fn no_text_breaks_the_check(text in "(https?://)?[a-z0-9.:\\[\\]@%/-]{0,40}") {
            if let Ok(it) = Rules::default().check_url(&text) {
                prop_assert!(it.is_https);
                if let Host::Address(address) = it.host {
                    prop_assert_eq!(why_forbidden(address), None);
                }
            }
        }
    }
}
