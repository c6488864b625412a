//! Secrets, models, providers and templates, as operators and agents see them.

use reqwest::Method;
use serde_json::{Value, json};

use crate::{
    case::{Area, Verdict, cases},
    http::{Answer, Server, Workspace, unknown_id},
};

cases! {
    Area::Templates;
    Extended(Feature::Secrets), "R-SECRET-1", a_new_workspace_has_no_secrets: "The secrets of a workspace without any are [] and {}";
    Extended(Feature::Secrets), "R-SECRET-2", a_secret_is_saved_by_post_and_by_put: "POST and PUT save a secret and say its key";
    Extended(Feature::Secrets), "R-SECRET-3", a_list_of_secrets_tells_no_value: "A list of secrets has key, scope and times, and no value";
    Extended(Feature::Secrets), "R-SECRET-4", the_values_of_a_workspace_are_for_its_agent: "The agent of a workspace reads its values as one object";
    Extended(Feature::Secrets), "R-SECRET-5", a_secret_is_replaced: "Saving a secret again replaces its value";
    Extended(Feature::Secrets), "R-SECRET-6", a_deleted_secret_is_gone: "A deleted secret is gone, and deleting it again is answered 404";
    Extended(Feature::Secrets), "R-SECRET-7", a_secret_needs_key_and_value: "A secret without key or value is answered 400";
    Extended(Feature::Secrets), "R-SECRET-8", a_key_is_the_name_of_a_variable: "A key that is no name of a variable is answered 400";
    Extended(Feature::Secrets), "R-SECRET-9", the_names_of_the_platform_are_taken: "A key that the platform sets itself is answered 400";
    Extended(Feature::Secrets), "R-SECRET-10", a_value_has_a_limit: "A value over 64 KiB is answered 413";
    Extended(Feature::Secrets), "R-SECRET-11", secrets_are_for_their_own_workspace: "Another workspace's token reads and sets no secret";
    Extended(Feature::Secrets), "R-SECRET-12", secrets_of_nobody_are_not_found: "Secrets of an id that names no workspace are answered 404";
    Extended(Feature::Secrets), "R-SECRET-13", a_workspace_is_made_with_secrets: "The secrets of a create call are kept with the workspace";
    Extended(Feature::Secrets), "R-SECRET-14", a_broken_secret_makes_no_workspace: "A create call with a broken secret makes no workspace";
    Extended(Feature::Secrets), "R-SECRET-15", a_global_secret_is_given_to_all: "A global secret is listed and given with scope global";
    Extended(Feature::Secrets), "R-SECRET-16", an_own_secret_wins: "A workspace's own secret wins over a global one of its name";
    Extended(Feature::Secrets), "R-SECRET-17", global_secrets_have_a_second_name: "/admin/secrets is another name of /settings/secrets";
    Extended(Feature::Secrets), "R-SECRET-18", global_secrets_are_the_operators: "A workspace's token neither reads nor sets global secrets";
    Extended(Feature::Secrets), "R-MODEL-1", no_model_is_the_default: "A workspace without a chosen model or provider says so";
    Extended(Feature::Secrets), "R-MODEL-2", a_model_is_saved_and_cleared: "PUT saves a model as it is written, and an empty one clears it";
    Extended(Feature::Secrets), "R-MODEL-3", a_provider_is_saved_and_cleared: "PUT saves a provider, and an empty one clears it";
    Extended(Feature::Secrets), "R-MODEL-4", a_first_model_brings_its_provider: "A create call with a model keeps it and the provider of its prefix";
    Extended(Feature::Secrets), "R-MODEL-5", an_unknown_prefix_brings_no_provider: "A model of an unknown prefix brings no provider";
    Extended(Feature::Secrets), "R-MODEL-6", a_chosen_provider_stays: "A chosen provider stays when the model changes";
    Extended(Feature::Secrets), "R-MODEL-7", a_provider_leaves_the_model_alone: "A new provider leaves the model alone";
    Extended(Feature::Secrets), "R-MODEL-8", a_body_without_the_choice_is_refused: "A body without model or provider is answered 400";
    Extended(Feature::Secrets), "R-MODEL-9", a_choice_needs_a_uuid: "A model or provider of what is no UUID is answered 400";
    Extended(Feature::Templates), "R-TEMPLATE-1", templates_are_an_array: "Templates are an array in the order of their ids";
    Extended(Feature::Templates), "R-TEMPLATE-2", templates_leave_out_what_they_lack: "A template leaves out empty lists but skills, and no member is null";
    Extended(Feature::Templates), "R-TEMPLATE-7", providers_come_in_two_shapes: "A template has its providers by name and with what they need, text and never null";
    Extended(Feature::Templates), "R-TEMPLATE-8", a_workspace_knows_how_long_its_runtime_takes: "A workspace says how long bringing it up may take, as a template of its runtime does";
    Extended(Feature::Templates), "R-TEMPLATE-3", templates_are_the_operators: "A workspace's token neither lists nor imports templates";
    Extended(Feature::Templates), "R-TEMPLATE-4", an_import_needs_name_and_files: "An import without name or files is answered 400";
    Extended(Feature::Templates), "R-TEMPLATE-5", an_import_has_at_most_200_files: "An import of more than 200 files is answered 400";
    Extended(Feature::Templates), "R-TEMPLATE-6", a_template_lies_within_its_folder: "A template whose name leads elsewhere is answered 400";
}

