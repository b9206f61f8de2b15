//! Could this URI have come from that template?

/// A URI template (RFC 6570) as a pattern. What an expression expands to depends on values nobody knows here, so this says
/// what *could* come out: an expression without operator gives no `/`, `?` and `#` (they are percent-encoded), any other
/// gives any characters; literals stand as they are.
#[derive(Clone, Debug)]
pub(super) struct Template(Vec<Part>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Literal(Box<str>),
    /// Characters of one segment.
    Segment,
    /// Any characters.
    Any,
}

impl Template {
    /// Of this text. One without an end to an expression matches only itself.
    #[must_use]
    pub(super) fn new(text: &str) -> Self {
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some((literal, after)) = rest.split_once('{') {
            let Some((expression, next)) = after.split_once('}') else { break };
            if !literal.is_empty() {
                parts.push(Part::Literal(literal.into()));
            }
            let is_plain = expression.starts_with(|char: char| char.is_ascii_alphanumeric() || char == '_');
            let part = if is_plain { Part::Segment } else { Part::Any };
            // Two wildcards in a row say no more than the wider of them.
            match (parts.last_mut(), part) {
                (Some(last @ (Part::Any | Part::Segment)), part) => {
                    if part == Part::Any {
                        *last = part;
                    }
                }
                (_, part) => parts.push(part),
            }
            rest = next;
        }
        if !rest.is_empty() {
            parts.push(Part::Literal(rest.into()));
        }
        // More wildcards than any template needs would make every look-up slow.
        if parts.len() > PARTS_MAX {
            parts = vec![Part::Literal(text.into())];
        }
        Self(parts)
    }

    /// Whether it could expand to `uri`. Takes time in proportion to the length of both.
    #[must_use]
    pub(super) fn may_expand_to(&self, uri: &str) -> bool {
        if uri.split(['/', '?', '#']).any(is_dot_segment) {
            return false;
        }
        // Every place in `uri` that the parts so far can reach, as a set of byte offsets.
        let mut reached = vec![false; uri.len() + 1];
        if let Some(start) = reached.first_mut() {
            *start = true;
        }
        for part in &self.0 {
            let mut next = vec![false; uri.len() + 1];
            let mut running = false;
            for (at, is_reached) in reached.iter().enumerate() {
                match part {
                    Part::Literal(literal) => {
                        let rest = uri.as_bytes().get(at..).unwrap_or_default();
                        if *is_reached
                            && rest.starts_with(literal.as_bytes())
                            && let Some(place) = next.get_mut(at + literal.len())
                        {
                            *place = true;
                        }
                    }
                    Part::Any | Part::Segment => {
                        running |= is_reached;
                        if running && let Some(place) = next.get_mut(at) {
                            *place = true;
                        }
                        let ends = matches!(uri.as_bytes().get(at), Some(b'/' | b'?' | b'#'));
                        running &= !(ends && *part == Part::Segment);
                    }
                }
            }
            reached = next;
        }
        reached.last() == Some(&true)
    }
}

/// Literals and expressions of a template; one with more matches only itself.
const PARTS_MAX: usize = 64;

/// `.` and `..`, also percent-encoded: a server that resolves them reaches where the template does not.
fn is_dot_segment(segment: &str) -> bool {
    let plain = segment.to_ascii_lowercase().replace("%2e", ".");
    plain == "." || plain == ".." || plain.contains("%2f..") || plain.contains("..%2f") || plain.contains("..%5c")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_what_could_come_out() {
        for (template, uri, expected) in [
            ("a://b", "a://b", true),
            ("a://b", "a://bc", false),
            ("a://{x}", "a://b", true),
            ("a://{x}", "a://", true),
            ("a://{x}", "a://b/c", false),
            ("a://{x}/{y}", "a://b/c", true),
            ("a://{x}/{y}", "a://b", false),
            ("a://{+x}", "a://b/c?d", true),
            ("a://{x}{?q}", "a://b?q=1", true),
            ("a://{x}.txt", "a://b.txt", true),
            ("a://{x}.txt", "a://b.txt.exe", false),
            ("a://{x}-{y}", "a://b-c-d", true),
            ("a://{x", "a://{x", true),
            ("a://{x", "a://b", false),
            ("a://{+x}", "a://b/../c", false),
            ("a://{+x}", "a://b/%2E%2e/c", false),
            ("a://{x}", "a://..%2fc", false),
            ("", "", true),
        ] {
            assert_eq!(Template::new(template).may_expand_to(uri), expected, "{template} {uri}");
        }
    }

    /// A pattern with many wildcards must not take exponential time.
    #[test]
    fn many_expressions_cost_little() {
        let template = Template::new(&"{+a}a".repeat(200));
        assert!(!template.may_expand_to(&"a".repeat(2000).replace("aaaa", "aaab").replace('a', "c")));
    }
}
