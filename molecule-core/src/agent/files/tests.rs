use std::{
    fs,
    os::unix::fs::{MetadataExt, symlink},
    sync::{
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    time::Duration,
};

use futures_util::{StreamExt, TryStreamExt, stream};
use tempfile::TempDir;
use tokio::sync::oneshot;

use super::*;
use crate::clock::SystemEntropy;

const MIB: usize = 1024 * 1024;
const SECRET: Option<&[u8]> = Some(b"Bearer s3cret");
const FORM: Option<&str> = Some("multipart/form-data; boundary=B");

fn files() -> (TempDir, Files) {
    let root = tempfile::tempdir().unwrap();
    for folder in ["workspace", "configs", "home", "plugins"] {
        fs::create_dir(root.path().join(folder)).unwrap();
    }
    let state = StateDir::resolve(Some(&root.path().join("configs")), None).unwrap();
    let inbound = InboundSecret::new(&state);
    inbound.save(&"s3cret".into()).unwrap();
    let tokens = TokenStore::supplied_first(&state, Some("t0ken".into()));
    let files = Files::new(Files::root_beside(&state), inbound, tokens, Arc::new(SystemEntropy));
    (root, files)
}

fn part(field: &str, file: Option<&str>, contents: &[u8]) -> Vec<u8> {
    let file = file.map(|name| format!("; filename=\"{name}\"")).unwrap_or_default();
    let head =
        format!("--B\r\nContent-Disposition: form-data; name=\"{field}\"{file}\r\nContent-Type: text/x-odd\r\n\r\n");
    [head.as_bytes(), contents, b"\r\n"].concat()
}

fn form(parts: &[Vec<u8>]) -> Vec<u8> {
    [parts.concat(), b"--B--\r\n".to_vec()].concat()
}

fn bits(body: Vec<u8>) -> Bits {
    let chunks: Vec<_> = body.chunks(64 * 1024).map(|chunk| Ok(Bytes::copy_from_slice(chunk))).collect();
    stream::iter(chunks).boxed()
}

fn kept(root: &TempDir) -> usize {
    fs::read_dir(root.path().join("workspace/.molecule/chat-uploads")).map_or(0, Iterator::count)
}

async fn contents(opened: Opened) -> Vec<u8> {
    opened.body.try_collect::<Vec<_>>().await.unwrap().concat()
}

#[tokio::test]
async fn what_is_taken_in_is_private_and_can_be_read() {
    let (root, files) = files();
    let body = form(&[
        part("note", None, b"hello"),
        part("files", Some("my plan.txt"), b"first this"),
        part("other", Some("x"), b"not wanted"),
        part("files", Some("../../etc/\u{1F980}.png"), b""),
    ]);
    let taken = files.ingest(SECRET, FORM, Some(body.len() as u64), bits(body)).await.unwrap();
    let [plan, crab] = taken["files"].as_array().unwrap().as_slice() else { panic!("{taken}") };
    assert_eq!(
        (&plan["name"], &plan["mimeType"], &plan["size"]),
        (&"my_plan.txt".into(), &"text/x-odd".into(), &10.into())
    );
    assert_eq!((&crab["name"], &crab["size"]), (&"_.png".into(), &0.into()));
    let path = plan["uri"].as_str().unwrap().strip_prefix("workspace:").unwrap();
    let (prefix, stored) = path.rsplit_once('/').unwrap();
    assert_eq!(prefix, "/workspace/.molecule/chat-uploads");
    let (random, name) = stored.split_once('-').unwrap();
    assert!(random.len() == 32 && random.bytes().all(|byte| byte.is_ascii_hexdigit()) && name == "my_plan.txt");
    let metadata = fs::metadata(root.path().join(&path[1..])).unwrap();
    assert_eq!(metadata.mode() & 0o777, 0o600);
    assert_eq!(kept(&root), 2);

    let opened = files.read(SECRET, path).await.unwrap();
    assert_eq!((opened.length, opened.content_type.as_str()), (10, "text/plain"));
    assert!(opened.content_disposition.starts_with(&format!("attachment; filename=\"{stored}\"")));
    assert_eq!(contents(opened).await, b"first this");
}

#[tokio::test]
async fn only_the_exact_secret_passes() {
    let (_root, files) = files();
    for header in [None, Some(&b"Bearer wrong"[..]), Some(b"bearer s3cret"), Some(b"s3cret"), Some(b"Bearer t0ken")] {
        let taken = files.ingest(header, FORM, None, bits(Vec::new())).await.unwrap_err();
        let read = files.read(header, "/workspace/a").await.unwrap_err();
        assert_eq!((taken, read), (Refusal::new(401, "unauthorized"), Refusal::new(401, "unauthorized")));
    }
    for header in [None, Some(&b"Bearer s3cret"[..]), Some(b"t0ken")] {
        assert_eq!(files.transcript_page(header, None, None), Err(Refusal::new(401, "unauthorized")));
    }
}

#[tokio::test]
async fn a_form_that_is_refused_leaves_nothing_behind() {
    let (root, files) = files();
    let large = vec![7; 25 * MIB];
    let over = [&large[..], b"x"].concat();
    let file = part("files", Some("a.txt"), b"a");
    let many = |count: usize, part: Vec<u8>| form(&vec![part; count]);
    type Row<'a> = (Option<&'a str>, Option<u64>, Vec<u8>, u16, &'a str);
    let rows: [Row<'_>; 11] = [
        (FORM, Some(50 * MIB as u64 + 1), Vec::new(), 413, "request body exceeds total limit (50 MB)"),
        (
            FORM,
            None,
            form(&[file.clone(), part("files", Some("b c"), &over)]),
            413,
            "b_c exceeds per-file limit (25 MB)",
        ),
        (
            FORM,
            None,
            form(&[file.clone(), part("files", Some("b"), &large), part("files", Some("c"), &large)]),
            413,
            "total request body exceeds limit (50 MB)",
        ),
        (FORM, None, form(&[part("note", None, b"x")]), 400, "expected at least one 'files' field"),
        (FORM, None, form(&[part("files", None, b"no file")]), 400, "expected at least one 'files' field"),
        (FORM, None, many(65, file.clone()), 400, "failed to parse multipart form"),
        (FORM, None, many(33, part("note", None, b"x")), 400, "failed to parse multipart form"),
        (FORM, None, file.clone(), 400, "failed to parse multipart form"),
        (FORM, None, b"nonsense".to_vec(), 400, "failed to parse multipart form"),
        (Some("application/json"), None, b"{}".to_vec(), 400, "failed to parse multipart form"),
        (None, None, form(&[file]), 400, "failed to parse multipart form"),
    ];
    for (kind, length, body, status, error) in rows {
        let refused = files.ingest(SECRET, kind, length, bits(body)).await.unwrap_err();
        assert_eq!(refused, Refusal::new(status, error));
        assert_eq!(kept(&root), 0, "{error}");
    }
}

#[tokio::test]
async fn what_is_at_the_limits_is_taken_in() {
    let (root, files) = files();
    let body = form(&[part("files", Some("a"), &vec![7; 25 * MIB])]);
    assert!(files.ingest(SECRET, FORM, None, bits(body)).await.is_ok());
    let fields = vec![part("note", None, b"x"); 32];
    let body = form(&[fields, vec![part("files", Some("a"), b"x"); 64]].concat());
    assert_eq!(files.ingest(SECRET, FORM, None, bits(body)).await.unwrap()["files"].as_array().unwrap().len(), 64);
    assert_eq!(kept(&root), 65);
}

#[tokio::test]
async fn a_sender_that_leaves_leaves_nothing_behind() {
    let (root, files) = files();
    let begun = stream::iter([Ok(Bytes::from(part("files", Some("a"), &vec![7; MIB])))]);
    {
        let taken = files.ingest(SECRET, FORM, None, begun.chain(stream::pending()).boxed());
        let mut taken = std::pin::pin!(taken);
        while kept(&root) == 0 {
            tokio::select! {
                ended = &mut taken => panic!("it is not over: {ended:?}"),
                () = tokio::time::sleep(Duration::from_millis(1)) => {}
            }
        }
    }
    assert_eq!(kept(&root), 0);
}

/// Counts how often it was asked.
#[derive(Debug, Default)]
struct Counting(AtomicUsize);

impl Entropy for Counting {
    fn fill(&self, bytes: &mut [u8]) {
        bytes.fill(u8::try_from(self.0.fetch_add(1, Ordering::Relaxed)).unwrap());
    }
}

#[test]
fn a_sender_that_leaves_while_a_file_is_made_leaves_nothing_behind() {
    let (root, mut files) = files();
    let names = Arc::new(Counting::default());
    files.entropy = names.clone();
    let (go, gone) = oneshot::channel();
    let begun = Bytes::from([part("files", Some("a"), b"whole"), part("note", None, b"")].concat());
    let rest = Bytes::from(form(&[part("files", Some("b"), b"never")]));
    let body = stream::iter([Ok(begun)]).chain(stream::once(async move {
        gone.await.unwrap();
        Ok(rest)
    }));
    // One after the other, so that the second file waits for its turn.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().max_blocking_threads(1).build().unwrap();
    runtime.block_on(async {
        let (release, released) = mpsc::channel();
        {
            let taken = files.ingest(SECRET, FORM, None, body.boxed());
            let mut taken = std::pin::pin!(taken);
            let is_written = || {
                let mut there =
                    fs::read_dir(root.path().join("workspace/.molecule/chat-uploads")).into_iter().flatten();
                there.any(|file| file.unwrap().metadata().unwrap().len() == 5)
            };
            while !is_written() {
                tokio::select! {
                    ended = &mut taken => panic!("it is not over: {ended:?}"),
                    () = tokio::time::sleep(Duration::from_millis(1)) => {}
                }
            }
            let (at_it, is_at_it) = oneshot::channel();
            drop(tokio::task::spawn_blocking(move || {
                at_it.send(()).unwrap();
                released.recv()
            }));
            is_at_it.await.unwrap();
            go.send(()).unwrap();
            while names.0.load(Ordering::Relaxed) < 2 {
                assert!(futures_util::poll!(&mut taken).is_pending());
            }
        }
        release.send(()).unwrap();
        tokio::task::spawn_blocking(|| {}).await.unwrap();
    });
    assert_eq!(kept(&root), 0);
}

#[tokio::test]
async fn links_in_the_way_are_not_followed() {
    let (root, files) = files();
    let elsewhere = tempfile::tempdir().unwrap();
    let at = |path: &str| root.path().join(path);
    symlink(elsewhere.path(), at("workspace/.molecule")).unwrap();
    let body = || bits(form(&[part("files", Some("a"), b"x")]));
    let refused = files.ingest(SECRET, FORM, None, body()).await.unwrap_err();
    assert_eq!((refused.status, &refused.body["error"]), (500, &"failed to prepare uploads dir".into()));
    assert_eq!(refused.body["path"], "/workspace/.molecule/chat-uploads");
    assert!(refused.body["errno"].is_number() && refused.body["detail"].is_string());
    assert_eq!(fs::read_dir(elsewhere.path()).unwrap().count(), 0);

    fs::write(elsewhere.path().join("passwd"), "nobody's business").unwrap();
    fs::write(at("workspace/a"), "a").unwrap();
    symlink(elsewhere.path().join("passwd"), at("workspace/link")).unwrap();
    symlink(at("workspace"), at("workspace/round")).unwrap();
    fs::write(at("configs/config.yaml"), "x").unwrap();
    for (path, status, error) in [
        ("/workspace/link", 400, "path is not a regular file"),
        ("/workspace", 400, "path is not a regular file"),
        ("/workspace/.molecule/passwd", 400, "invalid path"),
        ("/workspace/none", 404, "file not found"),
        ("/workspace/a/b", 404, "file not found"),
        ("/workspace/\u{1F980}", 404, "file not found"),
        ("/workspace/../etc/passwd", 400, "invalid path"),
        ("/workspace/a\0b", 400, "invalid path"),
        ("/etc/passwd", 400, "path must be under /configs, /workspace, /home, or /plugins"),
        ("workspace/a", 400, "path must be absolute"),
        ("", 400, "path query required"),
    ] {
        assert_eq!(files.read(SECRET, path).await.unwrap_err(), Refusal::new(status, error), "{path:?}");
    }
    let crabs = format!("/workspace/{}", "\u{1F980}".repeat(300));
    assert_eq!(files.read(SECRET, &crabs).await.unwrap_err(), Refusal::new(404, "file not found"));
    for path in ["/workspace/a", "/workspace/round/a"] {
        assert_eq!(contents(files.read(SECRET, path).await.unwrap()).await, b"a", "{path}");
    }
    assert!(files.read(SECRET, "/configs/config.yaml").await.is_ok());
}

#[tokio::test]
async fn the_secrets_of_agents_are_not_given_away_wherever_they_are() {
    let (root, files) = files();
    fs::create_dir_all(root.path().join("home/u/.molecule-workspace")).unwrap();
    for path in [
        "/configs/.auth_token",
        "/configs/.auth_token.7-1.tmp",
        "/configs/.AUTH_Token",
        "/configs/.platform_inbound_secret",
        "/configs/.mcp_inbox_cursor",
        "/home/u/.molecule-workspace/.auth_token",
    ] {
        fs::write(root.path().join(&path[1..]), "s3cret").unwrap();
        assert_eq!(files.read(SECRET, path).await.unwrap_err(), Refusal::new(404, "file not found"), "{path}");
    }
    for path in ["/configs/.auth", "/workspace/auth_token"] {
        fs::write(root.path().join(&path[1..]), "no secret").unwrap();
        assert!(files.read(SECRET, path).await.is_ok(), "{path}");
    }
}

#[tokio::test]
async fn a_workspace_without_a_folder_takes_nothing_in() {
    let (root, files) = files();
    fs::remove_dir(root.path().join("workspace")).unwrap();
    let refused = files.ingest(SECRET, FORM, None, bits(form(&[part("files", Some("a"), b"x")]))).await.unwrap_err();
    assert_eq!((refused.status, &refused.body["errno"]), (500, &2.into()));
}

#[test]
fn pages_of_a_transcript_row_by_row() {
    let (_root, files) = files();
    let token = Some(&b"Bearer t0ken"[..]);
    let page = |since, limit| Ok(Page { since, limit });
    let wrong = || Err(Refusal::new(400, "since and limit must be integers"));
    for (since, limit, expected) in [
        (None, None, page(0, 100)),
        (Some("7"), Some("5"), page(7, 5)),
        (Some("-7"), Some("5000"), page(0, 1000)),
        (Some("x"), None, wrong()),
        (None, Some("1.5"), wrong()),
        (Some(""), None, wrong()),
    ] {
        assert_eq!(files.transcript_page(token, since, limit), expected, "{since:?} {limit:?}");
    }
}
