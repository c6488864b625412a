-- Whose it is to see a delegation through, and messages of the platform itself.
-- The Postgres twin of this file has the same tables, columns and nullability; a test compares them.

-- A server that carries a delegation out says so here again and again. One that is silent has died, and another finds out
-- what became of the task.
CREATE TABLE delegation_claims (
    workspace_id  BLOB NOT NULL REFERENCES workspaces (id) ON DELETE CASCADE,
    delegation_id TEXT NOT NULL,
    claim         BLOB NOT NULL,
    renewed_at    TEXT NOT NULL,
    PRIMARY KEY (workspace_id, delegation_id)
);
CREATE INDEX delegation_claims_age ON delegation_claims (renewed_at);

-- By these a delegation that waits finds its message.
CREATE INDEX activity_logs_waiting ON activity_logs (created_at) WHERE method = 'delegate' AND status = 'queued';
CREATE INDEX a2a_queue_key ON a2a_queue (workspace_id, idempotency_key) WHERE idempotency_key IS NOT NULL;

-- Which part of the platform sent a message, where none of its users did.
ALTER TABLE a2a_queue ADD COLUMN sender TEXT;
