//! Could a person or a model take one name for another?

use unicode_normalization::UnicodeNormalization as _;
use unicode_security::confusable_detection::skeleton;

use crate::content::unseen::is_invisible;

/// What is left of a name when everything is taken away that eyes and sloppy readers overlook. Two names are look-alikes
/// when they share one of their forms and are not equal.
///
/// Both forms drop what nobody sees and the marks between words (`send-mail`, `send_mail`, `sendMail`), normalize (NFKC)
/// and put confusable characters in one place (UTS #39 §4). They differ in when case is folded: capital I looks like l
/// only before, while K and the Kelvin sign are one letter only after.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Forms {
    /// Folded after confusables.
    pub seen: Box<str>,
    /// Folded before confusables.
    pub spoken: Box<str>,
}

impl Forms {
    /// Of this name.
    #[must_use]
    pub fn of(name: &str) -> Self {
        let visible: String = name.nfkc().filter(|char| !is_overlooked(*char)).collect();
        let seen = fold(&skeleton(&visible).collect::<String>());
        let spoken = fold(&skeleton(&fold(&visible)).collect::<String>());
        Self { seen, spoken: if spoken.is_empty() { name.into() } else { spoken } }
    }
}

/// Whether two names could be taken for each other though they are not equal.
#[must_use]
pub fn look_alike(one: &str, other: &str) -> bool {
    let (forms, others) = (Forms::of(one), Forms::of(other));
    one != other && (forms.seen == others.seen && !forms.seen.is_empty() || forms.spoken == others.spoken)
}

fn fold(text: &str) -> Box<str> {
    text.chars().flat_map(char::to_lowercase).filter(|char| !is_overlooked(*char)).collect()
}

/// Marks between words, white space, control characters, and what has no width of its own.
fn is_overlooked(char: char) -> bool {
    matches!(
        char,
        '_' | '-' | '.' | '/' | ':' | ' ' | '\u{2010}'..='\u{2015}' | '\u{2043}' | '\u{2212}' | '\u{30fb}' | '\u{b7}'
    ) || char.is_whitespace()
        || char.is_control()
        || is_invisible(char)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The names of one look, from the incident of tool shadowing.
    #[test]
    fn names_that_are_taken_for_another_are_look_alikes() {
        for other in [
            "Send_Mail",
            "SEND_MAIL",
            "\u{455}end_mail",
            "send_m\u{430}il",
            "s\u{435}nd_mail",
            "ｓｅｎｄ_ｍａｉｌ",
            "send\u{200b}_mail",
            "send_mail\u{feff}",
            "send_mai1",
            "send_maiI",
            "send-mail",
            "sendMail",
            "send mail",
            "send\u{2010}mail",
            "𝗌𝖾𝗇𝖽_𝗆𝖺𝗂𝗅",
            "send_mai\u{4c0}",
            "send_mail\u{e0041}",
        ] {
            assert!(look_alike("send_mail", other), "{other:?} {:?}", Forms::of(other));
        }
    }

    #[test]
    fn names_that_differ_to_the_eye_are_not() {
        for (one, other) in [
            ("send_mail", "send_mail"),
            ("send_mail", "send_mails"),
            ("search", "research"),
            ("get_user", "get_users"),
            ("read", "write"),
            ("\u{200b}", "\u{200c}"),
            ("東京", "京都"),
            ("", "a"),
        ] {
            assert!(!look_alike(one, other), "{one:?} {other:?}");
        }
    }
}
