//! Do the modules import only what the front page of `src/lib.rs` says they may?
//!
//! The table stands there in the docs, so that text and code cannot drift:
//!
//! ````text
//! //! ```text imports
//! //! mcp: time, secret
//! //! policy: identity, mcp, time
//! //! ```
//! ````
//!
//! A row names a module and what it may import from this crate, itself aside. A module without a row may import nothing, and
//! a row without a module is an error. Test modules (`#[cfg(test)]`, files named `tests.rs` or `testkit.rs`) are looked at too: a
//! test that needs the shell is a sign of a core that does.
#![expect(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::string_slice,
    clippy::unwrap_used,
    reason = "a test that is surprised should fail where it is surprised"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

type Table = BTreeMap<String, BTreeSet<String>>;

#[test]
fn modules_import_what_the_front_page_allows() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let table = read_table(&fs::read_to_string(root.join("lib.rs")).unwrap());
    let mut wrong = Vec::new();
    for file in rust_files(&root) {
        let Some(module) = module_of(&root, &file) else { continue };
        let text = fs::read_to_string(&file).unwrap();
        for (line, imported) in imports(&text) {
            let allowed = table.get(&module).is_some_and(|row| row.contains(&imported));
            if imported != module && !allowed {
                let place = file.strip_prefix(root.parent().unwrap()).unwrap().display();
                wrong.push(format!("{place}:{line}: {module} may not import {imported}"));
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn every_module_has_a_row_and_every_row_a_module() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let rows: BTreeSet<String> = read_table(&fs::read_to_string(root.join("lib.rs")).unwrap()).into_keys().collect();
    let modules: BTreeSet<String> = rust_files(&root).iter().filter_map(|file| module_of(&root, file)).collect();
    assert_eq!(rows, modules);
}

/// Imports point inwards: following them never leads back.
#[test]
fn the_table_has_no_circle() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut left = read_table(&fs::read_to_string(root.join("lib.rs")).unwrap());
    let leaf = |left: &Table| {
        let imports_nothing_left = |row: &BTreeSet<String>| !row.iter().any(|imported| left.contains_key(imported));
        left.iter().find(|(_, row)| imports_nothing_left(row)).map(|(module, _)| module.clone())
    };
    while let Some(module) = leaf(&left) {
        left.remove(&module);
    }
    assert!(left.is_empty(), "a circle among {:?}", left.keys());
}

#[test]
fn the_scanner_finds_every_way_to_name_a_module() {
    let text = "use crate::mcp;\n\
                use crate::{policy::Rule, time::{Clock, UnixSeconds}};\n\
                pub(crate) use crate::secret::Secret;\n\
                fn f(a: crate::identity::Caller) -> crate :: session::Id {}\n\
                // crate::demo in a comment\n\
                /// [`crate::telemetry::Log`] in a doc comment\n\
                let s = \"crate::store\";\n\
                use\n    crate::net::egress;\n\
                use portcullis::config::Config;\n\
                let x = mycrate::gateway;\n";
    let found: Vec<(usize, String)> = imports(text);
    let expected = [
        (1, "mcp"),
        (2, "policy"),
        (2, "time"),
        (3, "secret"),
        (4, "identity"),
        (4, "session"),
        (9, "net"),
        (10, "config"),
    ];
    let expected: Vec<(usize, String)> = expected.iter().map(|(line, name)| (*line, (*name).to_owned())).collect();
    assert_eq!(found, expected);
}

/// Reads the rows between `//! ```text imports` and the closing fence.
fn read_table(lib: &str) -> Table {
    let mut rows = lib
        .lines()
        .map(|line| line.trim_start_matches("//!").trim())
        .skip_while(|line| *line != "```text imports")
        .skip(1)
        .take_while(|line| *line != "```")
        .filter(|line| !line.is_empty())
        .peekable();
    assert!(rows.peek().is_some(), "src/lib.rs has no table after a line `//! ```text imports`");
    rows.map(|row| {
        let (module, allowed) = row.split_once(':').unwrap_or_else(|| panic!("no colon in the row {row:?}"));
        let allowed = allowed.split([',', ' ']).filter(|name| !name.is_empty()).map(str::to_owned).collect();
        (module.trim().to_owned(), allowed)
    })
    .collect()
}

fn rust_files(directory: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files.sort();
    files
}

/// The top-level module a file belongs to; none for `lib.rs`, which declares them, and `main.rs`, which is another crate.
fn module_of(root: &Path, file: &Path) -> Option<String> {
    let first = file.strip_prefix(root).unwrap().components().next().unwrap();
    let name = first.as_os_str().to_str().unwrap().trim_end_matches(".rs").to_owned();
    (!matches!(&*name, "lib" | "main")).then_some(name)
}

/// Every `crate::NAME` and `portcullis::NAME` of a file outside comments and strings, with its line.
fn imports(text: &str) -> Vec<(usize, String)> {
    let code = without_comments_and_strings(text);
    let mut found = Vec::new();
    for root in ["crate", "portcullis"] {
        for (start, _) in code.match_indices(root) {
            if code[..start].ends_with(|c: char| c.is_alphanumeric() || c == '_') {
                continue;
            }
            let Some(rest) = code[start + root.len()..].trim_start().strip_prefix("::") else { continue };
            let line = code[..start].matches('\n').count() + 1;
            found.extend(first_names(rest.trim_start()).into_iter().map(|name| (line, name)));
        }
    }
    found.sort_by_key(|(line, _)| *line);
    found
}

/// The first segment after `crate::`, or each of them in `crate::{a::B, c}`.
fn first_names(path: &str) -> Vec<String> {
    let word = |text: &str| text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
    let Some(group) = path.strip_prefix('{') else { return vec![word(path)] };
    let (mut depth, mut names, mut expects_name) = (0_usize, Vec::new(), true);
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => expects_name = true,
            c if c.is_alphabetic() && depth == 0 && expects_name => {
                names.push(word(&group[at..]));
                expects_name = false;
            }
            _ => {}
        }
    }
    names
}