/// A request as the operator.
async fn admin(server: &Server, method: Method, path: &str, body: &Value) -> Result<Answer, Verdict> {
    server.call(method, path).admin().json(body).send().await
}

/// A request as the agent of `workspace`, to a path below its own.
async fn own(
    server: &Server,
    workspace: &Workspace,
    method: Method,
    path: &str,
    body: &Value,
) -> Result<Answer, Verdict> {
    let path = format!("/workspaces/{}/{path}", workspace.id);
    server.call(method, &path).bearer(&workspace.token).json(body).send().await
}

/// What the agent of `workspace` reads below its own path.
async fn read(server: &Server, workspace: &Workspace, path: &str) -> Result<Answer, Verdict> {
    let path = format!("/workspaces/{}/{path}", workspace.id);
    server.call(Method::GET, &path).bearer(&workspace.token).send().await
}

async fn external(server: &Server) -> Result<Workspace, Verdict> {
    server.external("conformance secrets", &Value::Null).await
}

/// A name that no other secret has.
fn fresh_key() -> Result<String, Verdict> {
    Ok(format!("CONFORMANCE_{}", unknown_id()?.simple()))
}

async fn a_new_workspace_has_no_secrets(server: &Server) -> Result<(), Verdict> {
    let workspace = external(server).await?;
    let answer = read(server, &workspace, "secrets").await?;
    let list = answer.json(200)?;
    let own = list.as_array().is_some_and(|list| list.iter().all(|row| row["scope"] == "global"));
    let values = read(server, &workspace, "secrets/values").await?;
    if !own {
        return Err(answer.wrong("an array without secrets of its own"));
    }
    if values.json(200)?.is_object() { Ok(()) } else { Err(values.wrong("an object")) }
}

async fn a_secret_is_saved_by_post_and_by_put(server: &Server) -> Result<(), Verdict> {
    let workspace = external(server).await?;
    for method in [Method::POST, Method::PUT] {
        let answer = own(server, &workspace, method, "secrets", &json!({"key": "KEY_1", "value": "v"})).await?;
        answer.is(200, &json!({"status": "saved", "key": "KEY_1"}))?;
    }
    Ok(())
}

async fn a_list_of_secrets_tells_no_value(server: &Server) -> Result<(), Verdict> {
    let workspace = external(server).await?;
    own(server, &workspace, Method::POST, "secrets", &json!({"key": "KEY_1", "value": "hunter2"})).await?.json(200)?;
    let answer = read(server, &workspace, "secrets").await?;
    let list = answer.json(200)?;
    let row = &list[0];
    let told = row["key"] == "KEY_1" && row["scope"] == "workspace" && row["has_value"] == true;
    let timed = row["created_at"].is_string() && row["updated_at"].is_string();
    if told && timed && !list.to_string().contains("hunter2") {
        Ok(())
    } else {
        Err(answer.wrong("key, scope, has_value and times, and no value"))
    }
}

async fn the_values_of_a_workspace_are_for_its_agent(server: &Server) -> Result<(), Verdict> {
    let workspace = external(server).await?;
    own(server, &workspace, Method::POST, "secrets", &json!({"key": "KEY_1", "value": "wörd\n"})).await?.json(200)?;
    read(server, &workspace, "secrets/values").await?.has(200, &json!({"KEY_1": "wörd\n"}))?;
    let path = format!("/workspaces/{}/secrets/values", workspace.id);
    server.get(&path).await?.has(401, &json!({"error": "missing workspace auth token"})).map(drop)
}

