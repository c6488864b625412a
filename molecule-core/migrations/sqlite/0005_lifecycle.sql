-- Which model the agent of a workspace is, was, and why that ended.
CREATE TABLE agents (
    id             BLOB PRIMARY KEY NOT NULL,
    workspace_id   BLOB NOT NULL REFERENCES workspaces (id) ON DELETE CASCADE,
    model          TEXT NOT NULL,
    status         TEXT NOT NULL DEFAULT 'active' CHECK (status IN ('active', 'replaced', 'removed')),
    created_at     TEXT NOT NULL,
    removed_at     TEXT,
    removal_reason TEXT
);
-- At most one at a time.
CREATE UNIQUE INDEX agents_active ON agents (workspace_id) WHERE status = 'active';
