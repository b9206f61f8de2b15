use super::*;
use crate::registry::catalog::Verdict;
use crate::registry::testkit::{server, waiting};

const NOW: UnixSeconds = UnixSeconds(1000);

/// Incident 1: what nobody has looked at is not there for anybody.
#[test]
fn being_seen_approves_nothing() {
    let mut ledger = ledger(State::Approved);
    for seer in [Seer::Reader, Seer::Traffic, Seer::Reader] {
        see(&mut ledger, "mail", &["send", "read"], seer);
    }
    let items: Vec<_> = ledger.items("mail").map(|item| (item.state, item.pin.is_some(), item.version)).collect();
    assert_eq!(items, [(State::Registered, false, 1), (State::Registered, false, 1)]);
    assert_eq!(verdict(&ledger, "mail", "send"), Verdict::Quarantined(Cause::New));
}

/// Incident 2: a definition that changes after its approval is kept back.
#[test]
fn a_changed_definition_is_kept_back_until_it_is_approved() {
    let mut ledger = approved("send");
    let observation = see_as(&mut ledger, "mail", &[tool_saying("send", "and a copy to me")], Seer::Traffic);
    assert_eq!(words(&observation), ["send changed"]);
    assert_eq!(verdict(&ledger, "mail", "send"), Verdict::Quarantined(Cause::Changed));
    // Going back to what was approved does not open it: somebody has to look.
    assert_eq!(words(&see(&mut ledger, "mail", &["send"], Seer::Reader)), [""; 0]);
    assert_eq!(verdict(&ledger, "mail", "send"), Verdict::Quarantined(Cause::Changed));
    let changed = digest_of(&tool_saying("send", "and a copy to me"));
    approve(&mut ledger, "send", changed, "ann").unwrap();
    assert_eq!(verdict(&ledger, "mail", "send"), Verdict::Open);
}

#[test]
fn a_change_can_be_turned_down() {
    let mut ledger = approved("send");
    see_as(&mut ledger, "mail", &[tool_saying("send", "bcc")], Seer::Reader);
    approve(&mut ledger, "send", digest_of(&tool("send")), "ann").unwrap();
    assert_eq!(verdict(&ledger, "mail", "send"), Verdict::Open);
    see_as(&mut ledger, "mail", &[tool_saying("send", "bcc")], Seer::Reader);
    assert_eq!(verdict(&ledger, "mail", "send"), Verdict::Quarantined(Cause::Changed));
}

/// A definition that has outgrown its bound is a change as well, and one that nobody can approve.
#[test]
fn a_definition_that_became_unreadable_is_kept_back() {
    let mut ledger = approved("send");
    let unreadable = Unreadable { error: DefinitionError::TooLarge, digest: Digest::of(b"huge") };
    let seen = [Observed { key: key("send"), definition: Err(unreadable) }];
    let observation = see_as(&mut ledger, "mail", &seen, Seer::Traffic);
    assert_eq!(words(&observation), ["send changed"]);
    assert!(observation.seen.is_empty());
    assert_eq!(verdict(&ledger, "mail", "send"), Verdict::Quarantined(Cause::Changed));
    let refused = approve(&mut ledger, "send", unreadable.digest, "ann");
    assert_eq!(refused, Err(Refused::NotKept));
    approve(&mut ledger, "send", digest_of(&tool("send")), "ann").unwrap();
    assert_eq!(verdict(&ledger, "mail", "send"), Verdict::Open, "what was approved can be approved once more");
}