async fn a_secret_is_replaced(server: &Server) -> Result<(), Verdict> {
    let workspace = external(server).await?;
    for value in ["one", "two"] {
        own(server, &workspace, Method::POST, "secrets", &json!({"key": "KEY_1", "value": value})).await?.json(200)?;
    }
    read(server, &workspace, "secrets/values").await?.has(200, &json!({"KEY_1": "two"})).map(drop)
}

async fn a_deleted_secret_is_gone(server: &Server) -> Result<(), Verdict> {
    let workspace = external(server).await?;
    own(server, &workspace, Method::POST, "secrets", &json!({"key": "KEY_1", "value": "v"})).await?.json(200)?;
    let delete = async || own(server, &workspace, Method::DELETE, "secrets/KEY_1", &Value::Null).await;
    delete().await?.is(200, &json!({"status": "deleted", "key": "KEY_1"}))?;
    delete().await?.has(404, &json!({"error": "secret not found"}))?;
    let values = read(server, &workspace, "secrets/values").await?;
    if values.json(200)?.get("KEY_1").is_none() { Ok(()) } else { Err(values.wrong("no KEY_1")) }
}

/// Each of `bodies` is refused with the status and the text.
async fn refused(server: &Server, bodies: &[Value], status: u16, error: &str) -> Result<(), Verdict> {
    let workspace = external(server).await?;
    for body in bodies {
        let answer = own(server, &workspace, Method::POST, "secrets", body).await?;
        answer.has(status, &json!({"error": error}))?;
    }
    Ok(())
}

async fn a_secret_needs_key_and_value(server: &Server) -> Result<(), Verdict> {
    let bodies = [
        json!({"key": "K"}),
        json!({"value": "v"}),
        json!({"key": "", "value": "v"}),
        json!({"key": "K", "value": ""}),
        json!({"key": "K", "value": 7}),
    ];
    refused(server, &bodies, 400, "invalid request body").await
}

async fn a_key_is_the_name_of_a_variable(server: &Server) -> Result<(), Verdict> {
    let bodies = ["A B", "A=B", "A\n", "2A", "Ä", "A-B"].map(|key| json!({"key": key, "value": "v"}));
    refused(server, &bodies, 400, "invalid secret key").await?;
    let workspace = external(server).await?;
    for key in ["_A1", "a"] {
        own(server, &workspace, Method::POST, "secrets", &json!({"key": key, "value": "v"})).await?.json(200)?;
    }
    Ok(())
}

async fn the_names_of_the_platform_are_taken(server: &Server) -> Result<(), Verdict> {
    let names = ["WORKSPACE_ID", "PLATFORM_URL", "WORKSPACE_CONFIG_PATH", "PYTHONPATH"];
    refused(server, &names.map(|key| json!({"key": key, "value": "v"})), 400, "invalid secret key").await
}

async fn a_value_has_a_limit(server: &Server) -> Result<(), Verdict> {
    let value = |length: usize| json!({"key": "K", "value": "v".repeat(length)});
    let error = "the value of K is over the limit of 65536 bytes";
    refused(server, &[value(65_537)], 413, error).await?;
    let workspace = external(server).await?;
    own(server, &workspace, Method::POST, "secrets", &value(65_536)).await?.json(200)?;
    read(server, &workspace, "secrets/values").await?.has(200, &json!({"K": value(65_536)["value"]})).map(drop)
}

async fn secrets_are_for_their_own_workspace(server: &Server) -> Result<(), Verdict> {
    let (workspace, other) = (external(server).await?, external(server).await?);
    let stranger = Workspace { id: workspace.id, token: other.token };
    let expected = json!({"error": "invalid workspace auth token"});
    for path in ["secrets", "secrets/values", "model", "provider"] {
        read(server, &stranger, path).await?.has(401, &expected)?;
    }
    let body = json!({"key": "K", "value": "v"});
    own(server, &stranger, Method::POST, "secrets", &body).await?.has(401, &expected).map(drop)
}

