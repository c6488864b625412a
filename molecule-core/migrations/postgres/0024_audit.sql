-- What agents answer for: their steps, each signed together with the one before it.
-- The other database has the same tables, columns and nullability; a test compares them.

CREATE TABLE audit_events (
    id                   TEXT PRIMARY KEY NOT NULL,
    timestamp            TIMESTAMPTZ NOT NULL,
    agent_id             TEXT NOT NULL,
    session_id           TEXT NOT NULL,
    operation            TEXT NOT NULL CHECK (operation IN ('task_start', 'llm_call', 'tool_call', 'task_end')),
    input_hash           TEXT,
    output_hash          TEXT,
    model_used           TEXT,
    human_oversight_flag BOOLEAN NOT NULL DEFAULT FALSE,
    risk_flag            BOOLEAN NOT NULL DEFAULT FALSE,
    prev_hmac            TEXT,
    -- None where the server had no key.
    hmac                 TEXT,
    workspace_id         UUID NOT NULL REFERENCES workspaces (id) ON DELETE CASCADE
);
CREATE INDEX audit_events_workspace ON audit_events (workspace_id, timestamp, id);
CREATE INDEX audit_events_agent ON audit_events (workspace_id, agent_id, timestamp, id);
CREATE INDEX audit_events_session ON audit_events (workspace_id, session_id, timestamp, id);
-- Which row stands behind which.
CREATE INDEX audit_events_signature ON audit_events (workspace_id, agent_id, hmac);
CREATE INDEX audit_events_link ON audit_events (workspace_id, agent_id, COALESCE(prev_hmac, ''));