/// An approver has to know that it is there, although nobody can approve it.
#[test]
fn a_new_definition_that_cannot_be_kept_is_told_and_stays_hidden() {
    for (error, why) in [
        (DefinitionError::TooLarge, NotKept::TooLarge),
        (DefinitionError::Json(crate::mcp::json::JsonError::TooDeep), NotKept::Unreadable),
    ] {
        let mut ledger = ledger(State::Approved);
        let unreadable = Unreadable { error, digest: Digest::of(b"huge") };
        let seen = |name: &str| [Observed { key: key(name), definition: Err(unreadable) }];
        for seer in [Seer::Reader, Seer::Traffic] {
            let observation = see_as(&mut ledger, "mail", &seen("huge"), seer);
            assert!(observation.seen.is_empty(), "nothing of it is kept");
        }
        let items: Vec<&ItemRecord> = ledger.items("mail").collect();
        assert_eq!(items.len(), 1);
        assert_eq!(items[0].waiting.as_ref().unwrap().not_kept, Some(why));
        assert_eq!(verdict(&ledger, "mail", "huge"), Verdict::Quarantined(Cause::New));
        assert_eq!(approve(&mut ledger, "huge", unreadable.digest, "ann"), Err(Refused::NotKept));
        // As soon as it can be kept, it is.
        assert_eq!(words(&see(&mut ledger, "mail", &["huge"], Seer::Reader)), ["huge new"]);
        approve(&mut ledger, "huge", digest_of(&tool("huge")), "ann").unwrap();
        assert_eq!(verdict(&ledger, "mail", "huge"), Verdict::Open);
        // Under a name that does not fit, nothing can be told.
        for name in ["", &*"n".repeat(NAME_BYTES_MAX + 1)] {
            assert_eq!(see_as(&mut ledger, "mail", &seen(name), Seer::Traffic).items, []);
        }
    }
}

/// Incident 3: the pin is of the set, so a tool under another name is a new one.
#[test]
fn a_renamed_tool_is_new_and_the_old_one_is_missing() {
    let mut ledger = approved("send");
    let observation = see(&mut ledger, "mail", &["send_v2"], Seer::Reader);
    assert_eq!(words(&observation), ["send_v2 new", "send missing"]);
    assert_eq!(verdict(&ledger, "mail", "send_v2"), Verdict::Quarantined(Cause::New));
    assert_eq!(ledger.item("mail", &key("send")).unwrap().standing(), "missing");
    let observation = see(&mut ledger, "mail", &["send", "send_v2"], Seer::Reader);
    assert_eq!(words(&observation), ["send returned"]);
    assert_eq!(ledger.item("mail", &key("send")).unwrap().standing(), "approved");
}

/// What a caller may see, the gateway's own reading may not: that says nothing of what is missing.
#[test]
fn only_what_was_read_can_be_missing() {
    let mut ledger = ledger(State::Approved);
    see(&mut ledger, "mail", &["for-ann"], Seer::Traffic);
    assert_eq!(words(&see(&mut ledger, "mail", &[], Seer::Reader)), [""; 0]);
    see(&mut ledger, "mail", &["for-ann"], Seer::Reader);
    assert_eq!(words(&see(&mut ledger, "mail", &[], Seer::Reader)), ["for-ann missing"]);
    assert_eq!(words(&see(&mut ledger, "mail", &[], Seer::Traffic)), [""; 0]);
}

/// Incident 4: a name that could be taken for another's, on whichever server.
#[test]
fn a_look_alike_is_told_with_whom() {
    for name in ["Send_Mail", "\u{455}end_mail", "send\u{200b}_mail", "sendMail"] {
        let mut ledger = approved("send_mail");
        ledger.apply([server("evil", State::Approved)], []);
        for other in ["evil", "mail"] {
            let mut seen = vec![tool(name)];
            seen.extend((other == "mail").then(|| tool("send_mail")));
            let observation = see_as(&mut ledger, other, &seen, Seer::Traffic);
            assert_eq!(words(&observation), [format!("{name} look_alike")], "{other}");
            let alike = observation.items[0].waiting.as_ref().unwrap().alike.clone().unwrap();
            let first = if other == "evil" { "send_mail" } else { &*alike.key.name };
            assert_eq!(&*alike.key.name, first);
        }
    }
}

#[test]
fn two_new_look_alikes_in_one_list_are_told() {
    let mut ledger = ledger(State::Approved);
    let observation = see(&mut ledger, "mail", &["send", "Send"], Seer::Reader);
    assert_eq!(words(&observation), ["send new", "Send look_alike"]);
}

/// Many servers have a tool `search`: rules name the server, so equal names are no look-alikes.
#[test]
fn an_equal_name_on_another_server_is_no_look_alike() {
    let mut ledger = approved("search");
    ledger.apply([server("wiki", State::Approved)], []);
    assert_eq!(words(&see(&mut ledger, "wiki", &["search"], Seer::Reader)), ["search new"]);
}

