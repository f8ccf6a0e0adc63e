//! What a `NameServer`'s conditions say.

use crate::plan::conditions::Fact;

/// Name servers as they are seen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServersSeen {
    /// Why the spec can't be carried out, if it can't.
    pub invalid: Option<String>,
    /// What Kubernetes refused, if it did.
    pub refused: Option<String>,
    /// `spec.replicas`
    pub wanted: i32,
    /// Pods that there are.
    pub there: i32,
    /// Those that are ready.
    pub ready: i32,
    /// Each pod is of the newest spec.
    pub rolled_out: bool,
}

/// `Ready`: all of them. `Available`: one at least, and that is enough for clients. `Progressing`: not yet as the spec says.
pub fn servers_facts(seen: &ServersSeen) -> [Fact; 3] {
    let counts = format!("{} of {} name servers are ready", seen.ready, seen.wanted);
    let (available, available_reason) = (seen.ready > 0, if seen.ready > 0 { "OneIsReady" } else { "NoneIsReady" });
    let available = ("Available", available, available_reason, counts.clone());
    let stopped = match (&seen.invalid, &seen.refused) {
        (Some(why), _) => Some(("InvalidSpec", why)),
        (None, Some(why)) => Some(("Refused", why)),
        (None, None) => None,
    };
    if let Some((reason, why)) = stopped {
        return [("Ready", false, reason, why.clone()), available, ("Progressing", false, reason, why.clone())];
    }
    let settled = seen.rolled_out && seen.there == seen.wanted && seen.ready == seen.wanted;
    let ready = seen.ready >= seen.wanted;
    [
        ("Ready", ready, if ready { "AllReady" } else { "NotAllReady" }, counts.clone()),
        available,
        ("Progressing", !settled, if settled { "Settled" } else { "RollingOut" }, counts),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(seen: &ServersSeen) -> Vec<String> {
        servers_facts(seen).into_iter().map(|(type_, holds, reason, _)| format!("{type_}={holds} {reason}")).collect()
    }

    #[test]
    fn conditions_say_how_many_are_ready_and_why_not_more() {
        let whole = ServersSeen { wanted: 2, there: 2, ready: 2, rolled_out: true, ..ServersSeen::default() };
        assert_eq!(lines(&whole), ["Ready=true AllReady", "Available=true OneIsReady", "Progressing=false Settled"]);
        let one = ServersSeen { ready: 1, ..whole.clone() };
        assert_eq!(
            lines(&one),
            ["Ready=false NotAllReady", "Available=true OneIsReady", "Progressing=true RollingOut"]
        );
        for more in
            [ServersSeen { there: 3, ready: 3, ..whole.clone() }, ServersSeen { rolled_out: false, ..whole.clone() }]
        {
            assert_eq!(lines(&more)[2], "Progressing=true RollingOut");
        }
        let refused = ServersSeen { refused: Some("no".to_owned()), ..whole.clone() };
        assert_eq!(lines(&refused), ["Ready=false Refused", "Available=true OneIsReady", "Progressing=false Refused"]);
        let invalid = ServersSeen { invalid: Some("no".to_owned()), ready: 0, ..whole };
        assert_eq!(lines(&invalid)[..2], ["Ready=false InvalidSpec", "Available=false NoneIsReady"]);
    }
}
