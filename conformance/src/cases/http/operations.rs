//! What a server tells about itself.

use reqwest::Method;
use serde_json::{Value, json};

use crate::{
    case::{Area, Verdict, cases},
    http::{Answer, Server, unknown_id},
};

cases! {
    Area::Operations;
    Core, "R-HEALTH-1", health_answers: "GET /health answers ok to anyone";
    Core, "R-BUILDINFO-1", buildinfo_names_the_revision:
        "GET /buildinfo names the revision that the server was built from to anyone";
    Core, "R-METRICS-1", metrics_are_text: "GET /metrics answers anyone with text in the form of Prometheus";
    Core, "R-LIVENESS-1", loops_come_round: "GET /admin/liveness tells the operator when each loop came round last";
    Core, "R-LIVENESS-2", loops_are_for_the_operator: "GET /admin/liveness is not for agents";
    Core, "R-CONSOLE-1", consoles_are_for_the_operator: "The console of a machine is not for agents";
    Core, "R-IMAGES-1", images_of_unknown_runtimes_are_not_refreshed:
        "Images are refreshed by the operator, and for runtimes that there are";
    Core, "R-ERROR-1", unknown_routes_answer_in_json: "A path that is no route answers 404 with an error in JSON";
    Core, "R-ERROR-2", wrong_methods_are_refused: "A method that a route does not have is not answered with success";
    Core, "R-HEADERS-1", answers_have_security_headers: "Every answer forbids sniffing and framing";
}

async fn health_answers(server: &Server) -> Result<(), Verdict> {
    server.get("/health").await?.is(200, &json!({"status": "ok"}))
}

async fn buildinfo_names_the_revision(server: &Server) -> Result<(), Verdict> {
    let answer = server.get("/buildinfo").await?;
    match answer.json(200)?["git_sha"].as_str() {
        Some("dev") => Ok(()),
        Some(sha) if (7..=40).contains(&sha.len()) && sha.chars().all(|c| c.is_ascii_hexdigit()) => Ok(()),
        _ => Err(answer.wrong("a git_sha that is `dev` or 7 to 40 hexadecimal digits")),
    }
}

async fn metrics_are_text(server: &Server) -> Result<(), Verdict> {
    let answer = server.get("/metrics").await?;
    let text = answer.header("content-type").is_some_and(|kind| kind.starts_with("text/plain"));
    let gauge = "# TYPE molecule_websocket_connections_active gauge";
    if answer.status() != 200 || !text || !answer.body().contains(gauge) {
        return Err(answer.wrong("metrics as text/plain, molecule_websocket_connections_active among them"));
    }
    // What is asked for is counted.
    let count = |answer: &Answer| -> f64 {
        let requests = answer.body().lines().filter(|line| line.starts_with("molecule_http_requests_total{"));
        requests.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
    };
    server.get("/health").await?;
    let again = server.get("/metrics").await?;
    if count(&again) > count(&answer) { Ok(()) } else { Err(again.wrong("one more of molecule_http_requests_total")) }
}

async fn loops_come_round(server: &Server) -> Result<(), Verdict> {
    let answer = server.get_as_admin("/admin/liveness").await?;
    let body = answer.json(200)?;
    let Some(subsystems) = body["subsystems"].as_object() else {
        return Err(answer.wrong("subsystems that are an object"));
    };
    let whole = |tick: &Value| tick["last_tick_at"].is_string() && tick["seconds_ago"].is_u64();
    if subsystems.contains_key("health-sweep") && subsystems.values().all(whole) {
        Ok(())
    } else {
        Err(answer.wrong("a health-sweep among the subsystems, each with last_tick_at and seconds_ago"))
    }
}

async fn loops_are_for_the_operator(server: &Server) -> Result<(), Verdict> {
    let agent = server.external("conformance liveness", &Value::Null).await?;
    let asked = server.call(Method::GET, "/admin/liveness").bearer(&agent.token);
    asked.send().await?.refuses(401, "invalid admin auth token")
}

async fn consoles_are_for_the_operator(server: &Server) -> Result<(), Verdict> {
    let agent = server.external("conformance console", &Value::Null).await?;
    let asked = server.call(Method::GET, &format!("/workspaces/{}/console", agent.id)).bearer(&agent.token);
    asked.send().await?.refuses(401, "invalid admin auth token")
}

async fn unknown_routes_answer_in_json(server: &Server) -> Result<(), Verdict> {
    let answer = server.get_as_admin(&format!("/no-such-route/{}", unknown_id()?)).await?;
    if answer.json(404)?["error"].is_string() { Ok(()) } else { Err(answer.wrong("an error")) }
}

async fn wrong_methods_are_refused(server: &Server) -> Result<(), Verdict> {
    let answer = server.call(Method::DELETE, "/health").admin().send().await?;
    if matches!(answer.status(), 404 | 405) { Ok(()) } else { Err(answer.wrong("404 or 405")) }
}

async fn answers_have_security_headers(server: &Server) -> Result<(), Verdict> {
    for path in ["/health", "/workspaces/not-a-uuid", "/no-such-route"] {
        let answer = server.get_as_admin(path).await?;
        for (name, value) in [("x-content-type-options", "nosniff"), ("x-frame-options", "DENY")] {
            if answer.header(name) != Some(value) {
                return Err(answer.wrong(&format!("the header {name}: {value}")));
            }
        }
    }
    Ok(())
}

async fn images_of_unknown_runtimes_are_not_refreshed(server: &Server) -> Result<(), Verdict> {
    let path = "/admin/workspace-images/refresh?runtime=no-such-runtime";
    let answer = server.call(Method::POST, path).admin().send().await?;
    if !answer.json(400)?["known_runtimes"].is_array() {
        return Err(answer.wrong("known_runtimes"));
    }
    let workspace = server.external("conformance images", &Value::Null).await?;
    server.call(Method::POST, path).bearer(&workspace.token).send().await?.json(401).map(|_| ())
}
