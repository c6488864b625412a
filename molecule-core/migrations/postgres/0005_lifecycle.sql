-- Which model the agent of a workspace is, was, and why that ended.
CREATE TABLE agents (
    id             UUID PRIMARY KEY,
    workspace_id   UUID NOT NULL REFERENCES workspaces (id) ON DELETE CASCADE,
    model          TEXT NOT NULL,
    status         TEXT NOT NULL DEFAULT 'active' CHECK (status IN ('active', 'replaced', 'removed')),
    created_at     TIMESTAMPTZ NOT NULL,
    removed_at     TIMESTAMPTZ,
    removal_reason TEXT
);
-- At most one at a time.
CREATE UNIQUE INDEX agents_active ON agents (workspace_id) WHERE status = 'active';
