//! The activity log, and what agents say to their users.

use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};

use crate::{
    case::{Area, Verdict, cases},
    http::{Answer, Server, Workspace, unknown_id},
};

cases! {
    Area::A2a;
    Extended(Feature::Activity), "R-ACTIVITY-1", a_log_begins_empty: "The log of a new workspace is an empty array";
    Extended(Feature::Activity), "R-ACTIVITY-2", a_report_is_kept: "A report is kept as it was made, from the workspace itself";
    Extended(Feature::Activity), "R-ACTIVITY-3", metadata_stands_for_the_request: "The metadata of a report stands for a request";
    Extended(Feature::Activity), "R-ACTIVITY-4", other_types_are_not_reported: "Types that the server writes cannot be reported";
    Extended(Feature::Activity), "R-ACTIVITY-5", a_report_needs_a_type: "A report without a type is refused";
    Extended(Feature::Activity), "R-ACTIVITY-6", nobody_reports_for_another: "A report in the name of another is refused";
    Extended(Feature::Activity), "R-ACTIVITY-7", a_log_is_for_its_own_agent: "The log of another workspace cannot be read";
    Extended(Feature::Activity), "R-ACTIVITY-8", rows_are_filtered_by_type: "Rows are filtered by their type";
    Extended(Feature::Activity), "R-ACTIVITY-9", rows_are_filtered_by_source: "Rows are filtered by who did it";
    Extended(Feature::Activity), "R-ACTIVITY-10", rows_are_filtered_by_peer: "Rows are filtered by peer, in either direction";
    Extended(Feature::Activity), "R-ACTIVITY-11", a_peer_is_a_uuid: "A peer that is no UUID is refused";
    Extended(Feature::Activity), "R-ACTIVITY-12", pages_go_back_in_time: "Pages before a time hold no row of that time";
    Extended(Feature::Activity), "R-ACTIVITY-13", a_time_is_rfc_3339: "A time that is no RFC 3339 is refused";
    Extended(Feature::Activity), "R-ACTIVITY-14", pages_go_on_after_a_row: "Pages after a row hold each later row once, oldest first";
    Extended(Feature::Activity), "R-ACTIVITY-15", a_lost_cursor_is_told: "A row that is not there to go on from is answered 410";
    Extended(Feature::Activity), "R-ACTIVITY-16", seconds_are_positive: "Only rows of so many seconds are shown; what is no positive number is refused";
    Extended(Feature::Activity), "R-ACTIVITY-17", filters_compose: "All filters of a request hold at once";
    Extended(Feature::Activity), "R-ACTIVITY-18", odd_limits_are_forgiven: "A limit that is no number above 0 counts as left out";
    Extended(Feature::Activity), "R-NOTIFY-1", words_to_the_user_are_kept: "What an agent says to its user is kept, with its files";
    Extended(Feature::Activity), "R-NOTIFY-2", words_need_a_message: "Words without a message are refused";
    Extended(Feature::Activity), "R-NOTIFY-3", files_need_a_name: "A file without a name or a place is refused";
    Extended(Feature::Activity), "R-SEARCH-1", a_search_finds_text: "A search finds text in whatever case, newest first";
}

/// Longer than the one second that is looked back at, and than a request takes.
const LONG_AGO: Duration = Duration::from_millis(2500);

async fn get(server: &Server, of: &Workspace, query: &str) -> Result<Answer, Verdict> {
    server.call(Method::GET, &format!("/workspaces/{}/activity{query}", of.id)).bearer(&of.token).send().await
}

async fn post(server: &Server, of: &Workspace, verb: &str, body: &Value) -> Result<Answer, Verdict> {
    server.call(Method::POST, &format!("/workspaces/{}/{verb}", of.id)).bearer(&of.token).json(body).send().await
}

async fn report(server: &Server, of: &Workspace, body: &Value) -> Result<(), Verdict> {
    post(server, of, "activity", body).await?.is(200, &json!({"status": "logged"}))
}

fn rows(answer: &Answer) -> Result<Vec<Value>, Verdict> {
    match answer.json(200)? {
        Value::Array(rows) => Ok(rows),
        _ => Err(answer.wrong("an array")),
    }
}

