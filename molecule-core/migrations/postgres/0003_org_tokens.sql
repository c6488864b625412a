-- Tokens of the organisation, each worth what the operator's is. Replicas remember them like those of workspaces, so
-- a change that matters is told with it.

CREATE TABLE org_api_tokens (
    id           UUID PRIMARY KEY,
    -- SHA-256 of the token; the token itself is kept nowhere.
    token_hash   BYTEA NOT NULL UNIQUE,
    prefix       TEXT NOT NULL,
    name         TEXT,
    created_by   TEXT,
    -- The topmost workspace of the organisation it is bound to, if any.
    org_id       UUID REFERENCES workspaces (id) ON DELETE SET NULL,
    created_at   TIMESTAMPTZ NOT NULL,
    last_used_at TIMESTAMPTZ,
    revoked_at   TIMESTAMPTZ
);
CREATE INDEX org_api_tokens_live ON org_api_tokens (created_at) WHERE revoked_at IS NULL;
CREATE INDEX org_api_tokens_org ON org_api_tokens (org_id) WHERE org_id IS NOT NULL;

CREATE FUNCTION molecule_org_token_changed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('molecule_changes', 'org-tokens');
    RETURN NULL;
END
$$;

CREATE TRIGGER molecule_org_token_changed AFTER UPDATE OF revoked_at, org_id ON org_api_tokens
    FOR EACH ROW EXECUTE FUNCTION molecule_org_token_changed();
CREATE TRIGGER molecule_org_token_deleted AFTER DELETE ON org_api_tokens
    FOR EACH ROW EXECUTE FUNCTION molecule_org_token_changed();
