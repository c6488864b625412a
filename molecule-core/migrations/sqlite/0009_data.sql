-- What agents remember, ask for and leave behind.
-- The Postgres twin of this file has the same tables, columns and nullability; a test compares them.

CREATE TABLE workspace_memory (
    id           BLOB PRIMARY KEY NOT NULL,
    workspace_id BLOB NOT NULL REFERENCES workspaces (id) ON DELETE CASCADE,
    key          TEXT NOT NULL,
    value        TEXT NOT NULL,
    version      INTEGER NOT NULL DEFAULT 1,
    expires_at   TEXT,
    updated_at   TEXT NOT NULL,
    UNIQUE (workspace_id, key)
);
CREATE INDEX workspace_memory_expires ON workspace_memory (expires_at) WHERE expires_at IS NOT NULL;

CREATE TABLE agent_memories (
    -- Names the row in the full-text index, and orders rows of one moment.
    number       INTEGER PRIMARY KEY NOT NULL,
    id           BLOB NOT NULL UNIQUE,
    workspace_id BLOB NOT NULL REFERENCES workspaces (id) ON DELETE CASCADE,
    content      TEXT NOT NULL,
    scope        TEXT NOT NULL CHECK (scope IN ('LOCAL', 'TEAM', 'GLOBAL')),
    namespace    TEXT NOT NULL DEFAULT 'general',
    created_at   TEXT NOT NULL,
    updated_at   TEXT NOT NULL
);
CREATE INDEX agent_memories_workspace ON agent_memories (workspace_id, created_at);
CREATE INDEX agent_memories_scope ON agent_memories (scope, created_at);

CREATE VIRTUAL TABLE agent_memories_fts USING fts5 (
    content, content = 'agent_memories', content_rowid = 'number', tokenize = 'porter unicode61'
);
CREATE TRIGGER agent_memories_fts_insert AFTER INSERT ON agent_memories BEGIN
    INSERT INTO agent_memories_fts (rowid, content) VALUES (new.number, new.content);
END;
CREATE TRIGGER agent_memories_fts_delete AFTER DELETE ON agent_memories BEGIN
    INSERT INTO agent_memories_fts (agent_memories_fts, rowid, content) VALUES ('delete', old.number, old.content);
END;

CREATE TABLE approval_requests (
    id           BLOB PRIMARY KEY NOT NULL,
    workspace_id BLOB NOT NULL REFERENCES workspaces (id) ON DELETE CASCADE,
    task_id      TEXT,
    action       TEXT NOT NULL,
    reason       TEXT,
    context      TEXT,
    status       TEXT NOT NULL DEFAULT 'pending' CHECK (status IN ('pending', 'approved', 'denied', 'escalated')),
    decided_by   TEXT,
    decided_at   TEXT,
    created_at   TEXT NOT NULL
);
CREATE INDEX approval_requests_workspace ON approval_requests (workspace_id, created_at);
CREATE INDEX approval_requests_pending ON approval_requests (created_at) WHERE status = 'pending';

CREATE TABLE workspace_config (
    workspace_id BLOB PRIMARY KEY NOT NULL REFERENCES workspaces (id) ON DELETE CASCADE,
    data         TEXT NOT NULL,
    updated_at   TEXT NOT NULL
);

CREATE TABLE workflow_checkpoints (
    id           BLOB PRIMARY KEY NOT NULL,
    workspace_id BLOB NOT NULL REFERENCES workspaces (id) ON DELETE CASCADE,
    workflow_id  TEXT NOT NULL,
    step_name    TEXT NOT NULL,
    step_index   INTEGER NOT NULL DEFAULT 0,
    completed_at TEXT NOT NULL,
    payload      TEXT,
    UNIQUE (workspace_id, workflow_id, step_name)
);
CREATE INDEX workflow_checkpoints_newest ON workflow_checkpoints (workspace_id, completed_at);

CREATE TABLE workspace_schedules (
    id                     BLOB PRIMARY KEY NOT NULL,
    workspace_id           BLOB NOT NULL REFERENCES workspaces (id) ON DELETE CASCADE,
    name                   TEXT NOT NULL,
    cron_expr              TEXT NOT NULL,
    timezone               TEXT NOT NULL DEFAULT 'UTC',
    prompt                 TEXT NOT NULL,
    enabled                BOOLEAN NOT NULL DEFAULT TRUE,
    last_run_at            TEXT,
    next_run_at            TEXT,
    run_count              INTEGER NOT NULL DEFAULT 0,
    last_status            TEXT,
    last_error             TEXT,
    consecutive_empty_runs INTEGER NOT NULL DEFAULT 0,
    source                 TEXT NOT NULL DEFAULT 'runtime' CHECK (source IN ('template', 'runtime')),
    created_at             TEXT NOT NULL,
    updated_at             TEXT NOT NULL,
    UNIQUE (workspace_id, name)
);
CREATE INDEX workspace_schedules_due ON workspace_schedules (next_run_at) WHERE enabled;
