-- How often an agent took a message and gave no answer, and since when the message waits again: it may be the message that
-- is wrong, and the others do not wait for it.
ALTER TABLE a2a_queue ADD COLUMN busy_tries INTEGER NOT NULL DEFAULT 0;
ALTER TABLE a2a_queue ADD COLUMN put_back_at TIMESTAMPTZ;
CREATE INDEX a2a_queue_turns ON a2a_queue (workspace_id, priority DESC, (COALESCE(put_back_at, enqueued_at)), id)
    WHERE status = 'queued';