/// Demands rows with these summaries.
async fn shows(server: &Server, of: &Workspace, query: &str, expected: &[&str]) -> Result<Vec<Value>, Verdict> {
    let answer = get(server, of, query).await?;
    let rows = rows(&answer)?;
    let found: Vec<&str> = rows.iter().filter_map(|row| row["summary"].as_str()).collect();
    if found == expected { Ok(rows) } else { Err(answer.wrong(&format!("the rows {expected:?}"))) }
}

/// A workspace with rows `0` to `3`: by turns `agent_log` and `error`, the last of each to a peer, which is given as well.
async fn filled(server: &Server) -> Result<(Workspace, Workspace), Verdict> {
    let own = server.external("conformance log", &Value::Null).await?;
    let peer = server.external("conformance peer", &Value::Null).await?;
    for n in 0..4 {
        let mut body = json!({"activity_type": (["agent_log", "error"][n % 2]), "summary": n.to_string()});
        if n >= 2 {
            body["target_id"] = json!(peer.id);
        }
        report(server, &own, &body).await?;
    }
    Ok((own, peer))
}

async fn a_log_begins_empty(server: &Server) -> Result<(), Verdict> {
    let own = server.external("conformance log", &Value::Null).await?;
    get(server, &own, "").await?.is(200, &json!([]))
}

async fn a_report_is_kept(server: &Server) -> Result<(), Verdict> {
    let own = server.external("conformance log", &Value::Null).await?;
    let body = json!({
        "activity_type": "task_update", "method": "m", "summary": "s", "status": "error", "error_detail": "why",
        "duration_ms": 7, "request_body": {"a": 1}, "response_body": [2],
    });
    report(server, &own, &body).await?;
    let answer = get(server, &own, "").await?;
    let rows = rows(&answer)?;
    let mut expected = body;
    expected["source_id"] = json!(own.id);
    expected["workspace_id"] = json!(own.id);
    expected["target_id"] = Value::Null;
    let same =
        |row: &Value| expected.as_object().is_some_and(|all| all.iter().all(|(name, value)| &row[name] == value));
    if rows.len() == 1 && same(&rows[0]) && rows[0]["id"].is_string() && rows[0]["created_at"].is_string() {
        Ok(())
    } else {
        Err(answer.wrong(&format!("one row with {expected}")))
    }
}

async fn metadata_stands_for_the_request(server: &Server) -> Result<(), Verdict> {
    let own = server.external("conformance log", &Value::Null).await?;
    report(server, &own, &json!({"activity_type": "agent_log", "metadata": {"m": 1}})).await?;
    let answer = get(server, &own, "").await?;
    let rows = rows(&answer)?;
    if rows[0]["request_body"] == json!({"m": 1}) && rows[0]["status"] == "ok" && rows[0].get("response_body").is_none()
    {
        Ok(())
    } else {
        Err(answer.wrong("the metadata as request_body, the status ok and no response_body"))
    }
}

async fn other_types_are_not_reported(server: &Server) -> Result<(), Verdict> {
    let own = server.external("conformance log", &Value::Null).await?;
    let text = "invalid activity_type, must be one of: a2a_send, a2a_receive, task_update, agent_log, \
                skill_promotion, memory_write, error";
    for activity_type in ["delegation", "cron_run", "Error"] {
        post(server, &own, "activity", &json!({"activity_type": activity_type})).await?.refuses(400, text)?;
    }
    Ok(())
}

async fn a_report_needs_a_type(server: &Server) -> Result<(), Verdict> {
    let own = server.external("conformance log", &Value::Null).await?;
    post(server, &own, "activity", &json!({"summary": "x"})).await?.refuses(400, "invalid request body")
}

async fn nobody_reports_for_another(server: &Server) -> Result<(), Verdict> {
    let own = server.external("conformance log", &Value::Null).await?;
    let other = server.external("conformance other", &Value::Null).await?;
    let body = json!({"activity_type": "error", "source_id": other.id});
    post(server, &own, "activity", &body).await?.refuses(403, "source_id must match authenticated workspace")
}

async fn a_log_is_for_its_own_agent(server: &Server) -> Result<(), Verdict> {
    let own = server.external("conformance log", &Value::Null).await?;
    let other = server.external("conformance other", &Value::Null).await?;
    let stranger = Workspace { id: own.id, token: other.token };
    get(server, &stranger, "").await?.refuses(401, "invalid workspace auth token")?;
    post(server, &stranger, "notify", &json!({"message": "x"})).await?.refuses(401, "invalid workspace auth token")
}

