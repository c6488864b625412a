//! Who may call what, and the tokens that say so.

use reqwest::Method;
use serde_json::{Value, json};

use crate::{
    case::{Area, Verdict, cases},
    http::{Answer, Server, unknown_id},
};

cases! {
    Area::Access;
    Core, "R-ACCESS-1", a_wrong_bearer_is_refused: "A bearer that nobody issued is refused, also where none is needed";
    Core, "R-ACCESS-2", other_schemes_are_no_bearer: "A credential in another scheme counts as none";
    Core, "R-ACCESS-3", agents_need_their_own_token: "The tokens of a workspace are shown to its own agent and to no other";
    Core, "R-ACCESS-4", foreign_pages_do_not_stop_agents: "A heartbeat with its token is taken whatever its Origin";
    Core, "R-ACCESS-5", foreign_preflights_are_refused: "A preflight of an unlisted origin is refused";
    Core, "R-ACCESS-6", answers_tell_the_limit: "Answers tell how many requests are allowed";
    Core, "R-ACCESS-7", test_tokens_are_guarded: "A token for tests is not given to whoever shows a wrong bearer";
    Core, "R-CLAIM-1", nobody_looks_inside_as_another: "A workspace cannot look into one in the name of a third";
    Core, "R-HEADERS-2", all_security_headers: "Answers with data have every security header";
    Core, "R-TOKEN-1", tokens_are_listed: "Live tokens are listed without their text";
    Core, "R-TOKEN-2", another_token_is_issued: "A second token is issued and the first stays good";
    Core, "R-TOKEN-3", a_token_is_revoked: "A revoked token is refused at once and the other stays good";
    Core, "R-TOKEN-4", foreign_tokens_are_not_found: "A token cannot be revoked by way of another workspace";
    Core, "R-TOKEN-5", ids_of_tokens_are_uuids: "An id of a token that is no UUID is answered 400";
    Core, "R-TOKEN-6", pages_of_tokens: "A page of tokens is as long as asked for, and 50 where that makes no sense";
    Core, "R-TOKEN-7", at_most_fifty_tokens: "A fifty-first token is answered 429";
    Extended(Feature::OrgTokens), "R-ORGTOKEN-1", org_tokens_live_and_die:
        "A token of the organisation is minted, listed without its text, worth what the operator's is, and revoked";
    Extended(Feature::OrgTokens), "R-ORGTOKEN-2", agents_mint_nothing: "An agent cannot mint a token of the organisation";
    Extended(Feature::OrgTokens), "R-ORGTOKEN-3", unknown_org_tokens: "What names no token of the organisation cannot be revoked";
}

async fn a_wrong_bearer_is_refused(server: &Server) -> Result<(), Verdict> {
    let wrong = server.call(Method::GET, "/workspaces").bearer("nobody-issued-this").send().await?;
    wrong.refuses(401, "invalid admin auth token")?;
    let workspace = server.external("access", &json!({})).await?;
    let tokens = format!("/workspaces/{}/tokens", workspace.id);
    let wrong = server.call(Method::GET, &tokens).bearer("nobody-issued-this").send().await?;
    wrong.refuses(401, "invalid workspace auth token")
}

async fn other_schemes_are_no_bearer(server: &Server) -> Result<(), Verdict> {
    let without = server.call(Method::GET, "/workspaces").send().await?;
    for scheme in ["bearer nobody-issued-this", "Basic eDp5", "Bearer ", "nobody-issued-this"] {
        let answer = server.call(Method::GET, "/workspaces").header("authorization", scheme).send().await?;
        if answer.status() != without.status() {
            return Err(answer.wrong(&format!("{}, as without a credential", without.status())));
        }
    }
    Ok(())
}

async fn agents_need_their_own_token(server: &Server) -> Result<(), Verdict> {
    let (one, other) = (server.external("one", &json!({})).await?, server.external("two", &json!({})).await?);
    let path = format!("/workspaces/{}/tokens", one.id);
    let refused = server.call(Method::GET, &path).bearer(&other.token).send().await?;
    refused.refuses(401, "invalid workspace auth token")?;
    server.call(Method::GET, &path).bearer(&one.token).send().await?.json(200).map(drop)
}

