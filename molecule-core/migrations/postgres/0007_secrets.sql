-- Secrets of workspaces, and those that every workspace is given.
-- The SQLite twin of this file has the same tables, columns and nullability; a test compares them.

CREATE TABLE workspace_secrets (
    workspace_id       UUID NOT NULL REFERENCES workspaces (id) ON DELETE CASCADE,
    key                TEXT NOT NULL,
    encrypted_value    BYTEA NOT NULL,
    -- 0: the value as it is; 1: nonce and AES-256-GCM ciphertext.
    encryption_version INTEGER NOT NULL DEFAULT 0,
    key_id             TEXT,
    created_at         TIMESTAMPTZ NOT NULL,
    updated_at         TIMESTAMPTZ NOT NULL,
    PRIMARY KEY (workspace_id, key)
);

CREATE TABLE global_secrets (
    key                TEXT PRIMARY KEY NOT NULL,
    encrypted_value    BYTEA NOT NULL,
    encryption_version INTEGER NOT NULL DEFAULT 0,
    key_id             TEXT,
    created_at         TIMESTAMPTZ NOT NULL,
    updated_at         TIMESTAMPTZ NOT NULL
);
