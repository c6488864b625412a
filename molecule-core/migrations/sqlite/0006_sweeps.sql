-- When the agent of a workspace last said that it works on something: what it is idle since.
-- The Postgres twin of this file has the same tables, columns and nullability; a test compares them.

ALTER TABLE workspaces ADD COLUMN last_busy_at TEXT;
