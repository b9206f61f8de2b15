//! What kinds of thing does a server offer?

use super::Method;

/// A kind of thing that a server lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ItemKind {
    /// Of `prompts/list`, known by its `name`.
    Prompt,
    /// Of `resources/list`, known by its `uri`.
    Resource,
    /// Of `resources/templates/list`, known by its `uriTemplate`.
    ResourceTemplate,
    /// Of `tools/list`, known by its `name`.
    Tool,
}

impl ItemKind {
    /// Every kind.
    pub const ALL: [Self; 4] = [Self::Prompt, Self::Resource, Self::ResourceTemplate, Self::Tool];

    /// The word in records, metrics and addresses: one of a fixed set.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Prompt => "prompt",
            Self::Resource => "resource",
            Self::ResourceTemplate => "resource_template",
            Self::Tool => "tool",
        }
    }

    /// The kind with this [`Self::label`].
    #[must_use]
    pub fn named(label: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.label() == label)
    }

    /// The member of a definition that names the thing.
    #[must_use]
    pub fn name_member(self) -> &'static str {
        match self {
            Self::Prompt | Self::Tool => "name",
            Self::Resource => "uri",
            Self::ResourceTemplate => "uriTemplate",
        }
    }

    /// The method that lists such things.
    #[must_use]
    pub fn list_method(self) -> Method {
        match self {
            Self::Prompt => Method::PromptsList,
            Self::Resource => Method::ResourcesList,
            Self::ResourceTemplate => Method::ResourcesTemplatesList,
            Self::Tool => Method::ToolsList,
        }
    }

    /// The member of a list result that holds such things.
    #[must_use]
    pub fn list_member(self) -> &'static str {
        match self {
            Self::Prompt => "prompts",
            Self::Resource => "resources",
            Self::ResourceTemplate => "resourceTemplates",
            Self::Tool => "tools",
        }
    }
}
