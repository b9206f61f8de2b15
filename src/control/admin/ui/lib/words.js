// What do the gateway's words mean? In the words of somebody who has to act on them.

/** Why a request was refused: what it means, and what to do about it. */
export const REASONS = {
  insufficient_scope: ["The access token lacks a scope", "The rule that would permit the call asks for a scope that the token does not hold. The client was told which one; it can ask its issuer for it."],
  denied: ["No rule permits it", "A rule denies the call, or none permits it, and no other scope would help. Ask the policy explorer what this caller may do."],
  missing_token: ["No access token came with it", "The client was told where to get one. MCP clients follow that by themselves."],
  invalid_token: ["The access token is not valid here", "It has expired, is meant for another audience, is signed by nobody we believe, or is malformed. The client needs a fresh one."],
  missing_agent_token: ["No agent token came with it", "The route wants to know which software acts."],
  invalid_agent_token: ["The agent's token is not valid here", "It has expired, is meant for another audience, or is signed by nobody we believe."],
  delegation_refused: ["The agent may not do this for this caller", "The chain of delegation does not lead from this person to this agent, or its constraints do not reach this server or tool."],
  tool_quarantined: ["The tool is not approved for use", "It is new, has changed since it was approved, or is suspended. Look at what waits for approval."],
  budget_exceeded: ["A budget is used up", "The record names the budget and its limit. The client was told when to come back."],
  quarantined_caller: ["The caller was stopped by hand", "The kill switch says by whom and why."],
  tool_stopped: ["The tool was stopped by hand", "The kill switch says by whom and why."],
  tainted_context: ["It has read untrusted content", "What has read what anybody may have written may not send anything out, until the mark is over or somebody approves (taint.unless)."],
  taint_unavailable: ["There is no room for one more mark", "limits.taint_marks bounds them."],
  server_suspended: ["The server is not approved for use", "It is registered and not approved yet, suspended, or retired."],
  forbidden_host: ["The host name is not served here", "Name it in allowed_hosts if it is yours. Otherwise this was a page that tried to reach the gateway by another name."],
  forbidden_origin: ["A page of another site called", "Name its origin in allowed_origins if it is yours."],
  forbidden_certificate: ["The client certificate is not trusted any more", "The client must connect again."],
  no_route: ["Nothing is served at this path", "Check the address that the client uses against the configured routes."],
  unknown_session: ["The session is unknown", "It has expired, was ended, or belongs to somebody else. The client begins a new one."],
  method_not_found: ["The protocol revision has no such method", "The client speaks another revision than it said."],
  parse_error: ["The body is not strict JSON", "Not JSON, not UTF-8, a repeated key, or nested too deeply."],
  invalid_request: ["The message is not JSON-RPC 2.0", "The client is broken, or probes."],
  invalid_params: ["The parameters are malformed", "The client left out what its protocol revision requires."],
  header_mismatch: ["Headers and body do not say the same", "What the headers claim of the message is not what the body holds, so neither is believed."],
  unsupported_protocol_version: ["The protocol revision is not supported", "The answer lists those that are."],
  malformed_request: ["The HTTP request is malformed", "The client is broken, or probes."],
  method_not_allowed: ["The HTTP method is not offered here", ""],
  not_acceptable: ["Accept does not cover what MCP answers with", "The client must accept application/json and text/event-stream."],
  unsupported_media_type: ["The body is not JSON", ""],
  body_too_large: ["The body is over its bound", "limits.body_bytes bounds it."],
  body_timeout: ["The body did not arrive in time", "limits.request_body_timeout bounds it."],
  headers_too_large: ["The headers are over their bound", "limits.header_bytes bounds them."],
  length_required: ["A large body came without its length", ""],
  exchange_failed: ["No credential for the server could be obtained", "The token endpoint refused, or did not answer rightly."],
  exchange_timeout: ["No credential for the server could be obtained in time", "The token endpoint is slow."],
  no_instance_in_region: ["No instance is available where the request may go", "A strict routing rule is about it, and none of the instances that it allows takes work."],
  content_blocked: ["A rule about content withheld the answer", "The record names what was found. The server was called; its answer was not passed on."],
  content_unchecked: ["The answer could not be checked", "So it was withheld: what a rule about content must look at has to be readable."],
  media_not_allowed: ["The answer holds media of a type that is not allowed here", "A rule about content names the types that are."],
  encryption_required: ["Only callers over TLS are given this", "The caller must connect over TLS."],
  result_too_large: ["The result is larger than is allowed here", "The client was told the limit, so that it can ask for less."],
  too_many_items: ["The result has more items than are allowed here", "The client was told the limit, so that it can ask for fewer."],
  no_healthy_instance: ["No instance of the server takes work", "Look at the instances of the server."],
  unidentified_server: ["The server has not proved what it is", "Its resource token is missing, expired, or does not match."],
  upstream_unreachable: ["The server could not be reached, or broke off", "Look at the instances of the server."],
  upstream_timeout: ["The server did not answer in time", "servers[].timeouts bounds it."],
  upstream_protocol: ["The server's answer is not MCP", "What it said was not passed on."],
  audit_unavailable: ["The request could not be recorded", "So it was not carried out. Look at the audit log's disk."],
  shutting_down: ["This process is being replaced", "The client asks again."],
  client_gone: ["The client broke off", ""],
  permitted: ["Permitted", ""],
  forbidden: ["The person's roles do not allow it", ""],
  not_an_approver: ["The person may not approve this", "They belong to no group of approvers, approve twice, or would approve their own work."],
  no_role: ["The person has no role here", "Their groups are in none of admin.sign_in.roles."],
  csrf_token: ["The request did not prove that it came from the page", ""],
  foreign_origin: ["A page of another site called", ""],
  precondition_failed: ["It had changed since it was looked at", ""],
  precondition_required: ["It was not said what was looked at", ""],
  conflict: ["The state does not allow it", ""],
  invalid_config: ["The configuration has problems", ""],
  sign_in_forged: ["The answer was not to a sign-in that this browser began", ""],
  sign_in_replayed: ["The sign-in was used before", ""],
  sign_in_expired: ["The sign-in took too long", ""],
  issuer_refused: ["The issuer did not sign the person in", ""],
};

