//! Who has shown a certificate? The verified client certificate of a connection, as rules and the audit log see it.

use std::fmt::Write as _;
use std::net::IpAddr;
use std::sync::Arc;

use ring::digest::{SHA256, digest};
use serde_json::{Map, Value, json};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer;
use x509_parser::x509::{AttributeTypeAndValue, X509Name};

/// A client certificate that chains to an authority the listener trusts. Whoever holds one has already verified it.
#[derive(Clone, Debug, PartialEq)]
pub struct ClientCertificate {
    subject: Box<str>,
    digest: Box<str>,
    /// `request.client_certificate`, made once per connection.
    fields: Map<String, Value>,
}

/// What a connection has shown of its client.
#[derive(Clone, Debug, PartialEq)]
pub enum Shown {
    /// The listener asks for a certificate, and the connection has none that it trusts: the session was resumed, and what
    /// was shown when it began has expired, or its authority is trusted no more.
    Distrusted,
    /// A certificate that the listener trusts.
    Verified(Arc<ClientCertificate>),
}

impl ClientCertificate {
    /// Reads a certificate that was verified; `None` when it is not X.509.
    #[must_use]
    pub fn read(verified_der: &[u8]) -> Option<Self> {
        let (_, certificate) = X509Certificate::from_der(verified_der).ok()?;
        let subject = rfc4514(certificate.subject());
        let digest = hex(digest(&SHA256, verified_der).as_ref());
        let mut names = Names::default();
        if let Ok(Some(extension)) = certificate.subject_alternative_name() {
            extension.value.general_names.iter().for_each(|name| names.add(name));
        }
        let mut fields = Map::new();
        fields.insert("subject".to_owned(), Value::from(subject.as_str()));
        fields.insert("digest".to_owned(), Value::from(digest.as_str()));
        let sans = json!({ "dns": names.dns, "uri": names.uri, "email": names.email, "ip": names.ip });
        fields.insert("sans".to_owned(), sans);
        Some(Self { subject: subject.into(), digest: digest.into(), fields })
    }

    /// The subject's distinguished name as RFC 4514 writes it: the most specific part first, special characters escaped,
    /// e.g. `CN=robot,OU=Agents,O=Example`. Empty when the certificate names its holder by SANs alone.
    #[must_use]
    pub fn subject(&self) -> &str {
        &self.subject
    }

    /// SHA-256 of the whole certificate, 64 lower-case hex digits.
    #[must_use]
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// What rules read: `subject`, `digest`, and `sans` with the lists `dns`, `uri`, `email`, `ip`.
    #[must_use]
    pub fn fields(&self) -> &Map<String, Value> {
        &self.fields
    }
}

#[derive(Default)]
struct Names<'a> {
    dns: Vec<&'a str>,
    uri: Vec<&'a str>,
    email: Vec<&'a str>,
    ip: Vec<String>,
}

impl<'a> Names<'a> {
    fn add(&mut self, name: &GeneralName<'a>) {
        match name {
            GeneralName::DNSName(name) => self.dns.push(name),
            GeneralName::URI(uri) => self.uri.push(uri),
            GeneralName::RFC822Name(address) => self.email.push(address),
            GeneralName::IPAddress(bytes) => self.ip.extend(ip(bytes)),
            GeneralName::DirectoryName(_)
            | GeneralName::EDIPartyName(_)
            | GeneralName::OtherName(..)
            | GeneralName::RegisteredID(_)
            | GeneralName::X400Address(_) => {}
        }
    }
}

fn ip(bytes: &[u8]) -> Option<String> {
    let address: IpAddr = match bytes.len() {
        4 => <[u8; 4]>::try_from(bytes).ok()?.into(),
        16 => <[u8; 16]>::try_from(bytes).ok()?.into(),
        _ => return None,
    };
    Some(address.to_string())
}

/// Writes a distinguished name so that no value can pass for another attribute (RFC 4514 §2).
fn rfc4514(name: &X509Name<'_>) -> String {
    let mut parts: Vec<String> =
        name.iter().map(|part| part.iter().map(attribute).collect::<Vec<_>>().join("+")).collect();
    parts.reverse();
    parts.join(",")
}

fn attribute(attribute: &AttributeTypeAndValue<'_>) -> String {
    let oid = attribute.attr_type().to_id_string();
    let known = SHORT_NAMES.iter().find(|(known, _)| *known == oid).map(|(_, short)| *short);
    match (known, attribute.as_str()) {
        (Some(short), Ok(value)) => format!("{short}={}", escaped(value)),
        (_, _) => format!("{}=#{}", known.unwrap_or(&oid), hex(attribute.as_slice())),
    }
}

