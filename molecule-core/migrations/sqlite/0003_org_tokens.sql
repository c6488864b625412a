-- Tokens of the organisation, each worth what the operator's is.

CREATE TABLE org_api_tokens (
    id           BLOB PRIMARY KEY NOT NULL,
    -- SHA-256 of the token; the token itself is kept nowhere.
    token_hash   BLOB NOT NULL UNIQUE,
    prefix       TEXT NOT NULL,
    name         TEXT,
    created_by   TEXT,
    -- The topmost workspace of the organisation it is bound to, if any.
    org_id       BLOB REFERENCES workspaces (id) ON DELETE SET NULL,
    created_at   TEXT NOT NULL,
    last_used_at TEXT,
    revoked_at   TEXT
);
CREATE INDEX org_api_tokens_live ON org_api_tokens (created_at) WHERE revoked_at IS NULL;
CREATE INDEX org_api_tokens_org ON org_api_tokens (org_id) WHERE org_id IS NOT NULL;