async fn secrets_of_nobody_are_not_found(server: &Server) -> Result<(), Verdict> {
    let path = format!("/workspaces/{}/secrets", unknown_id()?);
    let expected = json!({"error": "workspace not found"});
    server.get_as_admin(&path).await?.has(404, &expected)?;
    server.post_as_admin(&path, &json!({"key": "K", "value": "v"})).await?.has(404, &expected).map(drop)
}

async fn a_workspace_is_made_with_secrets(server: &Server) -> Result<(), Verdict> {
    let more = json!({"secrets": {"KEY_1": "one", "KEY_2": "two"}});
    let workspace = server.external("conformance secrets", &more).await?;
    read(server, &workspace, "secrets/values").await?.has(200, &json!({"KEY_1": "one", "KEY_2": "two"})).map(drop)
}

async fn a_broken_secret_makes_no_workspace(server: &Server) -> Result<(), Verdict> {
    let name = format!("conformance {}", unknown_id()?);
    let body = json!({"name": name, "external": true, "secrets": {"GOOD": "v", "NOT GOOD": "v"}});
    server.post_as_admin("/workspaces", &body).await?.json(400)?;
    let answer = server.get_as_admin("/workspaces").await?;
    let fleet = answer.json(200)?;
    let found = fleet.as_array().is_some_and(|fleet| fleet.iter().any(|row| row["name"] == name.as_str()));
    if found { Err(answer.wrong("no workspace of that name")) } else { Ok(()) }
}

/// Tries `with` while there is a global secret called `key`, and deletes it afterwards.
async fn with_global(
    server: &Server,
    key: &str,
    with: impl AsyncFnOnce() -> Result<(), Verdict>,
) -> Result<(), Verdict> {
    let saved = admin(server, Method::PUT, "/settings/secrets", &json!({"key": key, "value": "global"})).await?;
    saved.is(200, &json!({"status": "saved", "key": key, "scope": "global"}))?;
    let tried = with().await;
    let deleted = admin(server, Method::DELETE, &format!("/settings/secrets/{key}"), &Value::Null).await?;
    tried.and_then(|()| deleted.is(200, &json!({"status": "deleted", "key": key, "scope": "global"})))
}

async fn a_global_secret_is_given_to_all(server: &Server) -> Result<(), Verdict> {
    let (workspace, key) = (external(server).await?, fresh_key()?);
    with_global(server, &key, async || {
        let mut expected = json!({});
        expected[key.as_str()] = "global".into();
        read(server, &workspace, "secrets/values").await?.has(200, &expected)?;
        for answer in [read(server, &workspace, "secrets").await?, server.get_as_admin("/settings/secrets").await?] {
            let list = answer.json(200)?;
            let row = list.as_array().and_then(|list| list.iter().find(|row| row["key"] == key.as_str()));
            if row.is_none_or(|row| row["scope"] != "global") {
                return Err(answer.wrong("the global secret with its scope"));
            }
        }
        Ok(())
    })
    .await
}

async fn an_own_secret_wins(server: &Server) -> Result<(), Verdict> {
    let (workspace, key) = (external(server).await?, fresh_key()?);
    with_global(server, &key, async || {
        own(server, &workspace, Method::POST, "secrets", &json!({"key": key, "value": "own"})).await?.json(200)?;
        let mut expected = json!({});
        expected[key.as_str()] = "own".into();
        read(server, &workspace, "secrets/values").await?.has(200, &expected)?;
        let answer = read(server, &workspace, "secrets").await?;
        let list = answer.json(200)?;
        let scopes: Vec<&Value> = list
            .as_array()
            .into_iter()
            .flatten()
            .filter(|row| row["key"] == key.as_str())
            .map(|row| &row["scope"])
            .collect();
        if scopes == [&json!("workspace")] { Ok(()) } else { Err(answer.wrong("the key once, as the workspace's own")) }
    })
    .await
}

async fn global_secrets_have_a_second_name(server: &Server) -> Result<(), Verdict> {
    let key = fresh_key()?;
    let body = json!({"key": key, "value": "v"});
    let saved = json!({"status": "saved", "key": key, "scope": "global"});
    admin(server, Method::POST, "/admin/secrets", &body).await?.is(200, &saved)?;
    let listed = [server.get_as_admin("/admin/secrets").await?, server.get_as_admin("/settings/secrets").await?];
    let deleted = admin(server, Method::DELETE, &format!("/admin/secrets/{key}"), &Value::Null).await?;
    for answer in listed {
        let list = answer.json(200)?;
        if !list.as_array().is_some_and(|list| list.iter().any(|row| row["key"] == key.as_str())) {
            return Err(answer.wrong("the secret by either name"));
        }
    }
    deleted.is(200, &json!({"status": "deleted", "key": key, "scope": "global"}))
}

