-- An agent whose runtime keeps its own times is not asked by schedules.
ALTER TABLE workspaces ADD COLUMN native_scheduler BOOLEAN NOT NULL DEFAULT FALSE;
