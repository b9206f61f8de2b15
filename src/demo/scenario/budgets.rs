//! How much is enough? Budgets at work, and the kill switch.

use std::process::Stdio;
use std::time::Duration;

use serde_json::{Value, json};

use crate::demo::call::{Answer, Call};
use crate::demo::selfcheck::{Seen, SelfCheck, Unheld, expect};

use super::{Additions, Step};

pub(super) const INTRODUCTION: &str = "Scenario: budgets. Each user may call some tools so often, so many at once, and not in a loop; and an operator can stop
anybody at once.
";

pub(super) fn additions() -> Additions {
    Additions {
        sections: r#"
budgets:
  - name: daily
    by: principal
    tools: [notes_list]
    calls: 2 per day
  - name: sums
    by: principal
    tools: [add]
    rate: { burst: 2, refill: 1 per second }
  - name: at-once
    by: principal
    tools: [slow]
    concurrency: 1
  - name: loops
    by: principal
    tools: [echo]
    repeat: 2 per minute
  - name: volume
    by: principal
    tools: [whoami]
    bytes: 100B per hour
"#,
        ..Additions::default()
    }
}

pub(super) fn steps(check: &SelfCheck) -> Vec<Step<'_>> {
    vec![
        ("An answer tells what is left", Box::pin(told(check))),
        ("Calls per day: the third is refused, and says when to come back", Box::pin(daily(check))),
        ("Somebody else has a budget of their own", Box::pin(somebody_else(check))),
        ("A rate: a burst passes, then one a second", Box::pin(rate(check))),
        ("Calls at once: the second is refused while the first runs", Box::pin(at_once(check))),
        ("A loop: the same call again and again is refused, another passes", Box::pin(loops(check))),
        ("Bytes per hour: after a large answer there is no other", Box::pin(volume(check))),
        ("Kill switch: a stopped user gets nothing, until it is lifted", Box::pin(kill_switch(check))),
        ("Metrics and audit tell of all this", Box::pin(recorded(check))),
    ]
}

fn notes() -> Call {
    Call::modern_tool("notes_list", json!({}))
}

async fn told(check: &SelfCheck) -> Seen {
    let answer = check.send(&notes(), check.tokens.alice()).await?;
    expect("status", answer.status, 200)?;
    expect("RateLimit-Policy", answer.header("ratelimit-policy"), "\"daily:calls\";q=2;w=86400")?;
    let left = answer.header("ratelimit").to_owned();
    if !left.starts_with("\"daily:calls\";r=1;t=") {
        return Err(Unheld::Other(format!("RateLimit: {left}")));
    }
    Ok(vec![format!("200  RateLimit-Policy: {}", answer.header("ratelimit-policy")), format!("     RateLimit: {left}")])
}

async fn daily(check: &SelfCheck) -> Seen {
    expect("status of the second", check.send(&notes(), check.tokens.alice()).await?.status, 200)?;
    let before = check.requests_seen();
    let refused = check.send(&notes(), check.tokens.alice()).await?;
    let seen = over(&refused, "daily", "calls")?;
    expect("requests that reached an instance", check.requests_seen() - before, 0)?;
    Ok(seen)
}

async fn somebody_else(check: &SelfCheck) -> Seen {
    let answer = check.send(&notes(), check.tokens.bob()).await?;
    expect("status", answer.status, 200)?;
    Ok(vec!["200  bob's first call today".to_owned()])
}

async fn rate(check: &SelfCheck) -> Seen {
    let mut seen = Vec::new();
    let mut number = 0;
    // A slow machine may need more calls to be too fast.
    let refused = loop {
        let answer = check.send(&sum(number), check.tokens.alice()).await?;
        number += 1;
        if answer.status == 429 {
            break answer;
        }
        expect("status", answer.status, 200)?;
        if number == CALLS_MAX {
            return Err(Unheld::Other("nothing was refused".to_owned()));
        }
    };
    seen.push(format!("{number} calls at once: the last is refused"));
    seen.extend(over(&refused, "sums", "rate")?);
    let wait = refused.header("retry-after").parse().map_err(|_| Unheld::Other("no Retry-After".to_owned()))?;
    tokio::time::sleep(Duration::from_secs(wait)).await;
    expect("status after the wait", check.send(&sum(number), check.tokens.alice()).await?.status, 200)?;
    seen.push(format!("200  after {wait} s, as Retry-After said"));
    Ok(seen)
}

fn sum(number: u64) -> Call {
    Call::modern_tool("add", json!({ "a": number, "b": 1 }))
}

async fn at_once(check: &SelfCheck) -> Seen {
    let slow = Call::modern_tool("slow", json!({ "seconds": 2, "steps": 4 }));
    let (first, second) = tokio::join!(check.send(&slow, check.tokens.alice()), async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        check.send(&slow, check.tokens.alice()).await
    });
    expect("status of the first", first?.status, 200)?;
    let seen = over(&second?, "at-once", "concurrency")?;
    let short = Call::modern_tool("slow", json!({ "seconds": 0, "steps": 1 }));
    expect("status when it has ended", check.send(&short, check.tokens.alice()).await?.status, 200)?;
    Ok(seen)
}

