-- Machines of another control plane that could not be given back: a sweep asks again until they are.
-- The other database has the same tables, columns and nullability; a test compares them.

-- No reference to the workspace: its row may go first.
CREATE TABLE machines_left (
    workspace_id BLOB NOT NULL,
    instance_id  TEXT NOT NULL,
    noted_at     TEXT NOT NULL,
    PRIMARY KEY (workspace_id, instance_id)
);
