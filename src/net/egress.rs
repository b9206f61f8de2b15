//! Which addresses are never called by us, whatever a name resolves to?
//!
//! Token endpoints, key sets and metadata are named by the operator, so private ranges are allowed: that is where such
//! services live. What no operator means is an address that answers only to the machine it is asked from: cloud metadata
//! services hand credentials of the machine to whoever asks. Somebody who controls a name (RFC 9700 §4.11, DNS rebinding)
//! must not be able to point it there.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use async_trait::async_trait;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};

/// Looks up the addresses of a host name.
#[async_trait]
pub trait Lookup: Send + Sync {
    /// Every address of `host`, in the order of preference.
    ///
    /// # Errors
    /// When the name does not resolve.
    async fn lookup(&self, host: &str) -> io::Result<Vec<IpAddr>>;
}

/// The system's own resolver.
#[derive(Clone, Copy, Debug)]
pub struct SystemLookup;

#[async_trait]
impl Lookup for SystemLookup {
    async fn lookup(&self, host: &str) -> io::Result<Vec<IpAddr>> {
        Ok(tokio::net::lookup_host((host, 0)).await?.map(|address| address.ip()).collect())
    }
}

/// Resolves names once per connection, and hands over only addresses that may be called: what was checked is what is
/// connected to, so a name that resolves differently a moment later gains nothing.
pub(super) struct Guarded {
    lookup: Arc<dyn Lookup>,
}

impl Guarded {
    /// Guards what `lookup` finds.
    pub(super) fn new(lookup: Arc<dyn Lookup>) -> Self {
        Self { lookup }
    }
}

impl Resolve for Guarded {
    fn resolve(&self, name: Name) -> Resolving {
        let lookup = Arc::clone(&self.lookup);
        Box::pin(async move {
            let host = name.as_str();
            let mut found = lookup.lookup(host).await?;
            let named_loopback = is_loopback_name(host);
            // Plain http is allowed to such names because they are this machine (RFC 6761 §6.3); a resolver that says
            // otherwise is not believed.
            found
                .retain(|address| may_be_called(*address) && (!named_loopback || address.to_canonical().is_loopback()));
            if found.is_empty() {
                return Err(ForbiddenAddress.into());
            }
            let addresses: Addrs = Box::new(found.into_iter().map(|address| SocketAddr::new(address, 0)));
            Ok(addresses)
        })
    }
}

/// A name has no address that may be called.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("no address that may be called")]
pub(super) struct ForbiddenAddress;

/// Whether a host name stands for this very machine (RFC 6761 §6.3).
pub(super) fn is_loopback_name(host: &str) -> bool {
    let host = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
    host == "localhost" || host.ends_with(".localhost")
}

/// Whether an address may be called. Never: link-local, unspecified and multicast ones, the metadata services of the
/// clouds, and any IPv6 form that carries such an IPv4 address.
#[must_use]
pub fn may_be_called(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => may_be_called_v4(address),
        IpAddr::V6(address) => may_be_called_v6(address),
    }
}

fn may_be_called_v4(address: Ipv4Addr) -> bool {
    let [first, ..] = address.octets();
    // 0.0.0.0/8 is "this host on this network" (RFC 1122 §3.2.1.3); Linux connects it to loopback. 240.0.0.0/4 is
    // reserved, 255.255.255.255 the broadcast address.
    first != 0 && first < 240 && !address.is_link_local() && !address.is_multicast() && !METADATA_V4.contains(&address)
}

fn may_be_called_v6(address: Ipv6Addr) -> bool {
    let in_metadata = METADATA_V6.iter().any(|(prefix, bits)| {
        let mask = u128::MAX.checked_shl(128 - bits).unwrap_or(0);
        address.to_bits() & mask == prefix.to_bits() & mask
    });
    !address.is_unspecified()
        && !address.is_multicast()
        && !address.is_unicast_link_local()
        && !in_metadata
        && carried_v4(address).into_iter().flatten().all(may_be_called_v4)
}

/// The IPv4 addresses that a translator, tunnel or stack may read out of an IPv6 address.
fn carried_v4(address: Ipv6Addr) -> [Option<Ipv4Addr>; 2] {
    let bits = address.to_bits();
    let at = |shift: u32| Some(Ipv4Addr::from_bits((bits >> shift) as u32));
    match address.segments() {
        [0, 0, 0, 0, 0, 0, 0, 1] => [None, None],
        // IPv4-compatible (RFC 4291 §2.5.5.1), -mapped (§2.5.5.2), -translated (RFC 2765 §2.1).
        [0, 0, 0, 0, 0, 0 | 0xffff, _, _] | [0, 0, 0, 0, 0xffff, 0, _, _] => [at(0), None],
        // NAT64, the well-known prefix (RFC 6052 §2.1).
        [0x64, 0xff9b, 0, 0, 0, 0, _, _] => [at(0), None],
        // NAT64, a local prefix (RFC 8215): with 96 bits of prefix, or with 48, where bits 64 to 71 are zero
        // (RFC 6052 §2.2).
        [0x64, 0xff9b, 1, high, low, next, _, _] => {
            let [_zero, third] = low.to_be_bytes();
            let [fourth, _suffix] = next.to_be_bytes();
            let [first, second] = high.to_be_bytes();
            [at(0), Some(Ipv4Addr::new(first, second, third, fourth))]
        }
        // 6to4 (RFC 3056 §2).
        [0x2002, ..] => [at(80), None],
        // Teredo (RFC 4380 §4): the server, and the client with its bits turned.
        [0x2001, 0, ..] => [at(64), Some(Ipv4Addr::from_bits(!(bits as u32)))],
        // ISATAP (RFC 5214 §6.1).
        [_, _, _, _, 0 | 0x200, 0x5efe, _, _] => [at(0), None],
        _ => [None, None],
    }
}