#[test]
fn two_people_must_approve_where_two_are_required_and_not_the_registrant() {
    let rule = rule(2);
    let mut ledger = Ledger::default();
    let spec = || Spec { server: "{}".into(), route: None };
    let registered = ledger.register("mail", spec(), 10, by("ann", None)).unwrap();
    apply(&mut ledger, registered);
    let digest = spec().digest();
    let approve = |ledger: &Ledger, who: &str| ledger.approve_server("mail", digest, &rule, by(who, None));
    assert_eq!(approve(&ledger, "ann"), Err(Refused::Approver(NotAnApprover::OwnWork)));
    let once = approve(&ledger, "bob").unwrap();
    assert_eq!(once.servers[0].state, State::Registered);
    apply(&mut ledger, once);
    assert_eq!(approve(&ledger, "bob"), Err(Refused::Approver(NotAnApprover::Again)));
    // Half an approval is not made a whole one on the way round.
    for action in [Action::Suspend, Action::Resume] {
        let next = ledger.act_on_server("mail", action, by("bob", None)).unwrap();
        apply(&mut ledger, next);
    }
    assert_eq!(ledger.server("mail").unwrap().state, State::Registered);
    let twice = approve(&ledger, "cid").unwrap();
    assert_eq!(twice.servers[0].state, State::Approved);
    apply(&mut ledger, twice);

    see(&mut ledger, "mail", &["send"], Seer::Reader);
    let digest = digest_of(&tool("send"));
    let approve = |ledger: &Ledger, who: &str| ledger.approve_item("mail", &key("send"), digest, &rule, by(who, None));
    assert_eq!(approve(&ledger, "ann"), Err(Refused::Approver(NotAnApprover::OwnWork)));
    let once = approve(&ledger, "bob").unwrap();
    apply(&mut ledger, once);
    assert_eq!(verdict(&ledger, "mail", "send"), Verdict::Quarantined(Cause::New));
    assert_eq!(approve(&ledger, "bob"), Err(Refused::Approver(NotAnApprover::Again)));
    let twice = approve(&ledger, "cid").unwrap();
    assert_eq!(twice.items[0].pin.as_ref().unwrap().approvals.len(), 2);
    apply(&mut ledger, twice);
    assert_eq!(verdict(&ledger, "mail", "send"), Verdict::Open);
}

/// An approval given to one definition does not count for the next.
#[test]
fn a_change_between_two_approvals_starts_them_anew() {
    let rule = rule(2);
    let mut ledger = ledger(State::Approved);
    see(&mut ledger, "mail", &["send"], Seer::Reader);
    let first = digest_of(&tool("send"));
    let once = ledger.approve_item("mail", &key("send"), first, &rule, by("bob", None)).unwrap();
    apply(&mut ledger, once);
    see_as(&mut ledger, "mail", &[tool_saying("send", "bcc")], Seer::Reader);
    let stale = ledger.approve_item("mail", &key("send"), first, &rule, by("cid", None));
    assert_eq!(stale, Err(Refused::NotWaiting));
    let second = digest_of(&tool_saying("send", "bcc"));
    let once = ledger.approve_item("mail", &key("send"), second, &rule, by("cid", None)).unwrap();
    assert_eq!(once.items[0].state, State::Registered);
}

#[test]
fn who_looked_at_another_version_is_told_so() {
    let ledger = approved("send");
    let stale = By { version: Some(1), ..by("ann", None) };
    let refused = ledger.act_on_item("mail", &key("send"), Action::Suspend, stale);
    assert_eq!(refused, Err(Refused::Stale { version: 2 }));
    let refused = ledger.act_on_server("mail", Action::Suspend, By { version: Some(7), ..stale });
    assert_eq!(refused, Err(Refused::Stale { version: 1 }));
    assert!(ledger.act_on_server("mail", Action::Suspend, By { version: Some(1), ..stale }).is_ok());
}

