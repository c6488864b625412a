//! The files that a workspace keeps, as far as every server can show it: without an agent that it runs.

use reqwest::Method;
use serde_json::{Value, json};

use crate::{
    case::{Area, Verdict, cases},
    http::{Answer, Server, unknown_id},
};

cases! {
    Area::Templates;
    Extended(Feature::Files), "R-FILE-1", a_root_is_one_of_four: "A root that is none of the four is refused";
    Extended(Feature::Files), "R-FILE-2", a_path_stays_below_its_root: "A path that leads out of its root is refused";
    Extended(Feature::Files), "R-FILE-3", a_listing_goes_five_folders_deep: "A listing goes one to five folders deep";
    Extended(Feature::Files), "R-FILE-4", only_the_configuration_is_changed: "Only files of the configuration are written and deleted";
    Extended(Feature::Files), "R-FILE-5", two_hundred_files_at_once: "More than 200 files at once are refused";
    Extended(Feature::Files), "R-FILE-6", a_write_without_its_members_is_refused: "A write without content, or without files, is refused";
    Extended(Feature::Files), "R-FILE-7", files_are_no_other_workspaces: "Files of a workspace are not for the token of another";
    Extended(Feature::Files), "R-FILE-8", files_of_nobody_are_not_found: "Files of a workspace that nobody created are not found";
    Extended(Feature::Files), "R-FILE-9", one_bad_path_and_nothing_is_written: "One bad path among many, and all of them are refused";
}

const ROOTS: &str = "root must be one of: /configs, /workspace, /home, /plugins";

async fn ask(server: &Server, method: Method, path: &str, body: Option<&Value>) -> Result<Answer, Verdict> {
    let call = server.call(method, path).admin();
    match body {
        Some(body) => call.json(body).send().await,
        None => call.send().await,
    }
}

async fn files(server: &Server) -> Result<String, Verdict> {
    let workspace = server.external("conformance files", &Value::Null).await?;
    Ok(format!("/workspaces/{}/files", workspace.id))
}

async fn a_root_is_one_of_four(server: &Server) -> Result<(), Verdict> {
    let files = files(server).await?;
    for root in ["/etc", "configs", "/configs-evil", "/"] {
        let query = format!("?root={root}");
        ask(server, Method::GET, &format!("{files}{query}"), None).await?.refuses(400, ROOTS)?;
        ask(server, Method::GET, &format!("{files}/config.yaml{query}"), None).await?.refuses(400, ROOTS)?;
    }
    Ok(())
}

async fn a_path_stays_below_its_root(server: &Server) -> Result<(), Verdict> {
    let files = files(server).await?;
    for path in ["..%2fx", "a%2f..%2f..%2fx", "%2fetc%2fpasswd", "a%2f.."] {
        let file = format!("{files}/{path}");
        ask(server, Method::GET, &file, None).await?.refuses(400, "invalid path")?;
        ask(server, Method::DELETE, &file, None).await?.refuses(400, "invalid path")?;
        let body = json!({"content": "x"});
        ask(server, Method::PUT, &file, Some(&body)).await?.refuses(400, "invalid path")?;
        ask(server, Method::GET, &format!("{files}?path={path}"), None).await?.refuses(400, "invalid path")?;
    }
    Ok(())
}

async fn a_listing_goes_five_folders_deep(server: &Server) -> Result<(), Verdict> {
    let files = files(server).await?;
    for depth in ["0", "6", "-1", "x"] {
        ask(server, Method::GET, &format!("{files}?depth={depth}"), None).await?.refuses(400, "depth must be 1-5")?;
    }
    for depth in ["1", "5"] {
        is_no_defect_of_the_call(&ask(server, Method::GET, &format!("{files}?depth={depth}"), None).await?)?;
    }
    Ok(())
}

/// What an external workspace answers to a call in form: its files are not here to be asked for.
fn is_no_defect_of_the_call(answer: &Answer) -> Result<(), Verdict> {
    match answer.status() {
        200 | 404 | 501 => Ok(()),
        _ => Err(answer.wrong("no objection to the form of the call")),
    }
}

async fn only_the_configuration_is_changed(server: &Server) -> Result<(), Verdict> {
    let files = files(server).await?;
    let (one, many) = (json!({"content": "x"}), json!({"files": {"a": "x"}}));
    let elsewhere = "only files below /configs can be changed";
    for (root, refusal) in [("/workspace", elsewhere), ("/home", elsewhere), ("/plugins", elsewhere), ("/etc", ROOTS)] {
        for (method, path, body) in [
            (Method::PUT, format!("{files}/a?root={root}"), Some(&one)),
            (Method::PUT, format!("{files}?root={root}"), Some(&many)),
            (Method::DELETE, format!("{files}/a?root={root}"), None),
        ] {
            ask(server, method, &path, body).await?.refuses(400, refusal)?;
        }
    }
    Ok(())
}

async fn two_hundred_files_at_once(server: &Server) -> Result<(), Verdict> {
    let files = files(server).await?;
    let put = async |count: usize| {
        let many: serde_json::Map<String, Value> = (0..count).map(|n| (format!("{n}.md"), json!(""))).collect();
        ask(server, Method::PUT, &files, Some(&json!({"files": many}))).await
    };
    put(201).await?.refuses(400, "too many files (201), max 200")?;
    is_no_defect_of_the_call(&put(200).await?)
}

async fn a_write_without_its_members_is_refused(server: &Server) -> Result<(), Verdict> {
    let files = files(server).await?;
    for body in [json!({}), json!({"files": [], "content": 1}), json!([])] {
        ask(server, Method::PUT, &files, Some(&body)).await?.refuses(400, "invalid request body")?;
        let one = format!("{files}/a");
        ask(server, Method::PUT, &one, Some(&body)).await?.refuses(400, "invalid request body")?;
    }
    Ok(())
}

async fn files_are_no_other_workspaces(server: &Server) -> Result<(), Verdict> {
    let files = files(server).await?;
    let other = server.external("conformance other", &Value::Null).await?;
    let shared = files.replace("/files", "/shared-context");
    for (method, path) in [
        (Method::GET, files.clone()),
        (Method::PUT, files.clone()),
        (Method::GET, format!("{files}/a")),
        (Method::PUT, format!("{files}/a")),
        (Method::DELETE, format!("{files}/a")),
        (Method::GET, shared),
    ] {
        let call = server.call(method, &path).bearer(&other.token).json(&json!({"files": {"a": ""}, "content": ""}));
        call.send().await?.refuses(401, "invalid workspace auth token")?;
    }
    Ok(())
}

async fn files_of_nobody_are_not_found(server: &Server) -> Result<(), Verdict> {
    let nobody = format!("/workspaces/{}", unknown_id()?);
    for path in ["files", "files/a", "shared-context"] {
        ask(server, Method::GET, &format!("{nobody}/{path}"), None).await?.refuses(404, "workspace not found")?;
    }
    ask(server, Method::DELETE, &format!("{nobody}/files/a"), None).await?.refuses(404, "workspace not found")?;
    let body = json!({"content": ""});
    let written = ask(server, Method::PUT, &format!("{nobody}/files/a"), Some(&body)).await?;
    written.refuses(404, "workspace not found")
}

async fn one_bad_path_and_nothing_is_written(server: &Server) -> Result<(), Verdict> {
    let files = files(server).await?;
    let body = json!({"files": {"good.md": "x", "../bad.md": "x"}});
    ask(server, Method::PUT, &files, Some(&body)).await?.refuses(400, "invalid path")
}
