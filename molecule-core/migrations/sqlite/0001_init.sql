-- Workspaces, their tokens, their place on the canvas, and what happened to them.
-- The Postgres twin of this file has the same tables, columns and nullability; a test compares them.

CREATE TABLE workspaces (
    id                      BLOB PRIMARY KEY NOT NULL,
    name                    TEXT NOT NULL,
    role                    TEXT,
    tier                    INTEGER NOT NULL DEFAULT 1,
    status                  TEXT NOT NULL DEFAULT 'provisioning'
                            CHECK (status IN (
                                'provisioning', 'online', 'offline', 'degraded', 'failed',
                                'removed', 'paused', 'hibernated', 'hibernating', 'awaiting_agent'
                            )),
    source_bundle_id        TEXT,
    agent_card              TEXT,
    url                     TEXT,
    parent_id               BLOB REFERENCES workspaces (id) ON DELETE SET NULL,
    forwarded_to            BLOB REFERENCES workspaces (id) ON DELETE SET NULL,
    last_heartbeat_at       TEXT,
    last_error_rate         REAL NOT NULL DEFAULT 0,
    last_sample_error       TEXT,
    active_tasks            INTEGER NOT NULL DEFAULT 0,
    max_concurrent_tasks    INTEGER NOT NULL DEFAULT 1,
    uptime_seconds          INTEGER NOT NULL DEFAULT 0,
    current_task            TEXT,
    awareness_namespace     TEXT,
    runtime                 TEXT NOT NULL DEFAULT 'claude-code',
    workspace_dir           TEXT,
    workspace_access        TEXT NOT NULL DEFAULT 'none'
                            CHECK (workspace_access IN ('none', 'read_only', 'read_write')),
    budget_limit            INTEGER,
    monthly_spend           INTEGER NOT NULL DEFAULT 0,
    hibernation_idle_minutes INTEGER,
    last_outbound_at        TEXT,
    instance_id             TEXT,
    platform_inbound_secret TEXT,
    delivery_mode           TEXT NOT NULL DEFAULT 'push' CHECK (delivery_mode IN ('push', 'poll')),
    -- The current try at bringing the workspace up, and when it began.
    provision_attempt       BLOB,
    provision_started_at    TEXT,
    created_at              TEXT NOT NULL,
    updated_at              TEXT NOT NULL
);
CREATE INDEX workspaces_status ON workspaces (status);
CREATE INDEX workspaces_parent ON workspaces (parent_id);
CREATE INDEX workspaces_instance ON workspaces (instance_id) WHERE instance_id IS NOT NULL;

CREATE TABLE canvas_layouts (
    workspace_id BLOB PRIMARY KEY NOT NULL REFERENCES workspaces (id) ON DELETE CASCADE,
    x            REAL NOT NULL DEFAULT 0,
    y            REAL NOT NULL DEFAULT 0,
    collapsed    BOOLEAN NOT NULL DEFAULT FALSE
);

CREATE TABLE workspace_auth_tokens (
    id           BLOB PRIMARY KEY NOT NULL,
    workspace_id BLOB NOT NULL REFERENCES workspaces (id) ON DELETE CASCADE,
    -- SHA-256 of the token; the token itself is kept nowhere.
    token_hash   BLOB NOT NULL UNIQUE,
    prefix       TEXT NOT NULL,
    -- The try at bringing the workspace up that it was issued for, if any.
    provision_attempt BLOB,
    created_at   TEXT NOT NULL,
    last_used_at TEXT,
    revoked_at   TEXT
);
CREATE INDEX workspace_auth_tokens_live ON workspace_auth_tokens (workspace_id) WHERE revoked_at IS NULL;

-- Append-only. No foreign keys: what happened stays known after its workspace is purged.
CREATE TABLE structure_events (
    id           BLOB PRIMARY KEY NOT NULL,
    event_type   TEXT NOT NULL,
    workspace_id BLOB,
    agent_id     BLOB,
    target_id    BLOB,
    payload      TEXT,
    created_at   TEXT NOT NULL
);
CREATE INDEX structure_events_workspace ON structure_events (workspace_id, created_at);
CREATE INDEX structure_events_created ON structure_events (created_at);