/// RFC 4514 §2.4.
fn escaped(value: &str) -> String {
    let mut out = String::with_capacity(value.len());
    let last = value.chars().count().saturating_sub(1);
    for (at, character) in value.chars().enumerate() {
        let special = match character {
            '"' | '+' | ',' | ';' | '<' | '>' | '\\' | '=' => true,
            '#' => at == 0,
            ' ' => at == 0 || at == last,
            _ => false,
        };
        if character.is_control() {
            let mut utf8 = [0; 4];
            for byte in character.encode_utf8(&mut utf8).bytes() {
                // Writing to a string cannot fail.
                let _infallible = write!(out, "\\{byte:02x}");
            }
            continue;
        }
        if special {
            out.push('\\');
        }
        out.push(character);
    }
    out
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut out, byte| {
        // Writing to a string cannot fail.
        let _infallible = write!(out, "{byte:02x}");
        out
    })
}

/// RFC 4514 §3, and `emailAddress` of RFC 2985, which certificates still carry.
const SHORT_NAMES: [(&str, &str); 10] = [
    ("2.5.4.3", "CN"),
    ("2.5.4.6", "C"),
    ("2.5.4.7", "L"),
    ("2.5.4.8", "ST"),
    ("2.5.4.9", "STREET"),
    ("2.5.4.10", "O"),
    ("2.5.4.11", "OU"),
    ("0.9.2342.19200300.100.1.1", "UID"),
    ("0.9.2342.19200300.100.1.25", "DC"),
    ("1.2.840.113549.1.9.1", "emailAddress"),
];

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed test may panic")]
mod tests {
    use rcgen::{CertificateParams, DnType, KeyPair, SanType};

    use super::*;

    #[test]
    fn subject_names_and_digest_are_read() {
        let der = made(|params| {
            params.distinguished_name.push(DnType::OrganizationName, "Example");
            params.distinguished_name.push(DnType::OrganizationalUnitName, "Agents");
            params.distinguished_name.push(DnType::CommonName, "robot");
            params.subject_alt_names = vec![
                SanType::DnsName("robot.test".try_into().unwrap()),
                SanType::URI("spiffe://test/robot".try_into().unwrap()),
                SanType::Rfc822Name("robot@test".try_into().unwrap()),
                SanType::IpAddress([192, 0, 2, 7].into()),
                SanType::IpAddress("2001:db8::7".parse().unwrap()),
            ];
        });
        let certificate = ClientCertificate::read(&der).unwrap();
        assert_eq!(certificate.subject(), "CN=robot,OU=Agents,O=Example");
        let expected = json!({
            "subject": "CN=robot,OU=Agents,O=Example",
            "digest": hex(digest(&SHA256, &der).as_ref()),
            "sans": {
                "dns": ["robot.test"],
                "uri": ["spiffe://test/robot"],
                "email": ["robot@test"],
                "ip": ["192.0.2.7", "2001:db8::7"],
            },
        });
        assert_eq!(Value::Object(certificate.fields().clone()), expected);
        assert_eq!(certificate.digest().len(), 64);
    }

    /// A holder who may choose one attribute must not look like the holder of another.
    #[test]
    fn a_value_cannot_pass_for_an_attribute() {
        for (value, written) in [
            ("x, CN=admin", r"O=x\, CN\=admin"),
            ("x+CN=admin", r"O=x\+CN\=admin"),
            (r"x\", r"O=x\\"),
            ("#00", r"O=\#00"),
            (" x ", r"O=\ x\ "),
            (" ", r"O=\ "),
            ("a\nb\0", r"O=a\0ab\00"),
            ("\"<;>", r#"O=\"\<\;\>"#),
            ("Zoë", "O=Zoë"),
        ] {
            let der = made(|params| params.distinguished_name.push(DnType::OrganizationName, value));
            assert_eq!(ClientCertificate::read(&der).unwrap().subject(), written);
        }
    }

    #[test]
    fn an_attribute_of_an_unknown_kind_is_written_by_its_number() {
        let kind = DnType::CustomDnType(vec![1, 3, 6, 1, 4, 1, 99999, 1]);
        let der = made(|params| params.distinguished_name.push(kind, "ab"));
        assert_eq!(ClientCertificate::read(&der).unwrap().subject(), "1.3.6.1.4.1.99999.1=#6162");
    }

    #[test]
    fn a_certificate_without_subject_and_names_has_empty_ones() {
        let certificate = ClientCertificate::read(&made(|_| ())).unwrap();
        assert_eq!(certificate.subject(), "");
        let sans = certificate.fields().get("sans").unwrap();
        assert_eq!(*sans, json!({ "dns": [], "uri": [], "email": [], "ip": [] }));
    }

    #[test]
    fn what_is_not_x509_is_nobody() {
        assert_eq!(ClientCertificate::read(b"hello"), None);
        assert_eq!(ClientCertificate::read(b""), None);
    }

    fn made(change: impl FnOnce(&mut CertificateParams)) -> Vec<u8> {
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        change(&mut params);
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().to_vec()
    }
}
