//! Do rules know what time it is, where it matters?

use serde_json::json;

use crate::support::{Gateway, Idp, McpServer, MovedClock, World, usual};

const HOUR: i64 = 3600;
const DAY: i64 = 24 * HOUR;

/// 2026-11-16, a Monday, at midnight in Berlin: 23:00 of the day before in UTC.
const MONDAY_IN_BERLIN: i64 = 1_794_783_600;

const OFFICE_HOURS: &str = r#"now.getDayOfWeek("Europe/Berlin") in [1, 2, 3, 4, 5]
    && now.getHours("Europe/Berlin") >= 9 && now.getHours("Europe/Berlin") < 17"#;

/// Only weekdays 9 to 17, in Berlin.
#[test]
fn a_tool_can_be_called_on_weekdays_from_nine_to_five_and_at_no_other_time() {
    let Some(clock) = MovedClock::new() else { return };
    let world = World::with(|conf| {
        clock.of(conf.rule(json!({
            "name": "office-hours", "target": { "tools": [{ "server": "tickets", "tool": "purge" }] }, "when": OFFICE_HOURS,
        })))
    });
    for (day, hour, minute, open) in [
        (0, 8, 59, false),
        (0, 9, 0, true),
        (0, 16, 59, true),
        (0, 17, 0, false),
        (2, 12, 0, true),
        (4, 16, 30, true),
        (5, 12, 0, false),
        (6, 12, 0, false),
        (7, 9, 30, true),
    ] {
        let ahead = clock.at(MONDAY_IN_BERLIN + day * DAY + hour * HOUR + minute * 60);
        let (issued, expires) = (ahead - 60, ahead + HOUR);
        let now = crate::support::now();
        let token = world.reader_token().claim("iat", now + issued).claim("nbf", now + issued).expires_in(expires);
        let caller = world.gateway.caller(token);
        let answer = caller.call("purge", json!({}));
        assert_eq!(answer.status(), if open { 200 } else { 403 }, "day {day}, {hour}:{minute:02}: {}", answer.0);
        // The list says the same.
        assert_eq!(caller.list().names().contains(&"purge".to_owned()), open, "day {day}, {hour}:{minute:02}");
    }
}

/// Zones follow their own rules: in summer nine in Berlin is seven in UTC, in winter eight; and seldom is it another day.
#[test]
fn a_zone_has_its_summer_and_its_own_day() {
    let Some(clock) = MovedClock::new() else { return };
    let rule = |name: &str, tool: &str, when: &str| json!({ "name": name, "target": { "tools": [{ "server": "tickets", "tool": tool }] }, "when": when });
    let world = World::with(|conf| {
        clock
            .of(conf)
            .rule(rule(
                "nine",
                "purge",
                r#"now.getHours("Europe/Berlin") == 9 && now.getMinutes("Europe/Berlin") == 30"#,
            ))
            .rule(rule("sunday", "close", r#"now.getDayOfWeek("Pacific/Auckland") == 0"#))
    });
    let may = |tool: &str, at: i64| {
        let ahead = clock.at(at);
        let now = crate::support::now();
        let token = world.idp.token().claim("iat", now + ahead - 60).expires_in(ahead + HOUR);
        world.gateway.caller(token).call(tool, json!({})).status() == 200
    };
    // 2027-07-05T07:30Z and 2026-12-07T08:30Z.
    assert!(may("purge", 1_814_772_600) && may("purge", 1_796_632_200));
    assert!(!may("purge", 1_814_772_600 + HOUR) && !may("purge", 1_796_632_200 - HOUR));
    // 2026-12-05T11:30Z: Saturday here, Sunday half past midnight in Auckland; an hour before, it is not.
    assert!(may("close", 1_796_470_200) && !may("close", 1_796_470_200 - HOUR));
}

/// A zone that does not exist would make a rule that never matches, or always denies: it is found at the start.
#[test]
fn a_zone_that_does_not_exist_is_a_problem_of_the_file() {
    let (idp, tickets) = (Idp::start(), McpServer::start().tool("read"));
    let conf = usual(&idp, &tickets).rule(json!({ "name": "r", "when": r#"now.getHours("Europe/Berlni") > 8"# }));
    let output = Gateway::start_refused(conf);
    assert_eq!(output.code, Some(64), "{output:?}");
    assert!(output.stderr.contains("when") && output.stderr.contains("there is no time zone"), "{}", output.stderr);
}