async fn foreign_pages_do_not_stop_agents(server: &Server) -> Result<(), Verdict> {
    let agent = server.external("agent", &json!({})).await?;
    let call = server.call(Method::POST, "/registry/heartbeat").bearer(&agent.token);
    let answer =
        call.header("origin", "https://elsewhere.invalid").json(&json!({"workspace_id": agent.id})).send().await?;
    answer.has(200, &json!({"status": "ok"})).map(drop)
}

async fn foreign_preflights_are_refused(server: &Server) -> Result<(), Verdict> {
    let call = server.call(Method::OPTIONS, "/workspaces").header("origin", "https://elsewhere.invalid");
    let answer = call.header("access-control-request-method", "POST").send().await?;
    match (answer.status(), answer.header("access-control-allow-origin")) {
        (403, None) => Ok(()),
        _ => Err(answer.wrong("403 without Access-Control-Allow-Origin")),
    }
}

async fn answers_tell_the_limit(server: &Server) -> Result<(), Verdict> {
    let answer = server.get_as_admin("/workspaces").await?;
    let number = |answer: &Answer, name| answer.header(name).and_then(|value| value.parse::<u64>().ok());
    match answer.header("x-ratelimit-limit") {
        Some("unlimited") => Ok(()),
        Some(limit) if limit.parse::<u32>().is_ok_and(|limit| limit > 0) => {
            let again = server.get_as_admin("/workspaces").await?;
            let left = |answer: &Answer| number(answer, "x-ratelimit-remaining");
            // Unless a minute passed in between, each takes one.
            let reset = |answer: &Answer| number(answer, "x-ratelimit-reset");
            let falls =
                left(&answer).zip(left(&again)).is_some_and(|(before, after)| after < before || after > before + 1);
            if falls && reset(&answer).is_some() {
                Ok(())
            } else {
                Err(again.wrong("X-RateLimit-Remaining that falls, and X-RateLimit-Reset as a number"))
            }
        }
        _ => Err(answer.wrong("X-RateLimit-Limit as a number or unlimited")),
    }
}

async fn test_tokens_are_guarded(server: &Server) -> Result<(), Verdict> {
    let workspace = server.external("tested", &json!({})).await?;
    let path = format!("/admin/workspaces/{}/test-token", workspace.id);
    for bearer in ["nobody-issued-this", &workspace.token] {
        let answer = server.call(Method::GET, &path).bearer(bearer).send().await?;
        match answer.status() {
            401 => answer.refuses(401, "admin auth required")?,
            404 => answer.refuses(404, "not found")?,
            _ => return Err(answer.wrong("401 or 404")),
        }
    }
    // Where there is the route at all, the operator is given a token that works.
    let answer = server.call(Method::GET, &path).admin().send().await?;
    if answer.status() == 404 {
        return answer.refuses(404, "not found");
    }
    let body = answer.json(200)?;
    let token = text(&answer, &body, "auth_token")?;
    let beat = server.call(Method::POST, "/registry/heartbeat").bearer(token);
    beat.json(&json!({"workspace_id": workspace.id})).send().await?.has(200, &json!({"status": "ok"})).map(drop)
}

async fn all_security_headers(server: &Server) -> Result<(), Verdict> {
    for path in ["/workspaces", "/workspaces/not-a-uuid"] {
        let answer = server.get_as_admin(path).await?;
        for (name, value) in [
            ("x-content-type-options", "nosniff"),
            ("x-frame-options", "DENY"),
            ("strict-transport-security", "max-age=31536000; includeSubDomains"),
            ("referrer-policy", "strict-origin-when-cross-origin"),
            ("permissions-policy", "camera=(), microphone=(), geolocation=()"),
            ("content-security-policy", "default-src 'self'"),
        ] {
            if answer.header(name) != Some(value) {
                return Err(answer.wrong(&format!("the header {name}: {value}")));
            }
        }
    }
    Ok(())
}

fn text<'a>(answer: &Answer, value: &'a Value, name: &str) -> Result<&'a str, Verdict> {
    value[name].as_str().ok_or_else(|| answer.wrong(&format!("{name} as text")))
}

/// Issues one more token for a workspace, and gives its text.
async fn issue(server: &Server, path: &str, bearer: &str) -> Result<String, Verdict> {
    let answer = server.call(Method::POST, path).bearer(bearer).send().await?;
    let issued = answer.json(201)?;
    Ok(text(&answer, &issued, "auth_token")?.to_owned())
}

