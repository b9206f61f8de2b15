//! Which of several shares is somebody's? Rendezvous hashing: the same for everybody who computes it, and when one goes, only
//! those who were its own go elsewhere.

use crate::identity::Principal;

/// A number for a principal, spread over all of them: for shares, not for secrets. The same in every process, now and later.
#[must_use]
pub fn of_principal(principal: &Principal) -> u64 {
    let issuer = bytes(BASIS, principal.issuer.as_bytes());
    // Issuer and subject are kept apart, so that no two principals are one text.
    mix(bytes(bytes(issuer, &[0xff]), principal.subject.as_bytes()))
}

/// Of `shares` (a name and a weight each) the place of the one that is `key`'s, among those with a weight; `None` when there is
/// none. Weighted rendezvous hashing (Thaler and Ravishankar, 1998; weights as in Schindelhauer and Schomaker, 2005): each
/// share draws a number from key and name, and the largest wins. `salt` makes the choice independent of others made by
/// the same key.
#[must_use]
pub fn rendezvous<'a>(key: u64, salt: &str, shares: impl Iterator<Item = (&'a str, u32)>) -> Option<usize> {
    let key = mix(bytes(key, salt.as_bytes()));
    let mut best: Option<(usize, f64)> = None;
    for (nth, (name, weight)) in shares.enumerate() {
        if weight == 0 {
            continue;
        }
        // In (0, 1), so that its logarithm is a number below 0.
        let drawn = (fraction(mix(bytes(key, name.as_bytes()))) + f64::EPSILON / 4.0).min(1.0 - f64::EPSILON);
        let score = -f64::from(weight) / drawn.ln();
        if best.is_none_or(|(_, highest)| score > highest) {
            best = Some((nth, score));
        }
    }
    best.map(|(nth, _)| nth)
}

/// Of `weights` the place where `draw` falls, in proportion; `None` when all are 0.
#[must_use]
pub fn by_weight(draw: u64, weights: impl Iterator<Item = u32> + Clone) -> Option<usize> {
    let sum: u64 = weights.clone().map(u64::from).sum();
    let mut left = u64::try_from((u128::from(draw) * u128::from(sum)) >> 64).unwrap_or(u64::MAX);
    for (nth, weight) in weights.enumerate() {
        match left.checked_sub(u64::from(weight)) {
            Some(rest) => left = rest,
            None => return Some(nth),
        }
    }
    None
}

