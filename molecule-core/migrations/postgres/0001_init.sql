-- Workspaces, their tokens, their place on the canvas, and what happened to them.
-- The SQLite twin of this file has the same tables, columns and nullability; a test compares them.

CREATE TYPE workspace_status AS ENUM (
    'provisioning', 'online', 'offline', 'degraded', 'failed',
    'removed', 'paused', 'hibernated', 'hibernating', 'awaiting_agent'
);

CREATE TABLE workspaces (
    id                      UUID PRIMARY KEY,
    name                    TEXT NOT NULL,
    role                    TEXT,
    tier                    INTEGER NOT NULL DEFAULT 1,
    status                  workspace_status NOT NULL DEFAULT 'provisioning',
    source_bundle_id        TEXT,
    agent_card              JSONB,
    url                     TEXT,
    parent_id               UUID REFERENCES workspaces (id) ON DELETE SET NULL,
    forwarded_to            UUID REFERENCES workspaces (id) ON DELETE SET NULL,
    last_heartbeat_at       TIMESTAMPTZ,
    last_error_rate         DOUBLE PRECISION NOT NULL DEFAULT 0,
    last_sample_error       TEXT,
    active_tasks            INTEGER NOT NULL DEFAULT 0,
    max_concurrent_tasks    INTEGER NOT NULL DEFAULT 1,
    uptime_seconds          BIGINT NOT NULL DEFAULT 0,
    current_task            TEXT,
    awareness_namespace     TEXT,
    runtime                 TEXT NOT NULL DEFAULT 'claude-code',
    workspace_dir           TEXT,
    workspace_access        VARCHAR(20) NOT NULL DEFAULT 'none'
                            CHECK (workspace_access IN ('none', 'read_only', 'read_write')),
    budget_limit            BIGINT,
    monthly_spend           BIGINT NOT NULL DEFAULT 0,
    hibernation_idle_minutes INTEGER,
    last_outbound_at        TIMESTAMPTZ,
    instance_id             TEXT,
    platform_inbound_secret TEXT,
    delivery_mode           TEXT NOT NULL DEFAULT 'push' CHECK (delivery_mode IN ('push', 'poll')),
    -- The current try at bringing the workspace up, and when it began.
    provision_attempt       UUID,
    provision_started_at    TIMESTAMPTZ,
    created_at              TIMESTAMPTZ NOT NULL,
    updated_at              TIMESTAMPTZ NOT NULL
);
CREATE INDEX workspaces_status ON workspaces (status);
CREATE INDEX workspaces_parent ON workspaces (parent_id);
CREATE INDEX workspaces_instance ON workspaces (instance_id) WHERE instance_id IS NOT NULL;

CREATE TABLE canvas_layouts (
    workspace_id UUID PRIMARY KEY REFERENCES workspaces (id) ON DELETE CASCADE,
    x            DOUBLE PRECISION NOT NULL DEFAULT 0,
    y            DOUBLE PRECISION NOT NULL DEFAULT 0,
    collapsed    BOOLEAN NOT NULL DEFAULT FALSE
);

CREATE TABLE workspace_auth_tokens (
    id           UUID PRIMARY KEY,
    workspace_id UUID NOT NULL REFERENCES workspaces (id) ON DELETE CASCADE,
    -- SHA-256 of the token; the token itself is kept nowhere.
    token_hash   BYTEA NOT NULL UNIQUE,
    prefix       TEXT NOT NULL,
    -- The try at bringing the workspace up that it was issued for, if any.
    provision_attempt UUID,
    created_at   TIMESTAMPTZ NOT NULL,
    last_used_at TIMESTAMPTZ,
    revoked_at   TIMESTAMPTZ
);
CREATE INDEX workspace_auth_tokens_live ON workspace_auth_tokens (workspace_id) WHERE revoked_at IS NULL;

-- Append-only. No foreign keys: what happened stays known after its workspace is purged.
CREATE TABLE structure_events (
    id           UUID PRIMARY KEY,
    event_type   TEXT NOT NULL,
    workspace_id UUID,
    agent_id     UUID,
    target_id    UUID,
    payload      JSONB,
    created_at   TIMESTAMPTZ NOT NULL
);
CREATE INDEX structure_events_workspace ON structure_events (workspace_id, created_at);
CREATE INDEX structure_events_created ON structure_events (created_at);
