-- Secrets of workspaces, and those that every workspace is given.
-- The Postgres twin of this file has the same tables, columns and nullability; a test compares them.

CREATE TABLE workspace_secrets (
    workspace_id       BLOB NOT NULL REFERENCES workspaces (id) ON DELETE CASCADE,
    key                TEXT NOT NULL,
    encrypted_value    BLOB NOT NULL,
    -- 0: the value as it is; 1: nonce and AES-256-GCM ciphertext.
    encryption_version INTEGER NOT NULL DEFAULT 0,
    key_id             TEXT,
    created_at         TEXT NOT NULL,
    updated_at         TEXT NOT NULL,
    PRIMARY KEY (workspace_id, key)
);

CREATE TABLE global_secrets (
    key                TEXT PRIMARY KEY NOT NULL,
    encrypted_value    BLOB NOT NULL,
    encryption_version INTEGER NOT NULL DEFAULT 0,
    key_id             TEXT,
    created_at         TEXT NOT NULL,
    updated_at         TEXT NOT NULL
);
