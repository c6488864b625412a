//! What every refusal has in common.

use crate::server::{Reply, Server};

/// Words that only the inside of the server knows.
const INSIDE: [&str; 12] = [
    "sqlx",
    "sqlite",
    "postgres",
    "select ",
    "insert ",
    "update ",
    "constraint",
    "os error",
    "panicked",
    ".rs:",
    "molecule_core",
    "rustls",
];

/// Fails unless `reply` is a refusal in the common form that tells nothing of the inside of `server`.
pub(crate) fn assert_tells_nothing(server: &Server, reply: &Reply) {
    assert_eq!(reply.headers["content-type"], "application/json", "{reply:?}");
    assert!(!reply.error().is_empty(), "{reply:?}");
    let text = reply.text.to_lowercase();
    let data = server.data().display().to_string().to_lowercase();
    for word in INSIDE.iter().copied().chain([data.as_str()]) {
        assert!(!text.contains(word), "a refusal tells of {word:?}: {reply:?}");
    }
}
