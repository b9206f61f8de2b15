//! A database of addresses in MaxMind's DB format 2.0, as small as it can be: IPv4, records of 24 bits.

use std::net::Ipv4Addr;

#[derive(Clone, Copy)]
enum Branch {
    Nothing,
    Node(usize),
    /// Where the data begins.
    Data(usize),
}

/// The bytes of a database that says of each network (`10.0.0.0/8`) in which country and on which continent it is.
pub fn mmdb(networks: &[(&str, &str, &str)]) -> Vec<u8> {
    let mut nodes = vec![[Branch::Nothing; 2]];
    let mut data = Vec::new();
    for (network, country, continent) in networks {
        let (address, bits) = network.split_once('/').unwrap();
        let address = u32::from(address.parse::<Ipv4Addr>().unwrap());
        let bits: u32 = bits.parse().unwrap();
        let begins = data.len();
        map(&mut data, 2);
        text(&mut data, "continent");
        map(&mut data, 1);
        text(&mut data, "code");
        text(&mut data, continent);
        text(&mut data, "country");
        map(&mut data, 1);
        text(&mut data, "iso_code");
        text(&mut data, country);
        let mut at = 0;
        for depth in 0..bits {
            let side = usize::try_from(address >> (31 - depth) & 1).unwrap();
            if depth == bits - 1 {
                nodes[at][side] = Branch::Data(begins);
                break;
            }
            at = match nodes[at][side] {
                Branch::Node(next) => next,
                Branch::Nothing | Branch::Data(_) => {
                    nodes.push([Branch::Nothing; 2]);
                    let next = nodes.len() - 1;
                    nodes[at][side] = Branch::Node(next);
                    next
                }
            };
        }
    }
    let mut out = Vec::new();
    for branch in nodes.iter().flatten() {
        let record = match *branch {
            Branch::Nothing => nodes.len(),
            Branch::Node(node) => node,
            Branch::Data(begins) => nodes.len() + 16 + begins,
        };
        out.extend_from_slice(&u32::try_from(record).unwrap().to_be_bytes()[1..]);
    }
    out.extend_from_slice(&[0; 16]);
    out.extend_from_slice(&data);
    out.extend_from_slice(b"\xab\xcd\xefMaxMind.com");
    map(&mut out, 9);
    for (name, number) in
        [("binary_format_major_version", 2), ("binary_format_minor_version", 0), ("ip_version", 4), ("record_size", 24)]
    {
        text(&mut out, name);
        out.extend_from_slice(&[5 << 5 | 2, 0, number]);
    }
    text(&mut out, "node_count");
    out.push(6 << 5 | 4);
    out.extend_from_slice(&u32::try_from(nodes.len()).unwrap().to_be_bytes());
    text(&mut out, "build_epoch");
    // An extended type: 64 bits.
    out.extend_from_slice(&[8, 2, 0, 0, 0, 0, 0x60, 0, 0, 0]);
    text(&mut out, "database_type");
    text(&mut out, "Test-Country");
    text(&mut out, "languages");
    out.extend_from_slice(&[0, 4]);
    text(&mut out, "description");
    map(&mut out, 0);
    out
}

fn map(out: &mut Vec<u8>, entries: u8) {
    out.push(7 << 5 | entries);
}

fn text(out: &mut Vec<u8>, text: &str) {
    assert!(text.len() < 29, "short texts only");
    out.push(2 << 5 | u8::try_from(text.len()).unwrap());
    out.extend_from_slice(text.as_bytes());
}
