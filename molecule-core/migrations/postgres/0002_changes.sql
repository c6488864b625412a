-- Tells every replica of what it may remember and must forget: a status or the tokens of a workspace changed. The
-- notice is part of the change's own transaction, so that no crash can come between the two.

CREATE FUNCTION molecule_workspace_changed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('molecule_changes', OLD.id::text);
    RETURN NULL;
END
$$;

CREATE FUNCTION molecule_token_changed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('molecule_changes', OLD.workspace_id::text);
    RETURN NULL;
END
$$;

CREATE TRIGGER molecule_status_changed AFTER UPDATE OF status ON workspaces
    FOR EACH ROW WHEN (OLD.status IS DISTINCT FROM NEW.status) EXECUTE FUNCTION molecule_workspace_changed();
CREATE TRIGGER molecule_workspace_deleted AFTER DELETE ON workspaces
    FOR EACH ROW EXECUTE FUNCTION molecule_workspace_changed();
CREATE TRIGGER molecule_token_revoked AFTER UPDATE OF revoked_at ON workspace_auth_tokens
    FOR EACH ROW WHEN (OLD.revoked_at IS DISTINCT FROM NEW.revoked_at) EXECUTE FUNCTION molecule_token_changed();
CREATE TRIGGER molecule_token_deleted AFTER DELETE ON workspace_auth_tokens
    FOR EACH ROW EXECUTE FUNCTION molecule_token_changed();
