//! What doors ask about jobs.

use crate::session::SessionHandle;
use model::{
    Notice, Permission, Refusal,
    job::{JobAnswer, JobAsk, JobNotice, JobRefusal, JobRequest},
};

impl SessionHandle {
    pub(crate) fn job_request(&mut self, it: JobRequest) {
        let JobRequest { number, ask } = it;
        if let Err(refusal) = self.ask_of_job(ask) {
            let answer = JobAnswer::Refused(refusal);
            self.mailbox.push(Notice::Job(Box::new(JobNotice { number, answer })));
        }
    }

    fn ask_of_job(&mut self, ask: JobAsk) -> Result<(), JobRefusal> {
        let (queue, permission) = match ask {
            JobAsk::Forget { .. } => return Ok(()),
            JobAsk::Complete { .. } | JobAsk::Extend { .. } | JobAsk::Release { .. } => {
                return Err(JobRefusal::StaleToken);
            }
            JobAsk::Submit { queue, .. } => (Some(queue), Permission::Write),
            JobAsk::Lease { queue, .. } | JobAsk::List { queue, .. } => {
                (Some(queue), Permission::Read)
            }
            JobAsk::Look { queue, .. }
            | JobAsk::Wait { queue, .. }
            | JobAsk::Result { queue, .. } => (queue, Permission::Read),
            JobAsk::Cancel { queue, .. }
            | JobAsk::Retry { queue, .. }
            | JobAsk::Patch { queue, .. } => (queue, Permission::Write),
        };
        let Some(name) = queue else { return Err(JobRefusal::UnknownJob) };
        let catalog = self.catalog();
        let found = self.decide(&catalog, |catalog, who| catalog.queue_for(who, &name, permission));
        Err(match found {
            Ok(_) => JobRefusal::NotJobQueue(name),
            Err(Refusal::NotFound { .. }) => JobRefusal::UnknownQueue(name),
            Err(refusal) => JobRefusal::Access(refusal.to_string()),
        })
    }
}