/** Where a thing stands. */
export const STATES = {
  registered: ["Registered", "warn", "Known, and not approved: neither listed nor callable"],
  approved: ["Approved", "ok", "Approved by as many people as the configuration asks for"],
  suspended: ["Suspended", "bad", "Taken out of use for a while"],
  retired: ["Retired", "off", "Taken out of use for good"],
  quarantined: ["Quarantined", "warn", "Hidden and not callable until somebody approves it"],
  missing: ["Missing", "off", "Approved, but the server does not list it any more"],
  ungoverned: ["Not governed", "off", "Declared in the configuration file without managed: true; the registry does not look at it"],
};

/** Why an item is kept back. */
export const CAUSES = {
  new: ["New", "Nobody has approved it yet."],
  changed: ["Changed", "It is not what was approved. Calls are refused until somebody approves what it is."],
  look_alike: ["Look-alike", "Its name could be taken for another's."],
  server_not_approved: ["Server not approved", "Its server is not approved, so nothing of it may be used."],
};

/** Why a definition is not kept. */
export const NOT_KEPT = {
  too_large: "The definition is larger than registry.definition_bytes allows.",
  unreadable: "The definition cannot be read in only one way: it names something twice, or is nested too deeply.",
};

/** What the scan finds. */
export const FINDINGS = {
  bidi: "Characters that turn the direction of text around",
  control: "Control characters, such as terminal escapes",
  cross_reference: "Names another tool",
  encoded: "A long run of base64 or hex",
  external_reference: "A schema reference that leads out of the definition",
  harvest: "Wants conversation, prompts or reasoning handed over",
  hidden_by_space: "White space that moves what follows out of sight",
  instruction: "Tells the model what to do",
  long_text: "A very long text",
  markup: "Markup of a chat template or a browser",
  mixed_script: "Letters of several scripts in one word",
  non_ascii_name: "A name with characters outside ASCII",
  secrecy: "Wants something kept from the user",
  sensitive_place: "Names a place where secrets are kept",
  unicode_tag: "Hidden text: models read it, nobody sees it",
  url: "Names an address of another place",
  zero_width: "Characters that nobody sees",
};

export const KINDS = { tool: "Tool", prompt: "Prompt", resource: "Resource", resource_template: "Resource template" };

/** How a request ended. */
export const OUTCOMES = { ok: ["ok", "ok"], refused: ["refused", "warn"], failed: ["failed", "bad"], aborted: ["aborted", "off"] };

/** What a person may do. */
export const ROLES = {
  admin: "registers, retires, reloads, ends sessions",
  approver: "approves, suspends and resumes",
  auditor: "reads the audit log",
  viewer: "looks",
};

/** What is done to a thing, and what that means. */
export const ACTIONS = {
  approve: ["Approve", "Callers may use it as it is now. If its definition changes, it is kept back again."],
  suspend: ["Suspend", "Calls are refused at once, until somebody resumes it."],
  resume: ["Resume", "Callers may use it again, as it was approved."],
  retire: ["Retire", "It is taken out of use for good. This cannot be undone."],
};

export const DONE = { approve: "approved", suspend: "suspended", resume: "resumed", retire: "retired", register: "registered" };

/** `tool_quarantined` as people say it. */
export function plain(word) {
  const text = String(word ?? "").replaceAll("_", " ");
  return text.charAt(0).toUpperCase() + text.slice(1);
}
