-- Which tries at bringing a workspace up somebody still carries out, so that others go on with what a dead server left.
-- The other database has the same tables, columns and nullability; a test compares them.

-- When the server that carries the try out said so last. NULL once the backend has answered: there is nothing to carry on.
ALTER TABLE workspaces ADD COLUMN provision_renewed_at TEXT;
UPDATE workspaces SET provision_renewed_at = provision_started_at
    WHERE status = 'provisioning' AND COALESCE(url, '') = '' AND instance_id IS NULL;