async fn rows_are_filtered_by_type(server: &Server) -> Result<(), Verdict> {
    let (own, _) = filled(server).await?;
    shows(server, &own, "?type=error", &["3", "1"]).await?;
    shows(server, &own, "?type=nothing", &[]).await.map(drop)
}

async fn rows_are_filtered_by_source(server: &Server) -> Result<(), Verdict> {
    let (own, _) = filled(server).await?;
    post(server, &own, "notify", &json!({"message": "hello"})).await?.json(200)?;
    shows(server, &own, "?source=agent", &["3", "2", "1", "0"]).await?;
    shows(server, &own, "?source=canvas", &["Agent message: hello"]).await?;
    get(server, &own, "?source=user").await?.refuses(400, "source must be 'canvas' or 'agent'")
}

async fn rows_are_filtered_by_peer(server: &Server) -> Result<(), Verdict> {
    let (own, peer) = filled(server).await?;
    shows(server, &own, &format!("?peer_id={}", peer.id), &["3", "2"]).await?;
    shows(server, &own, &format!("?peer_id={}", own.id), &["3", "2", "1", "0"]).await.map(drop)
}

async fn a_peer_is_a_uuid(server: &Server) -> Result<(), Verdict> {
    let own = server.external("conformance log", &Value::Null).await?;
    for bad in ["x", "%27%20OR%201=1", "00000000-0000-4000-8000"] {
        get(server, &own, &format!("?peer_id={bad}")).await?.refuses(400, "peer_id must be a UUID")?;
    }
    Ok(())
}

/// The member of each row, as text.
fn texts(rows: &[Value], member: &str) -> Vec<String> {
    rows.iter().map(|row| row[member].as_str().unwrap_or_default().to_owned()).collect()
}

async fn pages_go_back_in_time(server: &Server) -> Result<(), Verdict> {
    let (own, _) = filled(server).await?;
    let first = shows(server, &own, "?limit=2", &["3", "2"]).await?;
    let oldest = texts(&first, "created_at").pop().unwrap_or_default();
    shows(server, &own, &format!("?limit=2&before_ts={oldest}"), &["1", "0"]).await.map(drop)
}

async fn a_time_is_rfc_3339(server: &Server) -> Result<(), Verdict> {
    let own = server.external("conformance log", &Value::Null).await?;
    let text = "before_ts must be an RFC3339 timestamp (e.g. 2026-05-01T00:00:00Z)";
    for bad in ["yesterday", "2026-05-01", "1777593600", "2026-05-01T00:00:00Z%27"] {
        get(server, &own, &format!("?before_ts={bad}")).await?.refuses(400, text)?;
    }
    shows(server, &own, "?before_ts=2026-05-01T00:00:00.5%2B02:00", &[]).await.map(drop)
}

async fn pages_go_on_after_a_row(server: &Server) -> Result<(), Verdict> {
    let (own, _) = filled(server).await?;
    let all = shows(server, &own, "", &["3", "2", "1", "0"]).await?;
    let mut cursor = texts(&all, "id").pop().unwrap_or_default();
    for next in ["1", "2", "3"] {
        let page = shows(server, &own, &format!("?limit=1&since_id={cursor}"), &[next]).await?;
        cursor = texts(&page, "id").pop().unwrap_or_default();
    }
    shows(server, &own, &format!("?since_id={cursor}"), &[]).await.map(drop)
}

async fn a_lost_cursor_is_told(server: &Server) -> Result<(), Verdict> {
    let (own, other) = filled(server).await?;
    let text = "since_id cursor not found (row may have been pruned or belongs to a different workspace); \
                omit since_id to reset";
    get(server, &own, &format!("?since_id={}", unknown_id()?)).await?.refuses(410, text)?;
    let foreign = shows(server, &own, "?limit=1", &["3"]).await?;
    let foreign = texts(&foreign, "id").pop().unwrap_or_default();
    get(server, &other, &format!("?since_id={foreign}")).await?.refuses(410, text)
}