async fn global_secrets_are_the_operators(server: &Server) -> Result<(), Verdict> {
    let workspace = external(server).await?;
    for path in ["/settings/secrets", "/admin/secrets"] {
        for (method, body) in [(Method::GET, Value::Null), (Method::POST, json!({"key": "K", "value": "v"}))] {
            let call = server.call(method, path).bearer(&workspace.token);
            call.json(&body).send().await?.has(401, &json!({"error": "invalid admin auth token"}))?;
        }
    }
    Ok(())
}

async fn no_model_is_the_default(server: &Server) -> Result<(), Verdict> {
    let workspace = external(server).await?;
    read(server, &workspace, "model").await?.is(200, &json!({"model": "", "source": "default"}))?;
    read(server, &workspace, "provider").await?.is(200, &json!({"provider": "", "source": "default"}))
}

/// Puts a choice, reads it back, and clears it.
async fn put_read_and_clear(server: &Server, name: &str, choice: &str) -> Result<(), Verdict> {
    let workspace = external(server).await?;
    let body = |choice: &str| {
        let mut body = json!({});
        body[name] = choice.into();
        body
    };
    let mut saved = body(choice);
    saved["status"] = "saved".into();
    own(server, &workspace, Method::PUT, name, &body(choice)).await?.is(200, &saved)?;
    let mut kept = body(choice);
    kept["source"] = "workspace_secrets".into();
    read(server, &workspace, name).await?.is(200, &kept)?;
    own(server, &workspace, Method::PUT, name, &body("")).await?.is(200, &json!({"status": "cleared"}))?;
    let mut none = body("");
    none["source"] = "default".into();
    read(server, &workspace, name).await?.is(200, &none)
}

async fn a_model_is_saved_and_cleared(server: &Server) -> Result<(), Verdict> {
    put_read_and_clear(server, "model", "some-unknown-vendor/Foo-1.0").await
}

async fn a_provider_is_saved_and_cleared(server: &Server) -> Result<(), Verdict> {
    put_read_and_clear(server, "provider", "minimax").await
}

/// The provider of a workspace that is made with `model`.
async fn provider_of(server: &Server, model: &str) -> Result<(Workspace, Value), Verdict> {
    let workspace = server.external("conformance model", &json!({"model": model})).await?;
    read(server, &workspace, "model").await?.is(200, &json!({"model": model, "source": "workspace_secrets"}))?;
    let provider = read(server, &workspace, "provider").await?.json(200)?;
    Ok((workspace, provider))
}

/// The provider of each prefix of a model.
const PROVIDERS: &[(&str, &str)] = &[
    ("minimax-cn", "minimax-cn"),
    ("kimi-coding-cn", "kimi-coding-cn"),
    ("minimax", "minimax"),
    ("anthropic", "anthropic"),
    ("gemini", "gemini"),
    ("deepseek", "deepseek"),
    ("zai", "zai"),
    ("kimi-coding", "kimi-coding"),
    ("alibaba", "alibaba"),
    ("dashscope", "alibaba"),
    ("qwen", "alibaba"),
    ("xiaomi", "xiaomi"),
    ("mimo", "xiaomi"),
    ("arcee", "arcee"),
    ("arcee-ai", "arcee"),
    ("nvidia", "nvidia"),
    ("nim", "nvidia"),
    ("ollama-cloud", "ollama-cloud"),
    ("huggingface", "huggingface"),
    ("hf", "huggingface"),
    ("ai-gateway", "ai-gateway"),
    ("aigateway", "ai-gateway"),
    ("kilocode", "kilocode"),
    ("opencode-zen", "opencode-zen"),
    ("opencode-go", "opencode-go"),
    ("openrouter", "openrouter"),
    ("custom", "custom"),
    ("openai", "openrouter"),
    ("nousresearch", "openrouter"),
    ("xai", "xai"),
    ("grok", "xai"),
    ("bedrock", "bedrock"),
    ("aws", "bedrock"),
    ("tencent-tokenhub", "tencent-tokenhub"),
    ("tencent", "tencent-tokenhub"),
    ("gmi", "gmi"),
    ("qwen-oauth", "qwen-oauth"),
    ("lmstudio", "lmstudio"),
    ("lm-studio", "lmstudio"),
    ("minimax-oauth", "minimax-oauth"),
    ("alibaba-coding-plan", "alibaba-coding-plan"),
    ("google-gemini-cli", "google-gemini-cli"),
    ("openai-codex", "openai-codex"),
    ("copilot-acp", "copilot-acp"),
    ("copilot", "copilot"),
];

