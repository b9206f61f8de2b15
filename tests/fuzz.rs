//! Does every input that fuzzing has kept still hold?
//!
//! The targets of `fuzz/` over their corpora in `fuzz/corpus/`: seeds, and what once broke a law (named `found-…`). No
//! fuzzer is needed; `make fuzz` looks for more.

#[path = "../fuzz/src/lib.rs"]
#[expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a broken law is told by a panic"
)]
#[expect(clippy::wildcard_enum_match_arm, reason = "rmcp's types are open")]
#[expect(unreachable_pub, reason = "the fuzzer links the same files as a library")]
mod targets;

use std::fs;
use std::panic::catch_unwind;
use std::path::Path;

type Anything = Result<(), Box<dyn std::error::Error>>;

#[test]
fn every_kept_input_holds() -> Anything {
    let mut broken = Vec::new();
    for (name, run) in targets::TARGETS {
        let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(name);
        let mut inputs = 0;
        for entry in fs::read_dir(&corpus)? {
            let path = entry?.path();
            let input = fs::read(&path)?;
            inputs += 1;
            if catch_unwind(|| run(&input)).is_err() {
                broken.push(path);
            }
        }
        assert!(inputs > 0, "{name} has no seeds");
    }
    assert!(broken.is_empty(), "these inputs break a law: {broken:#?}");
    Ok(())
}

/// Whoever adds a target adds it everywhere.
#[test]
fn every_corpus_has_a_target_and_a_program() -> Anything {
    let fuzz = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz");
    let names = |directory: &str| -> Result<Vec<String>, std::io::Error> {
        let mut names = Vec::new();
        for entry in fs::read_dir(fuzz.join(directory))? {
            names.push(entry?.file_name().to_string_lossy().trim_end_matches(".rs").to_owned());
        }
        names.sort();
        Ok(names)
    };
    let targets = targets::TARGETS.map(|(name, _)| name.to_owned());
    assert_eq!(names("corpus")?, targets);
    assert_eq!(names("fuzz_targets")?, targets);
    let manifest = fs::read_to_string(fuzz.join("Cargo.toml"))?;
    for name in targets {
        assert!(manifest.contains(&format!("name = \"{name}\"")), "{name} is not in fuzz/Cargo.toml");
    }
    Ok(())
}