#[test]
fn what_is_retired_stays_so_and_another_definition_is_looked_at_afresh() {
    let mut ledger = approved("send");
    let next = ledger.act_on_item("mail", &key("send"), Action::Retire, by("ann", None)).unwrap();
    apply(&mut ledger, next);
    assert_eq!(verdict(&ledger, "mail", "send"), Verdict::Suspended);
    assert_eq!(see(&mut ledger, "mail", &["send"], Seer::Reader).items, []);
    see_as(&mut ledger, "mail", &[tool_saying("send", "anew")], Seer::Reader);
    assert_eq!(verdict(&ledger, "mail", "send"), Verdict::Quarantined(Cause::New));
    let old = approve(&mut ledger, "send", digest_of(&tool("send")), "ann");
    assert_eq!(old, Err(Refused::RetiredForGood));
    approve(&mut ledger, "send", digest_of(&tool_saying("send", "anew")), "ann").unwrap();
    assert_eq!(verdict(&ledger, "mail", "send"), Verdict::Open);
}

#[test]
fn what_is_suspended_opens_again_as_it_was() {
    let mut ledger = approved("send");
    for (action, expected) in [(Action::Suspend, Verdict::Suspended), (Action::Resume, Verdict::Open)] {
        let next = ledger.act_on_item("mail", &key("send"), action, by("ann", None)).unwrap();
        apply(&mut ledger, next);
        assert_eq!(verdict(&ledger, "mail", "send"), expected);
    }
    // What changes meanwhile is not opened by the resumption.
    let next = ledger.act_on_item("mail", &key("send"), Action::Suspend, by("ann", None)).unwrap();
    apply(&mut ledger, next);
    see_as(&mut ledger, "mail", &[tool_saying("send", "bcc")], Seer::Reader);
    let next = ledger.act_on_item("mail", &key("send"), Action::Resume, by("ann", None)).unwrap();
    apply(&mut ledger, next);
    assert_eq!(verdict(&ledger, "mail", "send"), Verdict::Quarantined(Cause::Changed));
}

#[test]
fn a_changed_server_serves_what_was_approved_until_the_change_is() {
    let rule = rule(1);
    let mut ledger = Ledger::default();
    let spec = |text: &str| Spec { server: text.into(), route: None };
    let registered = ledger.register("mail", spec("1"), 10, by("ann", None)).unwrap();
    apply(&mut ledger, registered);
    assert_eq!(ledger.specs_in_force(), []);
    let next = ledger.approve_server("mail", spec("1").digest(), &rule, by("bob", None)).unwrap();
    apply(&mut ledger, next);
    let next = ledger.put("mail", spec("2"), by("ann", Some(2))).unwrap();
    apply(&mut ledger, next);
    assert_eq!(ledger.specs_in_force(), [("mail".into(), spec("1"))]);
    assert!(ledger.server("mail").unwrap().is_change_pending());
    let old = ledger.approve_server("mail", spec("1").digest(), &rule, by("bob", None));
    assert_eq!(old, Err(Refused::NotWaiting));
    let next = ledger.approve_server("mail", spec("2").digest(), &rule, by("bob", None)).unwrap();
    apply(&mut ledger, next);
    assert_eq!(ledger.specs_in_force(), [("mail".into(), spec("2"))]);
    assert_eq!(ledger.approve_server("mail", spec("2").digest(), &rule, by("cid", None)), Err(Refused::NotWaiting));
    let next = ledger.act_on_server("mail", Action::Retire, by("ann", None)).unwrap();
    apply(&mut ledger, next);
    assert_eq!(ledger.specs_in_force(), []);
    assert!(matches!(ledger.put("mail", spec("3"), by("ann", None)), Err(Refused::NotNow(_))));
    // Anew, from the start.
    let next = ledger.register("mail", spec("3"), 10, by("ann", None)).unwrap();
    apply(&mut ledger, next);
    assert_eq!(ledger.specs_in_force(), []);
    assert_eq!(ledger.server("mail").unwrap().state, State::Registered);
}

#[test]
fn a_server_of_the_file_is_read_only_and_declared_once() {
    let mut ledger = Ledger::default();
    let declared = ledger.declare(["mail", "wiki"], NOW);
    assert_eq!(declared.servers.len(), 2);
    apply(&mut ledger, declared);
    assert_eq!(ledger.declare(["mail", "wiki"], NOW), Decided::default());
    let spec = Spec { server: "{}".into(), route: None };
    assert_eq!(ledger.put("mail", spec.clone(), by("ann", None)), Err(Refused::ReadOnly));
    assert_eq!(ledger.register("mail", spec.clone(), 10, by("ann", None)), Err(Refused::Exists));
    assert_eq!(ledger.put("none", spec.clone(), by("ann", None)), Err(Refused::NotFound));
    assert_eq!(ledger.register("new", spec, 0, by("ann", None)), Err(Refused::TooMany));
}