async fn seconds_are_positive(server: &Server) -> Result<(), Verdict> {
    let (own, _) = filled(server).await?;
    for bad in ["0", "-1", "1.5", "x"] {
        let answer = get(server, &own, &format!("?since_secs={bad}")).await?;
        answer.refuses(400, "since_secs must be a positive integer")?;
    }
    shows(server, &own, "?since_secs=99999999&limit=1", &["3"]).await?;
    // What lies further back is left out.
    tokio::time::sleep(LONG_AGO).await;
    report(server, &own, &json!({"activity_type": "agent_log", "summary": "now"})).await?;
    shows(server, &own, "?since_secs=1", &["now"]).await?;
    shows(server, &own, "?since_secs=3600", &["now", "3", "2", "1", "0"]).await.map(drop)
}

async fn filters_compose(server: &Server) -> Result<(), Verdict> {
    let (own, peer) = filled(server).await?;
    let all = shows(server, &own, "", &["3", "2", "1", "0"]).await?;
    let first = texts(&all, "id").pop().unwrap_or_default();
    let last = texts(&all, "created_at").remove(0);
    let query = format!(
        "?since_id={first}&before_ts={last}&since_secs=3600&type=agent_log&source=agent&peer_id={}&limit=9",
        peer.id
    );
    shows(server, &own, &query, &["2"]).await.map(drop)
}

async fn odd_limits_are_forgiven(server: &Server) -> Result<(), Verdict> {
    let (own, _) = filled(server).await?;
    for odd in ["0", "-1", "x", "", "99999"] {
        shows(server, &own, &format!("?limit={odd}"), &["3", "2", "1", "0"]).await?;
    }
    Ok(())
}

async fn words_to_the_user_are_kept(server: &Server) -> Result<(), Verdict> {
    let own = server.external("conformance words", &Value::Null).await?;
    let message = "ü".repeat(81);
    let file = json!({"uri": "workspace:/a", "name": "a.txt", "mimeType": "text/plain", "size": 3});
    let body = json!({"message": message, "attachments": [file]});
    post(server, &own, "notify", &body).await?.is(200, &json!({"status": "sent"}))?;
    let answer = get(server, &own, "").await?;
    let rows = rows(&answer)?;
    let row = rows.first().ok_or_else(|| answer.wrong("a row"))?;
    let kept = json!({"result": message, "parts": [{"kind": "file", "file": file}]});
    let is_right = row["activity_type"] == "a2a_receive"
        && row["method"] == "notify"
        && row["source_id"].is_null()
        && row["summary"] == format!("Agent message: {}…", "ü".repeat(80))
        && row["response_body"] == kept;
    if is_right { Ok(()) } else { Err(answer.wrong(&format!("an a2a_receive by notify with {kept}"))) }
}

async fn words_need_a_message(server: &Server) -> Result<(), Verdict> {
    let own = server.external("conformance words", &Value::Null).await?;
    for body in [json!({}), json!({"message": ""})] {
        post(server, &own, "notify", &body).await?.refuses(400, "message is required")?;
    }
    Ok(())
}

async fn files_need_a_name(server: &Server) -> Result<(), Verdict> {
    let own = server.external("conformance words", &Value::Null).await?;
    let body = json!({"message": "x", "attachments": [{"uri": "a", "name": "b"}, {"uri": "a"}]});
    post(server, &own, "notify", &body).await?.refuses(400, "attachment[1]: uri and name are required")
}

async fn a_search_finds_text(server: &Server) -> Result<(), Verdict> {
    let own = server.external("conformance search", &Value::Null).await?;
    for summary in ["Deploy 100%", "nothing", "deploy again"] {
        report(server, &own, &json!({"activity_type": "agent_log", "summary": summary})).await?;
    }
    for (query, expected) in
        [("DEPLOY", vec!["deploy again", "Deploy 100%"]), ("100%25", vec!["Deploy 100%"]), ("1%25", vec![])]
    {
        let path = format!("/workspaces/{}/session-search?q={query}", own.id);
        let answer = server.call(Method::GET, &path).bearer(&own.token).send().await?;
        let found = rows(&answer)?;
        let is_activity = found.iter().all(|found| found["kind"] == "activity" && found["label"] == "agent_log");
        if texts(&found, "content") != expected || !is_activity {
            return Err(answer.wrong(&format!("the activity {expected:?}")));
        }
    }
    Ok(())
}