/// Metadata services outside 169.254.0.0/16.
const METADATA_V4: [Ipv4Addr; 3] = [
    // Alibaba Cloud, Oracle Cloud (older), Azure (WireServer).
    Ipv4Addr::new(100, 100, 100, 200),
    Ipv4Addr::new(192, 0, 0, 192),
    Ipv4Addr::new(168, 63, 129, 16),
];

/// Metadata services in IPv6: prefix and its length.
const METADATA_V6: [(Ipv6Addr, u32); 2] = [
    // Amazon keeps the block for services of the machine: metadata ::254, credentials of a pod ::23, of a task.
    (Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0), 32),
    // Google Cloud.
    (Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254), 128),
];

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed test may panic")]
mod tests {
    use super::*;

    #[test]
    fn addresses_that_only_this_machine_can_reach_are_never_called() {
        for address in [
            "0.0.0.0",
            "0.1.2.3",
            "169.254.0.1",
            "169.254.169.254",
            "169.254.170.2",
            "100.100.100.200",
            "192.0.0.192",
            "168.63.129.16",
            "224.0.0.1",
            "239.255.255.250",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "fe80::1",
            "febf::1",
            "ff02::1",
            "fd00:ec2::254",
            "fd00:ec2::23",
            "fd20:ce::254",
            // IPv4-mapped, -compatible, -translated.
            "::ffff:169.254.169.254",
            "::ffff:0.0.0.0",
            "::169.254.169.254",
            "::ffff:0:169.254.169.254",
            // NAT64, well-known and local prefix in both lengths.
            "64:ff9b::169.254.169.254",
            "64:ff9b:1::169.254.169.254",
            "64:ff9b:1:a9fe:a9:fe00::",
            // 6to4, Teredo (server, client), ISATAP.
            "2002:a9fe:a9fe::1",
            "2001:0:a9fe:a9fe::1",
            "2001:0:102:304:0:0:5601:5601",
            "2001:db8::5efe:169.254.169.254",
        ] {
            assert!(!may_be_called(address.parse().unwrap()), "{address}");
        }
    }

    #[test]
    fn everything_an_operator_may_mean_is_called() {
        for address in [
            "127.0.0.1",
            "127.9.9.9",
            "10.0.0.1",
            "172.16.0.1",
            "192.168.1.1",
            "100.64.0.1",
            "169.253.255.255",
            "169.255.0.1",
            "93.184.216.34",
            "223.255.255.255",
            "::1",
            "fd12:3456::1",
            "fec0::1",
            "2606:2800:220:1::1",
            "::ffff:10.0.0.1",
            "64:ff9b::93.184.216.34",
            "2002:5db8:d822::1",
            "fd00:ec3::254",
            "fd20:ce::255",
        ] {
            assert!(may_be_called(address.parse().unwrap()), "{address}");
        }
    }

    #[test]
    fn names_of_this_machine_are_known() {
        for name in ["localhost", "LOCALHOST", "localhost.", "idp.localhost", "a.b.localhost."] {
            assert!(is_loopback_name(name), "{name}");
        }
        for name in ["localhost.example.com", "notlocalhost", "", ".", "127.0.0.1.nip.io"] {
            assert!(!is_loopback_name(name), "{name}");
        }
    }

    #[tokio::test]
    async fn of_a_mixed_answer_only_what_may_be_called_is_left() {
        let answer = ["169.254.169.254", "10.0.0.1", "fe80::1", "::ffff:169.254.169.254", "192.0.2.1"];
        assert_eq!(resolve("idp.test", &answer).await.unwrap(), ["10.0.0.1:0", "192.0.2.1:0"]);
        let answer = ["192.0.2.1", "127.0.0.1", "::1", "::ffff:127.0.0.1"];
        let local = resolve("idp.localhost", &answer).await.unwrap();
        assert_eq!(local, ["127.0.0.1:0", "[::1]:0", "[::ffff:127.0.0.1]:0"]);
    }

    #[tokio::test]
    async fn a_name_with_nothing_left_does_not_resolve() {
        for (name, answer) in
            [("idp.test", &["169.254.169.254", "fd00:ec2::254"][..]), ("idp.test", &[]), ("localhost", &["192.0.2.1"])]
        {
            assert_eq!(resolve(name, answer).await.unwrap_err(), "no address that may be called", "{name}");
        }
    }

    /// Answers every name alike.
    struct Always(Vec<IpAddr>);

    #[async_trait]
    impl Lookup for Always {
        async fn lookup(&self, _host: &str) -> io::Result<Vec<IpAddr>> {
            Ok(self.0.clone())
        }
    }

    async fn resolve(name: &str, answer: &[&str]) -> Result<Vec<String>, String> {
        let answer = answer.iter().map(|address| address.parse().unwrap()).collect();
        let guarded = Guarded::new(Arc::new(Always(answer)));
        let found = guarded.resolve(name.parse().unwrap()).await;
        found.map(|all| all.map(|address| address.to_string()).collect()).map_err(|error| error.to_string())
    }
}
