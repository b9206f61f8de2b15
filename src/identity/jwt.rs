//! Is this token what it says, and meant for us?

/// A signature algorithm an issuer may use (RFC 7518 §3.1, RFC 8037). `none` and HS* cannot be named.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the names are the registered ones and say everything")]
pub enum Algorithm {
    EdDSA,
    ES256,
    ES384,
    PS256,
    PS384,
    PS512,
    RS256,
    RS384,
    RS512,
}
