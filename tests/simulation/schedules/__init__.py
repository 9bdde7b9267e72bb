"""The real engine in seeded schedules: processes that take turns at each call of a store or a broker, and die there."""
