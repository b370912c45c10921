//! What operators are told of forecasts and models.
#![forbid(unsafe_code)]
