-- What the operator tells agents: everyone, or one workspace and all below it.
-- The other database has the same tables, columns and nullability; a test compares them.

CREATE TABLE instructions (
    id           BLOB PRIMARY KEY NOT NULL,
    -- None where it is for everyone.
    workspace_id BLOB REFERENCES workspaces (id) ON DELETE CASCADE,
    content      TEXT NOT NULL,
    position     INTEGER NOT NULL DEFAULT 0,
    created_at   TEXT NOT NULL,
    updated_at   TEXT NOT NULL
);
CREATE INDEX instructions_workspace ON instructions (workspace_id, position);
