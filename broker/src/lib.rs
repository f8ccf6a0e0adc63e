//! The Gantry data plane: broker and name server.
