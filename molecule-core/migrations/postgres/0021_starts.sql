-- What a workspace is configured from until it was started once, and when the backend was asked for what a try brings up.
-- The other database has the same tables, columns and nullability; a test compares them.

-- The template that was named when it was made, empty for a made configuration. NULL once it has one.
ALTER TABLE workspaces ADD COLUMN template TEXT;
-- NULL while what the start needs is still being fetched.
ALTER TABLE workspaces ADD COLUMN provision_asked_at TIMESTAMPTZ;