#[test]
fn a_server_cannot_fill_the_registry() {
    let mut ledger = ledger(State::Approved);
    let many: Vec<Observed> = (0..30).map(|nth| tool(&format!("tool-number-{nth}"))).collect();
    let observation = ledger.observe("mail", &many, Seer::Reader, 10, NOW);
    assert_eq!((observation.items.len(), observation.left_out), (10, 20));
    ledger.apply([], observation.items);
    let observation = ledger.observe("mail", &many, Seer::Reader, 10, NOW);
    assert_eq!((observation.items.len(), observation.left_out), (0, 20));
    assert_eq!(verdict(&ledger, "mail", "tool-number-29"), Verdict::Quarantined(Cause::New));
}

#[test]
fn nobody_outside_the_groups_approves() {
    let mut ledger = ledger(State::Approved);
    ledger.apply([], [waiting("mail", "send", 1, Cause::New)]);
    let stranger = Actor { groups: vec!["staff".into()], ..actor("eve") };
    let by = By { actor: &stranger, version: None, reason: "", at: NOW };
    let refused = ledger.approve_item("mail", &key("send"), Digest::of(&[1]), &rule(1), by);
    assert_eq!(refused, Err(Refused::Approver(NotAnApprover::NoMember)));
}

fn ledger(state: State) -> Ledger {
    let mut ledger = Ledger::default();
    ledger.apply([server("mail", state)], []);
    ledger
}

/// A ledger with one approved tool.
fn approved(name: &str) -> Ledger {
    let mut ledger = ledger(State::Approved);
    see(&mut ledger, "mail", &[name], Seer::Reader);
    approve(&mut ledger, name, digest_of(&tool(name)), "ann").unwrap();
    assert_eq!(verdict(&ledger, "mail", name), Verdict::Open);
    ledger
}

fn approve(ledger: &mut Ledger, name: &str, digest: Digest, who: &str) -> Result<(), Refused> {
    let decided = ledger.approve_item("mail", &key(name), digest, &rule(1), by(who, None))?;
    apply(ledger, decided);
    Ok(())
}

fn see(ledger: &mut Ledger, server: &str, names: &[&str], seer: Seer) -> Observation {
    let seen: Vec<Observed> = names.iter().map(|name| tool(name)).collect();
    see_as(ledger, server, &seen, seer)
}

fn see_as(ledger: &mut Ledger, server: &str, seen: &[Observed], seer: Seer) -> Observation {
    let observation = ledger.observe(server, seen, seer, 1000, NOW);
    ledger.apply([], observation.items.clone());
    observation
}

fn apply(ledger: &mut Ledger, decided: Decided) {
    assert!(!decided.acts.is_empty());
    ledger.apply(decided.servers, decided.items);
}

fn words(observation: &Observation) -> Vec<String> {
    observation.drifts.iter().map(|drift| format!("{} {}", drift.key.name, drift.what.label())).collect()
}

fn verdict(ledger: &Ledger, server: &str, name: &str) -> Verdict {
    ledger.catalog().server(server).unwrap().call(ItemKind::Tool, name)
}

fn tool(name: &str) -> Observed {
    tool_saying(name, "Works.")
}

fn tool_saying(name: &str, description: &str) -> Observed {
    let text = serde_json::json!({ "name": name, "description": description }).to_string();
    Observed { key: key(name), definition: Ok(Definition::read(ItemKind::Tool, &text, 10_000).unwrap()) }
}

fn digest_of(seen: &Observed) -> Digest {
    seen.definition.as_ref().unwrap().digest()
}

fn key(name: &str) -> ItemKey {
    ItemKey::new(ItemKind::Tool, name)
}

fn rule(required: usize) -> ApprovalRule {
    ApprovalRule { groups: vec!["security".into()], required }
}

fn actor(subject: &str) -> Actor {
    Actor { issuer: "https://idp.test".into(), subject: subject.into(), name: None, groups: vec!["security".into()] }
}

fn by(subject: &str, version: Option<u64>) -> By<'static> {
    By { actor: Box::leak(Box::new(actor(subject))), version, reason: "seen", at: NOW }
}
