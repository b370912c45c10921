//! The answer to a denied request, as a client is to see it: status, body, and when to come back.

use forebay_core::time::TimeUs;
use forebay_core::verdict::{Denial, Reason, Verdict};

use crate::filter::{Action, Filter, count_tokens};
use crate::header_map;
use crate::host::{Host, Reply};
use crate::metrics::Tokens;
use crate::rate_headers::{RETRY_AFTER, push_number, seconds};

const CONTENT_TYPE: &str = "content-type";
const US_PER_MS: u64 = 1_000;

/// Headers of a denial at most: content type, three of the rate limit, retry-after.
const MAX_HEADERS: usize = 5;

impl Filter {
    /// Denies a request in the name of the account at `position`; in a dry run, counts and tells that it would have been denied.
    pub(crate) fn deny<H: Host>(
        &mut self,
        host: &mut H,
        position: usize,
        denial: Denial,
        now: Option<TimeUs>,
    ) -> Action {
        let verdict = Verdict::Denied(denial);
        let dry_run = self.desk.policy.dry_run;
        if let Some(account) = self.accounts.get(position) {
            self.metrics.count_verdict(account.rule, &verdict, dry_run);
            count_tokens(
                &mut self.metrics,
                &self.token_metrics,
                Tokens::Denied,
                &account.cost,
            );
        }
        self.leave_for_log(host, &verdict);
        if dry_run {
            return Action::Continue;
        }
        self.render_rate_headers();
        self.reply(host, denial, now);
        Action::Stop
    }

    /// Sends the local reply. Rate-limit headers must have been rendered.
    pub(crate) fn reply<H: Host>(&mut self, host: &mut H, denial: Denial, now: Option<TimeUs>) {
        let settings = &self.settings;
        let wait_us = now
            .filter(|_| denial.retry_at != TimeUs::NEVER)
            .map(|now| denial.retry_at.since(now));
        let mut retry_after = Vec::new();
        if let Some(wait_us) = wait_us {
            self.metrics.record_retry_after(host, wait_us / US_PER_MS);
            // 0 would invite the client to come back at once.
            push_number(&mut retry_after, seconds(wait_us).max(1));
        }
        let mut headers: Vec<(&str, &[u8])> = Vec::with_capacity(MAX_HEADERS);
        if !settings.denial.content_type.is_empty() && !settings.denial.body.is_empty() {
            headers.push((CONTENT_TYPE, settings.denial.content_type.as_bytes()));
        }
        if settings.headers.retry_after && !retry_after.is_empty() {
            headers.push((RETRY_AFTER, &retry_after));
        }
        headers.extend(self.rate_headers.each());
        header_map::write(&headers, &mut self.scratch);
        host.reply(&Reply {
            status: settings.denial.status,
            grpc_status: settings.denial.grpc_status,
            details: details(denial.reason),
            headers: &self.scratch,
            body: settings.denial.body.as_bytes(),
        });
    }
}

/// The reason as response code details.
fn details(reason: Reason) -> &'static str {
    match reason {
        Reason::Contract => "forebay_denied_contract",
        Reason::Pool => "forebay_denied_pool",
        Reason::Banned => "forebay_denied_banned",
        Reason::Unknown => "forebay_denied_unknown",
    }
}