async fn loops(check: &SelfCheck) -> Seen {
    let echo = |text: &str| Call::modern_tool("echo", json!({ "text": text }));
    for _ in 0..2 {
        expect("status", check.send(&echo("again"), check.tokens.alice()).await?.status, 200)?;
    }
    let mut seen = over(&check.send(&echo("again"), check.tokens.alice()).await?, "loops", "repeat")?;
    expect("status of another", check.send(&echo("something else"), check.tokens.alice()).await?.status, 200)?;
    seen.push("200  with other arguments".to_owned());
    Ok(seen)
}

async fn volume(check: &SelfCheck) -> Seen {
    let whoami = Call::modern_tool("whoami", json!({}));
    expect("status of the first", check.send(&whoami, check.tokens.alice()).await?.status, 200)?;
    over(&check.send(&whoami, check.tokens.alice()).await?, "volume", "bytes")
}

async fn kill_switch(check: &SelfCheck) -> Seen {
    let list = Call::modern("tools/list", json!({}));
    operate(check, &["--principal", "bob", "--for", "1h", "--why", "the demo shows it"]).await?;
    let refused = check.send(&list, check.tokens.bob()).await?;
    expect("status", refused.status, 403)?;
    expect("reason", refused.reason(), "quarantined_caller")?;
    expect("status of alice", check.send(&list, check.tokens.alice()).await?.status, 200)?;
    operate(check, &["--principal", "bob", "--lift"]).await?;
    expect("status when lifted", check.send(&list, check.tokens.bob()).await?.status, 200)?;
    Ok(vec![
        "portcullis quarantine --principal bob --for 1h --why …".to_owned(),
        "403  bob is stopped, alice is not".to_owned(),
        "portcullis quarantine --principal bob --lift".to_owned(),
        "200  bob calls again".to_owned(),
    ])
}

/// The operator's command, as anybody would type it.
async fn operate(check: &SelfCheck, arguments: &[&str]) -> Result<(), Unheld> {
    let program = std::env::current_exe().map_err(|error| Unheld::Other(error.to_string()))?;
    let (config, arguments) =
        (check.config.clone(), arguments.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>());
    let run = move || {
        let mut command = std::process::Command::new(program);
        command.arg("quarantine").arg("--config").arg(config).args(arguments);
        command.stdin(Stdio::null()).stdout(Stdio::null()).output()
    };
    let ended = tokio::task::spawn_blocking(run).await.map_err(|error| Unheld::Other(error.to_string()))?;
    let ended = ended.map_err(|error| Unheld::Other(error.to_string()))?;
    if ended.status.success() {
        return Ok(());
    }
    Err(Unheld::Other(format!("portcullis quarantine: {}", String::from_utf8_lossy(&ended.stderr).trim())))
}

async fn recorded(check: &SelfCheck) -> Seen {
    let mut seen = Vec::new();
    for name in ["portcullis_budget_requests_total", "portcullis_budget_refusals_total"] {
        let total = check.metric(name).await?;
        if total <= 0.0 {
            return Err(Unheld::Other(format!("{name} is {total}")));
        }
        seen.push(format!("{name} = {total}"));
    }
    let record = check
        .audit_record("a call refused for its budget", |record| {
            record.pointer("/budget/name") == Some(&json!("daily")) && record.get("status") == Some(&json!(429))
        })
        .await?;
    let shown = |path: &str| record.pointer(path).cloned().unwrap_or(Value::Null);
    seen.push(format!("audit: {} {} → budget {}", shown("/principal/subject"), shown("/mcp/name"), shown("/budget")));
    Ok(seen)
}

/// A refusal for this limit, as an agent reads it.
fn over(answer: &Answer, budget: &str, limit: &str) -> Seen {
    expect("status", answer.status, 429)?;
    expect("reason", answer.reason(), "budget_exceeded")?;
    let error = answer.messages.last().and_then(|message| message.get("error")).unwrap_or(&Value::Null);
    let data = |key: &str| error.pointer(&format!("/data/{key}")).cloned().unwrap_or(Value::Null);
    expect("budget", data("budget"), json!(budget))?;
    expect("limit", data("detail"), json!(limit))?;
    let message = error.get("message").and_then(Value::as_str).unwrap_or_default();
    Ok(vec![
        format!("429  Retry-After: {}", answer.header("retry-after")),
        format!("     RateLimit: {}", answer.header("ratelimit")),
        format!("     {message}"),
    ])
}

const CALLS_MAX: u64 = 200;

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use saphyr::{LoadableYamlNode as _, Yaml};

    use super::*;

    #[test]
    fn what_is_added_is_yaml_with_a_budget_for_every_kind_of_limit() {
        let documents = Yaml::load_from_str(additions().sections).unwrap();
        let budgets = documents.first().unwrap().as_mapping_get("budgets").unwrap().as_vec().unwrap();
        for kind in ["calls", "rate", "concurrency", "repeat", "bytes"] {
            assert!(budgets.iter().any(|budget| budget.as_mapping_get(kind).is_some()), "{kind}");
        }
    }
}
