//! RocketMQ's version ordinals (`MQVersion`): a frame carries its library's one, and some answers depend on it.

/// 3.0.11: from here a registration's body is a `RegisterBrokerBody`, before only its topic table.
pub const V3_0_11: i32 = 37;
/// 4.9.4: from here clients want standard JSON (quoted numeric keys) in routes.
pub const V4_9_4: i32 = 401;
/// 5.0.0: from here a compressed registration ends with its static topic mappings.
pub const V5_0_0: i32 = 413;
/// 5.3.1: clients *above* it understand GO_AWAY.
pub const V5_3_1: i32 = 475;
/// 5.5.0.
pub const V5_5_0: i32 = 513;

/// What Gantry says of itself.
pub const CURRENT: i32 = V5_5_0;
