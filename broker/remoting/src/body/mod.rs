//! JSON bodies, as RocketMQ's (fastjson) names and shapes them.
