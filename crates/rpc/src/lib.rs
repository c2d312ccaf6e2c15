//! Port 2377: mTLS gRPC between nodes, on SwarmKit's messages. Design: `docs/design/rpc.md`.
