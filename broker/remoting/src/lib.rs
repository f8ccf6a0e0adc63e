//! RocketMQ's remoting protocol: frames, headers, bodies, connections. Knows no broker.
