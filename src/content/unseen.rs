//! Which characters does nobody see?

/// Characters that show nothing, or only change how others are shown.
#[must_use]
pub fn is_invisible(char: char) -> bool {
    matches!(
        char,
        '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}'
            | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
            | '\u{2800}' | '\u{3164}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{ffa0}' | '\u{fff0}'..='\u{fffb}'
            | '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{e0fff}'
    )
}

/// Whether a text holds characters that hide something in it: invisible ones where no script and no emoji needs them, ones
/// that turn text around, tag characters, and control characters, terminal escapes among them.
///
/// Not counted: a byte order mark in front, soft hyphens, joiners and variation selectors in scripts and emoji, the marks
/// that order text of both directions beside letters that run from right to left.
#[must_use]
pub fn hides_something(text: &str) -> bool {
    if text.is_ascii() {
        // Not `any`, which stops at the first: without branches many bytes are one comparison.
        return text.bytes().fold(false, |found, byte| {
            found | (byte.is_ascii_control() & (byte != b'\n') & (byte != b'\r') & (byte != b'\t') & (byte != b'\x0c'))
        });
    }
    let mut before = None;
    let mut chars = text.chars().peekable();
    while let Some(char) = chars.next() {
        if is_out_of_place(before, char, chars.peek().copied()) {
            return true;
        }
        before = Some(char);
    }
    false
}

fn is_out_of_place(before: Option<char>, char: char, after: Option<char>) -> bool {
    let beyond_ascii = |neighbour: Option<char>| neighbour.is_some_and(|neighbour| !neighbour.is_ascii());
    match char {
        '\n' | '\r' | '\t' | '\u{c}' | '\u{ad}' => false,
        '\u{feff}' => before.is_some(),
        '\u{200c}' | '\u{200d}' => !(beyond_ascii(before) && beyond_ascii(after)),
        '\u{fe0e}' | '\u{fe0f}' => !before.is_some_and(|c| !c.is_ascii() || matches!(c, '0'..='9' | '#' | '*')),
        '\u{200e}' | '\u{200f}' | '\u{61c}' => ![before, after].into_iter().flatten().any(runs_leftward),
        // The flags of England, Scotland and Wales are spelled in tag characters behind a black flag.
        '\u{e0061}'..='\u{e007a}' | '\u{e007f}' => {
            !before.is_some_and(|c| c == '\u{1f3f4}' || ('\u{e0061}'..='\u{e007a}').contains(&c))
        }
        _ => is_invisible(char) || char.is_control(),
    }
}

fn runs_leftward(char: char) -> bool {
    matches!(char, '\u{590}'..='\u{8ff}' | '\u{fb1d}'..='\u{fdff}' | '\u{fe70}'..='\u{fefc}' | '\u{10800}'..='\u{10fff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hidden_characters_are_told_from_those_that_scripts_need() {
        for text in [
            "ig\u{200b}nore",
            "\u{202e}txt.exe",
            "safe\u{2066}evil\u{2069}",
            "hi\u{e0049}\u{e0047}\u{e004e}",
            "\u{1b}[2Jgone",
            "a\u{8}\u{8}b",
            "mid\u{feff}dle",
            "null\u{0}",
            "\u{9b}31m",
            "a\u{200d}b",
        ] {
            assert!(hides_something(text), "{text:?}");
        }
        for text in [
            "plain\ttext\r\n",
            "\u{feff}begins a file",
            "soft\u{ad}hyphen",
            "👩\u{200d}👩\u{200d}👧 ❤\u{fe0f} 1\u{fe0f}\u{20e3}",
            "می\u{200c}خواهم",
            "שלום\u{200f} abc",
            "🏴\u{e0067}\u{e0062}\u{e0065}\u{e006e}\u{e0067}\u{e007f}",
            "naïve 名前",
        ] {
            assert!(!hides_something(text), "{text:?}");
        }
    }
}
