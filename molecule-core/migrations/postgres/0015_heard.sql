-- Finds who was not heard without reading those who were.
-- The other database has the same tables, columns and nullability; a test compares them.

CREATE INDEX workspaces_heard ON workspaces (status, (COALESCE(last_heartbeat_at, updated_at)));
