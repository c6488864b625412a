-- What the operator tells agents: everyone, or one workspace and all below it.
-- The other database has the same tables, columns and nullability; a test compares them.

CREATE TABLE instructions (
    id           UUID PRIMARY KEY NOT NULL,
    -- None where it is for everyone.
    workspace_id UUID REFERENCES workspaces (id) ON DELETE CASCADE,
    content      TEXT NOT NULL,
    position     INTEGER NOT NULL DEFAULT 0,
    created_at   TIMESTAMPTZ NOT NULL,
    updated_at   TIMESTAMPTZ NOT NULL
);
CREATE INDEX instructions_workspace ON instructions (workspace_id, position);