/// The rows of a list of tokens, after a look at their count.
fn rows(answer: &Answer) -> Result<Vec<Value>, Verdict> {
    let list = answer.json(200)?;
    let rows = list["tokens"].as_array().ok_or_else(|| answer.wrong("tokens as an array"))?.clone();
    if list["count"] == rows.len() { Ok(rows) } else { Err(answer.wrong("the count of what is listed")) }
}

/// The id of the token with this text.
fn id_of(answer: &Answer, rows: &[Value], token: &str) -> Result<String, Verdict> {
    let prefix = token.get(..8).unwrap_or(token);
    let row = rows.iter().find(|row| row["prefix"] == prefix);
    let row = row.ok_or_else(|| answer.wrong("the token, by its first 8 characters"))?;
    Ok(text(answer, row, "id")?.to_owned())
}

async fn tokens_are_listed(server: &Server) -> Result<(), Verdict> {
    let workspace = server.external("tokens", &json!({})).await?;
    let answer = server.get_as_admin(&format!("/workspaces/{}/tokens", workspace.id)).await?;
    let rows = rows(&answer)?;
    let row = match &rows[..] {
        [row] => row,
        _ => return Err(answer.wrong("one token")),
    };
    let whole = text(&answer, row, "id")?.len() == 36
        && text(&answer, row, "created_at")?.contains('T')
        && row["prefix"] == workspace.token[..8]
        && row.get("last_used_at").is_some();
    if whole && !answer.body().contains(&workspace.token) {
        Ok(())
    } else {
        Err(answer.wrong("a token without its text"))
    }
}

async fn another_token_is_issued(server: &Server) -> Result<(), Verdict> {
    let agent = server.external("tokens", &json!({})).await?;
    let path = format!("/workspaces/{}/tokens", agent.id);
    let answer = server.call(Method::POST, &path).bearer(&agent.token).send().await?;
    let issued = answer.has(201, &json!({"workspace_id": agent.id}))?;
    let second = text(&answer, &issued, "auth_token")?;
    text(&answer, &issued, "message")?;
    if second.len() != 43 {
        return Err(answer.wrong("a token of 43 characters"));
    }
    for token in [second, &agent.token] {
        server.call(Method::GET, &path).bearer(token).send().await?.json(200)?;
    }
    Ok(())
}

async fn a_token_is_revoked(server: &Server) -> Result<(), Verdict> {
    let agent = server.external("tokens", &json!({})).await?;
    let path = format!("/workspaces/{}/tokens", agent.id);
    let second = issue(server, &path, &agent.token).await?;
    // Used once, so that a server that remembers it has to forget it.
    let listed = server.call(Method::GET, &path).bearer(&second).send().await?;
    let one = format!("{path}/{}", id_of(&listed, &rows(&listed)?, &second)?);
    server.call(Method::DELETE, &one).bearer(&agent.token).send().await?.is(200, &json!({"status": "revoked"}))?;
    server.call(Method::GET, &path).bearer(&second).send().await?.refuses(401, "invalid workspace auth token")?;
    let again = server.call(Method::DELETE, &one).bearer(&agent.token).send().await?;
    again.refuses(404, "token not found or already revoked")?;
    server.call(Method::GET, &path).bearer(&agent.token).send().await?.json(200).map(drop)
}

async fn foreign_tokens_are_not_found(server: &Server) -> Result<(), Verdict> {
    let (one, other) = (server.external("one", &json!({})).await?, server.external("two", &json!({})).await?);
    let listed = server.get_as_admin(&format!("/workspaces/{}/tokens", one.id)).await?;
    let id = id_of(&listed, &rows(&listed)?, &one.token)?;
    let path = format!("/workspaces/{}/tokens/{id}", other.id);
    let refused = server.call(Method::DELETE, &path).bearer(&other.token).send().await?;
    refused.refuses(404, "token not found or already revoked")
}

async fn ids_of_tokens_are_uuids(server: &Server) -> Result<(), Verdict> {
    let agent = server.external("tokens", &json!({})).await?;
    let path = format!("/workspaces/{}/tokens/7", agent.id);
    server.call(Method::DELETE, &path).bearer(&agent.token).send().await?.refuses(400, "invalid id")
}

