//! How much a request is charged.

use forebay_core::amount::Micro;
use forebay_wire::config::CostConfig;

use crate::amount::{self, NotAnAmount};
use crate::host::Host;
use crate::metrics::{Input, Metrics};
use crate::request::RequestReader;

/// Where a rule takes the cost from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Cost {
    Constant(Micro),
    Header {
        name: String,
        default: Micro,
        max: Micro,
    },
    Settle {
        estimate: Micro,
        response_header: String,
        max: Micro,
    },
}

// === impl Cost ===

impl Cost {
    pub(crate) fn compile(config: &CostConfig) -> Self {
        match config {
            CostConfig::Constant(tokens) => Self::Constant(Micro::new(tokens.micro())),
            CostConfig::Header(header) => Self::Header {
                name: header.name.clone(),
                default: Micro::new(header.default.micro()),
                max: Micro::new(header.max.micro()),
            },
            CostConfig::Settle(settle) => Self::Settle {
                estimate: Micro::new(settle.estimate.micro()),
                response_header: settle.response_header.clone(),
                max: Micro::new(settle.max.micro()),
            },
        }
    }

    /// The request header that it looks at.
    pub(crate) fn header_name(&self) -> Option<&str> {
        match self {
            Self::Header { name, .. } => Some(name),
            _ => None,
        }
    }

    /// What is charged when the request arrives.
    pub(crate) fn of<H: Host>(
        &self,
        host: &mut H,
        request: &mut RequestReader,
        metrics: &mut Metrics,
    ) -> Micro {
        match self {
            Self::Constant(tokens) => *tokens,
            Self::Settle { estimate, .. } => *estimate,
            Self::Header { name, default, max } => match request.header(host, name) {
                None => *default,
                Some(value) => match amount::parse(value) {
                    Ok(cost) if cost > *max => {
                        metrics.count_input(Input::CostAboveMax);
                        *max
                    }
                    Ok(cost) => cost,
                    Err(error) => {
                        metrics.count_input(match error {
                            NotAnAmount::Negative => Input::CostNegative,
                            NotAnAmount::NotANumber => Input::CostNotANumber,
                        });
                        *default
                    }
                },
            },
        }
    }
}

/// What the response says a request has cost, if it says anything that can be used.
pub(crate) fn reported(value: Option<&[u8]>, max: Micro, metrics: &mut Metrics) -> Option<Micro> {
    let Some(value) = value else {
        metrics.count_input(Input::SettleMissing);
        return None;
    };
    match amount::parse(value) {
        Ok(cost) if cost > max => {
            metrics.count_input(Input::SettleAboveMax);
            Some(max)
        }
        Ok(cost) => Some(cost),
        Err(error) => {
            metrics.count_input(match error {
                NotAnAmount::Negative => Input::SettleNegative,
                NotAnAmount::NotANumber => Input::SettleNotANumber,
            });
            None
        }
    }
}