async fn a_first_model_brings_its_provider(server: &Server) -> Result<(), Verdict> {
    for (prefix, provider) in PROVIDERS {
        // Only the first part counts, and what follows may be nothing.
        for model in
            [format!("{prefix}/Some-Model/x"), format!("{prefix}/")].iter().take(if *prefix == "xai" { 2 } else { 1 })
        {
            let (_, found) = provider_of(server, model).await?;
            if found != json!({"provider": provider, "source": "workspace_secrets"}) {
                return Err(Verdict::Failed(format!("the provider of {model}: expected {provider}, got {found}")));
            }
        }
    }
    Ok(())
}

async fn an_unknown_prefix_brings_no_provider(server: &Server) -> Result<(), Verdict> {
    for model in ["some-unknown-vendor/foo", "sonnet", "openai:gpt-4o", "/x", "MiniMax/x"] {
        let (_, found) = provider_of(server, model).await?;
        if found != json!({"provider": "", "source": "default"}) {
            return Err(Verdict::Failed(format!("the provider of {model}: expected none, got {found}")));
        }
    }
    Ok(())
}

async fn a_chosen_provider_stays(server: &Server) -> Result<(), Verdict> {
    let (workspace, _) = provider_of(server, "minimax/MiniMax-M2.7").await?;
    own(server, &workspace, Method::PUT, "provider", &json!({"provider": "custom"})).await?.json(200)?;
    own(server, &workspace, Method::PUT, "model", &json!({"model": "grok/grok-4"})).await?.json(200)?;
    let kept = json!({"provider": "custom", "source": "workspace_secrets"});
    read(server, &workspace, "provider").await?.is(200, &kept)
}

async fn a_provider_leaves_the_model_alone(server: &Server) -> Result<(), Verdict> {
    let (workspace, _) = provider_of(server, "grok/grok-2").await?;
    own(server, &workspace, Method::PUT, "provider", &json!({"provider": ""})).await?.json(200)?;
    let kept = json!({"model": "grok/grok-2", "source": "workspace_secrets"});
    read(server, &workspace, "model").await?.is(200, &kept)
}

async fn a_body_without_the_choice_is_refused(server: &Server) -> Result<(), Verdict> {
    let workspace = external(server).await?;
    for path in ["model", "provider"] {
        for body in [json!({}), json!({"other": "x"}), json!([])] {
            let answer = own(server, &workspace, Method::PUT, path, &body).await?;
            answer.has(400, &json!({"error": "invalid request body"}))?;
        }
    }
    Ok(())
}

async fn a_choice_needs_a_uuid(server: &Server) -> Result<(), Verdict> {
    for path in ["/workspaces/not-a-uuid/model", "/workspaces/not-a-uuid/provider"] {
        server.get_as_admin(path).await?.has(400, &json!({"error": "invalid workspace ID"}))?;
    }
    Ok(())
}

/// The templates there are; a case about them cannot be tried where there is none.
async fn templates(server: &Server) -> Result<(Answer, Vec<Value>), Verdict> {
    let answer = server.get_as_admin("/templates").await?;
    match answer.json(200)? {
        Value::Array(list) if list.is_empty() => Err(Verdict::Skipped("the server has no templates".to_owned())),
        Value::Array(list) => Ok((answer, list)),
        _ => Err(answer.wrong("an array")),
    }
}

async fn templates_are_an_array(server: &Server) -> Result<(), Verdict> {
    let (answer, list) = templates(server).await?;
    let ids: Option<Vec<&str>> = list.iter().map(|row| row["id"].as_str()).collect();
    if ids.is_some_and(|ids| ids.is_sorted()) { Ok(()) } else { Err(answer.wrong("an array in the order of ids")) }
}

