//! How deep and how large is a YAML text once its aliases stand for what they name? Found without expanding them.
//!
//! saphyr copies the tree of an anchor for each alias, and bounds the copies by number only: not how deep they come to lie
//! inside one another (its recursion then ends the process), and not at all inside keys. So the text is loaded once into
//! [`Weight`]s, which forget their children as soon as they have counted them, before it is loaded into a real tree.

use std::hash::{Hash, Hasher};

use saphyr::{AnnotatedMapping, AnnotatedNode, LoadableYamlNode, Marker, Scalar, ScanError, Yaml, YamlData};

/// The depth and size of a node, aliases counted as what they stand for.
#[derive(Clone, Default)]
pub(super) struct Weight {
    /// Lists and maps inside one another, this one included; 0 for a scalar.
    pub(super) depth: usize,
    /// Nodes, this one included.
    pub(super) nodes: usize,
    /// What tells keys of one map apart: a scalar's text, a list's or map's place.
    label: Label,
    /// Only while the node is being read.
    open: Open,
}

#[derive(Clone, Default, PartialEq, Eq, Hash)]
enum Label {
    #[default]
    None,
    Place(usize),
    Text(String),
}

#[derive(Clone, Default)]
enum Open {
    /// No more children will come.
    #[default]
    Closed,
    List(Vec<Weight>),
    Map(AnnotatedMapping<'static, Weight>),
    /// The loader's own mark for "no key read so far".
    NoKey,
}

/// Weighs every document of `text`.
///
/// # Errors
/// The text is not YAML, or a key is given twice in one map.
pub(super) fn weigh(text: &str) -> Result<Vec<Weight>, ScanError> {
    Weight::load_from_str(text)
}

impl Weight {
    fn scalar(label: Label) -> Self {
        Self { nodes: 1, label, ..Self::default() }
    }

    fn open(open: Open) -> Self {
        Self { open, ..Self::scalar(Label::None) }
    }
}

/// By label: children play no part, so comparing is never deep.
impl PartialEq for Weight {
    fn eq(&self, other: &Self) -> bool {
        self.label == other.label
    }
}

impl Eq for Weight {}

impl Hash for Weight {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.label.hash(state);
    }
}

impl LoadableYamlNode<'_> for Weight {
    type HashKey = Self;

    fn from_bare_yaml(yaml: Yaml<'_>) -> Self {
        match yaml {
            Yaml::Sequence(_) => Self::open(Open::List(Vec::new())),
            Yaml::Mapping(_) => Self::open(Open::Map(AnnotatedMapping::<'static, Self>::default())),
            Yaml::BadValue => Self::open(Open::NoKey),
            Yaml::Value(Scalar::String(text)) => Self::scalar(Label::Text(text.into_owned())),
            other @ (Yaml::Alias(_) | Yaml::Representation(..) | Yaml::Tagged(..) | Yaml::Value(_)) => {
                Self::scalar(Label::Text(format!("{other:?}")))
            }
        }
    }

    fn is_sequence(&self) -> bool {
        matches!(self.open, Open::List(_))
    }

    fn is_mapping(&self) -> bool {
        matches!(self.open, Open::Map(_))
    }

    fn is_badvalue(&self) -> bool {
        matches!(self.open, Open::NoKey)
    }

    /// Called by the loader only where [`Self::is_sequence`] holds; elsewhere it makes that true instead of panicking.
    fn sequence_mut(&mut self) -> &mut Vec<Self> {
        loop {
            match self.open {
                Open::List(ref mut items) => return items,
                Open::Closed | Open::Map(_) | Open::NoKey => self.open = Open::List(Vec::new()),
            }
        }
    }

    /// As [`Self::sequence_mut`].
    fn mapping_mut(&mut self) -> &mut AnnotatedMapping<'static, Self> {
        loop {
            match self.open {
                Open::Map(ref mut entries) => return entries,
                Open::Closed | Open::List(_) | Open::NoKey => {
                    self.open = Open::Map(AnnotatedMapping::<'static, Self>::default());
                }
            }
        }
    }

    fn into_tagged(self, _: std::borrow::Cow<'_, saphyr::Tag>) -> Self {
        self
    }

    fn take(&mut self) -> Self {
        std::mem::replace(self, Self::open(Open::NoKey))
    }

    fn with_start_marker(mut self, mark: Marker) -> Self {
        self.label = Label::Place(mark.index());
        self
    }

    /// The list or map is complete: counts its children and lets them go.
    fn with_end_marker(mut self, _: Marker) -> Self {
        let mut add = |child: &Self| {
            self.depth = self.depth.max(child.depth);
            self.nodes = self.nodes.saturating_add(child.nodes);
        };
        match std::mem::take(&mut self.open) {
            Open::List(items) => items.iter().for_each(add),
            Open::Map(entries) => entries.iter().for_each(|(key, value)| {
                add(key);
                add(value);
            }),
            Open::Closed | Open::NoKey => {}
        }
        self.depth = self.depth.saturating_add(1);
        self
    }
}

/// Needed to name the loader's map type.
impl AnnotatedNode for Weight {
    type HashKey<'a> = Self;

    fn parse_representation_recursive(&mut self) -> bool {
        true
    }
}

/// Needed by [`AnnotatedNode`]; the loader makes nodes by `from_bare_yaml`.
impl<'a> From<YamlData<'a, Self>> for Weight {
    fn from(_: YamlData<'a, Self>) -> Self {
        Self::scalar(Label::None)
    }
}
