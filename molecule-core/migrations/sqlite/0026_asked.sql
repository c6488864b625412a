-- What a try at bringing a workspace up was asked for besides a start, so that who goes on with it does that as well.
-- The other database has the same tables, columns and nullability; a test compares them.

-- The folder below the templates whose files go into the configuration; NULL leaves that alone.
ALTER TABLE workspaces ADD COLUMN provision_config TEXT;
ALTER TABLE workspaces ADD COLUMN provision_reset BOOLEAN NOT NULL DEFAULT FALSE;
