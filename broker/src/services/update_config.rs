//! UPDATE_BROKER_CONFIG: the one key that anybody who reaches a broker may change while it runs, `logLevel`.
//!
//! RocketMQ takes any key this way, and doesn't ask who sends it. What decides about messages comes from `broker.conf` here, and from the
//! operator, who shows the group's secret.

use std::collections::HashMap;

use gantry_logging::Level;
use gantry_remoting::code::response;
use gantry_remoting::{Command, Response};
use tracing::warn;

use super::failure::Refusal;

const LOG_LEVEL: &str = "logLevel";

/// All that is asked for or, with the reason, nothing.
pub(super) fn update_config(request: &Command) -> Result<Response, Refusal> {
    let invalid = |why: String| Refusal::new(response::INVALID_PARAMETER, why);
    let body = request.body.to_bytes();
    let mut asked: HashMap<String, String> =
        java_properties::read(&*body).map_err(|error| invalid(format!("keys and values are expected: {error}")))?;
    let level = asked.remove(LOG_LEVEL);
    if let Some(key) = asked.keys().min() {
        let text =
            format!("{key} can't be changed by this request: set it in broker.conf, or in the group's spec.config");
        return Err(invalid(text));
    }
    let level = level.ok_or_else(|| invalid(format!("{LOG_LEVEL} is missing")))?;
    let level: Level = level.parse().map_err(|bad| invalid(format!("{LOG_LEVEL}: {bad}")))?;
    gantry_logging::set_level(&level).map_err(|error| Refusal::new(response::SYSTEM_ERROR, error.to_string()))?;
    warn!(%level, "the log's level was changed by a request, until this broker is started again");
    Ok(Response::success())
}

#[cfg(test)]
mod tests {
    use super::*;
    use gantry_remoting::code::request;

    fn ask(body: &str) -> Result<Response, Refusal> {
        update_config(&Command::request(request::UPDATE_BROKER_CONFIG).with_body(body.as_bytes().to_vec()))
    }

    #[test]
    fn the_logs_level_is_taken_and_nothing_else_with_the_key_that_is_refused() {
        assert!(ask("logLevel=info,gantry_broker\\:\\:ha=debug\n").is_ok());
        let refused = |body: &str| {
            let refusal = ask(body).unwrap_err();
            assert_eq!(refusal.code, response::INVALID_PARAMETER);
            refusal.remark.to_string()
        };
        assert!(refused("logLevel=infoo").contains("logLevel: \"infoo\" is no level"));
        assert!(refused("logLevel=debug\nflushDiskType=ASYNC_FLUSH").starts_with("flushDiskType can't be changed"));
        assert!(refused("").contains("logLevel is missing"));
    }
}
