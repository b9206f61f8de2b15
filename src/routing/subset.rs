//! Which of a server's instances are meant?

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// What the configuration says of an instance, besides how to reach it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Traits {
    /// Which build of the server runs there.
    pub version: Option<Arc<str>>,
    /// Where it stands, in the words that `request.region` uses.
    pub region: Option<Arc<str>>,
    /// Whatever else tells it apart.
    pub labels: BTreeMap<Box<str>, Box<str>>,
}

/// Instances by what they are: all that is said here must hold. Says nothing: every instance.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Subset {
    /// One of these ids; empty: any.
    pub instances: Vec<Box<str>>,
    /// Exactly this version.
    pub version: Option<Box<str>>,
    /// Exactly this region.
    pub region: Option<Box<str>>,
    /// All of these labels.
    pub labels: BTreeMap<Box<str>, Box<str>>,
}

impl Subset {
    /// Whether an instance is one of them.
    #[must_use]
    pub fn takes_in(&self, id: &str, traits: &Traits) -> bool {
        let same =
            |wanted: &Option<Box<str>>, is: &Option<Arc<str>>| wanted.is_none() || wanted.as_deref() == is.as_deref();
        (self.instances.is_empty() || self.instances.iter().any(|wanted| **wanted == *id))
            && same(&self.version, &traits.version)
            && same(&self.region, &traits.region)
            && self.labels.iter().all(|(name, value)| traits.labels.get(name) == Some(value))
    }
}

impl fmt::Display for Subset {
    /// In few words, for metrics, audit records and people: `v2`, else `region=eu,memory=high`. Always the same for the same
    /// subset, and made of the configuration alone.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let (Some(version), true, None, true) =
            (&self.version, self.instances.is_empty(), &self.region, self.labels.is_empty())
        {
            return f.write_str(version);
        }
        let single = [("version", &self.version), ("region", &self.region)];
        let single = single.into_iter().filter_map(|(name, value)| Some((name, &**value.as_ref()?)));
        let instances = self.instances.iter().map(|id| ("instance", &**id));
        let labels = self.labels.iter().map(|(name, value)| (&**name, &**value));
        for (nth, (name, value)) in single.chain(instances).chain(labels).enumerate() {
            if nth > 0 {
                f.write_str(",")?;
            }
            write!(f, "{name}={value}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> BTreeMap<Box<str>, Box<str>> {
        pairs.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect()
    }

    #[test]
    fn everything_that_is_said_must_hold() {
        let instance =
            Traits { version: Some("v2".into()), region: Some("eu".into()), labels: labels(&[("memory", "high")]) };
        let takes_in = |subset: Subset| subset.takes_in("a", &instance);
        assert!(takes_in(Subset::default()));
        assert!(takes_in(Subset { version: Some("v2".into()), ..Subset::default() }));
        assert!(takes_in(Subset {
            region: Some("eu".into()),
            labels: labels(&[("memory", "high")]),
            ..Subset::default()
        }));
        assert!(takes_in(Subset { instances: vec!["b".into(), "a".into()], ..Subset::default() }));
        assert!(!takes_in(Subset { instances: vec!["b".into()], ..Subset::default() }));
        assert!(!takes_in(Subset { version: Some("v2".into()), region: Some("us".into()), ..Subset::default() }));
        assert!(!takes_in(Subset { labels: labels(&[("memory", "low")]), ..Subset::default() }));
        assert!(!takes_in(Subset { labels: labels(&[("disk", "high")]), ..Subset::default() }));
    }

    /// Residency: an instance of which nobody has said where it stands is nowhere.
    #[test]
    fn an_instance_without_a_region_is_in_none() {
        let eu = Subset { region: Some("eu".into()), ..Subset::default() };
        assert!(!eu.takes_in("a", &Traits::default()));
    }

    #[test]
    fn a_subset_is_named_in_few_words() {
        assert_eq!(Subset { version: Some("v2".into()), ..Subset::default() }.to_string(), "v2");
        let subset = Subset {
            version: Some("v2".into()),
            region: Some("eu".into()),
            instances: vec!["a".into()],
            labels: labels(&[("memory", "high")]),
        };
        assert_eq!(subset.to_string(), "version=v2,region=eu,instance=a,memory=high");
    }
}
