//! Carries out what is due. However many replicas look, each run is taken once; what was missed while nobody looked
//! runs once, late.

use std::{panic::AssertUnwindSafe, time::Duration};

use futures_util::FutureExt;
use serde_json::{Value, json};
use tokio::{sync::OwnedSemaphorePermit, time::Instant};

use super::{
    ACTIVITY_TYPE, Schedule,
    outcome::{Outcome, RunStatus, judge},
    timetable::Timetable,
};
use crate::{
    a2a::{Call, Sender, System},
    activity::NewActivity,
    clock::random_uuid,
    control_plane::{Backend, ControlPlane},
    error::Result,
    events::EventKind,
};

/// How many runs may be under way in one process.
pub(crate) const RUNS_AT_ONCE: usize = 10;

/// How many due schedules are looked at before others get their turn.
const BATCH: i64 = 50;

/// How long an agent may take.
const DEADLINE: Duration = Duration::from_secs(5 * 60);

/// How often a busy agent is looked at, and for how long.
const BUSY_TICK: Duration = Duration::from_secs(10);
const BUSY_PATIENCE: Duration = Duration::from_secs(2 * 60);

impl ControlPlane {
    /// Begins what is due. Runs go on in tasks of their own.
    pub(crate) async fn run_schedules(&self) -> Result<()> {
        // Whoever cannot call an agent leaves its runs to those that can.
        let managed = !matches!(self.inner.backend, Backend::None);
        for schedule in self.inner.store.due_schedules(self.now(), BATCH, managed).await? {
            // What finds no place now is due at the next look still.
            let Ok(place) = self.inner.runs.clone().try_acquire_owned() else { return Ok(()) };
            if let Err(error) = self.begin_run(schedule, place).await {
                tracing::warn!(error = error.detail(), "a schedule could not be looked at");
            }
        }
        Ok(())
    }

    async fn begin_run(&self, schedule: Schedule, place: OwnedSemaphorePermit) -> Result<()> {
        let now = self.now();
        let next = match Timetable::parse(&schedule.cron_expr, &schedule.timezone) {
            Ok(timetable) => timetable.next_after(now),
            Err(error) => return self.inner.store.disable_schedule(schedule.id, error.message()).await,
        };
        let Some(due) = schedule.next_run_at else {
            return match next {
                Some(next) => self.inner.store.plan_run(schedule.id, next).await,
                None => self.inner.store.disable_schedule(schedule.id, "there is no next time").await,
            };
        };
        let runs = !self.keeps_times(&schedule).await?;
        if !self.inner.store.claim_run(schedule.id, due, now, next, runs).await? || !runs {
            return Ok(());
        }
        let this = self.clone();
        self.inner.tasks.spawn(async move {
            let run = AssertUnwindSafe(this.fire(&schedule)).catch_unwind().await;
            match run {
                Ok(Ok(())) => {}
                Ok(Err(error)) => {
                    tracing::error!(schedule.id = %schedule.id, error = error.detail(), "a run could not be kept");
                }
                Err(_) => tracing::error!(schedule.id = %schedule.id, "a run panicked"),
            }
            drop(place);
        });
        Ok(())
    }

    /// Whether the agent's runtime keeps its own times, so that it must not be asked as well.
    async fn keeps_times(&self, schedule: &Schedule) -> Result<bool> {
        let workspace = self.inner.store.workspace(schedule.workspace_id).await?;
        Ok(workspace.is_some_and(|workspace| workspace.native_scheduler))
    }

    async fn fire(&self, schedule: &Schedule) -> Result<()> {
        if !self.has_time(schedule).await? {
            let reason = "the workspace was busy";
            let event = self.event(
                EventKind::CronSkipped,
                schedule.workspace_id,
                json!({"schedule_id": schedule.id, "schedule_name": schedule.name, "reason": reason}),
            );
            let outcome = Outcome {
                status: RunStatus::Skipped,
                error: Some(reason.to_owned()),
                empty_runs: schedule.consecutive_empty_runs,
            };
            return self.keep_run(schedule, &outcome, Duration::ZERO, event).await;
        }
        let began = Instant::now();
        let call = Call {
            target: schedule.workspace_id,
            sender: Sender::System(System::Scheduler),
            body: self.request(schedule).to_string().into(),
            protocol: None,
            deadline: Some(Some(DEADLINE)),
        };
        let answer = self.call_or_keep(call).await;
        let answer = match &answer {
            Ok(answer) => Ok((answer.status, &*answer.body)),
            Err(error) => Err(error.message().to_owned()),
        };
        let outcome = judge(answer, schedule.consecutive_empty_runs);
        let told = json!({
            "schedule_id": schedule.id, "schedule_name": schedule.name, "status": outcome.status,
        });
        let event = self.event(EventKind::CronExecuted, schedule.workspace_id, told);
        self.keep_run(schedule, &outcome, began.elapsed(), event).await
    }

    /// Waits until the agent has time, but not for ever. False where it has none, or this control plane stops.
    async fn has_time(&self, schedule: &Schedule) -> Result<bool> {
        let end = Instant::now() + BUSY_PATIENCE;
        loop {
            let busy = self
                .inner
                .store
                .workspace(schedule.workspace_id)
                .await?
                .is_some_and(|row| row.active_tasks >= row.max_concurrent_tasks.max(1));
            if !busy {
                return Ok(true);
            }
            if Instant::now() + BUSY_TICK > end {
                return Ok(false);
            }
            tokio::select! {
                () = self.inner.stop.cancelled() => return Ok(false),
                () = tokio::time::sleep(BUSY_TICK) => {}
            }
        }
    }

    fn request(&self, schedule: &Schedule) -> Value {
        let short = |text: String| text[..8].to_owned();
        let message_id =
            format!("cron-{}-{}", short(schedule.id.to_string()), short(random_uuid(&*self.inner.entropy).to_string()));
        json!({
            "method": "message/send",
            "params": {"message": {
                "role": "user", "messageId": message_id, "parts": [{"kind": "text", "text": schedule.prompt}],
            }},
        })
    }

    async fn keep_run(
        &self,
        schedule: &Schedule,
        outcome: &Outcome,
        took: Duration,
        event: crate::events::Event,
    ) -> Result<()> {
        let row = NewActivity {
            method: Some("cron".to_owned()),
            summary: Some(format!("Schedule: {}", schedule.name)),
            request_body: Some(json!({
                "schedule_id": schedule.id, "schedule_name": schedule.name, "cron_expr": schedule.cron_expr,
                "prompt": schedule.prompt,
            })),
            duration_ms: Some(i32::try_from(took.as_millis()).unwrap_or(i32::MAX)),
            status: outcome.status.as_str().to_owned(),
            error_detail: outcome.error.clone(),
            ..self.new_activity(schedule.workspace_id, ACTIVITY_TYPE)
        };
        self.log_or_count(&row).await;
        let error = outcome.error.as_deref();
        self.inner.store.finish_run(schedule.id, outcome.status, error, outcome.empty_runs, &event).await?;
        self.announce(event);
        Ok(())
    }
}
