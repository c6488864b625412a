-- What agents did, the calls that wait for them, and what they used.
-- The Postgres twin of this file has the same tables, columns and nullability; a test compares them.

CREATE TABLE activity_logs (
    id              BLOB PRIMARY KEY NOT NULL,
    workspace_id    BLOB NOT NULL REFERENCES workspaces (id) ON DELETE CASCADE,
    activity_type   TEXT NOT NULL,
    source_id       BLOB,
    target_id       BLOB,
    method          TEXT,
    summary         TEXT,
    request_body    TEXT,
    response_body   TEXT,
    tool_trace      TEXT,
    duration_ms     INTEGER,
    status          TEXT NOT NULL DEFAULT 'ok',
    error_detail    TEXT,
    -- Of the delegation that the row is about, if any: its id, and the key under which a repeat finds it.
    delegation_id   TEXT,
    idempotency_key TEXT,
    created_at      TEXT NOT NULL
);
-- One for each way to filter a page, each in the order of pages: a page is read from one end of one index.
CREATE INDEX activity_logs_all ON activity_logs (workspace_id, created_at, id);
CREATE INDEX activity_logs_canvas ON activity_logs (workspace_id, created_at, id) WHERE source_id IS NULL;
CREATE INDEX activity_logs_agent ON activity_logs (workspace_id, created_at, id) WHERE source_id IS NOT NULL;
CREATE INDEX activity_logs_type ON activity_logs (workspace_id, activity_type, created_at, id);
CREATE INDEX activity_logs_type_canvas ON activity_logs (workspace_id, activity_type, created_at, id)
    WHERE source_id IS NULL;
CREATE INDEX activity_logs_type_agent ON activity_logs (workspace_id, activity_type, created_at, id)
    WHERE source_id IS NOT NULL;
CREATE INDEX activity_logs_sent ON activity_logs (workspace_id, source_id, created_at, id)
    WHERE source_id IS NOT NULL;
CREATE INDEX activity_logs_received ON activity_logs (workspace_id, target_id, created_at, id)
    WHERE target_id IS NOT NULL;
CREATE INDEX activity_logs_age ON activity_logs (created_at);
CREATE INDEX activity_logs_delegation ON activity_logs (workspace_id, delegation_id) WHERE delegation_id IS NOT NULL;
CREATE UNIQUE INDEX activity_logs_idempotency ON activity_logs (workspace_id, idempotency_key)
    WHERE idempotency_key IS NOT NULL;

-- The time of the newest row of each workspace, in microseconds. Whoever writes a row takes the next time here, and so
-- waits for the row before it: no row appears behind one that a reader has seen.
CREATE TABLE activity_clocks (
    workspace_id BLOB PRIMARY KEY NOT NULL REFERENCES workspaces (id) ON DELETE CASCADE,
    newest       INTEGER NOT NULL
);

CREATE TABLE a2a_queue (
    id              BLOB PRIMARY KEY NOT NULL,
    workspace_id    BLOB NOT NULL REFERENCES workspaces (id) ON DELETE CASCADE,
    caller_id       BLOB,
    priority        INTEGER NOT NULL DEFAULT 50,
    body            TEXT NOT NULL,
    method          TEXT NOT NULL,
    idempotency_key TEXT,
    status          TEXT NOT NULL DEFAULT 'queued'
                    CHECK (status IN ('queued', 'dispatched', 'completed', 'dropped', 'failed')),
    attempts        INTEGER NOT NULL DEFAULT 0,
    last_error      TEXT,
    response_body   TEXT,
    -- Names one dispatch, so that only whoever makes it can tell how it ended.
    claim           BLOB,
    enqueued_at     TEXT NOT NULL,
    dispatched_at   TEXT,
    completed_at    TEXT,
    expires_at      TEXT
);
CREATE INDEX a2a_queue_waiting ON a2a_queue (workspace_id, priority DESC, enqueued_at, id) WHERE status = 'queued';
CREATE INDEX a2a_queue_dispatched ON a2a_queue (dispatched_at) WHERE status = 'dispatched';
CREATE INDEX a2a_queue_expiring ON a2a_queue (expires_at) WHERE status = 'queued' AND expires_at IS NOT NULL;
CREATE INDEX a2a_queue_age ON a2a_queue (enqueued_at);
CREATE UNIQUE INDEX a2a_queue_idempotency ON a2a_queue (workspace_id, idempotency_key)
    WHERE idempotency_key IS NOT NULL AND status IN ('queued', 'dispatched');

-- What the answers of an agent said to have used, by day.
CREATE TABLE workspace_token_usage (
    workspace_id  BLOB NOT NULL REFERENCES workspaces (id) ON DELETE CASCADE,
    period_start  TEXT NOT NULL,
    input_tokens  INTEGER NOT NULL DEFAULT 0,
    output_tokens INTEGER NOT NULL DEFAULT 0,
    call_count    INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (workspace_id, period_start)
);

-- What the runtime of an agent does by itself, as its heartbeats say.
ALTER TABLE workspaces ADD COLUMN native_session BOOLEAN NOT NULL DEFAULT FALSE;
ALTER TABLE workspaces ADD COLUMN idle_timeout_seconds INTEGER;