async fn templates_leave_out_what_they_lack(server: &Server) -> Result<(), Verdict> {
    let (answer, list) = templates(server).await?;
    for row in &list {
        let full = |name: &str| row.get(name).is_none_or(|list| list.as_array().is_some_and(|list| !list.is_empty()));
        let optional = ["models", "required_env", "providers", "provider_registry"];
        let always = ["name", "description", "runtime", "model"].iter().all(|name| row[name].is_string());
        let counted = row["skills"].as_array().map(Vec::len).map(Value::from) == Some(row["skill_count"].clone());
        if !optional.iter().all(|name| full(name)) || !always || !counted || row.to_string().contains(":null") {
            return Err(answer.wrong("full lists or none, skills counted, and no null"));
        }
    }
    Ok(())
}

async fn providers_come_in_two_shapes(server: &Server) -> Result<(), Verdict> {
    let (answer, list) = templates(server).await?;
    let texts = |value: &Value| value.as_array().is_some_and(|list| list.iter().all(Value::is_string));
    let based = |value: &Value| {
        let whole =
            |provider: &Value| provider["name"].is_string() && provider.get("base_url").is_none_or(Value::is_string);
        value.as_array().is_some_and(|list| list.iter().all(whole))
    };
    for row in &list {
        if !row.get("providers").is_none_or(texts) || !row.get("provider_registry").is_none_or(based) {
            return Err(answer.wrong("providers as texts, and in provider_registry a name and no base_url but text"));
        }
    }
    Ok(())
}

async fn a_workspace_knows_how_long_its_runtime_takes(server: &Server) -> Result<(), Verdict> {
    let (answer, list) = templates(server).await?;
    let seconds = |row: &Value| row["provision_timeout_seconds"].as_u64().filter(|seconds| *seconds > 0);
    let slow = list.iter().find_map(|row| Some((row["runtime"].as_str()?, seconds(row)?)));
    let Some((runtime, seconds)) = slow else {
        return Err(Verdict::Skipped("no template says how long its runtime takes".to_owned()));
    };
    let said = json!({"name": "conformance slow", "runtime": runtime, "provision_timeout_ms": seconds * 1000});
    let created = server.post_as_admin("/workspaces", &json!({"name": "conformance slow", "runtime": runtime})).await?;
    let id = created.json(201)?["id"].as_str().and_then(|id| id.parse().ok()).ok_or_else(|| created.wrong("an id"))?;
    let row = server.row(id).await?.unwrap_or_default();
    if row["provision_timeout_ms"] == said["provision_timeout_ms"] && row["runtime"] == runtime {
        Ok(())
    } else {
        Err(answer.wrong(&format!("{said} of a workspace of it, got {row}")))
    }
}

async fn templates_are_the_operators(server: &Server) -> Result<(), Verdict> {
    let workspace = external(server).await?;
    let expected = json!({"error": "invalid admin auth token"});
    server.call(Method::GET, "/templates").bearer(&workspace.token).send().await?.has(401, &expected)?;
    let body = json!({"name": "x", "files": {"a.md": ""}});
    let call = server.call(Method::POST, "/templates/import").bearer(&workspace.token);
    call.json(&body).send().await?.has(401, &expected).map(drop)
}

async fn an_import_needs_name_and_files(server: &Server) -> Result<(), Verdict> {
    for body in [json!({"name": "x"}), json!({"files": {"a.md": ""}}), json!({"name": 7, "files": {}})] {
        let answer = server.post_as_admin("/templates/import", &body).await?;
        answer.has(400, &json!({"error": "invalid request body"}))?;
    }
    Ok(())
}

async fn an_import_has_at_most_200_files(server: &Server) -> Result<(), Verdict> {
    let files: serde_json::Map<String, Value> = (0..201).map(|n| (format!("{n}.md"), json!(""))).collect();
    let answer = server.post_as_admin("/templates/import", &json!({"name": "conformance", "files": files})).await?;
    answer.has(400, &json!({"error": "too many files (201), max 200"})).map(drop)
}

async fn a_template_lies_within_its_folder(server: &Server) -> Result<(), Verdict> {
    for template in ["../x", "/etc", "a/../../x"] {
        let body = json!({"name": "conformance", "external": true, "template": template});
        server.post_as_admin("/workspaces", &body).await?.has(400, &json!({"error": "invalid template"}))?;
    }
    Ok(())
}
