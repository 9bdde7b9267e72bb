"""The real engine under seeded schedules: processes that take turns at every call of a store or a broker, and die there."""
