-- When an agent said last what it spent: a budget is for a month.
ALTER TABLE workspaces ADD COLUMN spent_at TIMESTAMPTZ;
UPDATE workspaces SET spent_at = last_heartbeat_at WHERE monthly_spend > 0;

-- Pages of one peer and one type, and of a peer from the operator, where one peer has nearly all rows.
CREATE INDEX activity_logs_sent_type ON activity_logs (workspace_id, source_id, activity_type, created_at, id)
    WHERE source_id IS NOT NULL;
CREATE INDEX activity_logs_received_type ON activity_logs (workspace_id, target_id, activity_type, created_at, id)
    WHERE target_id IS NOT NULL;
CREATE INDEX activity_logs_canvas_peer ON activity_logs (workspace_id, target_id, created_at, id, activity_type)
    WHERE source_id IS NULL AND target_id IS NOT NULL;