/// The `nth` of a sequence of draws that is spread evenly from its beginning on: any few in a row are shared out almost as the
/// weights say (additive recurrence with the golden ratio).
#[must_use]
pub fn spread(nth: u64) -> u64 {
    nth.wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

/// Whether a draw falls within the first `part`, 0 to 1, of all.
#[must_use]
pub fn falls_within(draw: u64, part: f64) -> bool {
    fraction(draw) < part
}

/// Another draw from the same.
#[must_use]
pub fn again(draw: u64) -> u64 {
    mix(draw ^ 0x5851_f42d_4c95_7f2d)
}

/// FNV-1a.
fn bytes(from: u64, bytes: &[u8]) -> u64 {
    bytes.iter().fold(from, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

/// The finalizer of MurmurHash3: every bit of the outcome depends on every bit.
fn mix(mut hash: u64) -> u64 {
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    hash ^ (hash >> 33)
}

/// In [0, 1): the upper 53 bits.
#[expect(clippy::cast_precision_loss, reason = "53 bits are what an f64 holds exactly")]
fn fraction(hash: u64) -> f64 {
    (hash >> 11) as f64 / (1_u64 << 53) as f64
}

const BASIS: u64 = 0xcbf2_9ce4_8422_2325;

#[cfg(test)]
#[expect(clippy::indexing_slicing, reason = "a test may panic")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PRINCIPALS: u64 = 100_000;

    fn principal(nth: u64) -> Principal {
        Principal { issuer: "https://idp.test".into(), subject: format!("user-{nth}").into() }
    }

    fn side_of(nth: u64, sides: &[(&'static str, u32)]) -> usize {
        rendezvous(of_principal(&principal(nth)), "canary", sides.iter().copied()).unwrap_or(usize::MAX)
    }

    #[test]
    fn a_split_is_within_one_percent_over_a_hundred_thousand_principals() {
        for weights in [[90, 10], [50, 50], [99, 1], [1, 3], [0, 5]] {
            let sides = [("v1", weights[0]), ("v2", weights[1])];
            let second = (0..PRINCIPALS).filter(|nth| side_of(*nth, &sides) == 1).count();
            let wanted = f64::from(weights[1]) / f64::from(weights[0] + weights[1]);
            let share = second as f64 / PRINCIPALS as f64;
            assert!((share - wanted).abs() < 0.01, "{weights:?}: {share}");
        }
    }

    #[test]
    fn nobody_changes_sides_while_the_weights_stay() {
        let sides = [("v1", 70), ("v2", 30)];
        let reordered = [("v2", 30), ("v1", 70)];
        for nth in 0..PRINCIPALS {
            assert_eq!(side_of(nth, &sides), side_of(nth, &sides));
            assert_eq!(side_of(nth, &sides), 1 - side_of(nth, &reordered), "the order of the sides says nothing");
        }
    }

    /// From 90/10 to 80/20, a ninth of the first side's moves to the second, and nobody comes back.
    #[test]
    fn a_larger_share_takes_and_gives_nothing_back() {
        let (before, after) = ([("v1", 90), ("v2", 10)], [("v1", 80), ("v2", 20)]);
        let mut moved = 0;
        for nth in 0..PRINCIPALS {
            match (side_of(nth, &before), side_of(nth, &after)) {
                (0, 1) => moved += 1,
                (was, is) => assert_eq!(was, is, "{nth} came back"),
            }
        }
        assert!((9_000..11_000).contains(&moved), "{moved}");
    }

    #[test]
    fn when_one_goes_only_its_own_go_elsewhere() {
        let all = [("a", 1), ("b", 2), ("c", 1), ("d", 4)];
        let left = [("a", 1), ("b", 2), ("d", 4)];
        for nth in 0..PRINCIPALS {
            let (before, after) = (all[side_of(nth, &all)].0, left[side_of(nth, &left)].0);
            assert!(before == "c" || before == after, "{nth} went from {before} to {after}");
        }
    }

    #[test]
    fn choices_with_another_salt_are_independent() {
        let shares = [("v1", 1), ("v2", 1)];
        let choice = |nth, salt| rendezvous(of_principal(&principal(nth)), salt, shares.iter().copied());
        let same = (0..10_000).filter(|nth| choice(*nth, "one") == choice(*nth, "other")).count();
        assert!((4_700..5_300).contains(&same), "{same}");
    }

    #[test]
    fn draws_in_a_row_are_shared_out_as_the_weights_say() {
        let mut counts = [0; 3];
        for nth in 0..1_000 {
            counts[by_weight(spread(nth), [7, 0, 3].into_iter()).unwrap_or(1)] += 1;
        }
        assert!((695..=705).contains(&counts[0]) && counts[1] == 0, "{counts:?}");
        assert_eq!(by_weight(u64::MAX, [0, 0].into_iter()), None);
    }

    proptest! {
        #[test]
        fn whoever_has_a_weight_can_be_chosen_and_nobody_else(key: u64, weights in prop::collection::vec(0_u32..1000, 0..6)) {
            let names = ["a", "b", "c", "d", "e", "f"];
            let shares = || weights.iter().zip(names).map(|(weight, name)| (name, *weight));
            for chosen in [rendezvous(key, "s", shares()), by_weight(key, weights.iter().copied())] {
                match chosen {
                    Some(nth) => prop_assert!(weights[nth] > 0),
                    None => prop_assert!(weights.iter().all(|weight| *weight == 0)),
                }
            }
        }
    }
}
