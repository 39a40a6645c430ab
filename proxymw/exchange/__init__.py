"""The network: one exchange with one origin, and the connections it runs on."""