/// Blanks out comments, strings and character literals, keeping line ends, so that lines keep their numbers.
fn without_comments_and_strings(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let mut code = String::with_capacity(text.len());
    let mut at = 0;
    while at < chars.len() {
        let rest = &chars[at..];
        let end = if rest.starts_with(&['/', '/']) {
            rest.iter().position(|c| *c == '\n').unwrap_or(rest.len())
        } else if rest.starts_with(&['/', '*']) {
            (2..rest.len()).find(|end| rest[..*end].ends_with(&['*', '/']) && *end > 3).unwrap_or(rest.len())
        } else if let Some(hashes) = raw_string_hashes(&chars, at) {
            let close: Vec<char> = std::iter::once('"').chain(std::iter::repeat_n('#', hashes)).collect();
            let open = hashes + 2;
            (open..rest.len()).find(|end| rest[*end..].starts_with(&close)).map_or(rest.len(), |end| end + close.len())
        } else if rest[0] == '"' {
            let mut end = 1;
            while end < rest.len() && rest[end] != '"' {
                end += if rest[end] == '\\' { 2 } else { 1 };
            }
            (end + 1).min(rest.len())
        } else if rest[0] == '\'' && (rest.get(1) == Some(&'\\') || rest.get(2) == Some(&'\'')) {
            let start = if rest.get(1) == Some(&'\\') { 3 } else { 2 };
            (start..rest.len()).find(|end| rest[*end] == '\'').map_or(rest.len(), |end| end + 1)
        } else {
            code.push(rest[0]);
            at += 1;
            continue;
        };
        code.extend(rest[..end].iter().map(|c| if *c == '\n' { '\n' } else { ' ' }));
        at += end;
    }
    code
}

/// How many `#` a raw string that begins here has; none when it is no raw string.
fn raw_string_hashes(chars: &[char], at: usize) -> Option<usize> {
    let is_word = |c: &char| c.is_alphanumeric() || *c == '_';
    let starts = chars[at] == 'r' && !(at > 0 && is_word(&chars[at - 1]) && chars[at - 1] != 'b');
    let hashes = chars.get(at + 1..)?.iter().take_while(|c| **c == '#').count();
    (starts && chars.get(at + 1 + hashes) == Some(&'"')).then_some(hashes)
}
