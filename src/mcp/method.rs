//! Which methods may a client send? A closed list: what is not on it is unknown and refused.

use std::fmt;

use super::Era;

macro_rules! methods {
    ($($(#[$doc:meta])* $variant:ident = $name:literal in $eras:expr;)*) => {
        /// A method that a client may send to a server, in some revision.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Method { $($(#[$doc])* $variant,)* }

        impl Method {
            /// Every method.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// Its name on the wire.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// The eras in which it exists.
            #[must_use]
            pub fn eras(self) -> &'static [Era] {
                match self { $(Self::$variant => $eras,)* }
            }
        }
    };
}

const BOTH: &[Era] = &[Era::Legacy, Era::Modern];
const LEGACY: &[Era] = &[Era::Legacy];
const MODERN: &[Era] = &[Era::Modern];

methods! {
    /// Asks for argument suggestions; names a prompt or a resource template in `ref`.
    CompletionComplete = "completion/complete" in BOTH;
    /// Opens a session.
    Initialize = "initialize" in LEGACY;
    /// Sets the log level of a session.
    LoggingSetLevel = "logging/setLevel" in LEGACY;
    /// Takes a request back.
    NotificationsCancelled = "notifications/cancelled" in BOTH;
    /// Ends the handshake.
    NotificationsInitialized = "notifications/initialized" in LEGACY;
    /// Reports progress of a request the server made.
    NotificationsProgress = "notifications/progress" in BOTH;
    /// Tells that the client's roots have changed.
    NotificationsRootsListChanged = "notifications/roots/list_changed" in LEGACY;
    /// Tells the state of a task the client runs for the server (2025-11-25).
    NotificationsTasksStatus = "notifications/tasks/status" in LEGACY;
    /// Is the other side alive?
    Ping = "ping" in LEGACY;
    /// Takes a prompt with its arguments filled in.
    PromptsGet = "prompts/get" in BOTH;
    /// Lists prompts.
    PromptsList = "prompts/list" in BOTH;
    /// Lists resources.
    ResourcesList = "resources/list" in BOTH;
    /// Reads a resource.
    ResourcesRead = "resources/read" in BOTH;
    /// Asks to be told of a resource's changes.
    ResourcesSubscribe = "resources/subscribe" in LEGACY;
    /// Lists resource templates.
    ResourcesTemplatesList = "resources/templates/list" in BOTH;
    /// Ends a subscription.
    ResourcesUnsubscribe = "resources/unsubscribe" in LEGACY;
    /// Asks what the server speaks and can.
    ServerDiscover = "server/discover" in MODERN;
    /// Opens a stream of change notifications.
    SubscriptionsListen = "subscriptions/listen" in MODERN;
    /// Stops a task.
    TasksCancel = "tasks/cancel" in BOTH;
    /// Asks for a task's state.
    TasksGet = "tasks/get" in BOTH;
    /// Lists the caller's tasks.
    TasksList = "tasks/list" in LEGACY;
    /// Waits for a task's result.
    TasksResult = "tasks/result" in LEGACY;
    /// Answers what a task has asked.
    TasksUpdate = "tasks/update" in MODERN;
    /// Calls a tool.
    ToolsCall = "tools/call" in BOTH;
    /// Lists tools.
    ToolsList = "tools/list" in BOTH;
}

impl Method {
    /// Reads the exact name on the wire; anything else is `None`.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|method| method.as_str() == name)
    }

    /// Whether it is sent without an id and gets no answer.
    #[must_use]
    pub fn is_notification(self) -> bool {
        self.as_str().starts_with("notifications/")
    }

    /// Whether its answer is a list that the policy filters.
    #[must_use]
    pub fn is_list(self) -> bool {
        matches!(self, Self::PromptsList | Self::ResourcesList | Self::ResourcesTemplatesList | Self::ToolsList)
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
