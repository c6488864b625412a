-- What agents remember, ask for and leave behind.
-- The SQLite twin of this file has the same tables, columns and nullability; a test compares them.

CREATE TABLE workspace_memory (
    id           UUID PRIMARY KEY,
    workspace_id UUID NOT NULL REFERENCES workspaces (id) ON DELETE CASCADE,
    key          TEXT NOT NULL,
    value        JSONB NOT NULL,
    version      BIGINT NOT NULL DEFAULT 1,
    expires_at   TIMESTAMPTZ,
    updated_at   TIMESTAMPTZ NOT NULL,
    UNIQUE (workspace_id, key)
);
CREATE INDEX workspace_memory_expires ON workspace_memory (expires_at) WHERE expires_at IS NOT NULL;

CREATE TABLE agent_memories (
    -- Orders rows of one moment.
    number       BIGINT GENERATED ALWAYS AS IDENTITY,
    id           UUID PRIMARY KEY,
    workspace_id UUID NOT NULL REFERENCES workspaces (id) ON DELETE CASCADE,
    content      TEXT NOT NULL,
    scope        TEXT NOT NULL CHECK (scope IN ('LOCAL', 'TEAM', 'GLOBAL')),
    namespace    TEXT NOT NULL DEFAULT 'general',
    -- A vector holds one megabyte at most.
    content_tsv  TSVECTOR NOT NULL GENERATED ALWAYS AS (to_tsvector('english', left(content, 100000))) STORED,
    created_at   TIMESTAMPTZ NOT NULL,
    updated_at   TIMESTAMPTZ NOT NULL
);
CREATE INDEX agent_memories_workspace ON agent_memories (workspace_id, created_at);
CREATE INDEX agent_memories_scope ON agent_memories (scope, created_at);
CREATE INDEX agent_memories_content_tsv ON agent_memories USING gin (content_tsv);

CREATE TABLE approval_requests (
    id           UUID PRIMARY KEY,
    workspace_id UUID NOT NULL REFERENCES workspaces (id) ON DELETE CASCADE,
    task_id      TEXT,
    action       TEXT NOT NULL,
    reason       TEXT,
    context      JSONB,
    status       TEXT NOT NULL DEFAULT 'pending' CHECK (status IN ('pending', 'approved', 'denied', 'escalated')),
    decided_by   TEXT,
    decided_at   TIMESTAMPTZ,
    created_at   TIMESTAMPTZ NOT NULL
);
CREATE INDEX approval_requests_workspace ON approval_requests (workspace_id, created_at);
CREATE INDEX approval_requests_pending ON approval_requests (created_at) WHERE status = 'pending';

CREATE TABLE workspace_config (
    workspace_id UUID PRIMARY KEY REFERENCES workspaces (id) ON DELETE CASCADE,
    data         JSONB NOT NULL,
    updated_at   TIMESTAMPTZ NOT NULL
);

CREATE TABLE workflow_checkpoints (
    id           UUID PRIMARY KEY,
    workspace_id UUID NOT NULL REFERENCES workspaces (id) ON DELETE CASCADE,
    workflow_id  TEXT NOT NULL,
    step_name    TEXT NOT NULL,
    step_index   INTEGER NOT NULL DEFAULT 0,
    completed_at TIMESTAMPTZ NOT NULL,
    payload      JSONB,
    UNIQUE (workspace_id, workflow_id, step_name)
);
CREATE INDEX workflow_checkpoints_newest ON workflow_checkpoints (workspace_id, completed_at);

CREATE TABLE workspace_schedules (
    id                     UUID PRIMARY KEY,
    workspace_id           UUID NOT NULL REFERENCES workspaces (id) ON DELETE CASCADE,
    name                   TEXT NOT NULL,
    cron_expr              TEXT NOT NULL,
    timezone               TEXT NOT NULL DEFAULT 'UTC',
    prompt                 TEXT NOT NULL,
    enabled                BOOLEAN NOT NULL DEFAULT TRUE,
    last_run_at            TIMESTAMPTZ,
    next_run_at            TIMESTAMPTZ,
    run_count              BIGINT NOT NULL DEFAULT 0,
    last_status            TEXT,
    last_error             TEXT,
    consecutive_empty_runs INTEGER NOT NULL DEFAULT 0,
    source                 TEXT NOT NULL DEFAULT 'runtime' CHECK (source IN ('template', 'runtime')),
    created_at             TIMESTAMPTZ NOT NULL,
    updated_at             TIMESTAMPTZ NOT NULL,
    UNIQUE (workspace_id, name)
);
CREATE INDEX workspace_schedules_due ON workspace_schedules (next_run_at) WHERE enabled;
