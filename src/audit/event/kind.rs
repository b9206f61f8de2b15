//! What is a record about? The words of `event`, each one of a fixed set.

/// What a record is about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum EventKind {
    /// Something was done, or refused, on the admin pages or through their API.
    Admin(AdminEvent),
    /// A request without a believable caller.
    AuthRefused,
    /// A configuration was refused and the last one kept.
    ConfigRefused,
    /// A configuration came into force.
    ConfigReloaded,
    /// The gateway answered by itself: resource metadata, a CORS preflight.
    HttpAnswered,
    /// A stream has been open for a while and is not over yet; its [`EventKind::McpRequest`] follows at its end.
    McpOpened,
    /// A request to a route, whatever became of it.
    #[default]
    McpRequest,
    /// A quarantine is over by itself.
    QuarantineExpired,
    /// Somebody has let go what was stopped.
    QuarantineLifted,
    /// Somebody has stopped a principal, an agent or a tool.
    QuarantineSet,
    /// Somebody has approved a server or a definition; it may take others, too.
    RegistryApproved,
    /// Somebody has changed what a server is.
    RegistryChanged,
    /// Something is not as it was approved, or is missing, or back.
    RegistryDrifted,
    /// Somebody was not let do what they wanted.
    RegistryRefused,
    /// A server was entered.
    RegistryRegistered,
    /// A server or an item was put back to use.
    RegistryResumed,
    /// A server or an item was taken out of use for good.
    RegistryRetired,
    /// A server or an item was taken out of use.
    RegistrySuspended,
    /// An instance that was left alone takes work again.
    RoutingCircuitClosed,
    /// An instance is left alone for a while: it fails, or is slow.
    RoutingCircuitOpened,
    /// A call was made once more elsewhere, and the answers were compared.
    RoutingShadowed,
    /// Too many requests on one side of a split failed, and it gets no more.
    RoutingSplitAborted,
    /// A session whose instance is gone was opened anew at another one.
    SessionHandedOver,
}

/// What somebody did on the admin pages or through their API. Whether it was done says the outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AdminEvent {
    /// Had a configuration checked.
    ConfigCheck,
    /// Had the configuration read again.
    ConfigReload,
    /// Did something to an item of a server: the act's word says what.
    ItemAction,
    /// Asked what the rules would say of somebody.
    PolicyExplain,
    /// Let go what was stopped.
    QuarantineLift,
    /// Stopped a principal, an agent or a tool.
    QuarantineSet,
    /// Wanted something that nobody is let do without signing in, or without a role.
    Refused,
    /// Did something to a server: the act's word says what.
    ServerAction,
    /// Changed what a server is.
    ServerChange,
    /// Entered a server.
    ServerRegister,
    /// Ended somebody's sessions.
    SessionsRevoke,
    /// Signed in.
    SignIn,
    /// Signed out.
    SignOut,
    /// Had a side of a split tried again.
    SplitReopen,
}

impl EventKind {
    /// The word in the record.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Admin(event) => event.label(),
            Self::AuthRefused => "auth.refused",
            Self::ConfigRefused => "config.refused",
            Self::ConfigReloaded => "config.reloaded",
            Self::HttpAnswered => "http.answered",
            Self::McpOpened => "mcp.opened",
            Self::McpRequest => "mcp.request",
            Self::QuarantineExpired => "quarantine.expired",
            Self::QuarantineLifted => "quarantine.lifted",
            Self::QuarantineSet => "quarantine.set",
            Self::RegistryApproved => "registry.approved",
            Self::RegistryChanged => "registry.changed",
            Self::RegistryDrifted => "registry.drifted",
            Self::RegistryRefused => "registry.refused",
            Self::RegistryRegistered => "registry.registered",
            Self::RegistryResumed => "registry.resumed",
            Self::RegistryRetired => "registry.retired",
            Self::RegistrySuspended => "registry.suspended",
            Self::RoutingCircuitClosed => "routing.circuit_closed",
            Self::RoutingCircuitOpened => "routing.circuit_opened",
            Self::RoutingShadowed => "routing.shadowed",
            Self::RoutingSplitAborted => "routing.split_aborted",
            Self::SessionHandedOver => "session.handed_over",
        }
    }
}

impl EventKind {
    /// Whether it is about a request to a route, and not about the gateway itself.
    #[must_use]
    pub fn is_of_traffic(self) -> bool {
        matches!(self, Self::AuthRefused | Self::McpOpened | Self::McpRequest)
    }
}

impl AdminEvent {
    /// The word in the record.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::ConfigCheck => "admin.config_check",
            Self::ConfigReload => "admin.config_reload",
            Self::ItemAction => "admin.item_action",
            Self::PolicyExplain => "admin.policy_explain",
            Self::QuarantineLift => "admin.quarantine_lift",
            Self::QuarantineSet => "admin.quarantine_set",
            Self::Refused => "admin.refused",
            Self::ServerAction => "admin.server_action",
            Self::ServerChange => "admin.server_change",
            Self::ServerRegister => "admin.server_register",
            Self::SessionsRevoke => "admin.sessions_revoke",
            Self::SignIn => "admin.sign_in",
            Self::SignOut => "admin.sign_out",
            Self::SplitReopen => "admin.split_reopen",
        }
    }
}