async fn pages_of_tokens(server: &Server) -> Result<(), Verdict> {
    let agent = server.external("tokens", &json!({})).await?;
    let path = format!("/workspaces/{}/tokens", agent.id);
    issue(server, &path, &agent.token).await?;
    for (query, length) in
        [("limit=1", 1), ("limit=1&offset=1", 1), ("offset=2", 0), ("limit=0", 2), ("limit=201", 2), ("offset=-1", 2)]
    {
        let answer = server.get_as_admin(&format!("{path}?{query}")).await?;
        if rows(&answer)?.len() != length {
            return Err(answer.wrong(&format!("{length} tokens")));
        }
    }
    Ok(())
}

async fn at_most_fifty_tokens(server: &Server) -> Result<(), Verdict> {
    let agent = server.external("tokens", &json!({})).await?;
    let path = format!("/workspaces/{}/tokens", agent.id);
    for _ in 0..49 {
        issue(server, &path, &agent.token).await?;
    }
    let answer = server.call(Method::POST, &path).bearer(&agent.token).send().await?;
    answer.refuses(429, "maximum 50 active tokens per workspace")
}

async fn org_tokens_live_and_die(server: &Server) -> Result<(), Verdict> {
    let answer = server.post_as_admin("/org/tokens", &json!({"name": "conformance"})).await?;
    if answer.status() == 429 {
        return Err(Verdict::Skipped("this host minted as many tokens as it may within the hour".to_owned()));
    }
    let minted = answer.has(200, &json!({"name": "conformance"}))?;
    let token = text(&answer, &minted, "auth_token")?;
    let id = text(&answer, &minted, "id")?;
    text(&answer, &minted, "warning")?;
    let path = format!("/org/tokens/{id}");
    let lived = lives(server, &answer, token, id).await;
    // Whatever it was found to be, it must not stay.
    let revoked = server.call(Method::DELETE, &path).admin().send().await?;
    lived?;
    revoked.is(200, &json!({"revoked": id}))?;
    let dead = server.call(Method::GET, "/workspaces").bearer(token).send().await?;
    dead.refuses(401, "invalid admin auth token")?;
    let again = server.call(Method::DELETE, &path).admin().send().await?;
    again.refuses(404, "token not found or already revoked")
}

async fn lives(server: &Server, minted: &Answer, token: &str, id: &str) -> Result<(), Verdict> {
    if token.len() != 43 || minted.json(200)?["prefix"] != token[..8] {
        return Err(minted.wrong("a token of 43 characters and its first 8"));
    }
    let listed = server.call(Method::GET, "/org/tokens").bearer(token).send().await?;
    if id_of(&listed, &rows(&listed)?, token)? != id || listed.body().contains(token) {
        return Err(listed.wrong("the token without its text"));
    }
    let agent = server.external("agent", &json!({})).await?;
    let tokens = format!("/workspaces/{}/tokens", agent.id);
    server.call(Method::GET, &tokens).bearer(token).send().await?.json(200)?;
    let call = server.call(Method::POST, "/registry/heartbeat").bearer(token);
    let beat = call.json(&json!({"workspace_id": agent.id})).send().await?;
    beat.refuses(401, "invalid workspace auth token")
}

async fn agents_mint_nothing(server: &Server) -> Result<(), Verdict> {
    let agent = server.external("agent", &json!({})).await?;
    let refused = server.call(Method::POST, "/org/tokens").bearer(&agent.token).send().await?;
    refused.refuses(401, "invalid admin auth token")
}

async fn unknown_org_tokens(server: &Server) -> Result<(), Verdict> {
    let unknown = server.call(Method::DELETE, &format!("/org/tokens/{}", unknown_id()?)).admin().send().await?;
    unknown.refuses(404, "token not found or already revoked")?;
    server.call(Method::DELETE, "/org/tokens/7").admin().send().await?.refuses(400, "invalid id")
}

async fn nobody_looks_inside_as_another(server: &Server) -> Result<(), Verdict> {
    let own = server.external("conformance own", &Value::Null).await?;
    let third = server.external("conformance third", &Value::Null).await?;
    let call = server.call(Method::GET, &format!("/workspaces/{}/logs", own.id)).bearer(&own.token);
    let answer = call.header("X-Workspace-ID", &third.id.to_string()).send().await?;
    answer.refuses(401, "invalid token for claimed workspace")
}
