//! Would a sloppier reader take this key for another one?
//!
//! Go's `encoding/json` matches keys without regard to case, with Unicode folding (CVE-2026-27896: `Method`, `paramſ`
//! and the Kelvin sign), and frameworks with camel-case aliases take `task_id` for `taskId`. A body with such a key
//! means one thing here and another at the server, so it is refused wherever a known key may stand.

/// Whether `key` is none of `known`, but a sloppier reader would take it for one of them.
pub(super) fn is_variant(key: &str, known: &[&str]) -> bool {
    // Known keys begin with a character that folds to itself, which rules most of them out at once.
    let first = folded(key).next();
    let may_be = |name: &&str| name.chars().next() == first && folded(name).eq(folded(key));
    !known.contains(&key) && known.iter().any(may_be)
}

/// Whether `key` is a variant of a key that MCP reserves in `_meta` (2026-07-28, Base Protocol, "`_meta`").
pub(super) fn is_meta_variant(key: &str) -> bool {
    let mut chars = folded(key);
    is_variant(key, META_KEYS)
        || (!key.starts_with(META_PREFIX) && META_PREFIX.chars().all(|char| chars.next() == Some(char)))
}

/// The members of a JSON-RPC 2.0 message.
pub(super) const ENVELOPE_KEYS: &[&str] = &["error", "id", "jsonrpc", "method", "params", "result"];

/// The members of `params` that MCP defines for messages from clients, in any revision.
pub(super) const PARAM_KEYS: &[&str] = &[
    "_meta",
    "argument",
    "arguments",
    "capabilities",
    "clientInfo",
    "context",
    "cursor",
    "inputResponses",
    "level",
    "message",
    "name",
    "notifications",
    "progress",
    "progressToken",
    "protocolVersion",
    "reason",
    "ref",
    "requestId",
    "requestState",
    "status",
    "task",
    "taskId",
    "total",
    "uri",
];

/// The members of `params.ref`.
pub(super) const REF_KEYS: &[&str] = &["name", "type", "uri"];

/// The members of a list result.
pub(super) const LIST_KEYS: &[&str] =
    &["_meta", "cacheScope", "nextCursor", "prompts", "resourceTemplates", "resources", "resultType", "tools", "ttlMs"];

/// The members of a list's items that the filter reads.
pub(super) const ITEM_KEYS: &[&str] = &["inputSchema", "name", "uri", "uriTemplate"];

/// `_meta`: the version a request is spoken in (2026-07-28).
pub(super) const META_PROTOCOL_VERSION: &str = "io.modelcontextprotocol/protocolVersion";

/// `_meta`: what the client can do (2026-07-28).
pub(super) const META_CLIENT_CAPABILITIES: &str = "io.modelcontextprotocol/clientCapabilities";

const META_PREFIX: &str = "io.modelcontextprotocol/";

const META_KEYS: &[&str] = &[
    META_CLIENT_CAPABILITIES,
    "io.modelcontextprotocol/clientInfo",
    "io.modelcontextprotocol/logLevel",
    META_PROTOCOL_VERSION,
    "io.modelcontextprotocol/related-task",
    "io.modelcontextprotocol/subscriptionId",
    "progressToken",
];

/// Takes away what sloppy readers overlook: case, width, `_` and `-` between words, and characters nobody sees. Nothing
/// is allocated, for a hostile body has many keys.
fn folded(key: &str) -> impl Iterator<Item = char> {
    let mut is_first = true;
    key.chars().filter_map(fold_char).filter(move |char| std::mem::take(&mut is_first) || !matches!(char, '_' | '-'))
}

/// The lower-case ASCII character that `char` may be taken for, else itself; none for a character nobody sees.
fn fold_char(char: char) -> Option<char> {
    match char {
        'A'..='Z' => Some(char.to_ascii_lowercase()),
        // Simple case folding (CaseFolding.txt, status C) knows two foreign letters that fold to ASCII ones.
        '\u{17F}' => Some('s'),
        '\u{212A}' => Some('k'),
        // Comparing upper-cased (Java) or Turkish-cased text, dotted and dotless i fall together.
        '\u{130}' | '\u{131}' => Some('i'),
        // Full-width forms of ! to ~.
        '\u{FF01}'..='\u{FF5E}' => char::from_u32(u32::from(char) - 0xFEE0).map(|narrow| narrow.to_ascii_lowercase()),
        // Readers in C stop at NUL; others trim white space or drop what has no width.
        '\u{AD}' | '\u{34F}' | '\u{61C}' | '\u{180E}' | '\u{200B}'..='\u{200F}' | '\u{202A}'..='\u{202E}' => None,
        '\u{2060}'..='\u{206F}' | '\u{FE00}'..='\u{FE0F}' | '\u{FEFF}' | '\u{E0000}'..='\u{E007F}' => None,
        _ if char.is_control() || char.is_whitespace() => None,
        _ => Some(char),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_keys_are_no_variants_of_each_other() {
        for known in [ENVELOPE_KEYS, PARAM_KEYS, REF_KEYS, LIST_KEYS, ITEM_KEYS, META_KEYS] {
            for key in known {
                assert!(!is_variant(key, known), "{key}");
                assert_eq!(key.chars().next(), folded(key).next(), "{key}");
                assert_eq!(known.iter().filter(|other| folded(other).eq(folded(key))).count(), 1, "{key}");
            }
        }
    }

    /// CVE-2026-27896: what Go's reader takes for `method` and `params`.
    #[test]
    fn a_variant_is_what_any_sloppy_reader_takes_for_a_known_key() {
        for key in [
            "Method",
            "METHOD",
            "method\0",
            "method ",
            "me\u{200b}thod",
            "\u{feff}method",
            "ｍｅｔｈｏｄ",
            "ＭＥＴＨＯＤ",
            "param\u{17f}",
            "PARAM\u{17F}",
            "\u{131}d",
            "\u{130}D",
            "json_rpc",
            "JSON-RPC",
        ] {
            assert!(is_variant(key, ENVELOPE_KEYS), "{key:?}");
        }
        for key in ["tas\u{212a}", "task_id", "TaskID", "_Meta", "＿meta", "request_state", "progre\u{17f}sToken"] {
            assert!(is_variant(key, PARAM_KEYS), "{key:?}");
        }
    }

    #[test]
    fn other_keys_are_no_variants() {
        for key in ["", "meta", "names", "arg", "параметр", "n\u{e4}me", "x-name", "tool", "\u{17f}"] {
            assert!(!is_variant(key, PARAM_KEYS), "{key:?}");
        }
    }

    #[test]
    fn the_reserved_prefix_of_meta_has_one_spelling() {
        for key in [
            "IO.modelcontextprotocol/protocolVersion",
            "io.modelcontextprotocol/protocolversion",
            "io.modelcontextprotocol/protocol_version",
            "io.modelcontextprotocol\u{ff0f}anything",
            "io.ModelContextProtocol/anything",
            "ProgressToken",
        ] {
            assert!(is_meta_variant(key), "{key:?}");
        }
        for key in [META_PROTOCOL_VERSION, "io.modelcontextprotocol/ui", "com.example/Thing", "traceparent", ""] {
            assert!(!is_meta_variant(key), "{key:?}");
        }
    }
}
